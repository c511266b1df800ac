//! The device's side of a split virtqueue (section 2.7).
//!
//! The three parts of the queue are in guest RAM, so everything read here is copied once and then checked, and every
//! loop is bounded by a number that the guest cannot change meanwhile. What breaks the rules ends in a [`Fault`], which is
//! always the guest's: the device then stops using the queue and sets DEVICE_NEEDS_RESET (2.1.2).
//!
//! [`Queue::pop`] yields a [`Chain`], which yields [`Descriptor`]s without allocation, following indirect tables. Used
//! elements become visible in batches: [`Queue::push`] writes them, [`Queue::publish`] moves the index and says whether
//! the guest wants to know.

use core::sync::atomic::{Ordering, fence};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::features;
use crate::memory::{Cells, GuestRam, MemoryError};

/// Greatest queue size of a split virtqueue (2.7).
pub const MAX_QUEUE_SIZE: u16 = 32768;

/// Greatest number of descriptors in an indirect table that we walk. The specification bounds a chain by the queue size
/// (2.7.5.3.1), but Linux does not when the queue is smaller than the number of segments that the device takes.
pub const MAX_INDIRECT: u32 = 1024;

/// VIRTQ_DESC_F_NEXT: `next` is valid.
pub const DESC_F_NEXT: u16 = 1;
/// VIRTQ_DESC_F_WRITE: for the device to write.
pub const DESC_F_WRITE: u16 = 2;
const DESC_F_INDIRECT: u16 = 4;
const AVAIL_F_NO_INTERRUPT: u16 = 1;
const USED_F_NO_NOTIFY: u16 = 1;
/// Half-words of either ring.
const FLAGS: usize = 0;
const INDEX: usize = 1;

/// Which rule the guest's driver broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The queue size is not a power of two up to the device's maximum.
    Size,
    /// An area of the queue is not aligned (2.7: 16, 2 and 4 bytes).
    Alignment,
    /// An address is not in the guest's RAM.
    OutOfRam,
    /// avail.idx is ahead by more than the queue size.
    AvailIndex,
    /// A descriptor index is not below the size of its table.
    DescriptorIndex,
    /// A chain is longer than its table: it has a loop.
    ChainLength,
    /// A device-readable descriptor after a device-writable one (2.7.4.2).
    Order,
    /// A descriptor of length 0.
    EmptyDescriptor,
    /// INDIRECT without the feature, inside an indirect table, or together with NEXT (2.7.5.3.1).
    Indirect,
    /// The length of an indirect table is 0, not a multiple of 16, or above [`MAX_INDIRECT`] descriptors.
    IndirectLength,
    /// The request's framing is impossible for the device type.
    Framing,
}

impl From<MemoryError> for Fault {
    fn from(error: MemoryError) -> Self {
        match error {
            MemoryError::OutOfRam => Fault::OutOfRam,
            MemoryError::Misaligned => Fault::Alignment,
        }
    }
}

/// Where the driver put a queue: what it wrote to QueueNum, QueueDesc, QueueDriver and QueueDevice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueLayout {
    /// Number of descriptors.
    pub size: u16,
    /// Descriptor table.
    pub desc: u64,
    /// Available ring.
    pub avail: u64,
    /// Used ring.
    pub used: u64,
}

impl QueueLayout {
    /// What can be checked without knowing where RAM is.
    pub const fn check(&self, max: u16) -> Result<(), Fault> {
        if !self.size.is_power_of_two() || self.size > max || self.size > MAX_QUEUE_SIZE {
            return Err(Fault::Size);
        }
        if !self.desc.is_multiple_of(16) || !self.avail.is_multiple_of(2) || !self.used.is_multiple_of(4) {
            return Err(Fault::Alignment);
        }
        Ok(())
    }
}

/// virtq_desc (2.7.5), as read from guest memory.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RawDescriptor {
    /// Guest-physical address.
    pub addr: u64,
    /// Bytes.
    pub len: u32,
    /// NEXT, WRITE, INDIRECT.
    pub flags: u16,
    /// Index of the next descriptor if NEXT is set.
    pub next: u16,
}

/// Second word of a descriptor, as [`Table`] has it.
pub const fn descriptor(len: u32, flags: u16, next: u16) -> u64 {
    len as u64 | (flags as u64) << 32 | (next as u64) << 48
}

