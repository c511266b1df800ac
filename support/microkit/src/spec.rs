//! The kernel objects of a system, before anything has an address.
//!
//! Objects have the names the official tool gives them, so that reports of either can be compared line by line.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::sdf::model::Paddr;

/// Index into [`Spec::objects`].
pub type Id = usize;
/// Index into [`Spec::memories`].
pub type MemoryId = usize;

/// Rights of endpoint and notification capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Receive.
    pub read: bool,
    /// Send.
    pub write: bool,
    /// Grant.
    pub grant: bool,
}

impl Rights {
    /// All endpoint capabilities.
    pub const ENDPOINT: Rights = Rights { read: true, write: true, grant: true };
    /// All notification capabilities.
    pub const NOTIFICATION: Rights = Rights { read: true, write: true, grant: false };
}

/// A capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cap {
    /// Endpoint with badge, rights [`Rights::ENDPOINT`].
    Endpoint(Id, u64),
    /// Notification with badge, rights [`Rights::NOTIFICATION`].
    Notification(Id, u64),
    /// Reply object.
    Reply(Id),
    /// TCB.
    Tcb(Id),
    /// CNode with guard bits; the guard is 0.
    CNode(Id, u8),
    /// Address space.
    VSpace(Id),
    /// Scheduling context.
    SchedContext(Id),
    /// IRQ handler.
    Irq(Id),
    /// Virtual CPU.
    Vcpu(Id),
    /// Secure monitor calls.
    Smc(Id),
}

impl Cap {
    /// What it refers to.
    pub fn object(self) -> Id {
        match self {
            Cap::Endpoint(id, _) | Cap::Notification(id, _) | Cap::CNode(id, _) => id,
            Cap::Reply(id) | Cap::Tcb(id) | Cap::VSpace(id) | Cap::SchedContext(id) => id,
            Cap::Irq(id) | Cap::Vcpu(id) | Cap::Smc(id) => id,
        }
    }
    /// Badge, if it has one.
    pub fn badge(self) -> Option<u64> {
        match self {
            Cap::Endpoint(_, badge) | Cap::Notification(_, badge) => Some(badge),
            _ => None,
        }
    }
    /// Rights, if it has such.
    pub fn rights(self) -> Option<Rights> {
        match self {
            Cap::Endpoint(..) => Some(Rights::ENDPOINT),
            Cap::Notification(..) => Some(Rights::NOTIFICATION),
            _ => None,
        }
    }
}

/// A thread.
#[derive(Clone, Debug)]
pub struct Tcb {
    /// Name in kernel messages.
    pub thread: String,
    /// First instruction.
    pub pc: u64,
    /// Stack pointer.
    pub sp: u64,
    /// First argument.
    pub x0: u64,
    /// Virtual address of the IPC buffer; 0 for a vCPU, which has only its frame.
    pub ipc_vaddr: u64,
    /// Frame of the IPC buffer.
    pub ipc_frame: MemoryId,
    /// Priority and maximum controlled priority.
    pub priority: u8,
    /// Started at boot.
    pub resume: bool,
    /// May use FPU and SIMD.
    pub fpu: bool,
    /// Root CNode and guard bits.
    pub cspace: (Id, u8),
    /// Address space.
    pub vspace: Id,
    /// Fault endpoint and badge.
    pub fault: Option<(Id, u64)>,
    /// Scheduling context.
    pub sched_context: Id,
    /// Bound notification.
    pub notification: Option<Id>,
    /// Virtual CPU.
    pub vcpu: Option<Id>,
}

/// Part of an address space.
#[derive(Clone, Copy, Debug)]
pub struct Mapping {
    /// Virtual address.
    pub vaddr: u64,
    /// Memory, mapped whole.
    pub memory: MemoryId,
    /// Readable.
    pub read: bool,
    /// Writable.
    pub write: bool,
    /// Executable.
    pub execute: bool,
    /// Normal memory.
    pub cached: bool,
}

