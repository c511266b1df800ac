//! Kernel objects.

use crate::context::Context;
use crate::fault::Fault;
use crate::id::{
    CNodeId, EndpointId, IrqId, NotificationId, ReplyId, SchedContextId, TcbId, VSpaceId, VcpuId,
};
use crate::image::rights;
use crate::pool::bytes;
use crate::queue::List;
use crate::refill::Refills;

/// What a capability allows, in seL4's order of bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights(pub u8);

impl Rights {
    /// Send.
    pub const fn write(self) -> bool {
        self.0 as u32 & rights::WRITE != 0
    }
    /// Receive.
    pub const fn read(self) -> bool {
        self.0 as u32 & rights::READ != 0
    }
    /// Pass capabilities and reply rights.
    pub const fn grant(self) -> bool {
        self.0 as u32 & rights::GRANT != 0
    }
    /// Pass reply rights.
    pub const fn grant_reply(self) -> bool {
        self.0 as u32 & rights::GRANT_REPLY != 0
    }
}

/// A capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cap {
    /// Empty slot.
    Null,
    /// Endpoint.
    Endpoint(EndpointCap),
    /// Notification.
    Notification(NotificationCap),
    /// Reply object; replies may grant.
    Reply(ReplyId),
    /// Thread.
    Tcb(TcbId),
    /// Capability node with guard 0.
    CNode(CNodeId, u8),
    /// Address space.
    VSpace(VSpaceId),
    /// Scheduling context.
    SchedContext(SchedContextId),
    /// IRQ handler.
    Irq(IrqId),
    /// Virtual CPU.
    Vcpu(VcpuId),
    /// Secure monitor calls: any function for 0, else that function.
    Smc(u64),
}

/// Capability to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointCap {
    /// Object.
    pub id: EndpointId,
    /// What the receiver sees.
    pub badge: u64,
    /// Rights.
    pub rights: Rights,
}

impl EndpointCap {
    /// Whether faults may be sent through it: the handler must be able to reply.
    pub const fn handles_faults(&self) -> bool {
        self.rights.write() && (self.rights.grant() || self.rights.grant_reply())
    }
}

/// Capability to a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotificationCap {
    /// Object.
    pub id: NotificationId,
    /// Bits that a signal sets.
    pub badge: u64,
    /// Rights.
    pub rights: Rights,
}

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing, until it is resumed.
    Inactive,
    /// Goes on.
    Running,
    /// Goes on at the instruction that entered the kernel.
    Restart,
    /// Waits for a message.
    Receiving {
        /// Where.
        endpoint: EndpointId,
        /// What the reply to it will go through.
        reply: Option<ReplyId>,
    },
    /// Waits for a receiver.
    Sending {
        /// Where.
        endpoint: EndpointId,
        /// Badge of the capability used.
        badge: u64,
        /// Rights of it.
        rights: Rights,
        /// Wants a reply.
        call: bool,
    },
    /// Waits for a reply.
    Replying(ReplyId),
    /// Waits for a signal.
    Waiting(NotificationId),
}

/// The queue a thread is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// None.
    None,
    /// Ready, at the priority it had when it was queued.
    Ready,
    /// Until its next refill.
    Release,
    /// An endpoint's or a notification's.
    Object,
}

/// A thread.
#[derive(Debug)]
#[repr(C)]
pub struct Tcb {
    /// Registers.
    pub context: Context,
    /// State.
    pub state: State,
    /// Queue it is in.
    pub queue: Queue,
    /// Priority.
    pub priority: u8,
    /// Maximum controlled priority.
    pub mcp: u8,
    /// FPU access traps.
    pub fpu_disabled: bool,
    /// Neighbours in the queue.
    pub next: Option<TcbId>,
    /// Neighbours in the queue.
    pub prev: Option<TcbId>,
    /// Scheduling context it runs on.
    pub sched_context: Option<SchedContextId>,
    /// Scheduling context whose consumption it will be told when it goes on.
    pub yield_to: Option<SchedContextId>,
    /// Notification that may interrupt its receiving.
    pub notification: Option<NotificationId>,
    /// Virtual CPU it is the thread of.
    pub vcpu: Option<VcpuId>,
    /// Address space.
    pub vspace: VSpaceId,
    /// Guard bits of the root CNode.
    pub guard_bits: u8,
    /// Root CNode.
    pub cspace: CNodeId,
    /// Physical address of the IPC buffer.
    pub buffer: Option<u64>,
    /// Fault it waits with.
    pub fault: Option<Fault>,
    /// Where faults go.
    pub fault_handler: Option<EndpointCap>,
    /// Where timeout faults go.
    pub timeout_handler: Option<EndpointCap>,
    /// Name in kernel messages.
    pub name: [u8; 64],
}

