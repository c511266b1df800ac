//! Which event calls what, on the cheap paths of the kernel.
//!
//! At most one action per wake-up is left to be joined with the next receive. The interrupt is acknowledged only while
//! something is in flight: an idle device does not interrupt, so after the last completion the acknowledgement waits for
//! the next kick, where it costs no system call of its own.
//!
//! The timer is asked for a tick when requests fly and none is asked for yet: once per tick, however many requests there are.

use core::sync::atomic::Ordering;

use partita_blk_backend::{REPLY_MRS, TICKS, Tables};
use partita_pd::Once;
use partita_pd::memory::page;
use partita_protocol::MAX_CELLS;
use partita_protocol::backend::Status;
use partita_protocol::layout::{channel, vaddr};
use partita_protocol::timer::{NEVER, TimerRequest, TimerState};
use partita_ring::log::Logger;
use partita_storage::device::BlockDevice;
use sel4_microkit::{
    Channel, ChannelSet, DeferredAction, Handler, Infallible, MessageInfo, get_mr, protection_domain, set_mr,
};

use sel4_vm::{cntfrq, cntpct};

use crate::setup::{self, BlkBackend};

const IRQ: Channel = Channel::new(channel::DEVICE_IRQ);
const SUPERVISOR: Channel = Channel::new(channel::SUPERVISOR);
const TIMER: Channel = Channel::new(channel::TIMER);
/// Message registers that a call may have.
const CALL_MRS: usize = 6;

static LOGGER: Once<Option<Logger<'static>>> = Once::new(None);
static TABLES: Once<Tables> = Once::new(Tables::new());
static BACKEND: Once<Option<BlkBackend>> = Once::new(None);

struct Blk {
    /// `None` if there is nothing to serve.
    backend: Option<&'static mut BlkBackend>,
    /// The kernel holds the interrupt back until it is acknowledged. An earlier life may have died and left it so.
    unacknowledged: bool,
    deferred: Option<DeferredAction>,
    ticks: Ticks,
}

/// Our pages at timer.
struct Ticks {
    request: &'static TimerRequest,
    state: &'static TimerState,
    /// Counts of the architected counter between ticks.
    period: u64,
    /// When the next one is, if one was asked for.
    next: Option<u64>,
    /// What timer was asked for and has not done yet, or [`NEVER`].
    asked: u64,
}

impl Ticks {
    fn new(timeout_ms: u32) -> Self {
        // SAFETY: the host tool maps the pages there for every PD with a timer channel; they hold atomics only.
        let (request, state) =
            unsafe { (page::<TimerRequest>(vaddr::TIMER_REQUEST), page::<TimerState>(vaddr::TIMER_STATE)) };
        let period = cntfrq().saturating_mul(timeout_ms.into()) / 1000 / u64::from(TICKS);
        Ticks { request, state, period, next: None, asked: NEVER }
    }

    /// Sees to it that a tick comes, if one is wanted, and a wake-up at the time given, if one is.
    fn ask(&mut self, tick: bool, wake: Option<u64>) {
        if tick && self.next.is_none() {
            self.next = Some(cntpct().saturating_add(self.period));
        }
        let wanted = self.next.unwrap_or(NEVER).min(wake.unwrap_or(NEVER));
        // What comes too early is asked for again.
        if wanted < self.asked {
            self.asked = wanted;
            self.request.deadline.store(wanted, Ordering::Release);
            TIMER.notify();
        }
    }

    /// True if the tick that was asked for has come.
    fn passed(&mut self) -> bool {
        let fired = self.state.fired.load(Ordering::Acquire);
        if self.asked <= fired {
            self.asked = NEVER;
        }
        let passed = self.next.is_some_and(|next| fired >= next);
        if passed {
            self.next = None;
        }
        passed
    }
}

