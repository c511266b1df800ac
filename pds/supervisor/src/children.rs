//! Children that die and are started again.
//!
//! A child that others call (blk, ivc) may die with a caller in its reply object, and its first receive after the restart
//! would make that caller inactive. So before it is started, every VMM that runs is *resumed*: seL4 cancels the IPC of one
//! that is blocked, wherever, and lets it do its system call again, which queues a call again and repeats a receive; one
//! that runs is left alone. docs/restart.md goes through the cases.

use partita_config::pd::Pd;
use partita_protocol::MAX_DISKS;
use partita_protocol::layout::{Service, priority, supervisor_ping};
use partita_ring::log_line;
use partita_supervisor::injection::{Act, Injection};
use partita_supervisor::lifecycle::{Cause, Cell, Reaction};
use partita_supervisor::restarts::{CHILDREN, Healed, LIMIT, Sentence, State, WINDOW, Why};
use partita_supervisor::shell::view::PdView;
use sel4_microkit::Channel;
use sel4_vm::{ChildPd, UserContext, cntfrq, cntpct};

use crate::machine::Machine;
use crate::pages::{self, CellPages};

/// Nobody maps it, and it says what happened.
const NOWHERE: u64 = 0xdead_0000;
/// Priority of a child: who can keep whom from running.
fn rank(id: usize) -> u8 {
    match Pd::from_id(id) {
        Some(Pd::Vmm(_)) => priority::VMM,
        Some(Pd::Service(Service::Timer)) => priority::TIMER,
        Some(Pd::Service(Service::Blk(_))) => priority::BLK,
        _ => priority::SERVICE,
    }
}

/// Whether VMMs make protected calls to it.
const fn is_called(who: Pd) -> bool {
    matches!(who, Pd::Service(Service::Blk(_) | Service::Ivc | Service::Net))
}

impl Machine {
    fn alive(id: usize) -> Option<(Pd, ChildPd)> {
        Some((Pd::from_id(id)?, ChildPd::new(id)))
    }

    /// A child has faulted, hangs, or is to be started afresh.
    pub fn died(&mut self, who: Pd, why: Why) {
        let Some(id) = who.id() else { return };
        let child = ChildPd::new(id);
        // It is stopped by its fault; this also takes the fault out of our reply object.
        let _ = child.stop();
        let now = cntpct();
        let sentence = self.pds.died(id, why, now);
        match who {
            Pd::Service(Service::Console) => {
                self.console_lives = false;
                self.drained();
            }
            Pd::Vmm(cell) => {
                let cause = match why {
                    Why::Fault | Why::Hang | Why::Late => Cause::Itself,
                    Why::Order => Cause::Order,
                    Why::Killed { .. } => Cause::Test,
                };
                let reaction = match sentence {
                    Sentence::Hold => self.lifecycle.vmm_died(cell),
                    _ => self.lifecycle.vmm_restarts(cell, cause, now),
                };
                let next = match (reaction, self.lifecycle.cell(cell)) {
                    (Reaction::None, _) => None,
                    (_, Cell::Running) => Some("starts again"),
                    _ => Some("stays off"),
                };
                if let Some(next) = next {
                    log_line!(self.logger, "guest of {} {next}: its VMM has stopped", self.name(who));
                }
                self.react(cell, reaction);
            }
            Pd::Service(_) => {}
        }
        match sentence {
            Sentence::Restart => self.start_again(who, child),
            Sentence::Wait => {
                log_line!(self.logger, "{} stopped: {why}; it pauses before its restart", self.name(who));
                self.arm();
            }
            Sentence::Refuse => {
                log_line!(
                    self.logger,
                    "{} is held: {why}, {LIMIT} deaths within {WINDOW} s; requests get errors until `restart {}`",
                    self.name(who),
                    self.name(who)
                );
                self.start_again(who, child);
            }
            Sentence::Hold => log_line!(
                self.logger,
                "{} is held: {why}, {LIMIT} deaths within {WINDOW} s; `restart {}` starts it again",
                self.name(who),
                self.name(who)
            ),
        }
    }

    fn start_again(&mut self, who: Pd, child: ChildPd) {
        if let (Some(orders), Some(id)) = (pages::orders(who), who.id()) {
            orders.set_refuse(self.pds.state(id) == State::Refusing);
        }
        if is_called(who) {
            for id in (0..CHILDREN).filter(|id| self.pds.is_alive(*id)) {
                if let Some((Pd::Vmm(_), caller)) = Self::alive(id) {
                    let _ = caller.resume();
                }
            }
        }
        if who == Pd::Service(Service::Console) {
            self.console_lives = true;
        }
        if let Err(error) = child.restart() {
            log_line!(self.logger, "{} cannot be started: {error:?}", self.name(who));
        }
    }

    /// A child notifies: it may be ready.
    pub fn answered(&mut self, who: Pd) {
        let Some(id) = who.id() else { return };
        if !pages::health(who).is_some_and(|page| page.is_ready()) {
            return;
        }
        if let Some(Healed { why, time, ticks }) = self.pds.ready(id, cntpct()) {
            let micros = ticks.saturating_mul(1_000_000) / cntfrq().max(1);
            log_line!(
                self.logger,
                "{} restarted: {why}; restart {time}, away for {}.{:03} ms",
                self.name(who),
                micros / 1000,
                micros % 1000
            );
        }
    }

