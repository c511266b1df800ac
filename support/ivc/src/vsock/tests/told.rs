//! Nobody looks without having been told: the broker at a cell's queues when its driver kicked, a driver when the broker
//! counted a notification and the driver's VMM was notified, both when a timer that was asked for fires. So whatever is lost
//! leaves bytes behind.

use super::*;
use partita_config::HOST_CID;
use partita_virtio::vsock::EVENT;
use proptest::prelude::*;
use std::sync::atomic::Ordering;

/// Bytes of a packet.
const PIECE: usize = 3000;
const ROOM: u32 = 65536;

/// One end of a connection, at a driver that keeps the rules.
struct End {
    cell: usize,
    peer: u64,
    port: u32,
    peer_port: u32,
    /// What its program has written, how much of it was sent, and how much may be.
    written: Vec<u8>,
    sent: usize,
    limit: usize,
    got: Vec<u8>,
    /// Bytes of them that the peer knows as read.
    told: usize,
}

impl End {
    fn new(cell: usize, peer: u64, port: u32, peer_port: u32, limit: usize) -> Self {
        Self { cell, peer, port, peer_port, written: Vec::new(), sent: 0, limit, got: Vec::new(), told: 0 }
    }
}

#[derive(Clone, Debug)]
enum Act {
    /// A program writes to an end.
    Write(usize, usize),
    /// The broker hears of a kick.
    Kick(usize),
    /// A driver takes its interrupt.
    Look(usize),
    /// The timer fires, if it was asked to.
    Timer,
    /// From now on a driver keeps the buffers that it has read, or gives them back.
    Hold(usize, bool),
    /// Cell 0 asks for a connection that nobody accepts, or sends to one that is not there.
    Bother(usize, bool),
    /// Cell 0 starts again.
    Restart,
}

struct Told {
    world: World,
    ends: Vec<End>,
    kicked: [bool; 3],
    notified: [bool; 3],
    seen: [[u32; 3]; 3],
    holds: [bool; 3],
    alarm: Option<u64>,
    next: u8,
}

impl Told {
    fn new() -> Self {
        let mut world = World::open(3);
        world.connect(1, 70, 2);
        let request = world.guests[1].packet(HOST_CID.into(), 80, 7, op::REQUEST);
        world.send(1, request, &[]);
        let response = world.got(1).pop().unwrap().header;
        assert_eq!(response.op.get(), op::RESPONSE);
        let cid = |cell: usize| world.guests[cell].cid;
        let ends = vec![
            End::new(1, cid(2), 70, 5000, ROOM as usize),
            End::new(2, cid(1), 5000, 70, ROOM as usize),
            End::new(1, HOST_CID.into(), 80, 7, response.buf_alloc.get() as usize),
        ];
        let mut told = Self {
            world,
            ends,
            kicked: [false; 3],
            notified: [true; 3],
            seen: [[u32::MAX; 3]; 3],
            holds: [false; 3],
            alarm: None,
            next: 0,
        };
        (0..3).for_each(|cell| _ = told.look(cell));
        told
    }

    fn broker(&mut self) {
        self.world.now += 1;
        let more = self.world.broker.run(self.world.now);
        self.alarm = if more { Some(self.world.now) } else { self.world.broker.deadline() };
        let notify = self.world.broker.take_notify();
        for cell in (0..3).filter(|cell| notify & 1 << cell != 0) {
            self.notified[cell] = true;
        }
    }

    fn kick(&mut self, cell: usize) -> bool {
        let kicked = core::mem::take(&mut self.kicked[cell]);
        if kicked {
            self.world.broker.kicked(cell);
            self.broker();
        }
        kicked
    }

    fn timer(&mut self) -> bool {
        let fires = self.alarm.take().is_some_and(|at| {
            self.world.now = self.world.now.max(at);
            true
        });
        if fires {
            self.broker();
        }
        fires
    }

    /// A driver is interrupted, if its VMM was told and finds a queue's count moved.
    fn look(&mut self, cell: usize) -> bool {
        if !core::mem::take(&mut self.notified[cell]) {
            return false;
        }
        let used = [RX, TX, EVENT]
            .map(|queue| self.world.status[cell].devices[0].used[queue].load(Ordering::Acquire));
        if used == core::mem::replace(&mut self.seen[cell], used) {
            return false;
        }
        loop {
            let guest = &mut self.world.guests[cell];
            let (got, reaped) = (guest.take(), guest.reap());
            guest.rx.want_interrupt(true);
            guest.tx.want_interrupt(true);
            guest.event.want_interrupt(true);
            if got.is_empty() && reaped == 0 {
                break;
            }
            if !self.holds[cell] {
                self.world.guests[cell].offer(64);
            }
            for got in got {
                self.arrived(cell, got);
            }
        }
        self.drive(cell);
        true
    }

