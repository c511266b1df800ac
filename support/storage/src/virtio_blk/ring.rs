//! The driver's side of a split virtqueue (2.7) whose descriptor `i` always is the indirect table of request `i`.

use core::sync::atomic::{Ordering, fence};

use partita_virtio::memory::{Cells, GuestRam, MemoryError};
use partita_virtio::queue::{QueueLayout, crosses};

/// Descriptors. The last one is the nudge's.
pub const MAX_SIZE: u16 = 64;

const DESC: u64 = 0;
const AVAIL: u64 = 1024;
const USED: u64 = 2048;
/// Where the page has room for the nudge.
pub const NUDGE: u64 = 3072;

const _: () = assert!(16 * MAX_SIZE as u64 <= AVAIL);
const _: () = assert!(AVAIL + 6 + 2 * MAX_SIZE as u64 <= USED);
const _: () = assert!(USED + 6 + 8 * MAX_SIZE as u64 <= NUDGE);

/// Half-words of either ring.
const INDEX: usize = 1;

/// Rings in the first page of DMA memory, and our positions in them.
pub struct Ring {
    base: u64,
    /// Descriptors, two words each.
    desc: Cells<u64>,
    /// Available ring: flags, index, entries, used_event.
    avail: Cells<u16>,
    /// Used ring as half-words: flags, index, ..., avail_event.
    used_ring: Cells<u16>,
    /// Used ring as words: flags and index, then the elements.
    elements: Cells<u32>,
    size: u16,
    event_idx: bool,
    /// avail.idx when everything offered is published.
    next: u16,
    published: u16,
    used: u16,
    /// The device's index as last read.
    seen: u16,
}

impl Ring {
    /// The page must be zero; `size` is a power of two up to [`MAX_SIZE`].
    pub fn new(dma: &GuestRam, size: u16, event_idx: bool) -> Result<Self, MemoryError> {
        let (base, count) = (dma.ipa(), usize::from(size));
        Ok(Self {
            base,
            desc: dma.cells(base + DESC, 2 * count)?,
            avail: dma.cells(base + AVAIL, 3 + count)?,
            used_ring: dma.cells(base + USED, 3 + 4 * count)?,
            elements: dma.cells(base + USED, 1 + 2 * count)?,
            size,
            event_idx,
            next: 0,
            published: 0,
            used: 0,
            seen: 0,
        })
    }

    pub const fn layout(&self) -> QueueLayout {
        let base = self.base;
        QueueLayout { size: self.size, desc: base + DESC, avail: base + AVAIL, used: base + USED }
    }

    #[inline(always)]
    const fn slot(&self, position: u16) -> usize {
        (position & self.size.wrapping_sub(1)) as usize
    }

    /// Offers the table of `bytes` at `table` as descriptor `id`. The device sees it after [`Ring::publish`].
    #[inline]
    pub fn offer(&mut self, id: u16, table: u64, bytes: u32) -> Result<(), MemoryError> {
        self.offer_at(id, id, table, bytes)
    }

    /// Offers the table as the last descriptor.
    pub fn offer_nudge(&mut self, table: u64, bytes: u32) -> Result<(), MemoryError> {
        self.offer_at(self.size - 1, self.size - 1, table, bytes)
    }

    #[inline(always)]
    fn offer_at(&mut self, index: u16, head: u16, table: u64, bytes: u32) -> Result<(), MemoryError> {
        self.name(index, table, bytes)?;
        self.offer_named(head)
    }

    /// Makes descriptor `index` name the table of `bytes` at `table`.
    #[inline]
    pub fn name(&mut self, index: u16, table: u64, bytes: u32) -> Result<(), MemoryError> {
        const INDIRECT: u64 = 4;
        let named = self.desc.store_all(2 * usize::from(index), [table, u64::from(bytes) | INDIRECT << 32]);
        named.ok_or(MemoryError::OutOfRam)
    }

    /// [`Ring::offer`] for a descriptor that names its table already.
    #[inline(always)]
    pub fn offer_named(&mut self, id: u16) -> Result<(), MemoryError> {
        let stored = self.avail.store(2 + self.slot(self.next), id, Ordering::Relaxed);
        self.next = self.next.wrapping_add(1);
        stored.ok_or(MemoryError::OutOfRam)
    }

    /// Shows the device what was offered. True if it wants a notification.
    pub fn publish(&mut self) -> bool {
        let (old, new) = (self.published, self.next);
        if old == new {
            return false;
        }
        self.published = new;
        // The accesses are inside the page by construction; a failure would mean no notification, which is safe to send.
        let _ = self.avail.store(INDEX, new, Ordering::Release);
        fence(Ordering::SeqCst);
        if self.event_idx {
            let event = self.used_ring.load(2 + 4 * usize::from(self.size), Ordering::Relaxed);
            event.is_none_or(|event| crosses(event, new, old))
        } else {
            self.used_ring.load(0, Ordering::Relaxed).is_none_or(|flags| flags & 1 == 0)
        }
    }

    #[inline(always)]
    fn used_index(&self) -> u16 {
        self.used_ring.load(INDEX, Ordering::Acquire).unwrap_or(self.used)
    }

    /// The device has returned something.
    #[inline]
    fn has_used(&self) -> bool {
        self.used_index() != self.used
    }

    /// How much it has returned, by its own index.
    #[inline(always)]
    pub fn used_count(&self) -> u16 {
        self.used_index().wrapping_sub(self.used)
    }

    /// Takes a used element: the id and the number of bytes written, as the device says them.
    #[inline]
    pub fn take(&mut self) -> Option<(u32, u32)> {
        if self.seen == self.used {
            self.seen = self.used_index();
            if self.seen == self.used {
                return None;
            }
        }
        let element = 1 + 2 * self.slot(self.used);
        self.used = self.used.wrapping_add(1);
        let [head, written] = self.elements.load_all(element)?;
        // The nudge is known by its place, whatever the size of the queue.
        let last = u32::from(self.size.wrapping_sub(1));
        Some((if head == last { u32::from(super::MAX_DEPTH) } else { head }, written))
    }

    /// Asks for an interrupt at the next used element. True if there is one already.
    pub fn arm(&mut self) -> bool {
        if self.event_idx {
            let _ = self.avail.store(2 + usize::from(self.size), self.used, Ordering::Relaxed);
            fence(Ordering::SeqCst);
        }
        self.has_used()
    }
}
