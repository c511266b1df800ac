//! What survives a restart of the backend: one page that only it maps.
//!
//! A guest's rings are in its RAM and survive by nature. What they do not say is which chains had been taken but not yet
//! returned; that is here, as vhost-user's in-flight region says it. Each change is one atomic store, ordered so that a
//! crash between any two of them leaves either "still to do" (done again: block requests may be repeated) or "done".
//!
//! 1. A chain is entered as [`Entry::Taken`] after it was popped and before the device sees it. Chains are popped in
//!    order, and answered at once or entered before the next is popped; so after a crash the next chain to fetch is
//!    `used.idx` plus the number of chains entered.
//!    This is an argument about one queue, and of several it holds for each by itself: an entry names its queue, and
//!    positions and indices are compared with those of that queue only.
//! 2. When its used element has been written at position `p`, it becomes `Finishing(p)`.
//! 3. used.idx is published. A restarted backend that finds `Finishing(p)` knows by it whether this still happened.
//! 4. The entry is cleared, and its number may be used again.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use partita_protocol::{MAX_CELLS, MAX_DISKS};

use crate::MAX_FLIGHTS;

/// The page, zero at first.
#[repr(C)]
pub struct InflightPage {
    entries: [AtomicU64; MAX_FLIGHTS],
    /// Not 0: the disk was live.
    live: [[AtomicU32; MAX_DISKS]; MAX_CELLS],
}

const _: () = assert!(size_of::<InflightPage>() <= 4096);

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Nothing.
    Free,
    /// The chain is taken, not returned.
    Taken(Owner),
    /// Its used element is written at this position of the used ring, not necessarily published.
    Finishing(Owner, u16),
}

/// Whose chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Cell.
    pub client: u8,
    /// Its disk.
    pub disk: u8,
    /// The disk's queue.
    pub queue: u8,
    /// Head descriptor.
    pub head: u16,
}

impl Entry {
    const fn to_word(self) -> u64 {
        let (kind, owner, position) = match self {
            Entry::Free => return 0,
            Entry::Taken(owner) => (1, owner, 0),
            Entry::Finishing(owner, position) => (2, owner, position),
        };
        kind | (owner.client as u64) << 8
            | (owner.disk as u64) << 16
            | (owner.head as u64) << 24
            | (position as u64) << 40
            | (owner.queue as u64) << 56
    }

    const fn from_word(word: u64) -> Self {
        let owner = Owner {
            client: (word >> 8) as u8,
            disk: (word >> 16) as u8,
            queue: (word >> 56) as u8,
            head: (word >> 24) as u16,
        };
        match word as u8 {
            1 => Entry::Taken(owner),
            2 => Entry::Finishing(owner, (word >> 40) as u16),
            _ => Entry::Free,
        }
    }
}

impl InflightPage {
    /// An empty page.
    pub const fn new() -> Self {
        Self {
            entries: [const { AtomicU64::new(0) }; MAX_FLIGHTS],
            live: [const { [const { AtomicU32::new(0) }; MAX_DISKS] }; MAX_CELLS],
        }
    }

    /// What is entered under `id`.
    pub fn get(&self, id: usize) -> Entry {
        self.entries.get(id).map_or(Entry::Free, |entry| Entry::from_word(entry.load(Ordering::Acquire)))
    }

    /// Enters. Release: what came before in the program is in memory if this is.
    pub fn set(&self, id: usize, entry: Entry) {
        if let Some(place) = self.entries.get(id) {
            #[cfg(test)]
            partita_virtio::fake::crash::store();
            place.store(entry.to_word(), Ordering::Release);
        }
    }

    /// Damage.
    #[cfg(test)]
    pub fn flip(&self, id: usize, bit: u32) {
        if let Some(place) = self.entries.get(id) {
            place.fetch_xor(1 << (bit % 64), Ordering::Relaxed);
        }
    }

    /// Notes whether a disk is live.
    pub fn set_live(&self, client: usize, disk: usize, live: bool) {
        if let Some(flag) = self.live.get(client).and_then(|disks| disks.get(disk)) {
            #[cfg(test)]
            partita_virtio::fake::crash::store();
            flag.store(live.into(), Ordering::Release);
        }
    }

    /// Was the disk live?
    pub fn is_live(&self, client: usize, disk: usize) -> bool {
        let flag = self.live.get(client).and_then(|disks| disks.get(disk));
        flag.is_some_and(|flag| flag.load(Ordering::Acquire) != 0)
    }
}

impl Default for InflightPage {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip(client: u8, disk: u8, queue: u8, head: u16, position: u16, garbage: u64) {
            let owner = Owner { client, disk, queue, head };
            for entry in [Entry::Free, Entry::Taken(owner), Entry::Finishing(owner, position)] {
                prop_assert_eq!(Entry::from_word(entry.to_word()), entry);
            }
            let _ = Entry::from_word(garbage);
        }
    }
}
