//! Two guests, a backend that may die, a disk that may fail: see the crate.

use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use partita_blk_backend::inflight::InflightPage;
use partita_blk_backend::{Backend, Cause, DiskConfig, Rate, Remedy, Report, TICKS, Tables};
use partita_pd_vmm::remote::{self, Remote, device_id};
use partita_protocol::backend::BackendStatus;
use partita_storage::device::{BlockDevice, Breach, Command, Health, Outcome, RestartError};
use partita_storage::fake::FakeDisk;
use partita_storage::window::Window;
use partita_virtio::blk::{BlkStatus, Operation, feature, kind};
use partita_virtio::fake::FakeRam;
use partita_virtio::features;
use partita_virtio::mmio::Action;
use partita_virtio::mmio::registers::{Status, reg};
use partita_virtio::queue::Fault;

use crate::flips::{self, Place};
use crate::guest::{BASE, Calls, Got, Guest, MOST, QUEUE, QUEUES, RAM, RINGS, Registers, Sent};
use crate::model::{Model, SECTORS, one};

/// One thing that happens: what, and its arguments.
pub type Step = [u8; 8];

/// The guest that breaks rules.
const OFFENDER: usize = 0;
/// The guest whose answers are checked.
const NEIGHBOUR: usize = 1;
/// Sectors of the device. The first ones, and what is behind both windows, are nobody's.
const DEVICE: u64 = 4 * SECTORS as u64;
/// Rounds in which everything has to end.
const ROUNDS: usize = 200;

/// What happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests of the neighbour that were answered with success.
    pub done: u64,
    /// Of them, by the second queue.
    pub second: u64,
    /// With an error, which was no surprise.
    pub errors: u64,
    /// Requests of the offender that reached the device.
    pub offended: u64,
    /// Deaths of the backend.
    pub kills: u64,
    /// Of them, with requests in flight.
    pub in_flight: u64,
    /// Resets of the device that the backend made.
    pub restarts: u64,
    /// Times the offender was told that it needs a reset.
    pub broken: u64,
    /// Bits that flipped, by [`Place`].
    pub flips: [u64; 4],
}

impl Counts {
    /// Adds those of another run.
    pub fn add(&mut self, other: &Counts) {
        self.done += other.done;
        self.second += other.second;
        self.errors += other.errors;
        self.offended += other.offended;
        self.kills += other.kills;
        self.in_flight += other.in_flight;
        self.restarts += other.restarts;
        self.broken += other.broken;
        self.flips.iter_mut().zip(other.flips).for_each(|(sum, more)| *sum += more);
    }
}

#[derive(Clone, Default)]
struct Reports(Rc<RefCell<Counts>>);

impl Report for Reports {
    fn guest_fault(&mut self, client: usize, _: usize, _: Fault) {
        self.0.borrow_mut().broken += u64::from(client == OFFENDER);
    }
    fn out_of_window(&mut self, client: usize, _: usize, sector: u64) {
        assert_ne!(client, NEIGHBOUR, "the neighbour asked for sector {sector}");
    }
    fn request_failed(&mut self, _: usize, _: usize, _: Operation, _: Outcome) {}
    fn device(&mut self, _: Cause, remedy: Remedy) {
        self.0.borrow_mut().restarts += u64::from(matches!(remedy, Remedy::Restarted { .. }));
    }
}

/// Memory that is given back at the end.
struct Owned<T: 'static>(NonNull<T>);

impl<T> Owned<T> {
    fn new(value: T) -> Self {
        Self(NonNull::from(Box::leak(Box::new(value))))
    }

