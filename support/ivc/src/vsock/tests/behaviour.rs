//! What honest guests see.

use super::*;
use crate::vsock::client::WAITING;
use crate::vsock::table::PER_CELL;
use partita_virtio::vsock::shutdown;

fn ops(got: &[Got]) -> Vec<u16> {
    got.iter().map(Got::op).collect()
}

fn bytes(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 7 + i / 251) as u8).collect()
}

#[test]
fn bytes_arrive_in_order_in_as_many_buffers_as_they_need() {
    let mut world = World::open(2);
    world.connect(0, 77, 1);
    let data = bytes(10_001);
    let rw = world.guests[0].packet(4, 77, 5000, op::RW);
    world.send(0, rw, &data);
    let got = world.got(1);
    assert_eq!(got.len(), 11);
    assert!(got.iter().all(|got| got.op() == op::RW && got.header.src_port.get() == 77));
    assert_eq!(got.concat_payload(), data);
    assert_eq!(world.guests[0].unsent(), 0);
    assert_eq!(world.counter(0, Counter::BytesSent), 10_001);
    assert_eq!(world.counter(1, Counter::BytesReceived), 10_001);
    assert_eq!(world.said(), []);
}

trait Concat {
    fn concat_payload(&self) -> Vec<u8>;
}

impl Concat for Vec<Got> {
    fn concat_payload(&self) -> Vec<u8> {
        self.iter().flat_map(|got| got.payload.clone()).collect()
    }
}

#[test]
fn a_message_has_its_border_at_its_last_byte_only() {
    let mut world = World::open(2);
    let seq = |mut header: Header| {
        header.kind = kind::SEQPACKET.into();
        header
    };
    let request = seq(world.guests[0].packet(4, 1, 5000, op::REQUEST));
    world.send(0, request, &[]);
    assert_eq!(world.got(1)[0].header.kind.get(), kind::SEQPACKET);
    let response = seq(world.guests[1].packet(3, 5000, 1, op::RESPONSE));
    world.send(1, response, &[]);
    world.got(0);
    let mut rw = seq(world.guests[0].packet(4, 1, 5000, op::RW));
    rw.flags = 3.into();
    world.send(0, rw, &bytes(2500));
    let flags: Vec<_> = world.got(1).iter().map(|got| got.header.flags.get()).collect();
    assert_eq!(flags, [0, 0, 3]);
    // A stream packet has no place on it.
    let rw = world.guests[0].packet(4, 1, 5000, op::RW);
    world.send(0, rw, b"x");
    assert_eq!(world.said(), [Said::Violation(0, Violation::Type)]);
    assert_eq!((ops(&world.got(0)), ops(&world.got(1))), (vec![op::RST], vec![op::RST]));
    world.assert_empty();
}

#[test]
fn seqpacket_to_a_driver_that_does_not_know_it_is_refused() {
    let mut world = World::open(2);
    world.reset(1);
    world.guests[1].features &= !feature::SEQPACKET;
    world.restart_guest(1);
    let mut request = world.guests[0].packet(4, 1, 5000, op::REQUEST);
    request.kind = kind::SEQPACKET.into();
    world.send(0, request, &[]);
    assert_eq!(ops(&world.got(0)), [op::RST]);
    assert_eq!(world.got(1), []);
    world.assert_empty();
}

#[test]
fn what_is_not_allowed_is_refused_and_counted() {
    let mut world = World::open(2);
    for (cid, port, why) in [
        (4, 4999, Refusal::NotAllowed),
        (3, 5000, Refusal::NotAllowed),
        (9, 5000, Refusal::Nobody),
        (2, 80, Refusal::NotAllowed),
        (1 << 40, 5000, Refusal::Nobody),
    ] {
        let request = world.guests[0].packet(cid, 7, port, op::REQUEST);
        world.send(0, request, &[]);
        let got = world.got(0);
        assert_eq!(ops(&got), [op::RST]);
        assert_eq!((got[0].header.src_cid.get(), got[0].header.src_port.get()), (cid, port));
        assert_eq!(world.said(), [Said::Refused(0, cid, port, why)]);
    }
    let manage = world.guests[1].packet(2, 7, 1, op::REQUEST);
    world.send(1, manage, &[]);
    assert_eq!(world.said(), [Said::Refused(1, 2, 1, Refusal::NotAllowed)]);
    assert_eq!((world.counter(0, Counter::Refused), world.counter(1, Counter::Refused)), (5, 1));
    world.got(1);
    world.assert_empty();
}

