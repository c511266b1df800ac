//! The catalogue of what a guest may try, as a table of named cases.
//!
//! A case that ends the guest is as good as one that does not, if it is one of those that no VMM can go on after. So the
//! guest writes to its disk which case it is about to try; when it is started again it finds there what it died of, and
//! goes on with the next one. After every case all devices must work again by no more than a reset.
//!
//! A new device is an entry of [`device::DEVICES`]; a new subject is a module with an entry in [`CATALOGUE`].

pub mod calls;
pub mod descriptors;
pub mod device;
pub mod fatal;
pub mod gic;
pub mod place;
pub mod queues;
pub mod registers;
pub mod requests;
pub mod rings;
pub mod sockets;
pub mod storms;
pub mod sysregs;

use crate::{blk, machine, println};
use core::fmt;
use place::Place;

/// What may become of the guest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// It goes on.
    Lives,
    /// It is stopped.
    Ends,
    /// One of them, depending on kernel and processor.
    Either,
}

/// A case with a name. True if what the guest sees is as it must be.
pub type Named = (&'static str, fn() -> bool);

/// The cases of a subject.
pub enum Cases {
    /// One by one.
    Named(&'static [Named]),
    /// All combinations of something.
    Product {
        /// How many.
        count: fn() -> usize,
        /// What the one with this number is called.
        name: fn(usize, &mut dyn fmt::Write) -> fmt::Result,
        /// Tries it.
        run: fn(usize) -> bool,
    },
}

/// Cases that belong together.
pub struct Subject {
    /// Its name.
    pub name: &'static str,
    /// What may become of the guest.
    pub expect: Expect,
    /// The cases.
    pub cases: Cases,
}

/// All of it.
pub static CATALOGUE: &[Subject] = &[
    registers::SUBJECT,
    rings::AREAS,
    rings::SELECTORS,
    rings::INDICES,
    descriptors::FIELDS,
    descriptors::CHAINS,
    descriptors::TABLES,
    requests::KINDS,
    requests::SECTORS,
    requests::LENGTHS,
    sockets::PACKETS,
    sockets::CHAINS,
    sockets::FLOODS,
    queues::SUBJECT,
    storms::SUBJECT,
    gic::DISTRIBUTOR,
    gic::TRICKS,
    calls::FUNCTIONS,
    calls::NUMBERS,
    sysregs::SUBJECT,
    fatal::MAYBE,
    fatal::SUBJECT,
];

impl Cases {
    fn count(&self) -> usize {
        match self {
            Cases::Named(cases) => cases.len(),
            Cases::Product { count, .. } => count(),
        }
    }

    fn run(&self, index: usize) -> bool {
        match self {
            Cases::Named(cases) => cases.get(index).is_some_and(|(_, run)| run()),
            Cases::Product { run, .. } => run(index),
        }
    }
}

/// A case: its subject and its place there.
struct Name(&'static Subject, usize);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.0.name)?;
        match &self.0.cases {
            Cases::Named(cases) => f.write_str(cases.get(self.1).map_or("?", |(name, _)| name)),
            Cases::Product { name, .. } => name(self.1, f),
        }
    }
}

fn case(mut index: usize) -> Option<Name> {
    for subject in CATALOGUE {
        let count = subject.cases.count();
        if index < count {
            return Some(Name(subject, index));
        }
        index -= count;
    }
    None
}

/// Numbers that repeat from run to run.
pub struct Random(pub u64);

impl Random {
    /// The next one.
    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Values for a register of `width` bytes that find most of what can be wrong.
pub const VALUES: [u64; 5] = [0, 1, u64::MAX, 0x8000_0000_8000_0000, 0x5a5a_1234_4321_a5a5];

/// All devices work, after no more than a reset of each.
fn recovered() -> bool {
    machine::set_timer(None);
    gic::mend();
    device::DEVICES.iter().all(|device| (device.works)())
}

/// Goes through the catalogue from where it was left.
pub fn run() {
    machine::enable_interrupts(&[27, blk::INTID]);
    let Some(mut place) = Place::read() else {
        println!("nonsense: FAIL: its disk does not work");
        return;
    };
    if let Some(name) = place.trying.and_then(case) {
        place.judge(&name, name.0.expect != Expect::Lives, "the guest was stopped");
    } else {
        let total: usize = CATALOGUE.iter().map(|subject| subject.cases.count()).sum();
        println!("nonsense: {total} ways to break the rules");
    }
    while let Some(name) = case(place.next()) {
        if !place.begin() {
            println!("nonsense: FAIL: its disk does not work before {name}");
            break;
        }
        let seen = name.0.cases.run(name.1);
        let works = recovered();
        let why = match (seen, works, name.0.expect) {
            (_, _, Expect::Ends) => "went on",
            (false, ..) => "not as it must be",
            (true, false, _) => "the devices do not work again",
            _ => "",
        };
        place.judge(&name, why.is_empty(), why);
    }
    place.end();
    println!("nonsense: {} passed, {} failed", place.passed, place.failed);
}
