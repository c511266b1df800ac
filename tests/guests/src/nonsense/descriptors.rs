//! Descriptors of a disk request: every field of each with values that it must not have, chains that are none, tables
//! that are none.

use core::fmt;

use super::device::{DEVICES, State};
use super::{Cases, Expect, Subject};
use crate::blk::{
    self, BASE, Descriptor, Disk, IN, INDIRECT, NEXT, SIZE, WRITE, areas, get, memory, reg, set,
};
use crate::machine::{frequency, now, pause, read};

/// RAM of this guest ends here (16 MiB).
const RAM_END: u64 = 0x4100_0000;

/// What must come of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
    /// DEVICE_NEEDS_RESET.
    Broken,
    /// That, or an answer, or neither within a moment.
    Any,
}

/// Offers descriptor 0 and looks what comes of it.
fn offer(mut disk: Disk, want: Want) -> bool {
    disk.offer(0);
    disk.kick();
    match want {
        Want::Broken => DEVICES[0].needs_reset(),
        Want::Any => {
            let until = now() + frequency() / 50;
            // SAFETY: in our memory.
            while now() < until && unsafe { get(&raw const (*memory()).used[0]) } >> 16 == 0 {
                if read(BASE + reg::STATUS) & blk::NEEDS_RESET != 0 {
                    break;
                }
            }
            DEVICES[0].is_itself()
        }
    }
}

/// A read of one sector whose descriptors `spoil` has changed.
fn spoiled(want: Want, spoil: impl FnOnce(&mut [Descriptor; SIZE])) -> bool {
    let Some(disk) = Disk::start() else { return false };
    Disk::prepare(0, IN, 0, 512);
    // SAFETY: our memory; the device looks at it after the kick.
    unsafe {
        let place = &raw mut (*memory()).descriptors;
        let mut descriptors = get(place);
        spoil(&mut descriptors);
        set(place, descriptors);
    }
    offer(disk, want)
}

/// One field of one of header, data and status.
pub const FIELDS: Subject =
    Subject { name: "fields", expect: Expect::Lives, cases: Cases::Product { count, name, run } };

const PART: [&str; 3] = ["header", "data", "status"];
const ADDRESSES: [u64; 8] =
    [0, BASE, 0x0800_0000, 0x3fff_ffff, RAM_END, RAM_END + 0x1000_0000, 1 << 47, u64::MAX];
const LENGTHS: [u32; 8] = [0, 1, 15, 17, 511, 0x100_0000, 0x8000_0000, u32::MAX];
const FLAGS: [u16; 8] = [0, NEXT, WRITE, NEXT | WRITE, INDIRECT, INDIRECT | NEXT, 0xfff8, 0xffff];
const NEXTS: [u16; 4] = [0, SIZE as u16 - 1, SIZE as u16, 0xffff];
const PER_PART: usize = ADDRESSES.len() + LENGTHS.len() + FLAGS.len() + NEXTS.len();

fn count() -> usize {
    PART.len() * PER_PART
}

fn name(index: usize, f: &mut dyn fmt::Write) -> fmt::Result {
    write!(f, "{} of a read: ", PART[index / PER_PART])?;
    let (a, l, g) = (ADDRESSES.len(), LENGTHS.len(), FLAGS.len());
    match index % PER_PART {
        i if i < a => write!(f, "addr {:#x}", ADDRESSES[i]),
        i if i < a + l => write!(f, "len {:#x}", LENGTHS[i - a]),
        i if i < a + l + g => write!(f, "flags {:#x}", FLAGS[i - a - l]),
        i => write!(f, "next {:#x}", NEXTS[i - a - l - g]),
    }
}

fn run(index: usize) -> bool {
    let part = index / PER_PART;
    let (a, l, g) = (ADDRESSES.len(), LENGTHS.len(), FLAGS.len());
    match index % PER_PART {
        i if i < a => spoiled(Want::Broken, |d| d[part].addr = ADDRESSES[i]),
        i if i < a + l => {
            let length = LENGTHS[i - a];
            // Longer than what is left of RAM is broken wherever it is.
            let want = if length >= 0x100_0000 { Want::Broken } else { Want::Any };
            spoiled(want, |d| d[part].len = length)
        }
        i if i < a + l + g => spoiled(Want::Any, |d| d[part].flags = FLAGS[i - a - l]),
        i => spoiled(Want::Any, |d| {
            d[part].flags |= NEXT;
            d[part].next = NEXTS[i - a - l - g];
        }),
    }
}

