//! The vsock switch: any packets in any chains, any receive buffers, any lines of the supervisor. Whatever two guests do,
//! nothing is left of it when both are reset, and the counters agree.
#![no_main]

use core::sync::atomic::AtomicU64;
use std::cell::RefCell;

use libfuzzer_sys::{arbitrary, fuzz_target};
use partita_ivc::vsock::inflight::InflightPages;
use partita_ivc::vsock::{Broker, Connections, REPLY_MRS, Refusal, Report, Rules, Tables, Violation};
use partita_protocol::backend::{BackendStatus, label};
use partita_protocol::ivc_stats::{Counter, IvcStats};
use partita_ring::{Duplex, Header, Mine, Yours};
use partita_virtio::fake::{Buffer, DriverQueue, FakeRam};
use partita_virtio::features;
use partita_virtio::queue::Fault;

const BASE: u64 = 0x4000_0000;
const SIZE: u64 = 0x8_0000;
const WORDS: usize = 2048;

struct Silent;

impl Report for Silent {
    fn fault(&mut self, _: usize, _: Fault) {}
    fn violation(&mut self, _: usize, _: Violation) {}
    fn refused(&mut self, _: usize, _: u64, _: u32, _: Refusal) {}
    fn gave_up(&mut self, _: usize, _: usize) {}
    fn line(&mut self, _: usize, line: &[u8]) {
        assert!(line.len() <= 1024);
    }
}

#[derive(arbitrary::Arbitrary, Debug)]
enum Step {
    /// Header fields from small sets, so that connections come to be; payload bytes in the chain.
    Packet {
        cell: bool,
        to: u8,
        ports: (u8, u8),
        kind: u8,
        op: u8,
        len: u16,
        flags: u8,
        alloc: u32,
        fwd: u32,
        more: u16,
        split: u8,
    },
    /// Any header in any buffers.
    Raw {
        cell: bool,
        header: Vec<u8>,
        buffers: Vec<(u32, u16, bool)>,
    },
    /// Receive or event buffers.
    Offer {
        cell: bool,
        event: bool,
        at: u32,
        len: u16,
        writable: bool,
    },
    /// The supervisor says something.
    Line(Vec<u8>),
    /// The guest takes what was used.
    Take {
        cell: bool,
    },
    Reset {
        cell: bool,
    },
    /// Counts of the clock pass.
    Run(u16),
}

struct World {
    broker: Broker<Silent>,
    stats: &'static IvcStats,
    rams: [FakeRam; 2],
    queues: [Vec<DriverQueue>; 2],
    supervisor: Duplex<'static>,
    now: u64,
}

fn leak<T>(value: T) -> &'static mut T {
    Box::leak(Box::new(value))
}

impl World {
    fn new() -> Self {
        let text = br#"{"cells":[{"name":"a","memory":"16M","kernel":"k","cid":3,"manager":true},
                                 {"name":"b","memory":"16M","kernel":"k","cid":4}],
            "sockets":[{"from":"a","to":"b","ports":[7]},{"from":"b","to":"a","ports":[7]},
                       {"from":"a","to":"host","ports":[7,9,19,514]}]}"#;
        let config = partita_config::parse(text).unwrap();
        let stats: &'static IvcStats = leak(IvcStats::new());
        let mut tables = Box::<Tables>::new_uninit();
        // SAFETY: written before it is read.
        let tables = Box::leak(unsafe {
            tables.as_mut_ptr().write(Tables::new());
            tables.assume_init()
        });
        // SAFETY: an empty table is zeroes (a test of its crate).
        let connections = Box::leak(unsafe { Box::<Connections>::new_zeroed().assume_init() });
        let mut broker = Broker::new(
            tables,
            connections,
            leak(InflightPages::new()),
            stats,
            Rules::of(&config),
            Silent,
            1000,
        );
        let data = || -> &'static [AtomicU64] { Vec::leak((0..WORDS).map(|_| AtomicU64::new(0)).collect()) };
        let (headers, data) = ([leak(Header::new()), leak(Header::new())], [data(), data()]);
        let [a, b]: [&'static Header; 2] = headers.map(|header| &*header);
        broker.manage_over(Duplex::new(Mine::new(a, data[0]), Yours::new(b, data[1])));
        let supervisor = Duplex::new(Mine::new(b, data[1]), Yours::new(a, data[0]));
        let rams = [FakeRam::new(BASE, SIZE, 0), FakeRam::new(BASE, SIZE, 0)];
        for (cell, ram) in rams.iter().enumerate() {
            // SAFETY: all atomics, for which zero is a value.
            let status: &'static BackendStatus = leak(unsafe { core::mem::zeroed() });
            broker.add_client(cell, 3 + cell as u32, ram.ram(), status);
        }
        broker.open();
        World { broker, stats, rams, queues: [Vec::new(), Vec::new()], supervisor, now: 0 }
    }

    fn start(&mut self, cell: usize) {
        let mut reply = [0; REPLY_MRS];
        self.broker.call(cell, label::RESET, &[0], &mut reply);
        let ram = self.rams[cell].ram();
        self.queues[cell] = (0..3).map(|n| DriverQueue::new(ram, BASE + n * 0x4000, 64, n == 1)).collect();
        for (n, queue) in self.queues[cell].iter().enumerate() {
            let l = queue.layout;
            let mrs = [0, n as u64, l.size.into(), l.desc, l.avail, l.used];
            self.broker.call(cell, label::QUEUE, &mrs, &mut reply);
        }
        let accepted = features::VERSION_1 | features::INDIRECT_DESC | 3;
        self.broker.call(cell, label::START, &[0, accepted], &mut reply);
        assert_eq!(reply[0], 0);
        for n in 0..8 {
            self.queues[cell][0].add(&[Buffer::into(BASE + 0x2_0000 + n * 0x200, 0x200)]);
        }
    }

    fn run(&mut self, counts: u64) {
        self.now += counts;
        for cell in 0..2 {
            self.broker.kicked(cell);
        }
        for _ in 0..64 {
            if !self.broker.run(self.now) {
                return;
            }
        }
    }
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::new(World::new());
}

