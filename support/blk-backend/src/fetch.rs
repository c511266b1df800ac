//! Which chain is next, and a short way for the most frequent ones: a read or write of one segment that is in order.
//!
//! The short way does nothing that `serve` does not do; it decides by fewer looks. What it does not take goes there.

use partita_protocol::MAX_QUEUES;
use partita_storage::device::{BlockDevice, SECTOR};
use partita_virtio::blk::plain;

use crate::inflight::{Entry, Owner};
use crate::{After, Backend, Client, Flight, Report, Ring, Tables};

/// What [`Backend::submit_plain`] leaves.
enum Left {
    /// The turn is over: it is others' now.
    Others,
    /// The queue is empty.
    Nothing,
    /// The next chain, if there is one, is for [`Backend::serve`].
    Chain,
}

impl<D: BlockDevice, R: Report> Backend<D, R> {
    /// Fetches chains, in turns, as far as the budget and the device's depth go.
    pub(crate) fn fetch(&mut self, budget: &mut usize) {
        while *budget > 0 && self.free != 0 && self.ready != 0 {
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
            // With limits every request is looked at.
            let left = match self.limits.any() {
                true => Left::Chain,
                false => self.submit_plain(client_id, disk_id, queue_id, budget),
            };
            if matches!(left, Left::Others) {
                return;
            }
            *budget -= 1;
            let more = match left {
                Left::Nothing => self.found_empty(client_id, disk_id, queue_id),
                _ => self.serve(client_id, disk_id, queue_id),
            };
            if !more || *budget == 0 || self.free == 0 || !self.turns.goes_on(client_id) {
                return;
            }
            let share = self.share;
            if self.client(client_id).is_none_or(|client| client.in_flight >= share) {
                return;
            }
        }
    }

    /// Submits the next chains as long as they are plain requests and may be done as they are.
    #[inline]
    fn submit_plain(
        &mut self,
        client_id: usize,
        disk_id: usize,
        queue_id: usize,
        budget: &mut usize,
    ) -> Left {
        let Tables { clients, flights, .. } = &mut *self.tables;
        let Some(Some(client)) = clients.get_mut(client_id) else { return Left::Chain };
        let Some(Some(disk)) = client.disks.get_mut(disk_id) else { return Left::Chain };
        let Some(Ring::Live(queue)) = disk.rings.get_mut(queue_id) else { return Left::Chain };
        let may_write = !(self.device.properties().read_only || disk.config.read_only || disk.write_through);
        let (window, page) = (disk.config.window, self.page);
        let (began, tick) = (self.now, self.recovery.now());
        let (client_no, disk_no, queue_no) = (client_id as u8, disk_id as u8, queue_id as u8);
        let mut submitted = 0;
        let left = loop {
            let Some(plain) = plain(queue) else {
                break if queue.has_available() == Ok(false) { Left::Nothing } else { Left::Chain };
            };
            let segment = plain.segment();
            let id = self.free.trailing_zeros() as usize;
            let at = window.map(plain.sector(), (segment.len / SECTOR as u32).into());
            let (Some(sector), Some(flight)) = (at, flights.get_mut(id)) else { break Left::Chain };
            if plain.write() && !may_write {
                break Left::Chain;
            }
            let owner = Owner { client: client_no, disk: disk_no, queue: queue_no, head: plain.head };
            page.set(id, Entry::Taken(owner));
            if self.device.submit_one(id as u16, plain.write(), sector, segment).is_err() {
                page.set(id, Entry::Free);
                break Left::Chain;
            }
            queue.skip();
            let bytes = segment.len.into();
            *flight =
                Some(Flight { owner, parsed: plain.parsed(), after: After::Answer, bytes, began, tick });
            // Its lowest bit was `id`.
            self.free &= self.free.wrapping_sub(1);
            submitted += 1;
            *budget -= 1;
            let in_credit = self.turns.charge(client_id, bytes);
            if *budget == 0
                || self.free == 0
                || !in_credit
                || client.in_flight.saturating_add(submitted) >= self.share
            {
                break Left::Others;
            }
        };
        if submitted != 0 {
            self.flying += submitted;
            client.in_flight += submitted;
            disk.in_flight += submitted;
            if let Some(counting) = self.counting {
                counting.in_flight(client_id, disk_id, disk.in_flight);
            }
        }
        left
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
