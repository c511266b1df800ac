//! Counters of each disk, published for whoever maps the page (`partita_protocol::disk_stats`).
//!
//! Only this backend writes them, so a plain load and store will do, and a reader is never waited for. A request counts
//! when it is answered; its latency is the time that it was with the device, its turn in the queue not included. The clock
//! is read once for all requests that are submitted, or found finished, in one go.

use core::sync::atomic::{AtomicU64, Ordering};

use partita_protocol::disk_stats::{BlkStats, DiskCounters, bucket};
use partita_virtio::blk::{BlkStatus, Operation, Parsed};

/// The page, and the clock of the latencies.
#[derive(Clone, Copy)]
pub struct Counting {
    /// Written by this backend only.
    pub page: &'static BlkStats,
    /// Count of the architected counter.
    pub clock: fn() -> u64,
}

fn add(counter: &AtomicU64, amount: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
}

impl Counting {
    pub(crate) fn disk(&self, client: usize, disk: usize) -> Option<&'static DiskCounters> {
        self.page.disks.get(client)?.get(disk)
    }

    /// A disk is served. What an earlier life had in flight is counted again when it is submitted again.
    pub(crate) fn serve(&self, client: usize, disk: usize, first: u64, sectors: u64) {
        let Some(counters) = self.disk(client, disk) else { return };
        counters.in_flight.store(0, Ordering::Relaxed);
        counters.first.store(first, Ordering::Relaxed);
        counters.sectors.store(sectors, Ordering::Relaxed);
    }

    /// So many requests of the disk are with the device.
    pub(crate) fn in_flight(&self, client: usize, disk: usize, requests: u16) {
        if let Some(counters) = self.disk(client, disk) {
            counters.in_flight.store(requests.into(), Ordering::Relaxed);
        }
    }

    /// A request is answered that the device never got.
    pub(crate) fn refused(&self, client: usize, disk: usize, parsed: &Parsed, status: BlkStatus) {
        if let Some(counters) = self.disk(client, disk) {
            count(counters, parsed, 0, status);
        }
    }

    /// A request is answered that was with the device; so many of the disk still are.
    #[inline]
    pub(crate) fn answered(&self, client: usize, disk: usize, parsed: &Parsed, done: &Done, in_flight: u16) {
        let Some(counters) = self.disk(client, disk) else { return };
        counters.in_flight.store(in_flight.into(), Ordering::Relaxed);
        count(counters, parsed, done.bytes, done.status);
        if let Some(slot) = counters.latency.get(bucket(done.now.saturating_sub(done.began))) {
            add(slot, 1);
        }
    }
}

/// Reads and writes of one disk that are answered in one go, without an error: what many of them have in common is counted
/// once.
pub(crate) struct Tally {
    now: u64,
    /// When those were submitted that are not in a latency slot yet, and how many they are.
    began: u64,
    pending: u64,
    reads: u64,
    read_bytes: u64,
    writes: u64,
    written_bytes: u64,
}

impl Tally {
    /// Of none. They are found finished `now`.
    #[inline]
    pub(crate) fn new(now: u64) -> Self {
        Self { now, began: 0, pending: 0, reads: 0, read_bytes: 0, writes: 0, written_bytes: 0 }
    }

    /// One more.
    #[inline]
    pub(crate) fn add(&mut self, counters: &DiskCounters, parsed: &Parsed, bytes: u64, began: u64) {
        match parsed.operation {
            Ok(Operation::Read { .. }) => {
                self.reads = self.reads.wrapping_add(1);
                self.read_bytes = self.read_bytes.wrapping_add(bytes);
            }
            Ok(Operation::Write { .. }) => {
                self.writes = self.writes.wrapping_add(1);
                self.written_bytes = self.written_bytes.wrapping_add(bytes);
            }
            _ => add(&counters.others, 1),
        }
        if began != self.began {
            self.late(counters);
            self.began = began;
        }
        self.pending = self.pending.wrapping_add(1);
    }

    #[inline]
    fn late(&mut self, counters: &DiskCounters) {
        let pending = core::mem::take(&mut self.pending);
        if let Some(slot) = counters.latency.get(bucket(self.now.saturating_sub(self.began)))
            && pending != 0
        {
            add(slot, pending);
        }
    }

    /// That was all of them; so many of the disk are still with the device.
    #[inline]
    pub(crate) fn end(mut self, counters: &DiskCounters, in_flight: u16) {
        self.late(counters);
        counters.in_flight.store(in_flight.into(), Ordering::Relaxed);
        if self.reads != 0 {
            add(&counters.reads, self.reads);
            add(&counters.read_bytes, self.read_bytes);
        }
        if self.writes != 0 {
            add(&counters.writes, self.writes);
            add(&counters.written_bytes, self.written_bytes);
        }
    }
}

/// How a request ended that was with the device.
pub(crate) struct Done {
    /// Of its data.
    pub bytes: u64,
    /// What the guest is told.
    pub status: BlkStatus,
    /// When it was submitted.
    pub began: u64,
    /// When it was found finished.
    pub now: u64,
}

#[inline]
fn count(counters: &DiskCounters, parsed: &Parsed, bytes: u64, status: BlkStatus) {
    let (requests, transferred) = match parsed.operation {
        Ok(Operation::Read { .. }) => (&counters.reads, Some(&counters.read_bytes)),
        Ok(Operation::Write { .. }) => (&counters.writes, Some(&counters.written_bytes)),
        _ => (&counters.others, None),
    };
    add(requests, 1);
    match (status, transferred) {
        (BlkStatus::Ok, Some(transferred)) => add(transferred, bytes),
        (BlkStatus::Ok, None) => {}
        _ => add(&counters.errors, 1),
    }
}
