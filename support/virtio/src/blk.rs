//! virtio-blk requests and configuration, device side (section 5.2).
//!
//! [`parse`] turns a descriptor chain into a [`Parsed`] request: header and placement of the status byte read once,
//! payload as a list of *physical* segments, each checked against the guest's RAM. Framing is free as 2.7.4.1 wants it:
//! the header is the first 16 readable bytes, the status the last writable byte, wherever descriptors begin and end.
//!
//! What is wrong with the chain as such is a [`Fault`] (the device needs a reset); what is wrong with a well-formed request
//! is a [`BlkStatus`] that the guest gets for this request only.

pub mod config;
mod plain;

pub use plain::{Plain, plain};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::memory::GuestRam;
use crate::queue::{Chain, Descriptor, Fault};

/// Device id (5.2.1).
pub const DEVICE_ID: u32 = 2;
/// Bytes of a sector in every field of the protocol (5.2.4).
pub const SECTOR: u64 = 512;
/// Bytes that GET_ID returns (5.2.6).
pub const ID_BYTES: usize = 20;

/// Feature bits (5.2.3).
pub mod feature {
    /// Maximum size of a segment is in `size_max`.
    pub const SIZE_MAX: u64 = 1 << 1;
    /// Maximum number of segments is in `seg_max`.
    pub const SEG_MAX: u64 = 1 << 2;
    /// Read-only.
    pub const RO: u64 = 1 << 5;
    /// Block size is in `blk_size`.
    pub const BLK_SIZE: u64 = 1 << 6;
    /// Cache flush command.
    pub const FLUSH: u64 = 1 << 9;
    /// Topology is in `topology`.
    pub const TOPOLOGY: u64 = 1 << 10;
    /// Several queues.
    pub const MQ: u64 = 1 << 12;
    /// Discard command.
    pub const DISCARD: u64 = 1 << 13;
    /// Write zeroes command.
    pub const WRITE_ZEROES: u64 = 1 << 14;
}

/// Request types (5.2.6).
pub mod kind {
    #![allow(missing_docs)] // VIRTIO_BLK_T_*.
    pub const IN: u32 = 0;
    pub const OUT: u32 = 1;
    pub const FLUSH: u32 = 4;
    pub const GET_ID: u32 = 8;
    pub const DISCARD: u32 = 11;
    pub const WRITE_ZEROES: u32 = 13;
}

/// The status byte of a request (5.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum BlkStatus {
    /// Done.
    Ok = 0,
    /// Device or driver error.
    IoErr = 1,
    /// The device does not know this request.
    Unsupp = 2,
}

/// First part of every request (5.2.6).
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// VIRTIO_BLK_T_*.
    pub kind: u32,
    /// Unused.
    pub reserved: u32,
    /// First sector, in units of 512 bytes.
    pub sector: u64,
}

/// Data of a discard or write-zeroes request (5.2.6).
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Range {
    /// First sector.
    pub sector: u64,
    /// Sectors.
    pub sectors: u32,
    /// Bit 0: unmap (write zeroes only).
    pub flags: u32,
}

/// Contiguous physical memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// First byte.
    pub paddr: u64,
    /// Bytes, not 0.
    pub len: u32,
}

/// Payload segments of one request, of at most `N`.
#[derive(Debug)]
pub struct Segments<const N: usize> {
    list: [Segment; N],
    len: usize,
    bytes: u64,
}

impl<const N: usize> Segments<N> {
    /// Empty.
    pub const fn new() -> Self {
        Self { list: [Segment { paddr: 0, len: 0 }; N], len: 0, bytes: 0 }
    }

    /// Replaces all by one.
    pub fn set(&mut self, segment: Segment) {
        if let Some(first) = self.list.first_mut() {
            *first = segment;
        }
        self.len = 1;
        self.bytes = segment.len.into();
    }

    /// The list.
    pub fn as_slice(&self) -> &[Segment] {
        self.list.get(..self.len).unwrap_or_default()
    }

