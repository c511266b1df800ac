//! One virtio device of the guest whose backend is another PD (protocol::backend): blk or ivc. The transport is here.

use core::fmt;
use core::sync::atomic::Ordering;

use partita_protocol::MAX_QUEUES;
use partita_protocol::backend::{BackendStatus, DeviceStatus, INFO_CONFIG_MR, Status, label};
use partita_virtio::mmio::registers::reg;
use partita_virtio::mmio::{MAX_CONFIG, Transport};

use crate::machine::{Machine, Page};

/// Registers of an INFO reply.
const INFO_WORDS: usize = INFO_CONFIG_MR + MAX_CONFIG / 8;

/// What kind of device it is: virtio device ids (section 5).
pub mod device_id {
    /// Block device.
    pub const BLK: u32 = 2;
    /// Socket device.
    pub const VSOCK: u32 = 19;
}

/// Where a device's backend is.
#[derive(Clone, Copy)]
pub struct Backend<'a> {
    /// One of [`device_id`].
    pub id: u32,
    /// Channel to the backend.
    pub channel: usize,
    /// The backend's number of the device.
    pub device: usize,
    /// The page that the backend writes for this VMM.
    pub status: &'a BackendStatus,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Refused(status) => write!(f, "backend says {status:?}"),
            Trouble::Malformed => f.write_str("backend sent a malformed reply"),
        }
    }
}

/// What the backend says about a device.
struct Info {
    features: u64,
    queues: usize,
    queue_size: u16,
    config: [u8; MAX_CONFIG],
    config_length: usize,
}

/// Counters of the status page that were seen last.
#[derive(Clone, Copy, Default)]
struct Seen {
    used: [u32; MAX_QUEUES],
    config: u32,
    needs_reset: bool,
    generation: u32,
}

/// The device.
pub struct Remote<'a, P> {
    /// Its registers.
    pub transport: Transport<P>,
    /// Number of its queues.
    pub queues: usize,
    backend: Backend<'a>,
    seen: Seen,
}

/// Why a device is not there or does not go on. For the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The backend refused.
    Refused(Status),
    /// The backend's answer was shorter than the protocol says.
    Malformed,
}

impl<'a, P: Page> Remote<'a, P> {
    /// Asks the backend for the device. `Err(Refused(Pending))`: ask again when it notifies.
    pub fn new<M: Machine>(machine: &mut M, page: P, backend: Backend<'a>) -> Result<Self, Trouble> {
        // This VMM may be one that was restarted: nothing of the guest before may be in flight.
        backend.ask(machine, label::RESET, &[backend.device as u64])?;
        let info = backend.info(machine)?;
        let maxes = [info.queue_size; MAX_QUEUES];
        let maxes = maxes.get(..info.queues).unwrap_or(&maxes);
        let config = info.config.get(..info.config_length).unwrap_or(&info.config);
        let transport = Transport::new(page, backend.id, info.features, config, maxes);
        let mut remote = Self { transport, queues: maxes.len(), backend, seen: Seen::default() };
        remote.look();
        Ok(remote)
    }

    /// Channel to the backend.
    pub fn channel(&self) -> usize {
        self.backend.channel
    }

    /// What the guest must have stored at `offset`, if only one value makes sense there now.
    #[inline]
    pub fn only_value(&self, offset: usize) -> Option<u64> {
        match offset {
            reg::QUEUE_NOTIFY if self.queues == 1 => Some(0),
            // As the guest reads it.
            reg::INTERRUPT_ACK => {
                let bits = self.transport.interrupt_status().bits();
                bits.is_power_of_two().then_some(bits.into())
            }
            _ => None,
        }
    }

    /// The driver is ready: hands its queues to the backend. On an error the device needs a reset.
    pub fn start<M: Machine>(&mut self, machine: &mut M, features: u64) -> Result<(), Trouble> {
        self.look();
        let device = self.backend.device as u64;
        for (index, queue) in self.transport.ready_queues() {
            let request = [device, index.into(), queue.size.into(), queue.desc, queue.avail, queue.used];
            self.backend.ask(machine, label::QUEUE, &request)?;
        }
        self.backend.ask(machine, label::START, &[device, features])
    }

