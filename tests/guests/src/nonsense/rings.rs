//! Queues where none can be, of sizes that none can have, and indices that no driver writes.

use core::fmt;

use super::device::{DEVICES, SIZE, State, areas, ring};
use super::{Cases, Expect, Subject};
use crate::blk::{self, reg, set};
use crate::machine;

/// RAM of this guest ends here (16 MiB).
pub(super) const RAM_END: u64 = 0x4100_0000;

/// The three areas of a queue, one of them in a bad place.
pub const AREAS: Subject =
    Subject { name: "rings", expect: Expect::Lives, cases: Cases::Product { count, name, run } };

/// Where it is, and its address from that of the good place.
type Place = (&'static str, fn(u64) -> u64);

const PLACES: [Place; 9] = [
    ("at 0", |_| 0),
    ("in the device's registers", |_| blk::BASE),
    ("in the distributor", |_| 0x0800_0000),
    ("across the start of RAM", |_| 0x3fff_fff0),
    ("across the end of RAM", |_| RAM_END - 16),
    ("behind the end of RAM", |_| RAM_END),
    ("at 2^40", |_| 1 << 40),
    ("at the end of the address space", |_| u64::MAX - 15),
    ("not aligned", |good| good + 1),
];
const PARTS: [&str; 3] = ["descriptor table", "available ring", "used ring"];
const SIZES: [u32; 7] = [0, 3, 7, 0x200, 0x8000, 0x1_0008, u32::MAX];
const OVERLAPS: [&str; 4] =
    ["all areas in one place", "used ring over the table", "available over used ring", "table over the data"];
const PER_DEVICE: usize = PLACES.len() * PARTS.len() + SIZES.len() + OVERLAPS.len();

enum Bad {
    Area(usize, usize),
    Size(u32),
    Overlap(usize),
}

fn bad(index: usize) -> Bad {
    let (areas, sizes) = (PLACES.len() * PARTS.len(), SIZES.len());
    match index {
        i if i < areas => Bad::Area(i / PARTS.len(), i % PARTS.len()),
        i if i < areas + sizes => Bad::Size(SIZES[i - areas]),
        i => Bad::Overlap((i - areas - sizes) % OVERLAPS.len()),
    }
}

fn count() -> usize {
    DEVICES.len() * PER_DEVICE
}

fn name(index: usize, f: &mut dyn fmt::Write) -> fmt::Result {
    write!(f, "{}: ", DEVICES[index / PER_DEVICE].name)?;
    match bad(index % PER_DEVICE) {
        Bad::Area(place, part) => write!(f, "{} {}", PARTS[part], PLACES[place].0),
        Bad::Size(size) => write!(f, "size {size:#x}"),
        Bad::Overlap(which) => f.write_str(OVERLAPS[which]),
    }
}

fn run(index: usize) -> bool {
    let device = &DEVICES[index / PER_DEVICE];
    let queue = device.kicked;
    let good = areas(queue as usize);
    if !device.enter(State::Found) || !device.negotiate() {
        return false;
    }
    let (size, areas, may_work) = match bad(index % PER_DEVICE) {
        Bad::Area(place, part) => {
            let mut areas = good;
            areas[part] = (PLACES[place].1)(good[part]);
            (SIZE as u32, areas, false)
        }
        Bad::Size(size) => (size, good, false),
        Bad::Overlap(which) => {
            let [table, avail, used] = good;
            let areas = match which {
                0 => [table; 3],
                1 => [table, avail, table],
                2 => [table, used, used],
                _ => [good[0] + 64, avail, used],
            };
            (SIZE as u32, areas, true)
        }
    };
    device.set_queue(queue, size, areas);
    device.write(reg::STATUS, 15);
    device.write(reg::QUEUE_NOTIFY, queue);
    device.is_itself() && (may_work || device.needs_reset())
}

/// Queues that the device does not have.
pub const SELECTORS: Subject = Subject {
    name: "selectors",
    expect: Expect::Lives,
    cases: Cases::Product { count: selectors, name: selector_name, run: selector_run },
};

const NUMBERS: [u32; 8] = [2, 3, 8, 64, 0xffff, 0x1_0000, 0x7fff_ffff, u32::MAX];

fn selectors() -> usize {
    DEVICES.len() * NUMBERS.len()
}

/// Which queue: none that the device has.
fn selector(index: usize) -> u32 {
    NUMBERS[index % NUMBERS.len()].max(DEVICES[index / NUMBERS.len()].queues)
}

fn selector_name(index: usize, f: &mut dyn fmt::Write) -> fmt::Result {
    write!(f, "queue {:#x} of {}", selector(index), DEVICES[index / NUMBERS.len()].name)
}

fn selector_run(index: usize) -> bool {
    let (device, number) = (&DEVICES[index / NUMBERS.len()], selector(index));
    let mut ok = true;
    for state in [State::Ready, State::Live] {
        ok &= device.enter(state);
        ok &= !device.set_queue(number, SIZE as u32, areas(0)) && device.read(reg::QUEUE_NUM_MAX) == 0;
        device.write(reg::QUEUE_NOTIFY, number);
        ok &= device.is_itself();
    }
    ok
}

/// Indices of the available ring.
pub const INDICES: Subject = Subject {
    name: "indices",
    expect: Expect::Lives,
    cases: Cases::Product { count: indices, name: index_name, run: index_run },
};

/// Index, head, what is said of it.
const INDEX: [(u16, u16, &str); 7] = [
    (SIZE as u16 + 1, 0, "one too far ahead"),
    (0x8000, 0, "half way round"),
    (0xffff, 0, "one back"),
    (1, SIZE as u16, "head one beyond the table"),
    (1, 0xffff, "head 0xffff"),
    (SIZE as u16, 0x8000, "a ring full of 0x8000"),
    (2, 0, "the same empty chain twice"),
];

fn indices() -> usize {
    DEVICES.len() * INDEX.len()
}

fn index_name(index: usize, f: &mut dyn fmt::Write) -> fmt::Result {
    write!(f, "{}: {}", DEVICES[index / INDEX.len()].name, INDEX[index % INDEX.len()].2)
}

fn index_run(index: usize) -> bool {
    let device = &DEVICES[index / INDEX.len()];
    let (idx, head, _) = INDEX[index % INDEX.len()];
    let queue = device.kicked;
    if !device.enter(State::Live) {
        return false;
    }
    let ring = ring(queue as usize);
    // SAFETY: our memory; the indices are in bounds.
    unsafe {
        for slot in 0..SIZE {
            set(&raw mut (*ring).avail[2 + slot], head);
        }
        set(&raw mut (*ring).avail[1], idx);
    }
    device.write(reg::QUEUE_NOTIFY, queue);
    machine::pause(2);
    // An empty chain is a rule broken for a disk and nothing to send for a console.
    let twice = index % INDEX.len() == INDEX.len() - 1;
    device.is_itself() && (twice || device.needs_reset())
}
