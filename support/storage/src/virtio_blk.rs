//! Driver of a virtio-blk device (virtio 1.2, section 5.2).
//!
//! Transport and feature negotiation are virtio-drivers'. Its queue is not used: it takes slices, and the payload here is
//! guest RAM of which we only ever have the physical address. The queue of this module is therefore addressed physically,
//! and every request is one descriptor that names an indirect table (2.7.5.3), so that a request of 250 segments is still
//! one request.
//!
//! DMA memory: page 0 holds the rings, page `1 + id` everything of request `id`: header, status byte, range, table. The
//! device writes there, so it is accessed through [`GuestRam`] (with the physical address as its IPA).
//!
//! A request's page is all that submitting it again takes. So [`BlockDevice::restart`] needs neither the guest's rings, which
//! may have changed since they were checked, nor the backend: the device is reset, the queue is set up anew, and the pages
//! of the requests in flight are offered once more.

mod config;
mod ring;

use core::sync::atomic::Ordering;

use partita_virtio::features;
use partita_virtio::memory::{Cells, GuestRam, MemoryError};
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};

use crate::device::{
    BlockDevice, Breach, Command, Completion, Health, Outcome, Properties, Refused, Request, RestartError,
    SECTOR, Segment,
};
use config::Feature;
use ring::Ring;

/// Bytes of DMA memory per request, and for the rings.
pub const PAGE: u64 = 4096;
/// Segments of one request: what fits its page beside header and status.
pub const SEG_MAX: u32 = ((PAGE - TABLE) / 16) as u32 - 2;
/// Most requests in flight.
pub const MAX_DEPTH: u16 = 63;

const QUEUE: u16 = 0;
const HEADER: u64 = 0;
const STATUS: u64 = 16;
const RANGE: u64 = 32;
const TABLE: u64 = 64;
/// The same in words.
const STATUS_WORD: usize = STATUS as usize / 8;
const TABLE_WORD: usize = TABLE as usize / 8;
/// Bytes of a table of three descriptors, and the words of a page that ends with it.
const TABLE_OF_THREE: u32 = 3 * 16;
const FRAME: usize = TABLE_WORD + TABLE_OF_THREE as usize / 8;
/// What the device overwrites.
const NO_STATUS: u8 = 0xff;
/// Looks at the status register until a reset must be over, when the PD starts. Nobody waits for it then.
const RESET_LOOKS: u32 = 1_000_000;
/// Looks when the device is restarted: some milliseconds at most. Others wait, and it can be tried again.
const RESTART_LOOKS: u32 = 10_000;

/// Why a device cannot be driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetupError {
    /// Another type of device.
    NotBlock,
    /// Status does not become 0 after a reset.
    NoReset,
    /// VERSION_1 or INDIRECT_DESC is missing, or FEATURES_OK was refused.
    Features,
    /// Configuration space is too short or makes no sense.
    Config,
    /// The queue is not there, too small, or in use.
    Queue,
    /// The DMA memory is too small, or not aligned to pages.
    Memory,
}

impl From<MemoryError> for SetupError {
    fn from(_: MemoryError) -> Self {
        SetupError::Memory
    }
}

/// The driver.
pub struct VirtioBlk<T: Transport> {
    transport: T,
    dma: GuestRam,
    /// All of it.
    words: Cells<u64>,
    ring: Ring,
    features: Feature,
    properties: Properties,
    /// Bit `id`: in flight. Bit [`MAX_DEPTH`]: the nudge.
    busy: u64,
    /// Bit `id`: in flight, but lost.
    lost: u64,
    flights: [Flight; MAX_DEPTH as usize],
    /// Bit `id`: its page and its descriptor have the frame of a request of one segment, from an earlier one.
    framed: u64,
    health: Health,
}

/// What is known of a request in flight beside its page, which the device can write.
#[derive(Clone, Copy, Default)]
struct Flight {
    /// Bytes of data that it asks the device to write.
    read: u32,
    /// Bytes of its indirect table.
    table: u32,
}

