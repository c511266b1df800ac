//! Shared memory that was checked once: what an access costs after that is one comparison.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

mod sealed {
    pub trait Sealed {}
}

/// A word that can be loaded and stored in one piece. Little endian in memory.
pub trait Cell: Copy + sealed::Sealed {
    /// # Safety
    /// `at` is valid for reads and aligned, and nobody makes a reference to it.
    #[doc(hidden)]
    unsafe fn load(at: NonNull<Self>, order: Ordering) -> Self;

    /// # Safety
    /// `at` is valid for writes and aligned, and nobody makes a reference to it.
    #[doc(hidden)]
    unsafe fn store(at: NonNull<Self>, value: Self, order: Ordering);
}

macro_rules! cell {
    ($word:ty, $atomic:ty) => {
        impl sealed::Sealed for $word {}

        impl Cell for $word {
            #[inline(always)]
            unsafe fn load(at: NonNull<Self>, order: Ordering) -> Self {
                // SAFETY: by contract; everybody else's accesses are atomic or the hardware's.
                Self::from_le(unsafe { <$atomic>::from_ptr(at.as_ptr()) }.load(order))
            }

            #[inline(always)]
            unsafe fn store(at: NonNull<Self>, value: Self, order: Ordering) {
                // SAFETY: as in `load`.
                unsafe { <$atomic>::from_ptr(at.as_ptr()) }.store(value.to_le(), order);
            }
        }
    };
}

cell!(u16, AtomicU16);
cell!(u32, AtomicU32);
cell!(u64, AtomicU64);

/// Words of shared memory. A handle, as [`super::GuestRam`] is.
#[derive(Clone, Copy, Debug)]
pub struct Cells<T> {
    start: NonNull<T>,
    count: usize,
}

// SAFETY: as for `GuestRam`: the memory is shared by nature, and every access is atomic.
unsafe impl<T: Cell> Send for Cells<T> {}

impl<T: Cell> Cells<T> {
    /// # Safety
    /// `start` is aligned and valid for reads and writes of `count` words for as long as any copy of the result is used,
    /// and nobody makes a reference to any of it.
    pub(super) const unsafe fn new(start: NonNull<T>, count: usize) -> Self {
        Self { start, count }
    }

    #[inline(always)]
    fn at(&self, index: usize) -> Option<NonNull<T>> {
        // SAFETY: the index is inside what `new`'s caller promised.
        if index < self.count { Some(unsafe { self.start.add(index) }) } else { None }
    }

    /// The word at `index`. `None` if it is beyond the end.
    #[inline(always)]
    pub fn load(&self, index: usize, order: Ordering) -> Option<T> {
        // SAFETY: `at` gives addresses inside, aligned as `start` is.
        self.at(index).map(|at| unsafe { T::load(at, order) })
    }

    /// Stores a word. `None` if it is beyond the end.
    #[inline(always)]
    pub fn store(&self, index: usize, value: T, order: Ordering) -> Option<()> {
        #[cfg(any(test, feature = "fake"))]
        crate::fake::crash::store();
        // SAFETY: as in `load`.
        self.at(index).map(|at| unsafe { T::store(at, value, order) })
    }

    /// Neighbouring words, in order but relaxed. `None` if some are beyond the end.
    #[inline(always)]
    pub fn load_all<const N: usize>(&self, index: usize) -> Option<[T; N]> {
        let group = self.group::<N>(index)?;
        // SAFETY: `group` checked that N words from there are inside, aligned as `start` is.
        Some(core::array::from_fn(|n| unsafe { T::load(group.start.add(n), Ordering::Relaxed) }))
    }

    /// `N` neighbouring words. `None` if some are beyond the end.
    #[inline(always)]
    pub fn group<const N: usize>(&self, index: usize) -> Option<Group<T, N>> {
        if index >= self.count || N > self.count - index {
            return None;
        }
        // SAFETY: the index is inside what `new`'s caller promised.
        Some(Group { start: unsafe { self.start.add(index) } })
    }

