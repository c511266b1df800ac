//! From the boot description to kernel objects.
//!
//! The packer is trusted, but a wrong image should say what is wrong with it instead of crashing later: every number is
//! checked here, and only here.

use zerocopy::{FromBytes, FromZeros, Immutable, KnownLayout};

use crate::abi::MAX_LENGTH;
use crate::context::{Context, initial_spsr};
use crate::hal::Hardware;
use crate::id::{
    CNodeId, EndpointId, Id, IrqId, NotificationId, ReplyId, SchedContextId, TcbId, VSpaceId, VcpuId,
};
use crate::image::{self, Header, MAGIC, NONE, Table, VERSION, cap};
use crate::kernel::{Kernel, Objects, ticks};
use crate::object::{
    CNode, Cap, Endpoint, EndpointCap, Irq, Notification, NotificationCap, Queue, Reply, Rights,
    SchedContext, State, Tcb,
};
use crate::refill::{MAX_REFILLS, Refills};
use crate::sched::WCET_US;
use crate::vcpu::{Vcpu, irq};

/// What is wrong with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootError {
    /// No description, or of another version.
    Format,
    /// A table lies outside the image or is misaligned.
    Table(&'static str),
    /// A record refers to something that does not exist, or its values are impossible.
    Record(&'static str, u32),
    /// The pool is too small.
    Pool,
}

/// The tables of a description.
#[allow(missing_docs)]
#[derive(Clone, Copy)]
pub struct Description<'d> {
    pub header: &'d Header,
    pub fills: &'d [image::Fill],
    pub mappings: &'d [image::Mapping],
    pub cnodes: &'d [image::CNode],
    pub slots: &'d [image::Slot],
    pub scheds: &'d [image::SchedContext],
    pub irqs: &'d [image::Irq],
    pub vcpus: &'d [image::Vcpu],
    pub tcbs: &'d [image::Tcb],
}

/// Finds the tables. `bytes` starts with the header and reaches to the end of the image.
pub fn parse(bytes: &[u8]) -> Result<Description<'_>, BootError> {
    let (header, _) = Header::ref_from_prefix(bytes).map_err(|_| BootError::Format)?;
    if header.magic != MAGIC || header.version != VERSION || header.size as usize != size_of::<Header>() {
        return Err(BootError::Format);
    }
    Ok(Description {
        header,
        fills: table(bytes, header.fills, "fills")?,
        mappings: table(bytes, header.mappings, "mappings")?,
        cnodes: table(bytes, header.cnodes, "cnodes")?,
        slots: table(bytes, header.slots, "slots")?,
        scheds: table(bytes, header.sched_contexts, "sched_contexts")?,
        irqs: table(bytes, header.irqs, "irqs")?,
        vcpus: table(bytes, header.vcpus, "vcpus")?,
        tcbs: table(bytes, header.tcbs, "tcbs")?,
    })
}

fn table<'d, T: FromBytes + Immutable + KnownLayout>(
    bytes: &'d [u8],
    table: Table,
    name: &'static str,
) -> Result<&'d [T], BootError> {
    let rest = bytes.get(table.offset as usize..).ok_or(BootError::Table(name))?;
    let size = (table.count as usize).checked_mul(size_of::<T>()).ok_or(BootError::Table(name))?;
    let part = rest.get(..size).ok_or(BootError::Table(name))?;
    <[T]>::ref_from_bytes(part).map_err(|_| BootError::Table(name))
}

/// Where objects are made. Memory is never given back.
pub trait Arena<'a> {
    /// `count` objects, or nothing if there is no room.
    fn array<T: 'a>(&mut self, count: usize, make: impl FnMut(usize) -> T) -> Option<&'a mut [T]>;
}