/// Resets the device and sets it up with `dma`.
fn start<T: Transport>(
    transport: &mut T,
    dma: GuestRam,
    looks: u32,
) -> Result<(Ring, Properties, Feature), SetupError> {
    transport.set_status(DeviceStatus::empty());
    // It may still be busy with requests of earlier times, also of a former life of this PD.
    if !(0..looks).any(|_| transport.get_status().is_empty()) {
        return Err(SetupError::NoReset);
    }
    let features = transport.begin_init(Feature::all());
    if !transport.get_status().contains(DeviceStatus::FEATURES_OK)
        || !features.contains(Feature::VERSION_1 | Feature::INDIRECT_DESC)
    {
        return Err(SetupError::Features);
    }
    let mut properties = config::read(transport, features)?;

    let max = u16::try_from(transport.max_queue_size(QUEUE)).unwrap_or(u16::MAX);
    if max < 2 || transport.queue_used(QUEUE) {
        return Err(SetupError::Queue);
    }
    let size = (1 << max.ilog2()).min(ring::MAX_SIZE);
    let pages = dma.size() / PAGE;
    // The last descriptor is the nudge's.
    properties.depth = MAX_DEPTH.min(size - 1).min((pages - 1).min(u64::from(MAX_DEPTH)) as u16);
    properties.seg_max = properties.seg_max.min(SEG_MAX);

    dma.fill(dma.ipa(), PAGE, 0)?;
    let ring = Ring::new(&dma, size, features.contains(Feature::EVENT_IDX))?;
    let layout = ring.layout();
    transport.queue_set(QUEUE, size.into(), layout.desc, layout.avail, layout.used);
    transport.finish_init();
    Ok((ring, properties, features))
}

impl<T: Transport> VirtioBlk<T> {
    /// Resets the device and takes it into use. `dma` must be memory that the device can reach at its IPA, and be used by
    /// nothing else.
    pub fn new(mut transport: T, dma: GuestRam) -> Result<Self, SetupError> {
        if transport.device_type() != DeviceType::Block {
            return Err(SetupError::NotBlock);
        }
        if !dma.ipa().is_multiple_of(PAGE) || dma.size() < 2 * PAGE {
            return Err(SetupError::Memory);
        }
        let (ring, properties, features) = start(&mut transport, dma, RESET_LOOKS)?;
        let words = dma.cells(dma.ipa(), (dma.size() / 8) as usize)?;
        Ok(Self {
            transport,
            dma,
            words,
            ring,
            features,
            properties,
            busy: 0,
            lost: 0,
            flights: [Flight::default(); MAX_DEPTH as usize],
            framed: 0,
            health: Health::Working,
        })
    }

    /// A driver that does nothing: the device is reset, as far as it lets itself be, and given up. For a PD that has died of
    /// driving it, or cannot, and has to answer its clients.
    pub fn refusing(mut transport: T, dma: GuestRam) -> Result<Self, SetupError> {
        if !dma.ipa().is_multiple_of(PAGE) || dma.size() < 2 * PAGE {
            return Err(SetupError::Memory);
        }
        transport.set_status(DeviceStatus::empty());
        let _ = (0..RESET_LOOKS).any(|_| transport.get_status().is_empty());
        let properties = Properties {
            sectors: 0,
            block_size: SECTOR as u32,
            read_only: false,
            // A flush is refused, too: without a cache it would be a success.
            flush: true,
            // An earlier life may have had any of them in flight.
            depth: MAX_DEPTH,
            seg_max: SEG_MAX,
            size_max: u32::MAX,
            topology: None,
            discard: None,
            write_zeroes: None,
        };
        let words = dma.cells(dma.ipa(), (dma.size() / 8) as usize)?;
        let ring = Ring::new(&dma, 2, false)?;
        Ok(Self {
            transport,
            dma,
            words,
            ring,
            features: Feature::empty(),
            properties,
            busy: 0,
            lost: 0,
            framed: 0,
            flights: [Flight::default(); MAX_DEPTH as usize],
            health: Health::Failed,
        })
    }

    const fn page(&self, id: u16) -> u64 {
        self.dma.ipa() + PAGE * (1 + id as u64)
    }

    /// Index of the word at `offset` of a request's page.
    #[inline(always)]
    const fn word(&self, id: u16, offset: u64) -> usize {
        ((PAGE * (1 + id as u64) + offset) / 8) as usize
    }

    /// Stores a word of DMA memory, in the byte order of the device.
    #[inline(always)]
    fn store(&self, word: usize, value: u64) -> Result<(), MemoryError> {
        self.words.store(word, value, Ordering::Relaxed).ok_or(MemoryError::OutOfRam)
    }