/// An indirect table of three, as read from guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// Index of the head descriptor.
    pub head: u16,
    /// Its descriptors: an address, then what [`descriptor`] makes.
    pub words: [u64; 6],
}

/// One buffer of a chain. Not yet compared with RAM: whoever uses the address does that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Guest-physical address.
    pub addr: u64,
    /// Bytes, never 0.
    pub len: u32,
    /// The device writes it (else reads it).
    pub writable: bool,
}

/// A queue in use: layout checked, positions known.
#[derive(Clone, Copy, Debug)]
pub struct Queue {
    ram: GuestRam,
    layout: QueueLayout,
    /// Descriptor table, two words each.
    desc: Cells<u64>,
    /// Available ring: flags, index, entries, used_event.
    avail: Cells<u16>,
    /// Used ring as half-words: flags, index, ..., avail_event.
    used: Cells<u16>,
    /// Used ring as words: flags and index, then the elements.
    elements: Cells<u32>,
    indirect: bool,
    event_idx: bool,
    /// Next avail entry to read.
    next_avail: u16,
    /// avail.idx as last read.
    seen_avail: u16,
    /// Next used entry to write.
    next_used: u16,
    /// used.idx as last published.
    published: u16,
}

impl Queue {
    /// Takes a queue into use at DRIVER_OK: both indices are 0.
    pub fn new(ram: GuestRam, layout: QueueLayout, max_size: u16, features: u64) -> Result<Self, Fault> {
        layout.check(max_size)?;
        let size = usize::from(layout.size);
        let desc = ram.cells(layout.desc, 2 * size)?;
        // The event word at the end is there even if EVENT_IDX is not negotiated (2.7).
        let avail = ram.cells(layout.avail, 3 + size)?;
        let used = ram.cells(layout.used, 3 + 4 * size)?;
        let elements = ram.cells(layout.used, 1 + 2 * size)?;
        Ok(Self {
            ram,
            layout,
            desc,
            avail,
            used,
            elements,
            indirect: features & features::INDIRECT_DESC != 0,
            event_idx: features & features::EVENT_IDX != 0,
            next_avail: 0,
            seen_avail: 0,
            next_used: 0,
            published: 0,
        })
    }

    /// Takes a queue into use again after the device was restarted under a running driver: the used index is read back,
    /// `in_flight` chains had been taken but not returned.
    pub fn resume(&mut self, in_flight: u16) -> Result<(), Fault> {
        let used = self.used.load(INDEX, Ordering::Acquire).ok_or(Fault::OutOfRam)?;
        self.next_used = used;
        self.published = used;
        self.next_avail = used.wrapping_add(in_flight);
        self.seen_avail = self.next_avail;
        Ok(())
    }

    /// Where it is.
    pub const fn layout(&self) -> &QueueLayout {
        &self.layout
    }

    /// Number of descriptors.
    pub const fn size(&self) -> u16 {
        self.layout.size
    }

    /// Guest RAM that the queue and its buffers are in.
    pub const fn ram(&self) -> &GuestRam {
        &self.ram
    }

    /// Position after the last used element written, published or not.
    pub const fn next_used(&self) -> u16 {
        self.next_used
    }

    /// Position of the next available entry.
    pub const fn next_avail(&self) -> u16 {
        self.next_avail
    }

    #[inline(always)]
    const fn slot(&self, index: u16) -> usize {
        (index & self.layout.size.wrapping_sub(1)) as usize
    }

    /// Chains are available. With kicks enabled "no" is safe: the driver will notify for the next one.
    #[inline]
    pub fn has_available(&mut self) -> Result<bool, Fault> {
        if self.seen_avail != self.next_avail { Ok(true) } else { self.refresh() }
    }

    /// Takes the next available chain.
    #[inline]
    pub fn pop(&mut self) -> Result<Option<Chain>, Fault> {
        Ok(self.pop_head()?.map(|head| self.chain(head)))
    }

