//! The driver against this project's own device side.

use std::cell::RefCell;
use std::rc::Rc;

use partita_virtio::blk::{BlkStatus, Limits, Operation, Segments, feature, parse};
use partita_virtio::fake::FakeRam;
use partita_virtio::features;
use partita_virtio::queue::{Queue, QueueLayout};
use proptest::prelude::*;
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus};

use super::*;
use crate::device::Segment;
use crate::partition::ReadSectors;
use crate::poll::PollReader;

mod failing;

const DMA: u64 = 0x1_0000;
const PAYLOAD: u64 = 0x8_0000;
const SIZE: u64 = 0x10_0000;
const SECTORS: u64 = 256;

struct Device {
    ram: FakeRam,
    features: u64,
    accepted: u64,
    status: DeviceStatus,
    queue_max: u32,
    layout: Option<QueueLayout>,
    queue: Option<Queue>,
    config: [u8; 64],
    disk: Vec<u8>,
    interrupt: u32,
    kicks: usize,
    interrupts: usize,
    /// Requests taken, so that they can be finished out of order: head, status address, used length, status.
    taken: Vec<(u16, u64, u32, BlkStatus)>,
    hold: bool,
    ids: usize,
    /// It ignores resets.
    deaf: bool,
}

type Shared = Rc<RefCell<Device>>;
struct Fake(Shared);

const ALL: u64 = features::VERSION_1
    | features::INDIRECT_DESC
    | features::EVENT_IDX
    | feature::SEG_MAX
    | feature::BLK_SIZE
    | feature::FLUSH
    | feature::DISCARD
    | feature::WRITE_ZEROES;

fn device(features: u64) -> Shared {
    let mut config = [0u8; 64];
    let mut put = |at: usize, bytes: &[u8]| config[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &SECTORS.to_le_bytes());
    put(12, &126u32.to_le_bytes());
    put(20, &512u32.to_le_bytes());
    put(36, &1000u32.to_le_bytes());
    put(40, &1u32.to_le_bytes());
    put(44, &8u32.to_le_bytes());
    put(48, &2000u32.to_le_bytes());
    put(52, &1u32.to_le_bytes());
    put(56, &[1]);
    Rc::new(RefCell::new(Device {
        ram: FakeRam::new(0, SIZE, 0),
        features,
        accepted: 0,
        status: DeviceStatus::empty(),
        queue_max: 256,
        layout: None,
        queue: None,
        config,
        disk: (0..SECTORS * SECTOR).map(|i| (i / SECTOR) as u8 ^ i as u8).collect(),
        interrupt: 0,
        kicks: 0,
        interrupts: 0,
        taken: Vec::new(),
        hold: false,
        ids: 0,
        deaf: false,
    }))
}

impl Device {
    fn work(&mut self) {
        let Some(mut queue) = self.queue.take() else { return };
        let mut segments = Segments::<256>::new();
        loop {
            let Some(chain) = queue.pop().expect("the driver keeps the rules") else {
                if queue.enable_kicks().unwrap() { continue } else { break }
            };
            let limits = Limits { seg_max: 126, size_max: u32::MAX };
            let parsed = parse(chain, &limits, &mut segments).expect("the driver keeps the rules");
            let status = self.execute(parsed.operation, &segments);
            self.taken.push((chain.head(), parsed.status, parsed.used_len(status), status));
        }
        self.queue = Some(queue);
        if !self.hold {
            self.finish(usize::MAX);
        }
    }

    fn execute(&mut self, operation: Result<Operation, BlkStatus>, segments: &Segments<256>) -> BlkStatus {
        let ram = self.ram.ram();
        let range = |sector: u64, bytes: u64| {
            let at = (sector * SECTOR) as usize;
            (sector * SECTOR + bytes <= SECTORS * SECTOR).then_some(at..at + bytes as usize)
        };
        match operation {
            Err(status) => return status,
            Ok(Operation::Flush) => {}
            Ok(Operation::GetId) => self.ids += 1,
            Ok(Operation::Read { sector } | Operation::Write { sector }) => {
                let Some(range) = range(sector, segments.bytes()) else { return BlkStatus::IoErr };
                let mut at = range.start;
                for segment in segments.as_slice() {
                    let bytes = &mut self.disk[at..at + segment.len as usize];
                    match operation {
                        Ok(Operation::Read { .. }) => ram.write(segment.paddr, bytes).unwrap(),
                        _ => ram.read(segment.paddr, bytes).unwrap(),
                    }
                    at += segment.len as usize;
                }
            }
            Ok(Operation::Discard { sector, sectors } | Operation::WriteZeroes { sector, sectors, .. }) => {
                let Some(range) = range(sector, u64::from(sectors) * SECTOR) else { return BlkStatus::IoErr };
                self.disk[range].fill(0);
            }
        }
        BlkStatus::Ok
    }