/// A message queue.
#[derive(Debug, Default)]
pub struct Endpoint {
    /// Threads that all send or all receive.
    pub queue: List,
    /// Whether they receive.
    pub receiving: bool,
}

/// A word of flags to signal.
#[derive(Debug, Default)]
pub struct Notification {
    /// Threads that wait for a signal. Empty if a signal is pending.
    pub queue: List,
    /// Pending signal.
    pub pending: Option<u64>,
    /// Thread whose receiving it interrupts.
    pub tcb: Option<TcbId>,
    /// Scheduling context it lends.
    pub sched_context: Option<SchedContextId>,
}

/// What is above a reply object in a call chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Above {
    /// It is in no chain, or above it the chain is cut.
    #[default]
    Nothing,
    /// The reply object of a later call.
    Reply(ReplyId),
    /// It is the latest call made on this scheduling context.
    SchedContext(SchedContextId),
}

/// The right to reply to one caller.
#[derive(Debug, Default)]
pub struct Reply {
    /// The caller, or the thread that receives with it.
    pub tcb: Option<TcbId>,
    /// Towards the scheduling context.
    pub above: Above,
    /// An earlier call.
    pub below: Option<ReplyId>,
}

/// A budget.
#[derive(Debug)]
pub struct SchedContext {
    /// Thread that runs on it.
    pub tcb: Option<TcbId>,
    /// Notification that lends it.
    pub notification: Option<NotificationId>,
    /// The latest call made on it.
    pub reply: Option<ReplyId>,
    /// Thread that yielded to it.
    pub yield_from: Option<TcbId>,
    /// Reported in timeout faults.
    pub badge: u64,
    /// Ticks used since somebody asked.
    pub consumed: u64,
    /// What is left and when more comes.
    pub refills: Refills,
}

/// An interrupt line.
#[derive(Debug)]
pub struct Irq {
    /// GIC interrupt number.
    pub number: u32,
    /// Signalled when it fires.
    pub handler: Option<NotificationCap>,
}

/// A capability node: a range of the slot table.
#[derive(Clone, Copy, Debug, Default)]
pub struct CNode {
    /// First slot.
    pub start: u32,
    /// Slots, as a power of two.
    pub bits: u8,
}

impl Tcb {
    /// Whether it would go on if it had budget.
    pub fn is_runnable(&self) -> bool {
        matches!(self.state, State::Running | State::Restart)
    }
    /// Whether the scheduler may choose it.
    pub fn is_schedulable(&self) -> bool {
        self.is_runnable() && self.sched_context.is_some() && self.queue != Queue::Release
    }
}

const _: () = assert!(size_of::<Tcb>() as u64 + 544 <= bytes::TCB);
const _: () = assert!(size_of::<Endpoint>() as u64 <= bytes::ENDPOINT);
const _: () = assert!(size_of::<Notification>() as u64 <= bytes::NOTIFICATION);
const _: () = assert!(size_of::<Reply>() as u64 <= bytes::REPLY);
const _: () = assert!(size_of::<SchedContext>() as u64 <= bytes::SCHED_CONTEXT);
const _: () = assert!(size_of::<Irq>() as u64 <= bytes::IRQ);
const _: () = assert!(size_of::<CNode>() as u64 <= bytes::CNODE);
const _: () = assert!(size_of::<Cap>() as u64 <= bytes::SLOT);