/// Chains.
pub const CHAINS: Subject = Subject {
    name: "chains",
    expect: Expect::Lives,
    cases: Cases::Named(&[
        ("a descriptor that is its own next", || {
            spoiled(Want::Broken, |d| {
                d[1].next = 1;
                d[1].flags = NEXT | WRITE;
            })
        }),
        ("a loop of two", || {
            spoiled(Want::Broken, |d| {
                d[2].next = 1;
                d[2].flags = NEXT | WRITE;
            })
        }),
        ("a loop back to the header", || {
            spoiled(Want::Broken, |d| {
                d[2].next = 0;
                d[2].flags = NEXT | WRITE;
            })
        }),
        ("a loop through the whole table", || {
            spoiled(Want::Broken, |d| {
                for (i, descriptor) in d.iter_mut().enumerate().skip(1) {
                    let next = if i + 1 == SIZE { 1 } else { i as u16 + 1 };
                    *descriptor = Descriptor { addr: areas()[0], len: 1, flags: NEXT | WRITE, next };
                }
            })
        }),
        ("readable after writable", || {
            spoiled(Want::Broken, |d| {
                d[0].flags = NEXT | WRITE;
                d[1].flags = NEXT;
            })
        }),
        ("no place for the status", || spoiled(Want::Broken, |d| d[1].flags = 0)),
        ("only a header", || spoiled(Want::Broken, |d| d[0].flags = 0)),
        ("only a status", || spoiled(Want::Broken, |d| d[0] = d[2])),
        ("addr + len wraps around", || {
            spoiled(Want::Broken, |d| {
                d[1].addr = u64::MAX - 255;
                d[1].len = 512;
            })
        }),
        ("data that is the descriptor table", || spoiled(Want::Any, |d| d[1].addr = areas()[0])),
        ("data that is the available ring", || spoiled(Want::Any, |d| d[1].addr = areas()[1])),
        ("data that is the used ring", || spoiled(Want::Any, |d| d[1].addr = areas()[2])),
        ("status in the used ring", || spoiled(Want::Any, |d| d[2].addr = areas()[2] + 2)),
        ("status in the header", || spoiled(Want::Any, |d| d[2].addr = d[0].addr)),
        ("header, data and status in one place", || {
            spoiled(Want::Any, |d| {
                d[1].addr = d[0].addr;
                d[2].addr = d[0].addr;
            })
        }),
        ("a chain that changes while it is looked at", changing),
        ("broken while requests are in flight", in_flight),
    ]),
};

/// Good and bad address in turn, as fast as this core can.
fn changing() -> bool {
    let Some(mut disk) = Disk::start() else { return false };
    for round in 0..200u32 {
        Disk::prepare(0, IN, 0, 512);
        disk.offer(0);
        disk.kick();
        let place = memory();
        for flip in 0..8 {
            let addr = if flip % 2 == 0 { 0x0800_0000 } else { areas()[0] + 0x2000 };
            // SAFETY: our memory.
            unsafe {
                set(&raw mut (*place).descriptors[1].addr, addr);
                set(&raw mut (*place).descriptors[1].len, if flip % 3 == 0 { u32::MAX } else { 512 });
                set(&raw mut (*place).descriptors[0].next, (flip % 4) as u16);
                set(&raw mut (*place).headers[0], [IN.into(), u64::MAX >> (round % 64)]);
            }
        }
        if read(BASE + reg::STATUS) & blk::NEEDS_RESET != 0 {
            match Disk::start() {
                Some(fresh) => disk = fresh,
                None => return false,
            }
        }
    }
    DEVICES[0].reset() && DEVICES[0].is_itself()
}

fn in_flight() -> bool {
    let Some(mut disk) = Disk::start() else { return false };
    for slot in 0..4 {
        Disk::prepare(slot, IN, 0, 4096);
        disk.offer(3 * slot as u16);
    }
    disk.kick();
    disk.offer(0x1000);
    disk.kick();
    DEVICES[0].needs_reset()
}