    /// Finishes up to `count` requests, last taken first.
    fn finish(&mut self, count: usize) {
        let Some(mut queue) = self.queue.take() else { return };
        for _ in 0..count.min(self.taken.len()) {
            let (head, at, len, status) = self.taken.pop().unwrap();
            self.ram.ram().write_obj(at, &(status as u8)).unwrap();
            queue.push(head, len).unwrap();
        }
        if queue.publish().unwrap() {
            self.interrupt |= 1;
            self.interrupts += 1;
        }
        self.queue = Some(queue);
    }
}

impl Transport for Fake {
    fn device_type(&self) -> DeviceType {
        DeviceType::Block
    }
    fn read_device_features(&mut self) -> u64 {
        self.0.borrow().features
    }
    fn write_driver_features(&mut self, features: u64) {
        self.0.borrow_mut().accepted = features;
    }
    fn max_queue_size(&mut self, _: u16) -> u32 {
        self.0.borrow().queue_max
    }
    fn notify(&mut self, _: u16) {
        self.0.borrow_mut().kicks += 1;
        self.0.borrow_mut().work();
    }
    fn get_status(&self) -> DeviceStatus {
        self.0.borrow().status
    }
    fn set_status(&mut self, status: DeviceStatus) {
        let mut device = self.0.borrow_mut();
        if device.deaf {
            return;
        }
        device.status = status;
        if status.is_empty() {
            (device.queue, device.layout, device.interrupt) = (None, None, 0);
            device.taken.clear();
        }
        if status.contains(DeviceStatus::DRIVER_OK) {
            let layout = device.layout.expect("queue before DRIVER_OK");
            let queue = Queue::new(device.ram.ram(), layout, device.queue_max as u16, device.accepted);
            device.queue = Some(queue.unwrap());
        }
    }
    fn set_guest_page_size(&mut self, _: u32) {}
    fn requires_legacy_layout(&self) -> bool {
        false
    }
    fn queue_set(&mut self, _: u16, size: u32, desc: u64, avail: u64, used: u64) {
        self.0.borrow_mut().layout = Some(QueueLayout { size: size as u16, desc, avail, used });
    }
    fn queue_unset(&mut self, _: u16) {
        self.0.borrow_mut().layout = None;
    }
    fn queue_used(&mut self, _: u16) -> bool {
        self.0.borrow().layout.is_some()
    }
    fn ack_interrupt(&mut self) -> InterruptStatus {
        let bits = core::mem::take(&mut self.0.borrow_mut().interrupt);
        if bits == 0 { InterruptStatus::empty() } else { InterruptStatus::from_bits_truncate(bits) }
    }
    fn read_config_generation(&self) -> u32 {
        0
    }
    fn read_config_space<V: zerocopy::FromBytes + zerocopy::IntoBytes>(
        &self,
        offset: usize,
    ) -> virtio_drivers::Result<V> {
        let config = self.0.borrow().config;
        V::read_from_prefix(&config[offset..]).map(|(v, _)| v).map_err(|_| virtio_drivers::Error::IoError)
    }
    fn write_config_space<V: zerocopy::IntoBytes + zerocopy::Immutable>(
        &mut self,
        _: usize,
        _: V,
    ) -> virtio_drivers::Result<()> {
        unimplemented!("read-only configuration")
    }
}

/// The DMA part of the device's memory, by the driver's own handle.
fn dma(device: &Shared, pages: u64) -> GuestRam {
    let ram = device.borrow().ram.ram();
    ram.part(DMA, pages * PAGE).unwrap()
}

fn driver(device: &Shared, pages: u64) -> VirtioBlk<Fake> {
    VirtioBlk::new(Fake(device.clone()), dma(device, pages)).map_err(|e| panic!("{e:?}")).unwrap()
}

fn read(id: u16, sector: u64, segments: &[Segment]) -> Request<'_> {
    let bytes: u32 = segments.iter().map(|s| s.len).sum();
    Request { id, command: Command::Read, sector, sectors: bytes / 512, segments }
}

const fn segment(at: u64, len: u32) -> Segment {
    Segment { paddr: PAYLOAD + at, len }
}

