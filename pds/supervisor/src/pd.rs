//! Wiring: the children's faults and calls, the timer, the management shell.

use partita_config::pd::Pd;
use partita_pd::Once;
use partita_protocol::layout::{Service, channel};
use partita_protocol::supervisor::{StopReason, label};
use partita_ring::Duplex;
use partita_ring::log::{Limiter, Logger};
use partita_ring::log_line;
use partita_supervisor::fault;
use partita_supervisor::manage;
use partita_supervisor::manage::mail::Mail;
use partita_supervisor::restarts::{CHILDREN, Why};
use partita_supervisor::shell::{Output, Shell};
use sel4_microkit::{
    Channel, ChannelSet, Child, Handler, Infallible, MessageInfo, debug_println, get_mr, protection_domain,
};
use sel4_vm::{ChildPd, FaultInfo, cntfrq, cntpct};

use crate::machine::Machine;
use crate::pages;

/// Console's notifications: log ring and the shell's line.
const LINE: Channel = Channel::new(channel::CONSOLE);
const BROKER: Channel = Channel::new(Service::Ivc.index());
const TIMER: Channel = Channel::new(channel::TIMER);
const PULSE: Channel = Channel::new(channel::PULSE);
/// Calls of [`Shell::pump`] in one event. The ring's bytes are fewer than they can take.
const PUMPS: usize = 64;

static OUTPUT: Once<Output> = Once::new(Output::new());
static MAIL: Once<Mail> = Once::new(Mail::new());

#[protection_domain]
fn init() -> Supervisor {
    // SAFETY: the host tool maps the log ring in every PD.
    let logger = unsafe { Logger::at_layout(|| LINE.notify()) };
    let Some(mail) = MAIL.take() else { panic!("init runs once") };
    let config = pages::config();
    let machine = Machine::new(config, logger, mail);
    // SAFETY: `take` lets this pass once.
    let shell = OUTPUT.take().map(|output| (Shell::new(output), unsafe { pages::shell_link() }));
    // SAFETY: `init` runs once.
    let manage = unsafe { pages::manage_link(config) };
    let mut supervisor = Supervisor { machine, shell, manage, nonsense: Limiter::new(5, cntfrq()) };
    supervisor.talk();
    supervisor.manage();
    supervisor
}

struct Supervisor {
    machine: Machine,
    shell: Option<(Shell<'static>, Duplex<'static>)>,
    /// Lines to and from `ivc`.
    manage: Option<Duplex<'static>>,
    /// For calls that mean nothing.
    nonsense: Limiter,
}

impl Supervisor {
    fn child(who: Pd) -> Option<ChildPd> {
        who.id().map(ChildPd::new)
    }

    /// Serves the shell's line.
    fn talk(&mut self) {
        let Some((shell, link)) = &mut self.shell else { return };
        for _ in 0..PUMPS {
            if !shell.pump(link, &mut self.machine) {
                break;
            }
        }
        // Both have memory: ask both.
        let sent = link.tx.should_notify();
        if link.rx.should_notify() | sent {
            LINE.notify();
        }
    }

    /// Serves the managers, and sends what the shell has for the guests.
    fn manage(&mut self) {
        let Some(link) = &mut self.manage else { return };
        if manage::serve(link, &mut self.machine) == manage::Served::More {
            self.machine.come_back();
        }
        // Both have memory: ask both.
        let sent = link.tx.should_notify();
        if link.rx.should_notify() | sent {
            BROKER.notify();
        }
    }

    /// Writes it to the log and, where log lines would not be seen, to the kernel's own output.
    fn report(&self, who: Pd, fault: &FaultInfo) {
        let machine = &self.machine;
        let registers = Self::child(who).and_then(|child| child.registers().ok());
        // The log takes all of it line by line, so there is nothing to fail.
        let _ = fault::report(&mut machine.logger.writer(), machine.name(who), fault, registers.as_ref());
        if !machine.console_lives {
            let _ = fault::report(&mut Kernel, machine.name(who), fault, registers.as_ref());
            debug_println!();
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
        for id in (0..CHILDREN).filter(|id| channels.contains(Channel::new(*id))) {
            let Some(who) = Pd::from_id(id) else { continue };
            self.machine.answered(who);
            if let Pd::Vmm(n) = who {
                self.machine.changed(n);
            }
        }
        if channels.contains(TIMER) {
            self.machine.tick();
        }
        if channels.contains(PULSE) {
            self.machine.pulse();
        }
        if channels.contains(LINE) {
            self.talk();
        }
        self.manage();
        Ok(())
    }

    fn protected(&mut self, channel: Channel, message: MessageInfo) -> Result<MessageInfo, Infallible> {
        // Registers first: every invocation overwrites them.
        let argument = if message.count() > 0 { get_mr(0) } else { 0 };
        let machine = &mut self.machine;
        match (Pd::from_id(channel.index()), message.label()) {
            (Some(Pd::Vmm(cell)), label::GUEST_RUNNING) => machine.lifecycle.running(cell),
            (Some(Pd::Vmm(cell)), label::GUEST_STOPPED) => {
                machine.stopped(cell, StopReason::from_word(argument));
            }
            (Some(Pd::Service(Service::Console)), label::DRAINED) => machine.drained(),
            (Some(who), label) => {
                if let Some(more) = self.nonsense.allow(cntpct()) {
                    let name = machine.name(who);
                    log_line!(machine.logger, "call {label} from {name} means nothing ({more} more)");
                }
            }
            (None, _) => {}
        }
        Ok(MessageInfo::new(0, 0))
    }

    fn fault(&mut self, child: Child, message: MessageInfo) -> Result<Option<MessageInfo>, Infallible> {
        let fault = FaultInfo::new(message.inner());
        let Some(who) = Pd::from_id(child.index()) else { return Ok(None) };
        let why = self.machine.why(who);
        if why == Why::Fault {
            self.machine.deaths = self.machine.deaths.saturating_add(1);
            if who == Pd::Service(Service::Console) {
                self.machine.console_lives = false;
            }
            self.report(who, &fault);
        }
        self.machine.died(who, why);
        Ok(None)
    }
}
