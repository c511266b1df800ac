//! What the shell sees of the system, and what it can do to it.

use partita_config::Partition;
use partita_protocol::disk_stats::BUCKETS;
use partita_protocol::ivc_stats;
use partita_protocol::stats::Counter;
use partita_protocol::supervisor::StopReason;

use crate::lifecycle::{By, Order, Refused};
use crate::restarts::{State, Why};

/// A cell at one moment.
#[derive(Clone, Copy, Debug)]
pub struct CellView<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it does.
    pub state: &'a str,
    /// vCPUs that are on.
    pub vcpus_on: u32,
    /// vCPUs that it has.
    pub vcpus: u8,
    /// Bytes of RAM.
    pub memory: u64,
    /// Starts since the first.
    pub epoch: u32,
    /// Exits of its vCPUs.
    pub exits: u64,
    /// Why it stopped by itself, if it did.
    pub reason: Option<StopReason>,
}

/// A disk at one moment.
#[derive(Clone, Copy, Debug)]
pub struct DiskView<'a> {
    /// The cell's name.
    pub cell: &'a str,
    /// Which of its disks.
    pub number: usize,
    /// Name of the controller.
    pub controller: &'a str,
    /// The window, as configured.
    pub partition: Partition<'a>,
    /// Writes are refused.
    pub read_only: bool,
    /// First sector of the window.
    pub first: u64,
    /// Its sectors; 0: it is not served.
    pub sectors: u64,
    /// Requests answered.
    pub reads: u64,
    /// Requests answered.
    pub writes: u64,
    /// Flushes and other requests.
    pub others: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Requests answered with an error.
    pub errors: u64,
    /// Requests that are with the device.
    pub in_flight: u64,
    /// Requests by latency.
    pub latency: [u64; BUCKETS],
}

/// What a cell has to do with `ivc`, at one moment.
#[derive(Clone, Copy, Debug)]
pub struct SocketsView<'a> {
    /// The cell's name.
    pub cell: &'a str,
    /// Its CID, if it has one.
    pub cid: Option<u32>,
    /// Its counters.
    pub counters: [u64; ivc_stats::Counter::ALL.len()],
}

impl SocketsView<'_> {
    /// A counter.
    pub fn get(&self, counter: ivc_stats::Counter) -> u64 {
        self.counters.get(counter as usize).copied().unwrap_or(0)
    }
}

/// A peer's part in a link, at one moment.
#[derive(Clone, Copy, Debug)]
pub struct LinkView<'a> {
    /// The link's name.
    pub link: &'a str,
    /// What guests call it.
    pub id: u8,
    /// The peer's number.
    pub peer: usize,
    /// The cell that is this peer.
    pub cell: &'a str,
    /// Bytes of the section that all peers write.
    pub shared: u64,
    /// Bytes of the section that only this peer writes.
    pub output: u64,
    /// Doorbells that it rang for other peers.
    pub rung: u64,
    /// Doorbells that name no other peer of the link.
    pub refused: u64,
    /// Interrupts that it got: fewer than were rung for it when doorbells coalesce.
    pub delivered: u64,
    /// Doorbells for it while it did not run.
    pub dropped: u64,
}

/// A protection domain at one moment.
#[derive(Clone, Debug)]
pub struct PdView {
    /// Its name.
    pub name: heapless::String<64>,
    /// What it does.
    pub state: State,
    /// How often it was started again.
    pub restarts: u32,
    /// Pings answered.
    pub beats: u32,
    /// Why it last stopped.
    pub why: Option<Why>,
}

/// The system.
pub trait System {
    /// Cell `n`; `None` behind the last one.
    fn cell(&self, n: usize) -> Option<CellView<'_>>;
    /// Its counters.
    fn counters(&self, n: usize) -> [u64; Counter::ALL.len()];
    /// Disk `number` of cell `n`; `None` behind the last one.
    fn disk(&self, n: usize, number: usize) -> Option<DiskView<'_>>;
    /// What cell `n` has to do with `ivc`; `None` behind the last one, and without an `ivc`.
    fn sockets(&self, n: usize) -> Option<SocketsView<'_>>;
    /// Peer `peer` of link `n`; `None` behind the last one of either.
    fn link(&self, n: usize, peer: usize) -> Option<LinkView<'_>>;
    /// Counts of the latencies' clock in a second.
    fn frequency(&self) -> u64;
    /// Reads the log from the position `from` on, or from the oldest byte that is kept: where it was read from, and how many
    /// bytes; none at the end.
    fn log(&self, from: u64, out: &mut [u8]) -> (u64, usize);
    /// Gives an order to cell `n`.
    fn order(&mut self, n: usize, order: Order, by: By) -> Result<(), Refused>;
    /// The PD with this child number, if there is one.
    fn pd(&self, n: usize) -> Option<PdView>;
    /// Starts it again. `Err` says why not, after its name.
    fn restart_pd(&mut self, n: usize) -> Result<(), &'static str>;
    /// Begins to kill it `count` times, `every` milliseconds; `own`: as if by its own fault.
    fn kill(&mut self, n: usize, count: u32, every: u32, own: bool) -> Result<(), &'static str>;
    /// A message to a cell, or to all. The result is to how many.
    fn send(&mut self, to: Option<usize>, by: By, text: &str) -> usize;
    /// Stops all cells and switches the machine off.
    fn shut_down(&mut self, by: By);
}