/// Indirect tables.
pub const TABLES: Subject = Subject {
    name: "tables",
    expect: Expect::Lives,
    cases: Cases::Named(&[
        ("a good one", || table(Want::Any, 48, |_| {})),
        ("inside itself", || {
            table(Want::Broken, 48, |t| {
                t[1] = Descriptor { addr: table_at(), len: 48, flags: INDIRECT, next: 0 };
            })
        }),
        ("that is the descriptor table", || {
            table_with(Want::Broken, |d| {
                d[0] = Descriptor { addr: areas()[0], len: 256, flags: INDIRECT, next: 0 }
            })
        }),
        ("of no bytes", || table(Want::Broken, 0, |_| {})),
        ("of a byte", || table(Want::Broken, 1, |_| {})),
        ("of two and a half descriptors", || table(Want::Broken, 40, |_| {})),
        ("of 4 GiB less 16", || table(Want::Broken, 0xffff_fff0, |_| {})),
        ("whose next is beyond it", || table(Want::Broken, 48, |t| t[0].next = 3)),
        ("with a loop", || {
            table(Want::Broken, 48, |t| {
                t[2].flags |= NEXT;
                t[2].next = 1;
            })
        }),
        ("outside RAM", || {
            table_with(Want::Broken, |d| d[0] = Descriptor { addr: 0, len: 48, flags: INDIRECT, next: 0 })
        }),
        ("across the end of RAM", || {
            table_with(Want::Broken, |d| {
                d[0] = Descriptor { addr: RAM_END - 16, len: 48, flags: INDIRECT, next: 0 };
            })
        }),
        ("at the end of the address space", || {
            table_with(Want::Broken, |d| {
                d[0] = Descriptor { addr: u64::MAX - 15, len: 48, flags: INDIRECT, next: 0 };
            })
        }),
        ("with a successor", || {
            table_with(Want::Broken, |d| {
                d[0] = Descriptor { addr: table_at(), len: 48, flags: INDIRECT | NEXT, next: 1 };
            })
        }),
        ("not aligned", || {
            table_with(Want::Any, |d| {
                d[0] = Descriptor { addr: table_at() + 1, len: 48, flags: INDIRECT, next: 0 }
            })
        }),
        ("without the feature", || spoiled(Want::Broken, |d| d[0].flags |= INDIRECT)),
        ("of 256 descriptors of one byte each", || {
            let Some(mut disk) = start_with_tables() else { return false };
            fill_table();
            // SAFETY: our memory.
            unsafe {
                let d = Descriptor { addr: table_at(), len: 4096, flags: INDIRECT, next: 0 };
                set(&raw mut (*memory()).descriptors[0], d);
            }
            disk.offer(0);
            disk.kick();
            pause(5);
            DEVICES[0].is_itself()
        }),
    ]),
};

/// The page of data that nothing else uses.
fn table_at() -> u64 {
    blk::data(9).addr() as u64
}

fn fill_table() {
    let mut page = [0; 4096];
    for (i, entry) in page.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        entry[..8].copy_from_slice(&(areas()[0] + 0x3000).to_le_bytes());
        entry[8..12].copy_from_slice(&1u32.to_le_bytes());
        entry[12..14].copy_from_slice(&(NEXT | WRITE).to_le_bytes());
        entry[14..].copy_from_slice(&((i + 1) as u16 % 256).to_le_bytes());
    }
    blk::store(9, page);
}

fn start_with_tables() -> Option<Disk> {
    let device = &DEVICES[0];
    if !device.enter(State::Reset) {
        return None;
    }
    Disk::start_with(1 << 28)
}

/// A request by an indirect table of `len` bytes that `spoil` has changed.
fn table(want: Want, len: u32, spoil: fn(&mut [Descriptor; 3])) -> bool {
    let Some(disk) = start_with_tables() else { return false };
    Disk::prepare(0, IN, 0, 512);
    // SAFETY: our memory; the device looks at it after the kick.
    unsafe {
        let mut table: [Descriptor; 3] = core::array::from_fn(|i| get(&raw const (*memory()).descriptors[i]));
        spoil(&mut table);
        set(blk::data(9).cast(), table);
        let descriptor = Descriptor { addr: table_at(), len, flags: INDIRECT, next: 0 };
        set(&raw mut (*memory()).descriptors[0], descriptor);
    }
    offer(disk, want)
}

/// A good table, and descriptors that `spoil` has changed.
fn table_with(want: Want, spoil: fn(&mut [Descriptor; SIZE])) -> bool {
    let Some(disk) = start_with_tables() else { return false };
    Disk::prepare(0, IN, 0, 512);
    // SAFETY: as in `table`.
    unsafe {
        let place = &raw mut (*memory()).descriptors;
        let mut descriptors = get(place);
        set(blk::data(9).cast(), [descriptors[0], descriptors[1], descriptors[2]]);
        spoil(&mut descriptors);
        set(place, descriptors);
    }
    offer(disk, want)
}
