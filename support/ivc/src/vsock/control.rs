//! The config plane: a VMM's protected calls.

use core::sync::atomic::Ordering;

use partita_protocol::backend::{INFO_CONFIG_MR, Status, label};
use partita_virtio::features;
use partita_virtio::queue::{Fault, Queue, QueueLayout};
use partita_virtio::vsock::{self, VsockConfig, feature};

use super::{Broker, QUEUE_MAX, Report};

/// Message registers of the longest reply: INFO, with 8 bytes of config space.
pub const REPLY_MRS: usize = INFO_CONFIG_MR + 1;
const _: () = assert!(size_of::<VsockConfig>() == 8);

/// What the device offers.
pub const FEATURES: u64 = feature::STREAM
    | feature::SEQPACKET
    | features::INDIRECT_DESC
    | features::EVENT_IDX
    | features::VERSION_1;

impl<R: Report> Broker<R> {
    /// A protected call of the VMM of `cell`. Returns the registers of the reply. [`Broker::run`] follows.
    pub fn call(&mut self, cell: usize, label: u64, mrs: &[u64], reply: &mut [u64; REPLY_MRS]) -> usize {
        let mr = |i: usize| mrs.get(i).copied().unwrap_or(0);
        let mut count = 1;
        let status = if mr(0) != 0 || self.client(cell).is_none() {
            Status::NoDevice
        } else {
            match label {
                label::INFO => {
                    count = REPLY_MRS;
                    let cid = self.cid_of(cell);
                    let queues = vsock::QUEUES as u64;
                    *reply = [0, FEATURES, queues, QUEUE_MAX.into(), size_of::<VsockConfig>() as u64, cid];
                    Status::Ok
                }
                label::QUEUE => {
                    let size = u16::try_from(mr(2)).unwrap_or(0);
                    let layout = QueueLayout { size, desc: mr(3), avail: mr(4), used: mr(5) };
                    self.queue(cell, mr(1), layout)
                }
                label::START => self.start(cell, mr(1)),
                label::RESET => self.reset(cell),
                _ => Status::Invalid,
            }
        };
        reply[0] = status as u64;
        count
    }

    fn queue(&mut self, cell: usize, index: u64, layout: QueueLayout) -> Status {
        let Some(client) = self.client(cell) else { return Status::NoDevice };
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        let Some(place) = client.layouts.get_mut(index) else { return Status::Invalid };
        // A VMM that notices our restart late may repeat what it has said.
        if *place == Some(layout) {
            return Status::Ok;
        }
        if client.live || Queue::new(client.ram, layout, QUEUE_MAX, 0).is_err() {
            return Status::Invalid;
        }
        *place = Some(layout);
        Status::Ok
    }

    fn start(&mut self, cell: usize, accepted: u64) -> Status {
        let Some(client) = self.client(cell) else { return Status::NoDevice };
        if client.live && client.features == accepted {
            return Status::Ok;
        }
        if client.live || accepted & !FEATURES != 0 || accepted & features::VERSION_1 == 0 {
            return Status::Invalid;
        }
        let mut queues = [None; vsock::QUEUES];
        for (queue, layout) in queues.iter_mut().zip(client.layouts) {
            match layout.map(|layout| Queue::new(client.ram, layout, QUEUE_MAX, accepted)).transpose() {
                Ok(made) => *queue = made,
                Err(_) => return Status::Invalid,
            }
        }
        client.queues = queues;
        client.features = accepted;
        client.live = true;
        client.ready = true;
        if client.was_live() {
            if let Err(fault) = self.resume(cell) {
                self.break_client(cell, fault);
            }
        } else {
            client.note_live(true);
            if let Some(chains) = self.pages.cells.get(cell) {
                chains.clear();
            }
        }
        Status::Ok
    }

    /// The device ran in an earlier life of ours: its queues go on where they were, its connections do not.
    fn resume(&mut self, cell: usize) -> Result<(), Fault> {
        let Some(chains) = self.pages.cells.get(cell) else { return Ok(()) };
        let Some(client) = self.client(cell) else { return Ok(()) };
        for (number, queue) in client.queues.iter_mut().enumerate() {
            let Some(queue) = queue else { continue };
            queue.resume(0)?;
            if number == vsock::TX {
                let waiting = chains.waiting(queue.next_used()).count();
                queue.resume(waiting as u16)?;
            }
        }
        let used = client.queues.get(vsock::TX).and_then(Option::as_ref).map_or(0, Queue::next_used);
        for head in chains.waiting(used) {
            client.give_back(chains, head)?;
        }
        chains.clear();
        client.event_owed = true;
        // An interrupt may have been lost with the earlier life.
        if let Some(counters) = client.counters() {
            for used in counters.used.iter().take(vsock::QUEUES) {
                used.fetch_add(1, Ordering::Release);
            }
        }
        self.notify |= 1 << cell;
        Ok(())
    }

    fn reset(&mut self, cell: usize) -> Status {
        let Some(client) = self.client(cell) else { return Status::NoDevice };
        client.stop();
        client.layouts = [None; vsock::QUEUES];
        if let Some(counters) = client.counters() {
            counters.needs_reset.store(0, Ordering::Release);
        }
        self.forget(cell);
        Status::Ok
    }
}