    /// Stores neighbouring words, in order but relaxed. `None`, and nothing stored, if some are beyond the end.
    #[inline(always)]
    pub fn store_all<const N: usize>(&self, index: usize, values: [T; N]) -> Option<()> {
        let group = self.group::<N>(index)?;
        for (n, value) in values.into_iter().enumerate() {
            #[cfg(any(test, feature = "fake"))]
            crate::fake::crash::store();
            // SAFETY: `group` checked that N words from there are inside, aligned as `start` is.
            unsafe { T::store(group.start.add(n), value, Ordering::Relaxed) };
        }
        Some(())
    }
}

/// A few neighbouring [`Cells`], checked together: their accesses cost nothing more.
#[derive(Clone, Copy, Debug)]
pub struct Group<T, const N: usize> {
    start: NonNull<T>,
}

impl<T: Cell, const N: usize> Group<T, N> {
    /// Stores word `I`, relaxed.
    #[inline(always)]
    pub fn store<const I: usize>(&self, value: T) {
        const { assert!(I < N) };
        #[cfg(any(test, feature = "fake"))]
        crate::fake::crash::store();
        // SAFETY: `Cells::group` checked that N words are inside, aligned as its start is, and I < N.
        unsafe { T::store(self.start.add(I), value, Ordering::Relaxed) };
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::Ordering::Relaxed;

    use crate::fake::FakeRam;
    use crate::memory::MemoryError;

    const BASE: u64 = 0x4000_0000;

    #[test]
    fn words_within_and_none_beyond() {
        let ram = FakeRam::new(BASE, 0x40, 0).ram();
        let cells = ram.cells::<u16>(BASE + 2, 3).unwrap();
        assert_eq!(cells.store(2, 0x1234, Relaxed), Some(()));
        assert_eq!((cells.load(2, Relaxed), cells.load(0, Relaxed)), (Some(0x1234), Some(0)));
        assert_eq!((cells.load(3, Relaxed), cells.store(usize::MAX, 1, Relaxed)), (None, None));
        assert_eq!(ram.read_obj::<[u8; 8]>(BASE), Ok([0, 0, 0, 0, 0, 0, 0x34, 0x12]));
        let all = ram.cells::<u64>(BASE, 8).unwrap();
        assert_eq!(all.store_all(6, [7, 8]), Some(()));
        assert_eq!(
            (all.store_all(7, [9, 9]), all.store_all(8, []), all.store_all(usize::MAX, [9])),
            (None, None, None)
        );
        assert_eq!(ram.read_obj::<[u64; 2]>(BASE + 0x30), Ok([7u64.to_le(), 8u64.to_le()]));
        assert_eq!((all.load_all(6), all.load_all::<2>(7), all.load_all::<1>(8)), (Some([7, 8]), None, None));
        let group = all.group::<2>(4).unwrap();
        group.store::<1>(6);
        group.store::<0>(5);
        assert_eq!(all.load_all(4), Some([5, 6, 7, 8]));
        assert!(all.group::<9>(0).is_none() && all.group::<2>(7).is_none());
        assert!(all.group::<1>(usize::MAX).is_none() && all.group::<0>(8).is_none());
        assert_eq!(all.load(0, Relaxed), Some(0x1234_0000_0000_0000));
    }

    #[test]
    fn what_is_not_all_ram_or_not_aligned_is_refused() {
        let ram = FakeRam::new(BASE, 0x40, 0).ram();
        assert_eq!(ram.cells::<u64>(BASE, 9).err(), Some(MemoryError::OutOfRam));
        assert_eq!(ram.cells::<u64>(BASE, usize::MAX / 4).err(), Some(MemoryError::OutOfRam));
        assert_eq!(ram.cells::<u32>(BASE + 2, 1).err(), Some(MemoryError::Misaligned));
        assert!(ram.cells::<u32>(BASE + 0x40, 0).is_ok());
    }
}