/// Makes the objects of a description.
pub fn objects<'a>(
    d: &Description<'_>,
    arena: &mut impl Arena<'a>,
    now: u64,
    frequency: u64,
) -> Result<Objects<'a>, BootError> {
    check_counts(d)?;
    let h = d.header;
    let cnodes = arena.array(d.cnodes.len(), |_| CNode::default()).ok_or(BootError::Pool)?;
    let mut slots = 0usize;
    for (i, (node, record)) in cnodes.iter_mut().zip(d.cnodes).enumerate() {
        if !(1..=16).contains(&record.size_bits) {
            return Err(BootError::Record("cnode", i as u32));
        }
        *node = CNode { start: slots as u32, bits: record.size_bits as u8 };
        slots += 1 << record.size_bits;
    }
    let caps = arena.array(slots, |_| Cap::Null).ok_or(BootError::Pool)?;
    for (i, record) in d.slots.iter().enumerate() {
        let error = BootError::Record("slot", i as u32);
        let node = cnodes.get(record.cnode as usize).filter(|n| record.index >> n.bits == 0).ok_or(error)?;
        let slot = caps.get_mut(node.start as usize + record.index as usize).ok_or(error)?;
        *slot = capability(d, record).ok_or(error)?;
    }
    let minimum = ticks(2 * WCET_US, frequency);
    let scheds = arena
        .array(d.scheds.len(), |i| {
            let r = d.scheds.get(i).copied().unwrap_or_default();
            let (budget, period) = (ticks(r.budget, frequency), ticks(r.period, frequency));
            SchedContext {
                tcb: None,
                notification: None,
                reply: None,
                yield_from: None,
                badge: r.badge,
                consumed: 0,
                refills: Refills::new(budget, period, r.extra_refills as usize, minimum, now),
            }
        })
        .ok_or(BootError::Pool)?;
    let notifications =
        arena.array(h.notifications as usize, |_| Notification::default()).ok_or(BootError::Pool)?;
    let vcpus = arena.array(d.vcpus.len(), |_| Vcpu::default()).ok_or(BootError::Pool)?;
    let tcbs =
        arena.array(d.tcbs.len(), |i| d.tcbs.get(i).map_or_else(unused_tcb, tcb)).ok_or(BootError::Pool)?;
    for (i, t) in tcbs.iter_mut().enumerate() {
        let error = BootError::Record("tcb", i as u32);
        let id = TcbId::new(i);
        if let Some(sc) = t.sched_context {
            let sc = scheds.get_mut(sc.index()).filter(|sc| sc.tcb.is_none()).ok_or(error)?;
            sc.tcb = Some(id);
        }
        if let Some(n) = t.notification {
            let n = notifications.get_mut(n.index()).filter(|n| n.tcb.is_none()).ok_or(error)?;
            n.tcb = Some(id);
        }
    }
    for (i, (v, record)) in vcpus.iter_mut().zip(d.vcpus).enumerate() {
        let error = BootError::Record("vcpu", i as u32);
        let t = tcbs.get_mut(record.tcb as usize).filter(|t| t.vcpu.is_none()).ok_or(error)?;
        t.vcpu = Some(VcpuId::new(i));
        t.context.spsr = initial_spsr(true);
        v.tcb = Some(TcbId::new(record.tcb as usize));
    }
    Ok(Objects {
        tcbs,
        endpoints: arena.array(h.endpoints as usize, |_| Endpoint::default()).ok_or(BootError::Pool)?,
        notifications,
        replies: arena.array(h.replies as usize, |_| Reply::default()).ok_or(BootError::Pool)?,
        scheds,
        irqs: arena
            .array(d.irqs.len(), |i| {
                let r = d.irqs.get(i).copied().unwrap_or_default();
                let id = NotificationId::new(r.notification as usize);
                let handler = NotificationCap { id, badge: r.badge, rights: Rights(3) };
                Irq { number: r.irq, handler: (r.notification < h.notifications).then_some(handler) }
            })
            .ok_or(BootError::Pool)?,
        vcpus,
        cnodes,
        slots: caps,
    })
}

/// Lets the threads go that are to run.
pub fn start<H: Hardware>(kernel: &mut Kernel<'_, H>, d: &Description<'_>) {
    for (i, record) in d.tcbs.iter().enumerate() {
        if record.flags & image::tcb::RESUME != 0 && i < kernel.tcbs.len() {
            kernel.resume(TcbId::new(i));
        }
    }
    kernel.schedule();
}

