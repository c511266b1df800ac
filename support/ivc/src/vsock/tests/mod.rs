//! Model guests against the broker: each has a driver of its own, written from section 5.10 as a driver reads it.

mod behaviour;
mod hostile;
mod properties;
mod told;

use std::boxed::Box;
use std::vec::Vec;

use partita_protocol::backend::{BackendStatus, Status, label};
use partita_protocol::ivc_stats::{Counter, IvcStats};
use partita_protocol::manage;
use partita_ring::{AtomicU64 as Word, Duplex, Header as RingHeader, Mine, Yours};
use partita_virtio::fake::{Buffer, DriverQueue, FakeRam};
use partita_virtio::features;
use partita_virtio::queue::Fault;
use partita_virtio::vsock::{HEADER, Header, RX, TX, feature, kind, op};
use zerocopy::{FromBytes, IntoBytes};

use super::inflight::InflightPages;
use super::{Broker, Connections, REPLY_MRS, Refusal, Report, Rules, Tables, Violation};

/// What was reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    Fault(usize, Fault),
    Violation(usize, Violation),
    Refused(usize, u64, u32, Refusal),
    GaveUp(usize, usize),
    Line(usize, Vec<u8>),
}

#[derive(Default)]
pub struct Notes(pub Vec<Said>);

impl Report for Notes {
    fn fault(&mut self, cell: usize, fault: Fault) {
        self.0.push(Said::Fault(cell, fault));
    }
    fn violation(&mut self, cell: usize, violation: Violation) {
        self.0.push(Said::Violation(cell, violation));
    }
    fn refused(&mut self, cell: usize, to: u64, port: u32, why: Refusal) {
        self.0.push(Said::Refused(cell, to, port, why));
    }
    fn gave_up(&mut self, cell: usize, to: usize) {
        self.0.push(Said::GaveUp(cell, to));
    }
    fn line(&mut self, cell: usize, line: &[u8]) {
        self.0.push(Said::Line(cell, line.to_vec()));
    }
}

const BASE: u64 = 0x4000_0000;
const RAM: u64 = 4 << 20;
const RX_AT: u64 = BASE + 0x10_0000;
const TX_AT: u64 = BASE + 0x20_0000;
/// Bytes of a receive buffer, header included.
const RX_SIZE: u32 = HEADER as u32 + 1000;
const TX_SLOT: u64 = 0x4000;
/// Counts of the clock in a second.
const SECOND: u64 = 1000;

/// A packet as a guest gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    pub header: Header,
    pub payload: Vec<u8>,
}

impl Got {
    pub fn op(&self) -> u16 {
        self.header.op.get()
    }
}

/// A guest's driver.
pub struct Guest {
    pub cell: usize,
    pub cid: u64,
    pub ram: FakeRam,
    pub rx: DriverQueue,
    pub tx: DriverQueue,
    pub event: DriverQueue,
    /// Receive buffers by head.
    rx_slots: Vec<(u16, u64)>,
    rx_free: Vec<u64>,
    tx_slots: Vec<(u16, u64)>,
    tx_free: Vec<u64>,
    pub events: u32,
    pub features: u64,
}

pub struct World {
    pub broker: Broker<Notes>,
    pub guests: Vec<Guest>,
    pub now: u64,
    pub stats: &'static IvcStats,
    pages: &'static InflightPages,
    status: Vec<&'static BackendStatus>,
    rules: Rules,
    /// The supervisor's end of the management ring.
    pub supervisor: Duplex<'static>,
    rings: [(Mine<'static>, Yours<'static>); 2],
}

fn leak<T>(value: T) -> &'static mut T {
    Box::leak(Box::new(value))
}

/// Too big to be built on a test's stack, and zeroes.
fn connections() -> &'static mut Connections {
    // SAFETY: an empty table is zeroes, which the test `an_empty_table_is_zeroes` holds.
    unsafe { Box::leak(Box::<Connections>::new_zeroed()).assume_init_mut() }
}