#[test]
fn close_goes_both_ways() {
    let mut world = World::open(2);
    world.connect(0, 1, 1);
    assert_eq!((world.counter(0, Counter::Open), world.counter(1, Counter::Open)), (1, 1));
    let mut close = world.guests[0].packet(4, 1, 5000, op::SHUTDOWN);
    close.flags = shutdown::BOTH.into();
    world.send(0, close, &[]);
    let got = world.got(1);
    assert_eq!((ops(&got), got[0].header.flags.get()), (vec![op::SHUTDOWN], 3));
    let rst = world.guests[1].packet(3, 5000, 1, op::RST);
    world.send(1, rst, &[]);
    assert_eq!(ops(&world.got(0)), [op::RST]);
    world.assert_empty();
    assert_eq!(world.counter(0, Counter::Connections), 1);
}

/// A guest that takes nothing holds up those who send to it and nobody else; what waits for it arrives afterwards, in order.
#[test]
fn a_guest_that_does_not_receive_stops_only_what_is_for_it() {
    let mut world = World::open(3);
    world.connect(0, 1, 1);
    world.connect(0, 2, 2);
    // Cell 1 stops: its 64 buffers fill up and then packets wait.
    let data = bytes(30_000);
    let mut sent = Vec::new();
    for part in data.chunks(1000) {
        let rw = world.guests[0].packet(4, 1, 5000, op::RW);
        world.send(0, rw, part);
        sent.extend_from_slice(part);
    }
    let rw = world.guests[0].packet(4, 1, 5000, op::RW);
    for _ in 0..30 {
        world.send(0, rw, &[5; 1000]);
        sent.extend_from_slice(&[5; 1000]);
    }
    // 64 KiB of credit are used up but for a little: no violation so far.
    assert_eq!(world.said(), []);
    world.guests[1].offer(0);
    let to_2 = world.guests[0].packet(5, 2, 5000, op::RW);
    world.send(0, to_2, b"goes on");
    assert_eq!(world.got(2).concat_payload(), b"goes on");
    let mut arrived = Vec::new();
    for _ in 0..100 {
        arrived.extend(world.guests[1].receive());
        world.run();
    }
    assert_eq!(arrived.concat_payload(), sent);
    assert_eq!(world.guests[0].unsent(), 0);
    assert_eq!(world.said(), []);
}

/// Without any buffers at the receiver: packets wait in the sender's queue, up to a limit, and for some time.
#[test]
fn connections_with_a_guest_that_is_dead_to_the_world_are_reset_at_last() {
    let mut world = World::open(3);
    world.connect(0, 1, 1);
    world.connect(0, 2, 2);
    world.connect(1, 3, 2);
    while world.guests[1].rx.free() < 256 {
        // Cell 2 fills cell 1's buffers.
        let rw = world.guests[2].packet(4, 5000, 3, op::RW);
        if world.guests[2].unsent() > 0 {
            break;
        }
        world.send(2, rw, &[1; 500]);
    }
    let rw = world.guests[0].packet(4, 1, 5000, op::RW);
    for _ in 0..WAITING {
        world.send(0, rw, &[2; 100]);
    }
    assert_eq!(world.guests[0].unsent(), WAITING);
    let to_2 = world.guests[0].packet(5, 2, 5000, op::RW);
    world.send(0, to_2, b"held up");
    assert_eq!(world.got(2).concat_payload(), b"");
    let deadline = world.broker.deadline().expect("it wants to look again");
    world.now = deadline;
    world.run();
    assert_eq!(world.said(), [Said::GaveUp(0, 1)]);
    world.run();
    assert_eq!(world.got(2).concat_payload(), b"held up");
    assert_eq!(ops(&world.got(0)), [op::RST]);
    assert_eq!(world.guests[0].unsent(), 0);
    // It wakes up: what it had not taken, then the end of the connection. Cell 2's goes on.
    let mut got = Vec::new();
    for _ in 0..10 {
        got.extend(world.got(1));
        world.run();
    }
    assert_eq!(got.iter().filter(|got| got.op() == op::RST).count(), 1);
    assert!(got.iter().all(|got| got.payload.iter().all(|byte| *byte == 1)));
}