#[protection_domain]
fn init() -> impl Handler {
    let again = setup::alive().begin();
    // SAFETY: the host tool gives every PD its log ring at the layout's addresses.
    let logger = unsafe { Logger::at_layout(|| Channel::new(channel::CONSOLE).notify()) };
    let logger = LOGGER.take().map(|place| &*place.insert(logger));
    let started = logger.and_then(|logger| {
        let place = BACKEND.take()?;
        let (backend, timeout_ms) = setup::start(logger, TABLES.take()?, again)?;
        Some((place.insert(backend), timeout_ms))
    });
    let (backend, timeout_ms) =
        started.map_or((None, 0), |(backend, timeout_ms)| (Some(backend), timeout_ms));
    let mut blk = Blk { backend, unacknowledged: again, deferred: None, ticks: Ticks::new(timeout_ms) };
    // After a restart the clients' VMMs wait to hear of it.
    blk.work();
    // The loop asks for actions only after an event. Ours cannot fail: nothing is acknowledged yet.
    let _ = blk.deferred.take().map(DeferredAction::execute_now);
    setup::alive().ready();
    SUPERVISOR.notify();
    blk
}

impl Blk {
    /// One channel's notification.
    #[inline(always)]
    fn event(&mut self, index: usize) {
        if index == channel::PING {
            setup::alive().beat();
        }
        let Some(backend) = &mut self.backend else { return };
        match index {
            channel::DEVICE_IRQ => {
                self.unacknowledged = true;
                backend.interrupt();
            }
            channel::TIMER => {
                if self.ticks.passed() {
                    backend.tick();
                }
                backend.release();
            }
            _ => {
                if let Some(client) =
                    index.checked_sub(channel::client(0)).filter(|client| *client < MAX_CELLS)
                {
                    backend.kicked(client);
                }
            }
        }
    }

    /// After any event: work, then tell the clients and the kernel.
    fn work(&mut self) {
        let Some(backend) = &mut self.backend else { return };
        if backend.run() {
            // Nothing in flight would call us again for the rest: let the device do it.
            backend.device_mut().nudge();
            self.acknowledge();
        }
        let Some(backend) = &mut self.backend else { return };
        self.ticks.ask(backend.wants_tick(), backend.wake_at());
        let mut clients = backend.take_notify();
        if backend.is_busy() {
            self.acknowledge();
        }
        let Some(backend) = &mut self.backend else { return };
        while clients != 0 {
            let first = backend.first(clients);
            let client = Channel::new(channel::client(first));
            clients &= !(1 << first);
            if clients == 0 && self.deferred.is_none() {
                self.deferred = Some(DeferredAction::new_notify(client));
            } else {
                client.notify();
            }
        }
    }

    fn acknowledge(&mut self) {
        if core::mem::take(&mut self.unacknowledged) {
            self.deferred = Some(DeferredAction::new_irq_ack(IRQ));
        }
    }
}

impl Handler for Blk {
    type Error = Infallible;

    fn notified(&mut self, channels: ChannelSet) -> Result<(), Infallible> {
        // Lowest first, so what the device has finished is known before clients are looked at.
        for channel in channels.iter() {
            self.event(channel.index());
        }
        self.work();
        Ok(())
    }

    fn protected(&mut self, from: Channel, message: MessageInfo) -> Result<MessageInfo, Infallible> {
        let mut mrs = [0; CALL_MRS];
        for (i, mr) in mrs.iter_mut().enumerate().take(message.count()) {
            *mr = get_mr(i);
        }
        let mut reply = [0; REPLY_MRS];
        let mut count = 1;
        match (&mut self.backend, from.index().checked_sub(channel::client(0))) {
            (Some(backend), Some(client)) => count = backend.call(client, message.label(), &mrs, &mut reply),
            _ => reply[0] = Status::Failed as u64,
        }
        self.work();
        for (i, mr) in reply.iter().enumerate().take(count) {
            set_mr(i, *mr);
        }
        Ok(MessageInfo::new(0, count))
    }

    fn take_deferred_action(&mut self) -> Option<DeferredAction> {
        self.deferred.take()
    }
}