    /// Writes everything of a request to its page, and offers it if the device works.
    fn offer(&mut self, request: &Request<'_>) -> Result<(), MemoryError> {
        let page = self.page(request.id);
        self.framed &= !(1 << request.id);
        let mut table = Table { words: self.words, at: self.word(request.id, TABLE), count: 0 };
        let (kind, sector) = match request.command {
            Command::Read => (config::kind::IN, request.sector),
            Command::Write => (config::kind::OUT, request.sector),
            Command::Flush => (config::kind::FLUSH, 0),
            Command::Discard => (config::kind::DISCARD, 0),
            Command::WriteZeroes { .. } => (config::kind::WRITE_ZEROES, 0),
        };
        let header = self.word(request.id, HEADER);
        self.store(header, kind.into())?;
        self.store(header + 1, sector)?;
        self.store(self.word(request.id, STATUS), NO_STATUS.into())?;
        table.add(page + HEADER, 16, false, false)?;
        match request.command {
            Command::Read | Command::Write => {
                let write = request.command == Command::Read;
                for segment in request.segments {
                    table.add(segment.paddr, segment.len, write, false)?;
                }
            }
            Command::Discard | Command::WriteZeroes { .. } => {
                let unmap = request.command == Command::WriteZeroes { unmap: true };
                let range = self.word(request.id, RANGE);
                self.store(range, request.sector)?;
                self.store(range + 1, u64::from(request.sectors) | u64::from(unmap) << 32)?;
                table.add(page + RANGE, 16, false, false)?;
            }
            Command::Flush => {}
        }
        table.add(page + STATUS, 1, true, true)?;
        let (at, bytes) = (page + TABLE, 16 * table.count);
        if let Some(flight) = self.flights.get_mut(usize::from(request.id)) {
            let read = if request.command == Command::Read { request.sectors * SECTOR as u32 } else { 0 };
            *flight = Flight { read, table: bytes };
        }
        if self.health == Health::Working { self.ring.offer(request.id, at, bytes) } else { Ok(()) }
    }

    /// Writes the parts of a request of one segment that are always the same.
    #[cold]
    fn frame(&mut self, id: u16) -> Result<(), MemoryError> {
        let page = self.page(id);
        let group = self.words.group::<FRAME>(self.word(id, 0)).ok_or(MemoryError::OutOfRam)?;
        group.store::<TABLE_WORD>(page + HEADER);
        group.store::<{ TABLE_WORD + 1 }>(raw(16, NEXT, 1));
        group.store::<{ TABLE_WORD + 4 }>(page + STATUS);
        group.store::<{ TABLE_WORD + 5 }>(raw(1, WRITE, 0));
        self.ring.name(id, page + TABLE, TABLE_OF_THREE)?;
        self.framed |= 1 << id;
        Ok(())
    }

    /// Whether a request of one segment is in order and the device works: as [`VirtioBlk::check`], in fewer looks.
    #[inline(always)]
    fn is_plain(&self, id: u16, write: bool, sector: u64, segment: Segment) -> bool {
        let properties = &self.properties;
        let sectors = u64::from(segment.len) / SECTOR;
        self.health == Health::Working
            && id < properties.depth
            && self.busy >> id & 1 == 0
            && segment.len != 0
            && u64::from(segment.len).is_multiple_of(SECTOR)
            && segment.len <= properties.size_max
            && sector <= properties.sectors
            && sectors <= properties.sectors - sector
            && !(write && properties.read_only)
    }

    fn check(&self, request: &Request<'_>) -> Result<(), Refused> {
        let properties = &self.properties;
        if self.health == Health::Failed {
            return Err(Refused::Failed);
        }
        if request.id >= properties.depth || self.busy & 1 << request.id != 0 {
            return Err(Refused::BadId);
        }
        let sectors = u64::from(request.sectors);
        let inside =
            |limit: u64| request.sector <= limit && sectors <= limit - request.sector && sectors != 0;
        let ranged = |limits: Option<crate::device::RangeLimits>| match limits {
            None => Err(Refused::Unsupported),
            Some(limits) if request.sectors > limits.max_sectors => Err(Refused::OutOfRange),
            Some(_) => Ok(()),
        };
        match request.command {
            Command::Flush if !properties.flush => return Err(Refused::Unsupported),
            Command::Flush => return Ok(()),
            Command::Discard => ranged(properties.discard)?,
            Command::WriteZeroes { .. } => ranged(properties.write_zeroes)?,
            Command::Read | Command::Write => {
                let mut bytes = 0u64;
                for segment in request.segments {
                    if segment.len == 0 || segment.len > properties.size_max {
                        return Err(Refused::Segments);
                    }
                    bytes = bytes.saturating_add(u64::from(segment.len));
                }
                let fits = bytes <= u64::from(u32::MAX);
                if request.segments.len() > properties.seg_max as usize || bytes != sectors * SECTOR || !fits
                {
                    return Err(Refused::Segments);
                }
            }
        }
        if properties.read_only && request.command != Command::Read {
            return Err(Refused::ReadOnly);
        }
        if inside(properties.sectors) { Ok(()) } else { Err(Refused::OutOfRange) }
    }