    fn get(&self) -> &'static T {
        // SAFETY: leaked by `new`, and shared only; whoever holds it is dropped before it, see `World`.
        unsafe { self.0.as_ref() }
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: the box of `new`; see `get`.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// See the module. Fields are dropped in this order: first who uses memory, then the memory.
pub struct World {
    backend: Backend<FakeDisk, Reports>,
    /// The offender and the neighbour.
    pub guests: [Guest; 2],
    /// The in-flight page.
    pub page: &'static InflightPage,
    /// Bits of it have flipped: until both devices were reset, answers may be wrong.
    pub damaged: bool,
    model: Model,
    reports: Reports,
    counts: Counts,
    tick: u32,
    value: u8,
    /// Restarts of the device were made to fail: it may be given up, until the backend is started again.
    flaky: bool,
    depth: u16,
    offers: [u16; QUEUES],
    rams: [FakeRam; 2],
    /// Of each life so far.
    tables: Vec<Owned<Tables>>,
    _pages: Vec<Owned<[Cell<u32>; 1024]>>,
    statuses: Vec<Owned<BackendStatus>>,
    _page: Owned<InflightPage>,
}

/// Runs the steps. The first byte of the first one chooses features, depth and the number of queues; with `flips`, bits flip.
pub fn run(steps: &[Step], flips: bool) -> Counts {
    let setup = steps.first().map_or(0, |step| step[0]);
    let mut world = World::new(setup);
    for step in steps.iter().skip(1).take(400) {
        world.step(step, flips);
        world.audit();
    }
    world.end()
}

impl World {
    /// Both guests' devices are found and started.
    pub fn new(setup: u8) -> Self {
        let rams = [0u64, 1].map(|n| FakeRam::new(BASE, RAM, 0x10_0000_0000 * (n + 1)));
        let depth = 2 + u16::from(setup >> 3 & 15);
        let statuses: Vec<_> = (0..2)
            // SAFETY: a page of atomics may be all zeroes.
            .map(|_| Owned::new(unsafe { core::mem::zeroed::<BackendStatus>() }))
            .collect();
        let pages: Vec<_> = (0..2).map(|_| Owned::new([const { Cell::new(0) }; 1024])).collect();
        let page = Owned::new(InflightPage::new());
        let mut tables = Vec::new();
        let reports = Reports::default();
        let disk = FakeDisk::new(DEVICE, depth, &rams);
        let mut backend = backend(disk, &reports, &mut tables, page.get(), &rams, &statuses);
        let mut wanted = features::VERSION_1 | feature::WRITE_ZEROES | feature::SEG_MAX | feature::BLK_SIZE;
        for (bit, flag) in
            [features::EVENT_IDX, features::INDIRECT_DESC, feature::FLUSH].into_iter().enumerate()
        {
            if setup >> bit & 1 == 0 {
                wanted |= flag;
            }
        }
        if setup >> 7 == 0 {
            wanted |= feature::MQ;
        }
        let guests = [OFFENDER, NEIGHBOUR].map(|n| {
            let registers = Registers(pages[n].get());
            let status = statuses[n].get();
            let place = remote::Backend { id: device_id::BLK, channel: 0, device: 0, status };
            let mut calls = Calls { backend: &mut backend, client: n };
            let Ok(remote) = Remote::new(&mut calls, registers, place) else { panic!("no device {n}") };
            Guest::new(rams[n], registers, status, remote, wanted)
        });
        let mut world = Self {
            backend,
            guests,
            page: page.get(),
            damaged: false,
            model: Model::new(),
            reports,
            counts: Counts::default(),
            tick: 0,
            value: 1,
            flaky: false,
            depth,
            offers: [0; QUEUES],
            rams,
            tables,
            _pages: pages,
            statuses,
            _page: page,
        };
        world.begin(OFFENDER);
        world.begin(NEIGHBOUR);
        world
    }