#[test]
fn setup() {
    let d = device(ALL);
    let driver = driver(&d, 64);
    let p = driver.properties();
    assert_eq!((p.sectors, p.block_size, p.seg_max, p.depth), (SECTORS, 512, 126, 63));
    assert!(p.flush && !p.read_only);
    assert_eq!(p.discard, Some(RangeLimits { max_sectors: 1000, alignment: 8, may_unmap: false }));
    assert_eq!(p.write_zeroes, Some(RangeLimits { max_sectors: 2000, alignment: 1, may_unmap: true }));
    assert_eq!(d.borrow().accepted, ALL);

    let setup = |features, max| {
        let d = device(features);
        d.borrow_mut().queue_max = max;
        VirtioBlk::new(Fake(d.clone()), dma(&d, 8)).map(|driver| driver.properties().depth)
    };
    assert_eq!(setup(ALL & !features::INDIRECT_DESC, 256), Err(SetupError::Features));
    assert_eq!(setup(ALL, 0), Err(SetupError::Queue));
    assert_eq!(setup(ALL, 256), Ok(7));
    assert_eq!(setup(ALL, 6), Ok(3));
}

use crate::device::RangeLimits;

#[test]
fn moves_data_by_physical_address() {
    let d = device(ALL);
    let mut driver = driver(&d, 64);
    let segments = [segment(0, 512), segment(0x1000, 1024)];
    driver.submit(&read(5, 10, &segments)).unwrap();
    assert_eq!(d.borrow().kicks, 0, "not before kick");
    driver.kick();
    assert_eq!(driver.complete(), Some(Completion { id: 5, outcome: Outcome::Done }));
    assert_eq!(driver.complete(), None);
    let device = d.borrow();
    assert_eq!(device.ram.bytes(PAYLOAD, 512), device.disk[10 * 512..11 * 512]);
    assert_eq!(device.ram.bytes(PAYLOAD + 0x1000, 1024), device.disk[11 * 512..13 * 512]);
}

#[test]
fn refuses_before_the_device_sees_it() {
    let d = device(ALL);
    let mut driver = driver(&d, 64);
    let one = [segment(0, 512)];
    assert_eq!(driver.submit(&read(0, SECTORS, &one)), Err(Refused::OutOfRange));
    assert_eq!(driver.submit(&read(0, u64::MAX, &one)), Err(Refused::OutOfRange));
    assert_eq!(driver.submit(&read(63, 0, &one)), Err(Refused::BadId));
    assert_eq!(driver.submit(&read(0, 0, &[segment(0, 0)])), Err(Refused::Segments));
    assert_eq!(driver.submit(&read(0, 0, &[])), Err(Refused::OutOfRange));
    assert_eq!(driver.submit(&read(0, 0, &[segment(0, 512); 127])), Err(Refused::Segments));
    assert_eq!(driver.submit(&Request { sectors: 2, ..read(0, 0, &one) }), Err(Refused::Segments));
    let discard = Request { id: 0, command: Command::Discard, sector: 0, sectors: 1001, segments: &[] };
    assert_eq!(driver.submit(&discard), Err(Refused::OutOfRange));
    driver.submit(&read(0, 0, &one)).unwrap();
    assert_eq!(driver.submit(&read(0, 0, &one)), Err(Refused::BadId));
    driver.kick();
    assert_eq!(d.borrow().disk.len() as u64, SECTORS * SECTOR);
}

#[test]
fn range_commands_and_flush() {
    let d = device(ALL);
    let mut driver = driver(&d, 64);
    for (id, command) in [(0, Command::Discard), (1, Command::WriteZeroes { unmap: true })] {
        driver
            .submit(&Request { id, command, sector: 4 + u64::from(id), sectors: 1, segments: &[] })
            .unwrap();
    }
    driver.submit(&Request { id: 2, command: Command::Flush, sector: 0, sectors: 0, segments: &[] }).unwrap();
    driver.kick();
    let mut done: Vec<_> = std::iter::from_fn(|| driver.complete()).collect();
    done.sort_by_key(|c| c.id);
    assert!(done.iter().enumerate().all(|(i, c)| usize::from(c.id) == i && c.outcome == Outcome::Done));
    assert_eq!(done.len(), 3);
    assert!(d.borrow().disk[4 * 512..6 * 512].iter().all(|b| *b == 0));
    assert_ne!(d.borrow().disk[6 * 512], 0);
}

#[test]
fn nudge_interrupts_and_is_not_seen() {
    let d = device(ALL);
    let mut driver = driver(&d, 64);
    assert!(!driver.arm());
    driver.nudge();
    driver.nudge();
    assert_eq!(d.borrow().ids, 1);
    assert_eq!(d.borrow().interrupt, 1);
    driver.acknowledge();
    assert_eq!(driver.complete(), None);
    assert!(!driver.arm());
    driver.nudge();
    assert_eq!(d.borrow().ids, 2);
}

