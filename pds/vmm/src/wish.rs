//! Working towards the state that the supervisor wants.
//!
//! The wish is a state in a page, not a command: whatever was missed or came twice, looking at the page again is right.
//! [`Vmm::reconcile`] is called whenever the wish may have changed and whenever a phase has ended that had to end first.
//! It takes one step; a step that cannot end at once (devices drain, memory is cleared) calls it again when it has.
//!
//! A pause suspends the vCPUs that run. Nothing is lost by that: a vCPU's fault reaches the VMM before anything of lower
//! priority runs, so none is on its way while the VMM looks at a notification (a suspended thread's unread fault would be
//! dropped by the kernel, and with it an end of interrupt). Sleeping vCPUs stay where they are. Interrupts go on to be
//! written to list registers; time goes on, so that a timer that is due fires as soon as the pause is over.

use core::sync::atomic::Ordering;

use partita_protocol::layout::channel;
use partita_protocol::lifecycle::CellState;
use partita_ring::log_line;

use crate::machine::{Machine, Page};
use crate::vmm::{Phase, Vcpu, Vmm};

impl<M: Machine, P: Page> Vmm<'_, M, P> {
    /// The supervisor has notified.
    pub(crate) fn supervisor_notified(&mut self) {
        if self.cell.wanted.get().is_some() {
            return self.reconcile();
        }
        // A supervisor that says nothing in its page means: start, if you are not running.
        if let Phase::Stopped(_) = self.phase {
            self.epoch = Some(self.epoch.map_or(0, |epoch| epoch.wrapping_add(1)));
            self.begin_start();
        }
    }

    /// Takes the next step towards the wanted state.
    pub(crate) fn reconcile(&mut self) {
        let Some((epoch, state)) = self.cell.wanted.get() else { return };
        let run = matches!(state, CellState::Running | CellState::Paused);
        let new = self.epoch != Some(epoch);
        match self.phase {
            Phase::Stopping(_) => {} // comes back here
            Phase::Stopped(_) if !run => {
                self.phase = Phase::Stopped(false);
                self.ended = None;
                self.publish();
            }
            // Not new: it has ended in this epoch, or waits for its devices.
            Phase::Stopped(_) if new => {
                self.epoch = Some(epoch);
                self.begin_start();
            }
            Phase::Stopped(_) => self.publish(),
            _ if !run || new => self.stop(None),
            Phase::Running if state == CellState::Paused => self.pause(),
            Phase::Paused if state == CellState::Running => self.go_on(),
            Phase::Running | Phase::Paused | Phase::Preparing(_) => {}
        }
    }

    fn begin_start(&mut self) {
        self.ended = None;
        self.phase = Phase::Stopped(true);
        self.publish();
        self.look_for_devices();
    }

    fn pause(&mut self) {
        for vcpu in 0..self.vcpus.len() {
            if self.is(vcpu, Vcpu::Running) {
                self.machine.suspend(vcpu);
            }
        }
        // The fault of a vCPU that sleeps is given up before the next receive; it is resumed instead of answered then.
        self.phase = Phase::Paused;
        log_line!(self.logger, "guest paused");
        self.publish();
    }

    fn go_on(&mut self) {
        self.phase = Phase::Running;
        log_line!(self.logger, "guest goes on");
        for vcpu in 0..self.vcpus.len() {
            if self.is(vcpu, Vcpu::Running) {
                self.machine.resume(vcpu);
            }
        }
        self.wake_due();
        // What was typed meanwhile.
        self.use_terminal(|_| ());
        self.publish();
    }

    /// Publishes how far it is, and tells the supervisor of a change.
    pub(crate) fn publish(&mut self) {
        let (state, reason) = match (self.phase, self.ended) {
            (Phase::Stopped(false), Some(reason)) => (CellState::Ended, reason as u32),
            (Phase::Stopped(_) | Phase::Preparing(_), _) => (CellState::Stopped, 0),
            (Phase::Paused, _) => (CellState::Paused, 0),
            (Phase::Running | Phase::Stopping(_), _) => (CellState::Running, 0),
        };
        let on = match self.phase {
            Phase::Running | Phase::Paused => self.vcpus.iter().filter(|state| **state != Vcpu::Off).count(),
            _ => 0,
        };
        let actual = self.cell.actual;
        let epoch = actual.epoch.load(Ordering::Relaxed);
        let now = [epoch, state as u32, reason, on as u32];
        if now == self.published {
            return;
        }
        self.published = now;
        actual.vcpus_on.store(on as u32, Ordering::Release);
        actual.reason.store(reason, Ordering::Release);
        actual.state.store(state as u32, Ordering::Release);
        self.machine.signal(channel::SUPERVISOR);
    }

    /// A sign of life for the watchdog: something that a guest which is stuck does not do for long.
    pub(crate) fn beat(&mut self) {
        let beat = &self.cell.actual.heartbeat;
        beat.store(beat.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }
}
