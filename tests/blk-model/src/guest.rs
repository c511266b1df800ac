//! A guest with one disk of one or two queues: its driver, and the VMM's side of it.

use std::{cell::Cell, collections::HashMap};

use partita_blk_backend::{Backend, REPLY_MRS, Report};
use partita_guest::gic::Injection;
use partita_pd_vmm::machine::{Field, Machine, Page};
use partita_pd_vmm::remote::Remote;
use partita_protocol::backend::BackendStatus;
use partita_storage::device::BlockDevice;
use partita_storage::fake::FakeDisk;
use partita_virtio::blk::{Header, feature, kind};
use partita_virtio::fake::{Buffer, DriverQueue, FakeRam};
use partita_virtio::features;
use partita_virtio::mmio::RegisterPage;

use crate::model::byte;

/// Guest-physical address of RAM, and bytes of it.
pub const BASE: u64 = 0x4000_0000;
/// See [`BASE`].
pub const RAM: u64 = 0x2_8000;
/// Descriptors of a guest's queue.
pub const QUEUE: u16 = 16;
/// Queues of a disk.
pub const QUEUES: usize = 2;
/// Bytes from one queue's rings to the next one's, from the beginning of RAM.
pub const RINGS: u64 = 0x200;
const _: () = assert!(DriverQueue::bytes(QUEUE) <= RINGS);
const SLOTS: u64 = BASE + 0x2000;
const SLOT: u64 = 0x200;
const DATA: u64 = BASE + 0x6000;
const ROOM: u64 = 0x1000;
/// Most sectors of a request.
pub const MOST: usize = (ROOM / 512) as usize;

/// A register page.
#[derive(Clone, Copy)]
pub struct Registers(pub &'static [Cell<u32>; 1024]);

impl RegisterPage for Registers {
    fn store(&mut self, offset: usize, value: u32) {
        self.0[offset / 4].set(value);
    }
}

impl Page for Registers {
    fn load(&self, offset: usize) -> u32 {
        self.0[offset / 4].get()
    }
}

/// The way from a VMM to the backend. The rest of a [`Machine`] has nothing to do with disks.
pub struct Calls<'a, R: Report> {
    /// Who answers.
    pub backend: &'a mut Backend<FakeDisk, R>,
    /// Who asks.
    pub client: usize,
}

impl<R: Report> Machine for Calls<'_, R> {
    fn call(&mut self, _: usize, label: u64, request: &[u64], reply: &mut [u64]) -> usize {
        let mut words = [0; REPLY_MRS];
        let count = self.backend.call(self.client, label, request, &mut words);
        if self.backend.run() {
            self.backend.device_mut().nudge();
        }
        let count = count.min(reply.len());
        reply[..count].copy_from_slice(&words[..count]);
        count
    }
    fn registers(&mut self, _: usize, _: &mut [u64]) {}
    fn set_registers(&mut self, _: usize, _: &[u64], _: bool) {}
    fn resume(&mut self, _: usize) {}
    fn suspend(&mut self, _: usize) {}
    fn reset(&mut self, _: usize) {}
    fn field(&mut self, _: usize, _: Field) -> u64 {
        0
    }
    fn set_field(&mut self, _: usize, _: Field, _: u64) {}
    fn inject(&mut self, _: usize, _: Injection) {}
    fn ack_timer(&mut self, _: usize) {}
    fn ack_irq(&mut self, _: usize) {}
    fn counter(&self) -> u64 {
        0
    }
    fn frequency(&self) -> u64 {
        1
    }
    fn signal(&mut self, _: usize) {}
    fn clean(&mut self, _: u64, _: u64) {}
    fn publish(&mut self, _: u64, _: u64) {}
}

/// A request as the guest remembers it.
#[derive(Clone, Debug)]
pub struct Sent {
    /// VIRTIO_BLK_T_*.
    pub kind: u32,
    /// First sector.
    pub sector: usize,
    /// Bytes of its sectors; for a read, zeroes.
    pub bytes: Vec<u8>,
    slot: u64,
    /// When it was sent, in ticks.
    pub tick: u32,
    /// An error is no surprise.
    pub excused: bool,
}

/// A request that is over.
#[derive(Debug)]
pub struct Got {
    /// What it was.
    pub sent: Sent,
    /// Its [`key`].
    pub key: u16,
    /// Its status byte.
    pub status: u8,
    /// Length in the used ring.
    pub used: u32,
    /// What its buffers hold.
    pub data: Vec<u8>,
}

/// See the module.
pub struct Guest {
    /// RAM.
    pub ram: FakeRam,
    /// Registers, as the guest reads them.
    pub registers: Registers,
    /// What the backend writes for the VMM.
    pub status: &'static BackendStatus,
    /// The VMM's side.
    pub remote: Remote<'static, Registers>,
    /// The driver's queues.
    pub drivers: Vec<DriverQueue>,
    /// What the driver wants of the features.
    pub features: u64,
    /// In flight, by [`key`].
    pub sent: HashMap<u16, Sent>,
    /// The VMM has to be told of new buffers in these queues.
    pub kick: [bool; QUEUES],
    slots: Vec<u64>,
}

/// What a chain is known by: its queue and its head descriptor.
pub const fn key(queue: usize, head: u16) -> u16 {
    queue as u16 * QUEUE + head
}

