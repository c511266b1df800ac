//! Runtime of a Microkit protection domain (PD), with the names of upstream rust-sel4.
//!
//! A PD is an event loop: its initialiser returns a [`Handler`], whose methods are called for notifications, protected
//! calls and faults of children. See the Microkit manual, "Protection domains", and `docs/` for how Partita uses them.
//!
//! Beyond upstream, a PD built with this runtime can be started again at its entry point by its parent at any moment:
//! see [`mod@entry`]. And a PD that panics tells its parent why, without a working console: see [`panicking`].
#![cfg_attr(target_os = "none", no_std)]

#[cfg(feature = "alloc")]
extern crate alloc;

mod channel;
mod defer;
pub mod entry;
mod handler;
#[doc(hidden)]
pub mod heap;
#[doc(hidden)]
pub mod ipc;
mod message;
pub mod panicking;
mod symbols;

pub use channel::{Channel, Child, IrqAckError};
pub use defer::{DeferredAction, DeferredActionInterface, DeferredActionSlot};
pub use handler::{Handler, Infallible, Never, NullHandler};
pub use ipc::{ChannelSet, DisplayChannelSet};
pub use message::{
    MessageInfo, MessageLabel, MessageRegisterValue, get_mr, set_mr, with_msg_bytes, with_msg_bytes_mut,
    with_msg_regs, with_msg_regs_mut,
};
pub use sel4::{debug_print, debug_println};
pub use sel4_microkit_macros::protection_domain;
#[cfg(not(target_os = "none"))]
pub use symbols::fake;
pub use symbols::{pd_is_passive, pd_name};

/// What `#[protection_domain]` expands to.
#[doc(hidden)]
#[macro_export]
macro_rules! declare_protection_domain {
    { init = $init:expr $(,)? } => {
        $crate::declare_init!($init);
    };
    { init = $init:expr, stack_size = $stack_size:expr $(,)? } => {
        $crate::declare_stack!($stack_size);
        $crate::declare_init!($init);
    };
    { init = $init:expr, $(stack_size = $stack_size:expr,)? heap_size = $heap_size:expr $(,)? } => {
        $crate::declare_heap!($heap_size);
        $crate::declare_protection_domain! { init = $init, $(stack_size = $stack_size,)? }
    };
}

#[doc(hidden)]
pub mod _private {
    pub use crate::entry::{Stack, run_main};
    pub use sel4::_private::PatchedCell;
}
