//! The kernel's state, and its entries: system call, fault, interrupt.
//!
//! One entry runs to its end with interrupts off; then the scheduler chooses, and [`Kernel::leave`] makes the machine
//! match the choice. Nothing here blocks, allocates or recurses over user-controlled structures.

use crate::context::Context;
use crate::fault::Fault;
use crate::hal::Hardware;
use crate::id::{CNodeId, EndpointId, IrqId, NotificationId, ReplyId, SchedContextId, Table, TcbId, VcpuId};
use crate::object::{CNode, Cap, Endpoint, Irq, Notification, NotificationCap, Reply, SchedContext, Tcb};
use crate::sched::Scheduler;
use crate::vcpu::{Loaded, Vcpu, irq};

/// Interrupt numbers below this one exist.
pub const IRQ_LINES: usize = irq::MAX as usize + 1;

/// The kernel.
pub struct Kernel<'a, H> {
    /// Machine.
    pub hw: H,
    /// Threads.
    pub tcbs: Table<'a, TcbId, Tcb>,
    /// Endpoints.
    pub endpoints: Table<'a, EndpointId, Endpoint>,
    /// Notifications.
    pub notifications: Table<'a, NotificationId, Notification>,
    /// Reply objects.
    pub replies: Table<'a, ReplyId, Reply>,
    /// Scheduling contexts.
    pub scheds: Table<'a, SchedContextId, SchedContext>,
    /// IRQ handlers.
    pub irqs: Table<'a, IrqId, Irq>,
    /// Virtual CPUs.
    pub vcpus: Table<'a, VcpuId, Vcpu>,
    /// Capability nodes.
    pub cnodes: Table<'a, CNodeId, CNode>,
    /// Slots of all capability nodes.
    pub slots: &'a [Cap],
    /// IRQ handler of each line.
    pub(crate) lines: [Option<IrqId>; IRQ_LINES],
    /// Scheduler.
    pub(crate) sched: Scheduler,
    /// Ticks per second.
    pub(crate) frequency: u64,
    /// Thread whose registers are in the CPU.
    pub(crate) loaded: Option<TcbId>,
    /// Something of it changed: load again.
    pub(crate) reload: bool,
    /// Thread whose FPU registers are in the CPU.
    pub(crate) fpu_owner: Option<TcbId>,
    pub(crate) loaded_vcpu: Loaded,
}

/// Tables of a kernel.
pub struct Objects<'a> {
    /// Threads.
    pub tcbs: &'a mut [Tcb],
    /// Endpoints.
    pub endpoints: &'a mut [Endpoint],
    /// Notifications.
    pub notifications: &'a mut [Notification],
    /// Reply objects.
    pub replies: &'a mut [Reply],
    /// Scheduling contexts.
    pub scheds: &'a mut [SchedContext],
    /// IRQ handlers.
    pub irqs: &'a mut [Irq],
    /// Virtual CPUs.
    pub vcpus: &'a mut [Vcpu],
    /// Capability nodes.
    pub cnodes: &'a mut [CNode],
    /// Slots.
    pub slots: &'a [Cap],
}

impl<'a, H: Hardware> Kernel<'a, H> {
    /// A kernel over these objects; nothing runs yet.
    pub fn new(hw: H, objects: Objects<'a>, frequency: u64) -> Self {
        let now = hw.now();
        let mut lines = [None; IRQ_LINES];
        let irqs: Table<'a, IrqId, Irq> = Table::new(objects.irqs);
        for (id, irq) in irqs.iter() {
            if let Some(line) = lines.get_mut(irq.number as usize) {
                *line = Some(id);
            }
        }
        Kernel {
            hw,
            tcbs: Table::new(objects.tcbs),
            endpoints: Table::new(objects.endpoints),
            notifications: Table::new(objects.notifications),
            replies: Table::new(objects.replies),
            scheds: Table::new(objects.scheds),
            irqs,
            vcpus: Table::new(objects.vcpus),
            cnodes: Table::new(objects.cnodes),
            slots: objects.slots,
            lines,
            sched: Scheduler::new(now, frequency),
            frequency,
            loaded: None,
            reload: true,
            fpu_owner: None,
            loaded_vcpu: Loaded::default(),
        }
    }

