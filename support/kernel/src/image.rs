//! What the packer tells the kernel: the boot description inside loader.img.
//!
//! The kernel is linked at the address loader.img is loaded to and runs in place. The packer writes, page-aligned behind
//! the kernel's memory (bss included), a [`Header`] and its tables, then the contents of regions (ELF segments, prefills),
//! which stay where they are: nothing is copied at boot but what has a fixed physical address. The packer patches the
//! physical address of the header into the kernel's 8-byte symbol `partita_boot_description`.
//!
//! Objects of a kind are numbered from 0 in table order. `NONE` stands for no object. All words are little endian.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// [`Header::magic`]: "PARTITA1".
pub const MAGIC: u64 = u64::from_le_bytes(*b"PARTITA1");
/// Raised with every change of a structure below.
pub const VERSION: u32 = 1;
/// No object.
pub const NONE: u32 = u32::MAX;

/// Where a table is: bytes from the header's start, number of records.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Table {
    /// Bytes from the start of the header.
    pub offset: u32,
    /// Records.
    pub count: u32,
}

/// The boot description.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// [`MAGIC`]
    pub magic: u64,
    /// [`VERSION`]
    pub version: u32,
    /// Bytes of this structure.
    pub size: u32,
    /// Physical span of loader.img in memory, kernel included.
    pub image_paddr: u64,
    /// Bytes of it.
    pub image_size: u64,
    /// Free memory for the kernel's objects and page tables. Not zeroed.
    pub pool_paddr: u64,
    /// Bytes of it.
    pub pool_size: u64,
    /// Greatest user address (inclusive), `seL4_UserVSpaceTop`.
    pub user_top: u64,
    /// Number of endpoints. They have no other property.
    pub endpoints: u32,
    /// Number of notifications.
    pub notifications: u32,
    /// Number of reply objects.
    pub replies: u32,
    /// Number of address spaces.
    pub vspaces: u32,
    /// [`Fill`]s, done in order before anything runs.
    pub fills: Table,
    /// [`Mapping`]s.
    pub mappings: Table,
    /// [`CNode`]s.
    pub cnodes: Table,
    /// [`Slot`]s.
    pub slots: Table,
    /// [`SchedContext`]s.
    pub sched_contexts: Table,
    /// [`Irq`]s.
    pub irqs: Table,
    /// [`Vcpu`]s.
    pub vcpus: Table,
    /// [`Tcb`]s. They start in table order (the monitor first).
    pub tcbs: Table,
}

/// Memory to be written at boot: zeroed, then `copy_size` bytes copied from `source` if that is not 0.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Fill {
    /// First byte.
    pub paddr: u64,
    /// Bytes to write.
    pub size: u64,
    /// Physical address inside the image to copy from, or 0.
    pub source: u64,
    /// Bytes to copy; the rest is zeroed.
    pub copy_size: u64,
}

/// A mapped range. The kernel chooses the page size: 2 MiB where virtual and physical address and size allow and
/// `large` permits.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Mapping {
    /// Address space.
    pub vspace: u32,
    /// Bit 0 read, 1 write, 2 execute, 3 cached (else Device-nGnRnE), 4 large pages (2 MiB) used.
    pub flags: u32,
    /// Virtual (for a VM: intermediate physical) address.
    pub vaddr: u64,
    /// Physical address.
    pub paddr: u64,
    /// Bytes.
    pub size: u64,
}

/// [`Mapping::flags`]
pub mod mapping {
    /// Readable.
    pub const READ: u32 = 1;
    /// Writable.
    pub const WRITE: u32 = 2;
    /// Executable.
    pub const EXECUTE: u32 = 4;
    /// Normal write-back memory; otherwise Device-nGnRnE.
    pub const CACHED: u32 = 8;
    /// Mapped with 2 MiB pages (addresses and size are aligned); otherwise 4 KiB pages.
    pub const LARGE: u32 = 16;
}

