use super::*;
use crate::fake::{Buffer, DriverQueue, FakeRam};
use crate::features;
use crate::queue::Queue;
use proptest::prelude::*;

const BASE: u64 = 0x4000_0000;
const SIZE: u64 = 0x10_0000;
const PADDR: u64 = 0x8000_0000;
const HEADER: u64 = BASE + 0x4000;
const LIMITS: Limits = Limits { seg_max: 16, size_max: u32::MAX };

struct Disk {
    ram: FakeRam,
    driver: DriverQueue,
    queue: Queue,
    segments: Segments<16>,
}

impl Disk {
    fn new() -> Self {
        let ram = FakeRam::new(BASE, SIZE, PADDR);
        let driver = DriverQueue::new(ram.ram(), BASE, 128, true);
        let queue = Queue::new(ram.ram(), driver.layout, 256, features::INDIRECT_DESC).unwrap();
        Self { ram, driver, queue, segments: Segments::new() }
    }
    fn header(&self, kind: u32, sector: u64) {
        self.ram.ram().write_obj(HEADER, &Header { kind, reserved: 0, sector }).unwrap();
    }
    fn parse(&mut self, limits: &Limits, buffers: &[Buffer]) -> Result<Parsed, Fault> {
        self.driver.add(buffers).unwrap();
        let chain = self.queue.pop().unwrap().unwrap();
        parse(chain, limits, &mut self.segments)
    }
    fn request(kind: u32, buffers: &[Buffer]) -> (Result<Parsed, Fault>, Vec<Segment>) {
        let mut disk = Self::new();
        disk.header(kind, 7);
        let parsed = disk.parse(&LIMITS, buffers);
        (parsed, disk.segments.as_slice().to_vec())
    }
}

const fn data(at: u64) -> u64 {
    BASE + 0x8000 + at
}

#[test]
fn read() {
    let (parsed, segments) = Disk::request(
        kind::IN,
        &[
            Buffer::out(HEADER, 16),
            Buffer::into(data(0), 512),
            Buffer::into(data(0x1000), 1024),
            Buffer::into(BASE + 0x5000, 1),
        ],
    );
    let parsed = parsed.unwrap();
    assert_eq!(parsed.operation, Ok(Operation::Read { sector: 7 }));
    assert_eq!(parsed.status, BASE + 0x5000);
    assert_eq!(parsed.used_len(BlkStatus::Ok), 1537);
    assert_eq!(parsed.used_len(BlkStatus::IoErr), 0);
    assert_eq!(
        segments,
        [Segment { paddr: PADDR + 0x8000, len: 512 }, Segment { paddr: PADDR + 0x9000, len: 1024 }]
    );
}

#[test]
fn write_in_one_piece_2_7_4_1() {
    // Header and data in one descriptor; the status byte at the end of a writable buffer that is longer.
    let (parsed, segments) =
        Disk::request(kind::OUT, &[Buffer::out(HEADER, 16 + 512), Buffer::into(BASE + 0x5000, 9)]);
    let parsed = parsed.unwrap();
    assert_eq!(parsed.operation, Ok(Operation::Write { sector: 7 }));
    assert_eq!(parsed.status, BASE + 0x5008);
    assert_eq!(parsed.used_len(BlkStatus::Ok), 0, "there are 8 bytes before it that nobody writes");
    assert_eq!(segments, [Segment { paddr: PADDR + 0x4010, len: 512 }]);
}

#[test]
fn scattered_header_and_joined_data() {
    let (parsed, segments) = Disk::request(
        kind::IN,
        &[
            Buffer::out(HEADER, 3),
            Buffer::out(HEADER + 3, 13),
            Buffer::into(data(0), 100),
            Buffer::into(data(100), 412 + 512 + 1),
        ],
    );
    let parsed = parsed.unwrap();
    assert_eq!(parsed.operation, Ok(Operation::Read { sector: 7 }));
    assert_eq!(parsed.status, data(1024));
    assert_eq!(segments, [Segment { paddr: PADDR + 0x8000, len: 1024 }]);
}

