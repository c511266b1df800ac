//! The config plane: protected calls of a VMM (`partita_protocol::backend`).

use core::sync::atomic::Ordering;

use partita_protocol::backend::{INFO_CONFIG_MR, Status, label};
use partita_storage::device::{BlockDevice, Health};
use partita_virtio::blk::config::BlkConfig;
use partita_virtio::blk::feature;
use partita_virtio::features;
use partita_virtio::queue::{Queue, QueueLayout};
use zerocopy::IntoBytes;

use crate::inflight::Entry;
use crate::{Backend, QUEUE_MAX, Report, State, offer};

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
        reply[2] = 1;
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
        match disk.state {
            _ if index != 0 => return Status::Invalid,
            // A call made again, because we were restarted in the middle of the VMM's calls: see `start`.
            State::Live(Some(_)) if disk.layout == Some(layout) => return Status::Ok,
            State::Idle | State::Live(None) => {}
            _ => return Status::Invalid,
        }
        if Queue::new(ram, layout, QUEUE_MAX, 0).is_err() {
            return Status::Invalid;
        }
        disk.layout = Some(layout);
        Status::Ok
    }

    fn start(&mut self, client_id: usize, disk_id: usize, accepted: u64) -> Status {
        let below = *self.device.properties();
        let resumed = self.page.is_live(client_id, disk_id);
        let Some(ram) = self.client(client_id).map(|client| client.ram) else { return Status::NoDevice };
        let Some(disk) = self.disk(client_id, disk_id) else { return Status::NoDevice };
        let offered = offer::features(&below, &disk.config);
        // A VMM's calls belong together (QUEUE, START), and we may have been restarted in the middle of them: it then makes
        // all of them again, after a START that came without its queue.
        let again = match disk.state {
            State::Idle => false,
            State::Live(queue) if disk.accepted == accepted => match (queue, disk.layout) {
                (None, Some(_)) => true,
                _ => return Status::Ok,
            },
            _ => return Status::Invalid,
        };
        if (!matches!(disk.state, State::Idle) && !again)
            || accepted & !offered != 0
            || accepted & features::VERSION_1 == 0
        {
            return Status::Invalid;
        }
        let queue = match disk.layout.map(|layout| Queue::new(ram, layout, QUEUE_MAX, accepted)).transpose() {
            Ok(queue) => queue,
            Err(_) => return Status::Invalid,
        };
        disk.accepted = accepted;
        disk.write_through = below.flush && accepted & feature::FLUSH == 0;
        disk.state = State::Live(queue);
        if resumed && self.client(client_id).is_some_and(|client| client.is_broken(disk_id)) {
            // Its guest was told to reset it, and that stands.
            self.forget(client_id, disk_id);
            if let Some(disk) = self.disk(client_id, disk_id) {
                disk.state = State::Broken;
            }
            return Status::Ok;
        }
        if resumed {
            self.resume(client_id, disk_id);
        } else {
            self.page.set_live(client_id, disk_id, true);
        }
        self.mark_ready(client_id, disk_id);
        Status::Ok
    }

    fn reset(&mut self, client_id: usize, disk_id: usize) -> Status {
        let resumed = self.page.is_live(client_id, disk_id);
        let Some(client) = self.client(client_id) else { return Status::NoDevice };
        client.ready &= !(1 << disk_id);
        if client.ready == 0 {
            self.ready &= !(1 << client_id);
        }
        let Some(client) = self.client(client_id) else { return Status::NoDevice };
        let counters = client.counters(disk_id);
        let Some(disk) = client.disks.get_mut(disk_id).and_then(Option::as_mut) else {
            return Status::NoDevice;
        };
        disk.layout = None;
        disk.unpublished = false;
        if disk.in_flight > 0 {
            disk.state = State::Draining;
            return Status::Pending;
        }
        let never_resumed = resumed && matches!(disk.state, State::Idle);
        disk.state = State::Idle;
        if let Some(counters) = counters {
            #[cfg(test)]
            partita_virtio::fake::crash::store();
            counters.needs_reset.store(0, Ordering::Release);
        }
        if never_resumed {
            self.forget(client_id, disk_id);
        }
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
