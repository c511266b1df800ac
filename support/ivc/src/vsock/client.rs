//! A cell's device: its queues and what is owed to it.

use core::sync::atomic::Ordering;

use heapless::{Deque, Vec};
use partita_protocol::backend::{BackendStatus, DeviceStatus};
use partita_virtio::memory::GuestRam;
use partita_virtio::queue::{Fault, Queue, QueueLayout};
use partita_virtio::vsock::{self, EVENT_TRANSPORT_RESET, HEADER, Header, RxBuffer, SEQ_FLAGS, op};

use super::Presence;
use super::inflight::Chains;

/// Packets of a cell that may wait for their receivers' buffers.
pub const WAITING: usize = 64;
/// RSTs for packets without a connection that wait for the sender's buffers.
const STRAYS: usize = 16;

/// A packet that waits for its receiver's buffers.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    /// Its chain.
    pub head: u16,
    /// Bytes of it that have gone.
    pub offset: u32,
    /// As it was read.
    pub header: Header,
    /// The receiver's cell.
    pub to: usize,
    /// Count of the clock when it began to wait.
    pub since: u64,
}

/// A cell with a virtio-vsock device.
pub struct Client {
    #[expect(dead_code, reason = "see there")]
    presence: Presence,
    pub cid: u32,
    pub ram: GuestRam,
    pub status: &'static BackendStatus,
    pub layouts: [Option<QueueLayout>; vsock::QUEUES],
    /// Accepted by the driver.
    pub features: u64,
    /// DRIVER_OK, and no rule was broken since.
    pub live: bool,
    /// Receive, transmit, event: without those that the driver did not set up.
    pub queues: [Option<Queue>; vsock::QUEUES],
    /// There may be packets to fetch.
    pub ready: bool,
    pub waiting: Vec<Waiting, WAITING>,
    pub strays: Deque<Header, STRAYS>,
    /// The driver has to hear that all connections are gone.
    pub event_owed: bool,
    /// Bit per queue: has used elements to publish.
    dirty: u8,
    /// Bit per queue: the driver wants an interrupt.
    owing: u8,
}

impl Client {
    pub fn new(cid: u32, ram: GuestRam, status: &'static BackendStatus) -> Self {
        Self {
            presence: Presence::Here,
            cid,
            ram,
            status,
            layouts: [None; vsock::QUEUES],
            features: 0,
            live: false,
            queues: [None; vsock::QUEUES],
            ready: false,
            waiting: Vec::new(),
            strays: Deque::new(),
            event_owed: false,
            dirty: 0,
            owing: 0,
        }
    }