impl Guest {
    /// A guest whose device was found, not yet started.
    pub fn new(
        ram: FakeRam,
        registers: Registers,
        status: &'static BackendStatus,
        remote: Remote<'static, Registers>,
        features: u64,
    ) -> Self {
        let mut guest = Self {
            ram,
            registers,
            status,
            remote,
            drivers: Vec::new(),
            features,
            sent: HashMap::new(),
            kick: [false; QUEUES],
            slots: Vec::new(),
        };
        guest.begin();
        guest
    }

    /// The driver begins: nothing is in flight.
    pub fn begin(&mut self) {
        let event_idx = self.features & features::EVENT_IDX != 0;
        let queues = if self.features & feature::MQ == 0 { 1 } else { QUEUES };
        let queue = |n| DriverQueue::new(self.ram.ram(), BASE + RINGS * n, QUEUE, event_idx);
        self.drivers = (0..queues as u64).map(queue).collect();
        self.sent.clear();
        self.slots = (0..queues as u64 * u64::from(QUEUE)).collect();
        self.kick = [false; QUEUES];
    }

    /// Sends a request, by one of the queues, whose data is in pieces of `piece` bytes. `None` if there is no room.
    pub fn send(&mut self, queue: usize, sent: Sent, piece: usize) -> Option<u16> {
        let queue = queue % self.drivers.len();
        let slot = self.slots.pop()?;
        let (at, data) = (SLOTS + SLOT * slot, DATA + ROOM * slot);
        let ram = self.ram.ram();
        ram.write_obj(at, &Header { kind: sent.kind, reserved: 0, sector: sent.sector as u64 }).ok()?;
        ram.write_obj(at + 16, &0xeeu8).ok()?;
        let (content, writable) = content(&sent);
        ram.write(data, &content).ok()?;
        let mut buffers = vec![Buffer::out(at, 16)];
        for start in (0..content.len()).step_by(piece.max(512)) {
            let len = piece.max(512).min(content.len() - start) as u32;
            buffers.push(Buffer { addr: data + start as u64, len, writable });
        }
        buffers.push(Buffer::into(at + 16, 1));
        let head = match self.features & features::INDIRECT_DESC {
            0 => self.drivers[queue].add(&buffers),
            _ => self.drivers[queue].add_indirect(at + 32, &buffers),
        };
        let Some(head) = head else {
            self.slots.push(slot);
            return None;
        };
        let key = key(queue, head);
        assert!(self.sent.insert(key, Sent { slot, ..sent }).is_none(), "{head} of {queue} is in flight");
        self.kick[queue] |= self.drivers[queue].needs_kick();
        Some(key)
    }

    /// Takes one used element.
    pub fn take(&mut self) -> Option<Got> {
        let take = |(queue, driver): (usize, &mut DriverQueue)| Some((queue, driver.take_used()?));
        let (queue, (head, used)) = self.drivers.iter_mut().enumerate().find_map(take)?;
        let key = key(queue, head);
        let sent = self.sent.remove(&key).expect("completes once");
        let status = self.ram.bytes(SLOTS + SLOT * sent.slot + 16, 1)[0];
        let data = self.ram.bytes(DATA + ROOM * sent.slot, content(&sent).0.len());
        self.slots.push(sent.slot);
        Some(Got { sent, key, status, used, data })
    }

    /// Whether the device shall interrupt for what it uses.
    pub fn want_interrupt(&mut self, on: bool) {
        for driver in &mut self.drivers {
            driver.want_interrupt(on);
        }
    }

    /// Whether something in flight touches these sectors; of reads only if `write`.
    pub fn touches(&self, first: usize, count: usize, write: bool) -> bool {
        self.sent.values().any(|sent| {
            let other = sent.sector..sent.sector + sent.bytes.len();
            (write || sent.kind != kind::IN) && first < other.end && other.start < first + count
        })
    }
}

impl Sent {
    /// A request for `count` sectors. `value` is where the bytes of a write begin.
    pub fn new(kind: u32, sector: usize, count: usize, value: u8, tick: u32) -> Self {
        let bytes = match kind {
            kind::OUT => (0..count).map(|i| byte(value, i)).collect(),
            kind::IN | kind::WRITE_ZEROES => vec![0; count],
            _ => Vec::new(),
        };
        let sector = if bytes.is_empty() { 0 } else { sector };
        Self { kind, sector, bytes, slot: 0, tick, excused: false }
    }
}

/// What its buffers hold when it is sent, and whether the device writes them.
fn content(sent: &Sent) -> (Vec<u8>, bool) {
    match sent.kind {
        kind::OUT => (sent.bytes.iter().flat_map(|byte| [*byte; 512]).collect(), false),
        kind::IN => (vec![0xcc; 512 * sent.bytes.len()], true),
        kind::GET_ID => (vec![0xcc; 20], true),
        kind::WRITE_ZEROES => {
            // struct virtio_blk_discard_write_zeroes (5.2.6).
            let mut range = (sent.sector as u64).to_le_bytes().to_vec();
            range.extend((sent.bytes.len() as u32).to_le_bytes());
            range.extend([0; 4]);
            (range, false)
        }
        _ => (Vec::new(), false),
    }
}