    /// Sum of the lengths.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    fn clear(&mut self) {
        self.len = 0;
        self.bytes = 0;
    }

    /// Appends, joining with the last one if they touch. `None` if there is no room.
    fn push(&mut self, paddr: u64, len: u32, limits: &Limits) -> Option<()> {
        self.bytes = self.bytes.checked_add(u64::from(len))?;
        if let Some(last) = self.len.checked_sub(1).and_then(|last| self.list.get_mut(last))
            && last.paddr + u64::from(last.len) == paddr
            && let Some(joined) = last.len.checked_add(len)
            && joined <= limits.size_max
        {
            last.len = joined;
            return Some(());
        }
        if len > limits.size_max || self.len >= limits.seg_max as usize {
            return None;
        }
        *self.list.get_mut(self.len)? = Segment { paddr, len };
        self.len += 1;
        Some(())
    }
}

impl<const N: usize> Default for Segments<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// What the device below takes in one request.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Segments.
    pub seg_max: u32,
    /// Bytes in a segment.
    pub size_max: u32,
}

/// What the request asks for. Sectors count from the start of the guest's disk and are not yet compared with its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Into the segments.
    Read {
        /// First sector.
        sector: u64,
    },
    /// From the segments.
    Write {
        /// First sector.
        sector: u64,
    },
    /// Make everything completed so far durable.
    Flush,
    /// The disk's serial number into the segments.
    GetId,
    /// The range's content is of no interest any more.
    Discard {
        /// First sector.
        sector: u64,
        /// Sectors.
        sectors: u32,
    },
    /// The range shall read as zeroes.
    WriteZeroes {
        /// First sector.
        sector: u64,
        /// Sectors.
        sectors: u32,
        /// The device may deallocate it.
        unmap: bool,
    },
}

/// A request whose chain is in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// What to do, or the status to answer with.
    pub operation: Result<Operation, BlkStatus>,
    /// Where the status byte goes; in RAM.
    pub status: u64,
    /// Bytes of the writable part before the status byte.
    pub writable: u32,
}

impl Parsed {
    /// `used.len` for a request that ended with `status`: the bytes written from the start of the writable part without a
    /// gap (2.7.8.2). After an error nothing is known of the data.
    pub const fn used_len(&self, status: BlkStatus) -> u32 {
        let data = match (self.operation, status) {
            (Ok(Operation::Read { .. }), BlkStatus::Ok) => self.writable,
            (Ok(Operation::GetId), BlkStatus::Ok) if self.writable > ID_BYTES as u32 => ID_BYTES as u32,
            (Ok(Operation::GetId), BlkStatus::Ok) => self.writable,
            _ => 0,
        };
        // The status byte counts if nothing unwritten is before it.
        if data == self.writable { data + 1 } else { data }
    }
}