/// An address that mostly is in RAM, behind the queues: a driver that has its own rings overwritten learns nothing.
fn address(at: u32) -> u64 {
    match at % 16 {
        0 => u64::from(at) << 32,
        _ => BASE + 0x1_0000 + u64::from(at) % (SIZE - 0x1_0000 + 0x200),
    }
}

fuzz_target!(|steps: Vec<Step>| {
    WORLD.with_borrow_mut(|world| {
        for cell in 0..2 {
            world.start(cell);
        }
        for (n, step) in steps.iter().take(200).enumerate() {
            let slot = BASE + 0x4_0000 + (n as u64 % 64) * 0x400;
            match step {
                Step::Packet { cell, to, ports, kind, op, len, flags, alloc, fwd, more, split } => {
                    let cell = usize::from(*cell);
                    let mut bytes = Vec::new();
                    bytes.extend((3 + cell as u64).to_le_bytes());
                    bytes.extend(u64::from(to % 6).to_le_bytes());
                    let port = |n: u8| [7u32, 1, 2, 9, 19, 514][usize::from(n) % 6];
                    bytes.extend(port(ports.0).to_le_bytes());
                    bytes.extend(port(ports.1).to_le_bytes());
                    bytes.extend(u32::from(*len % 0x200).to_le_bytes());
                    bytes.extend((u16::from(kind % 8 == 0) + 1).to_le_bytes());
                    bytes.extend(u16::from(op % 9).to_le_bytes());
                    bytes.extend(u32::from(*flags).to_le_bytes());
                    bytes.extend(alloc.to_le_bytes());
                    bytes.extend((fwd % 64).to_le_bytes());
                    assert_eq!(bytes.len(), 44);
                    let total = 44 + u32::from(more % 0x200);
                    world.rams[cell].ram().write(slot, &bytes).unwrap();
                    let first = u32::from(*split).clamp(1, total - 1);
                    let parts =
                        [Buffer::out(slot, first), Buffer::out(slot + u64::from(first), total - first)];
                    world.queues[cell][1].add(&parts);
                }
                Step::Raw { cell, header, buffers } => {
                    let cell = usize::from(*cell);
                    world.rams[cell].ram().write(slot, &header[..header.len().min(64)]).unwrap();
                    let mut parts = vec![Buffer::out(slot, 44)];
                    parts.extend(buffers.iter().take(40).map(|(at, len, writable)| Buffer {
                        addr: address(*at),
                        len: (*len).into(),
                        writable: *writable,
                    }));
                    world.queues[cell][1].add(&parts);
                }
                Step::Offer { cell, event, at, len, writable } => {
                    let buffer = Buffer { addr: address(*at), len: (*len).into(), writable: *writable };
                    world.queues[usize::from(*cell)][if *event { 2 } else { 0 }].add(&[buffer]);
                }
                Step::Line(line) => {
                    world.supervisor.tx.write(line);
                }
                Step::Take { cell } => {
                    for queue in &mut world.queues[usize::from(*cell)] {
                        while queue.take_used().is_some() {}
                    }
                }
                Step::Reset { cell } => world.start(usize::from(*cell)),
                Step::Run(counts) => world.run((*counts).into()),
            }
        }
        world.run(1);
        let mut reply = [0; REPLY_MRS];
        for cell in 0..2 {
            world.broker.call(cell, label::RESET, &[0], &mut reply);
        }
        for cell in 0..2 {
            assert_eq!(world.stats.cells[cell].get(Counter::Open), 0, "a connection is left");
        }
        let mut rest = [0; 4096];
        while world.supervisor.rx.read(&mut rest) > 0 {}
    });
});
