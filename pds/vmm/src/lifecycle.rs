//! Starting and stopping the guest.
//!
//! A guest that stops takes its devices with it: no backend may hold one of its buffers when the supervisor hears that it
//! has stopped. A device whose requests are in flight delays that until its backend has notified.

use core::sync::atomic::Ordering;

use partita_guest::exception::EL1H_MASKED;
use partita_guest::psci::Cpus;
use partita_guest::{registers, vtimer};
use partita_protocol::layout::channel;
use partita_protocol::supervisor::{StopReason, label};
use partita_ring::log_line;

use crate::devices::{Slot, interrupt_of};
use crate::load;
use crate::machine::{Machine, Page};
use crate::stats::{Events, Exits};
use crate::vmm::{Phase, Vcpu, Vmm};

impl<M: Machine, P: Page> Vmm<'_, M, P> {
    /// Starts the guest in what is as good as a new machine: the first time RAM is zero and nothing is pending, later that
    /// has to be made so. Boot files beside the image are checked before the first start.
    pub(crate) fn start(&mut self) {
        let fresh = core::mem::take(&mut self.fresh);
        match self.files.verdict() {
            Some(Err(refused)) => self.refuse(format_args!("{refused}")),
            Some(Ok(())) if fresh => self.launch(),
            _ => self.prepare(fresh),
        }
    }

    /// The guest cannot start for this reason.
    pub(crate) fn refuse(&mut self, why: core::fmt::Arguments<'_>) {
        self.cell.actual.epoch.store(self.epoch.unwrap_or(0), Ordering::Release);
        log_line!(self.logger, "cannot start: {why}");
        self.phase = Phase::Stopped(false);
        self.ended = Some(StopReason::Crash);
        self.publish();
        self.tell(label::GUEST_STOPPED, &[StopReason::Crash as u64]);
    }

    /// Loads the guest and starts its first vCPU.
    pub(crate) fn launch(&mut self) {
        let plan = match load::load(&mut self.machine, &self.ram, self.images) {
            Ok(plan) => plan,
            Err(refused) => return self.refuse(format_args!("{refused}")),
        };
        self.cell.actual.epoch.store(self.epoch.unwrap_or(0), Ordering::Release);
        self.gic.reset();
        let all = self.lines.restart(&mut self.gic);
        self.acknowledge(all);
        self.terminal.reset();
        self.uart_line = false;
        self.cpus = Cpus::new(self.vcpus.len());
        self.phase = Phase::Running;
        if let Some(links) = &mut self.links {
            links.start();
            self.machine.signal(channel::VMM_IVC);
        }
        self.switch_on(0, plan.kernel, plan.dtb);
        log_line!(
            self.logger,
            "starts at {:#x}: kernel {} KiB, initramfs {} KiB, device tree at {:#x}",
            plan.kernel,
            self.images.kernel.len() >> 10,
            self.images.initrd.len() >> 10,
            plan.dtb
        );
        self.publish();
        self.tell(label::GUEST_RUNNING, &[]);
        // Input may have come before there was a guest.
        self.use_terminal(|_| ());
        // It may be wanted paused.
        self.reconcile();
    }

    /// Starts a vCPU from its reset state.
    pub(crate) fn switch_on(&mut self, vcpu: usize, entry: u64, context: u64) {
        self.new_vcpu(vcpu);
        let mut words = [0; registers::WORDS];
        for (position, value) in
            [(registers::PC, entry), (registers::SPSR, EL1H_MASKED), (registers::X0, context)]
        {
            if let Some(word) = words.get_mut(position) {
                *word = value;
            }
        }
        self.resume_with(vcpu, &words);
    }

    /// Gives a stopped vCPU the system registers and the timer of a new one.
    pub(crate) fn new_vcpu(&mut self, vcpu: usize) {
        self.machine.reset(vcpu);
        if let Some(used) = self.used.get_mut(vcpu) {
            *used = true;
        }
        if let Some(owed) = self.timer_owed.get_mut(vcpu) {
            *owed = false;
        }
        self.gic.set_line(vcpu, vtimer::INTID as u16, false);
        self.machine.ack_timer(vcpu);
    }

    /// Stops the guest for something that the VMM cannot go on after, with one line about it.
    pub(crate) fn crash(&mut self, what: core::fmt::Arguments<'_>) {
        log_line!(self.logger, "guest crashed: {what}");
        self.stop(Some(StopReason::Crash));
    }

    /// Stops all vCPUs, then all devices: for the guest's own reason, or without one because it is wanted so.
    pub(crate) fn stop(&mut self, reason: Option<StopReason>) {
        for vcpu in 0..self.vcpus.len() {
            self.machine.suspend(vcpu);
            self.set_vcpu(vcpu, Vcpu::Off);
        }
        self.phase = Phase::Stopping(reason);
        if let Some(links) = &mut self.links {
            links.stop();
            self.machine.signal(channel::VMM_IVC);
        }
        self.terminal.reset();
        self.talked = true;
        // All are marked before the first is asked, so that the last answer, and no earlier one, ends it.
        for (device, slot) in self.devices.iter_mut().enumerate() {
            if let Slot::Ready(remote) = slot
                && !remote.transport.begin_reset()
            {
                remote.transport.complete_reset();
                self.gic.set_line(0, interrupt_of(device), false);
            }
        }
        for device in 0..self.devices.len() {
            if matches!(self.devices.get(device), Some(Slot::Ready(remote)) if remote.transport.is_resetting())
            {
                self.stop_device(device);
            }
        }
        self.go_on_stopping();
    }

    /// Tells the supervisor once nothing of the guest is in flight.
    pub(crate) fn go_on_stopping(&mut self) {
        let Phase::Stopping(reason) = self.phase else { return };
        let busy =
            |slot: &Slot<'_, P>| matches!(slot, Slot::Ready(remote) if remote.transport.is_resetting());
        if self.devices.iter().any(busy) {
            return;
        }
        self.phase = Phase::Stopped(false);
        self.ended = reason;
        let what = match reason {
            None => "stopped",
            Some(StopReason::PowerOff) => "powered off",
            Some(StopReason::Reset) => "reset",
            Some(StopReason::Crash) => "crashed",
        };
        log_line!(self.logger, "{}", Exits(self.stats));
        log_line!(self.logger, "{}", Events(self.stats));
        log_line!(self.logger, "guest {what}");
        self.publish();
        if let Some(reason) = reason {
            self.tell(label::GUEST_STOPPED, &[reason as u64]);
        }
        // A wish that came meanwhile, or that this was for.
        self.reconcile();
    }

    /// Calls the supervisor, which answers at once and with nothing of interest.
    fn tell(&mut self, label: u64, words: &[u64]) {
        self.machine.call(channel::SUPERVISOR, label, words, &mut []);
    }
}
