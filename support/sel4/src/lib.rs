//! Capabilities, invocations and faults of seL4, with the names of upstream rust-sel4.
//!
//! Upstream generates this interface from the kernel's C headers with libclang, on a nightly compiler. A Microkit SDK
//! also ships the same facts as data (invocation labels, address-space constants, configuration), which is enough for the
//! static systems of Microkit: this crate is written by hand for AArch64 with MCS and the hypervisor extensions, builds
//! with stable Rust alone, and keeps upstream's names and signatures so that a PD can switch to upstream by changing one
//! line. What a static system cannot do (untyped memory, CNode operations) is left out.
//!
//! On the host a system call goes to a fake kernel ([`fake`]), so that what stands on this crate has unit tests.
#![cfg_attr(target_os = "none", no_std)]

mod arch;
mod bootinfo;
mod cptr;
mod debug;
mod error;
mod fault;
pub mod init_thread;
mod invocation_context;
mod invocations;
mod ipc_buffer;
mod message_info;
mod patched;
mod printing;
mod state;
pub mod sys;
mod syscalls;
mod user_context;
mod vcpu;

#[cfg(not(target_os = "none"))]
pub use arch::fake;

pub use bootinfo::{BootInfo, BootInfoPtr, SlotRegion};
pub use cptr::{CPtr, CPtrBits, Cap, CapType, cap, cap_type};
pub use debug::{debug_halt, debug_snapshot};
pub use error::{Error, Result};
pub use fault::{
    CapFault, DebugException, Fault, NullFault, Timeout, UnknownSyscall, UserException, VCpuFault,
    VGicMaintenance, VPpiEvent, VmFault,
};
pub use invocation_context::{
    ImplicitInvocationContext, InvocationContext, NoExplicitInvocationContext, NoInvocationContext,
};
pub use invocations::{TcbFlagsBuilder, Time};
pub use ipc_buffer::IpcBuffer;
pub use message_info::{MessageInfo, MessageInfoBuilder};
pub use printing::{DebugWrite, debug_put_char};
pub use state::{set_ipc_buffer, with_ipc_buffer, with_ipc_buffer_mut};
pub use syscalls::{
    Badge, CallWithMRs, ConveysReplyAuthority, FastMessages, NUM_FAST_MESSAGE_REGISTERS,
    NUM_MESSAGE_REGISTERS, RecvWithMRs, ReplyAuthority, WaitMessageInfo, r#yield,
};
pub use user_context::UserContext;
pub use vcpu::VCpuReg;

/// A machine word.
pub type Word = u64;

/// Bits of a [`Word`].
pub const WORD_SIZE: usize = 64;

include!(concat!(env!("OUT_DIR"), "/config_macros.rs"));

#[doc(hidden)]
pub mod _private {
    pub use super::patched::PatchedCell;
    pub use super::printing::debug_print_helper;
}