    fn step(&mut self, step: &Step, flips: bool) {
        let [what, a, b, c, ref value @ ..] = *step;
        let value = u32::from_le_bytes(*value);
        let device = self.backend.device_mut();
        match what % 26 {
            0..=6 => self.send(a, b, c),
            7..=9 => {
                let running = device.running.len();
                if running > 0 && device.health == Health::Working {
                    device.finish(usize::from(a) % running);
                }
            }
            10 if device.health == Health::Working => device.finish_all(),
            10..=12 => self.deliver(),
            13 => {
                let kind = [kind::IN, kind::OUT, kind::FLUSH, kind::GET_ID, kind::DISCARD, value]
                    [usize::from(a) % 6];
                let mut sent =
                    Sent::new(kind, usize::from(b) % (SECTORS + 4), 1 + usize::from(c) % MOST, a, 0);
                if value % 8 == 1 {
                    sent.sector = value as usize;
                }
                let transport = &self.guests[OFFENDER].remote.transport;
                if !transport.is_live() || transport.status().contains(Status::DEVICE_NEEDS_RESET) {
                    return self.begin(OFFENDER);
                }
                let offender = &mut self.guests[OFFENDER];
                // It does not look at what is used, so its slots run out until it begins anew.
                let queue = usize::from(c >> 7);
                let _ = offender.send(queue, sent, usize::from(c) * 64);
                offender.kick[queue] = true;
            }
            14 => {
                // Half of them where the rings are.
                let rings = QUEUES as u32 * RINGS as u32;
                let at = if a & 1 == 0 { value % rings } else { value % RAM as u32 };
                let bytes = [b, c, a, b ^ c];
                let at = BASE + u64::from(at).min(RAM - 4);
                self.guests[OFFENDER].ram.ram().write(at, &bytes).expect("in RAM");
            }
            15 => {
                let width = [4, 4, 4, 1, 2, 8][usize::from(a) % 6];
                self.store(OFFENDER, usize::from(b) * 4 + usize::from(a == 255), width, value.into());
            }
            16 => {
                // Any head once more.
                let queue = usize::from(b) % self.guests[OFFENDER].drivers.len();
                let layout = self.guests[OFFENDER].drivers[queue].layout;
                let ram = self.guests[OFFENDER].ram.ram();
                let offer = &mut self.offers[queue];
                let at = layout.avail + 4 + 2 * u64::from(*offer % QUEUE);
                ram.store_u16(at, u16::from(a) % (QUEUE + 2), Ordering::Relaxed).expect("in RAM");
                *offer = offer.wrapping_add(1);
                ram.store_u16(layout.avail + 2, *offer, Ordering::Release).expect("in RAM");
                self.guests[OFFENDER].kick[queue] = true;
            }
            17 => self.begin(OFFENDER),
            18 => self.tick(),
            19 => self.die(a),
            20 => {
                let first = SECTORS as u64 + u64::from(a) % (2 * SECTORS as u64);
                device.bad = first..first + u64::from(b) % 16;
                let bad = device.bad.clone();
                for sent in self.guests[NEIGHBOUR].sent.values_mut() {
                    sent.excused |= is_bad(&bad, sent);
                }
            }
            21 if device.health == Health::Working => {
                let breach = if a & 1 == 0 { Breach::NeedsReset } else { Breach::NotItsRequest(value) };
                device.stop(breach);
            }
            22 => {
                let error = if a & 1 == 0 { RestartError::NoReset } else { RestartError::Changed };
                device.restarts = vec![Err(error); usize::from(b) % 5];
                self.flaky |= !device.restarts.is_empty();
            }
            23 => device.late = usize::from(a) % 4,
            24 => device.interrupt = false,
            25 if flips => {
                let place = usize::from(a) % 4;
                self.counts.flips[place] += 1;
                flips::flip(self, Place::ALL[place], value);
            }
            25 => self.begin(NEIGHBOUR),
            _ => {}
        }
        if a & 3 != 0 {
            self.kick(OFFENDER);
        }
    }