#[test]
fn a_peer_that_restarts_is_an_error_at_the_other_end_and_nowhere_else() {
    let mut world = World::open(3);
    world.connect(0, 1, 1);
    world.connect(2, 1, 1);
    world.connect(0, 2, 2);
    world.restart_guest(1);
    world.run();
    for (cell, peer) in [(0, 4), (2, 4)] {
        let got = world.got(cell);
        assert_eq!(ops(&got), [op::RST]);
        assert_eq!(got[0].header.src_cid.get(), peer);
        assert_eq!(world.guests[cell].events, 0);
    }
    let rw = world.guests[0].packet(5, 2, 5000, op::RW);
    world.send(0, rw, b"still here");
    assert_eq!(world.got(2).concat_payload(), b"still here");
    // The same ports again.
    world.connect(0, 1, 1);
    assert_eq!(world.said(), []);
}

#[test]
fn the_same_ports_again_before_the_peer_has_heard_of_the_end() {
    let mut world = World::open(2);
    world.connect(0, 1, 1);
    // Cell 1 has no free buffer and misses that cell 0 starts anew.
    world.guests[1].take();
    let filler = world.guests[0].packet(4, 1, 5000, op::RW);
    for _ in 0..64 {
        world.send(0, filler, b"f");
    }
    world.restart_guest(0);
    world.run();
    let request = world.guests[0].packet(4, 1, 5000, op::REQUEST);
    world.send(0, request, &[]);
    let mut got = Vec::new();
    for _ in 0..5 {
        got.extend(world.got(1));
        world.run();
    }
    let ops: Vec<_> = ops(&got).into_iter().filter(|op| *op != op::RW).collect();
    assert_eq!(ops, [op::RST, op::REQUEST]);
}

#[test]
fn the_broker_restarts_under_running_guests() {
    let mut world = World::open(2);
    world.connect(0, 1, 1);
    // Fill the receiver, so that packets wait, with others done behind them.
    let rw = world.guests[0].packet(4, 1, 5000, op::RW);
    for _ in 0..70 {
        world.send(0, rw, b"data");
    }
    let echo = world.guests[0].packet(2, 9, 7, op::REQUEST);
    world.send(0, echo, &[]);
    assert!(world.guests[0].unsent() > 0);
    world.restart_broker();
    world.run();
    world.got(0);
    // Every chain came back exactly once (DriverQueue asserts it), and both were told.
    assert_eq!(world.guests[0].unsent(), 0);
    let before = world.guests[1].receive();
    assert_eq!(before.iter().filter(|got| got.op() == op::RW).count(), 64);
    world.run();
    world.got(1);
    assert_eq!((world.guests[0].events, world.guests[1].events), (1, 1));
    // Packets of the old life are answered, new connections work.
    world.send(0, rw, b"data");
    assert_eq!(ops(&world.got(0)), [op::RST]);
    world.connect(0, 1, 1);
    world.send(0, rw, b"data");
    assert_eq!(world.got(1).concat_payload(), b"data");
    assert_eq!(world.said(), []);
}

#[test]
fn a_life_that_refuses_answers_everything_with_a_rst_until_the_broker_works_again() {
    let mut world = World::open(3);
    world.connect(0, 1, 1);
    let rw = world.guests[0].packet(4, 1, 5000, op::RW);
    for _ in 0..70 {
        world.send(0, rw, b"data");
    }
    assert!(world.guests[0].unsent() > 0, "the receiver is full");
    world.got(1);
    world.next_life(true);
    world.run();
    world.got(0);
    world.got(1);
    assert_eq!(world.guests[0].unsent(), 0);
    assert_eq!([0, 1].map(|cell| world.guests[cell].events), [1, 1], "all connections are gone");
    let before = world.counter(0, Counter::Refused);
    for (cid, port, operation) in [
        (4, 5000, op::REQUEST),
        (4, 5000, op::RW),
        (4, 5000, op::SHUTDOWN),
        (2, 7, op::REQUEST),
        (2, 1, op::REQUEST),
        (77, 1, op::REQUEST),
        (4, 5000, 99),
    ] {
        let packet = world.guests[0].packet(cid, 1, port, operation);
        world.send(0, packet, if operation == op::RW { b"data" } else { b"" });
        let got = world.got(0);
        assert_eq!(ops(&got), [op::RST], "{cid}:{port} {operation}");
        let header = &got[0].header;
        assert_eq!((header.src_cid.get(), header.src_port.get(), header.dst_port.get()), (cid, port, 1));
    }
    assert_eq!(world.counter(0, Counter::Refused) - before, 4);
    // No answer to a RST, nor to one who is not the sender.
    let rst = world.guests[0].packet(4, 1, 5000, op::RST);
    world.send(0, rst, &[]);
    let forged = Header { src_cid: 4.into(), ..world.guests[0].packet(5, 1, 5000, op::REQUEST) };
    world.send(0, forged, &[]);
    // A guest that starts now finds a device that works and nobody to talk to.
    world.restart_guest(2);
    let request = world.guests[2].packet(3, 1, 5000, op::REQUEST);
    world.send(2, request, &[]);
    assert_eq!([0, 1, 2].map(|cell| ops(&world.got(cell))), [vec![], vec![], vec![op::RST]]);
    world.assert_empty();
    let held = Said::Refused(2, 3, 5000, Refusal::Held);
    assert_eq!(world.said().last(), Some(&held));
    // Started by hand, all is as after any restart.
    world.restart_broker();
    world.run();
    assert_eq!([0, 1, 2].map(|cell| ops(&world.got(cell))), [const { Vec::<u16>::new() }; 3]);
    assert_eq!([0, 1, 2].map(|cell| world.guests[cell].events), [2, 2, 1]);
    world.connect(0, 1, 1);
    world.send(0, rw, b"data");
    assert_eq!(world.got(1).concat_payload(), b"data");
}