/// A capability node.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CNode {
    /// Number of slots as a power of two.
    pub size_bits: u32,
    /// Keeps the record at 8 bytes.
    pub reserved: u32,
}

/// A filled capability slot.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Slot {
    /// CNode.
    pub cnode: u32,
    /// Slot in it.
    pub index: u32,
    /// One of [`cap`].
    pub kind: u32,
    /// Object of that kind.
    pub object: u32,
    /// Badge (endpoint, notification).
    pub badge: u64,
    /// Bits of [`rights`].
    pub rights: u32,
    /// For a CNode capability: guard bits (the guard is 0).
    pub guard_bits: u32,
}

/// [`Slot::kind`]. The numbers are ours.
pub mod cap {
    /// Endpoint.
    pub const ENDPOINT: u32 = 1;
    /// Notification.
    pub const NOTIFICATION: u32 = 2;
    /// Reply object.
    pub const REPLY: u32 = 3;
    /// Thread control block.
    pub const TCB: u32 = 4;
    /// Capability node.
    pub const CNODE: u32 = 5;
    /// Address space.
    pub const VSPACE: u32 = 6;
    /// Scheduling context.
    pub const SCHED_CONTEXT: u32 = 7;
    /// IRQ handler.
    pub const IRQ: u32 = 8;
    /// Virtual CPU.
    pub const VCPU: u32 = 9;
    /// Secure monitor calls; `object` is 0.
    pub const SMC: u32 = 10;
}

/// [`Slot::rights`], in seL4's order.
pub mod rights {
    /// Send.
    pub const WRITE: u32 = 1;
    /// Receive.
    pub const READ: u32 = 2;
    /// Grant.
    pub const GRANT: u32 = 4;
    /// Grant reply.
    pub const GRANT_REPLY: u32 = 8;
}

/// A scheduling context.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SchedContext {
    /// Microseconds.
    pub budget: u64,
    /// Microseconds.
    pub period: u64,
    /// Reported in timeout faults.
    pub badge: u64,
    /// Refills beyond the minimum.
    pub extra_refills: u32,
    /// Keeps the record aligned.
    pub reserved: u32,
}

/// An interrupt line bound to a notification.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Irq {
    /// GIC INTID.
    pub irq: u32,
    /// 0 level, 1 edge.
    pub edge: u32,
    /// Notification signalled.
    pub notification: u32,
    /// Keeps the record aligned.
    pub reserved: u32,
    /// Badge of the signal.
    pub badge: u64,
}

/// A virtual CPU.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Vcpu {
    /// Its thread.
    pub tcb: u32,
    /// Keeps the record aligned.
    pub reserved: u32,
}

/// A thread.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Tcb {
    /// Name in kernel messages, NUL-padded.
    pub name: [u8; 64],
    /// First instruction.
    pub pc: u64,
    /// Stack pointer.
    pub sp: u64,
    /// x0 at start.
    pub x0: u64,
    /// Virtual address of the IPC buffer, 0 for none.
    pub ipc_buffer: u64,
    /// Its physical address.
    pub ipc_buffer_paddr: u64,
    /// Badge of the fault endpoint capability.
    pub fault_badge: u64,
    /// Address space.
    pub vspace: u32,
    /// Root CNode.
    pub cspace: u32,
    /// Guard bits of the root CNode capability.
    pub cspace_guard_bits: u32,
    /// Fault endpoint or [`NONE`].
    pub fault_endpoint: u32,
    /// Rights of the fault endpoint capability ([`rights`]).
    pub fault_rights: u32,
    /// Scheduling context or [`NONE`].
    pub sched_context: u32,
    /// Bound notification or [`NONE`].
    pub notification: u32,
    /// 0–255.
    pub priority: u32,
    /// Maximum controlled priority.
    pub mcp: u32,
    /// Bits of [`tcb`].
    pub flags: u32,
}

/// [`Tcb::flags`]
pub mod tcb {
    /// Resumed at boot.
    pub const RESUME: u32 = 1;
    /// FPU access traps.
    pub const FPU_DISABLED: u32 = 2;
}