    /// Once a second: who has not answered, and the next ping.
    pub fn ping(&mut self) {
        let beats = |id| Pd::from_id(id).and_then(pages::health).map_or(0, |page| page.beats());
        let hung = self.pds.look(beats, rank);
        for id in (0..CHILDREN).filter(|id| self.pds.is_alive(*id)) {
            Channel::new(supervisor_ping(id)).notify();
        }
        let Some((id, (who, _))) = hung.and_then(|id| Some((id, Self::alive(id)?))) else { return };
        // A VMM whose call nobody answers is not to blame.
        let away = |id| {
            Pd::from_id(id).is_some_and(is_called)
                && matches!(self.pds.state(id), State::Held | State::Waiting(_))
        };
        if matches!(who, Pd::Vmm(_)) && (0..CHILDREN).any(away) {
            return self.pds.forgive(id);
        }
        self.deaths = self.deaths.saturating_add(1);
        self.died(who, Why::Hang);
    }

    /// Starts those whose pause is over.
    pub fn start_due(&mut self) {
        while let Some(id) = self.pds.due(cntpct()) {
            if let Some((who, child)) = Self::alive(id) {
                self.start_again(who, child);
            }
        }
    }

    /// From `pulse`: whether the timer still tells the time.
    pub fn pulse(&mut self) {
        let late = self.deadline() < cntpct() && self.pds.is_alive(Service::Timer.index());
        if self.silence.pulse(late) {
            self.deaths = self.deaths.saturating_add(1);
            self.died(Pd::Service(Service::Timer), Why::Late);
        }
    }

    /// Requests that a controller's device has.
    fn in_flight(&self, who: Pd) -> Option<u64> {
        let Pd::Service(Service::Blk(controller)) = who else { return None };
        let counts = (0..self.config.cells.len())
            .filter_map(|n| CellPages::new(self.config, n))
            .flat_map(|pages| (0..MAX_DISKS).map(move |disk| (pages, disk)))
            .filter_map(|(pages, disk)| pages.disk(self.config, controller.into(), disk))
            .map(|counters| counters.in_flight.load(core::sync::atomic::Ordering::Relaxed));
        Some(counts.sum())
    }

    /// Fault injection goes on.
    pub fn inject(&mut self) {
        let Some(mut series) = self.injection else { return };
        let now = cntpct();
        let Some((who, child)) = Self::alive(series.victim).filter(|_| series.deadline() <= now) else {
            return;
        };
        let registers = match self.pds.state(series.victim) {
            State::Up => child.registers().ok(),
            _ => None,
        };
        let at_rest = registers.as_ref().map(|r| Injection::is_at_rest(*r.gpr(0), *r.gpr(7)));
        let in_flight = self.in_flight(who);
        if let (Act::Kill, Some(registers)) = (series.look(at_rest, in_flight, now), &registers) {
            self.killed = (!series.own).then_some((
                series.victim,
                Why::Killed { pc: *registers.pc(), in_flight: in_flight.unwrap_or(0) },
            ));
            let mut context = UserContext::default();
            *context.pc_mut() = NOWHERE;
            let _ = child.tcb().tcb_write_registers(true, 1, &mut context);
        }
        if series.is_over() {
            let counts = series.counts();
            log_line!(
                self.logger,
                "kill {}: done; kills={} at_work={} in_flight={}",
                self.name(who),
                counts.kills,
                counts.at_work,
                counts.in_flight
            );
        }
        self.injection = (!series.is_over()).then_some(series);
    }

    /// The reason for the fault of a child, if it is one that was made.
    pub fn why(&mut self, who: Pd) -> Why {
        match self.killed.take() {
            Some((id, why)) if Some(id) == who.id() => why,
            other => {
                self.killed = other;
                Why::Fault
            }
        }
    }

    pub fn pd_view(&self, id: usize) -> Option<PdView> {
        let who = Pd::from_id(id)?;
        let state = self.pds.state(id);
        if state == State::Absent {
            return None;
        }
        let mut name = heapless::String::new();
        // Names of PDs have at most 64 bytes.
        let _ = core::fmt::write(&mut name, format_args!("{}", self.name(who)));
        let beats = pages::health(who).map_or(0, |page| page.beats());
        Some(PdView { name, state, restarts: self.pds.restarts(id), beats, why: self.pds.why(id) })
    }

    pub fn order_restart(&mut self, id: usize) -> Result<(), &'static str> {
        let who = Pd::from_id(id).ok_or("does not exist")?;
        self.died(who, Why::Order);
        Ok(())
    }

    pub fn begin_kill(&mut self, id: usize, count: u32, every: u32, own: bool) -> Result<(), &'static str> {
        if matches!(self.pds.state(id), State::Held | State::Refusing) {
            return Err("is held");
        }
        let every = u64::from(every).saturating_mul(cntfrq()) / 1000;
        self.injection = Some(Injection::new(id, count, every, own, cntfrq(), cntpct()));
        self.arm();
        Ok(())
    }
}