    /// The thread that runs, or none if all sleep.
    pub fn current(&self) -> Option<TcbId> {
        self.sched.current
    }

    /// The registers of the thread that runs.
    pub fn current_context(&mut self) -> Option<&mut Context> {
        let current = self.sched.current?;
        Some(&mut self.tcbs[current].context)
    }

    /// A system call of the current thread.
    pub fn enter_syscall(&mut self) {
        let Some(current) = self.sched.current else { return };
        let number = self.tcbs[current].context.x[7] as i64;
        if !self.debug_syscall(current, number) {
            self.update_time();
            if self.has_budget_or_restart() {
                self.syscall(current, number);
            }
        }
        self.schedule();
    }

    /// A fault of the current thread.
    pub fn enter_fault(&mut self, fault: Fault) {
        self.update_time();
        if self.has_budget_or_restart() {
            self.fault(fault);
        }
        self.schedule();
    }

    /// An interrupt; the machine has masked nothing yet but will not deliver it again before this returns.
    pub fn enter_interrupt(&mut self, number: u32) {
        self.update_time();
        self.check_budget();
        match number {
            irq::TIMER => self.sched.reprogram = true,
            irq::VTIMER => self.vtimer_interrupt(),
            irq::MAINTENANCE => self.vgic_maintenance(),
            _ => self.device_interrupt(number),
        }
        self.schedule();
    }

    /// A line fires once and stays masked until it is acknowledged.
    fn device_interrupt(&mut self, number: u32) {
        self.hw.enable_irq(number, false);
        let handler = self.lines.get(number as usize).copied().flatten();
        if let Some(NotificationCap { id, badge, .. }) = handler.and_then(|i| self.irqs[i].handler) {
            self.signal(id, badge);
        }
    }

    /// The current thread faults: tells its handler, or stops it.
    pub(crate) fn fault(&mut self, fault: Fault) {
        let Some(current) = self.sched.current else { return };
        let handler = self.tcbs[current].fault_handler;
        self.send_fault(current, fault, handler);
    }

    /// Makes the machine match the scheduler's choice. To be called before user code goes on.
    pub fn leave(&mut self) {
        let next = self.sched.current;
        let vcpu = next.and_then(|t| self.tcbs[t].vcpu);
        if next == self.loaded && !self.reload {
            // The same thread; while all slept its virtual CPU was turned off.
            if vcpu.is_some() {
                self.switch_vcpu(vcpu);
            }
            return;
        }
        self.switch_vcpu(vcpu);
        let Some(next) = next else { return };
        if self.loaded != Some(next) {
            if let Some(old) = self.loaded {
                self.hw.save(&mut self.tcbs[old].context);
            }
            let tcb = &self.tcbs[next];
            self.hw.load(&tcb.context, tcb.vspace);
            self.loaded = Some(next);
        }
        self.reload = false;
        let fpu = !self.tcbs[next].fpu_disabled;
        self.hw.enable_fpu(fpu);
        if fpu && self.fpu_owner != Some(next) {
            self.hw.switch_fpu(self.fpu_owner.replace(next), next);
        }
    }

    /// Takes the registers that are saved lazily out of the CPU, so that another thread may read or change them.
    pub(crate) fn unload(&mut self, thread: TcbId) {
        if self.loaded == Some(thread) {
            self.hw.save(&mut self.tcbs[thread].context);
            self.loaded = None;
        }
    }

    /// Ticks of a time in microseconds.
    pub(crate) fn micros(&self, ticks: u64) -> u64 {
        (u128::from(ticks) * 1_000_000 / u128::from(self.frequency.max(1))) as u64
    }
}

/// Ticks for microseconds.
pub fn ticks(micros: u64, frequency: u64) -> u64 {
    u64::try_from(u128::from(micros) * u128::from(frequency) / 1_000_000).unwrap_or(u64::MAX)
}
