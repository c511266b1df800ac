//! A driver for one virtio-vsock device, as small as it can be, with its inside open for those who want to break the rules.
//!
//! It polls, handles one packet at a time, and leaves its device's interrupt alone.

use core::cell::UnsafeCell;
use core::ptr;

use crate::blk::{Descriptor, NEEDS_RESET, NEXT, WRITE, get, reg, set};
use crate::machine::{frequency, now, read, write};

/// The broker's CID.
pub const HOST: u64 = 2;
/// The broker's echo service.
pub const ECHO: u32 = 7;
/// Receive queue.
pub const RX: usize = 0;
/// Transmit queue.
pub const TX: usize = 1;
/// Event queue.
pub const EVENT: usize = 2;

/// Operations (virtio 1.2, 5.10.6).
pub mod op {
    #![allow(missing_docs)] // The names are the specification's.
    pub const REQUEST: u16 = 1;
    pub const RESPONSE: u16 = 2;
    pub const RST: u16 = 3;
    pub const SHUTDOWN: u16 = 4;
    pub const RW: u16 = 5;
    pub const CREDIT_UPDATE: u16 = 6;
    pub const CREDIT_REQUEST: u16 = 7;
}

/// virtio_vsock_hdr.
#[repr(C, packed)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Sender.
    pub src_cid: u64,
    /// Receiver.
    pub dst_cid: u64,
    /// Sender's port.
    pub src_port: u32,
    /// Receiver's port.
    pub dst_port: u32,
    /// Bytes of payload.
    pub len: u32,
    /// 1: stream.
    pub kind: u16,
    /// One of [`op`].
    pub op: u16,
    /// Of SHUTDOWN.
    pub flags: u32,
    /// Room.
    pub buf_alloc: u32,
    /// Bytes that left it.
    pub fwd_cnt: u32,
}

/// Its bytes.
pub const HEADER: usize = size_of::<Header>();
const _: () = assert!(HEADER == 44);

/// Descriptors of each queue.
pub const SIZE: usize = 8;
/// Bytes of a receive buffer, header included.
pub const BUFFER: usize = 512;
/// Packets that can be on their way at once.
pub const SLOTS: usize = SIZE / 2;
/// Bytes of payload that can be sent at once.
pub const PAYLOAD: usize = 16 << 10;
/// What is told as room.
pub const ROOM: u32 = 4096;

/// A queue.
#[repr(C, align(4096))]
pub struct Queue {
    /// Descriptor table.
    pub descriptors: [Descriptor; SIZE],
    /// flags, idx, ring.
    pub avail: [u16; 2 + SIZE + 1],
    /// flags and idx; then id and length of each element.
    pub used: [u32; 1 + 2 * SIZE + 1],
}

/// What the device sees of us.
#[repr(C, align(4096))]
pub struct Memory {
    /// Receive, transmit, event.
    pub queues: [Queue; 3],
    /// Receive buffers.
    pub buffers: [[u8; BUFFER]; SIZE],
    /// The headers of what is sent.
    pub headers: [Header; SLOTS],
    /// The payload of what is sent in slot 0; the others have none.
    pub payload: [u8; PAYLOAD],
    /// Events.
    pub events: [u32; SIZE],
}

struct Shared(UnsafeCell<Memory>);

// SAFETY: the guest has one thread.
unsafe impl Sync for Shared {}

// SAFETY: integers only.
static MEMORY: Shared = Shared(UnsafeCell::new(unsafe { core::mem::zeroed() }));

/// The memory, for volatile accesses.
pub fn memory() -> *mut Memory {
    MEMORY.0.get()
}

/// A queue of it.
pub fn queue(number: usize) -> *mut Queue {
    // SAFETY: an address in our memory.
    unsafe { (&raw mut (*memory()).queues).cast::<Queue>().add(number % 3) }
}

/// The driver.
pub struct Vsock {
    base: u64,
    /// This guest's CID, as the device says.
    pub cid: u64,
    avail: [u16; 3],
    used: [u16; 3],
    /// Slots that are on their way.
    busy: [bool; SLOTS],
}

/// A packet that came.
pub struct Packet {
    /// Its header.
    pub header: Header,
    /// The buffer that it was in.
    slot: usize,
    /// Bytes in the buffer, by the used element.
    pub length: u32,
}

impl Packet {
    /// A byte of its payload.
    pub fn byte(&self, at: usize) -> u8 {
        // SAFETY: in bounds by the remainders.
        unsafe { get(&raw const (*memory()).buffers[self.slot % SIZE][(HEADER + at) % BUFFER]) }
    }
}

