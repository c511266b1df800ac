//! virtio-vsock (virtio 1.2, 5.10) between cells.

mod control;
pub use control::REPLY_MRS;

use core::sync::atomic::Ordering;

use partita_protocol::MAX_CELLS;
use partita_protocol::backend::{BackendStatus, DeviceStatus};
use partita_virtio::memory::GuestRam;
use partita_virtio::queue::{Queue, QueueLayout};
use partita_virtio::vsock;

/// Greatest size of each of a guest's queues.
pub const QUEUE_MAX: u16 = 256;

/// What a client's device does.
#[derive(Clone, Copy, Debug)]
enum State {
    /// Reset, or never started.
    Idle,
    /// DRIVER_OK. Receive, transmit, event: without those that the driver did not set up.
    Live([Option<Queue>; vsock::QUEUES]),
}

/// A cell with a virtio-vsock device.
struct Client {
    cid: u32,
    ram: GuestRam,
    status: &'static BackendStatus,
    layouts: [Option<QueueLayout>; vsock::QUEUES],
    state: State,
}

impl Client {
    fn counters(&self) -> Option<&'static DeviceStatus> {
        self.status.devices.first()
    }
}

/// What is too big for a small stack. Belongs into a static.
pub struct Tables {
    clients: [Option<Client>; MAX_CELLS],
}

impl Tables {
    /// Empty.
    pub const fn new() -> Self {
        Self { clients: [const { None }; MAX_CELLS] }
    }
}

impl Default for Tables {
    fn default() -> Self {
        Self::new()
    }
}

/// The switch.
pub struct Broker {
    tables: &'static mut Tables,
    notify: u16,
}

impl Broker {
    /// Without clients.
    pub fn new(tables: &'static mut Tables) -> Self {
        Self { tables, notify: 0 }
    }

    /// Adds the cell `number`.
    pub fn add_client(&mut self, number: usize, cid: u32, ram: GuestRam, status: &'static BackendStatus) {
        if let Some(place) = self.tables.clients.get_mut(number) {
            let layouts = [None; vsock::QUEUES];
            *place = Some(Client { cid, ram, status, layouts, state: State::Idle });
        }
    }

    /// Ends the set-up: each client's page tells that we have started.
    pub fn open(&mut self) {
        for client in self.tables.clients.iter().flatten() {
            client.status.generation.fetch_add(1, Ordering::Release);
        }
    }

    /// Clients that must be notified, as a bit set; forgets them.
    pub fn take_notify(&mut self) -> u16 {
        core::mem::take(&mut self.notify)
    }

    /// The VMM of cell `client` says that its guest made buffers available.
    pub fn kicked(&mut self, _client: usize) {}

    /// Does a bounded amount of work.
    pub fn run(&mut self) {}

    fn client(&mut self, client: usize) -> Option<&mut Client> {
        self.tables.clients.get_mut(client)?.as_mut()
    }
}