    fn arrived(&mut self, cell: usize, got: Got) {
        let header = got.header;
        let is = |end: &&mut End| {
            (end.cell, end.peer, end.port, end.peer_port)
                == (cell, header.src_cid.get(), header.dst_port.get(), header.src_port.get())
        };
        match self.ends.iter_mut().find(is) {
            Some(end) => {
                assert!(matches!(got.op(), op::RW | op::CREDIT_UPDATE), "{header:?}");
                end.limit = header.fwd_cnt.get() as usize + header.buf_alloc.get() as usize;
                end.got.extend(got.payload);
            }
            // Cell 0's, which nobody answers.
            None => assert!(cell == 0 || header.src_cid.get() == 3, "{header:?}"),
        }
    }

    /// What a driver does when it has room, credit or news for its peers.
    fn drive(&mut self, cell: usize) {
        for end in self.ends.iter_mut().filter(|end| end.cell == cell) {
            let guest = &mut self.world.guests[cell];
            loop {
                let rest = end.written.len().min(end.limit) - end.sent;
                let stale = end.got.len() - end.told >= ROOM as usize / 4;
                if rest == 0 && !stale {
                    break;
                }
                let operation = if rest > 0 { op::RW } else { op::CREDIT_UPDATE };
                let mut header = guest.packet(end.peer, end.port, end.peer_port, operation);
                header.fwd_cnt = (end.got.len() as u32).into();
                let piece = &end.written[end.sent..][..rest.min(PIECE)];
                if !guest.send(&header, piece) {
                    break;
                }
                end.sent += piece.len();
                end.told = end.got.len();
            }
        }
        self.ring(cell);
    }

    fn ring(&mut self, cell: usize) {
        let guest = &mut self.world.guests[cell];
        for queue in [&mut guest.rx, &mut guest.tx, &mut guest.event] {
            self.kicked[cell] |= queue.needs_kick();
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Write(end, bytes) => {
                let cell = self.ends[end].cell;
                for _ in 0..bytes {
                    self.next = self.next.wrapping_add(1);
                    self.ends[end].written.push(self.next);
                }
                self.drive(cell);
            }
            Act::Kick(cell) => _ = self.kick(cell),
            Act::Look(cell) => _ = self.look(cell),
            Act::Timer => _ = self.timer(),
            Act::Hold(cell, holds) => self.hold(cell, holds),
            Act::Bother(cell, request) => {
                let guest = &mut self.world.guests[0];
                let operation = if request { op::REQUEST } else { op::RW };
                let header = guest.packet(3 + cell as u64, 60, 5001, operation);
                guest.send(&header, &[]);
                self.ring(0);
            }
            Act::Restart => {
                self.world.restart_guest(0);
                self.kicked[0] = false;
                self.ring(0);
                self.broker();
            }
        }
    }

    fn hold(&mut self, cell: usize, holds: bool) {
        self.holds[cell] = holds;
        if !holds {
            self.world.guests[cell].offer(64);
            self.ring(cell);
        }
    }

    fn settle(&mut self) {
        for cell in 0..3 {
            self.hold(cell, false);
        }
        for _ in 0..20_000 {
            let mut busy = false;
            for cell in 0..3 {
                busy |= self.kick(cell) | self.look(cell);
            }
            if !busy && !self.timer() {
                return;
            }
        }
        panic!("no end");
    }
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0..3usize, prop_oneof![1..100usize, 1000..40_000usize]).prop_map(|(end, bytes)| Act::Write(end, bytes)),
        5 => (0..3usize).prop_map(Act::Kick),
        5 => (0..3usize).prop_map(Act::Look),
        1 => Just(Act::Timer),
        2 => (0..3usize, any::<bool>()).prop_map(|(cell, holds)| Act::Hold(cell, holds)),
        1 => (1..3usize, any::<bool>()).prop_map(|(cell, request)| Act::Bother(cell, request)),
        1 => Just(Act::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 60 })
    })]
    #[test]
    fn streams_arrive_though_nobody_looks_untold(acts in prop::collection::vec(act(), 1..if cfg!(miri) { 12 } else { 150 })) {
        let mut told = Told::new();
        for act in acts {
            told.act(act);
        }
        told.settle();
        let [a, b, echo] = &told.ends[..] else { unreachable!() };
        for (what, from, to) in [("there", a, b), ("back", b, a), ("the echo", echo, echo)] {
            prop_assert_eq!(from.sent, from.written.len(), "not sent: {}", what);
            prop_assert_eq!(to.got.len(), from.sent, "not arrived: {}", what);
            prop_assert!(to.got == from.written);
        }
    }
}