    /// The next available chain if it is one indirect table of three descriptors, which are then read in one go and not
    /// checked. It stays available: take it with [`Queue::skip`]. `None` says nothing: ask [`Queue::pop`].
    #[inline]
    pub fn peek_table(&mut self) -> Option<Table> {
        const OUTER: u64 = descriptor(3 * 16, DESC_F_INDIRECT, 0);
        if !self.indirect || (self.seen_avail == self.next_avail && !self.refresh().ok()?) {
            return None;
        }
        let head = self.read_head(self.next_avail).ok()?;
        let [addr, rest] = self.desc.load_all(2 * usize::from(head))?;
        // `next` means nothing without NEXT.
        if rest << 16 != OUTER << 16 {
            return None;
        }
        let words = self.ram.read_words(addr).ok()?.map(u64::from_le);
        Some(Table { head, words })
    }

    /// Takes the chain that [`Queue::peek_table`] found.
    #[inline]
    pub fn skip(&mut self) {
        self.next_avail = self.next_avail.wrapping_add(1);
    }

    /// Takes the next available chain and returns its head. For those to whom moving a [`Chain`] in its two wrappers is too
    /// much: [`Queue::chain_at`] makes it where it is used.
    #[inline]
    pub fn pop_head(&mut self) -> Result<Option<u16>, Fault> {
        if self.seen_avail == self.next_avail && !self.refresh()? {
            return Ok(None);
        }
        let head = self.read_head(self.next_avail)?;
        self.next_avail = self.next_avail.wrapping_add(1);
        Ok(Some(head))
    }

    /// The chain at `head`, for a request that had been taken before a restart.
    pub fn chain_at(&self, head: u16) -> Result<Chain, Fault> {
        if head >= self.layout.size { Err(Fault::DescriptorIndex) } else { Ok(self.chain(head)) }
    }

    #[inline(always)]
    fn read_head(&self, position: u16) -> Result<u16, Fault> {
        let head = self.avail.load(2 + self.slot(position), Ordering::Relaxed).ok_or(Fault::OutOfRam)?;
        if head >= self.layout.size { Err(Fault::DescriptorIndex) } else { Ok(head) }
    }

    const fn chain(&self, head: u16) -> Chain {
        Chain {
            ram: self.ram,
            table: self.layout.desc,
            entries: self.layout.size as u32,
            next: Some(head),
            walked: 0,
            head,
            writable: false,
            indirect: self.indirect,
        }
    }

    /// Reads avail.idx again. True if chains are available.
    #[inline]
    fn refresh(&mut self) -> Result<bool, Fault> {
        // Acquire: the entries and descriptors before the index were written before it (2.7.13.3).
        let avail = self.avail.load(INDEX, Ordering::Acquire).ok_or(Fault::OutOfRam)?;
        if avail.wrapping_sub(self.next_avail) > self.layout.size {
            return Err(Fault::AvailIndex);
        }
        self.seen_avail = avail;
        Ok(avail != self.next_avail)
    }

    /// Writes a used element: the chain at `head` is done and `written` bytes of its writable part have been written. The
    /// driver sees it after [`Queue::publish`].
    #[inline]
    pub fn push(&mut self, head: u16, written: u32) -> Result<(), Fault> {
        let element = 1 + 2 * self.slot(self.next_used);
        self.elements.store_all(element, [u32::from(head), written]).ok_or(Fault::OutOfRam)?;
        self.next_used = self.next_used.wrapping_add(1);
        Ok(())
    }

    /// Makes pushed elements visible. True if the driver wants an interrupt for them (2.7.7.2).
    #[inline]
    pub fn publish(&mut self) -> Result<bool, Fault> {
        let (old, new) = (self.published, self.next_used);
        if old == new {
            return Ok(false);
        }
        // Release: elements, status bytes and data are visible before the index.
        self.used.store(INDEX, new, Ordering::Release).ok_or(Fault::OutOfRam)?;
        self.published = new;
        // The driver writes used_event and then looks at used.idx; we do the reverse. Without the full fence both could
        // miss the other's store.
        fence(Ordering::SeqCst);
        if self.event_idx {
            let event = self.avail.load(2 + usize::from(self.layout.size), Ordering::Relaxed);
            Ok(crosses(event.ok_or(Fault::OutOfRam)?, new, old))
        } else {
            let flags = self.avail.load(FLAGS, Ordering::Relaxed).ok_or(Fault::OutOfRam)?;
            Ok(flags & AVAIL_F_NO_INTERRUPT == 0)
        }
    }

