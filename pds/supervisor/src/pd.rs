//! Wiring: the children's faults and calls, the timer, the secure monitor.

use core::num::NonZeroUsize;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use partita_config::Config;
use partita_config::pd::{Name, Pd};
use partita_protocol::layout::{Service, channel, supervisor_vmm, vaddr};
use partita_protocol::supervisor::{StopReason, label};
use partita_protocol::timer::{NEVER, TimerRequest};
use partita_ring::log::{Limiter, Logger};
use partita_ring::log_line;
use partita_supervisor::fault;
use partita_supervisor::lifecycle::{Lifecycle, Reaction};
use partita_supervisor::power::Power;
use sel4_microkit::{
    Channel, ChannelSet, Child, Handler, Infallible, MessageInfo, debug_println, get_mr, protection_domain,
    var,
};
use sel4_vm::{ChildPd, FaultInfo, cntfrq, cntpct};

const CONSOLE: Channel = Channel::new(Service::Console.index());
const TIMER: Channel = Channel::new(channel::TIMER);

/// PSCI SYSTEM_OFF (Arm DEN 0022, 5.1.9).
const SYSTEM_OFF: u64 = 0x8400_0008;

fn at<T>(address: usize) -> NonNull<T> {
    NonNull::with_exposed_provenance(NonZeroUsize::new(address).unwrap_or(NonZeroUsize::MIN))
}

/// The configuration; an empty one if the region is not there or is not what the host tool puts there.
#[inline(never)]
fn config() -> Config<'static> {
    let bytes = *var!(config_size: usize = 0);
    if bytes == 0 {
        return Config::default();
    }
    // SAFETY: the symbol is set together with the map, which is read-only in every PD, so nobody writes it.
    partita_config::parse(unsafe { core::slice::from_raw_parts(at(vaddr::CONFIG).as_ptr(), bytes) })
        .unwrap_or_default()
}

#[protection_domain]
fn init() -> Supervisor {
    let config = config();
    let lifecycle = Lifecycle::new(&config, cntfrq());
    // SAFETY: the host tool maps the log ring in every PD.
    let logger = unsafe { Logger::at_layout(|| Channel::new(channel::CONSOLE).notify()) };
    // SAFETY: the host tool maps our request page here, for us to write; it holds an atomic only.
    let request = unsafe { at::<TimerRequest>(vaddr::TIMER_REQUEST).as_ref() };
    let nonsense = Limiter::new(5, cntfrq());
    Supervisor {
        config,
        logger,
        lifecycle,
        nonsense,
        power: Power::On,
        request,
        console_lives: true,
        deaths: 0,
    }
}

struct Supervisor {
    config: Config<'static>,
    logger: Logger<'static>,
    lifecycle: Lifecycle,
    /// For calls that mean nothing.
    nonsense: Limiter,
    power: Power,
    request: &'static TimerRequest,
    console_lives: bool,
    /// PDs that have faulted.
    deaths: u32,
}

/// What becomes of a PD that faulted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sentence {
    /// It stays as it is.
    Hold,
}

