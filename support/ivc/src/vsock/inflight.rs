//! What the broker must know of itself after a restart: which transmit chains it holds.
//!
//! The positions of a queue that is served in order can be read back from its used ring. But a packet whose receiver has no
//! buffers waits while later ones for others go on, so transmit chains may be used out of order. Those that wait are noted
//! here, in memory that only the broker writes and that survives it. After a restart they are returned to their driver
//! unsent: their connections are gone anyway.
//!
//! Whatever moment the end came at, the position of the next available chain is `used.idx` plus the number of chains that
//! wait. For that, everything pushed is published before a chain is noted ([`Chains::take`]), and a noted chain is marked
//! with the position of its used element before it is pushed, and forgotten after that was published.

use core::sync::atomic::{AtomicU32, Ordering};

use partita_protocol::MAX_CELLS;

use super::QUEUE_MAX;

const TAKEN: u32 = 1 << 16;
const FINISHING: u32 = 2 << 16;

/// The chains of one cell, by head.
#[repr(C)]
pub struct Chains {
    heads: [AtomicU32; QUEUE_MAX as usize],
}

/// The pages.
#[repr(C)]
pub struct InflightPages {
    /// By cell.
    pub cells: [Chains; MAX_CELLS],
}

const _: () = assert!(size_of::<InflightPages>() <= partita_protocol::layout::size::IVC_INFLIGHT);

impl InflightPages {
    /// Nothing waits: what zeroed memory says.
    pub const fn new() -> Self {
        Self {
            cells: [const { Chains { heads: [const { AtomicU32::new(0) }; QUEUE_MAX as usize] } }; MAX_CELLS],
        }
    }
}

impl Default for InflightPages {
    fn default() -> Self {
        Self::new()
    }
}

impl Chains {
    fn set(&self, head: u16, value: u32) {
        if let Some(place) = self.heads.get(usize::from(head)) {
            place.store(value, Ordering::Release);
        }
    }

    /// The chain waits. All used elements before it are published.
    pub fn take(&self, head: u16) {
        self.set(head, TAKEN);
    }

    /// Its used element will be at `position`.
    pub fn finish(&self, head: u16, position: u16) {
        self.set(head, FINISHING | u32::from(position));
    }

    /// That was published.
    pub fn forget(&self, head: u16) {
        self.set(head, 0);
    }

    /// Forgets all.
    pub fn clear(&self) {
        for place in &self.heads {
            place.store(0, Ordering::Release);
        }
    }

    /// After a restart: the chains that wait, given the published used index.
    pub fn waiting(&self, used: u16) -> impl Iterator<Item = u16> + '_ {
        (0..QUEUE_MAX).zip(&self.heads).filter_map(move |(head, place)| {
            let value = place.load(Ordering::Acquire);
            // Position p is published if used.idx is after it.
            let published = used.wrapping_sub(value as u16).wrapping_sub(1) < 0x8000;
            match value & !0xffff {
                TAKEN => Some(head),
                FINISHING if !published => Some(head),
                _ => None,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_known_after_a_restart() {
        let pages = InflightPages::new();
        let chains = &pages.cells[2];
        for head in [3, 4, 5, 255] {
            chains.take(head);
        }
        chains.finish(4, 10);
        chains.finish(5, 0xffff);
        chains.forget(255);
        let waiting = |used| chains.waiting(used).collect::<Vec<_>>();
        assert_eq!(waiting(10), [3, 4]);
        assert_eq!(waiting(11), [3]);
        assert_eq!(waiting(0xffff), [3, 4, 5]);
        chains.clear();
        assert!(waiting(0).is_empty());
    }
}
