//! The VMM's state, and how each event ends.
//!
//! A vCPU that faulted waits for a reply. There are three ways to let it go on, and their costs differ (sel4-costs.md):
//! writing its program counter with "resume" when it has to move on (which makes the reply superfluous), replying
//! together with the next receive when it does not, and `Wait` instead of a receive when it shall sleep and keep its reply.
//! [`Next`] names them; a notification to a peer joins the receive where it can.

use heapless::Vec;
use partita_guest::fault::{self, Trap};
use partita_guest::gic::Vgic;
use partita_guest::lines::{Lines, Outcome};
use partita_guest::psci::Cpus;
use partita_guest::vtimer::Alarm;
use partita_protocol::alive::Alive;
use partita_protocol::layout::channel;
use partita_protocol::lifecycle::{Actual, Wanted};
use partita_protocol::stats::{Counter, VmmStats};
use partita_protocol::supervisor::StopReason;
use partita_protocol::timer::{TimerRequest, TimerState};
use partita_protocol::{MAX_DEVICES, MAX_VCPUS};
use partita_ring::log::{Limiter, Logger};
use partita_ring::log_line;
use partita_virtio::memory::GuestRam;

use core::sync::atomic::Ordering;

use crate::busy::Busy;
use crate::devices::Slot;
use crate::files::Files;
use crate::links::Links;
use crate::load::Images;
use crate::machine::{Machine, Page};
use crate::prepare::Preparation;
use crate::terminal::Terminal;

/// How to wait for the next event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Next {
    /// Receive. A vCPU whose fault was not answered stays stopped.
    Receive,
    /// Answer the fault and receive.
    Reply,
    /// Notify this channel and receive.
    Notify(usize),
    /// Wait for a notification and keep the fault unanswered: its vCPU sleeps. Only while no other vCPU runs, since a
    /// fault that came now would have no reply object.
    Wait,
}

/// What a vCPU does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vcpu {
    /// Not switched on, or the guest is stopped.
    Off,
    /// It runs, or will as soon as the VMM waits.
    Running,
    /// In WFI.
    Asleep,
    /// In WFE, behind which it goes on with the next event: see [`Vmm::release`].
    Yielded,
    /// Stopped at the instruction at this address until the device with this number is reset.
    Held(u64, usize),
}

/// What the guest as a whole does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not running. `true`: it starts as soon as its devices are there.
    Stopped(bool),
    /// Its memory and CPU interfaces are being cleared for a start that is not the first.
    Preparing(Preparation),
    /// Running.
    Running,
    /// Its vCPUs are stopped where they were. [`Vcpu`] says what each does when it goes on.
    Paused,
    /// Its devices are being stopped: because it stopped itself for this reason, or because the supervisor wants it so.
    Stopping(Option<StopReason>),
}

/// The link to the timer PD.
#[derive(Clone, Copy)]
pub struct TimerLink<'a> {
    /// Written here.
    pub request: &'a TimerRequest,
    /// Written there.
    pub state: &'a TimerState,
}

/// The supervisor's wish and our answer.
#[derive(Clone, Copy)]
pub struct CellLink<'a> {
    /// Written there.
    pub wanted: &'a Wanted,
    /// Written here.
    pub actual: &'a Actual,
}

