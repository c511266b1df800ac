//! The config plane: a VMM's protected calls.

use core::sync::atomic::Ordering;

use partita_protocol::backend::{INFO_CONFIG_MR, Status, label};
use partita_virtio::features;
use partita_virtio::queue::{Queue, QueueLayout};
use partita_virtio::vsock::{self, VsockConfig, feature};

use super::{Broker, QUEUE_MAX, State};

/// Message registers of the longest reply: INFO, with 8 bytes of config space.
pub const REPLY_MRS: usize = INFO_CONFIG_MR + 1;
const _: () = assert!(size_of::<VsockConfig>() == 8);

/// What the device offers.
pub const FEATURES: u64 = feature::STREAM
    | feature::SEQPACKET
    | features::INDIRECT_DESC
    | features::EVENT_IDX
    | features::VERSION_1;

impl Broker {
    /// A protected call of the VMM of `client`. Returns the registers of the reply.
    pub fn call(&mut self, client: usize, label: u64, mrs: &[u64], reply: &mut [u64; REPLY_MRS]) -> usize {
        let mr = |i: usize| mrs.get(i).copied().unwrap_or(0);
        let mut count = 1;
        let status = if mr(0) != 0 || self.client(client).is_none() {
            Status::NoDevice
        } else {
            match label {
                label::INFO => {
                    count = REPLY_MRS;
                    let cid = self.client(client).map_or(0, |client| client.cid);
                    let queues = vsock::QUEUES as u64;
                    *reply =
                        [0, FEATURES, queues, QUEUE_MAX.into(), size_of::<VsockConfig>() as u64, cid.into()];
                    Status::Ok
                }
                label::QUEUE => {
                    let size = u16::try_from(mr(2)).unwrap_or(0);
                    let layout = QueueLayout { size, desc: mr(3), avail: mr(4), used: mr(5) };
                    self.queue(client, mr(1), layout)
                }
                label::START => self.start(client, mr(1)),
                label::RESET => self.reset(client),
                _ => Status::Invalid,
            }
        };
        reply[0] = status as u64;
        count
    }

    fn queue(&mut self, client: usize, index: u64, layout: QueueLayout) -> Status {
        let Some(client) = self.client(client) else { return Status::NoDevice };
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        let (State::Idle, Some(place)) = (client.state, client.layouts.get_mut(index)) else {
            return Status::Invalid;
        };
        if Queue::new(client.ram, layout, QUEUE_MAX, 0).is_err() {
            return Status::Invalid;
        }
        *place = Some(layout);
        Status::Ok
    }

    fn start(&mut self, client: usize, accepted: u64) -> Status {
        let Some(client) = self.client(client) else { return Status::NoDevice };
        if !matches!(client.state, State::Idle)
            || accepted & !FEATURES != 0
            || accepted & features::VERSION_1 == 0
        {
            return Status::Invalid;
        }
        let mut queues = [None; vsock::QUEUES];
        for (queue, layout) in queues.iter_mut().zip(client.layouts) {
            match layout.map(|layout| Queue::new(client.ram, layout, QUEUE_MAX, accepted)).transpose() {
                Ok(made) => *queue = made,
                Err(_) => return Status::Invalid,
            }
        }
        client.state = State::Live(queues);
        Status::Ok
    }

    fn reset(&mut self, client: usize) -> Status {
        let Some(client) = self.client(client) else { return Status::NoDevice };
        client.state = State::Idle;
        client.layouts = [None; vsock::QUEUES];
        if let Some(counters) = client.counters() {
            counters.needs_reset.store(0, Ordering::Release);
        }
        Status::Ok
    }
}