    /// The neighbour sends a request.
    fn send(&mut self, a: u8, b: u8, c: u8) {
        let guest = &self.guests[NEIGHBOUR];
        let live = guest.remote.transport.is_live() && !guest.remote.transport.is_resetting();
        if !live || self.damaged {
            return;
        }
        let kind = match a % 16 {
            0..=5 => kind::OUT,
            6..=11 => kind::IN,
            12..=13 if guest.features & feature::FLUSH != 0 => kind::FLUSH,
            14 => kind::WRITE_ZEROES,
            _ => kind::GET_ID,
        };
        let count = 1 + usize::from(c) % MOST;
        let first = usize::from(b) % (SECTORS - MOST);
        let mut sent = Sent::new(kind, first, count, self.value, self.tick);
        sent.excused = is_bad(&self.backend.device().bad, &sent);
        if guest.touches(first, sent.bytes.len(), kind != kind::IN) {
            return;
        }
        let (sector, bytes) = (sent.sector, sent.bytes.clone());
        // One piece where there is no indirect table, as descriptors are few.
        let piece = [512, 700, 1024, 4096][usize::from(a >> 4) % 4];
        let queue = usize::from(a >> 6);
        let Some(key) = self.guests[NEIGHBOUR].send(queue, sent, piece) else { return };
        self.value = self.value.wrapping_add(MOST as u8);
        match kind {
            kind::OUT | kind::WRITE_ZEROES => self.model.write_sent(sector, &bytes),
            kind::FLUSH => self.model.flush_sent(key),
            _ => {}
        }
        self.kick(NEIGHBOUR);
    }

    /// QueueNotify, if the driver has to.
    fn kick(&mut self, n: usize) {
        for (queue, kick) in core::mem::take(&mut self.guests[n].kick).into_iter().enumerate() {
            if kick {
                self.store(n, reg::QUEUE_NOTIFY, 4, queue as u64);
            }
        }
    }

    /// A store to a register, and what the VMM does about it.
    fn store(&mut self, n: usize, offset: usize, width: u8, value: u64) {
        let remote = &mut self.guests[n].remote;
        match remote.transport.write(offset, width, value) {
            Action::Notify(_) => {
                self.backend.kicked(n);
                self.work();
            }
            Action::DriverOk { features } => {
                let mut calls = Calls { backend: &mut self.backend, client: n };
                if remote.start(&mut calls, features).is_err() {
                    remote.transport.needs_reset();
                }
            }
            Action::Reset => self.stop(n),
            _ => {}
        }
        self.notify();
    }

    fn stop(&mut self, n: usize) {
        let mut calls = Calls { backend: &mut self.backend, client: n };
        match self.guests[n].remote.stop(&mut calls) {
            Ok(false) => {}
            // It may also be an error of the backend, which then has nothing.
            _ => self.stopped(n),
        }
    }

    /// A reset was answered: nothing of the guest is in flight.
    fn stopped(&self, n: usize) {
        let device = self.backend.device();
        let ram = self.guests[n].ram.ram();
        for seen in device.queued.iter().chain(&device.running) {
            let reaches = seen.segments.iter().any(|s| s.paddr >= ram.paddr() && s.paddr < ram.paddr() + RAM);
            assert!(!reaches || self.damaged, "{seen:?} is in flight after a reset");
        }
    }

    /// The guest resets its device and starts it, as far as it gets without waiting.
    fn begin(&mut self, n: usize) {
        self.store(n, reg::STATUS, 4, 0);
        if n == NEIGHBOUR {
            self.model.forget();
        }
        if !self.guests[n].remote.transport.is_resetting() {
            self.start(n);
        }
    }

