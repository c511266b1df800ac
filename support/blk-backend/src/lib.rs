//! virtio-blk backend: serves the disks of many guests from one block device.
//!
//! This is all of `pds/blk` that is not wiring, so that it runs against a fake device and model guests on the host. Three
//! things enter: protected calls of a VMM ([`Backend::call`]), its notifications ([`Backend::kicked`]) and the device's
//! interrupt ([`Backend::interrupt`]); [`Backend::run`] then does a bounded amount of work. What leaves: requests to the
//! [`BlockDevice`], used elements in the guests' rings, counters in each client's [`BackendStatus`] page, and the set of
//! clients to notify.
//!
//! A guest's request is checked against the guest's RAM (by `partita_virtio::blk`) and the disk's window before it is
//! handed on as a list of physical addresses. It stays one request. What a guest does wrong is answered to that guest and
//! reported once through [`Report`]; other guests do not notice.
//!
//! A disk may have several queues (VIRTIO_BLK_F_MQ, 5.2.3), so that the vCPUs of a guest need not take turns at one. They are
//! one disk in all that others see: turns go by guest, limits by disk, and a reset or a broken rule is about all of them.
#![cfg_attr(not(test), no_std)]

mod control;
pub use control::REPLY_MRS;
mod count;
pub use count::Counting;
mod fetch;
mod finish;
pub mod inflight;
mod limit;
pub use limit::Rate;
mod offer;
mod patience;
mod precedence;
mod recover;
pub use recover::{Cause, Remedy, TICKS};
mod serve;
mod turns;

#[cfg(test)]
mod tests;

use core::sync::atomic::Ordering;

use partita_protocol::backend::{BackendStatus, DeviceStatus};
use partita_protocol::{MAX_CELLS, MAX_DISKS, MAX_QUEUES};
use partita_storage::device::{BlockDevice, Outcome};
use partita_storage::window::Window;
use partita_virtio::blk::{ID_BYTES, Operation, Parsed, Segments};
use partita_virtio::memory::GuestRam;
use partita_virtio::queue::{Fault, Queue, QueueLayout};

use inflight::{Entry, InflightPage, Owner};
use limit::Limits;
use patience::Patience;
use recover::Recovery;
use turns::Turns;

/// Greatest size of a guest's queue.
pub const QUEUE_MAX: u16 = 256;
/// Segments of one guest request.
pub const SEG_MAX: usize = 250;
/// Most requests in flight below.
pub const MAX_FLIGHTS: usize = 63;
/// Chains looked at in one [`Backend::run`].
pub const BUDGET: usize = 128;
/// A disk with so many reads and writes in flight asks its guest for no kicks: what comes next could only wait behind them,
/// and the first completion shows it. A kick would cost an exit, two switches and the same look.
pub const BUSY: u16 = 4;

/// What somebody should know about. Called at most once for each thing that happens; the PD limits the rate.
pub trait Report {
    /// The guest of cell `client` broke a rule on its disk: it sees DEVICE_NEEDS_RESET.
    fn guest_fault(&mut self, client: usize, disk: usize, fault: Fault);
    /// A request for sectors outside the disk was answered with an error.
    fn out_of_window(&mut self, client: usize, disk: usize, sector: u64);
    /// The device did not do what was asked for, and `problem` says why.
    fn request_failed(&mut self, client: usize, disk: usize, operation: Operation, problem: Outcome);
    /// The device below did not answer or broke a rule, and this was done.
    fn device(&mut self, cause: Cause, remedy: Remedy);
}