/// Too big to be built on a test's stack.
fn tables() -> &'static mut Tables {
    let tables = Box::leak(Box::<Tables>::new_uninit());
    // SAFETY: exclusively ours; written before it is read.
    unsafe {
        tables.as_mut_ptr().write(Tables::new());
        tables.assume_init_mut()
    }
}

fn status_page() -> &'static BackendStatus {
    // SAFETY: all atomics, for which zero is a value.
    leak(unsafe { core::mem::zeroed() })
}

fn ring() -> [(Mine<'static>, Yours<'static>); 2] {
    let words = (manage::RING - 4096) / 8;
    let data = || -> &'static [Word] { Vec::leak((0..words).map(|_| Word::new(0)).collect()) };
    let headers: [&'static RingHeader; 2] = [leak(RingHeader::new()), leak(RingHeader::new())];
    let data = [data(), data()];
    [0, 1].map(|i| (Mine::new(headers[i], data[i]), Yours::new(headers[1 - i], data[1 - i])))
}

impl World {
    /// Cells 0.. with CIDs 3.., live, with receive buffers.
    pub fn new(cells: usize, rules: Rules) -> Self {
        let (pages, stats) = (&*leak(InflightPages::new()), &*leak(IvcStats::new()));
        let rings = ring();
        let status: Vec<_> = (0..cells).map(|_| status_page()).collect();
        let mut broker =
            Broker::new(tables(), connections(), pages, stats, rules.clone(), Notes::default(), SECOND);
        broker.manage_over(Duplex::new(rings[0].0, rings[0].1));
        let mut guests = Vec::new();
        for (cell, status) in status.iter().enumerate() {
            let guest = Guest::new(cell);
            broker.add_client(cell, guest.cid as u32, guest.ram.ram(), status);
            guests.push(guest);
        }
        broker.open();
        let supervisor = Duplex::new(rings[1].0, rings[1].1);
        let mut world = World { broker, guests, now: 1, stats, pages, status, rules, supervisor, rings };
        for cell in 0..cells {
            world.start(cell);
            world.guests[cell].offer(64);
        }
        world
    }

    /// Every pair at ports 5000 and 5001, and all of CID 2.
    pub fn open(cells: usize) -> Self {
        let mut rules = Rules::new();
        for a in 0..cells {
            for b in (0..cells).filter(|b| *b != a) {
                rules = rules.allow(a, b, &[5000, 5001]);
            }
            rules = rules.allow(a, super::table::HOST, &[7, 9, 19, 514]);
        }
        Self::new(cells, rules.allow(0, super::table::HOST, &[1]))
    }

    fn call(&mut self, cell: usize, label: u64, mrs: &[u64]) -> Status {
        let mut reply = [0; REPLY_MRS];
        self.broker.call(cell, label, mrs, &mut reply);
        Status::from_word(reply[0])
    }

    /// What the VMM does at DRIVER_OK.
    pub fn start(&mut self, cell: usize) {
        let layouts = {
            let g = &self.guests[cell];
            [g.rx.layout, g.tx.layout, g.event.layout]
        };
        for (n, l) in layouts.into_iter().enumerate() {
            let mrs = [0, n as u64, l.size.into(), l.desc, l.avail, l.used];
            assert_eq!(self.call(cell, label::QUEUE, &mrs), Status::Ok);
        }
        let features = self.guests[cell].features;
        assert_eq!(self.call(cell, label::START, &[0, features]), Status::Ok);
    }

    /// The guest is reset and starts again.
    pub fn restart_guest(&mut self, cell: usize) {
        self.reset(cell);
        let (ram, features) = (self.guests[cell].ram, self.guests[cell].features);
        self.guests[cell] = Guest::over(cell, ram);
        self.guests[cell].features = features;
        self.start(cell);
        self.guests[cell].offer(64);
    }

    pub fn reset(&mut self, cell: usize) {
        assert_eq!(self.call(cell, label::RESET, &[0]), Status::Ok);
    }

    /// The broker dies and starts again; the VMMs notice and hand it their queues.
    pub fn restart_broker(&mut self) {
        self.next_life(false);
    }

    /// The same, in a life that refuses if it is to.
    pub fn next_life(&mut self, refusing: bool) {
        let mut broker = Broker::new(
            tables(),
            connections(),
            self.pages,
            self.stats,
            self.rules.clone(),
            Notes::default(),
            SECOND,
        );
        if refusing {
            broker.refuse_all();
        } else {
            broker.manage_over(Duplex::new(self.rings[0].0, self.rings[0].1));
        }
        for guest in &self.guests {
            broker.add_client(guest.cell, guest.cid as u32, guest.ram.ram(), self.status[guest.cell]);
        }
        broker.open();
        self.broker = broker;
        for cell in 0..self.guests.len() {
            self.start(cell);
        }
    }

    /// Kicks of all guests, then the broker runs until it has nothing to do.
    pub fn run(&mut self) {
        for cell in 0..self.guests.len() {
            self.broker.kicked(cell);
        }
        for _ in 0..1000 {
            self.now += 1;
            if !self.broker.run(self.now) {
                return;
            }
        }
        panic!("the broker does not come to an end");
    }

    pub fn send(&mut self, cell: usize, header: Header, payload: &[u8]) {
        assert!(self.guests[cell].send(&header, payload), "no room in the transmit queue");
        self.run();
    }

    pub fn got(&mut self, cell: usize) -> Vec<Got> {
        self.guests[cell].receive()
    }

    pub fn said(&mut self) -> Vec<Said> {
        core::mem::take(&mut self.broker.report().0)
    }

    pub fn counter(&self, cell: usize, counter: Counter) -> u64 {
        self.stats.cells[cell].get(counter)
    }

    /// A connection from port `port` of `from` to 5000 of `to`, both sides with 64 KiB.
    pub fn connect(&mut self, from: usize, port: u32, to: usize) {
        let request = self.guests[from].packet(self.guests[to].cid, port, 5000, op::REQUEST);
        self.send(from, request, &[]);
        let got = self.got(to);
        assert_eq!(got.iter().map(Got::op).collect::<Vec<_>>(), [op::REQUEST]);
        let response = self.guests[to].packet(self.guests[from].cid, 5000, port, op::RESPONSE);
        self.send(to, response, &[]);
        assert_eq!(self.got(from).iter().map(Got::op).collect::<Vec<_>>(), [op::RESPONSE]);
    }

    /// No entry, stream, chain or buffer is held for anybody.
    pub fn assert_empty(&self) {
        assert_eq!(self.broker.connections.used(), 0);
        assert!(self.broker.tables.streams.list.iter().all(Option::is_none));
        for client in self.broker.tables.clients.iter().flatten() {
            assert!(client.waiting.is_empty() && client.strays.is_empty());
        }
        for cell in 0..self.guests.len() {
            assert_eq!(self.counter(cell, Counter::Open), 0);
        }
    }
}

impl Guest {
    pub fn new(cell: usize) -> Self {
        Self::over(cell, FakeRam::new(BASE, RAM, 0))
    }

    fn over(cell: usize, ram: FakeRam) -> Self {
        let queue = |n: u64, size| DriverQueue::new(ram.ram(), BASE + n * 0x8000, size, true);
        let mut event = queue(2, 8);
        for n in 0..4 {
            event.add(&[Buffer::into(BASE + 0x1_8000 + n * 8, 8)]).unwrap();
        }
        Guest {
            cell,
            cid: 3 + cell as u64,
            ram,
            rx: queue(0, 256),
            tx: queue(1, 256),
            event,
            rx_slots: Vec::new(),
            rx_free: (0..128).map(|n| RX_AT + n * 0x1000).collect(),
            tx_slots: Vec::new(),
            tx_free: (0..120).map(|n| TX_AT + n * TX_SLOT).collect(),
            events: 0,
            features: features::VERSION_1
                | features::EVENT_IDX
                | features::INDIRECT_DESC
                | feature::SEQPACKET,
        }
    }

    /// A stream packet to a port, with 64 KiB of credit.
    pub fn packet(&self, cid: u64, from: u32, to: u32, op: u16) -> Header {
        Header {
            src_cid: self.cid.into(),
            dst_cid: cid.into(),
            src_port: from.into(),
            dst_port: to.into(),
            kind: kind::STREAM.into(),
            op: op.into(),
            buf_alloc: 65536.into(),
            ..Header::default()
        }
    }

    /// Gives receive buffers to the device.
    pub fn offer(&mut self, count: usize) {
        for _ in 0..count {
            let Some(at) = self.rx_free.pop() else { return };
            let parts = [Buffer::into(at, HEADER as u32), Buffer::into(at + 0x100, RX_SIZE - HEADER as u32)];
            match self.rx.add(&parts) {
                Some(head) => self.rx_slots.push((head, at)),
                None => return self.rx_free.push(at),
            }
        }
    }

    /// Takes what came, and gives the buffers back if there were any on offer.
    pub fn receive(&mut self) -> Vec<Got> {
        let got = self.take();
        self.offer(got.len());
        got
    }

    /// Takes what came.
    pub fn take(&mut self) -> Vec<Got> {
        let mut got = Vec::new();
        while let Some((head, written)) = self.rx.take_used() {
            let place = self.rx_slots.iter().position(|(h, _)| *h == head).expect("an offered buffer");
            let (_, at) = self.rx_slots.remove(place);
            let header = Header::read_from_bytes(&self.ram.bytes(at, HEADER)).unwrap();
            let payload = self.ram.bytes(at + 0x100, written as usize - HEADER);
            assert_eq!(header.len.get() as usize, payload.len());
            assert_eq!(header.dst_cid.get(), self.cid);
            self.rx_free.push(at);
            got.push(Got { header, payload });
        }
        while let Some((_, written)) = self.event.take_used() {
            assert_eq!(written, 4);
            self.events += 1;
        }
        got
    }

    /// Puts a packet into the transmit queue.
    pub fn send(&mut self, header: &Header, payload: &[u8]) -> bool {
        self.reap();
        let Some(at) = self.tx_free.pop() else { return false };
        let mut header = *header;
        if header.op.get() == op::RW && header.len.get() == 0 {
            header.len = (payload.len() as u32).into();
        }
        self.ram.ram().write(at, header.as_bytes()).unwrap();
        self.ram.ram().write(at + 0x101, payload).unwrap();
        let mut parts = vec![Buffer::out(at, HEADER as u32)];
        // Two pieces, so that borders are crossed.
        let (first, rest) = payload.split_at(payload.len() / 3);
        for (offset, part) in [(0, first), (first.len(), rest)] {
            if !part.is_empty() {
                parts.push(Buffer::out(at + 0x101 + offset as u64, part.len() as u32));
            }
        }
        match self.tx.add(&parts) {
            Some(head) => self.tx_slots.push((head, at)),
            None => {
                self.tx_free.push(at);
                return false;
            }
        }
        true
    }

    /// Takes transmitted buffers back.
    pub fn reap(&mut self) -> usize {
        let before = self.tx_free.len();
        while let Some((head, _)) = self.tx.take_used() {
            let place = self.tx_slots.iter().position(|(h, _)| *h == head).expect("a transmitted buffer");
            self.tx_free.push(self.tx_slots.remove(place).1);
        }
        self.tx_free.len() - before
    }

    /// Packets in the transmit queue.
    pub fn unsent(&mut self) -> usize {
        self.reap();
        self.tx_slots.len()
    }
}

/// Indices that the tests name.
const _: () = assert!(RX == 0 && TX == 1);
