//! A short way for completions of which there is nothing to say: those of one queue are dealt with in one go.
//!
//! It does nothing that `serve` does not do; what it does not take goes there.

use partita_storage::device::{BlockDevice, Completion, Outcome};
use partita_virtio::blk::{BlkStatus, Operation, Parsed};

use crate::count::Tally;
use crate::inflight::{Entry, Owner};
use crate::serve::answer;
use crate::{After, Backend, Client, Report, Ring, Tables, disk_bits, ring_bit};

impl<D: BlockDevice, R: Report> Backend<D, R> {
    /// Completions of one queue from `first` on, as long as each did what was asked and that is all. Returns the bits of their
    /// numbers, as [`Backend::finish`] does, and what is next; with no bits that is still `first`.
    #[inline]
    pub(crate) fn finish_plain(&mut self, first: Completion) -> (u64, Option<Completion>) {
        let mut next = Some(first);
        let Tables { flights, clients, .. } = &mut *self.tables;
        let Some(Some(flight)) = flights.get(usize::from(first.id)) else { return (0, next) };
        let of = flight.owner;
        let (client_id, disk_id) = (usize::from(of.client), usize::from(of.disk));
        let Some(Some(client)) = clients.get_mut(client_id) else { return (0, next) };
        let Some(Some(disk)) = client.disks.get_mut(disk_id) else { return (0, next) };
        let Some(Ring::Live(queue)) = disk.rings.get_mut(usize::from(of.queue)) else { return (0, next) };
        let page = self.page;
        let mut tally = Tally::new(self.now);
        let counters = self.counting.and_then(|counting| counting.disk(client_id, disk_id));
        let (mut bits, mut count, mut others) = (0u64, 0u16, 0u16);
        while let Some(Completion { id, outcome: Outcome::Done }) = next {
            let Some(place) = flights.get_mut(usize::from(id)) else { break };
            let Some(flight) = place else { break };
            let owner = flight.owner;
            if (Owner { head: of.head, ..owner }) != of || flight.after == After::Flush {
                break;
            }
            let position = queue.next_used();
            // A fault comes up again in `finish`, which says so.
            if answer(queue, owner.head, &flight.parsed, BlkStatus::Ok).is_err() {
                break;
            }
            page.set(id.into(), Entry::Finishing(owner, position));
            if let Some(counters) = counters {
                tally.add(counters, &flight.parsed, flight.bytes, flight.began);
            }
            others += u16::from(!is_transfer(&flight.parsed));
            *place = None;
            bits |= 1 << (id & 63);
            count += 1;
            next = self.device.complete();
        }
        if count != 0 {
            self.flying = self.flying.saturating_sub(count);
            client.in_flight = client.in_flight.saturating_sub(count);
            disk.in_flight = disk.in_flight.saturating_sub(count);
            disk.others = disk.others.saturating_sub(others);
            if let Some(counters) = counters {
                tally.end(counters, disk.in_flight);
            }
            client.unpublished |= ring_bit(disk_id, usize::from(of.queue));
            self.unpublished |= 1 << client_id;
            if client.look_again(disk_id) {
                self.ready |= 1 << client_id;
            }
        }
        (bits, next)
    }
}

/// It is a read or a write.
pub(crate) const fn is_transfer(parsed: &Parsed) -> bool {
    matches!(parsed.operation, Ok(Operation::Read { .. } | Operation::Write { .. }))
}

impl Client {
    /// A request of the disk is done: its quiet queues are ready again. True if there are some.
    #[inline]
    pub(crate) fn look_again(&mut self, disk_id: usize) -> bool {
        let quiet = self.quiet & disk_bits(disk_id);
        self.quiet &= !quiet;
        self.ready |= quiet;
        quiet != 0
    }
}