#[test]
fn thousands_of_connections_leak_nothing_and_the_limit_is_clear() {
    let mut world = World::open(2);
    let rounds = if cfg!(miri) { 3 } else { 5000 };
    for n in 0..rounds {
        world.connect(0, n, 1);
        let (end, rst) = match n % 3 {
            0 => (0, world.guests[0].packet(4, n, 5000, op::RST)),
            1 => (1, world.guests[1].packet(3, 5000, n, op::RST)),
            _ => {
                let request = world.guests[0].packet(4, n, 5000, op::REQUEST);
                (0, request) // twice: a violation that resets both
            }
        };
        world.send(end, rst, &[]);
        world.got(0);
        world.got(1);
    }
    world.said();
    world.assert_empty();
    assert_eq!(world.counter(0, Counter::Connections), u64::from(rounds));
    if cfg!(miri) {
        return;
    }
    for n in 0..PER_CELL as u32 {
        world.connect(0, n, 1);
    }
    let request = world.guests[0].packet(4, 9999, 5000, op::REQUEST);
    world.send(0, request, &[]);
    assert_eq!(ops(&world.got(0)), [op::RST]);
    assert_eq!(world.said(), [Said::Refused(0, 4, 5000, Refusal::Limit)]);
    // The other cell is not concerned.
    world.connect(1, 1, 0);
}

#[test]
fn services_of_cid_2() {
    let mut world = World::open(2);
    let connect = |world: &mut World, cell: usize, from: u32, port: u32| {
        let request = world.guests[cell].packet(2, from, port, op::REQUEST);
        world.send(cell, request, &[]);
        let got = world.got(cell);
        assert_eq!(got[0].op(), op::RESPONSE);
        got
    };
    // Echo.
    assert_eq!(connect(&mut world, 0, 1, 7)[0].header.buf_alloc.get(), 5120);
    let rw = world.guests[0].packet(2, 1, 7, op::RW);
    world.send(0, rw, &bytes(3000));
    assert_eq!(world.got(0).concat_payload(), bytes(3000));
    let mut shut = world.guests[0].packet(2, 1, 7, op::SHUTDOWN);
    shut.flags = shutdown::SEND.into();
    world.send(0, shut, &[]);
    assert_eq!(ops(&world.got(0)), [op::SHUTDOWN]);
    shut.flags = shutdown::BOTH.into();
    world.send(0, shut, &[]);
    assert_eq!(ops(&world.got(0)), [op::RST]);
    // Discard takes more than its window, and says so.
    let window = connect(&mut world, 0, 2, 9)[0].header.buf_alloc.get();
    let rw = world.guests[0].packet(2, 2, 9, op::RW);
    for _ in 0..window / 8192 {
        world.send(0, rw, &bytes(8192));
    }
    let told = world.got(0).last().unwrap().header;
    assert_eq!((told.op.get(), told.fwd_cnt.get()), (op::CREDIT_UPDATE, window));
    // Chargen sends as much as it may and no more.
    let mut made = connect(&mut world, 0, 3, 19);
    for _ in 0..10 {
        world.run();
        made.extend(world.got(0));
    }
    let made = made.concat_payload();
    assert_eq!(made.len(), 65536);
    for (number, line) in made.chunks_exact(74).enumerate() {
        assert_eq!((line[0], &line[72..]), (b' ' + (number % 95) as u8, &b"\r\n"[..]));
    }
    // The log.
    connect(&mut world, 1, 4, 514);
    let rw = world.guests[1].packet(2, 4, 514, op::RW);
    world.send(1, rw, b"one\n\ntwo\nhalf");
    assert_eq!(world.said(), [Said::Line(1, b"one".to_vec()), Said::Line(1, b"two".to_vec())]);
    let mut shut = world.guests[1].packet(2, 4, 514, op::SHUTDOWN);
    shut.flags = shutdown::BOTH.into();
    world.send(1, shut, &[]);
    assert_eq!(world.said(), [Said::Line(1, b"half".to_vec())]);
    assert_eq!(ops(&world.got(1)), [op::RST]);
    for (port, to) in [(2, 9), (3, 19)] {
        let rst = world.guests[0].packet(2, port, to, op::RST);
        world.send(0, rst, &[]);
    }
    world.assert_empty();
}

