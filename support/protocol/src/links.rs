//! The borders of shared-memory links: what a guest sees of one, and how a doorbell travels VMM → `ivc` → VMM.
//!
//! The guest's side is hvisor's (docs/guest-abi.md, "Links"). Between PDs there are only counters, each with one writer:
//! a VMM counts the doorbells of its guest in [`DoorbellTx`], `ivc` copies what it lets through into the target's
//! [`DoorbellRx`]. A doorbell is "the counters differ", so any number of them coalesce into one, none is lost, and an
//! `ivc` that was restarted finds in the two pages all that it has to know.

use core::sync::atomic::{AtomicU32, AtomicU64};

use crate::{MAX_CELL_LINKS, MAX_LINKS, MAX_PEERS};

/// Bytes of a link's control table: one page, of which a guest may store to [`IPI_INVOKE`] only.
pub const CONTROL_SIZE: u64 = 0x1000;
/// Control table: the link's id.
pub const IVC_ID: usize = 0x00;
/// Control table: number of peers.
pub const MAX_PEERS_WORD: usize = 0x04;
/// Control table: bytes of the section that all peers write; it comes first.
pub const RW_SEC_SIZE: usize = 0x08;
/// Control table: bytes of each output section; they follow in the order of the peers.
pub const OUT_SEC_SIZE: usize = 0x0c;
/// Control table: which peer the guest is.
pub const PEER_ID: usize = 0x10;
/// Control table: a store of a peer's number rings its doorbell.
pub const IPI_INVOKE: usize = 0x14;
/// Control table, ours alone (hvisor has nothing there): the life of each peer's guest, a word each. A life counts the
/// starts and stops of a guest: odd while one runs or is paused. 0: it never ran, or the hypervisor does not tell.
pub const PEER_LIVES: usize = 0x20;

/// Whether a guest with this life runs (or is paused).
pub const fn runs(life: u32) -> bool {
    life % 2 == 1
}

/// hvisor's hypercall that tells a guest where its links are: number in x0, address of an [`info`] structure in x1.
pub const HYPERCALL_INFO: u64 = 5;
/// The same call by SMC: SMCCC fast call, vendor-specific hypervisor service 5.
pub const SMC_INFO: u64 = 0xc600_0005;

/// The structure that [`HYPERCALL_INFO`] fills in, packed and little-endian.
pub mod info {
    use crate::MAX_CELL_LINKS;

    /// Its bytes.
    pub const SIZE: usize = 56;

    /// One link, as a guest is told.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Link {
        /// Address of the control table.
        pub control: u64,
        /// Address of the shared memory.
        pub memory: u64,
        /// The link's id.
        pub id: u32,
        /// INTID of its doorbell.
        pub irq: u32,
    }

    /// Writes the structure for these links.
    pub fn encode(links: &[Link]) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        let mut put = |at: usize, value: &[u8]| {
            if let Some(place) = bytes.get_mut(at..at + value.len()) {
                place.copy_from_slice(value);
            }
        };
        let links = links.get(..MAX_CELL_LINKS).unwrap_or(links);
        put(0, &(links.len() as u64).to_le_bytes());
        for (n, link) in links.iter().enumerate() {
            put(8 + 8 * n, &link.control.to_le_bytes());
            put(24 + 8 * n, &link.memory.to_le_bytes());
            put(40 + 4 * n, &link.id.to_le_bytes());
            put(48 + 4 * n, &link.irq.to_le_bytes());
        }
        bytes
    }
}

/// Doorbells a second that one guest is let through in the long run; what comes faster is passed on later, as one.
pub const BELLS_PER_SECOND: u64 = 20_000;
/// Doorbells that may come at once.
pub const BELL_BURST: u64 = 64;

/// Written by a VMM, read by `ivc`.
#[repr(C)]
#[derive(Debug, Default)]
pub struct DoorbellTx {
    /// Doorbells that the guest rang: `[link of the cell][target peer]`. Wraps.
    pub rung: [[AtomicU32; MAX_PEERS]; MAX_CELL_LINKS],
    /// Stores to `ipi_invoke` that name no other peer of the link. Wraps.
    pub refused: [AtomicU32; MAX_CELL_LINKS],
    /// The guest's life ([`PEER_LIVES`]): doorbells can be delivered while it [`runs`]. Wraps.
    pub life: AtomicU32,
}

/// Written by `ivc`, read by a VMM.
#[repr(C)]
#[derive(Debug, Default)]
pub struct DoorbellRx {
    /// How far `ivc` has taken each peer's doorbells for this cell: `[link of the cell][source peer]`, a copy of the
    /// source's counter.
    pub taken: [[AtomicU32; MAX_PEERS]; MAX_CELL_LINKS],
    /// Counts deliveries to this guest. Wraps.
    pub delivered: [AtomicU32; MAX_CELL_LINKS],
    /// A copy of each peer's life: `[link of the cell][peer]`.
    pub lives: [[AtomicU32; MAX_PEERS]; MAX_CELL_LINKS],
}

/// Counters of one link.
#[repr(C)]
#[derive(Debug, Default)]
pub struct LinkCounters {
    /// Doorbells rung, by the source's peer number.
    pub rung: [AtomicU64; MAX_PEERS],
    /// Deliveries, by the target's peer number: fewer than rung when doorbells coalesce.
    pub delivered: [AtomicU64; MAX_PEERS],
    /// Doorbells for a peer that was not running, by the target's number.
    pub dropped: [AtomicU64; MAX_PEERS],
    /// Doorbells for a peer that the link does not have, by the source's number.
    pub refused: [AtomicU64; MAX_PEERS],
}

/// The page that `ivc` writes and the supervisor reads. Survives a restart of `ivc`.
#[repr(C)]
#[derive(Debug, Default)]
pub struct LinkStats {
    /// By the place in partita.json's `links`.
    pub links: [LinkCounters; MAX_LINKS],
    /// How far each cell's `refused` counters have been taken: `[cell][link of the cell]`.
    pub refused_seen: [[AtomicU32; MAX_CELL_LINKS]; crate::MAX_CELLS],
}

const _: () = assert!(size_of::<DoorbellTx>() <= 4096 && size_of::<DoorbellRx>() <= 4096);
const _: () = assert!(size_of::<LinkStats>() <= 4096);

#[cfg(test)]
mod tests {
    use super::info::{Link, encode};

    #[test]
    fn the_structure_is_hvisors() {
        let link =
            |n: u64| Link { control: 0x10 + n, memory: 0x20 + n, id: 0x30 + n as u32, irq: 0x40 + n as u32 };
        let bytes = encode(&[link(0), link(1), link(2)]);
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        assert_eq!([0, 8, 16, 24, 32].map(word), [2, 0x10, 0x11, 0x20, 0x21]);
        assert_eq!([word(40), word(48)], [0x31 << 32 | 0x30, 0x41 << 32 | 0x40]);
        assert_eq!(encode(&[]), [0; 56]);
        assert_eq!(encode(&[link(0)])[16..24], [0; 8]);
    }
}