    /// Asks the driver not to notify: we will look at the queue anyway (2.7.10).
    pub fn disable_kicks(&mut self) -> Result<(), Fault> {
        // With EVENT_IDX the event index stays where it is, behind us: the driver stays silent until it wraps.
        if !self.event_idx {
            self.used.store(FLAGS, USED_F_NO_NOTIFY, Ordering::Relaxed).ok_or(Fault::OutOfRam)?;
        }
        Ok(())
    }

    /// Asks for a notification for the next available chain. True if there is one already: then none may come, and the
    /// caller goes on popping.
    pub fn enable_kicks(&mut self) -> Result<bool, Fault> {
        if self.event_idx {
            let event = 2 + 4 * usize::from(self.layout.size);
            self.used.store(event, self.next_avail, Ordering::Relaxed).ok_or(Fault::OutOfRam)?;
        } else {
            self.used.store(FLAGS, 0, Ordering::Relaxed).ok_or(Fault::OutOfRam)?;
        }
        // Store of the wish before load of avail.idx, as in `publish`.
        fence(Ordering::SeqCst);
        self.refresh()
    }
}

/// vring_need_event (2.7.10): true if the index `event` + 1 lies in (`old`, `new`].
pub const fn crosses(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

/// A descriptor chain being walked.
#[derive(Clone, Copy, Debug)]
pub struct Chain {
    ram: GuestRam,
    /// Table being walked: the queue's or an indirect one.
    table: u64,
    /// Its size.
    entries: u32,
    next: Option<u16>,
    walked: u32,
    head: u16,
    /// A writable descriptor was seen.
    writable: bool,
    /// INDIRECT is allowed here.
    indirect: bool,
}

impl Chain {
    /// Index of the head descriptor: what the used element names.
    pub const fn head(&self) -> u16 {
        self.head
    }

    /// Guest RAM that the buffers must be in.
    pub const fn ram(&self) -> &GuestRam {
        &self.ram
    }

    /// Next descriptor, `None` at the end. Ends after at most queue size + 1 + [`MAX_INDIRECT`] calls whatever the guest
    /// does.
    #[inline]
    pub fn next_descriptor(&mut self) -> Result<Option<Descriptor>, Fault> {
        let Some(index) = self.next else { return Ok(None) };
        let raw = self.read(index)?;
        if raw.flags & DESC_F_INDIRECT == 0 {
            return self.accept(raw).map(Some);
        }
        if !self.indirect || raw.flags & DESC_F_NEXT != 0 {
            return Err(Fault::Indirect);
        }
        if raw.len == 0 || !raw.len.is_multiple_of(16) || raw.len / 16 > MAX_INDIRECT {
            return Err(Fault::IndirectLength);
        }
        self.ram.offset(raw.addr, u64::from(raw.len)).ok_or(Fault::OutOfRam)?;
        self.table = raw.addr;
        self.entries = raw.len / 16;
        self.walked = 0;
        self.indirect = false;
        let first = self.read(0)?;
        if first.flags & DESC_F_INDIRECT != 0 {
            return Err(Fault::Indirect);
        }
        self.accept(first).map(Some)
    }

    fn read(&mut self, index: u16) -> Result<RawDescriptor, Fault> {
        if u32::from(index) >= self.entries {
            return Err(Fault::DescriptorIndex);
        }
        if self.walked >= self.entries {
            return Err(Fault::ChainLength);
        }
        self.walked += 1;
        let raw: RawDescriptor = self.ram.read_obj(self.table + 16 * u64::from(index))?;
        Ok(RawDescriptor {
            addr: u64::from_le(raw.addr),
            len: u32::from_le(raw.len),
            flags: u16::from_le(raw.flags),
            next: u16::from_le(raw.next),
        })
    }

    fn accept(&mut self, raw: RawDescriptor) -> Result<Descriptor, Fault> {
        self.next = (raw.flags & DESC_F_NEXT != 0).then_some(raw.next);
        let writable = raw.flags & DESC_F_WRITE != 0;
        if self.writable && !writable {
            return Err(Fault::Order);
        }
        self.writable = writable;
        if raw.len == 0 {
            return Err(Fault::EmptyDescriptor);
        }
        Ok(Descriptor { addr: raw.addr, len: raw.len, writable })
    }
}

#[cfg(test)]
mod tests;