fn supervisor_line(world: &mut World) -> String {
    let mut bytes = vec![0; 20_000];
    let length = world.supervisor.rx.read(&mut bytes);
    String::from_utf8(bytes[..length].to_vec()).unwrap()
}

#[test]
fn management_lines_go_to_the_supervisor_and_back_one_at_a_time() {
    let mut world = World::open(2);
    for port in [1, 2] {
        let request = world.guests[0].packet(2, port, port, op::REQUEST);
        world.send(0, request, &[]);
    }
    world.got(0);
    let rw = world.guests[0].packet(2, 1, 1, op::RW);
    world.send(0, rw, b"{\"a\":1}\n{\"b\":2}\n{\"c");
    assert_eq!(supervisor_line(&mut world), "0 1 {\"a\":1}\n");
    assert!(world.supervisor.tx.write_all(b"1 {\"one\":1}\n+2 {\"push\":1}\n99 nobody\nnonsense\n"));
    world.run();
    let got = world.got(0);
    let to = |port: u32| -> Vec<u8> {
        got.iter().filter(|g| g.header.dst_port.get() == port).flat_map(|g| g.payload.clone()).collect()
    };
    assert_eq!(to(1), b"{\"one\":1}\n");
    assert_eq!(to(2), b"{\"push\":1}\n");
    assert_eq!(supervisor_line(&mut world), "0 1 {\"b\":2}\n");
    // A request that never ends gets one answer, and the next one counts again.
    assert!(world.supervisor.tx.write_all(b"1 {}\n"));
    world.run();
    world.got(0);
    let rw = world.guests[0].packet(2, 1, 1, op::RW);
    world.send(0, rw, &[b'x'; 900]);
    world.send(0, rw, b"xxx\n{\"d\":4}\n");
    let answer = world.got(0).concat_payload();
    assert!(answer.starts_with(b"{\"error\":") && answer.ends_with(b"\n"));
    assert_eq!(supervisor_line(&mut world), "0 1 {\"d\":4}\n");
}

/// A session that does not read its answers holds up no other.
#[test]
fn a_session_that_does_not_read_keeps_its_own_memory_only() {
    let mut world = World::open(2);
    let mut request = world.guests[0].packet(2, 50, 1, op::REQUEST);
    request.buf_alloc = 0.into(); // no credit for us, ever
    world.send(0, request, &[]);
    let request = world.guests[0].packet(2, 51, 1, op::REQUEST);
    world.send(0, request, &[]);
    let mut slow = world.guests[0].packet(2, 50, 1, op::RW);
    slow.buf_alloc = 0.into();
    let long = [&b"1 "[..], &[b'y'; 4000], b"\n"].concat();
    for _ in 0..4 {
        world.send(0, slow, b"{}\n");
        supervisor_line(&mut world);
        assert!(world.supervisor.tx.write_all(&long));
        assert!(world.supervisor.tx.write_all(b"+1 {\"push\":1}\n"));
        world.run();
    }
    let quick = world.guests[0].packet(2, 51, 1, op::RW);
    world.send(0, quick, b"{\"q\":1}\n");
    assert_eq!(supervisor_line(&mut world), "0 2 {\"q\":1}\n");
    assert!(world.supervisor.tx.write_all(b"2 {\"ok\":1}\n"));
    world.run();
    assert!(world.got(0).concat_payload().ends_with(b"{\"ok\":1}\n"));
}