/// One guest.
pub struct Vmm<'a, M, P> {
    /// Kernel and peers.
    pub machine: M,
    /// Log.
    pub logger: Logger<'a>,
    pub(crate) limiter: Limiter,
    pub(crate) ram: GuestRam,
    pub(crate) images: Images<'a>,
    pub(crate) files: Files<'a>,
    pub(crate) gic: Vgic,
    pub(crate) cpus: Cpus,
    pub(crate) vcpus: Vec<Vcpu, MAX_VCPUS>,
    pub(crate) devices: Vec<Slot<'a, P>, MAX_DEVICES>,
    pub(crate) terminal: Terminal<'a, P>,
    pub(crate) links: Option<Links<'a, P>>,
    pub(crate) stats: &'a VmmStats,
    pub(crate) alive: &'a Alive,
    pub(crate) phase: Phase,
    pub(crate) cell: CellLink<'a>,
    /// Epoch of the start that was last asked for.
    pub(crate) epoch: Option<u32>,
    /// Why the guest stopped itself, if it did.
    pub(crate) ended: Option<StopReason>,
    /// Epoch, state, reason, vCPUs on, as last published.
    pub(crate) published: [u32; 4],
    /// RAM is as it was at boot: zero, and no guest has run.
    pub(crate) fresh: bool,
    /// vCPUs that have run since boot: their CPU interface may hold something.
    pub(crate) used: [bool; MAX_VCPUS],
    /// Interrupts of passed-through devices.
    pub(crate) lines: Lines,
    pub(crate) timer: TimerLink<'a>,
    pub(crate) alarm: Alarm,
    /// The kernel has reported the virtual timer and waits for its acknowledgement.
    pub(crate) timer_owed: [bool; MAX_VCPUS],
    /// Whose fault is unanswered.
    pub(crate) replying: Option<usize>,
    pub(crate) notify: Option<usize>,
    /// The terminal was used during this event: the console PD may have to know.
    pub(crate) talked: bool,
    /// Level of the PL011's interrupt.
    pub(crate) uart_line: bool,
    busy: Busy,
}

/// What a [`Vmm`] is made of.
pub struct Parts<'a, M, P> {
    /// Kernel and peers.
    pub machine: M,
    /// Log.
    pub logger: Logger<'a>,
    /// Guest RAM.
    pub ram: GuestRam,
    /// It may hold something before the guest's first start: the kernel clears its own memory only.
    pub stale: bool,
    /// What the guest starts from.
    pub images: Images<'a>,
    /// Those of them that the boot loader has put into memory.
    pub files: Files<'a>,
    /// Number of vCPUs.
    pub vcpus: usize,
    /// Its devices, in the order of their register pages.
    pub devices: Vec<Slot<'a, P>, MAX_DEVICES>,
    /// Its terminal.
    pub terminal: Terminal<'a, P>,
    /// Interrupts of its passed-through devices.
    pub lines: Lines,
    /// Its shared-memory links.
    pub links: Option<Links<'a, P>>,
    /// Link to the timer PD.
    pub timer: TimerLink<'a>,
    /// Link to the supervisor.
    pub cell: CellLink<'a>,
    /// Counters.
    pub stats: &'a VmmStats,
    /// Start at once.
    pub autostart: bool,
    /// Signs of life, for the supervisor.
    pub alive: &'a Alive,
}

impl<'a, M: Machine, P: Page> Vmm<'a, M, P> {
    /// A guest that is not running yet. Call [`Vmm::begin`] before the first event.
    pub fn new(parts: Parts<'a, M, P>) -> Self {
        let count = parts.vcpus.clamp(1, MAX_VCPUS);
        let mut vcpus = Vec::new();
        vcpus.resize(count, Vcpu::Off).unwrap_or_default();
        let second = parts.machine.frequency();
        let again = parts.alive.begin();
        Self {
            machine: parts.machine,
            logger: parts.logger,
            limiter: Limiter::new(8, second),
            ram: parts.ram,
            images: parts.images,
            files: parts.files,
            gic: Vgic::new(count),
            cpus: Cpus::new(count),
            vcpus,
            devices: parts.devices,
            terminal: parts.terminal,
            links: parts.links,
            stats: parts.stats,
            alive: parts.alive,
            phase: Phase::Stopped(parts.autostart),
            cell: parts.cell,
            epoch: parts.autostart.then_some(0),
            ended: None,
            // What the page says now may be an earlier life's.
            published: if again { [u32::MAX; 4] } else { [0; 4] },
            fresh: !again && !parts.stale,
            used: core::array::from_fn(|vcpu| again && vcpu < count),
            lines: parts.lines,
            timer: parts.timer,
            alarm: Alarm::new(),
            timer_owed: [false; MAX_VCPUS],
            replying: None,
            notify: None,
            talked: false,
            uart_line: false,
            busy: Busy::default(),
        }
    }

