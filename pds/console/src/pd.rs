//! Wiring: which links exist, who woke us, whom to wake.

use core::fmt::Write;

use heapless::Deque;
use partita_config::pd::Pd;
use partita_console::ahead;
use partita_console::mux::{CONSOLES, Mux, Name, Pumped, SHELL};
use partita_console::pl011::Pl011;
use partita_console::uart::Uart;
use partita_pd::memory::{self, at};
use partita_pd::{Once, config};
use partita_protocol::alive::Alive;
use partita_protocol::layout::{Service, channel, size, vaddr};
use partita_protocol::supervisor;
use partita_ring::history::Writer;
use partita_ring::{Duplex, Mine, Yours};
use sel4_microkit::{
    Channel, ChannelSet, DeferredAction, Handler, Infallible, MessageInfo, protection_domain,
};

const IRQ: Channel = Channel::new(channel::DEVICE_IRQ);
const SUPERVISOR: Channel = Channel::new(channel::SUPERVISOR);
const PING: Channel = Channel::new(channel::PING);
/// Typed bytes taken in one wake-up; the interrupt stays up while there are more.
const TYPED: usize = 64;
/// Looks at the UART until it must be idle: longer than a full FIFO takes at 9600 baud.
const IDLE_LOOKS: usize = 1_000_000;
/// Bytes kept of each console.
const SCROLLBACK: usize = 16 * 1024;

static MUX: Once<Mux<'static>> = Once::new(Mux::new());
static SCROLLBACKS: Once<[[u8; SCROLLBACK]; CONSOLES]> = Once::new([[0; SCROLLBACK]; CONSOLES]);
static AHEAD: Once<Deque<u8, { ahead::BYTES }>> = Once::new(Deque::new());

/// Channels that the system description gives to this PD.
fn channels() -> usize {
    unsafe extern "C" {
        /// Patched by Microkit's tool; `sel4-microkit` defines it.
        static microkit_notifications: usize;
    }
    // SAFETY: the symbol is one word that is never written while the PD runs; volatile, as its value is not the linked one.
    unsafe { (&raw const microkit_notifications).read_volatile() }
}

/// The link whose pages are at these addresses.
///
/// # Safety
/// Both regions of `size` bytes are mapped, `mine` writable, and nothing else in this PD uses them.
unsafe fn link(mine: usize, yours: usize, size: usize) -> Duplex<'static> {
    // SAFETY: the caller's promise.
    unsafe { Duplex::new(Mine::at(at(mine), size), Yours::at(at(yours), size)) }
}

/// A name that is too long is cut, which cannot happen to one that Microkit took.
fn name(text: core::fmt::Arguments<'_>) -> Name {
    let mut name = Name::new();
    let _ = name.write_fmt(text);
    name
}

#[inline(never)]
fn attach(mux: &mut Mux<'static>) {
    let (channels, config) = (channels(), config());
    let given = |channel: usize| channels >> channel & 1 == 1;
    for service in
        (0..Service::COUNT).filter_map(Service::from_index).filter(|s| given(channel::service(s.index())))
    {
        let [mine, yours] =
            [vaddr::LOG_RX, vaddr::LOG_TX].map(|own| vaddr::service_link(service.index(), own));
        // SAFETY: the host tool maps a service's log ring when it gives the channel, our side at the service's LOG_RX.
        let link = unsafe { link(mine, yours, size::LOG_RING) };
        mux.add_service_log(service, name(format_args!("{}", Pd::Service(service).name(config))), link);
    }
    let Some([cells @ .., shell]) = SCROLLBACKS.take() else { return };
    for (cell, scrollback) in cells.iter_mut().enumerate().filter(|(cell, _)| given(channel::client(*cell))) {
        let [log_mine, log_yours, mine, yours] =
            [vaddr::LOG_RX, vaddr::LOG_TX, vaddr::GUEST_CONSOLE_RX, vaddr::GUEST_CONSOLE_TX]
                .map(|own| vaddr::cell_link(cell, own));
        // SAFETY: likewise for a VMM's log ring and its guest's console ring.
        let (log, guest) = unsafe {
            (link(log_mine, log_yours, size::LOG_RING), link(mine, yours, size::GUEST_CONSOLE_RING))
        };
        let cell_name = match config.and_then(|config| config.cells.get(cell)) {
            Some(cell) => name(format_args!("{}", cell.name)),
            None => name(format_args!("cell{}", cell + 1)),
        };
        mux.add_vmm_log(cell, name(format_args!("{}", Pd::Vmm(cell).name(config))), log);
        mux.add_guest(cell, cell_name, guest, scrollback);
    }
    if given(channel::service(Service::Supervisor.index())) {
        let [mine, yours] = [vaddr::GUEST_CONSOLE_RX, vaddr::GUEST_CONSOLE_TX]
            .map(|own| vaddr::service_link(Service::Supervisor.index(), own));
        // SAFETY: the host tool maps the shell's ring beside the supervisor's log ring.
        let link = unsafe { link(mine, yours, size::GUEST_CONSOLE_RING) };
        mux.add_shell(name(format_args!("shell")), link, shell);
        // SAFETY: the host tool maps the region for the supervisor to read; this is the one writer.
        mux.keep_logs(Writer::new(unsafe { Mine::at(at(vaddr::LOG_HISTORY), size::LOG_HISTORY) }));
    }
}

