//! The whole backend against a fake device and model guests. Events are delivered only as on the target: a kick if the
//! ring asks for it, an interrupt if the device was armed, a look at the used ring if the guest was notified. Whoever is
//! left asleep with work to do fails the test.

mod behaviour;
mod crashes;
mod multiqueue;
mod properties;
mod recovery;
mod resets;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use partita_protocol::backend::{Status, label};
use partita_storage::device::Health;
use partita_storage::fake::FakeDisk;
use partita_virtio::blk::{BlkStatus, Header, feature, kind};
use partita_virtio::fake::{Buffer, DriverQueue, FakeRam};
use partita_virtio::features;

use super::*;

pub const BASE: u64 = 0x4000_0000;
pub const RAM: u64 = 0x10_0000;
pub const QUEUE: u16 = 64;
/// From one of a guest's queues to the next.
const APART: u64 = 0x1800;
/// Sectors of each disk.
pub const SECTORS: u64 = 256;
const SLOTS: u64 = BASE + 0x8000;
const SLOT: u64 = 0x400;
const DATA: u64 = BASE + 0x2_0000;
/// Room for data per request.
pub const ROOM: u64 = 0x2000;

thread_local! {
    static BEFORE_SLEEP: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
}

/// The backend has found a ring empty and is about to ask for a kick: the moment at which a guest on another processor
/// can make it miss one.
pub fn before_sleep() {
    if let Some(act) = BEFORE_SLEEP.take() {
        act();
    }
}

#[derive(Default)]
pub struct Seen {
    pub faults: Vec<(usize, usize, Fault)>,
    pub outside: usize,
    pub failed: Vec<(usize, Operation, Outcome)>,
    pub device: Vec<(Cause, Remedy)>,
}

#[derive(Clone, Default)]
pub struct Reports(pub Rc<RefCell<Seen>>);

impl Report for Reports {
    fn guest_fault(&mut self, client: usize, disk: usize, fault: Fault) {
        self.0.borrow_mut().faults.push((client, disk, fault));
    }
    fn out_of_window(&mut self, _: usize, _: usize, _: u64) {
        self.0.borrow_mut().outside += 1;
    }
    fn request_failed(&mut self, client: usize, _: usize, operation: Operation, problem: Outcome) {
        self.0.borrow_mut().failed.push((client, operation, problem));
    }
    fn device(&mut self, cause: Cause, remedy: Remedy) {
        self.0.borrow_mut().device.push((cause, remedy));
    }
}

/// A request as the guest remembers it.
#[derive(Clone, Debug)]
pub struct Sent {
    pub kind: u32,
    pub sector: u64,
    pub bytes: u32,
    pub slot: u64,
}

/// A finished request.
#[derive(Debug)]
pub struct Got {
    pub sent: Sent,
    pub status: u8,
    pub used: u32,
    pub data: Vec<u8>,
}

pub struct Guest {
    pub number: usize,
    pub ram: FakeRam,
    pub status: &'static BackendStatus,
    pub drivers: Vec<DriverQueue>,
    pub features: u64,
    /// By queue and head.
    pub sent: HashMap<(usize, u16), Sent>,
    pub free_slots: Vec<u64>,
    pub kick: bool,
    /// Queue of the next request.
    pub turn: usize,
    seen_used: [u32; MAX_QUEUES],
}

pub struct System {
    pub backend: Backend<FakeDisk, Reports>,
    pub guests: Vec<Guest>,
    pub reports: Reports,
    pub page: &'static InflightPage,
}

thread_local! {
    /// What the latencies are measured with.
    pub static CLOCK: Cell<u64> = const { Cell::new(0) };
}

pub fn offered() -> u64 {
    features::VERSION_1
        | features::INDIRECT_DESC
        | features::EVENT_IDX
        | feature::SEG_MAX
        | feature::BLK_SIZE
        | feature::FLUSH
        | feature::DISCARD
        | feature::WRITE_ZEROES
}

impl System {
    /// `count` guests, guest `n` with one disk at sectors `SECTORS * (n + 1) ..`, started with `features`.
    pub fn new(count: usize, depth: u16, features: u64) -> Self {
        Self::with_queues(count, depth, features, &[1])
    }

    /// The same with several queues for each disk, which the guests use in turns. The numbers of queues are those of `queues`,
    /// again and again.
    pub fn with_queues(count: usize, depth: u16, features: u64, queues: &[usize]) -> Self {
        let number = |guest: usize| queues[guest % queues.len()];
        let features = |guest: usize| features | if number(guest) > 1 { feature::MQ } else { 0 };
        let rams: Vec<_> =
            (0..count as u64).map(|n| FakeRam::new(BASE, RAM, 0x10_0000_0000 * (n + 1))).collect();
        let device = FakeDisk::new(SECTORS * (count as u64 + 1), depth, &rams);
        let guests: Vec<_> = rams
            .iter()
            .enumerate()
            .map(|(number, ram)| Guest {
                number,
                ram: *ram,
                // SAFETY: a page of atomics may be all zeroes.
                status: Box::leak(Box::new(unsafe { core::mem::zeroed() })),
                drivers: Guest::queues(ram.ram(), features(number), queues[number % queues.len()]),
                features: features(number),
                sent: HashMap::new(),
                free_slots: (0..u64::from(QUEUE)).collect(),
                kick: false,
                turn: 0,
                seen_used: [0; MAX_QUEUES],
            })
            .collect();
        let page: &'static InflightPage = Box::leak(Box::default());
        let reports = Reports::default();
        let backend = Self::backend(device, &guests, &reports, page);
        let mut system = Self { backend, guests, reports, page };
        for n in 0..count {
            system.start(n);
        }
        system
    }

