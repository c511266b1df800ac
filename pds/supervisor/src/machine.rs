//! What the supervisor decides with and acts through: all but the shell, which acts through this.

use core::sync::atomic::{AtomicU64, Ordering};

use partita_config::Config;
use partita_config::pd::{Name, Pd};
use partita_protocol::MAX_CELLS;
use partita_protocol::ivc_stats;
use partita_protocol::layout::{self, channel, supervisor_vmm};
use partita_protocol::lifecycle::CellState;
use partita_protocol::stats::Counter;
use partita_protocol::supervisor::StopReason;
use partita_protocol::timer::{NEVER, TimerRequest};
use partita_ring::history::Reader;
use partita_ring::log::{Limiter, Logger};
use partita_ring::log_line;
use partita_supervisor::injection::Injection;
use partita_supervisor::lifecycle::{By, Cell, Lifecycle, Order, Reaction, Refused};
use partita_supervisor::manage::Service;
use partita_supervisor::manage::mail::Mail;
use partita_supervisor::power::Power;
use partita_supervisor::restarts::{Restarts, Why};
use partita_supervisor::shell::view::{CellView, DiskView, LinkView, PdView, SocketsView, System};
use partita_supervisor::silence::Silence;
use partita_supervisor::watchdog::{Finding, Watchdog};
use sel4_microkit::Channel;
use sel4_vm::{cntfrq, cntpct};

use crate::pages::{self, CellPages, Said};

const CONSOLE: Channel = Channel::new(layout::Service::Console.index());
const TIMER: Channel = Channel::new(channel::TIMER);

/// PSCI SYSTEM_OFF (Arm DEN 0022, 5.1.9).
const SYSTEM_OFF: u64 = 0x8400_0008;
/// Seconds that guests have to stop before the machine goes off without them.
const PATIENCE: u64 = 5;

/// See the module.
pub struct Machine {
    pub config: &'static Config<'static>,
    pub logger: Logger<'static>,
    pub lifecycle: Lifecycle,
    pub power: Power,
    pub console_lives: bool,
    /// PDs that have faulted or hung, for no reason of ours.
    pub deaths: u32,
    pub pds: Restarts,
    /// Fault injection that is under way.
    pub injection: Option<Injection>,
    /// Child id of a PD that was made to fault, and what to say of it.
    pub killed: Option<(usize, Why)>,
    next_ping: u64,
    pub silence: Silence,
    pub mail: &'static mut Mail,
    history: Reader<'static>,
    /// For what a guest can make us say.
    refusals: Limiter,
    watchdog: Watchdog,
    request: &'static TimerRequest,
    /// When the machine goes off even if guests have not stopped; [`NEVER`]: nobody wants it off.
    last_call: u64,
    /// When to go on with work that was left; [`NEVER`]: there is none.
    again: u64,
}

impl Machine {
    /// At the start: each cell's wish is on its page before its VMM runs, as VMMs have a lower priority.
    pub fn new(config: &'static Config<'static>, logger: Logger<'static>, mail: &'static mut Mail) -> Self {
        let lifecycle = Lifecycle::new(config, cntfrq());
        let watchdog = Watchdog::new(config, cntfrq(), cntpct());
        let machine = Machine {
            config,
            logger,
            lifecycle,
            power: Power::On,
            console_lives: true,
            deaths: 0,
            pds: Restarts::new(|id| Pd::from_id(id).and_then(pages::health).is_some(), cntfrq()),
            injection: None,
            killed: None,
            silence: Silence::default(),
            next_ping: cntpct().saturating_add(cntfrq()),
            mail,
            history: pages::history(),
            refusals: Limiter::new(5, cntfrq()),
            watchdog,
            request: pages::timer_request(),
            last_call: NEVER,
            again: NEVER,
        };
        for n in 0..MAX_CELLS {
            machine.publish(n);
        }
        machine.arm();
        machine
    }