    /// Stops the backend. `Ok(false)`: requests are still in flight; ask again when it notifies. Whatever else it says,
    /// it has nothing of ours any more.
    pub fn stop<M: Machine>(&mut self, machine: &mut M) -> Result<bool, Trouble> {
        match self.backend.ask(machine, label::RESET, &[self.backend.device as u64]) {
            Err(Trouble::Refused(Status::Pending)) => Ok(false),
            result => {
                self.transport.complete_reset();
                self.look();
                result.map(|()| true)
            }
        }
    }

    /// The backend has notified: takes over what changed in its page. True if the interrupt line may have changed.
    pub fn poll<M: Machine>(&mut self, machine: &mut M) -> Result<bool, Trouble> {
        let old = self.seen;
        self.look();
        let now = self.seen;
        let mut raised = false;
        if now.generation != old.generation && self.transport.is_live() && !self.transport.is_resetting() {
            // The backend was restarted and knows nothing: it gets our queues again (architecture, "Restart").
            let features = self.transport.driver_features();
            if let Err(trouble) = self.start(machine, features) {
                self.transport.needs_reset();
                return Err(trouble);
            }
            raised |= self.transport.raise_used();
        }
        if now.used != old.used {
            raised |= self.transport.raise_used();
        }
        if now.config != old.config
            && let Ok(info) = self.backend.info(machine)
        {
            raised |= self.transport.raise_config(info.config.get(..info.config_length).unwrap_or(&[]));
        }
        if now.needs_reset && !old.needs_reset {
            raised |= self.transport.needs_reset();
        }
        Ok(raised)
    }

    /// Reads the status page.
    fn look(&mut self) {
        self.seen.generation = self.backend.status.generation.load(Ordering::Acquire);
        let Some(status) = self.backend.device_status() else { return };
        for (seen, used) in self.seen.used.iter_mut().zip(&status.used) {
            *seen = used.load(Ordering::Acquire);
        }
        self.seen.config = status.config.load(Ordering::Acquire);
        self.seen.needs_reset = status.needs_reset.load(Ordering::Acquire) != 0;
    }
}

impl<'a> Backend<'a> {
    fn device_status(&self) -> Option<&'a DeviceStatus> {
        self.status.devices.get(self.device)
    }

    fn ask<M: Machine>(&self, machine: &mut M, label: u64, request: &[u64]) -> Result<(), Trouble> {
        let mut reply = [0];
        match machine.call(self.channel, label, request, &mut reply) {
            0 => Err(Trouble::Malformed),
            _ => match Status::from_word(reply[0]) {
                Status::Ok => Ok(()),
                status => Err(Trouble::Refused(status)),
            },
        }
    }

    fn info<M: Machine>(&self, machine: &mut M) -> Result<Info, Trouble> {
        let mut reply = [0; INFO_WORDS];
        let count = machine.call(self.channel, label::INFO, &[self.device as u64], &mut reply);
        let reply = reply.get(..count).unwrap_or(&reply);
        let [status, rest @ ..] = reply else { return Err(Trouble::Malformed) };
        match Status::from_word(*status) {
            Status::Ok => {}
            status => return Err(Trouble::Refused(status)),
        }
        let [features, queues, queue_size, config_length, words @ ..] = rest else {
            return Err(Trouble::Malformed);
        };
        let mut config = [0; MAX_CONFIG];
        for (bytes, word) in config.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let config_length = usize::try_from(*config_length).unwrap_or(usize::MAX);
        if config_length > words.len().saturating_mul(8).min(MAX_CONFIG) {
            return Err(Trouble::Malformed);
        }
        let queues = usize::try_from(*queues).unwrap_or(usize::MAX);
        let queue_size = u16::try_from(*queue_size).map_err(|_| Trouble::Malformed)?;
        if queues == 0 || queues > MAX_QUEUES || !queue_size.is_power_of_two() {
            return Err(Trouble::Malformed);
        }
        Ok(Info { features: *features, queues, queue_size, config, config_length })
    }
}
