//! Wiring: the architected physical timer at EL0 (Arm ARM D12.2), the clients' pages, who woke us.

use core::arch::asm;

use partita_pd::memory;
use partita_protocol::MAX_CELLS;
use partita_protocol::alive::Alive;
use partita_protocol::layout::{Service, channel, vaddr};
use partita_protocol::timer::{TimerRequest, TimerState};
use partita_timer::clock::{Alarm, Clock};
use partita_timer::{CLIENTS, Client, Deadlines};
use sel4_microkit::{Channel, ChannelSet, DeferredAction, Handler, Infallible, protection_domain};

const IRQ: Channel = Channel::new(channel::DEVICE_IRQ);
const SUPERVISOR: Channel = Channel::new(channel::SUPERVISOR);
const PING: Channel = Channel::new(channel::PING);

/// CNTP_CTL_EL0.ENABLE, with IMASK clear.
const ENABLE: u64 = 1;

/// CNTPCT_EL0 and CNTP_*_EL0. A kernel that lets this PD run gives it the registers; see docs on boards.
struct Architected {
    enabled: bool,
}

impl Architected {
    fn new() -> Self {
        control(0);
        Architected { enabled: false }
    }
}

fn control(value: u64) {
    // SAFETY: the register belongs to this PD; it has no effect on memory.
    unsafe { asm!("msr cntp_ctl_el0, {}", "isb", in(reg) value, options(nomem, nostack, preserves_flags)) };
}

impl Clock for Architected {
    fn now(&mut self) -> u64 {
        let count: u64;
        // SAFETY: reads a counter. The barrier keeps the read from being done early.
        unsafe {
            asm!("isb", "mrs {}, cntpct_el0", out(reg) count, options(nomem, nostack, preserves_flags))
        };
        count
    }

    fn set(&mut self, compare: Option<u64>) {
        if let Some(compare) = compare {
            // SAFETY: as for `control`.
            unsafe {
                asm!("msr cntp_cval_el0, {}", "isb", in(reg) compare, options(nomem, nostack, preserves_flags))
            };
        }
        if compare.is_some() != self.enabled {
            self.enabled = compare.is_some();
            control(if self.enabled { ENABLE } else { 0 });
        }
    }
}

/// Channel of a client.
const fn channel_of(client: usize) -> usize {
    match client.checked_sub(MAX_CELLS) {
        Some(service) => channel::service(service),
        None => channel::client(client),
    }
}

/// The client's pages, if the system description gives us its channel.
fn client(n: usize) -> Option<Client<'static>> {
    unsafe extern "C" {
        /// Patched by Microkit's tool; `sel4-microkit` defines it.
        static microkit_notifications: usize;
    }
    // SAFETY: the symbol is one word that is never written while the PD runs; volatile, as its value is not the linked one.
    let channels = unsafe { (&raw const microkit_notifications).read_volatile() };
    if channels >> channel_of(n) & 1 == 0
        || Service::from_index(n.wrapping_sub(MAX_CELLS)) == Some(Service::Timer)
    {
        return None;
    }
    let link = |own| match n.checked_sub(MAX_CELLS) {
        Some(service) => vaddr::service_link(service, own),
        None => vaddr::cell_link(n, own),
    };
    // SAFETY: the host tool maps both pages when it gives the channel; they hold atomics only.
    unsafe {
        Some(Client {
            request: memory::page::<TimerRequest>(link(vaddr::TIMER_REQUEST)),
            state: memory::page::<TimerState>(link(vaddr::TIMER_STATE)),
        })
    }
}

/// Our signs of life.
fn alive() -> &'static Alive {
    // SAFETY: we are a child of the supervisor.
    unsafe { memory::alive() }
}

#[protection_domain]
fn init() -> Timer {
    let again = alive().begin();
    let mut timer = Timer {
        deadlines: Deadlines::new(core::array::from_fn(client)),
        clock: Architected::new(),
        alarm: Alarm::new(),
        deferred: None,
    };
    timer.work();
    // The loop asks for actions only after an event. Notifications cannot fail.
    let _ = timer.deferred.take().map(DeferredAction::execute_now);
    if again {
        // An earlier life may have died with the interrupt unacknowledged, and it would never come again. The interrupt is ours,
        // so this cannot fail; one that is not held back is not changed by it.
        let _ = IRQ.irq_ack();
        // An earlier life may have died between noting that a deadline has fired and telling its client.
        for client in (0..CLIENTS).filter(|n| timer.deadlines.has(*n)) {
            Channel::new(channel_of(client)).notify();
        }
    }
    alive().ready();
    SUPERVISOR.notify();
    timer
}

struct Timer {
    deadlines: Deadlines<'static>,
    clock: Architected,
    alarm: Alarm,
    deferred: Option<DeferredAction>,
}

impl Timer {
    fn work(&mut self) {
        let now = self.clock.now();
        let due = self.deadlines.expire(now);
        self.alarm.arm(&mut self.clock, now, self.deadlines.earliest());
        for client in due.iter() {
            self.defer(DeferredAction::new_notify(Channel::new(channel_of(client))));
        }
    }

    /// The last action of an event goes with the next receive, those before it happen at once.
    fn defer(&mut self, action: DeferredAction) {
        if let Some(before) = self.deferred.replace(action) {
            // Notifications cannot fail, and our interrupt is ours to acknowledge.
            let _ = before.execute_now();
        }
    }
}

impl Handler for Timer {
    type Error = Infallible;

    fn notified(&mut self, channels: ChannelSet) -> Result<(), Infallible> {
        for client in (0..CLIENTS).filter(|n| channels.contains(Channel::new(channel_of(*n)))) {
            self.deadlines.update(client);
        }
        self.work();
        if channels.contains(PING) {
            alive().beat();
        }
        if channels.contains(IRQ) {
            self.defer(DeferredAction::new_irq_ack(IRQ));
        }
        Ok(())
    }

    fn take_deferred_action(&mut self) -> Option<DeferredAction> {
        self.deferred.take()
    }
}