/// A guest's disk as configured: what a [`Backend`] is told at the start.
#[derive(Clone, Copy, Debug)]
pub struct DiskConfig {
    /// Its part of the device.
    pub window: Window,
    /// Writes are refused.
    pub read_only: bool,
    /// What GET_ID returns, padded with 0.
    pub serial: [u8; ID_BYTES],
    /// Most that it may ask for.
    pub rate: Rate,
    /// Queues that it offers: 1 to [`MAX_QUEUES`].
    pub queues: usize,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Reset, or never started.
    Idle,
    /// DRIVER_OK. Without queues if the driver set none up.
    Live,
    /// The guest broke a rule: nothing is fetched or returned until reset.
    Broken,
    /// RESET was asked for while requests were in flight.
    Draining,
}

/// One queue of a disk.
#[allow(clippy::large_enum_variant)] // there is nothing to box it with
#[derive(Clone, Copy, Debug)]
enum Ring {
    /// The driver has not set it up.
    Absent,
    /// Set up, not yet started.
    SetUp(QueueLayout),
    /// In use. Only of a disk that is [`State::Live`].
    Live(Queue),
}

#[derive(Debug)]
struct Disk {
    config: DiskConfig,
    state: State,
    rings: [Ring; MAX_QUEUES],
    /// Features of the last START.
    accepted: u64,
    /// The guest did not negotiate FLUSH: its writes must be durable when they complete (5.2.6.2).
    write_through: bool,
    in_flight: u16,
    /// How many of them are neither reads nor writes.
    others: u16,
    /// Where the turn among its queues stands.
    cursor: u8,
}

/// A field of this type makes the `None` of an `Option` around the whole zeroes, as it has more values that are never used than
/// any other, and zero is the next below the used one. Tables of `None` then take no room in the program, nor in the copy
/// from which a restart restores its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
enum Presence {
    Here = 1,
}

/// What comes after a request. Its size and values are those of [`Presence`]: it does the same for [`Flight`], without a
/// store of its own for each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
enum After {
    /// The answer.
    Answer = 1,
    /// A flush, because the disk is write-through.
    Flush = 2,
}

struct Client {
    #[expect(dead_code, reason = "see there")]
    presence: Presence,
    ram: GuestRam,
    status: &'static BackendStatus,
    disks: [Option<Disk>; MAX_DISKS],
    in_flight: u16,
    /// [`ring_bit`]: it was in use at some time. Others need no look.
    started: u16,
    /// [`ring_bit`]: there may be chains to fetch.
    ready: u16,
    /// [`ring_bit`]: used elements are written but not published.
    unpublished: u16,
    /// [`ring_bit`]: found empty and left without a wish for a kick, see [`BUSY`].
    quiet: u16,
    /// Where the turn among its disks stands.
    cursor: u32,
}

impl Disk {
    fn new(config: DiskConfig) -> Self {
        Self {
            config,
            state: State::Idle,
            rings: [Ring::Absent; MAX_QUEUES],
            accepted: 0,
            write_through: false,
            in_flight: 0,
            others: 0,
            cursor: 0,
        }
    }

    /// Each of its completions comes soon, see [`BUSY`].
    #[inline]
    const fn is_busy(&self) -> bool {
        self.in_flight >= BUSY && self.others == 0 && !self.write_through
    }

    /// A queue in use.
    #[inline]
    fn queue(&mut self, queue: usize) -> Option<&mut Queue> {
        match self.rings.get_mut(queue)? {
            Ring::Live(queue) => Some(queue),
            _ => None,
        }
    }

    /// Leaves [`State::Live`], or what was set up for it.
    fn end(&mut self, state: State) {
        self.state = state;
        self.rings = [Ring::Absent; MAX_QUEUES];
    }
}

/// [`ring_bit`] of all queues of a disk.
const fn disk_bits(disk: usize) -> u16 {
    ((1 << MAX_QUEUES) - 1) << (disk * MAX_QUEUES)
}

/// Bit of a queue among all of a client.
const fn ring_bit(disk: usize, queue: usize) -> u16 {
    1 << (disk * MAX_QUEUES + queue)
}

const _: () = assert!(MAX_DISKS * MAX_QUEUES <= u16::BITS as usize);

