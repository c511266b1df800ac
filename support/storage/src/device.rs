//! The border between the backend and a driver.
//!
//! Requests are asynchronous: [`BlockDevice::submit`] takes as many as [`Properties::depth`], [`BlockDevice::kick`] tells
//! the device of all of them at once, [`BlockDevice::complete`] returns the finished ones in any order. A completion means
//! that the device has let go of the memory and, for a flush, that everything completed before is durable.

pub use partita_virtio::blk::{SECTOR, Segment};

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Device to memory.
    Read,
    /// Memory to device.
    Write,
    /// Make completed writes durable.
    Flush,
    /// The sectors' content is of no interest any more.
    Discard,
    /// The sectors shall read as zeroes.
    WriteZeroes {
        /// They may be deallocated.
        unmap: bool,
    },
}

/// One request. The segments are needed only until [`BlockDevice::submit`] returns, their memory until completion.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Chosen by the caller, below [`Properties::depth`], and not in flight already.
    pub id: u16,
    /// What to do.
    pub command: Command,
    /// First sector of the device. 0 for a flush.
    pub sector: u64,
    /// Sectors. 0 for a flush.
    pub sectors: u32,
    /// For a read or write, `sectors * 512` bytes in all; else empty.
    pub segments: &'a [Segment],
}

impl<'a> Request<'a> {
    /// A read, or `write`, of one segment of whole sectors.
    pub const fn one(id: u16, write: bool, sector: u64, segment: &'a Segment) -> Self {
        let command = if write { Command::Write } else { Command::Read };
        let sectors = segment.len / SECTOR as u32;
        Self { id, command, sector, sectors, segments: core::slice::from_ref(segment) }
    }
}

/// Why a request was not taken. Nothing of it has reached the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The id is in flight or not below the depth.
    BadId,
    /// The device cannot do that.
    Unsupported,
    /// More segments, or a longer one, than the device takes, or lengths that do not add up.
    Segments,
    /// Sectors that the device does not have.
    OutOfRange,
    /// The device is read-only.
    ReadOnly,
    /// The device was given up.
    Failed,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As asked.
    Done,
    /// The device reports an error.
    IoError,
    /// The device reports that it does not know the request.
    Unsupported,
    /// The device says that it is done, but it wrote less than asked, or more.
    Incomplete,
    /// The device did not finish it; it was reset, or given up, since.
    Lost,
}

/// Rules of its own that a device has broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breach {
    /// It returned this request, which it does not have: never got, or returned already.
    NotItsRequest(u32),
    /// It asked to be reset (DEVICE_NEEDS_RESET).
    NeedsReset,
}

/// How a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It works.
    Working,
    /// It broke the rules and was told to stop. Requests are taken, but none reaches it and none completes before
    /// [`BlockDevice::restart`] or [`BlockDevice::give_up`].
    Stopped(Breach),
    /// It was given up: requests are refused, those in flight complete with errors.
    Failed,
}

/// Why a device did not start again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartError {
    /// It does not say that its reset is done: it may still reach memory.
    NoReset,
    /// It was reset, but offers something else than before, or refuses what it accepted.
    Changed,
}

/// A finished request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// As submitted.
    pub id: u16,
    /// How it ended.
    pub outcome: Outcome,
}

/// Where the device likes its requests to begin and end; in logical blocks (virtio 5.2.4, SCSI's Block Limits).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// Logical blocks per physical block, log2.
    pub physical_block_exp: u8,
    /// First logical block that begins a physical one.
    pub alignment_offset: u8,
    /// Smallest sensible request.
    pub min_io: u16,
    /// Best request.
    pub opt_io: u32,
}

/// Limits of a discard or write-zeroes request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeLimits {
    /// Sectors.
    pub max_sectors: u32,
    /// Sectors that a range should be aligned to (discard).
    pub alignment: u32,
    /// Write zeroes may deallocate.
    pub may_unmap: bool,
}

/// What a device is and can do. Does not change while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Properties {
    /// Sectors of 512 bytes.
    pub sectors: u64,
    /// Logical block, bytes.
    pub block_size: u32,
    /// Writes are refused.
    pub read_only: bool,
    /// There is a volatile cache and a way to flush it. Without it, writes are durable when complete.
    pub flush: bool,
    /// Requests in flight.
    pub depth: u16,
    /// Segments of a request.
    pub seg_max: u32,
    /// Bytes of a segment.
    pub size_max: u32,
    /// If known.
    pub topology: Option<Topology>,
    /// If possible.
    pub discard: Option<RangeLimits>,
    /// If possible.
    pub write_zeroes: Option<RangeLimits>,
}

/// A disk controller with one disk.
pub trait BlockDevice {
    /// What it is and can do.
    fn properties(&self) -> &Properties;

    /// Takes a request. The device may not look at it before [`BlockDevice::kick`].
    fn submit(&mut self, request: &Request<'_>) -> Result<(), Refused>;

    /// As [`BlockDevice::submit`] for a read, or `write`, of one segment, which must be whole sectors. For drivers that have a
    /// shorter way for what most requests are.
    #[inline]
    fn submit_one(&mut self, id: u16, write: bool, sector: u64, segment: Segment) -> Result<(), Refused> {
        self.submit(&Request::one(id, write, sector, &segment))
    }

    /// Tells the device of what was submitted since the last call.
    fn kick(&mut self);

    /// Lowers the device's interrupt. Completions are to be looked for afterwards, not before.
    fn acknowledge(&mut self);

    /// A cheap look how many [`BlockDevice::complete`] may have. What a device says may be wrong.
    fn finished(&mut self) -> u16;

    /// The next finished request.
    fn complete(&mut self) -> Option<Completion>;

    /// Asks for an interrupt at the next completion. True if there is one already.
    fn arm(&mut self) -> bool;

    /// Makes the device interrupt soon although nothing may be in flight: its driver's way to be called again.
    fn nudge(&mut self);

    /// How it is.
    fn health(&self) -> Health;

    /// Resets the device and starts it again, in bounded time. Requests in flight whose bit is set in `drop` then complete
    /// as [`Outcome::Lost`]; all others are submitted again as they were, which block requests allow. After an error
    /// nothing has changed for the requests, and it may be tried again.
    fn restart(&mut self, drop: u64) -> Result<(), RestartError>;

    /// Has nothing to do with the device any more. All requests in flight complete as [`Outcome::Lost`].
    fn give_up(&mut self);
}
