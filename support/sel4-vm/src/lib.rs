//! VM, VCPU, SMC, cache and child-PD operations that upstream sel4-microkit lacks, over the public API of the sel4 crate.
//!
//! Everything here is a send or a call through a capability that Microkit puts at a fixed place, with labels from
//! `sel4::sys::invocation_label`; it builds against our `sel4` and upstream's alike.
//!
//! Where a function says what it costs, the figure is executed kernel instructions on real seL4 16 (MCS, hypervisor,
//! release, Cortex-A53). Two rules follow from those figures: an invocation whose result nobody looks at is made by Send
//! (the `_by_send` functions, about 60 to 70 instructions less), and what can ride on the next receive does
//! ([`mod@event`]).
//!
//! Every call and every receive overwrites message registers: take out of a fault message what is needed before the next
//! invocation.
#![cfg_attr(target_os = "none", no_std)]

mod cache;
mod child;
mod counter;
mod esr;
pub mod event;
mod fault;
mod report;
mod smc;
mod thread;
mod vcpu;
mod vm;

pub use cache::{clean, clean_invalidate, clean_to_memory, invalidate, make_executable, unify_instruction};
pub use child::ChildPd;
pub use counter::{cntfrq, cntpct};
pub use esr::Esr;
pub use event::Event;
pub use fault::{DebugReason, FaultInfo, LookupFailure};
pub use report::{PanicKind, PanicReport};
pub use smc::smc;
pub use thread::register_count;
pub use vcpu::{Vcpu, VcpuField};
pub use vm::Vm;

pub use sel4::{Error, Result, UserContext, Word};

/// Where Microkit puts a PD's capabilities.
pub(crate) mod slot {
    use sel4::CPtrBits;

    pub const INPUT: CPtrBits = 1;
    pub const VSPACE: CPtrBits = 3;
    pub const REPLY: CPtrBits = 4;
    pub const SMC: CPtrBits = 7;
    pub const NOTIFICATIONS: CPtrBits = 10;
    pub const IRQS: CPtrBits = 138;
    pub const CHILD_TCBS: CPtrBits = 202;
    pub const VM_TCBS: CPtrBits = 266;
    pub const VCPUS: CPtrBits = 330;
}

/// Greatest id of a channel, child or vCPU. Capabilities of one kind are 64 slots apart, so a greater id would name one of
/// another kind.
pub(crate) const MAX_ID: usize = 61;

/// Answer of an invocation.
pub(crate) fn check(info: &sel4::MessageInfo) -> Result<()> {
    match Error::from_sys(u32::try_from(info.label()).unwrap_or(Error::IllegalOperation.into_sys())) {
        None => Ok(()),
        Some(error) => Err(error),
    }
}