impl Client {
    fn counters(&self, disk: usize) -> Option<&'static DeviceStatus> {
        self.status.devices.get(disk)
    }

    /// Its guest was told, perhaps by an earlier life, that it needs a reset.
    fn is_broken(&self, disk: usize) -> bool {
        self.counters(disk).is_some_and(|counters| counters.needs_reset.load(Ordering::Acquire) != 0)
    }
}

/// A request that is with the device.
#[derive(Clone, Copy, Debug)]
struct Flight {
    owner: Owner,
    parsed: Parsed,
    after: After,
    /// Bytes of its segments.
    bytes: u64,
    /// Count of the clock when the device got it.
    began: u64,
    /// The tick in which that was.
    tick: u32,
}

/// What is too big for a small stack. Belongs into a static.
pub struct Tables {
    clients: [Option<Client>; MAX_CELLS],
    flights: [Option<Flight>; MAX_FLIGHTS],
    segments: Segments<SEG_MAX>,
}

impl Tables {
    /// Empty.
    pub const fn new() -> Self {
        Self {
            clients: [const { None }; MAX_CELLS],
            flights: [const { None }; MAX_FLIGHTS],
            segments: Segments::new(),
        }
    }
}

impl Default for Tables {
    fn default() -> Self {
        Self::new()
    }
}

/// The backend.
pub struct Backend<D, R> {
    device: D,
    report: R,
    tables: &'static mut Tables,
    page: &'static InflightPage,
    /// Bit `id`: free.
    free: u64,
    /// Numbers that there are.
    all: u64,
    turns: Turns,
    /// Bit `client`: has disks with chains to fetch.
    ready: u16,
    /// Bit `client`: to be notified.
    notify: u16,
    /// [`ring_bit`] of each client: a used-buffer notification is to be counted at the end of the run.
    owing: [u16; MAX_CELLS],
    /// Bit `client`: some of its disks have used elements to publish.
    unpublished: u16,
    /// Requests with the device.
    flying: u16,
    /// Requests one client may have in flight.
    share: u16,
    recovery: Recovery,
    patience: Patience,
    counting: Option<Counting>,
    limits: Limits,
    /// Count of its clock when what is being done began.
    now: u64,
}

impl<D: BlockDevice, R: Report> Backend<D, R> {
    /// Takes the device over. `page` is what an earlier life may have left: a client's START goes on with it. Clients are
    /// added by [`Backend::add_client`], then [`Backend::open`] ends the set-up.
    pub fn new(device: D, report: R, tables: &'static mut Tables, page: &'static InflightPage) -> Self {
        let depth = device.properties().depth.min(MAX_FLIGHTS as u16);
        let all = (1u64 << depth) - 1;
        Self {
            device,
            report,
            tables,
            page,
            free: all,
            all,
            turns: Turns::new(),
            ready: 0,
            notify: 0,
            owing: [0; MAX_CELLS],
            unpublished: 0,
            flying: 0,
            share: depth,
            recovery: Recovery::default(),
            patience: Patience::default(),
            counting: None,
            limits: Limits::none(),
            now: 0,
        }
    }

    /// Publishes counters from now on. Before the first [`Backend::add_disk`], so that the windows are in it.
    pub fn count(&mut self, counting: Counting) {
        self.counting = Some(counting);
    }

    /// Rate limits go by this clock, of so many counts in a second. Before the first [`Backend::add_disk`] with one.
    pub fn set_clock(&mut self, clock: fn() -> u64, frequency: u64) {
        self.limits.set_clock(clock, frequency);
    }

    /// When [`Backend::release`] is to be called, as some disk waits for its time.
    pub fn wake_at(&self) -> Option<u64> {
        self.limits.wake_at()
    }

    /// Disks whose time has come may go on with the next [`Backend::run`].
    pub fn release(&mut self) {
        while let Some((client, disk)) = self.limits.release() {
            for queue in 0..MAX_QUEUES {
                self.mark_ready(client, disk, queue);
            }
        }
    }

