//! Values that Microkit's tool writes into the ELF.
//!
//! They stand in a read-only segment of their own (`.microkit`), so nothing at run time changes them and a restarted PD
//! finds them as they were. The compiler must not believe the value it sees: [`sel4::_private::PatchedCell`] hides where the
//! reference comes from.

use core::str::{self, Utf8Error};

/// A value that the system description sets: `var!(symbol: Type = default)` is a `&'static Type`.
///
/// Microkit patches symbols of 8 bytes.
#[macro_export]
macro_rules! var {
    ($(#[$attrs:meta])* $symbol:ident: $ty:ty = $default:expr) => {{
        $(#[$attrs])*
        #[used]
        #[allow(non_upper_case_globals)]
        #[cfg_attr(target_os = "none", unsafe(no_mangle))]
        #[cfg_attr(target_os = "none", unsafe(link_section = ".microkit"))]
        static $symbol: $crate::_private::PatchedCell<$ty> = $crate::_private::PatchedCell::new($default);

        $symbol.get()
    }};
}

/// A mapped region whose address the system description sets (`setvar_vaddr`), as a `NonNull`.
#[macro_export]
macro_rules! memory_region_symbol {
    ($(#[$attrs:meta])* $symbol:ident: *mut [$ty:ty], n = $n:expr, bytes = $bytes:expr $(,)?) => {{
        assert!($bytes == $n * ::core::mem::size_of::<$ty>());
        $crate::memory_region_symbol!($(#[$attrs])* $symbol: *mut [$ty], n = $n)
    }};
    ($(#[$attrs:meta])* $symbol:ident: *mut [$ty:ty], n = $n:expr $(,)?) => {
        ::core::ptr::NonNull::slice_from_raw_parts(
            $crate::memory_region_symbol!($(#[$attrs])* $symbol: *mut $ty),
            $n,
        )
    };
    ($(#[$attrs:meta])* $symbol:ident: *mut $ty:ty, bytes = $bytes:expr $(,)?) => {{
        assert!($bytes == ::core::mem::size_of::<$ty>());
        $crate::memory_region_symbol!($(#[$attrs])* $symbol: *mut $ty)
    }};
    ($(#[$attrs:meta])* $symbol:ident: *mut $ty:ty $(,)?) => {
        match ::core::ptr::NonNull::new(*$crate::var!($(#[$attrs])* $symbol: usize = 0) as *mut $ty) {
            Some(pointer) => pointer,
            None => panic!(concat!(stringify!($symbol), " is not set by the system description")),
        }
    };
}

const NAME_BYTES: usize = 64;

/// Whether this PD runs on the time of its callers only.
pub fn pd_is_passive() -> bool {
    #[cfg(not(target_os = "none"))]
    return fake::passive();
    #[cfg(target_os = "none")]
    *var!(microkit_passive: bool = false)
}

/// Ids of this PD's interrupts.
pub(crate) fn pd_irqs() -> usize {
    #[cfg(not(target_os = "none"))]
    return fake::irqs();
    #[cfg(target_os = "none")]
    *var!(microkit_irqs: usize = 0)
}

/// Channels that this PD may notify.
pub(crate) fn pd_notifications() -> usize {
    if cfg!(not(target_os = "none")) {
        return usize::MAX;
    }
    *var!(microkit_notifications: usize = 0)
}

/// Channels that this PD may call.
pub(crate) fn pd_pps() -> usize {
    if cfg!(not(target_os = "none")) {
        return usize::MAX;
    }
    *var!(microkit_pps: usize = 0)
}

/// The x86 counterpart of interrupts; the tool wants the symbol everywhere.
#[allow(dead_code)]
fn pd_ioports() -> usize {
    *var!(microkit_ioports: usize = 0)
}

/// Name of this PD.
pub fn pd_name() -> Result<&'static str, Utf8Error> {
    let bytes = var!(microkit_name: [u8; NAME_BYTES] = [0; NAME_BYTES]);
    let length = bytes.iter().position(|byte| *byte == 0).unwrap_or(NAME_BYTES);
    str::from_utf8(bytes.split_at(length).0)
}

/// What the tool would have written, for host tests: each thread its own. Every notification and call is allowed.
#[cfg(not(target_os = "none"))]
pub mod fake {
    use std::cell::Cell;

    thread_local! {
        static IRQS: Cell<usize> = const { Cell::new(0) };
        static PASSIVE: Cell<bool> = const { Cell::new(false) };
    }

    /// Sets the ids of interrupts.
    pub fn set_irqs(ids: usize) {
        IRQS.set(ids);
    }

    /// Makes the PD passive.
    pub fn set_passive(passive: bool) {
        PASSIVE.set(passive);
    }

    pub(super) fn irqs() -> usize {
        IRQS.get()
    }

    pub(super) fn passive() -> bool {
        PASSIVE.get()
    }
}
