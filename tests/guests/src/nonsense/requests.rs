//! Requests of a well-formed shape that ask for what there is not. The answer is a status byte.

use core::fmt;

use super::device::DEVICES;
use super::{Cases, Expect, Subject};
use crate::blk::{Disk, FLUSH, GET_ID, IN, NEXT, OUT, memory, set};

const IOERR: u8 = 1;
const UNSUPP: u8 = 2;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

/// Types that the specification does not know, or that this device does not.
pub const KINDS: Subject = Subject {
    name: "requests",
    expect: Expect::Lives,
    cases: Cases::Product { count: kinds, name: kind_name, run: kind_run },
};

const KIND: [u32; 16] = [2, 3, 5, 6, 7, 9, 10, 12, 14, 15, 16, 24, 255, 0x8000_0000, 0x8000_0001, u32::MAX];

fn kinds() -> usize {
    KIND.len()
}

fn kind_name(index: usize, f: &mut dyn fmt::Write) -> fmt::Result {
    write!(f, "type {:#x}", KIND[index])
}

fn kind_run(index: usize) -> bool {
    let Some(mut disk) = Disk::start() else { return false };
    disk.request(KIND[index], 0, 512) == UNSUPP && disk.request(IN, 0, 512) == 0
}

/// Sectors that the disk does not have.
pub const SECTORS: Subject = Subject {
    name: "sectors",
    expect: Expect::Lives,
    cases: Cases::Product { count: sectors, name: sector_name, run: sector_run },
};

/// From the capacity on, or (`false`) from 0.
const SECTOR: [(bool, u64); 9] = [
    (true, 0),
    (true, u64::MAX),
    (true, 1),
    (true, 1 << 20),
    (false, 1 << 40),
    (false, 1 << 55),
    (false, (1 << 55) - 1),
    (false, 1 << 63),
    (false, u64::MAX),
];
const OPERATIONS: [(u32, &str); 2] = [(IN, "read"), (OUT, "write")];

fn sectors() -> usize {
    SECTOR.len() * OPERATIONS.len()
}

fn sector_name(index: usize, f: &mut dyn fmt::Write) -> fmt::Result {
    let (after, sector) = SECTOR[index / OPERATIONS.len()];
    let (_, operation) = OPERATIONS[index % OPERATIONS.len()];
    write!(f, "{operation} of two at {}{:#x}", if after { "the disk's end + " } else { "" }, sector)
}

fn sector_run(index: usize) -> bool {
    let (after, sector) = SECTOR[index / OPERATIONS.len()];
    let (operation, _) = OPERATIONS[index % OPERATIONS.len()];
    let Some(mut disk) = Disk::start() else { return false };
    let sector = if after { disk.capacity().wrapping_add(sector) } else { sector };
    disk.request(operation, sector, 1024) == IOERR && disk.request(IN, 0, 512) == 0
}

/// Lengths and ranges that are none.
pub const LENGTHS: Subject = Subject {
    name: "lengths",
    expect: Expect::Lives,
    cases: Cases::Named(&[
        ("read of nothing", || answer(IN, 0) != 0),
        ("write of nothing", || answer(OUT, 0) != 0),
        ("read of a byte", || answer(IN, 1) == IOERR),
        ("write of 511 bytes", || answer(OUT, 511) == IOERR),
        ("read of 513 bytes", || answer(IN, 513) == IOERR),
        ("write of 4095 bytes", || answer(OUT, 4095) == IOERR),
        ("serial number into nothing", || answer(GET_ID, 0) != 0),
        ("serial number into 19 bytes", || answer(GET_ID, 19) != 0),
        ("serial number into 4096 bytes", || DEVICES[0].is_itself() && answer(GET_ID, 4096) != 0xfe),
        ("flush with data", || answer(FLUSH, 512) != 0xfe),
        ("discard of no range", || range(DISCARD, 0, None)),
        ("discard of half a range", || range(DISCARD, 8, Some([0, 8]))),
        ("discard of 256 ranges", || range(DISCARD, 4096, Some([0, 8]))),
        ("discard of no sectors", || range(DISCARD, 16, Some([0, 0]))),
        ("discard of 2^32 - 1 sectors", || range(DISCARD, 16, Some([0, 0xffff_ffff]))),
        ("discard at the end of 64 bits", || range(DISCARD, 16, Some([u64::MAX, 8]))),
        ("discard with unknown flags", || range(DISCARD, 16, Some([0, 0xffff_fffe_0000_0008]))),
        ("zeroes at the end of 64 bits", || range(WRITE_ZEROES, 16, Some([u64::MAX - 7, 8]))),
        ("2^32 - 1 zeroes", || range(WRITE_ZEROES, 16, Some([0, 0xffff_ffff]))),
        ("zeroes with unknown flags", || range(WRITE_ZEROES, 16, Some([0, 0xffff_fffe_0000_0008]))),
    ]),
};

/// The answer to a request of `length` bytes at sector 8.
fn answer(kind: u32, length: u32) -> u8 {
    Disk::start().map_or(0xfd, |mut disk| disk.request(kind, 8, length))
}

/// A ranged request must be refused, by a status or (with a shape that is none) by DEVICE_NEEDS_RESET.
fn range(kind: u32, length: u32, range: Option<[u64; 2]>) -> bool {
    let Some(mut disk) = Disk::start() else { return false };
    Disk::prepare(0, kind, 0, length);
    // SAFETY: our memory.
    unsafe {
        if length != 0 {
            set(&raw mut (*memory()).descriptors[1].flags, NEXT);
        }
        if let Some(range) = range {
            for entry in 0..256 {
                set(crate::blk::data(0).cast::<[u64; 2]>().wrapping_add(entry), range);
            }
        }
    }
    disk.offer(0);
    disk.kick();
    let status = if disk.wait(1) {
        // SAFETY: as above.
        unsafe { crate::blk::get(&raw const (*memory()).status[0]) }
    } else {
        0xfe
    };
    // Whoever does not offer the command says UNSUPP to all of it.
    matches!(status, IOERR | UNSUPP) || (status == 0xfe && DEVICES[0].needs_reset())
}
