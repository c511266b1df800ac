//! The config plane: protected calls of a VMM (`partita_protocol::backend`).

use core::sync::atomic::Ordering;

use partita_protocol::MAX_QUEUES;
use partita_protocol::backend::{INFO_CONFIG_MR, Status, label};
use partita_storage::device::{BlockDevice, Health};
use partita_virtio::blk::config::BlkConfig;
use partita_virtio::blk::feature;
use partita_virtio::features;
use partita_virtio::queue::{Queue, QueueLayout};
use zerocopy::IntoBytes;

use crate::inflight::Entry;
use crate::{Backend, QUEUE_MAX, Report, Ring, State, offer, ring_bit};

/// Message registers that a reply may fill.
pub const REPLY_MRS: usize = INFO_CONFIG_MR + size_of::<BlkConfig>().div_ceil(8);

impl<D: BlockDevice, R: Report> Backend<D, R> {
    /// Answers the protected call `label` with the message registers `mrs` from `client`. Fills `reply` and says how many
    /// registers of it.
    pub fn call(&mut self, client: usize, label: u64, mrs: &[u64], reply: &mut [u64; REPLY_MRS]) -> usize {
        let mr = |index: usize| mrs.get(index).copied().unwrap_or(0);
        let disk = usize::try_from(mr(0)).unwrap_or(usize::MAX);
        let mut count = 1;
        let status = if self.disk(client, disk).is_none() {
            Status::NoDevice
        } else {
            match label {
                label::INFO if self.device.health() == Health::Failed => Status::Failed,
                label::INFO => {
                    count = self.info(client, disk, reply);
                    Status::Ok
                }
                label::QUEUE => {
                    let size = u16::try_from(mr(2)).unwrap_or(0);
                    let layout = QueueLayout { size, desc: mr(3), avail: mr(4), used: mr(5) };
                    self.queue(client, disk, mr(1), layout)
                }
                label::START => self.start(client, disk, mr(1)),
                label::RESET => self.reset(client, disk),
                _ => Status::Invalid,
            }
        };
        reply[0] = status as u64;
        count
    }

    fn info(&mut self, client: usize, disk: usize, reply: &mut [u64; REPLY_MRS]) -> usize {
        let below = *self.device.properties();
        let Some(disk) = self.disk(client, disk) else { return 1 };
        let config = offer::config(&below, &disk.config);
        reply[1] = offer::features(&below, &disk.config);
        reply[2] = disk.config.queues as u64;
        reply[3] = QUEUE_MAX.into();
        reply[4] = size_of::<BlkConfig>() as u64;
        for (word, chunk) in reply[INFO_CONFIG_MR..].iter_mut().zip(config.as_bytes().chunks(8)) {
            let mut bytes = [0; 8];
            bytes.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
            *word = u64::from_le_bytes(bytes);
        }
        REPLY_MRS
    }

    fn queue(&mut self, client: usize, disk: usize, index: u64, layout: QueueLayout) -> Status {
        let Some(ram) = self.client(client).map(|client| client.ram) else { return Status::NoDevice };
        let Some(disk) = self.disk(client, disk) else { return Status::NoDevice };
        let count = disk.config.queues;
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        let Some(ring) = disk.rings.get_mut(..count).and_then(|rings| rings.get_mut(index)) else {
            return Status::Invalid;
        };
        match (disk.state, &*ring) {
            // A call made again, because we were restarted in the middle of the VMM's calls: see `start`.
            (State::Live, Ring::Live(queue)) if *queue.layout() == layout => return Status::Ok,
            (State::Live, Ring::Absent | Ring::SetUp(_)) | (State::Idle, _) => {}
            _ => return Status::Invalid,
        }
        if Queue::new(ram, layout, QUEUE_MAX, 0).is_err() {
            return Status::Invalid;
        }
        *ring = Ring::SetUp(layout);
        Status::Ok
    }

