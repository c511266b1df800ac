//! Counters that `ivc` publishes: one page, written by `ivc` only, read by the supervisor. As in [`super::stats`], each
//! counter is right by itself.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::MAX_CELLS;

/// What is counted for each cell. The numbers are the positions in the page: append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Counter {
    /// Connections that this cell asked for and got.
    Connections,
    /// Connections that are open now, at whichever end the cell is.
    Open,
    /// Connections that this cell asked for and was refused, by us: not allowed, unknown, or beyond a limit.
    Refused,
    /// Connections of this cell that we reset: a peer went away, a rule was broken, a receiver did not receive.
    Resets,
    /// Payload bytes that the cell sent and that were delivered.
    BytesSent,
    /// Payload bytes delivered to the cell.
    BytesReceived,
    /// Packets from the cell that break a rule of virtio-vsock or name somebody else as their source.
    Violations,
    /// Doorbells that the cell rang.
    Doorbells,
    /// Doorbells of the cell that had no receiver.
    DoorbellsDropped,
}

impl Counter {
    /// All of them, in order.
    pub const ALL: [Counter; 9] = [
        Counter::Connections,
        Counter::Open,
        Counter::Refused,
        Counter::Resets,
        Counter::BytesSent,
        Counter::BytesReceived,
        Counter::Violations,
        Counter::Doorbells,
        Counter::DoorbellsDropped,
    ];

    /// Short name for people and scripts.
    pub const fn name(self) -> &'static str {
        match self {
            Counter::Connections => "connections",
            Counter::Open => "open",
            Counter::Refused => "refused",
            Counter::Resets => "resets",
            Counter::BytesSent => "sent",
            Counter::BytesReceived => "received",
            Counter::Violations => "violations",
            Counter::Doorbells => "doorbells",
            Counter::DoorbellsDropped => "dropped",
        }
    }
}

/// Counters of one cell.
#[repr(C)]
#[derive(Debug)]
pub struct CellCounters {
    counters: [AtomicU64; Counter::ALL.len()],
}

impl CellCounters {
    /// All zero.
    pub const fn new() -> Self {
        Self { counters: [const { AtomicU64::new(0) }; Counter::ALL.len()] }
    }

    /// Adds `more`. Only the page's writer calls this, so a plain load and store will do.
    pub fn add(&self, counter: Counter, more: u64) {
        if let Some(cell) = self.counters.get(counter as usize) {
            cell.store(cell.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
        }
    }

    /// Replaces one. For the page's writer.
    pub fn set(&self, counter: Counter, value: u64) {
        if let Some(cell) = self.counters.get(counter as usize) {
            cell.store(value, Ordering::Relaxed);
        }
    }

    /// Reads one.
    pub fn get(&self, counter: Counter) -> u64 {
        self.counters.get(counter as usize).map_or(0, |cell| cell.load(Ordering::Relaxed))
    }
}

impl Default for CellCounters {
    fn default() -> Self {
        Self::new()
    }
}

/// The page.
#[repr(C)]
#[derive(Debug)]
pub struct IvcStats {
    /// By cell.
    pub cells: [CellCounters; MAX_CELLS],
}

impl IvcStats {
    /// All zero.
    pub const fn new() -> Self {
        Self { cells: [const { CellCounters::new() }; MAX_CELLS] }
    }
}

impl Default for IvcStats {
    fn default() -> Self {
        Self::new()
    }
}

const _: () = assert!(size_of::<IvcStats>() <= 4096);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions() {
        let counters = CellCounters::new();
        for (position, counter) in Counter::ALL.into_iter().enumerate() {
            assert_eq!(counter as usize, position);
            counters.add(counter, position as u64);
            assert_eq!(counters.get(counter), position as u64);
        }
    }
}