#[test]
fn requests_without_data() {
    let status = Buffer::into(BASE + 0x5000, 1);
    let parsed = Disk::request(kind::FLUSH, &[Buffer::out(HEADER, 16), status]).0.unwrap();
    assert_eq!(parsed.operation, Ok(Operation::Flush));
    assert_eq!(parsed.used_len(BlkStatus::Ok), 1);
    assert_eq!(parsed.used_len(BlkStatus::IoErr), 1);
    for (kind, answer) in
        [(kind::IN, BlkStatus::IoErr), (kind::GET_ID, BlkStatus::IoErr), (99, BlkStatus::Unsupp)]
    {
        let parsed = Disk::request(kind, &[Buffer::out(HEADER, 16), status]).0.unwrap();
        assert_eq!(parsed.operation, Err(answer));
    }
    let parsed =
        Disk::request(kind::IN, &[Buffer::out(HEADER, 16), Buffer::into(data(0), 511), status]).0.unwrap();
    assert_eq!(parsed.operation, Err(BlkStatus::IoErr), "not a whole sector");
}

#[test]
fn used_len_of_get_id() {
    for (room, used) in [(20, 21), (19, 20), (64, 20)] {
        let buffers = [Buffer::out(HEADER, 16), Buffer::into(data(0), room), Buffer::into(BASE + 0x5000, 1)];
        let parsed = Disk::request(kind::GET_ID, &buffers).0.unwrap();
        assert_eq!(parsed.operation, Ok(Operation::GetId));
        assert_eq!(parsed.used_len(BlkStatus::Ok), used);
    }
}

#[test]
fn framing_faults() {
    let case = |buffers: &[Buffer]| Disk::request(kind::IN, buffers).0.unwrap_err();
    assert_eq!(case(&[Buffer::out(HEADER, 16)]), Fault::Framing, "no status");
    assert_eq!(case(&[Buffer::out(HEADER, 15), Buffer::into(data(0), 513)]), Fault::Framing, "no header");
    assert_eq!(case(&[Buffer::into(data(0), 513)]), Fault::Framing);
    assert_eq!(case(&[Buffer::out(BASE + SIZE - 8, 16), Buffer::into(data(0), 513)]), Fault::OutOfRam);
    assert_eq!(case(&[Buffer::out(HEADER, 16), Buffer::into(BASE + SIZE - 512, 513)]), Fault::OutOfRam);
    assert_eq!(
        case(&[Buffer::out(HEADER, 16), Buffer::into(BASE - 512, 512), Buffer::into(data(0), 1)]),
        Fault::OutOfRam
    );
}

#[test]
fn limits_are_the_devices() {
    let buffers: Vec<_> = std::iter::once(Buffer::out(HEADER, 16))
        .chain((0..4).map(|i| Buffer::into(data(0x400 * i), 512)))
        .chain([Buffer::into(BASE + 0x5000, 1)])
        .collect();
    let run = |seg_max, size_max| {
        let mut disk = Disk::new();
        disk.header(kind::IN, 0);
        disk.parse(&Limits { seg_max, size_max }, &buffers).unwrap().operation
    };
    assert_eq!(run(4, 512), Ok(Operation::Read { sector: 0 }));
    assert_eq!(run(3, 512), Err(BlkStatus::IoErr));
    assert_eq!(run(4, 511), Err(BlkStatus::IoErr));
    assert_eq!(run(99, 512), Ok(Operation::Read { sector: 0 }));
}