/// A kernel object.
#[derive(Clone, Debug)]
pub enum Object {
    /// Endpoint.
    Endpoint,
    /// Notification.
    Notification,
    /// Reply object.
    Reply,
    /// CNode: log2 of its slots, filled slots.
    CNode(u8, BTreeMap<u32, Cap>),
    /// Thread.
    Tcb(Box<Tcb>),
    /// Virtual CPU of a TCB.
    Vcpu(Id),
    /// Scheduling context.
    SchedContext {
        /// Microseconds.
        budget: u64,
        /// Microseconds.
        period: u64,
        /// Badge in timeout faults.
        badge: u64,
    },
    /// Interrupt: number, edge-triggered, notification, badge.
    Irq(u32, bool, Id, u64),
    /// Right to secure monitor calls.
    Smc,
    /// Address space, in the order it is mapped in.
    VSpace(Vec<Mapping>),
}

/// A named object.
#[derive(Clone, Debug)]
pub struct Named {
    /// Unique name.
    pub name: String,
    /// Object.
    pub object: Object,
}

/// What fills memory at boot.
#[derive(Clone, Debug)]
pub enum Contents {
    /// Zeros.
    Zero,
    /// A segment of a PD's ELF file: PD (the monitor comes last), segment, offset in the first page.
    Segment(usize, usize, u64),
    /// A file.
    File(Arc<[u8]>),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Whatever is there: device registers.
    Untouched,
}

/// Physical memory of one purpose.
#[derive(Clone, Debug)]
pub struct Memory {
    /// Name of its frames.
    pub name: String,
    /// Number of its first frame, appended to the name; officially, some single frames have none.
    pub first: Option<u64>,
    /// Bytes, a multiple of `page_size`.
    pub size: u64,
    /// 4 KiB or 2 MiB.
    pub page_size: u64,
    /// Physical address.
    pub paddr: Paddr,
    /// Contents.
    pub contents: Contents,
}

impl Memory {
    /// Name of the frame at `index`.
    pub fn frame_name(&self, index: u64) -> String {
        match self.first {
            Some(first) => format!("frame_{}_{:09}", self.name, first + index),
            None => format!("frame_{}", self.name),
        }
    }
}

/// A system as kernel objects.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    /// Objects.
    pub objects: Vec<Named>,
    /// Memory.
    pub memories: Vec<Memory>,
    /// TCBs in the order they start, the monitor first.
    pub start_order: Vec<Id>,
    names: BTreeSet<String>,
}

impl Spec {
    /// Adds an object. Names are unique, because reports and tools find objects by them.
    pub fn add(&mut self, name: String, object: Object) -> Result<Id, String> {
        self.claim(&name)?;
        self.objects.push(Named { name, object });
        Ok(self.objects.len() - 1)
    }

    /// Adds memory.
    pub fn add_memory(&mut self, memory: Memory) -> Result<MemoryId, String> {
        self.claim(&memory.frame_name(0))?;
        self.memories.push(memory);
        Ok(self.memories.len() - 1)
    }

    fn claim(&mut self, name: &str) -> Result<(), String> {
        if self.names.insert(name.to_owned()) {
            return Ok(());
        }
        Err(format!(
            "two objects would be named '{name}': a protection domain, virtual machine or memory region has a name \
             that collides with another's; rename one of them"
        ))
    }

    /// Puts a capability into a CNode's slot.
    pub fn insert(&mut self, cnode: Id, slot: u64, cap: Cap) -> Result<(), String> {
        let Some(Named { name, object: Object::CNode(bits, slots) }) = self.objects.get_mut(cnode) else {
            return Err(format!("internal error: object {cnode} is not a CNode"));
        };
        if slot >> *bits != 0 {
            return Err(format!("internal error: '{name}' has no slot {slot}"));
        }
        match slots.insert(slot as u32, cap) {
            None => Ok(()),
            Some(_) => Err(format!("slot {slot} of '{name}' is needed twice")),
        }
    }

    /// Adds a mapping to an address space.
    pub fn map(&mut self, vspace: Id, mapping: Mapping) {
        if let Some(Named { object: Object::VSpace(mappings), .. }) = self.objects.get_mut(vspace) {
            mappings.push(mapping);
        }
    }

    /// Name of an object.
    pub fn name(&self, id: Id) -> &str {
        self.objects.get(id).map_or("", |object| &object.name)
    }
}
