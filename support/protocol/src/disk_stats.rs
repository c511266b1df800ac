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
#[derive(Debug, Default)]
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
}

/// The page: disks by cell and by the backend's device number.
#[repr(C)]
#[derive(Debug)]
pub struct BlkStats {
    /// `[cell][device]`
    pub disks: [[DiskCounters; MAX_DISKS]; MAX_CELLS],
}

/// Bytes of the region.
pub const SIZE: usize = size_of::<BlkStats>().next_multiple_of(4096);

const _: () = assert!(SIZE <= 0x2000);