impl Vsock {
    /// Resets and sets up the device with its queues in these places; no receive buffers yet.
    pub fn start_bare(base: u64, places: [[u64; 3]; 3]) -> Option<Self> {
        write(base + reg::STATUS, 0);
        let until = now() + frequency();
        while read(base + reg::STATUS) != 0 {
            if now() > until {
                return None;
            }
        }
        for status in [1, 3] {
            write(base + reg::STATUS, status);
        }
        for (half, value) in [0, 1].into_iter().enumerate() {
            write(base + reg::DRIVER_FEATURES_SEL, half as u32);
            write(base + reg::DRIVER_FEATURES, value);
        }
        write(base + reg::STATUS, 11);
        if read(base + reg::STATUS) != 11 {
            return None;
        }
        // SAFETY: our memory, which no running device looks at.
        unsafe { ptr::write_bytes(memory(), 0, 1) };
        for (number, areas) in places.into_iter().enumerate() {
            set_queue(base, number, areas);
        }
        let cid = u64::from(read(base + reg::CONFIG)) | u64::from(read(base + reg::CONFIG + 4)) << 32;
        Some(Self { base, cid, avail: [0; 3], used: [0; 3], busy: [false; SLOTS] })
    }

    /// DRIVER_OK. False if the device does not like it.
    pub fn go(&self) -> bool {
        write(self.base + reg::STATUS, 15);
        read(self.base + reg::STATUS) == 15
    }

    /// Resets and starts the device, with all receive and event buffers.
    pub fn start(base: u64) -> Option<Self> {
        let mut vsock = Self::start_bare(base, core::array::from_fn(areas))?;
        if !vsock.go() {
            return None;
        }
        for slot in 0..SIZE {
            vsock.offer_buffer(slot);
            // SAFETY: an address in our memory.
            let addr = unsafe { (&raw const (*memory()).events[slot]).addr() as u64 };
            vsock.offer(EVENT, slot, Descriptor { addr, len: 4, flags: WRITE, next: 0 });
        }
        vsock.kick(RX);
        Some(vsock)
    }

    /// DEVICE_NEEDS_RESET, waited for a second.
    pub fn needs_reset(&self) -> bool {
        let until = now() + frequency();
        while now() < until {
            if read(self.base + reg::STATUS) & NEEDS_RESET != 0 {
                return true;
            }
        }
        false
    }

    /// Kicks a queue.
    pub fn kick(&self, number: usize) {
        write(self.base + reg::QUEUE_NOTIFY, number as u32);
    }

    /// Writes one descriptor and makes it available.
    pub fn offer(&mut self, number: usize, slot: usize, descriptor: Descriptor) {
        // SAFETY: in bounds by the remainder.
        unsafe { set(&raw mut (*queue(number)).descriptors[slot % SIZE], descriptor) };
        self.offer_head(number, slot as u16);
    }

    /// Makes a chain available.
    pub fn offer_head(&mut self, number: usize, head: u16) {
        let Some(avail) = self.avail.get_mut(number) else { return };
        // SAFETY: in bounds by the remainder.
        unsafe {
            set(&raw mut (*queue(number)).avail[2 + *avail as usize % SIZE], head);
            core::arch::asm!("dsb sy");
            *avail = avail.wrapping_add(1);
            set(&raw mut (*queue(number)).avail[1], *avail);
        }
    }

    /// Offers a receive buffer.
    pub fn offer_buffer(&mut self, slot: usize) {
        // SAFETY: an address in our memory.
        let addr = unsafe { (&raw const (*memory()).buffers[slot % SIZE]).addr() as u64 };
        self.offer(RX, slot, Descriptor { addr, len: BUFFER as u32, flags: WRITE, next: 0 });
    }

    /// The next used element of a queue: its head and its length.
    fn take_used(&mut self, number: usize) -> Option<(u32, u32)> {
        let used = self.used.get_mut(number)?;
        // SAFETY: in bounds by the remainder.
        unsafe {
            let index = (get(&raw const (*queue(number)).used[0]) >> 16) as u16;
            if index == *used {
                return None;
            }
            core::arch::asm!("dsb sy");
            let at = 1 + 2 * (*used as usize % SIZE);
            *used = used.wrapping_add(1);
            let word = |at: usize| get(&raw const (*queue(number)).used[at]);
            Some((word(at), word(at + 1)))
        }
    }

    /// A header from here with this operation.
    pub fn header(&self, to: (u64, u32), port: u32, op: u16) -> Header {
        Header {
            src_cid: self.cid,
            dst_cid: to.0,
            src_port: port,
            dst_port: to.1,
            kind: 1,
            op,
            buf_alloc: ROOM,
            ..Header::default()
        }
    }

    /// Puts a packet into slot 0 of the transmit queue; `bytes` of payload are there, whatever the header says.
    pub fn post(&mut self, header: Header, bytes: u32) {
        self.post_slot(0, header, bytes);
    }

    fn post_slot(&mut self, slot: usize, header: Header, bytes: u32) {
        let Some(busy) = self.busy.get_mut(slot) else { return };
        *busy = true;
        let first = 2 * slot;
        // SAFETY: in our memory; `slot` is below SLOTS.
        unsafe {
            set(&raw mut (*memory()).headers[slot], header);
            let head = (&raw const (*memory()).headers[slot]).addr() as u64;
            let body = (&raw const (*memory()).payload).addr() as u64;
            let (flags, next) = (if bytes > 0 { NEXT } else { 0 }, first as u16 + 1);
            let table = &raw mut (*queue(TX)).descriptors;
            set(&raw mut (*table)[first], Descriptor { addr: head, len: HEADER as u32, flags, next });
            set(&raw mut (*table)[first + 1], Descriptor { addr: body, len: bytes, flags: 0, next: 0 });
        }
        self.offer_head(TX, first as u16);
        self.kick(TX);
    }

