//! virtio-vsock (virtio 1.2, 5.10) between cells, and what CID 2 serves.
//!
//! Three things enter: protected calls of a VMM ([`Broker::call`]), its notifications ([`Broker::kicked`]) and lines of the
//! supervisor; [`Broker::run`] then does a bounded amount of work. Payload goes from the sender's RAM into the receiver's
//! buffers in one copy.
//!
//! Both ends of a connection are guests, so both are checked: addresses against the sender's CID and the list of who may
//! connect, lengths against the chain, credit against what the receiver said it has. A packet whose receiver has no buffers
//! waits where it is, in its sender's transmit queue, and later packets for others overtake it ([`inflight`]). Only if such
//! packets have filled what may wait for [`PATIENCE`] are the connections that they belong to reset: the receiver hurts
//! those who talk to it, and these for a while, but nobody else.
//!
//! A cell that goes away (reset, restart, a broken driver) is not announced by TRANSPORT_RESET, which would cut its peers'
//! other connections too: each connection with it gets its own RST. The event is for a restart of the broker, after which
//! no connection is known.
//!
//! A broker that has died too often is started once more to refuse ([`Broker::refuse_all`]): nobody waits for an answer that
//! will not come, and what may have killed it (connections, payload, CID 2) is not touched.

mod client;
mod control;
mod host;
pub mod inflight;
mod lines;
mod packets;
mod rules;
mod run;
pub mod table;
#[cfg(test)]
mod tests;

use core::sync::atomic::Ordering;

use partita_protocol::MAX_CELLS;
use partita_protocol::backend::BackendStatus;
use partita_protocol::ivc_stats::{Counter, IvcStats};
use partita_ring::Duplex;
use partita_virtio::memory::GuestRam;
use partita_virtio::queue::Fault;
use partita_virtio::vsock::Payload;

use client::Client;
pub use control::{FEATURES, REPLY_MRS};
use host::Streams;
use inflight::InflightPages;
pub use rules::Rules;
pub use table::Connections;
use table::{HOST, Stage};

/// Greatest size of each of a guest's queues.
pub const QUEUE_MAX: u16 = 256;
/// Work of one [`Broker::run`]: bytes, and [`PACKET`] for each packet.
pub const BUDGET: i64 = 2 << 20;
/// Work of one cell's turn.
const QUANTUM: i64 = 64 << 10;
/// What a packet counts beside its bytes.
const PACKET: i64 = 512;
/// Seconds that packets may wait for a receiver's buffers while nothing else of their sender's fits.
pub const PATIENCE: u64 = 2;

/// Which rule of virtio-vsock a packet breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Its source is not the sender's CID.
    Source,
    /// Its socket type is unknown, was not negotiated, or is not the connection's.
    Type,
    /// Its operation is unknown.
    Operation,
    /// It has more payload than its chain, or payload where none may be.
    Length,
    /// It names more bytes as consumed than were delivered.
    Credit,
    /// It carries more bytes than its receiver has room for.
    Overrun,
    /// It is not allowed in the connection's state.
    State,
}

/// Why a connection was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// partita.json does not allow it.
    NotAllowed,
    /// Nobody has this CID, or its device is off.
    Nobody,
    /// The cell has as many connections as it may have.
    Limit,
    /// The broker has died too often and makes no connections.
    Held,
}

/// What somebody should know about. Called for each thing that happens; the PD limits the rate.
pub trait Report {
    /// The guest's driver broke a rule of virtio: it sees DEVICE_NEEDS_RESET.
    fn fault(&mut self, cell: usize, fault: Fault);
    /// A packet of this cell broke a rule of virtio-vsock.
    fn violation(&mut self, cell: usize, violation: Violation);
    /// A connection was refused; `to` is the CID asked for.
    fn refused(&mut self, cell: usize, to: u64, port: u32, why: Refusal);
    /// Connections of `cell` with `to` were reset because that does not take what is sent to it.
    fn gave_up(&mut self, cell: usize, to: usize);
    /// The guest wrote a line to the log.
    fn line(&mut self, cell: usize, line: &[u8]);
}

/// A field of this type makes the `None` of an `Option` around the whole zeroes: its values that are never used are the most
/// of all fields', and zero is the next below the used one. A table of `None` then takes no room in the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
enum Presence {
    Here = 1,
}

/// What is too big for a small stack. Belongs into a static; another one than [`Connections`], which are zeroes at first.
pub struct Tables {
    clients: [Option<Client>; MAX_CELLS],
    payload: Payload,
    streams: Streams,
}

impl Tables {
    /// Empty.
    pub const fn new() -> Self {
        Self { clients: [const { None }; MAX_CELLS], payload: Payload::new(), streams: Streams::new() }
    }
}

impl Default for Tables {
    fn default() -> Self {
        Self::new()
    }
}

/// The switch.
pub struct Broker<R> {
    tables: &'static mut Tables,
    connections: &'static mut Connections,
    pages: &'static InflightPages,
    stats: &'static IvcStats,
    rules: Rules,
    report: R,
    /// Ring of the management service.
    manage: Option<Duplex<'static>>,
    /// Whose turn is next.
    turn: usize,
    /// Bit `cell`: to be notified.
    notify: u16,
    /// [`PATIENCE`] in counts of the clock.
    patience: u64,
    /// When to be called again although nothing happens.
    deadline: Option<u64>,
    /// Every packet is answered with a RST.
    refusing: bool,
}