    fn backend(
        device: FakeDisk,
        guests: &[Guest],
        reports: &Reports,
        page: &'static InflightPage,
    ) -> Backend<FakeDisk, Reports> {
        let sectors = device.properties().sectors;
        let failed = device.health() == Health::Failed;
        // Leaked: the many restarts of `crashes` free theirs.
        let tables = Box::leak(Box::new(Tables::new()));
        let mut backend = Backend::new(device, reports.clone(), tables, page);
        let counters = Box::leak(Box::default());
        backend.count(Counting { page: counters, clock: || CLOCK.get() });
        for guest in guests {
            backend.add_client(guest.number, guest.ram.ram(), guest.status);
            let window = match failed {
                true => Window::NONE,
                false => Window::new(SECTORS * (guest.number as u64 + 1), SECTORS, sectors).unwrap(),
            };
            let config = DiskConfig {
                window,
                read_only: false,
                serial: *b"serial\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
                rate: Rate::default(),
                queues: guest.drivers.len(),
            };
            backend.add_disk(guest.number, 0, config).unwrap();
        }
        backend.open();
        backend
    }

    pub fn call(&mut self, client: usize, label: u64, mrs: &[u64]) -> (Status, Vec<u64>) {
        let mut reply = [0; REPLY_MRS];
        let count = self.backend.call(client, label, mrs, &mut reply);
        let more = self.backend.run();
        assert!(!more, "scripts are shorter than the budget");
        (Status::from_word(reply[0]), reply[..count].to_vec())
    }

    pub fn start(&mut self, n: usize) {
        let features = self.guests[n].features;
        for queue in 0..self.guests[n].drivers.len() {
            assert_eq!(self.queue(n, queue), Status::Ok);
        }
        assert_eq!(self.call(n, label::START, &[0, features]).0, Status::Ok);
    }

    pub fn queue(&mut self, n: usize, queue: usize) -> Status {
        let layout = self.guests[n].drivers[queue].layout;
        let mrs = [0, queue as u64, layout.size.into(), layout.desc, layout.avail, layout.used];
        self.call(n, label::QUEUE, &mrs).0
    }

    /// The guest resets its disk and starts it again.
    pub fn start_afresh(&mut self, n: usize) {
        assert_eq!(self.call(n, label::RESET, &[0]).0, Status::Ok);
        let guest = &mut self.guests[n];
        guest.drivers = Guest::queues(guest.ram.ram(), guest.features, guest.drivers.len());
        guest.sent.clear();
        guest.free_slots = (0..u64::from(QUEUE)).collect();
        self.start(n);
    }

    /// A new life of the backend: the device is reset, what was in flight is lost; the guests and the page stay.
    pub fn restart(&mut self) {
        self.renew();
        for n in 0..self.guests.len() {
            self.start(n);
        }
    }

    /// [`System::restart`], whatever the backend answers.
    pub fn restart_loosely(&mut self) {
        self.renew();
        for n in 0..self.guests.len() {
            let features = self.guests[n].features;
            for queue in 0..self.guests[n].drivers.len() {
                let _ = self.queue(n, queue);
            }
            let _ = self.call(n, label::START, &[0, features]);
        }
    }

    /// A new life that answers everything with errors.
    pub fn restart_refusing(&mut self) {
        let rams: Vec<_> = self.guests.iter().map(|guest| guest.ram).collect();
        let mut device = FakeDisk::new(0, MAX_FLIGHTS as u16, &rams);
        let p = device.properties_mut();
        (p.discard, p.write_zeroes) = (None, None);
        device.give_up();
        self.backend = Self::backend(device, &self.guests, &self.reports, self.page);
        for n in 0..self.guests.len() {
            self.start(n);
        }
    }

    fn renew(&mut self) {
        let old = self.backend.device();
        let rams: Vec<_> = self.guests.iter().map(|guest| guest.ram).collect();
        let p = *old.properties();
        let mut device = FakeDisk::new(p.sectors, p.depth, &rams);
        device.bytes.clone_from(&old.bytes);
        device.durable.clone_from(&old.durable);
        *device.properties_mut() = p;
        self.backend = Self::backend(device, &self.guests, &self.reports, self.page);
    }

    /// Delivers whatever events are due, once. Requests that finish are added to `done`.
    pub fn step(&mut self, done: &mut Vec<Got>) {
        let mut event = false;
        if self.backend.device().interrupt {
            self.backend.interrupt();
            event = true;
        }
        for guest in &mut self.guests {
            if core::mem::take(&mut guest.kick) {
                self.backend.kicked(guest.number);
                event = true;
            }
        }
        if event && self.backend.run() {
            self.backend.device_mut().nudge();
        }
        let notify = self.backend.take_notify();
        for guest in &mut self.guests {
            if notify & 1 << guest.number != 0 {
                guest.look(done);
            }
        }
    }