fn tcb(r: &image::Tcb) -> Tcb {
    let some = |n: u32| (n != NONE).then_some(n as usize);
    let mut context =
        Context { pc: r.pc, fault_ip: r.pc, sp: r.sp, spsr: initial_spsr(false), ..Context::default() };
    context.x[0] = r.x0;
    Tcb {
        context,
        state: State::Inactive,
        queue: Queue::None,
        priority: r.priority as u8,
        mcp: r.mcp as u8,
        fpu_disabled: r.flags & image::tcb::FPU_DISABLED != 0,
        next: None,
        prev: None,
        sched_context: some(r.sched_context).map(SchedContextId::new),
        yield_to: None,
        notification: some(r.notification).map(NotificationId::new),
        vcpu: None,
        vspace: VSpaceId::new(r.vspace as usize),
        guard_bits: r.cspace_guard_bits as u8,
        cspace: CNodeId::new(r.cspace as usize),
        buffer: (r.ipc_buffer != 0).then_some(r.ipc_buffer_paddr),
        fault: None,
        fault_handler: some(r.fault_endpoint)
            .map(|e| EndpointCap {
                id: EndpointId::new(e),
                badge: r.fault_badge,
                rights: Rights(r.fault_rights as u8),
            })
            .filter(EndpointCap::handles_faults),
        timeout_handler: None,
        name: r.name,
    }
}

fn unused_tcb() -> Tcb {
    tcb(&image::Tcb::new_zeroed())
}

fn capability(d: &Description<'_>, r: &image::Slot) -> Option<Cap> {
    let h = d.header;
    let object = r.object as usize;
    let below = |n: usize| (object < n).then_some(object);
    let rights = Rights(r.rights as u8 & 15);
    let badge = r.badge;
    Some(match r.kind {
        cap::ENDPOINT => {
            Cap::Endpoint(EndpointCap { id: EndpointId::new(below(h.endpoints as usize)?), badge, rights })
        }
        cap::NOTIFICATION => {
            let id = NotificationId::new(below(h.notifications as usize)?);
            Cap::Notification(NotificationCap { id, badge, rights })
        }
        cap::REPLY => Cap::Reply(ReplyId::new(below(h.replies as usize)?)),
        cap::TCB => Cap::Tcb(TcbId::new(below(d.tcbs.len())?)),
        cap::CNODE if r.guard_bits <= 64 => {
            Cap::CNode(CNodeId::new(below(d.cnodes.len())?), r.guard_bits as u8)
        }
        cap::VSPACE => Cap::VSpace(VSpaceId::new(below(h.vspaces as usize)?)),
        cap::SCHED_CONTEXT => Cap::SchedContext(SchedContextId::new(below(d.scheds.len())?)),
        cap::IRQ => Cap::Irq(IrqId::new(below(d.irqs.len())?)),
        cap::VCPU => Cap::Vcpu(VcpuId::new(below(d.vcpus.len())?)),
        cap::SMC => Cap::Smc(badge),
        _ => return None,
    })
}

fn check_counts(d: &Description<'_>) -> Result<(), BootError> {
    let h = d.header;
    let counts = [h.endpoints, h.notifications, h.replies, h.tcbs.count, h.cnodes.count, h.irqs.count];
    // VMIDs have 8 bits, and 0 is not used.
    if counts.iter().any(|c| *c >= 1 << 15) || h.vspaces > 255 {
        return Err(BootError::Format);
    }
    for (i, m) in d.mappings.iter().enumerate() {
        if m.vspace >= h.vspaces {
            return Err(BootError::Record("mapping", i as u32));
        }
    }
    for (i, sc) in d.scheds.iter().enumerate() {
        if sc.budget < 2 * WCET_US || sc.period < sc.budget || sc.extra_refills as usize > MAX_REFILLS - 2 {
            return Err(BootError::Record("sched_context", i as u32));
        }
    }
    for (i, r) in d.irqs.iter().enumerate() {
        let reserved = matches!(r.irq, irq::MAINTENANCE | irq::TIMER | irq::VTIMER);
        let bound = r.notification == NONE || r.notification < h.notifications;
        if reserved || r.irq > irq::MAX || !bound {
            return Err(BootError::Record("irq", i as u32));
        }
    }
    for (i, t) in d.tcbs.iter().enumerate() {
        let optional = |n: u32, count: u32| n == NONE || n < count;
        let buffer_bytes = 8 * (MAX_LENGTH as u64 + 8);
        if t.vspace >= h.vspaces
            || t.cspace as usize >= d.cnodes.len()
            || t.cspace_guard_bits > 64
            || !optional(t.fault_endpoint, h.endpoints)
            || !optional(t.sched_context, h.sched_contexts.count)
            || !optional(t.notification, h.notifications)
            || t.priority > 255
            || t.mcp > 255
            || t.ipc_buffer_paddr % buffer_bytes != 0
        {
            return Err(BootError::Record("tcb", i as u32));
        }
    }
    Ok(())
}