    /// Checks a request and offers it, unless the device is stopped.
    #[cold]
    fn take(&mut self, request: &Request<'_>) -> Result<(), Refused> {
        self.check(request)?;
        self.offer(request).map_err(|_| Refused::Segments)?;
        self.busy |= 1 << request.id;
        Ok(())
    }

    /// Status 0 makes it stop. That it has is waited for in `restart`.
    #[cold]
    fn stop(&mut self, breach: Breach) {
        self.health = Health::Stopped(breach);
        self.transport.set_status(DeviceStatus::empty());
    }

    #[inline(always)]
    fn outcome(&self, id: u16, written: u32) -> Outcome {
        let asked = self.flights.get(usize::from(id)).map_or(0, |flight| flight.read);
        match self.words.load(self.word(id, STATUS), Ordering::Relaxed).map(|word| word as u8) {
            // Some devices forget to count the status byte.
            Some(0) if asked != 0 && (written < asked || written - asked > 1) => Outcome::Incomplete,
            Some(0) => Outcome::Done,
            Some(2) => Outcome::Unsupported,
            _ => Outcome::IoError,
        }
    }

    /// Offers what is in flight once more.
    fn offer_again(&mut self) {
        let mut rest = self.busy & !self.lost;
        while rest != 0 {
            let id = rest.trailing_zeros() as u16;
            rest &= rest - 1;
            let bytes = self.flights.get(usize::from(id)).map_or(0, |flight| flight.table);
            let page = self.page(id);
            let offered = self.store(self.word(id, STATUS), NO_STATUS.into());
            if offered.and_then(|()| self.ring.offer(id, page + TABLE, bytes)).is_err() {
                self.lost |= 1 << id;
            }
        }
    }
}

impl<T: Transport> BlockDevice for VirtioBlk<T> {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn submit(&mut self, request: &Request<'_>) -> Result<(), Refused> {
        if let (Command::Read | Command::Write, [segment], Health::Working) =
            (request.command, request.segments, self.health)
            && u64::from(request.sectors) * SECTOR == u64::from(segment.len)
        {
            return self.submit_one(request.id, request.command == Command::Write, request.sector, *segment);
        }
        self.take(request)
    }

    #[inline]
    fn submit_one(&mut self, id: u16, write: bool, sector: u64, segment: Segment) -> Result<(), Refused> {
        if !self.is_plain(id, write, sector, segment) {
            return self.take(&Request::one(id, write, sector, &segment));
        }
        if self.framed >> id & 1 == 0 {
            self.frame(id).map_err(|_| Refused::Segments)?;
        }
        let Some(page) = self.words.group::<FRAME>(self.word(id, 0)) else { return Err(Refused::Segments) };
        page.store::<0>(if write { config::kind::OUT } else { config::kind::IN }.into());
        page.store::<1>(sector);
        page.store::<STATUS_WORD>(NO_STATUS.into());
        page.store::<{ TABLE_WORD + 2 }>(segment.paddr);
        page.store::<{ TABLE_WORD + 3 }>(raw(segment.len, if write { NEXT } else { NEXT | WRITE }, 2));
        if let Some(flight) = self.flights.get_mut(usize::from(id)) {
            *flight = Flight { read: if write { 0 } else { segment.len }, table: TABLE_OF_THREE };
        }
        self.ring.offer_named(id).map_err(|_| Refused::Segments)?;
        self.busy |= 1 << id;
        Ok(())
    }

    fn kick(&mut self) {
        if self.health == Health::Working && self.ring.publish() {
            self.transport.notify(QUEUE);
        }
    }

    fn acknowledge(&mut self) {
        let bits = self.transport.ack_interrupt();
        if bits.contains(InterruptStatus::DEVICE_CONFIGURATION_INTERRUPT)
            && self.health == Health::Working
            && self.transport.get_status().contains(DeviceStatus::DEVICE_NEEDS_RESET)
        {
            self.stop(Breach::NeedsReset);
        }
    }