    /// First look at the devices; starts the guest if that is wanted and possible.
    ///
    /// A wish that is there already counts for more than `autostart`: this VMM may be one that was restarted.
    pub fn begin(&mut self) -> Next {
        if !self.fresh {
            // The guest may still run, and the reply object of an earlier life hold one of its faults.
            for vcpu in 0..self.vcpus.len() {
                self.machine.suspend(vcpu);
            }
        }
        if self.cell.wanted.get().is_some() {
            self.phase = Phase::Stopped(false);
            self.epoch = None;
            self.reconcile();
        } else {
            self.look_for_devices();
        }
        self.alive.ready();
        self.machine.signal(channel::SUPERVISOR);
        self.next()
    }

    /// A vCPU faulted: the fault's label and first message registers.
    pub fn fault(&mut self, vcpu: usize, label: u64, words: [u64; 4]) -> Next {
        self.replying = Some(vcpu);
        self.busy.enter(self.machine.counter());
        if !is_wait_for_event(label, words) {
            self.release();
        }
        match self.phase {
            // A paused vCPU's fault is dealt with as any other, so that no event is lost; it just does not go on.
            Phase::Running | Phase::Paused if self.is_running(vcpu) => self.exit(vcpu, label, words),
            Phase::Preparing(done) if self.is_running(vcpu) => {
                self.preparation_exit(done, vcpu, label, words)
            }
            _ => {} // a fault from before it was stopped: stays unanswered
        }
        self.next()
    }

    /// Peers have notified: one bit per channel.
    pub fn notified(&mut self, channels: u64) -> Next {
        self.stats.count(Counter::Notifications);
        self.busy.enter(self.machine.counter());
        self.release();
        let from = |channel: usize| channels & (1 << channel) != 0;
        if from(channel::TIMER) {
            let due = self.links.as_mut().and_then(|links| links.due(self.machine.counter()));
            self.doorbell(due);
            if self.phase == Phase::Running {
                self.wake_due();
            }
        }
        if from(channel::VMM_IVC) && matches!(self.phase, Phase::Running | Phase::Paused) {
            self.doorbells_rung();
        }
        for device in 0..self.devices.len() {
            let channel = match self.devices.get(device) {
                Some(Slot::Ready(remote)) => remote.channel(),
                Some(Slot::Waiting(_, backend)) => backend.channel,
                _ => continue,
            };
            if from(channel) {
                self.backend_notified(device);
            }
        }
        if from(channel::CONSOLE) && self.phase == Phase::Running {
            self.use_terminal(|_| ());
        }
        self.interrupts(channels & PASSTHROUGH);
        if from(channel::PING) {
            self.alive.beat();
            self.stats.set(Counter::BusyMs, self.busy.milliseconds(self.machine.frequency()));
        }
        if from(channel::SUPERVISOR) {
            self.supervisor_notified();
        }
        self.next()
    }

    /// Interrupts of passed-through devices.
    fn interrupts(&mut self, mut channels: u64) {
        let running = matches!(self.phase, Phase::Running | Phase::Paused);
        while channels != 0 {
            let channel = channels.trailing_zeros() as usize;
            channels &= channels - 1;
            match self.lines.arrived(&mut self.gic, channel, running) {
                Outcome::Handled => self.deliver(),
                Outcome::Failed => {} // it waits for the next start
                // Only a system description that is not the host tool's has it.
                Outcome::NotMine => self.complain(format_args!("interrupt of channel {channel} is nobody's")),
            }
        }
    }

    /// Lets interrupts of passed-through devices come again.
    pub(crate) fn acknowledge(&mut self, mut channels: u64) {
        while channels != 0 {
            self.machine.ack_irq(channels.trailing_zeros() as usize);
            channels &= channels - 1;
        }
    }

    /// Decides how to wait.
    fn next(&mut self) -> Next {
        let runs = self.some_run();
        self.busy.leave(self.machine.counter(), runs && self.phase != Phase::Paused);
        if !runs {
            self.release(); // nobody is left who could wake them
        }
        if core::mem::take(&mut self.talked) && self.terminal.owes_notification() {
            self.defer_notify(channel::CONSOLE);
        }
        match self.replying.filter(|_| self.phase != Phase::Paused) {
            Some(vcpu) if self.is_running(vcpu) => {
                self.notify_now();
                self.replying = None;
                Next::Reply
            }
            Some(vcpu) if self.is_asleep(vcpu) && !self.some_run() => {
                self.notify_now();
                Next::Wait
            }
            unanswered => {
                // Its fault is given up, or the reply object would still hold it at the next receive: seL4 then cancels it
                // as well, but a debug kernel prints a line each time.
                if let Some(vcpu) = unanswered.or(self.replying.take()) {
                    self.replying = None;
                    self.machine.suspend(vcpu);
                }
                self.notify.take().map_or(Next::Receive, Next::Notify)
            }
        }
    }