    pub fn counters(&self) -> Option<&'static DeviceStatus> {
        self.status.devices.first()
    }

    /// Uses the queues no more.
    pub fn stop(&mut self) {
        self.live = false;
        self.queues = [None; vsock::QUEUES];
        self.ready = false;
        self.waiting.clear();
        self.strays.clear();
        self.event_owed = false;
        (self.dirty, self.owing) = (0, 0);
        self.note_live(false);
    }

    /// Notes in the page that survives us whether the device runs.
    pub fn note_live(&self, live: bool) {
        if let Some(counters) = self.counters() {
            counters.reserved.store(live.into(), Ordering::Release);
        }
    }

    /// Whether it ran in an earlier life of ours.
    pub fn was_live(&self) -> bool {
        self.counters().is_some_and(|counters| counters.reserved.load(Ordering::Acquire) != 0)
    }

    /// Takes the next buffer of a queue, by its head. If there is none, the driver is asked to tell of the next.
    #[inline]
    fn buffer(queue: &mut Queue) -> Result<Option<u16>, Fault> {
        match queue.pop_head()? {
            None if queue.enable_kicks()? => queue.pop_head(),
            head => Ok(head),
        }
    }

    /// Puts a packet with up to `want` bytes of payload into one buffer; `fill` copies the bytes. Returns how many they
    /// were; `None`: there is no buffer. The header's length, and the flags that belong to the last byte, follow from that.
    pub fn send(
        &mut self,
        header: &Header,
        want: u32,
        fill: impl FnOnce(&RxBuffer, &GuestRam, u32) -> Result<(), Fault>,
    ) -> Result<Option<u32>, Fault> {
        let Some(Some(queue)) = self.queues.get_mut(vsock::RX) else { return Ok(None) };
        let Some(head) = Self::buffer(queue)? else { return Ok(None) };
        let mut buffer = RxBuffer::new();
        buffer.take(&mut queue.chain_at(head)?)?;
        let bytes = want.min(buffer.room());
        if bytes == 0 && want > 0 {
            return Err(Fault::Framing);
        }
        fill(&buffer, &self.ram, bytes)?;
        let mut header = *header;
        header.len = bytes.into();
        if bytes < want {
            header.flags = (header.flags.get() & !SEQ_FLAGS).into();
        }
        buffer.write_header(&self.ram, &header)?;
        self.push(vsock::RX, buffer.head(), HEADER as u32 + bytes)?;
        Ok(Some(bytes))
    }

    /// A packet without payload. False: there is no buffer.
    pub fn send_control(&mut self, header: &Header) -> Result<bool, Fault> {
        self.send(header, 0, |_, _, _| Ok(())).map(|sent| sent.is_some())
    }

    /// Tells the driver that all connections are gone. False: there is no buffer.
    pub fn send_event(&mut self) -> Result<bool, Fault> {
        let Some(Some(queue)) = self.queues.get_mut(vsock::EVENT) else { return Ok(false) };
        let Some(head) = Self::buffer(queue)? else { return Ok(false) };
        let mut chain = queue.chain_at(head)?;
        match chain.next_descriptor()? {
            Some(descriptor) if descriptor.writable && descriptor.len >= 4 => {
                self.ram.write(descriptor.addr, &EVENT_TRANSPORT_RESET.to_le_bytes())?;
            }
            _ => return Err(Fault::Framing),
        }
        self.push(vsock::EVENT, chain.head(), 4)?;
        Ok(true)
    }

    /// Returns a buffer to the driver.
    pub fn push(&mut self, queue: usize, head: u16, written: u32) -> Result<(), Fault> {
        if let Some(Some(place)) = self.queues.get_mut(queue) {
            place.push(head, written)?;
            self.dirty |= 1 << queue;
        }
        Ok(())
    }

    /// Publishes what was pushed to a queue.
    pub fn publish(&mut self, queue: usize) -> Result<(), Fault> {
        if self.dirty & 1 << queue != 0
            && let Some(Some(place)) = self.queues.get_mut(queue)
        {
            self.dirty &= !(1 << queue);
            if place.publish()? {
                self.owing |= 1 << queue;
            }
        }
        Ok(())
    }

    /// Publishes what was pushed to all queues, and counts the interrupts that the driver wants. True: there are some.
    pub fn settle(&mut self) -> Result<bool, Fault> {
        if self.dirty != 0 {
            for queue in 0..vsock::QUEUES {
                self.publish(queue)?;
            }
        }
        if self.owing == 0 {
            return Ok(false);
        }
        for queue in 0..vsock::QUEUES {
            if self.owing & 1 << queue != 0
                && let Some(used) = self.counters().and_then(|counters| counters.used.get(queue))
            {
                used.fetch_add(1, Ordering::Release);
            }
        }
        self.owing = 0;
        Ok(true)
    }

    /// A packet was moved whole: its chain goes back.
    pub fn finish(&mut self, head: u16) -> Result<(), Fault> {
        self.push(vsock::TX, head, 0)
    }

    /// A packet has to wait.
    pub fn wait(&mut self, chains: &Chains, packet: Waiting) -> Result<(), Fault> {
        // See `inflight`.
        self.publish(vsock::TX)?;
        chains.take(packet.head);
        // The caller has seen that there is room.
        let _ = self.waiting.push(packet);
        Ok(())
    }

    /// A packet that waited has gone.
    pub fn finish_waiting(&mut self, chains: &Chains, place: usize) -> Result<(), Fault> {
        if place >= self.waiting.len() {
            return Ok(());
        }
        let head = self.waiting.remove(place).head;
        self.give_back(chains, head)
    }

    /// Returns a chain that is noted as waiting.
    pub fn give_back(&mut self, chains: &Chains, head: u16) -> Result<(), Fault> {
        if let Some(Some(queue)) = self.queues.get(vsock::TX) {
            chains.finish(head, queue.next_used());
            self.push(vsock::TX, head, 0)?;
            self.publish(vsock::TX)?;
        }
        chains.forget(head);
        Ok(())
    }

    /// Queues the RST that answers a packet without a connection. The caller has seen that there is room.
    pub fn refuse(&mut self, packet: &Header) {
        if packet.op.get() != op::RST {
            let _ = self.strays.push_back(answer(packet));
        }
    }

    /// Whether every packet may be answered.
    pub fn may_fetch(&self) -> bool {
        self.live && !self.strays.is_full()
    }
}

/// The RST that answers a packet.
fn answer(packet: &Header) -> Header {
    Header {
        src_cid: packet.dst_cid,
        dst_cid: packet.src_cid,
        src_port: packet.dst_port,
        dst_port: packet.src_port,
        kind: packet.kind,
        op: op::RST.into(),
        ..Header::default()
    }
}