    /// Name of a PD.
    pub fn name(&self, who: Pd) -> Name<'_> {
        who.name(Some(self.config))
    }

    fn pages(&self, n: usize) -> Option<CellPages> {
        CellPages::new(self.config, n)
    }

    fn cell_name(&self, n: usize) -> &'static str {
        self.config.cells.get(n).map_or("", |cell| cell.name)
    }

    /// Who gave an order, for the log and for messages.
    fn who(&self, by: By) -> &'static str {
        match by {
            By::Shell => "shell",
            By::Cell(n) => self.cell_name(n),
        }
    }

    fn publish(&self, n: usize) {
        if let (Some(pages), Some(wish)) = (self.pages(n), self.lifecycle.wish(n)) {
            pages.wanted().publish(wish.epoch, wish.state);
        }
    }

    fn publish_and_notify(&mut self, n: usize) {
        self.publish(n);
        self.watchdog.forgive(n, cntpct());
        if let Some(wish) = self.lifecycle.wish(n) {
            self.mail.started(n, wish.epoch);
        }
        Channel::new(supervisor_vmm(n)).notify();
        // A VMM that had not begun yet has nothing to stop and no change to tell of.
        self.changed(n);
    }

    /// Asks for an event in a millisecond, so that others get their turn before work goes on.
    pub fn come_back(&mut self) {
        self.again = cntpct().saturating_add(cntfrq() / 1000);
        self.arm();
    }

    /// Does what an event asks for.
    pub fn react(&mut self, n: usize, reaction: Reaction) {
        match reaction {
            Reaction::None => {}
            Reaction::Publish => self.publish_and_notify(n),
            Reaction::PowerOff => self.begin_power_off(),
        }
    }

    /// The VMM of cell `n` calls: its guest stopped by itself.
    pub fn stopped(&mut self, n: usize, reason: StopReason) {
        let epoch = self.pages(n).map(CellPages::said).filter(|said| said.state == CellState::Ended);
        let reaction = self.lifecycle.stopped(n, reason, epoch.map(|said| said.epoch), cntpct());
        let what = match reason {
            StopReason::PowerOff => "switched off",
            StopReason::Reset => "reset",
            StopReason::Crash => "crashed",
        };
        let next = if reaction == Reaction::Publish { ", starting again" } else { "" };
        log_line!(self.logger, "guest of {} {what}{next}", self.name(Pd::Vmm(n)));
        self.react(n, reaction);
    }

    /// The VMM of cell `n` notifies: its page has changed.
    pub fn changed(&mut self, n: usize) {
        let Some(said) = self.pages(n).map(CellPages::said) else { return };
        let Some(wish) = self.lifecycle.wish(n) else { return };
        // What it says of an earlier start is old news.
        if said.epoch == wish.epoch || said.state == CellState::Stopped {
            let reaction = self.lifecycle.reached(n, said.state);
            self.react(n, reaction);
        }
    }

    /// The time has come for something.
    pub fn tick(&mut self) {
        let now = cntpct();
        self.silence.heard();
        self.power.tick(now);
        if self.again <= now {
            self.again = NEVER;
        }
        if self.last_call <= now {
            self.last_call = NEVER;
            for n in (0..MAX_CELLS).filter(|n| self.lifecycle.cell(*n) == Cell::Stopping) {
                log_line!(self.logger, "{} has not stopped in {PATIENCE} s", self.cell_name(n));
            }
            self.begin_power_off();
        }
        if self.watchdog.deadline() <= now {
            self.watch(now);
            self.watchdog.looked(now);
        }
        self.start_due();
        if self.next_ping <= now {
            self.next_ping = now.saturating_add(cntfrq());
            self.ping();
        }
        self.inject();
        self.power_off_if_due();
        self.arm();
    }

    fn watch(&mut self, now: u64) {
        for n in 0..MAX_CELLS {
            let Some(said) = self.pages(n).map(CellPages::said) else { continue };
            let runs = self.lifecycle.cell(n) == Cell::Running && said.state == CellState::Running;
            let name = self.cell_name(n);
            // One that sends keep-alive messages lives by them alone.
            let signs = self.mail.signs(n).unwrap_or(said.heartbeat);
            match self.watchdog.look(n, runs.then_some(signs), now) {
                Finding::None => {}
                Finding::Alive => log_line!(self.logger, "{name} shows signs of life again"),
                Finding::Silent => {
                    let seconds = self.config.cells.get(n).map_or(0, |cell| cell.watchdog_seconds);
                    let reaction = self.lifecycle.hung(n, now);
                    let next = match (reaction, self.lifecycle.cell(n)) {
                        (Reaction::None, _) => "",
                        (_, Cell::Running) => ", starting again",
                        _ => ", stopping it",
                    };
                    log_line!(self.logger, "{name} hangs: no sign of life for {seconds} s{next}");
                    self.react(n, reaction);
                }
            }
        }
    }

    /// The next moment that matters.
    pub fn deadline(&self) -> u64 {
        let power = match self.power {
            Power::Draining { deadline } => deadline,
            Power::On | Power::Off => NEVER,
        };
        let injection = self.injection.map_or(NEVER, |series| series.deadline());
        power
            .min(self.last_call)
            .min(self.watchdog.deadline())
            .min(self.again)
            .min(self.next_ping)
            .min(self.pds.deadline())
            .min(injection)
    }

    /// Asks for a wake-up then. A deadline that has passed fires at once.
    pub fn arm(&self) {
        let deadline = self.deadline();
        let before = self.request.deadline.swap(deadline, Ordering::AcqRel);
        if deadline != NEVER || before != NEVER {
            TIMER.notify();
        }
    }

    fn begin_power_off(&mut self) {
        if self.power != Power::On {
            return;
        }
        let deadline = self.power.begin(cntpct(), cntfrq(), self.console_lives);
        match (self.lifecycle.failures(), self.deaths) {
            (0, 0) => log_line!(self.logger, "power off: ok"),
            (cells, pds) => {
                log_line!(self.logger, "power off: FAILED: {cells} cells crashed, {pds} PDs faulted")
            }
        }
        if deadline.is_some() {
            self.arm();
            CONSOLE.notify();
        }
        self.power_off_if_due();
    }

    /// Console has nothing left to print, or is dead.
    pub fn drained(&mut self) {
        self.power.drained();
        self.power_off_if_due();
    }

    fn power_off_if_due(&mut self) {
        if self.power != Power::Off {
            return;
        }
        let answer = sel4_vm::smc([SYSTEM_OFF, 0, 0, 0, 0, 0, 0, 0]);
        // Only reached if the firmware does not do it. The system stays up, its guests are off.
        self.power = Power::On;
        self.last_call = NEVER;
        self.arm();
        match answer {
            Ok([code, ..]) => log_line!(self.logger, "the firmware does not switch off: {}", code as i64),
            Err(error) => log_line!(self.logger, "the kernel does not let me switch off: {error}"),
        }
    }

    /// What a cell does, in a word: what is wanted until its VMM says that it is so.
    fn shown(&self, n: usize, said: &Said) -> &'static str {
        let cell = self.lifecycle.cell(n);
        let epoch = self.lifecycle.wish(n).map_or(0, |wish| wish.epoch);
        match (cell, said.state) {
            (Cell::Running, _) if self.watchdog.is_silent(n) => "hangs",
            (Cell::Running, CellState::Running) if said.epoch == epoch => "running",
            (Cell::Running, CellState::Paused) if said.epoch == epoch => "resuming",
            (Cell::Running, _) => "starting",
            (Cell::Paused, CellState::Paused) => "paused",
            (Cell::Paused, _) => "pausing",
            (cell, _) => cell.name(),
        }
    }
}

