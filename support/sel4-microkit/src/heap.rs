//! The heap of a PD that asks for one: memory for start-up, handed out in order.
//!
//! Partita's PDs allocate nothing while they run, so what is given back is only taken if it was the last thing given out.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// `BYTES` of memory and how much of it is given out.
#[repr(C, align(4096))]
pub struct Heap<const BYTES: usize> {
    memory: UnsafeCell<[u8; BYTES]>,
    used: AtomicUsize,
}

// SAFETY: `used` decides who may touch which part of `memory`, and it is atomic.
unsafe impl<const BYTES: usize> Sync for Heap<BYTES> {}

impl<const BYTES: usize> Heap<BYTES> {
    /// Nothing is given out.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self { memory: UnsafeCell::new([0; BYTES]), used: AtomicUsize::new(0) }
    }

    fn take(&self, layout: Layout) -> Option<usize> {
        let base = self.memory.get() as usize;
        let mut start = 0;
        self.used
            .try_update(Relaxed, Relaxed, |used| {
                start = (base + used).checked_next_multiple_of(layout.align())? - base;
                start.checked_add(layout.size()).filter(|end| *end <= BYTES)
            })
            .ok()
            .map(|_| start)
    }
}

// SAFETY: `take` gives out disjoint, aligned parts of `memory`, and a part is taken back only if it is the last one.
unsafe impl<const BYTES: usize> GlobalAlloc for Heap<BYTES> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match self.take(layout) {
            Some(start) => self.memory.get().cast::<u8>().wrapping_add(start),
            None => core::ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let start = pointer as usize - self.memory.get() as usize;
        // Fails if something was given out since: that memory stays used.
        let _ = self.used.compare_exchange(start + layout.size(), start, Relaxed, Relaxed);
    }
}

/// A heap of the program's own.
#[doc(hidden)]
#[macro_export]
macro_rules! declare_heap {
    ($size:expr) => {
        #[cfg(target_os = "none")]
        const _: () = {
            #[global_allocator]
            static HEAP: $crate::heap::Heap<{ $size }> = $crate::heap::Heap::new();
        };
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_disjoint_and_the_last_comes_back() {
        let heap = Heap::<256>::new();
        let layout = |size, align| Layout::from_size_align(size, align).unwrap();
        let (first, second) = (heap.take(layout(3, 1)).unwrap(), heap.take(layout(64, 32)).unwrap());
        assert_eq!((first, second), (0, 32));
        let base = heap.memory.get().cast::<u8>();
        // SAFETY: both were given out above with these layouts.
        unsafe {
            heap.dealloc(base.wrapping_add(first), layout(3, 1));
            assert_eq!(heap.used.load(Relaxed), 96);
            heap.dealloc(base.wrapping_add(second), layout(64, 32));
        }
        assert_eq!(heap.take(layout(224, 32)), Some(32));
        assert_eq!(heap.take(layout(1, 1)), None);
        assert_eq!(heap.take(layout(usize::MAX / 4, 1)), None);
    }
}
