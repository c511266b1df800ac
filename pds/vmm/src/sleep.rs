//! vCPUs that wait: in WFI for an interrupt, in WFE for a sibling; and the one alarm that they share.

use core::sync::atomic::Ordering;

use partita_guest::vtimer;
use partita_protocol::layout::channel;
use partita_protocol::stats::Counter;

use crate::machine::{Field, Machine, Page};
use crate::vmm::{Phase, Vcpu, Vmm};

impl<M: Machine, P: Page> Vmm<'_, M, P> {
    #[inline]
    pub(crate) fn is_asleep(&self, vcpu: usize) -> bool {
        matches!(self.vcpus.get(vcpu), Some(Vcpu::Asleep))
    }

    /// Whether there is another vCPU that runs.
    pub(crate) fn has_running_sibling(&self, vcpu: usize) -> bool {
        self.vcpus.iter().enumerate().any(|(other, state)| other != vcpu && *state == Vcpu::Running)
    }

    /// Lets a vCPU go on where it is: in WFI, which ends at once because of what is pending.
    pub(crate) fn wake(&mut self, vcpu: usize) {
        self.set_vcpu(vcpu, Vcpu::Running);
        if self.replying != Some(vcpu) && self.phase != Phase::Paused {
            self.machine.resume(vcpu);
        }
    }

    /// Wakes each vCPU whose timer is due, and arms the timer for the others.
    pub(crate) fn wake_due(&mut self) {
        for vcpu in 0..self.vcpus.len() {
            if self.is_asleep(vcpu) && !self.may_sleep(vcpu) {
                self.wake(vcpu);
            }
        }
    }

    /// Lets the vCPUs go on that gave way to their siblings in WFE: with any event but a sibling's WFE, since that says
    /// that a sibling that holds a lock has got somewhere, or that time has passed.
    #[inline]
    pub(crate) fn release(&mut self) {
        if self.vcpus.len() > 1 {
            self.release_all();
        }
    }

    fn release_all(&mut self) {
        for vcpu in 0..self.vcpus.len() {
            if matches!(self.vcpus.get(vcpu), Some(Vcpu::Yielded)) {
                self.wake(vcpu);
            }
        }
    }

    /// Whether a vCPU in WFI has nothing to wake up for now. If so, its timer is armed.
    pub(crate) fn may_sleep(&mut self, vcpu: usize) -> bool {
        if !self.gic.is_quiet(vcpu) {
            return false;
        }
        // A timer interrupt that the distributor holds back wakes nobody.
        if !self.gic.is_enabled(vcpu, vtimer::INTID as u16) {
            return true;
        }
        // CNTVOFF is 0, so CNTV_CVAL counts as CNTPCT does. The same deadline as last time saves reading CNTV_CTL: should
        // the timer be off, one wake-up too many finds out.
        let cval = self.machine.field(vcpu, Field::CntvCval);
        let fired = self.timer.state.fired.load(Ordering::Acquire);
        if self.alarm.is_armed_at(cval, fired) {
            return true;
        }
        let ctl = self.machine.field(vcpu, Field::CntvCtl);
        let Some(deadline) = vtimer::deadline(ctl, cval, 0) else { return true };
        if deadline <= self.machine.counter() {
            return false;
        }
        self.arm(deadline, fired);
        true
    }

    /// Has the timer PD notify at `deadline`, or earlier.
    pub(crate) fn arm(&mut self, deadline: u64, fired: u64) {
        if self.alarm.arm(deadline, fired) {
            self.timer.request.deadline.store(deadline, Ordering::Release);
            self.machine.signal(channel::TIMER);
            self.stats.count(Counter::Alarms);
        }
    }

    /// Has the timer PD notify in a millisecond, or earlier.
    pub(crate) fn arm_soon(&mut self) {
        let deadline = self.machine.counter().saturating_add(self.machine.frequency() / 1000);
        self.arm(deadline, self.timer.state.fired.load(Ordering::Acquire));
    }
}
