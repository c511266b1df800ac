//! Numbers of the seL4 16 ABI (MCS, AArch64, hypervisor) as Microkit 2.3 builds it: what a PD is compiled against.
//!
//! The kernel decodes with them and the packer writes the SDK's description files from them, so there is one table for
//! both. Everything here is plain data and builds on the host.

mod config;
mod invocation;
mod message;

pub use config::{Config, Constant, constants, gen_config, object_sizes, user_top};
pub use invocation::{Invocation, invocations};
pub use message::{Error, MAX_EXTRA_CAPS, MAX_LENGTH, MessageInfo, REGISTERS, buffer};

/// The configuration this kernel is built for: Cargo feature `debug`.
pub const BUILD: Config = if cfg!(feature = "debug") { Config::Debug } else { Config::Release };

/// System-call numbers (x7).
pub mod syscall {
    /// Send, then wait for the reply.
    pub const CALL: i64 = -1;
    /// Reply, then receive.
    pub const REPLY_RECV: i64 = -2;
    /// Non-blocking send, then receive.
    pub const NB_SEND_RECV: i64 = -3;
    /// Non-blocking send, then receive without a reply object.
    pub const NB_SEND_WAIT: i64 = -4;
    /// Send.
    pub const SEND: i64 = -5;
    /// Non-blocking send.
    pub const NB_SEND: i64 = -6;
    /// Receive.
    pub const RECV: i64 = -7;
    /// Receive if something is there.
    pub const NB_RECV: i64 = -8;
    /// Receive without a reply object.
    pub const WAIT: i64 = -9;
    /// The non-blocking form of [`WAIT`].
    pub const NB_WAIT: i64 = -10;
    /// Give the rest of the time slice away.
    pub const YIELD: i64 = -11;
    /// Debug configuration: print a character.
    pub const DEBUG_PUT_CHAR: i64 = -12;
    /// Debug configuration: print the threads.
    pub const DEBUG_DUMP_SCHEDULER: i64 = -13;
    /// Debug configuration: stop the machine.
    pub const DEBUG_HALT: i64 = -14;
    /// Debug configuration: type of a capability.
    pub const DEBUG_CAP_IDENTIFY: i64 = -15;
    /// Debug configuration: nothing to do here.
    pub const DEBUG_SNAPSHOT: i64 = -16;
    /// Debug configuration: name a thread.
    pub const DEBUG_NAME_THREAD: i64 = -17;
}

/// Fault labels.
pub mod fault {
    /// Capability lookup failed.
    pub const CAP: u64 = 1;
    /// Unknown system call.
    pub const UNKNOWN_SYSCALL: u64 = 2;
    /// Undefined instruction and the like.
    pub const USER_EXCEPTION: u64 = 3;
    /// Breakpoint.
    pub const DEBUG_EXCEPTION: u64 = 4;
    /// Budget used up, with a timeout endpoint.
    pub const TIMEOUT: u64 = 5;
    /// Memory access.
    pub const VM: u64 = 6;
    /// Virtual interrupt controller wants attention.
    pub const VGIC_MAINTENANCE: u64 = 7;
    /// Anything else a virtual CPU trapped on.
    pub const VCPU: u64 = 8;
    /// Virtual timer interrupt.
    pub const VPPI_EVENT: u64 = 9;
}
