//! Runtime of a root task, with the names of upstream rust-sel4.
//!
//! In a Microkit system the root task is Microkit's own; this crate is for the embedded SDK's monitor, which takes that
//! place there (see docs/architecture.md, "The embedded SDK"). A program is started with the address of its boot
//! information in x0, or 0 if it has none; then only the place of the IPC buffer is known, the last page of the address
//! space, as for a protection domain.
#![cfg_attr(target_os = "none", no_std)]

#[doc(hidden)]
pub mod entry;
mod termination;

pub use sel4::{debug_print, debug_println};
pub use sel4_microkit_macros::root_task;
pub use termination::{Never, Termination};

/// Stack of a root task that does not ask for another size.
pub const DEFAULT_STACK_SIZE: usize = 16 * 1024;

/// Prints a message, where the kernel prints, and stops this thread for good.
#[macro_export]
macro_rules! abort {
    () => { $crate::abort!("aborted") };
    ($($arg:tt)*) => {{
        $crate::debug_println!("{}", format_args!($($arg)*));
        $crate::entry::stop()
    }};
}

/// A value that the packer writes into the ELF: `var!(symbol: Type = default)` is a `&'static Type`. It stands in memory
/// that is not writable.
#[macro_export]
macro_rules! var {
    ($(#[$attrs:meta])* $symbol:ident: $ty:ty = $default:expr) => {{
        $(#[$attrs])*
        #[used]
        #[allow(non_upper_case_globals)]
        #[cfg_attr(target_os = "none", unsafe(no_mangle))]
        #[cfg_attr(target_os = "none", unsafe(link_section = ".microkit"))]
        static $symbol: $crate::entry::PatchedCell<$ty> = $crate::entry::PatchedCell::new($default);

        $symbol.get()
    }};
}

/// What `#[root_task]` expands to.
#[doc(hidden)]
#[macro_export]
macro_rules! declare_root_task {
    { main = $main:expr $(,)? } => {
        $crate::declare_root_task! { main = $main, stack_size = $crate::DEFAULT_STACK_SIZE }
    };
    { main = $main:expr, stack_size = $stack_size:expr $(,)? } => {
        #[cfg(target_os = "none")]
        const _: () = {
            #[used]
            #[unsafe(link_section = ".stack")]
            static STACK: $crate::entry::Stack<{ $stack_size }> = $crate::entry::Stack::new();

            #[unsafe(no_mangle)]
            fn __sel4_root_task__main(bootinfo: &$crate::entry::BootInfoPtr) -> ! {
                $crate::entry::run_main($main, bootinfo)
            }
        };
    };
}
