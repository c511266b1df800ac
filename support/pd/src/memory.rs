//! What the system description maps into a PD.

use core::num::NonZeroUsize;
use core::ptr::NonNull;

use partita_protocol::alive::Alive;
use partita_protocol::layout::vaddr;
use partita_protocol::timer::TimerRequest;

/// An address that the system description maps.
pub fn at<T>(address: usize) -> NonNull<T> {
    NonNull::with_exposed_provenance(NonZeroUsize::new(address).unwrap_or(NonZeroUsize::MIN))
}

/// A shared page.
///
/// # Safety
/// `T` is all atomics and fits what is mapped at `address`, for as long as the PD runs.
pub unsafe fn page<T>(address: usize) -> &'static T {
    // SAFETY: the caller's promise; all bit patterns are valid for atomics.
    unsafe { at::<T>(address).as_ref() }
}

/// A prefilled region.
///
/// # Safety
/// If `bytes` is not 0, that many are mapped at `address`, and nobody writes them.
pub unsafe fn region(address: usize, bytes: usize) -> &'static [u8] {
    if bytes == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { core::slice::from_raw_parts(at(address).as_ptr(), bytes) }
}

/// Our signs of life. For children of the supervisor.
///
/// # Safety
/// This PD is a child of the supervisor.
pub unsafe fn alive() -> &'static Alive {
    // SAFETY: the host tool maps the page in every child of the supervisor; only we write it, through its atomics.
    unsafe { page(vaddr::HEALTH) }
}

/// What this PD writes for timer.
///
/// # Safety
/// This PD is a client of timer.
pub unsafe fn timer_request() -> &'static TimerRequest {
    // SAFETY: the host tool maps the page in every client of timer; only we write it, through its atomics.
    unsafe { page(vaddr::TIMER_REQUEST) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_empty() {
        // SAFETY: nothing is looked at.
        assert!(unsafe { region(0, 0) }.is_empty());
        assert_eq!(at::<u8>(0x5000).as_ptr().addr(), 0x5000);
    }
}
