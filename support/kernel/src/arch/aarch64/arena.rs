//! Boot-time memory: the pool, carved from both ends of nothing but upwards, never given back.

use partita_kernel::boot::Arena;
use partita_kernel::stage2::TableMemory;

/// What is left of the pool.
pub struct Pool {
    next: u64,
    end: u64,
}

impl Pool {
    /// The memory at `start..start + size`.
    ///
    /// # Safety
    /// It is RAM that nobody else uses, mapped at its physical address, and the only pool over it.
    pub unsafe fn new(start: u64, size: u64) -> Self {
        Pool { next: start, end: start.saturating_add(size) }
    }

    /// An uninitialised piece.
    pub fn take(&mut self, bytes: u64, align: u64) -> Option<u64> {
        let start = self.next.checked_next_multiple_of(align)?;
        let next = start.checked_add(bytes).filter(|n| *n <= self.end)?;
        self.next = next;
        Some(start)
    }
}

impl Arena<'static> for Pool {
    fn array<T: 'static>(
        &mut self,
        count: usize,
        mut make: impl FnMut(usize) -> T,
    ) -> Option<&'static mut [T]> {
        let bytes = count.checked_mul(size_of::<T>())?;
        let start = self.take(bytes as u64, align_of::<T>() as u64)?;
        let first = core::ptr::with_exposed_provenance_mut::<T>(start as usize);
        for i in 0..count {
            // SAFETY: inside the piece just taken, which is aligned for T.
            unsafe { first.add(i).write(make(i)) };
        }
        // SAFETY: `count` initialised values that nobody else refers to, in memory that is never given back.
        Some(unsafe { core::slice::from_raw_parts_mut(first, count) })
    }
}

impl TableMemory for Pool {
    fn allocate(&mut self, bytes: u64) -> Option<u64> {
        let start = self.take(bytes, bytes)?;
        let first = core::ptr::with_exposed_provenance_mut::<u64>(start as usize);
        // SAFETY: inside the piece just taken.
        unsafe { first.write_bytes(0, bytes as usize / 8) };
        Some(start)
    }
    fn read(&self, paddr: u64) -> u64 {
        // SAFETY: tables come from `allocate`; they are only used by address.
        unsafe { core::ptr::with_exposed_provenance::<u64>(paddr as usize).read() }
    }
    fn write(&mut self, paddr: u64, value: u64) {
        // SAFETY: as above.
        unsafe { core::ptr::with_exposed_provenance_mut::<u64>(paddr as usize).write(value) }
    }
}