impl Service for Machine {
    fn is_manager(&self, cell: usize) -> bool {
        self.config.cells.get(cell).is_some_and(|cell| cell.manager)
    }

    fn mail(&mut self) -> &mut Mail {
        self.mail
    }

    fn refused(&mut self, cell: usize, command: &str) {
        if let Some(more) = self.refusals.allow(cntpct()) {
            let name = self.cell_name(cell);
            log_line!(self.logger, "{name} may not manage: \"{command}\" refused ({more} more)");
        }
    }

    fn missed(&mut self, cell: usize, from: u64, to: u64) {
        if let Some(more) = self.refusals.allow(cntpct()) {
            let name = self.cell_name(cell);
            log_line!(self.logger, "{name}: keep-alive messages {from} to {to} are missing ({more} more)");
        }
    }

    fn nonsense(&mut self) {
        if let Some(more) = self.refusals.allow(cntpct()) {
            log_line!(self.logger, "ivc wrote a line that is none ({more} more)");
        }
    }
}

impl System for Machine {
    fn cell(&self, n: usize) -> Option<CellView<'_>> {
        let cell = self.config.cells.get(n)?;
        let pages = self.pages(n)?;
        let said = pages.said();
        Some(CellView {
            name: cell.name,
            state: self.shown(n, &said),
            vcpus_on: said.vcpus_on,
            vcpus: cell.vcpus,
            memory: cell.memory.0,
            epoch: said.epoch,
            exits: pages.stats().exits(),
            reason: said.reason.filter(|_| said.state == CellState::Ended),
        })
    }

    fn counters(&self, n: usize) -> [u64; Counter::ALL.len()] {
        let pages = self.pages(n);
        Counter::ALL.map(|counter| pages.map_or(0, |pages| pages.stats().get(counter)))
    }

    fn disk(&self, n: usize, number: usize) -> Option<DiskView<'_>> {
        let cell = self.config.cells.get(n)?;
        let disk = cell.disks.get(number)?;
        let (controller, _) = self.config.controller(disk.controller)?;
        // The backend numbers the cell's disks at its controller.
        let device = cell.disks_at(disk.controller).position(|(place, _)| place == number)?;
        let counters = self.pages(n)?.disk(self.config, controller, device)?;
        let get = |counter: &core::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        Some(DiskView {
            cell: cell.name,
            number,
            controller: disk.controller,
            partition: disk.partition,
            read_only: disk.read_only,
            first: get(&counters.first),
            sectors: get(&counters.sectors),
            reads: get(&counters.reads),
            writes: get(&counters.writes),
            others: get(&counters.others),
            read_bytes: get(&counters.read_bytes),
            written_bytes: get(&counters.written_bytes),
            errors: get(&counters.errors),
            in_flight: get(&counters.in_flight),
            latency: counters.latency.each_ref().map(get),
        })
    }

    fn sockets(&self, n: usize) -> Option<SocketsView<'_>> {
        let cell = self.config.cells.get(n)?;
        let counters = pages::ivc_stats(self.config)?.cells.get(n)?;
        let counters = ivc_stats::Counter::ALL.map(|counter| counters.get(counter));
        Some(SocketsView { cell: cell.name, cid: cell.cid, counters })
    }

    fn link(&self, n: usize, peer: usize) -> Option<LinkView<'_>> {
        let link = self.config.links.get(n)?;
        let counters = pages::link_stats(self.config)?.links.get(n)?;
        let get = |all: &[AtomicU64]| all.get(peer).map_or(0, |counter| counter.load(Ordering::Relaxed));
        Some(LinkView {
            link: link.name,
            // Without one it is the place; at most MAX_LINKS.
            id: link.id.unwrap_or(n as u8),
            peer,
            cell: link.peers.get(peer)?,
            shared: link.shared.0,
            output: link.output.0,
            rung: get(&counters.rung),
            refused: get(&counters.refused),
            delivered: get(&counters.delivered),
            dropped: get(&counters.dropped),
        })
    }

    fn frequency(&self) -> u64 {
        cntfrq()
    }

    fn log(&self, from: u64, out: &mut [u8]) -> (u64, usize) {
        self.history.read(from, out)
    }

    fn order(&mut self, n: usize, order: Order, by: By) -> Result<(), Refused> {
        self.lifecycle.order(n, order)?;
        log_line!(self.logger, "{}: {} ({})", self.cell_name(n), order.answer(), self.who(by));
        self.publish_and_notify(n);
        Ok(())
    }

    fn pd(&self, n: usize) -> Option<PdView> {
        self.pd_view(n)
    }

    fn restart_pd(&mut self, n: usize) -> Result<(), &'static str> {
        self.order_restart(n)
    }

    fn kill(&mut self, n: usize, count: u32, every: u32, own: bool) -> Result<(), &'static str> {
        self.begin_kill(n, count, every, own)
    }

    fn send(&mut self, to: Option<usize>, by: By, text: &str) -> usize {
        let from = self.who(by);
        let mut cells = 0;
        for n in (0..self.config.cells.len()).filter(|n| to.is_none_or(|to| to == *n)) {
            self.mail.post(n, from, text);
            cells += 1;
        }
        cells
    }

    fn shut_down(&mut self, by: By) {
        log_line!(self.logger, "shutting down ({})", self.who(by));
        let cells = self.lifecycle.end();
        for n in (0..MAX_CELLS).filter(|n| cells & 1 << n != 0) {
            self.publish_and_notify(n);
        }
        if self.lifecycle.idle() == Reaction::PowerOff {
            return self.begin_power_off();
        }
        self.last_call = cntpct().saturating_add(cntfrq().saturating_mul(PATIENCE));
        self.arm();
    }
}