    /// Posts a packet without payload in another slot than 0. False: all are on their way.
    pub fn post_control(&mut self, header: Header) -> bool {
        self.collect();
        match (1..SLOTS).find(|slot| !self.busy[*slot]) {
            Some(slot) => self.post_slot(slot, header, 0),
            None => return false,
        }
        true
    }

    /// Whether slot 0 is free.
    pub fn is_idle(&mut self) -> bool {
        self.collect();
        !self.busy[0]
    }

    fn collect(&mut self) {
        while let Some((head, _)) = self.take_used(TX) {
            if let Some(busy) = self.busy.get_mut(head as usize / 2) {
                *busy = false;
            }
        }
    }

    /// Waits until what was posted in slot 0 is used; false if it is not within so many milliseconds.
    pub fn sent(&mut self, milliseconds: u64) -> bool {
        let until = now() + milliseconds * frequency() / 1000;
        loop {
            if self.is_idle() {
                return true;
            }
            if now() > until {
                return false;
            }
        }
    }

    /// Posts a packet and waits until it is used, five seconds at most.
    pub fn send(&mut self, header: Header, bytes: u32) -> bool {
        self.post(header, bytes);
        self.sent(5000)
    }

    /// The next packet, if one comes within so many milliseconds. Its buffer is to be given back.
    pub fn receive(&mut self, milliseconds: u64) -> Option<Packet> {
        let until = now() + milliseconds * frequency() / 1000;
        loop {
            if let Some((slot, length)) = self.take_used(RX) {
                let slot = slot as usize % SIZE;
                // SAFETY: a buffer is larger than a header and aligned to 512 bytes; any bytes are a header.
                let header = unsafe { get((&raw const (*memory()).buffers[slot]).cast::<Header>()) };
                return Some(Packet { header, slot, length });
            }
            if now() > until {
                return None;
            }
        }
    }

    /// Gives a packet's buffer back.
    pub fn give_back(&mut self, packet: &Packet) {
        self.offer_buffer(packet.slot);
        self.kick(RX);
    }

    /// The next packet's header, with its buffer given back.
    pub fn hear(&mut self, milliseconds: u64) -> Option<Header> {
        let packet = self.receive(milliseconds)?;
        self.give_back(&packet);
        Some(packet.header)
    }

    /// Asks for a connection. True: it was accepted.
    pub fn connect(&mut self, to: (u64, u32), port: u32) -> bool {
        let request = self.header(to, port, op::REQUEST);
        self.send(request, 0) && self.hear(5000).is_some_and(|answer| { answer.op } == op::RESPONSE)
    }

    /// Sends `bytes` bytes of a pattern to the echo service over an open connection, which have sent and got back `before`
    /// each, and checks what comes back.
    pub fn echo(&mut self, port: u32, bytes: u32, before: u32) -> bool {
        let pattern = |at: u32| (at.wrapping_mul(31) ^ before ^ port) as u8;
        for at in 0..bytes {
            // SAFETY: in bounds by the remainder.
            unsafe { set(&raw mut (*memory()).payload[at as usize % PAYLOAD], pattern(at)) };
        }
        let mut header = self.header((HOST, ECHO), port, op::RW);
        (header.len, header.fwd_cnt) = (bytes, before);
        if !self.send(header, bytes) {
            return false;
        }
        let mut got = 0;
        while got < bytes {
            let Some(packet) = self.receive(5000) else { return false };
            let header = packet.header;
            let expected = match header.op {
                op::CREDIT_UPDATE => true,
                op::RW => (0..header.len).all(|at| packet.byte(at as usize) == pattern(got + at)),
                _ => false,
            };
            got += if { header.op } == op::RW { header.len } else { 0 };
            self.give_back(&packet);
            if !expected || { header.src_cid } != HOST || { header.dst_port } != port {
                return false;
            }
        }
        got == bytes
    }
}

/// Where a queue of ours is.
pub fn areas(number: usize) -> [u64; 3] {
    let queue = queue(number);
    // SAFETY: addresses only.
    unsafe {
        [
            (&raw const (*queue).descriptors).addr() as u64,
            (&raw const (*queue).avail).addr() as u64,
            (&raw const (*queue).used).addr() as u64,
        ]
    }
}

/// Tells the device where a queue is.
fn set_queue(base: u64, number: usize, areas: [u64; 3]) {
    write(base + reg::QUEUE_SEL, number as u32);
    write(base + reg::QUEUE_NUM, SIZE as u32);
    for (register, area) in [reg::QUEUE_DESC, reg::QUEUE_DRIVER, reg::QUEUE_DEVICE].into_iter().zip(areas) {
        write(base + register, area as u32);
        write(base + register + 4, (area >> 32) as u32);
    }
    write(base + reg::QUEUE_READY, 1);
}