    fn start(&mut self, client_id: usize, disk_id: usize, accepted: u64) -> Status {
        let below = *self.device.properties();
        // What answers errors alone can do all that its predecessor offered.
        let failed = self.device.health() == Health::Failed;
        let resumed = self.page.is_live(client_id, disk_id);
        let Some(ram) = self.client(client_id).map(|client| client.ram) else { return Status::NoDevice };
        let Some(disk) = self.disk(client_id, disk_id) else { return Status::NoDevice };
        let offered = offer::features(&below, &disk.config);
        let news = disk.rings.iter().any(|ring| matches!(ring, Ring::SetUp(_)));
        // A VMM's calls belong together (QUEUE of each queue, START), and we may have been restarted in the middle of them:
        // it then makes all of them again, after a START that came without some of its queues.
        match disk.state {
            State::Idle => {}
            State::Live if disk.accepted == accepted && !news => return Status::Ok,
            State::Live if disk.accepted == accepted => {}
            _ => return Status::Invalid,
        }
        if accepted & !offered != 0 && !failed || accepted & features::VERSION_1 == 0 {
            return Status::Invalid;
        }
        // Without MQ there is one queue (5.2.2).
        let (_, others) = disk.rings.split_at(1);
        if accepted & feature::MQ == 0 && others.iter().any(|ring| matches!(ring, Ring::SetUp(_))) {
            return Status::Invalid;
        }
        let mut new = 0u8;
        let mut rings = disk.rings;
        for (index, ring) in rings.iter_mut().enumerate() {
            if let Ring::SetUp(layout) = *ring {
                let Ok(queue) = Queue::new(ram, layout, QUEUE_MAX, accepted) else { return Status::Invalid };
                *ring = Ring::Live(queue);
                new |= 1 << index;
            }
        }
        disk.rings = rings;
        disk.accepted = accepted;
        disk.write_through = below.flush && accepted & feature::FLUSH == 0;
        disk.state = State::Live;
        if resumed && self.client(client_id).is_some_and(|client| client.is_broken(disk_id)) {
            // Its guest was told to reset it, and that stands.
            self.forget(client_id, disk_id);
            if let Some(disk) = self.disk(client_id, disk_id) {
                disk.end(State::Broken);
            }
            return Status::Ok;
        }
        if !resumed {
            self.page.set_live(client_id, disk_id, true);
        }
        for queue_id in (0..MAX_QUEUES).filter(|queue| new & 1 << queue != 0) {
            if let Some(client) = self.client(client_id) {
                client.started |= ring_bit(disk_id, queue_id);
            }
            if resumed {
                self.resume(client_id, disk_id, queue_id);
            }
            // Not if it broke a rule.
            if self.queue_mut(client_id, disk_id, queue_id).is_some() {
                self.mark_ready(client_id, disk_id, queue_id);
            }
        }
        Status::Ok
    }

    fn reset(&mut self, client_id: usize, disk_id: usize) -> Status {
        for queue_id in 0..MAX_QUEUES {
            self.clear_ready(client_id, disk_id, queue_id);
        }
        let Some(client) = self.client(client_id) else { return Status::NoDevice };
        let counters = client.counters(disk_id);
        let Some(disk) = client.disks.get_mut(disk_id).and_then(Option::as_mut) else {
            return Status::NoDevice;
        };
        if disk.in_flight > 0 {
            disk.end(State::Draining);
            return Status::Pending;
        }
        disk.end(State::Idle);
        if let Some(counters) = counters {
            #[cfg(test)]
            partita_virtio::fake::crash::store();
            counters.needs_reset.store(0, Ordering::Release);
        }
        // Of queues that were not set up again since, or of all.
        self.forget(client_id, disk_id);
        self.page.set_live(client_id, disk_id, false);
        Status::Ok
    }

    /// Clears what an earlier life left of a disk that is not resumed. The device was reset since: none of it is in flight.
    pub(crate) fn forget(&mut self, client: usize, disk: usize) {
        for id in 0..crate::MAX_FLIGHTS {
            if let Entry::Taken(owner) | Entry::Finishing(owner, _) = self.page.get(id)
                && usize::from(owner.client) == client
                && usize::from(owner.disk) == disk
                && self.tables.flights.get(id).is_some_and(Option::is_none)
            {
                self.page.set(id, Entry::Free);
                self.release_id(id);
            }
        }
    }
}