    fn start(&mut self, n: usize) {
        self.guests[n].begin();
        if n == OFFENDER {
            self.offers = [0; QUEUES];
        }
        let features = self.guests[n].features;
        let found = Status::ACKNOWLEDGE | Status::DRIVER;
        for (offset, value) in [
            (reg::STATUS, u64::from(found.bits())),
            (reg::DRIVER_FEATURES_SEL, 0),
            (reg::DRIVER_FEATURES, features & 0xffff_ffff),
            (reg::DRIVER_FEATURES_SEL, 1),
            (reg::DRIVER_FEATURES, features >> 32),
            (reg::STATUS, (found | Status::FEATURES_OK).bits().into()),
        ] {
            self.store(n, offset, 4, value);
        }
        let layouts: Vec<_> = self.guests[n].drivers.iter().map(|driver| driver.layout).collect();
        for (queue, layout) in (0..).zip(layouts) {
            for (offset, value) in [
                (reg::QUEUE_SEL, queue),
                (reg::QUEUE_NUM, layout.size.into()),
                (reg::QUEUE_DESC_LOW, layout.desc & 0xffff_ffff),
                (reg::QUEUE_DESC_HIGH, layout.desc >> 32),
                (reg::QUEUE_DRIVER_LOW, layout.avail & 0xffff_ffff),
                (reg::QUEUE_DRIVER_HIGH, layout.avail >> 32),
                (reg::QUEUE_DEVICE_LOW, layout.used & 0xffff_ffff),
                (reg::QUEUE_DEVICE_HIGH, layout.used >> 32),
                (reg::QUEUE_READY, 1),
            ] {
                self.store(n, offset, 4, value);
            }
        }
        let live = found | Status::FEATURES_OK | Status::DRIVER_OK;
        self.store(n, reg::STATUS, 4, live.bits().into());
    }

    fn work(&mut self) {
        if self.backend.run() {
            self.backend.device_mut().nudge();
        }
    }

    /// The device's interrupt, if there is one, and what came of it.
    fn deliver(&mut self) {
        if self.backend.device().interrupt {
            self.backend.interrupt();
            self.work();
        }
        self.notify();
    }

    fn tick(&mut self) {
        self.tick = self.tick.wrapping_add(1);
        self.backend.tick();
        self.work();
        self.notify();
    }

    /// The backend's notifications reach the VMMs, and their interrupts the guests.
    fn notify(&mut self) {
        for _ in 0..8 {
            let clients = self.backend.take_notify();
            if clients == 0 {
                return;
            }
            for n in (0..2).filter(|n| clients >> n & 1 != 0) {
                if self.guests[n].remote.transport.is_resetting() {
                    self.stop(n);
                    if !self.guests[n].remote.transport.is_resetting() {
                        self.start(n);
                    }
                    continue;
                }
                let mut calls = Calls { backend: &mut self.backend, client: n };
                // On an error the guest is told that it needs a reset.
                let _ = self.guests[n].remote.poll(&mut calls);
                if n == NEIGHBOUR {
                    self.look();
                }
            }
        }
        panic!("notifications without end");
    }

    /// The neighbour's interrupt handler.
    fn look(&mut self) {
        let pending = self.guests[NEIGHBOUR].remote.transport.interrupt_status().bits();
        if pending == 0 || self.damaged {
            return;
        }
        let transport = &mut self.guests[NEIGHBOUR].remote.transport;
        let broken = transport.status().contains(Status::DEVICE_NEEDS_RESET);
        assert!(!broken || self.flaky, "the neighbour needs a reset");
        let _ = transport.write(reg::INTERRUPT_ACK, 4, pending.into());
        for again in [false, true] {
            while let Some(got) = self.guests[NEIGHBOUR].take() {
                self.judge(&got);
            }
            if !again {
                self.guests[NEIGHBOUR].want_interrupt(true);
            }
        }
    }