    #[inline]
    fn finished(&mut self) -> u16 {
        match self.lost {
            0 => self.ring.used_count(),
            lost => lost.count_ones() as u16,
        }
    }

    #[inline]
    fn complete(&mut self) -> Option<Completion> {
        if self.lost != 0 {
            let id = self.lost.trailing_zeros();
            self.lost &= self.lost - 1;
            self.busy &= !(1 << id);
            return Some(Completion { id: id as u16, outcome: Outcome::Lost });
        }
        while self.health == Health::Working {
            let (head, written) = self.ring.take()?;
            match u16::try_from(head) {
                Ok(id) if id <= MAX_DEPTH && self.busy & 1 << id != 0 => {
                    self.busy &= !(1 << id);
                    if id != MAX_DEPTH {
                        return Some(Completion { id, outcome: self.outcome(id, written) });
                    }
                }
                _ => self.stop(Breach::NotItsRequest(head)),
            }
        }
        None
    }

    fn arm(&mut self) -> bool {
        self.lost != 0 || self.health == Health::Working && self.ring.arm()
    }

    fn nudge(&mut self) {
        if self.health != Health::Working || self.busy & 1 << MAX_DEPTH != 0 {
            return;
        }
        // GET_ID does nothing to the disk. It lives behind the rings.
        let at = self.dma.ipa() + ring::NUDGE;
        let word = (ring::NUDGE / 8) as usize;
        let mut table = Table { words: self.words, at: word + (TABLE / 8) as usize, count: 0 };
        let written = self
            .store(word, config::kind::GET_ID.into())
            .and_then(|()| self.store(word + 1, 0))
            .and_then(|()| table.add(at + HEADER, 16, false, false))
            .and_then(|()| table.add(at + RANGE, partita_virtio::blk::ID_BYTES as u32, true, false))
            .and_then(|()| table.add(at + STATUS, 1, true, true));
        let (at, count) = (at + TABLE, table.count);
        if written.and_then(|()| self.ring.offer_nudge(at, 16 * count)).is_ok() {
            self.busy |= 1 << MAX_DEPTH;
            // Nothing else may be in flight, and then nobody has asked for an interrupt.
            let _ = self.ring.arm();
            self.kick();
        }
    }

    fn health(&self) -> Health {
        self.health
    }

    fn restart(&mut self, drop: u64) -> Result<(), RestartError> {
        // The descriptors go.
        self.framed = 0;
        let (ring, properties, features) =
            start(&mut self.transport, self.dma, RESTART_LOOKS).map_err(|error| match error {
                SetupError::NoReset => RestartError::NoReset,
                _ => RestartError::Changed,
            })?;
        // It may have grown; what was promised to guests still holds then.
        let same = Properties { sectors: self.properties.sectors, ..properties } == self.properties;
        if !same || features != self.features || properties.sectors < self.properties.sectors {
            return Err(RestartError::Changed);
        }
        self.ring = ring;
        self.busy &= !(1 << MAX_DEPTH);
        self.lost |= self.busy & drop;
        self.health = Health::Working;
        self.offer_again();
        self.kick();
        Ok(())
    }

    fn give_up(&mut self) {
        self.transport.set_status(DeviceStatus::empty());
        self.health = Health::Failed;
        self.busy &= !(1 << MAX_DEPTH);
        self.lost = self.busy;
    }
}

/// VIRTQ_DESC_F_NEXT and _WRITE.
const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// Second word of a descriptor.
const fn raw(len: u32, flags: u16, next: u16) -> u64 {
    len as u64 | (flags as u64) << 32 | (next as u64) << 48
}

/// An indirect table being written.
struct Table {
    words: Cells<u64>,
    /// Index of its first word.
    at: usize,
    count: u32,
}

impl Table {
    #[inline(always)]
    fn add(&mut self, addr: u64, len: u32, writable: bool, last: bool) -> Result<(), MemoryError> {
        let flags = if writable { WRITE } else { 0 } | if last { 0 } else { NEXT };
        let at = self.at + 2 * self.count as usize;
        self.count += 1;
        let stored = self.words.store_all(at, [addr, raw(len, flags, self.count as u16)]);
        stored.ok_or(MemoryError::OutOfRam)
    }
}

const _: () = assert!(Feature::EVENT_IDX.bits() == features::EVENT_IDX);
const _: () = assert!(Feature::INDIRECT_DESC.bits() == features::INDIRECT_DESC);
const _: () = assert!(Feature::VERSION_1.bits() == features::VERSION_1);

#[cfg(test)]
mod tests;