impl<R: Report> Broker<R> {
    /// Without clients. `pages` are what an earlier life may have left; `second` is the clock's.
    pub fn new(
        tables: &'static mut Tables,
        connections: &'static mut Connections,
        pages: &'static InflightPages,
        stats: &'static IvcStats,
        rules: Rules,
        report: R,
        second: u64,
    ) -> Self {
        let patience = second.saturating_mul(PATIENCE);
        Self {
            tables,
            connections,
            pages,
            stats,
            rules,
            report,
            manage: None,
            turn: 0,
            notify: 0,
            patience,
            deadline: None,
            refusing: false,
        }
    }

    /// From the start on, answers with a RST whatever may have one, and moves nothing. Drivers are told that all connections
    /// are gone, as after any restart.
    pub const fn refuse_all(&mut self) {
        self.refusing = true;
    }

    /// Connects the management service.
    pub fn manage_over(&mut self, ring: Duplex<'static>) {
        self.manage = Some(ring);
    }

    /// Adds the cell `number`.
    pub fn add_client(&mut self, number: usize, cid: u32, ram: GuestRam, status: &'static BackendStatus) {
        if let Some(place) = self.tables.clients.get_mut(number) {
            *place = Some(Client::new(cid, ram, status));
        }
        if let Some(counters) = self.stats.cells.get(number) {
            counters.set(Counter::Open, 0);
        }
    }

    /// Ends the set-up: each client's page tells that we have started.
    pub fn open(&mut self) {
        let count = self.tables.clients.iter().flatten().count();
        self.tables.streams.share(count);
        for (number, client) in self.tables.clients.iter().enumerate() {
            let Some(client) = client else { continue };
            client.status.generation.fetch_add(1, Ordering::Release);
            // A VMM that waits for us looks at its page when it is notified.
            self.notify |= 1 << number;
        }
    }

    /// Cells that must be notified, as a bit set; forgets them.
    pub fn take_notify(&mut self) -> u16 {
        core::mem::take(&mut self.notify)
    }

    /// What was reported.
    pub const fn report(&mut self) -> &mut R {
        &mut self.report
    }

    fn client(&mut self, cell: usize) -> Option<&mut Client> {
        self.tables.clients.get_mut(cell)?.as_mut()
    }

    fn count(&self, cell: usize, counter: Counter, more: u64) {
        if let Some(counters) = self.stats.cells.get(cell) {
            counters.add(counter, more);
        }
    }

    /// The number of the cell with this CID, or [`HOST`].
    fn cell_of(&self, cid: u64) -> Option<usize> {
        if cid == u64::from(partita_config::HOST_CID) {
            return Some(HOST);
        }
        let is = |client: &Option<Client>| client.as_ref().is_some_and(|c| u64::from(c.cid) == cid);
        self.tables.clients.iter().position(is)
    }

    fn cid_of(&self, cell: usize) -> u64 {
        match self.tables.clients.get(cell) {
            Some(client) => client.as_ref().map_or(0, |client| client.cid.into()),
            None => partita_config::HOST_CID.into(),
        }
    }

    /// Ends a connection that is not over yet; the ends named by `tell` get a RST.
    fn end(&mut self, index: usize, tell: [bool; 2]) {
        let Some(connection) = self.connections.get(index) else { return };
        let (ends, stream, stage) = (connection.ends, connection.stream, connection.stage);
        if stage != Stage::Over {
            for end in ends {
                self.count(end.cell(), Counter::Open, u64::MAX);
            }
            if ends[1].cell() == HOST {
                self.tables.streams.close(stream.into());
            }
        }
        let told = |end: usize| tell.get(end) == Some(&true) && self.is_live(ends[end].cell());
        let tell = [told(0), told(1)];
        self.connections.end(index, tell);
    }

    /// Ends a connection because of what `cell` did or suffered, and tells both ends.
    fn reset_connection(&mut self, cell: usize, index: usize) {
        self.count(cell, Counter::Resets, 1);
        self.end(index, [true, true]);
    }

    /// Ends all connections of a cell; `tell_it`: it gets RSTs too.
    fn end_all(&mut self, cell: usize) {
        let mut from = 0;
        while let Some(index) = self.connections.of_cell(cell, from) {
            from = index + 1;
            let Some(connection) = self.connections.get(index) else { continue };
            let tell = connection.ends.map(|end| end.cell() != cell);
            for end in connection.ends.map(|end| end.cell()) {
                if end != cell {
                    self.count(end, Counter::Resets, 1);
                }
            }
            self.end(index, tell);
        }
        while self.connections.first_owed(cell).is_some() {
            self.connections.pay_owed(cell);
        }
    }

    fn is_live(&self, cell: usize) -> bool {
        matches!(self.tables.clients.get(cell), Some(Some(client)) if client.live)
    }

    /// The guest's driver broke a rule: its device stands still until it is reset.
    fn break_client(&mut self, cell: usize, fault: Fault) {
        let Some(client) = self.client(cell) else { return };
        if !client.live {
            return;
        }
        client.stop();
        if let Some(counters) = client.counters() {
            counters.needs_reset.store(1, Ordering::Release);
        }
        self.notify |= 1 << cell;
        self.forget(cell);
        self.report.fault(cell, fault);
    }

    /// Everything that a cell's device had goes.
    fn forget(&mut self, cell: usize) {
        if let Some(chains) = self.pages.cells.get(cell) {
            chains.clear();
        }
        self.end_all(cell);
    }
}
