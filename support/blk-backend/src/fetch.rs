//! Which chain is next, and a short way for the most frequent ones: a read or write of one segment that is in order.
//!
//! The short way does nothing that `serve` does not do; it decides by fewer looks. What it does not take goes there.

use partita_storage::device::{BlockDevice, Command, Request, SECTOR};
use partita_virtio::blk::plain;

use crate::inflight::{Entry, Owner};
use partita_protocol::MAX_QUEUES;

use crate::{Backend, Client, Flight, Report, Ring};

impl<D: BlockDevice, R: Report> Backend<D, R> {
    /// Fetches chains, in turns, as far as the budget and the device's depth go.
    pub(crate) fn fetch(&mut self, budget: &mut usize) {
        while *budget > 0 && self.free != 0 {
            let eligible = self.eligible();
            let Some(client) = self.turns.next(eligible, self.ready) else { break };
            self.turn(client, budget);
        }
    }

    /// Serves one queue of one of the client's disks until the client's credit is used up; at least one chain.
    fn turn(&mut self, client_id: usize, budget: &mut usize) {
        let Some((disk_id, queue_id)) = self.client(client_id).and_then(Client::next_queue) else {
            self.ready &= !(1 << client_id);
            *budget -= 1;
            return;
        };
        loop {
            *budget -= 1;
            // With limits every request is looked at.
            let plain = !self.limits.any() && self.submit_plain(client_id, disk_id, queue_id);
            let more = plain || self.serve(client_id, disk_id, queue_id);
            if !more || *budget == 0 || self.free == 0 || !self.turns.goes_on(client_id) {
                return;
            }
            let share = self.share;
            if self.client(client_id).is_none_or(|client| client.in_flight >= share) {
                return;
            }
        }
    }

    /// Submits the next chain if it is a plain request and may be done as it is.
    #[inline]
    fn submit_plain(&mut self, client_id: usize, disk_id: usize, queue_id: usize) -> bool {
        let below = self.device.properties();
        let tables = &mut *self.tables;
        let Some(Some(client)) = tables.clients.get_mut(client_id) else { return false };
        let Some(Some(disk)) = client.disks.get_mut(disk_id) else { return false };
        let Some(Ring::Live(queue)) = disk.rings.get_mut(queue_id) else { return false };
        let Some(plain) = plain(queue) else { return false };
        let segment = plain.segment();
        let fits = segment.len <= below.size_max;
        let allowed = !plain.write() || !(below.read_only || disk.config.read_only || disk.write_through);
        let sectors = segment.len / SECTOR as u32;
        let at = disk.config.window.map(plain.sector(), sectors.into());
        let id = self.free.trailing_zeros() as usize;
        let (Some(sector), Some(flight), true) = (at, tables.flights.get_mut(id), fits && allowed) else {
            return false;
        };
        let (client_no, disk_no, queue_no) = (client_id as u8, disk_id as u8, queue_id as u8);
        let owner = Owner { client: client_no, disk: disk_no, queue: queue_no, head: plain.head };
        self.page.set(id, Entry::Taken(owner));
        let command = if plain.write() { Command::Write } else { Command::Read };
        let request = Request { id: id as u16, command, sector, sectors, segments: &[segment] };
        if self.device.submit(&request).is_err() {
            self.page.set(id, Entry::Free);
            return false;
        }
        queue.skip();
        let bytes = segment.len.into();
        *flight = Some(Flight {
            owner,
            parsed: plain.parsed(),
            flush_next: false,
            bytes,
            began: self.now,
            tick: self.recovery.now(),
        });
        self.free &= !(1 << id);
        self.flying += 1;
        client.in_flight += 1;
        disk.in_flight += 1;
        if let Some(counting) = self.counting {
            counting.in_flight(client_id, disk_id, disk.in_flight);
        }
        self.turns.charge(client_id, bytes);
        true
    }

    /// Clients with something to fetch whose share is not used up.
    fn eligible(&self) -> u16 {
        let mut eligible = self.ready;
        let mut rest = self.ready;
        while rest != 0 {
            let index = rest.trailing_zeros();
            rest &= rest - 1;
            let in_flight = self
                .tables
                .clients
                .get(index as usize)
                .and_then(Option::as_ref)
                .map_or(0, |client| client.in_flight);
            if in_flight >= self.share {
                eligible &= !(1 << index);
            }
        }
        eligible
    }
}

impl Client {
    /// The next queue with something to fetch: disks take turns, and the queues of each do.
    #[inline]
    fn next_queue(&mut self) -> Option<(usize, usize)> {
        let bit = from(self.ready, self.cursor * MAX_QUEUES as u32)?;
        let disk_id = bit as usize / MAX_QUEUES;
        self.cursor = disk_id as u32 + 1;
        let disk = self.disks.get_mut(disk_id)?.as_mut()?;
        let rings = self.ready >> (disk_id * MAX_QUEUES) & ((1 << MAX_QUEUES) - 1);
        let queue = from(rings, disk.cursor.into())?;
        disk.cursor = queue as u8 + 1;
        Some((disk_id, queue as usize))
    }
}

/// The first bit of `bits` from number `at` on, or else the first.
const fn from(bits: u16, at: u32) -> Option<u32> {
    let after = bits as u32 & !((1 << at) - 1);
    let bits = if after != 0 { after } else { bits as u32 };
    if bits == 0 { None } else { Some(bits.trailing_zeros()) }
}