    /// Adds client `number`, without disks.
    pub fn add_client(&mut self, number: usize, ram: GuestRam, status: &'static BackendStatus) {
        if let Some(place) = self.tables.clients.get_mut(number) {
            *place = Some(Client {
                presence: Presence::Here,
                ram,
                status,
                disks: [const { None }; MAX_DISKS],
                in_flight: 0,
                started: 0,
                ready: 0,
                unpublished: 0,
                quiet: 0,
                cursor: 0,
            });
        }
    }

    /// Adds a disk to a client. `Err` names the client with a disk that has sectors in common with this one, if either may
    /// be written.
    pub fn add_disk(&mut self, client: usize, number: usize, config: DiskConfig) -> Result<(), usize> {
        let shares = |disk: &Disk| {
            disk.config.window.overlaps(&config.window) && !(disk.config.read_only && config.read_only)
        };
        for (other, entry) in self.tables.clients.iter().enumerate() {
            if entry.iter().flat_map(|client| client.disks.iter().flatten()).any(shares) {
                return Err(other);
            }
        }
        if let Some(place) = self.client(client).and_then(|client| client.disks.get_mut(number)) {
            *place = Some(Disk::new(config));
            self.limits.set(client, number, config.rate);
            if let Some(counting) = self.counting {
                counting.serve(client, number, config.window.first(), config.window.count());
            }
        }
        Ok(())
    }

    /// Ends the set-up: shares are fixed, and each client's page tells that we have started.
    pub fn open(&mut self) {
        let depth = self.all.count_ones() as u16;
        let count = self.tables.clients.iter().flatten().count() as u16;
        // Each of the others finds a few places free whatever one client does.
        let reserve = (depth / (2 * count.max(1))).min(4);
        self.share = depth.saturating_sub(reserve * count.saturating_sub(1)).max(1);
        // Numbers that an earlier life had in use stay taken until their owner resumes or resets.
        for id in 0..MAX_FLIGHTS {
            if let Entry::Taken(owner) | Entry::Finishing(owner, _) = self.page.get(id) {
                let (client, disk) = (owner.client.into(), owner.disk.into());
                let known = self.disk(client, disk).is_some() && self.page.is_live(client, disk);
                if known && self.all & 1 << id != 0 {
                    self.free &= !(1 << id);
                } else {
                    self.page.set(id, Entry::Free);
                }
            }
        }
        for (number, client) in self.tables.clients.iter().enumerate() {
            let Some(client) = client else { continue };
            #[cfg(test)]
            partita_virtio::fake::crash::store();
            client.status.generation.fetch_add(1, Ordering::Release);
            self.notify |= 1 << number;
        }
    }

    /// Clients that must be notified, as a bit set; forgets them.
    pub fn take_notify(&mut self) -> u16 {
        core::mem::take(&mut self.notify)
    }

    /// Which of `clients`, a set with at least one, is to be notified before the others.
    #[inline]
    pub fn first(&mut self, clients: u16) -> usize {
        self.turns.first(clients)
    }

    /// Some request is with the device, so that an interrupt will come.
    pub const fn is_busy(&self) -> bool {
        self.flying != 0
    }

    /// The device below.
    pub const fn device(&self) -> &D {
        &self.device
    }

    /// The device below.
    pub const fn device_mut(&mut self) -> &mut D {
        &mut self.device
    }

    fn client(&mut self, client: usize) -> Option<&mut Client> {
        self.tables.clients.get_mut(client)?.as_mut()
    }

    fn disk(&mut self, client: usize, disk: usize) -> Option<&mut Disk> {
        self.client(client)?.disks.get_mut(disk)?.as_mut()
    }

    /// A queue in use.
    fn queue_mut(&mut self, client: usize, disk: usize, queue: usize) -> Option<&mut Queue> {
        self.disk(client, disk)?.queue(queue)
    }
}
