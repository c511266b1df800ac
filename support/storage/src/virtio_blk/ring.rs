//! The driver's side of a split virtqueue (2.7) whose descriptor `i` always is the indirect table of request `i`.

use core::sync::atomic::{Ordering, fence};

use partita_virtio::memory::{GuestRam, MemoryError};
use partita_virtio::queue::{QueueLayout, RawDescriptor, crosses};

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

/// Rings in the first page of DMA memory, and our positions in them.
pub struct Ring {
    dma: GuestRam,
    size: u16,
    event_idx: bool,
    /// avail.idx when everything offered is published.
    next: u16,
    published: u16,
    used: u16,
}

impl Ring {
    /// The page must be zero; `size` is a power of two up to [`MAX_SIZE`].
    pub const fn new(dma: GuestRam, size: u16, event_idx: bool) -> Self {
        Self { dma, size, event_idx, next: 0, published: 0, used: 0 }
    }

    pub const fn layout(&self) -> QueueLayout {
        let base = self.dma.ipa();
        QueueLayout { size: self.size, desc: base + DESC, avail: base + AVAIL, used: base + USED }
    }

    /// Offers the table of `bytes` at `table` as descriptor `id`. The device sees it after [`Ring::publish`].
    pub fn offer(&mut self, id: u16, table: u64, bytes: u32) -> Result<(), MemoryError> {
        self.offer_at(id, id, table, bytes)
    }

    /// Offers the table as the last descriptor.
    pub fn offer_nudge(&mut self, table: u64, bytes: u32) -> Result<(), MemoryError> {
        self.offer_at(self.size - 1, self.size - 1, table, bytes)
    }

    fn offer_at(&mut self, index: u16, head: u16, table: u64, bytes: u32) -> Result<(), MemoryError> {
        const INDIRECT: u16 = 4;
        let raw = RawDescriptor { addr: table.to_le(), len: bytes.to_le(), flags: INDIRECT.to_le(), next: 0 };
        let layout = self.layout();
        self.dma.write_obj(layout.desc + 16 * u64::from(index), &raw)?;
        let slot = u64::from(self.next & (self.size - 1));
        self.dma.store_u16(layout.avail + 4 + 2 * slot, head, Ordering::Relaxed)?;
        self.next = self.next.wrapping_add(1);
        Ok(())
    }

    /// Shows the device what was offered. True if it wants a notification.
    pub fn publish(&mut self) -> bool {
        let (old, new) = (self.published, self.next);
        if old == new {
            return false;
        }
        let layout = self.layout();
        self.published = new;
        // The accesses are inside the page by construction; a failure would mean no notification, which is safe to send.
        let _ = self.dma.store_u16(layout.avail + 2, new, Ordering::Release);
        fence(Ordering::SeqCst);
        if self.event_idx {
            let event = layout.used + 4 + 8 * u64::from(self.size);
            self.dma.load_u16(event, Ordering::Relaxed).map_or(true, |event| crosses(event, new, old))
        } else {
            self.dma.load_u16(layout.used, Ordering::Relaxed).map_or(true, |flags| flags & 1 == 0)
        }
    }

    fn used_index(&self) -> u16 {
        self.dma.load_u16(self.layout().used + 2, Ordering::Acquire).unwrap_or(self.used)
    }

    /// Takes a used element: the id and the number of bytes written, as the device says them.
    pub fn take(&mut self) -> Option<(u32, u32)> {
        if self.used_index() == self.used {
            return None;
        }
        let slot = u64::from(self.used & (self.size - 1));
        self.used = self.used.wrapping_add(1);
        let element = self.layout().used + 4 + 8 * slot;
        let head = self.dma.load_u32(element, Ordering::Relaxed).ok()?;
        let written = self.dma.load_u32(element + 4, Ordering::Relaxed).ok()?;
        // The nudge is known by its place, whatever the size of the queue.
        Some((if head == u32::from(self.size - 1) { u32::from(super::MAX_DEPTH) } else { head }, written))
    }

    /// Asks for an interrupt at the next used element. True if there is one already.
    pub fn arm(&mut self) -> bool {
        if self.event_idx {
            let event = self.layout().avail + 4 + 2 * u64::from(self.size);
            let _ = self.dma.store_u16(event, self.used, Ordering::Relaxed);
            fence(Ordering::SeqCst);
        }
        self.used_index() != self.used
    }
}