/// Reads the chain. `segments` is filled with the data part: of the writable side for a read or GET_ID, of the readable side
/// for a write.
pub fn parse<const N: usize>(
    mut chain: Chain,
    limits: &Limits,
    segments: &mut Segments<N>,
) -> Result<Parsed, Fault> {
    let ram = *chain.ram();
    segments.clear();
    let mut header = Bytes::<16>::new();
    // Ranges of discard and write zeroes: one is accepted, one byte more shows that there are two.
    let mut range = Bytes::<17>::new();
    let mut fits = true;
    let mut next = chain.next_descriptor()?;
    while let Some(descriptor) = next.filter(|descriptor| !descriptor.writable) {
        let paddr = translate(&ram, &descriptor)?;
        let used = header.take(&ram, &descriptor, 0)?;
        if used < descriptor.len {
            let data = descriptor.len - used;
            fits &= segments.push(paddr + u64::from(used), data, limits).is_some();
            range.take(&ram, &descriptor, used)?;
        }
        next = chain.next_descriptor()?;
    }
    let header =
        Header::read_from_bytes(header.complete().ok_or(Fault::Framing)?).map_err(|_| Fault::Framing)?;
    let kind = u32::from_le(header.kind);
    let sector = u64::from_le(header.sector);
    let reads = matches!(kind, kind::IN | kind::GET_ID);
    if reads {
        segments.clear();
        fits = true;
    }

    // One writable descriptor is held back, so that the last one, which ends with the status byte, is known as such.
    let Some(mut last) = next else { return Err(Fault::Framing) };
    let mut last_paddr = translate(&ram, &last)?;
    let mut writable = 0u32;
    let mut add = |paddr, len: u32| {
        writable = writable.checked_add(len).filter(|sum| *sum < u32::MAX).ok_or(Fault::Framing)?;
        if reads && len > 0 {
            fits &= segments.push(paddr, len, limits).is_some();
        }
        Ok::<(), Fault>(())
    };
    while let Some(descriptor) = chain.next_descriptor()? {
        let paddr = translate(&ram, &descriptor)?;
        add(last_paddr, last.len)?;
        (last, last_paddr) = (descriptor, paddr);
    }
    add(last_paddr, last.len - 1)?;
    let status = last.addr + u64::from(last.len - 1);

    let operation = operation(kind, sector, fits, segments.bytes(), range.exactly(16));
    Ok(Parsed { operation, status, writable })
}

fn operation(
    kind: u32,
    sector: u64,
    fits: bool,
    bytes: u64,
    range: Option<&[u8]>,
) -> Result<Operation, BlkStatus> {
    let data = fits && bytes != 0;
    match kind {
        kind::IN | kind::OUT if !data || !bytes.is_multiple_of(SECTOR) => Err(BlkStatus::IoErr),
        kind::IN => Ok(Operation::Read { sector }),
        kind::OUT => Ok(Operation::Write { sector }),
        kind::FLUSH => Ok(Operation::Flush),
        kind::GET_ID if data => Ok(Operation::GetId),
        kind::GET_ID => Err(BlkStatus::IoErr),
        kind::DISCARD | kind::WRITE_ZEROES => {
            let range = range.and_then(|range| Range::read_from_bytes(range).ok()).ok_or(BlkStatus::IoErr)?;
            let (sector, sectors) = (u64::from_le(range.sector), u32::from_le(range.sectors));
            match (kind, u32::from_le(range.flags)) {
                (kind::DISCARD, 0) => Ok(Operation::Discard { sector, sectors }),
                (kind::WRITE_ZEROES, flags @ (0 | 1)) => {
                    Ok(Operation::WriteZeroes { sector, sectors, unmap: flags == 1 })
                }
                // Reserved flags, and unmap for a discard, are unsupported (5.2.6.2).
                _ => Err(BlkStatus::Unsupp),
            }
        }
        _ => Err(BlkStatus::Unsupp),
    }
}

fn translate(ram: &GuestRam, descriptor: &Descriptor) -> Result<u64, Fault> {
    ram.translate(descriptor.addr, u64::from(descriptor.len)).ok_or(Fault::OutOfRam)
}

/// The first `N` bytes of something that may be cut into descriptors.
struct Bytes<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Bytes<N> {
    const fn new() -> Self {
        Self { bytes: [0; N], len: 0 }
    }

    /// Copies from the descriptor, from byte `skip` on, what is still missing. Returns how many bytes.
    fn take(&mut self, ram: &GuestRam, descriptor: &Descriptor, skip: u32) -> Result<u32, Fault> {
        let room = N - self.len;
        let count = room.min((descriptor.len - skip) as usize);
        let into = self.bytes.get_mut(self.len..self.len + count).ok_or(Fault::Framing)?;
        ram.read(descriptor.addr + u64::from(skip), into)?;
        self.len += count;
        Ok(count as u32)
    }

    fn complete(&self) -> Option<&[u8]> {
        self.exactly(N)
    }

    fn exactly(&self, len: usize) -> Option<&[u8]> {
        if self.len == len { self.bytes.get(..len) } else { None }
    }
}

#[cfg(test)]
mod tests;