    /// The neighbour has an answer.
    fn judge(&mut self, got: &Got) {
        let Got { sent, status, used, data, .. } = got;
        let device = self.backend.device();
        if *status != BlkStatus::Ok as u8 {
            let late = self.tick.wrapping_sub(sent.tick) > TICKS;
            assert!(
                *status == BlkStatus::IoErr as u8 && (late || sent.excused || self.flaky),
                "{sent:?} was answered with {status}"
            );
            self.counts.errors += 1;
            self.model.flush_done(got.key, None);
            return;
        }
        self.counts.done += 1;
        self.counts.second += u64::from(got.key >= QUEUE);
        let durable = &device.durable[2 * SECTORS * 512..][..SECTORS * 512];
        let written = match sent.kind {
            kind::IN => {
                let bytes: Vec<u8> =
                    data.chunks(512).map(|sector| one(sector).expect("a sector of one byte")).collect();
                self.model.read_done(sent.sector, &bytes);
                data.len() as u32
            }
            kind::OUT | kind::WRITE_ZEROES => {
                self.model.write_done(sent.sector, &sent.bytes);
                if self.guests[NEIGHBOUR].features & feature::FLUSH == 0 {
                    for (i, byte) in sent.bytes.iter().enumerate() {
                        let content = &durable[(sent.sector + i) * 512..][..512];
                        assert_eq!(one(content), Some(*byte), "sector {} is not durable", sent.sector + i);
                    }
                }
                0
            }
            kind::FLUSH => {
                self.model.flush_done(got.key, Some(durable));
                0
            }
            _ => {
                assert_eq!(data[..8], *b"serial01");
                data.len() as u32
            }
        };
        assert_eq!(*used, written + 1, "{sent:?}");
    }

    /// The backend dies, the device having done some of what it had, and is started again.
    fn die(&mut self, done: u8) {
        let old = self.backend.device_mut();
        self.counts.kills += 1;
        self.counts.in_flight += u64::from(!old.running.is_empty());
        if old.health == Health::Working {
            for _ in 0..usize::from(done) % (old.running.len() + 1) {
                old.finish(0);
            }
        }
        let mut disk = FakeDisk::new(DEVICE, self.depth, &self.rams);
        disk.bytes.clone_from(&old.bytes);
        disk.durable.clone_from(&old.durable);
        disk.bad = old.bad.clone();
        self.audit();
        self.flaky = false;
        let (page, rams) = (self.page, &self.rams);
        self.backend = backend(disk, &self.reports, &mut self.tables, page, rams, &self.statuses);
        self.notify();
    }

    /// Nothing reached the device that is not its guest's.
    fn audit(&mut self) {
        for seen in core::mem::take(&mut self.backend.device_mut().log) {
            if seen.command == Command::Flush {
                continue;
            }
            let owner = (seen.sector / SECTORS as u64).wrapping_sub(1) as usize;
            let end = seen.sector + u64::from(seen.sectors);
            assert!(
                owner < 2 && end <= (owner as u64 + 2) * SECTORS as u64,
                "{seen:?} is outside the windows"
            );
            let ram = self.rams[owner].ram();
            for s in &seen.segments {
                let inside = s.paddr >= ram.paddr() && s.paddr + u64::from(s.len) <= ram.paddr() + RAM;
                assert!(inside, "{seen:?} reaches for memory that is not its guest's");
            }
            self.counts.offended += u64::from(owner == OFFENDER);
        }
    }

    /// Lets everything end, and sees that both devices work.
    fn end(mut self) -> Counts {
        let device = self.backend.device_mut();
        (device.bad, device.late) = (0..0, 0);
        device.restarts.clear();
        if self.flaky || self.damaged {
            self.die(0);
        }
        self.settle();
        let left = &self.guests[NEIGHBOUR].sent;
        assert!(left.is_empty() || self.damaged, "the neighbour waits for {left:?}");
        self.begin(OFFENDER);
        if self.damaged {
            self.begin(NEIGHBOUR);
        }
        self.settle();
        self.damaged = false;
        let resetting = self.guests.iter().any(|guest| guest.remote.transport.is_resetting());
        assert!(!resetting, "a reset has no end");
        let content = self.backend.device().bytes.clone();
        let (before, rest) = content.split_at(SECTORS * 512);
        let behind = rest.split_at(2 * SECTORS * 512).1;
        assert!(before.iter().chain(behind).all(|byte| *byte == 0), "sectors of nobody were written");
        self.model.check(&rest[SECTORS * 512..][..SECTORS * 512]);
        for n in [OFFENDER, NEIGHBOUR] {
            for queue in 0..self.guests[n].drivers.len() {
                self.works(n, queue);
            }
        }
        let counts = *self.reports.0.borrow();
        self.counts.restarts = counts.restarts;
        self.counts.broken = counts.broken;
        self.counts
    }

