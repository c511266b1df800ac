//! Which event calls what.

use core::sync::atomic::Ordering;

use partita_ivc::links::Links;
use partita_ivc::vsock::{Broker, Connections, REPLY_MRS, Tables};
use partita_pd::Once;
use partita_protocol::MAX_CELLS;
use partita_protocol::backend::Status;
use partita_protocol::layout::channel;
use partita_protocol::timer::TimerRequest;
use partita_ring::log::Logger;
use sel4_microkit::{
    Channel, ChannelSet, DeferredAction, Handler, Infallible, MessageInfo, get_mr, protection_domain, set_mr,
};
use sel4_vm::cntpct;

use crate::report::LogReport;
use crate::setup;

const TIMER: Channel = Channel::new(channel::TIMER);
const SUPERVISOR: Channel = Channel::new(channel::SUPERVISOR);
const PING: Channel = Channel::new(channel::PING);

/// Message registers that a call may have.
const CALL_MRS: usize = 6;

static LOGGER: Once<Option<Logger<'static>>> = Once::new(None);
static TABLES: Once<Tables> = Once::new(Tables::new());
/// All zeroes, so that it takes no room in the program, nor in the supervisor's copy of it.
static CONNECTIONS: Once<Connections> = Once::new(Connections::new());
static BROKER: Once<Option<Broker<LogReport>>> = Once::new(None);

struct Ivc {
    /// virtio-vsock. `None` if there is nothing to serve.
    broker: Option<&'static mut Broker<LogReport>>,
    /// Shared-memory links, if there are any.
    links: Option<Links<'static>>,
    /// Written for timer.
    request: &'static TimerRequest,
    deferred: Option<DeferredAction>,
}

#[protection_domain]
fn init() -> impl Handler {
    setup::alive().begin();
    // SAFETY: the host tool gives every PD its log ring at the layout's addresses.
    let logger = unsafe { Logger::at_layout(|| Channel::new(channel::CONSOLE).notify()) };
    let logger = LOGGER.take().map(|place| &*place.insert(logger));
    let parts = logger.and_then(|logger| {
        let place = BROKER.take()?;
        let (broker, links) = setup::start(logger, TABLES.take()?, CONNECTIONS.take()?)?;
        Some((place.insert(broker), links))
    });
    let (broker, links) = parts.map_or((None, None), |(broker, links)| (Some(broker), links));
    let mut ivc = Ivc { broker, links, request: setup::timer_request(), deferred: None };
    // Doorbells that an earlier life did not get to.
    let owed = ivc.links.as_mut().map_or(0, Links::recover);
    ivc.notify(owed);
    // After a restart the clients' VMMs wait to hear of it.
    ivc.work();
    // The loop asks for actions only after an event. Notifications cannot fail.
    let _ = ivc.deferred.take().map(DeferredAction::execute_now);
    setup::alive().ready();
    SUPERVISOR.notify();
    ivc
}

impl Ivc {
    /// After any event: work, then tell the clients.
    fn work(&mut self) {
        let Some(broker) = &mut self.broker else { return };
        let now = cntpct();
        let more = broker.run(now);
        // A deadline that has passed comes back at once, behind whatever else has come meanwhile.
        let deadline = if more { Some(now) } else { broker.deadline() };
        if let Some(deadline) = deadline {
            self.request.deadline.store(deadline, Ordering::Release);
            TIMER.notify();
        }
        if broker.owes_supervisor() {
            SUPERVISOR.notify();
        }
        let clients = broker.take_notify();
        self.notify(clients);
    }

    /// Notifies the VMMs of these cells, one bit each.
    fn notify(&mut self, mut clients: u16) {
        while clients != 0 {
            let client = Channel::new(channel::client(clients.trailing_zeros() as usize));
            clients &= clients - 1;
            if clients == 0 && self.deferred.is_none() {
                self.deferred = Some(DeferredAction::new_notify(client));
            } else {
                client.notify();
            }
        }
    }
}

impl Handler for Ivc {
    type Error = Infallible;

    fn notified(&mut self, channels: ChannelSet) -> Result<(), Infallible> {
        if channels.contains(PING) {
            setup::alive().beat();
        }
        let mut rung = 0;
        for client in (0..MAX_CELLS).filter(|n| channels.contains(Channel::new(channel::client(*n)))) {
            if let Some(broker) = &mut self.broker {
                broker.kicked(client);
            }
            if let Some(links) = &mut self.links {
                rung |= links.ring(client);
            }
        }
        self.notify(rung);
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
        match (&mut self.broker, from.index().checked_sub(channel::client(0))) {
            (Some(broker), Some(client)) => count = broker.call(client, message.label(), &mrs, &mut reply),
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
