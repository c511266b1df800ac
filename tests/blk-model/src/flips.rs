//! Bits that flip where nobody stored.
//!
//! Memory without ECC does that. What may come of it depends on whose memory it was. The offender's RAM and registers are its
//! own: only it may suffer. The in-flight page is the backend's, and is read when that dies: then both may get errors,
//! answers to nothing, none at all; but even then nothing may panic or hang, and no request may reach what is not its
//! guest's. A reset of the devices mends it.

use core::sync::atomic::{AtomicU64, Ordering};

use partita_blk_backend::inflight::InflightPage;

use crate::guest::{BASE, QUEUES, RAM, RINGS};
use crate::world::World;

/// Where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The offender's rings and descriptors.
    Rings,
    /// Its headers, tables and data.
    Buffers,
    /// Its registers.
    Registers,
    /// The in-flight page.
    Inflight,
}

impl Place {
    /// All.
    pub const ALL: [Place; 4] = [Place::Rings, Place::Buffers, Place::Registers, Place::Inflight];
}

/// Flips bit `bit` of the place, counted from its beginning and from there again after its end.
pub fn flip(world: &mut World, place: Place, bit: u32) {
    let offender = &world.guests[0];
    let bit = u64::from(bit);
    let ram = |from: u64, bytes: u64| {
        let at = BASE + from + bit / 8 % bytes;
        let byte = offender.ram.bytes(at, 1)[0] ^ 1 << (bit % 8);
        offender.ram.ram().write(at, &[byte]).expect("in RAM");
    };
    let rings = RINGS * QUEUES as u64;
    match place {
        Place::Rings => ram(0, rings),
        Place::Buffers => ram(rings, RAM - rings),
        Place::Registers => {
            let word = &offender.registers.0[(bit / 32 % 1024) as usize];
            word.set(word.get() ^ 1 << (bit % 32));
        }
        Place::Inflight => {
            let words = words(world.page);
            words[(bit / 64) as usize % words.len()].fetch_xor(1 << (bit % 64), Ordering::Relaxed);
            world.damaged = true;
        }
    }
}

/// The page as words.
fn words(page: &InflightPage) -> &[AtomicU64] {
    let words = size_of::<InflightPage>() / 8;
    // SAFETY: the page is nothing but atomics and is as aligned as its u64s; an atomic may be changed through a shared
    // reference, and one thread does so.
    unsafe { core::slice::from_raw_parts(core::ptr::from_ref(page).cast(), words) }
}