    fn settle(&mut self) {
        for _ in 0..ROUNDS {
            let device = self.backend.device_mut();
            if device.health == Health::Working {
                device.finish_all();
            }
            self.deliver();
            self.tick();
            self.audit();
            let waits = |guest: &Guest| !guest.sent.is_empty() || guest.remote.transport.is_resetting();
            let device = self.backend.device();
            if device.running.is_empty() && !self.backend.wants_tick() && !waits(&self.guests[NEIGHBOUR]) {
                return;
            }
        }
    }

    /// A write, and a read of it.
    fn works(&mut self, n: usize, queue: usize) {
        for (kind, value) in [(kind::OUT, 0x5a), (kind::IN, 0x5a)] {
            let sent = Sent::new(kind, 1, 2, value, self.tick);
            let guest = &mut self.guests[n];
            let status = guest.remote.transport.status();
            assert!(
                guest.send(queue, sent, 4096).is_some(),
                "guest {n}: no room after its reset, {status:?}"
            );
            guest.kick = [false; QUEUES];
            if n == NEIGHBOUR && kind == kind::OUT {
                self.model.write_sent(1, &[0x5a, 0x5b]);
            }
            self.store(n, reg::QUEUE_NOTIFY, 4, queue as u64);
            // A write that must be durable is a write and a flush.
            for _ in 0..2 {
                self.backend.device_mut().finish_all();
                self.deliver();
            }
            if n == NEIGHBOUR {
                assert!(self.guests[n].sent.is_empty(), "the neighbour's device does not work");
                continue;
            }
            let got = self.guests[n].take().expect("the offender's device works after its reset");
            assert_eq!(got.status, BlkStatus::Ok as u8, "the offender, {:?}", got.sent);
            self.guests[n].want_interrupt(true);
        }
        let at = (n + 1) * SECTORS * 512 + 512;
        let content = &self.backend.device().bytes[at..at + 1024];
        assert_eq!((one(&content[..512]), one(&content[512..])), (Some(0x5a), Some(0x5b)));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for ram in self.rams {
            // SAFETY: made by `new`. Backend and guests, which are dropped after this, only hold addresses of it.
            unsafe { ram.release() };
        }
    }
}

/// Whether the request is for sectors of the neighbour that cannot be read or written, or waits for all that was written.
fn is_bad(bad: &core::ops::Range<u64>, sent: &Sent) -> bool {
    let first = 2 * SECTORS as u64 + sent.sector as u64;
    first < bad.end && bad.start < first + sent.bytes.len() as u64
}

/// A life of the backend.
fn backend(
    disk: FakeDisk,
    reports: &Reports,
    tables: &mut Vec<Owned<Tables>>,
    page: &'static InflightPage,
    rams: &[FakeRam; 2],
    statuses: &[Owned<BackendStatus>],
) -> Backend<FakeDisk, Reports> {
    let sectors = disk.properties().sectors;
    let life = Owned::new(Tables::new());
    // SAFETY: leaked by `Owned::new`, given back after the backend is dropped, and this is the only reference to it.
    let place = unsafe { &mut *life.0.as_ptr() };
    tables.push(life);
    let mut backend = Backend::new(disk, reports.clone(), place, page);
    for (n, (ram, status)) in rams.iter().zip(statuses).enumerate() {
        backend.add_client(n, ram.ram(), status.get());
        let window = Window::new(SECTORS as u64 * (n as u64 + 1), SECTORS as u64, sectors).expect("fits");
        let serial = *b"serial01\0\0\0\0\0\0\0\0\0\0\0\0";
        let config = DiskConfig { window, read_only: false, serial, rate: Rate::default(), queues: QUEUES };
        backend.add_disk(n, 0, config).expect("windows do not overlap");
    }
    backend.open();
    backend
}
