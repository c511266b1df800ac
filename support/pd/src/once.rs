//! Memory that is too big for a stack and is taken once.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

/// A value in a static, for the first one who takes it.
#[derive(Debug)]
pub struct Once<T> {
    value: UnsafeCell<T>,
    taken: AtomicBool,
}

// SAFETY: the value is reached through `take` only, which hands it out once, and a PD has one thread.
#[cfg(target_os = "none")]
unsafe impl<T> Sync for Once<T> {}
// SAFETY: likewise; elsewhere that one may be on another thread than who made the value, hence `Send`.
#[cfg(not(target_os = "none"))]
unsafe impl<T: Send> Sync for Once<T> {}

impl<T> Once<T> {
    /// Not taken yet.
    pub const fn new(value: T) -> Self {
        Self { value: UnsafeCell::new(value), taken: AtomicBool::new(false) }
    }

    /// The value. `None`: somebody has it.
    #[expect(clippy::mut_from_ref, reason = "the flag lets it out once")]
    pub fn take(&'static self) -> Option<&'static mut T> {
        // SAFETY: the swap lets one caller through, ever, so this is the only reference.
        (!self.taken.swap(true, Ordering::Relaxed)).then(|| unsafe { &mut *self.value.get() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_given_to_one_of_many() {
        static PLACE: Once<u32> = Once::new(7);
        let takers: Vec<_> = (0..4).map(|_| std::thread::spawn(|| PLACE.take())).collect();
        let taken: Vec<_> = takers.into_iter().filter_map(|taker| taker.join().unwrap()).collect();
        assert!(matches!(taken[..], [&mut 7]));
        assert!(PLACE.take().is_none());
    }
}
