//! A checked system description.

use std::sync::Arc;

use super::error::Place;

/// The whole system. Indices into `pds` are Microkit's global PD indices: a parent, then its descendants depth-first.
#[derive(Clone, Debug, Default)]
pub struct System {
    /// Where the root element begins.
    pub place: Place,
    /// Protection domains.
    pub pds: Vec<Pd>,
    /// Memory regions.
    pub regions: Vec<Region>,
    /// Channels.
    pub channels: Vec<Channel>,
    /// What is accepted but deserves a word.
    pub warnings: Vec<String>,
}

/// Budget and priority of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheduling {
    /// 0–254 (a VM: 0–255).
    pub priority: u8,
    /// Microseconds.
    pub budget: u64,
    /// Microseconds.
    pub period: u64,
}

/// A protection domain.
#[derive(Clone, Debug)]
pub struct Pd {
    /// Where its element begins.
    pub place: Place,
    /// Name.
    pub name: String,
    /// Global index of the parent.
    pub parent: Option<usize>,
    /// Child id in the parent.
    pub id: Option<u64>,
    /// Has children.
    pub is_parent: bool,
    /// Scheduling parameters.
    pub scheduling: Scheduling,
    /// Gives its scheduling context away after `init`.
    pub passive: bool,
    /// Bytes of stack.
    pub stack_size: u64,
    /// Holds the SMC capability.
    pub smc: bool,
    /// May use FPU and SIMD.
    pub fpu: bool,
    /// Path of the ELF file.
    pub image: String,
    /// Path of the ELF file with the symbols, if another.
    pub symbols: Option<String>,
    /// Where `image` is named.
    pub image_place: Place,
    /// Mappings.
    pub maps: Vec<Map>,
    /// Interrupts.
    pub irqs: Vec<Irq>,
    /// Variables to be set in the ELF.
    pub setvars: Vec<Setvar>,
    /// Capabilities in the PD's own slots.
    pub caps: Vec<UserCap>,
    /// Virtual machine.
    pub vm: Option<Vm>,
}

impl Pd {
    /// Bitmap of IRQ ids.
    pub fn irq_bits(&self) -> u64 {
        self.irqs.iter().fold(0, |bits, irq| bits | 1 << irq.id)
    }
}

/// A mapping of a region.
#[derive(Clone, Debug)]
pub struct Map {
    /// Where its region is named.
    pub region_place: Place,
    /// Where its address is.
    pub vaddr_place: Place,
    /// Region's name.
    pub region: String,
    /// Virtual (for a VM: guest-physical) address.
    pub vaddr: u64,
    /// Readable.
    pub read: bool,
    /// Writable.
    pub write: bool,
    /// Executable.
    pub execute: bool,
    /// Normal memory; otherwise Device-nGnRnE.
    pub cached: bool,
}

/// An interrupt.
#[derive(Clone, Debug)]
pub struct Irq {
    /// Where its number is.
    pub irq_place: Place,
    /// Where its id is.
    pub id_place: Place,
    /// GIC INTID.
    pub irq: u64,
    /// Channel id.
    pub id: u64,
    /// Edge-triggered.
    pub edge: bool,
}

/// A variable to be set.
#[derive(Clone, Debug)]
pub struct Setvar {
    /// Where.
    pub place: Place,
    /// ELF symbol.
    pub symbol: String,
    /// Its value.
    pub value: Value,
}

/// Value of a [`Setvar`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Known already: an address or id.
    Known(u64),
    /// Bytes of a region.
    Size(String),
    /// Bytes of a region's file.
    PrefillSize(String),
    /// Physical address of a region.
    Paddr(String),
}

/// What a user capability refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserCapKind {
    /// TCB.
    Tcb,
    /// Scheduling context.
    SchedContext,
    /// Address space.
    VSpace,
}

/// A capability in the PD's root CNode.
#[derive(Clone, Debug)]
pub struct UserCap {
    /// Where.
    pub place: Place,
    /// What.
    pub kind: UserCapKind,
    /// Whose: name as written.
    pub pd_name: String,
    /// Whose: global index.
    pub pd: usize,
    /// Slot in the root CNode.
    pub slot: u64,
}

/// A virtual machine.
#[derive(Clone, Debug)]
pub struct Vm {
    /// Where.
    pub place: Place,
    /// Name.
    pub name: String,
    /// Scheduling parameters of each vCPU.
    pub scheduling: Scheduling,
    /// vCPU ids in order.
    pub vcpus: Vec<u64>,
    /// Mappings.
    pub maps: Vec<Map>,
}

/// A memory region.
#[derive(Clone, Debug)]
pub struct Region {
    /// Where.
    pub place: Place,
    /// Where its physical address is.
    pub paddr_place: Place,
    /// Name.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// 4 KiB or 2 MiB.
    pub page_size: u64,
    /// The user chose `page_size`.
    pub page_size_given: bool,
    /// Physical address.
    pub paddr: Paddr,
    /// Contents.
    pub prefill: Option<Arc<[u8]>>,
}

/// A region's physical address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paddr {
    /// Of no interest to anyone: each page may be anywhere.
    Any,
    /// Contiguous, chosen by the packer.
    Chosen,
    /// Named by the user.
    Fixed(u64),
}

/// One end of a channel.
#[derive(Clone, Debug)]
pub struct End {
    /// Where its id is.
    pub id_place: Place,
    /// Where `pp` is.
    pub pp_place: Place,
    /// Global PD index.
    pub pd: usize,
    /// Channel id.
    pub id: u64,
    /// May signal the other end.
    pub notify: bool,
    /// May call the other end.
    pub pp: bool,
}

/// A channel.
#[derive(Clone, Debug)]
pub struct Channel {
    /// Both ends.
    pub ends: [End; 2],
}

impl Channel {
    /// Each end with its peer.
    pub fn directions(&self) -> [(&End, &End); 2] {
        let [a, b] = &self.ends;
        [(a, b), (b, a)]
    }
}