impl Supervisor {
    fn name(&self, who: Pd) -> Name<'_> {
        who.name(Some(&self.config))
    }

    fn child(who: Pd) -> Option<ChildPd> {
        who.id().map(ChildPd::new)
    }

    /// Writes it to the log and, where log lines would not be seen, to the kernel's own output.
    fn report(&self, who: Pd, fault: &FaultInfo) {
        let registers = Self::child(who).and_then(|child| child.registers().ok());
        // The log takes all of it line by line, so there is nothing to fail.
        let _ = fault::report(&mut self.logger.writer(), self.name(who), fault, registers.as_ref());
        if !self.console_lives {
            let _ = fault::report(&mut Kernel, self.name(who), fault, registers.as_ref());
            debug_println!();
        }
    }

    /// Restarts come with issue 5; whatever decides about them decides here.
    fn sentence(&self, _who: Pd) -> Sentence {
        Sentence::Hold
    }

    fn react(&mut self, cell: usize, reaction: Reaction) {
        match reaction {
            Reaction::None => {}
            Reaction::Start => Channel::new(supervisor_vmm(cell)).notify(),
            Reaction::PowerOff => self.begin_power_off(),
        }
    }

    fn begin_power_off(&mut self) {
        let deadline = self.power.begin(cntpct(), cntfrq(), self.console_lives);
        if self.power == Power::On {
            return;
        }
        match (self.lifecycle.failures(), self.deaths) {
            (0, 0) => log_line!(self.logger, "power off: ok"),
            (cells, pds) => {
                log_line!(self.logger, "power off: FAILED: {cells} cells crashed, {pds} PDs faulted")
            }
        }
        if let Some(deadline) = deadline {
            self.request.deadline.store(deadline, Ordering::Release);
            TIMER.notify();
            CONSOLE.notify();
        }
        self.power_off_if_due();
    }

    fn power_off_if_due(&mut self) {
        if self.power != Power::Off {
            return;
        }
        let answer = sel4_vm::smc([SYSTEM_OFF, 0, 0, 0, 0, 0, 0, 0]);
        // Only reached if the firmware does not do it. The system stays up, its guests are off.
        self.power = Power::On;
        self.request.deadline.store(NEVER, Ordering::Release);
        match answer {
            Ok([code, ..]) => log_line!(self.logger, "the firmware does not switch off: {}", code as i64),
            Err(error) => log_line!(self.logger, "the kernel does not let me switch off: {error}"),
        }
    }
}

/// The kernel's own output, where it has any.
struct Kernel;

impl core::fmt::Write for Kernel {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        sel4_microkit::debug_print!("{text}");
        Ok(())
    }
}

impl Handler for Supervisor {
    type Error = Infallible;

    fn notified(&mut self, channels: ChannelSet) -> Result<(), Infallible> {
        if channels.contains(TIMER) {
            self.power.tick(cntpct());
            self.power_off_if_due();
        }
        Ok(())
    }

    fn protected(&mut self, channel: Channel, message: MessageInfo) -> Result<MessageInfo, Infallible> {
        // Registers first: every invocation overwrites them.
        let argument = if message.count() > 0 { get_mr(0) } else { 0 };
        match (Pd::from_id(channel.index()), message.label()) {
            (Some(Pd::Vmm(cell)), label::GUEST_RUNNING) => self.lifecycle.running(cell),
            (Some(who @ Pd::Vmm(cell)), label::GUEST_STOPPED) => {
                let reason = StopReason::from_word(argument);
                let reaction = self.lifecycle.stopped(cell, reason, cntpct());
                let what = match reason {
                    StopReason::PowerOff => "switched off",
                    StopReason::Reset => "reset",
                    StopReason::Crash => "crashed",
                };
                let next = if reaction == Reaction::Start { ", starting again" } else { "" };
                log_line!(self.logger, "guest of {} {what}{next}", self.name(who));
                self.react(cell, reaction);
            }
            (Some(Pd::Service(Service::Console)), label::DRAINED) => {
                self.power.drained();
                self.power_off_if_due();
            }
            (Some(who), label) => {
                if let Some(more) = self.nonsense.allow(cntpct()) {
                    log_line!(
                        self.logger,
                        "call {label} from {} means nothing ({more} more)",
                        self.name(who)
                    );
                }
            }
            (None, _) => {}
        }
        Ok(MessageInfo::new(0, 0))
    }

    fn fault(&mut self, child: Child, message: MessageInfo) -> Result<Option<MessageInfo>, Infallible> {
        let fault = FaultInfo::new(message.inner());
        let Some(who) = Pd::from_id(child.index()) else { return Ok(None) };
        self.deaths = self.deaths.saturating_add(1);
        if who == Pd::Service(Service::Console) {
            self.console_lives = false;
        }
        self.report(who, &fault);
        match self.sentence(who) {
            Sentence::Hold => {
                // It is stopped by its fault; this also takes the fault out of our reply object.
                let _ = Self::child(who).map(|child| child.stop());
                log_line!(self.logger, "{} stays stopped", self.name(who));
            }
        }
        match who {
            Pd::Vmm(cell) => {
                let reaction = self.lifecycle.vmm_died(cell);
                self.react(cell, reaction);
            }
            Pd::Service(Service::Console) => {
                self.power.drained();
                self.power_off_if_due();
            }
            Pd::Service(_) => {}
        }
        Ok(None)
    }
}
