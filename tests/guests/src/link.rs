//! The guest's first shared-memory link, found as hvisor's driver finds it.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::ptr::NonNull;
use core::sync::atomic::{Ordering, fence};

use partita_pipe::{Bell, Error, Pipe, Sections};
use partita_protocol::MAX_CELL_LINKS;
use partita_protocol::layout::guest;
use partita_protocol::links::{
    HYPERCALL_INFO, IPI_INVOKE, MAX_PEERS_WORD, OUT_SEC_SIZE, PEER_ID, PEER_LIVES, RW_SEC_SIZE, info,
};

use crate::machine::{self, read, write};

/// Memory that this guest's one thread hands to the hypervisor or to the MMU.
#[repr(C, align(4096))]
struct Page(UnsafeCell<[u64; 512]>);

// SAFETY: there is one thread.
unsafe impl Sync for Page {}

static ANSWER: Page = Page(UnsafeCell::new([0; 512]));
static LEVEL2: Page = Page(UnsafeCell::new([0; 512]));

/// `hvc #0x4856` with x0 = 5, x1 = `address`.
pub fn ask(address: u64) -> u64 {
    let result;
    // SAFETY: the hypervisor writes 56 bytes at `address` if that is RAM, which the caller means. x7 is no system call.
    unsafe {
        asm!("hvc #0x4856", inout("x0") HYPERCALL_INFO => result, in("x1") address, in("x7") 0, options(nostack))
    };
    result
}

/// The link.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// What the hypercall said.
    pub place: info::Link,
    /// This cell's number.
    pub me: u32,
    /// Number of peers.
    pub peers: u32,
    shared: u64,
    output: u64,
}

impl Link {
    /// The first link. `None`: the hypervisor knows of none.
    pub fn find() -> Option<Self> {
        let at = ANSWER.0.get().cast::<u8>();
        if ask(at as u64) != 0 {
            return None;
        }
        // SAFETY: the page is ours; the hypervisor has written its start and is done.
        let bytes = unsafe { at.cast::<[u8; info::SIZE]>().read_volatile() };
        let word =
            |n: usize, len: usize| bytes[n..n + len].iter().rev().fold(0u64, |w, b| w << 8 | u64::from(*b));
        if word(0, 8) == 0 {
            return None;
        }
        let place = info::Link {
            control: word(8, 8),
            memory: word(24, 8),
            id: word(40, 4) as u32,
            irq: word(48, 4) as u32,
        };
        let table = |offset: usize| read(place.control + offset as u64);
        map_as_memory();
        Some(Self {
            place,
            me: table(PEER_ID),
            peers: table(MAX_PEERS_WORD),
            shared: table(RW_SEC_SIZE).into(),
            output: table(OUT_SEC_SIZE).into(),
        })
    }

    fn section(&self, peer: u32) -> Option<NonNull<u8>> {
        NonNull::new((self.place.memory + self.shared + self.output * u64::from(peer)) as *mut u8)
    }

    /// This cell's end of the pipe with `partner`.
    pub fn pipe(&self, partner: u32) -> Result<Pipe<'static, Doorbell>, Error> {
        let (Some(mine), Some(yours)) = (self.section(self.me), self.section(partner)) else {
            return Err(Error::Invalid);
        };
        // SAFETY: the link's memory is there for as long as the guest runs, mapped as cached memory by `find`; this is the
        // only use of it.
        let sections = unsafe { Sections::at(mine, yours, self.output as usize) }?;
        Pipe::open(sections, self.me, partner, Doorbell { link: *self, partner })
    }

    /// Rings a peer's doorbell.
    pub fn ring(&self, peer: u32) {
        fence(Ordering::SeqCst);
        write(self.place.control + IPI_INVOKE as u64, peer);
    }
}

/// Doorbells, with interrupts masked in PSTATE as everywhere here.
pub struct Doorbell {
    link: Link,
    partner: u32,
}

/// Seconds that one operation waits.
const PATIENCE: u64 = 60;

impl Bell for Doorbell {
    fn ring(&mut self) {
        self.link.ring(self.partner);
    }

    fn wait(&mut self) -> Result<(), Error> {
        if machine::wait_for(self.link.place.irq, PATIENCE, || ()) { Ok(()) } else { Err(Error::WouldBlock) }
    }

    fn peer_life(&mut self) -> u32 {
        read(self.link.place.control + PEER_LIVES as u64 + 4 * u64::from(self.partner))
    }
}

/// The first GiB is mapped as device memory; what links occupy of it becomes normal memory, as the peers have it.
fn map_as_memory() {
    const BLOCK: u64 = 2 << 20;
    const DEVICE: u64 = 0x0060_0000_0000_0405;
    const MEMORY: u64 = 0x0060_0000_0000_0701;
    let links = guest::LINK_MEMORY..guest::LINK_MEMORY + MAX_CELL_LINKS as u64 * guest::LINK_STRIDE;
    let level2 = LEVEL2.0.get().cast::<u64>();
    for n in 0..512u64 {
        let at = n * BLOCK;
        let attributes = if links.contains(&at) { MEMORY } else { DEVICE };
        // SAFETY: entry `n` of our own page, which no table points to yet.
        unsafe { level2.add(n as usize).write_volatile(at | attributes) };
    }
    // SAFETY: TTBR0 has the table of `start.rs`, whose first entry is for the first GiB, from which nothing is fetched and in
    // which nothing is accessed here. Break before make (Arm ARM D8.14).
    unsafe {
        let table: u64;
        asm!("mrs {}, ttbr0_el1", out(reg) table);
        let entry = table as *mut u64;
        entry.write_volatile(0);
        asm!("dsb ish", "tlbi vmalle1", "dsb ish", "isb");
        entry.write_volatile(level2 as u64 | 3);
        asm!("dsb ish", "isb");
    }
}