    /// Notifies a peer, together with the next receive if that is free.
    pub(crate) fn defer_notify(&mut self, channel: usize) {
        match self.notify {
            Some(other) if other != channel => self.machine.signal(channel),
            _ => self.notify = Some(channel),
        }
    }

    fn notify_now(&mut self) {
        if let Some(channel) = self.notify.take() {
            self.machine.signal(channel);
        }
    }

    /// What a vCPU does.
    pub fn vcpu(&self, vcpu: usize) -> Vcpu {
        self.vcpus.get(vcpu).copied().unwrap_or(Vcpu::Off)
    }

    pub(crate) fn is(&self, vcpu: usize, state: Vcpu) -> bool {
        self.vcpus.get(vcpu) == Some(&state)
    }

    /// [`Vmm::is`] for what is asked with each event.
    #[inline]
    fn is_running(&self, vcpu: usize) -> bool {
        matches!(self.vcpus.get(vcpu), Some(Vcpu::Running))
    }

    #[inline]
    fn some_run(&self) -> bool {
        self.vcpus.iter().any(|state| matches!(state, Vcpu::Running))
    }

    pub(crate) fn set_vcpu(&mut self, vcpu: usize, state: Vcpu) {
        if let Some(place) = self.vcpus.get_mut(vcpu) {
            *place = state;
        }
    }

    /// Lets a vCPU go on with these first words of its context; when the pause is over, if there is one.
    pub(crate) fn resume_with(&mut self, vcpu: usize, prefix: &[u64]) {
        self.machine.set_registers(vcpu, prefix, self.phase != Phase::Paused);
        self.set_vcpu(vcpu, Vcpu::Running);
        if self.replying == Some(vcpu) {
            self.replying = None;
        }
    }

    /// Lets a vCPU go on at `pc`: with the reply to its fault, if nothing else waits for that system call. Writing "resume" as
    /// well costs the kernel more than the reply does.
    pub(crate) fn step_to(&mut self, vcpu: usize, pc: u64) {
        let free = self.notify.is_none() && !self.talked;
        if free && self.replying == Some(vcpu) && self.phase == Phase::Running {
            self.machine.set_registers(vcpu, &[pc], false);
            self.set_vcpu(vcpu, Vcpu::Running);
        } else {
            self.resume_with(vcpu, &[pc]);
        }
    }

    /// Injects what can be injected, and wakes whom it concerns.
    pub(crate) fn deliver(&mut self) {
        for vcpu in 0..self.vcpus.len() {
            let mut any = false;
            while let Some(injection) = self.gic.next_injection(vcpu) {
                // First, so that a VMM that is restarted knows at least of what is there.
                if let Some(held) =
                    self.cell.actual.held.get(vcpu).and_then(|all| all.get(injection.index as usize))
                {
                    held.store(u32::from(injection.intid) + 1, Ordering::Relaxed);
                }
                self.machine.inject(vcpu, injection);
                self.stats.count(Counter::Injections);
                any = true;
            }
            if any && self.is_asleep(vcpu) {
                self.wake(vcpu);
            }
        }
    }

    /// A log line that the guest can provoke.
    pub(crate) fn complain(&mut self, what: core::fmt::Arguments<'_>) {
        match self.limiter.allow(self.machine.counter()) {
            None => {}
            Some(0) => log_line!(self.logger, "{what}"),
            Some(missed) => log_line!(self.logger, "{what} ({missed} lines not shown)"),
        }
    }
}

/// Whether a fault is a WFE.
fn is_wait_for_event(label: u64, words: [u64; 4]) -> bool {
    label == crate::exits::label::VCPU_FAULT && fault::trap(words[0] as u32) == Trap::Wfe
}

/// Channels of the interrupts of passed-through devices.
const PASSTHROUGH: u64 = (1 << channel::CONSOLE) - (1 << channel::VMM_PASSTHROUGH);
