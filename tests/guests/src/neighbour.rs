//! The sockets of a guest beside one that misbehaves: a stream of its own that must go on, and an ear for what the broker
//! lets through from the other.
//!
//! Nothing here waits: the neighbour's disk is measured meanwhile.

use crate::blk::set;
use crate::machine::{frequency, now};
use crate::println;
use crate::vsock::{ECHO, HOST, Header, Packet, ROOM, SIZE, Vsock, memory, op};

/// CID of the guest that misbehaves.
const OFFENDER: u64 = 3;
/// Where it may connect to.
const LISTEN: u32 = 5000;
/// Our own stream's port.
const STREAM: u32 = 1;
/// Bytes of one echo.
const BYTES: u32 = 64;
/// Seconds that an echo may take, what a loaded host adds included.
const PATIENCE: u64 = 10;
/// Connections of the offender that are kept: more than the broker allows.
const KEPT: usize = 300;

/// A connection of the offender.
#[derive(Clone, Copy)]
struct Guest {
    port: u32,
    received: u32,
    /// What it is to be told.
    owed: Option<u16>,
}

/// The sockets.
pub struct Neighbour {
    vsock: Vsock,
    open: [Option<Guest>; KEPT],
    /// The stream is there.
    connected: bool,
    /// Bytes sent on it, and bytes that came back.
    sent: u32,
    got: u32,
    asked: u64,
    /// Echoes that came back whole.
    pub echoes: u64,
    /// Connections of the offender.
    pub connections: u64,
    /// What must not be.
    pub wrong: u64,
    /// Echoes that took longer than [`PATIENCE`].
    pub late: u64,
}

fn pattern(at: u32) -> u8 {
    (at.wrapping_mul(197) >> 3) as u8
}

impl Neighbour {
    /// Starts the device at `base` and asks for the stream.
    pub fn start(base: u64) -> Option<Self> {
        let vsock = Vsock::start(base)?;
        let mut neighbour = Self {
            vsock,
            open: [None; KEPT],
            connected: false,
            sent: 0,
            got: 0,
            asked: now(),
            echoes: 0,
            connections: 0,
            wrong: 0,
            late: 0,
        };
        let request = neighbour.vsock.header((HOST, ECHO), STREAM, op::REQUEST);
        neighbour.vsock.post(request, 0);
        Some(neighbour)
    }

    fn wrong(&mut self, what: &str, header: &Header) {
        self.wrong += 1;
        println!("victim: WRONG: {what}: {header:?}");
    }

    /// Takes what came, says what is owed, goes on with the stream.
    pub fn turn(&mut self) {
        // As many as there are buffers: more may come meanwhile.
        for _ in 0..SIZE {
            let Some(packet) = self.vsock.receive(0) else { break };
            match packet.header.src_cid {
                HOST => self.own(&packet),
                OFFENDER => self.others(&packet.header),
                _ => self.wrong("nobody's packet", &packet.header),
            }
            self.vsock.give_back(&packet);
        }
        self.pay();
        if self.connected && self.got == self.sent && self.vsock.is_idle() {
            for at in 0..BYTES {
                // SAFETY: in bounds: an echo is smaller than the place.
                unsafe {
                    set(&raw mut (*memory()).payload[at as usize], pattern(self.sent.wrapping_add(at)))
                };
            }
            let header =
                Header { len: BYTES, fwd_cnt: self.got, ..self.vsock.header((HOST, ECHO), STREAM, op::RW) };
            self.vsock.post(header, BYTES);
            self.sent = self.sent.wrapping_add(BYTES);
            self.asked = now();
        }
        if now() - self.asked > PATIENCE * frequency() {
            println!("victim: LATE: the echo service");
            self.late += 1;
            self.asked = now();
        }
    }

    /// A packet of our own stream.
    fn own(&mut self, packet: &Packet) {
        let header = packet.header;
        if { header.dst_port } != STREAM {
            // The answer to what we said of a connection that was over by then.
            if { header.op } != op::RST {
                self.wrong("not our stream", &header);
            }
            return;
        }
        match header.op {
            op::RESPONSE if !self.connected => {
                self.connected = true;
                self.asked = now();
            }
            op::CREDIT_UPDATE => {}
            op::RW => {
                let good =
                    (0..header.len).all(|at| packet.byte(at as usize) == pattern(self.got.wrapping_add(at)));
                self.got = self.got.wrapping_add(header.len);
                if !good || self.got.wrapping_sub(self.sent) as i32 > 0 {
                    self.wrong("another echo", &header);
                }
                if self.got == self.sent {
                    self.echoes += 1;
                }
            }
            _ => self.wrong("our stream", &header),
        }
    }

    /// A packet of the offender's.
    fn others(&mut self, header: &Header) {
        if { header.dst_port } != LISTEN || { header.kind } != 1 {
            return self.wrong("not where it may connect to", header);
        }
        let place =
            self.open.iter().position(|guest| guest.is_some_and(|guest| guest.port == { header.src_port }));
        let guest = place.and_then(|place| self.open.get_mut(place));
        match (header.op, guest) {
            (op::REQUEST, None) => {
                let new = Guest { port: header.src_port, received: 0, owed: Some(op::RESPONSE) };
                match self.open.iter_mut().find(|place| place.is_none()) {
                    Some(free) => *free = Some(new),
                    None => self.wrong("more connections than it may have", header),
                }
                self.connections += 1;
            }
            (op::RST, Some(guest)) => *guest = None,
            (op::RST, None) => {}
            (op::SHUTDOWN, Some(Some(guest))) => guest.owed = Some(op::RST),
            (op::CREDIT_UPDATE | op::CREDIT_REQUEST, Some(Some(_))) => {}
            (op::RW, Some(Some(guest))) => {
                guest.received = guest.received.saturating_add(header.len);
                // It is never told that a byte was taken.
                if guest.received > ROOM {
                    self.wrong("more bytes than there was room for", header);
                }
            }
            _ => self.wrong("out of turn", header),
        }
    }

    fn pay(&mut self) {
        for place in &mut self.open {
            let Some(guest) = place else { continue };
            let Some(operation) = guest.owed else { continue };
            let mut header = self.vsock.header((OFFENDER, guest.port), LISTEN, operation);
            header.fwd_cnt = 0;
            if !self.vsock.post_control(header) {
                return;
            }
            if operation == op::RST {
                *place = None;
            } else {
                guest.owed = None;
            }
        }
    }
}