    /// An eighth of the time limit passes.
    pub fn tick(&mut self, done: &mut Vec<Got>) {
        self.backend.tick();
        if self.backend.run() {
            self.backend.device_mut().nudge();
        }
        let notify = self.backend.take_notify();
        for guest in &mut self.guests {
            if notify & 1 << guest.number != 0 {
                guest.look(done);
            }
        }
    }

    /// Lets everything finish.
    pub fn finish(&mut self, done: &mut Vec<Got>) {
        for _ in 0..10_000 {
            self.step(done);
            if self.guests.iter().any(|g| g.kick) || self.backend.device().interrupt {
                continue;
            }
            if self.backend.device().running.is_empty() {
                return;
            }
            self.backend.device_mut().finish_all();
        }
        panic!("no end");
    }
}

impl Drop for System {
    fn drop(&mut self) {
        for guest in &self.guests {
            // SAFETY: made by `System::new`; the backend and the guests that have handles end with this value.
            unsafe { guest.ram.release() };
        }
    }
}

impl Guest {
    fn queues(ram: GuestRam, features: u64, count: usize) -> Vec<DriverQueue> {
        let event_idx = features & features::EVENT_IDX != 0;
        (0..count as u64).map(|n| DriverQueue::new(ram, BASE + APART * n, QUEUE, event_idx)).collect()
    }

    /// Sends a request: header and status in the slot, data in pieces of `piece` bytes.
    pub fn send(&mut self, kind: u32, sector: u64, content: &[u8], piece: usize) -> bool {
        let write = matches!(kind, kind::OUT | kind::DISCARD | kind::WRITE_ZEROES);
        let Some(slot) = self.free_slots.pop() else { return false };
        let at = SLOTS + SLOT * slot;
        let data = DATA + ROOM * slot;
        let ram = self.ram.ram();
        ram.write_obj(at, &Header { kind, reserved: 0, sector }).unwrap();
        ram.write_obj(at + 16, &0xeeu8).unwrap();
        if write {
            ram.write(data, content).unwrap();
        } else {
            ram.fill(data, content.len() as u64, 0xcc).unwrap();
        }
        let queue = self.turn % self.drivers.len();
        let mut buffers = vec![Buffer::out(at, 16)];
        for start in (0..content.len()).step_by(piece.max(1)) {
            let len = piece.min(content.len() - start) as u32;
            // From the end backwards, so that neighbours do not touch.
            buffers.push(Buffer { addr: data + start as u64, len, writable: !write });
        }
        buffers.push(Buffer::into(at + 16, 1));
        let head = if self.features & features::INDIRECT_DESC != 0 {
            self.drivers[queue].add_indirect(at + 32, &buffers)
        } else {
            self.drivers[queue].add(&buffers)
        };
        let Some(head) = head else {
            self.free_slots.push(slot);
            return false;
        };
        let sent = Sent { kind, sector, bytes: content.len() as u32, slot };
        assert!(self.sent.insert((queue, head), sent).is_none());
        self.kick |= self.drivers[queue].needs_kick();
        self.turn = queue + 1;
        true
    }

    /// Looks at the used rings of which it is told, as a driver does when interrupted.
    pub fn look(&mut self, done: &mut Vec<Got>) {
        for queue in 0..MAX_QUEUES {
            let used = self.status.devices[0].used[queue].load(Ordering::Acquire);
            if used == core::mem::replace(&mut self.seen_used[queue], used) {
                continue;
            }
            while self.take(queue, done) {}
            self.drivers[queue].want_interrupt(true);
            // Something may have come before the wish was seen.
            while self.take(queue, done) {
                self.drivers[queue].want_interrupt(true);
            }
        }
    }

    fn take(&mut self, queue: usize, done: &mut Vec<Got>) -> bool {
        let Some((head, used)) = self.drivers[queue].take_used() else { return false };
        let sent = self.sent.remove(&(queue, head)).expect("completes exactly once");
        let status = self.ram.bytes(SLOTS + SLOT * sent.slot + 16, 1)[0];
        let data = self.ram.bytes(DATA + ROOM * sent.slot, sent.bytes as usize);
        self.free_slots.push(sent.slot);
        done.push(Got { sent, status, used, data });
        true
    }
}

/// Runs one request of guest `n` to its end.
pub fn one(system: &mut System, n: usize, kind: u32, sector: u64, content: &[u8]) -> Got {
    let mut done = Vec::new();
    assert!(system.guests[n].send(kind, sector, content, 4096));
    system.finish(&mut done);
    assert_eq!(done.len(), 1);
    done.remove(0)
}

pub const OK: u8 = BlkStatus::Ok as u8;
pub const IOERR: u8 = BlkStatus::IoErr as u8;
pub const UNSUPP: u8 = BlkStatus::Unsupp as u8;
