//! Counters that a blk PD publishes: one page, written by blk only, read by the supervisor. As in [`super::stats`], each
//! counter is right by itself.

use core::sync::atomic::AtomicU64;

use crate::{MAX_CELLS, MAX_DISKS};

/// Buckets of the latency histogram: bucket `n` counts requests that took less than `1 << (n + LATENCY_SHIFT)` counts of
/// the architected counter; the last one the rest.
pub const BUCKETS: usize = 8;
/// See [`BUCKETS`]: 2^11 counts are 33 µs at 62.5 MHz.
pub const LATENCY_SHIFT: usize = 11;

/// Counters of one disk of one cell.
#[repr(C)]
#[derive(Debug)]
pub struct DiskCounters {
    /// Requests read.
    pub reads: AtomicU64,
    /// Requests written.
    pub writes: AtomicU64,
    /// Flushes, discards and the rest.
    pub others: AtomicU64,
    /// Bytes read from the device.
    pub read_bytes: AtomicU64,
    /// Bytes written to the device.
    pub written_bytes: AtomicU64,
    /// Requests that ended with an error.
    pub errors: AtomicU64,
    /// Requests in flight now.
    pub in_flight: AtomicU64,
    /// Latency histogram.
    pub latency: [AtomicU64; BUCKETS],
    /// First sector of the disk's window, once it is known.
    pub first: AtomicU64,
    /// Sectors of the window; 0: the disk is not served.
    pub sectors: AtomicU64,
}

impl Default for DiskCounters {
    fn default() -> Self {
        Self::new()
    }
}

impl DiskCounters {
    /// All zero.
    pub const fn new() -> Self {
        Self {
            reads: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            others: AtomicU64::new(0),
            read_bytes: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            latency: [const { AtomicU64::new(0) }; BUCKETS],
            first: AtomicU64::new(0),
            sectors: AtomicU64::new(0),
        }
    }
}

/// Bucket of a request that took `counts` of the architected counter.
pub const fn bucket(counts: u64) -> usize {
    let bits = (u64::BITS - counts.leading_zeros()) as usize;
    let bucket = bits.saturating_sub(LATENCY_SHIFT);
    if bucket < BUCKETS { bucket } else { BUCKETS - 1 }
}

/// The page: disks by cell and by the backend's device number.
#[repr(C)]
#[derive(Debug)]
pub struct BlkStats {
    /// `[cell][device]`
    pub disks: [[DiskCounters; MAX_DISKS]; MAX_CELLS],
}

impl BlkStats {
    /// All zero.
    pub const fn new() -> Self {
        Self { disks: [const { [const { DiskCounters::new() }; MAX_DISKS] }; MAX_CELLS] }
    }
}

impl Default for BlkStats {
    fn default() -> Self {
        Self::new()
    }
}

/// Bytes of the region.
pub const SIZE: usize = size_of::<BlkStats>().next_multiple_of(4096);

const _: () = assert!(SIZE <= 0x2000);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_as_described() {
        assert_eq!([0, 1, (1 << LATENCY_SHIFT) - 1].map(bucket), [0; 3]);
        for n in 1..BUCKETS {
            let least = 1 << (n - 1 + LATENCY_SHIFT);
            assert_eq!([least, 2 * least - 1].map(bucket), [n; 2]);
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }
}