/// The channel of a console's PD.
const fn channel_of(console: usize) -> Channel {
    Channel::new(match console {
        SHELL => channel::service(Service::Supervisor.index()),
        cell => channel::client(cell),
    })
}

/// Our signs of life.
fn alive() -> &'static Alive {
    // SAFETY: we are a child of the supervisor.
    unsafe { memory::alive() }
}

#[protection_domain]
fn init() -> Console {
    let again = alive().begin();
    // SAFETY: the host tool maps the board's PL011 here, for this PD only.
    let uart = unsafe { Pl011::new(at(vaddr::DEVICE)) };
    let Some(mux) = MUX.take() else { panic!("init runs once") };
    attach(mux);
    if again {
        // An earlier life may have died with the interrupt unacknowledged; it is ours, so this cannot fail.
        let _ = IRQ.irq_ack();
        mux.set_front(alive().kept() as usize);
    }
    if let Some(bytes) = AHEAD.take() {
        mux.add_ahead(bytes);
    }
    let mut console = Console { mux, uart, draining: false, deferred: None };
    console.work();
    alive().ready();
    SUPERVISOR.notify();
    console
}

struct Console {
    mux: &'static mut Mux<'static>,
    uart: Pl011<'static>,
    /// The supervisor waits for [`supervisor::label::DRAINED`].
    draining: bool,
    deferred: Option<DeferredAction>,
}

impl Console {
    fn work(&mut self) {
        let pumped = self.mux.pump(&mut self.uart);
        self.mux.notify_cells(|console| channel_of(console).notify());
        if self.draining && pumped == Pumped::Idle && self.mux.drained() {
            self.draining = false;
            // The supervisor waits with a limit of its own, should the UART be stuck.
            let _ = (0..IDLE_LOOKS).any(|_| self.uart.is_idle());
            SUPERVISOR.pp_call(MessageInfo::new(supervisor::label::DRAINED, 0));
        }
    }
}

impl Handler for Console {
    type Error = Infallible;

    fn notified(&mut self, channels: ChannelSet) -> Result<(), Infallible> {
        let irq = channels.contains(IRQ);
        if irq {
            self.uart.acknowledge();
            for byte in (0..TYPED).map_while(|_| self.uart.read()) {
                self.mux.typed(byte);
            }
            // A restarted console shows what this one did.
            alive().keep(self.mux.front() as u32);
            self.mux.overrun(self.uart.overruns());
        }
        if channels.contains(PING) {
            alive().beat();
        }
        self.draining |= channels.contains(SUPERVISOR);
        self.work();
        if irq {
            self.deferred = Some(DeferredAction::new_irq_ack(IRQ));
        }
        Ok(())
    }

    fn take_deferred_action(&mut self) -> Option<DeferredAction> {
        self.deferred.take()
    }
}