#[test]
fn ranges_5_2_6() {
    let run = |kind, range: Range, len: u32| {
        let mut disk = Disk::new();
        disk.header(kind, 0);
        disk.ram.ram().write_obj(data(0), &range).unwrap();
        let status = Buffer::into(BASE + 0x5000, 1);
        disk.parse(&LIMITS, &[Buffer::out(HEADER, 16), Buffer::out(data(0), len), status]).unwrap().operation
    };
    let range = Range { sector: 9, sectors: 3, flags: 0 };
    assert_eq!(run(kind::DISCARD, range, 16), Ok(Operation::Discard { sector: 9, sectors: 3 }));
    assert_eq!(run(kind::DISCARD, Range { flags: 1, ..range }, 16), Err(BlkStatus::Unsupp));
    assert_eq!(run(kind::DISCARD, range, 15), Err(BlkStatus::IoErr));
    assert_eq!(run(kind::DISCARD, range, 32), Err(BlkStatus::IoErr), "one range was offered");
    assert_eq!(
        run(kind::WRITE_ZEROES, Range { flags: 1, ..range }, 16),
        Ok(Operation::WriteZeroes { sector: 9, sectors: 3, unmap: true })
    );
    assert_eq!(run(kind::WRITE_ZEROES, Range { flags: 2, ..range }, 16), Err(BlkStatus::Unsupp));
}

proptest! {
    /// Any cut of the same bytes into descriptors is the same request; all segments lie in the guest's RAM.
    #[test]
    fn framing_is_free_2_7_4_1(
        sectors in 1u64..20,
        write: bool,
        mut cuts in prop::collection::vec(1u32..9000, 0..10),
    ) {
        let mut disk = Disk::new();
        disk.header(if write { kind::OUT } else { kind::IN }, 5);
        let bytes = (sectors * SECTOR) as u32;
        // Header and, for a write, its data follow each other in memory; so do data and status of a read.
        let (readable, writable) = if write { (16 + bytes, 1) } else { (16, bytes + 1) };
        let into = BASE + 0x2_0000;
        cuts.sort_unstable();
        cuts.dedup();
        let cut = |at: u64, len: u32, make: fn(u64, u32) -> Buffer| {
            let mut edges: Vec<u32> = cuts.iter().copied().filter(|cut| *cut < len).collect();
            edges.insert(0, 0);
            edges.push(len);
            edges.windows(2).map(|e| make(at + u64::from(e[0]), e[1] - e[0])).collect::<Vec<_>>()
        };
        let mut buffers = cut(HEADER, readable, Buffer::out);
        buffers.extend(cut(into, writable, Buffer::into));
        let parsed = disk.parse(&LIMITS, &buffers).unwrap();
        prop_assert_eq!(parsed.status, into + u64::from(writable) - 1);
        prop_assert_eq!(parsed.writable, writable - 1);
        let (operation, paddr) = if write {
            (Operation::Write { sector: 5 }, PADDR + 0x4010)
        } else {
            (Operation::Read { sector: 5 }, PADDR + 0x2_0000)
        };
        prop_assert_eq!(parsed.operation, Ok(operation));
        prop_assert_eq!(disk.segments.as_slice(), [Segment { paddr, len: bytes }]);
    }

    /// Nonsense is refused or bounded, and never yields memory outside RAM.
    #[test]
    fn nonsense(
        buffers in prop::collection::vec(
            (prop_oneof![BASE - 600..BASE + 600, BASE + SIZE - 600..BASE + SIZE + 600, any::<u64>()], prop_oneof![1u32..2000, any::<u32>()], any::<bool>()),
            1..30,
        ),
        header: [u8; 16],
    ) {
        let mut disk = Disk::new();
        disk.ram.ram().write(HEADER, &header).unwrap();
        let mut buffers: Vec<_> = buffers.iter().map(|b| Buffer { addr: b.0, len: b.1, writable: b.2 }).collect();
        buffers.insert(0, Buffer::out(HEADER, 16));
        if let Ok(parsed) = disk.parse(&LIMITS, &buffers) {
            prop_assert!(disk.ram.ram().offset(parsed.status, 1).is_some());
            prop_assert!(disk.segments.as_slice().len() <= 16);
            for segment in disk.segments.as_slice() {
                prop_assert!(segment.paddr >= PADDR && segment.paddr + u64::from(segment.len) <= PADDR + SIZE);
            }
        }
    }
}