#[test]
fn polls_partition_tables() {
    let d = device(ALL);
    let mut driver = driver(&d, 8);
    let ram = d.borrow().ram.ram();
    let scratch = ram.part(PAYLOAD, 1024).unwrap();
    let mut into = vec![0; 5 * 512];
    PollReader::new(&mut driver, scratch, || panic!("it is done at once")).read(3, &mut into).unwrap();
    assert_eq!(into, d.borrow().disk[3 * 512..8 * 512]);
    d.borrow_mut().hold = true;
    let mut patience = 10;
    let mut reader = PollReader::new(&mut driver, scratch, || {
        patience -= 1;
        patience > 0
    });
    assert!(reader.read(0, &mut into).is_err(), "gives up");
    assert!(d.borrow().taken.is_empty() && driver.busy == 0, "and leaves nothing behind");
    d.borrow_mut().hold = false;
    PollReader::new(&mut driver, scratch, || panic!("it is done at once")).read(3, &mut into).unwrap();
}

proptest! {
    /// Everything submitted completes exactly once, whatever the device's order, and an interrupt comes whenever the
    /// driver went to sleep with something in flight.
    #[test]
    fn completes_everything(
        event_idx: bool,
        script in prop::collection::vec((0u8..3, 1usize..20), 1..100),
    ) {
        let d = device(if event_idx { ALL } else { ALL & !features::EVENT_IDX });
        let mut driver = driver(&d, 64);
        d.borrow_mut().hold = true;
        let mut flying = std::collections::BTreeSet::new();
        let mut armed = !driver.arm();
        for (what, amount) in script.into_iter().chain([(1, 64), (2, 0), (1, 64), (2, 0)]) {
            match what {
                0 => {
                    for _ in 0..amount {
                        let Some(id) = (0..63).find(|id| !flying.contains(id)) else { break };
                        driver.submit(&read(id, u64::from(id), &[segment(u64::from(id) * 512, 512)])).unwrap();
                        flying.insert(id);
                    }
                    driver.kick();
                }
                1 => d.borrow_mut().finish(amount),
                _ => {
                    if armed && d.borrow().interrupt == 0 { continue; }
                    driver.acknowledge();
                    loop {
                        while let Some(done) = driver.complete() {
                            prop_assert!(flying.remove(&done.id));
                            prop_assert_eq!(done.outcome, Outcome::Done);
                        }
                        if !driver.arm() { armed = true; break; }
                    }
                }
            }
        }
        prop_assert!(flying.is_empty(), "lost: {:?}", flying);
    }

    /// A number's page serves for whatever comes next: what a request of one segment leaves there is fit for the next one of
    /// its kind, and for no other.
    #[test]
    fn numbers_are_used_again(script in prop::collection::vec((0u16..2, 0u8..6, 0u64..SECTORS - 2), 1..60)) {
        let d = device(ALL);
        let mut driver = driver(&d, 64);
        let mut disk = d.borrow().disk.clone();
        for (turn, (id, what, sector)) in script.into_iter().enumerate() {
            let at = (sector * SECTOR) as usize;
            let ram = d.borrow().ram.ram();
            ram.fill(PAYLOAD, 0x2000, turn as u8).unwrap();
            let (one, two) = ([segment(0, 1024)], [segment(0, 512), segment(0x1000, 512)]);
            let range = Request { id, command: Command::Discard, sector, sectors: 2, segments: &[] };
            match what {
                0 => driver.submit(&read(id, sector, &one)),
                1 => driver.submit(&Request { command: Command::Write, ..read(id, sector, &one) }),
                2 => driver.submit(&read(id, sector, &two)),
                3 => driver.submit(&Request { command: Command::Write, ..read(id, sector, &two) }),
                4 => driver.submit(&range),
                _ => { prop_assert_eq!(driver.restart(0), Ok(())); continue }
            }.unwrap();
            driver.kick();
            prop_assert_eq!(driver.complete(), Some(Completion { id, outcome: Outcome::Done }));
            match what {
                0 => prop_assert_eq!(d.borrow().ram.bytes(PAYLOAD, 1024), &disk[at..at + 1024]),
                2 => prop_assert_eq!(d.borrow().ram.bytes(PAYLOAD + 0x1000, 512), &disk[at + 512..at + 1024]),
                1 | 3 => disk[at..at + 1024].fill(turn as u8),
                _ => disk[at..at + 1024].fill(0),
            }
            prop_assert!(d.borrow().disk == disk);
        }
    }
}
