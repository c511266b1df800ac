//! What a guest may try. Cell 0 is the hostile one; cells 1 and 2 have a connection that must not notice.

use super::*;

struct Siege(World);

impl Siege {
    fn new() -> Self {
        let mut world = World::open(3);
        world.connect(1, 100, 2);
        Siege(world)
    }

    /// The others still talk.
    fn others_are_fine(&mut self) {
        let rw = self.0.guests[1].packet(5, 100, 5000, op::RW);
        self.0.send(1, rw, b"ping");
        let got = self.0.got(2);
        assert_eq!((got.len(), got[0].payload.as_slice()), (1, &b"ping"[..]));
        let mut back = self.0.guests[2].packet(4, 5000, 100, op::CREDIT_UPDATE);
        back.fwd_cnt = self.0.guests[2].consumed().into();
        self.0.send(2, back, &[]);
        assert_eq!(self.0.got(1).len(), 1);
    }
}

impl Guest {
    fn consumed(&mut self) -> u32 {
        self.events += 4;
        self.events
    }
}

#[test]
fn packets_that_break_a_rule_are_dropped_or_reset_and_counted() {
    type Change = fn(&mut Header);
    let cases: &[(&str, Change, Violation)] = &[
        ("another's cid as source", |h| h.src_cid = 4.into(), Violation::Source),
        ("a cid with high bits as source", |h| h.src_cid = (1 << 32 | 3).into(), Violation::Source),
        ("unknown type", |h| h.kind = 3.into(), Violation::Type),
        ("type 0", |h| h.kind = 0.into(), Violation::Type),
        ("operation 0", |h| h.op = 0.into(), Violation::Operation),
        ("operation 8", |h| h.op = 8.into(), Violation::Operation),
        ("operation 65535", |h| h.op = u16::MAX.into(), Violation::Operation),
        ("more bytes than the chain", |h| h.len = 5.into(), Violation::Length),
        ("4 GiB", |h| h.len = u32::MAX.into(), Violation::Length),
        (
            "payload on a credit update",
            |h| (h.op, h.len) = (op::CREDIT_UPDATE.into(), 4.into()),
            Violation::Length,
        ),
        ("more consumed than was sent", |h| h.fwd_cnt = 1.into(), Violation::Credit),
        ("half the number space consumed", |h| h.fwd_cnt = 0x7fff_ffff.into(), Violation::Credit),
        ("a second request", |h| (h.op, h.len) = (op::REQUEST.into(), 0.into()), Violation::State),
        ("a second response", |h| (h.op, h.len) = (op::RESPONSE.into(), 0.into()), Violation::State),
    ];
    for (name, change, violation) in cases {
        let mut siege = Siege::new();
        siege.0.connect(0, 1, 1);
        let mut packet = siege.0.guests[0].packet(4, 1, 5000, op::RW);
        packet.len = 4.into();
        change(&mut packet);
        siege.0.send(0, packet, b"four");
        assert_eq!(siege.0.said(), [Said::Violation(0, *violation)], "{name}");
        assert_eq!(siege.0.counter(0, Counter::Violations), 1, "{name}");
        let got = siege.0.got(1);
        assert!(
            got.iter().all(|got| got.op() == op::RST && got.header.src_cid.get() == 3),
            "{name}: {got:?}"
        );
        siege.0.got(0);
        siege.others_are_fine();
    }
}

#[test]
fn sending_more_than_the_receiver_has_room_for_is_a_violation() {
    let mut siege = Siege::new();
    siege.0.connect(0, 1, 1);
    let rw = siege.0.guests[0].packet(4, 1, 5000, op::RW);
    for _ in 0..6 {
        siege.0.send(0, rw, &[0; 10_000]);
        siege.0.got(1);
    }
    assert_eq!(siege.0.said(), []);
    siege.0.send(0, rw, &[0; 10_000]);
    assert_eq!(siege.0.said(), [Said::Violation(0, Violation::Overrun)]);
    assert!(siege.0.got(1).iter().all(|got| got.op() == op::RST));
    siege.others_are_fine();
}

/// Of the receiver it is enough that it says what it likes: only its own memory is meant.
#[test]
fn a_receiver_that_promises_too_much_hurts_itself() {
    let mut siege = Siege::new();
    siege.0.connect(1, 1, 0);
    let mut update = siege.0.guests[0].packet(4, 5000, 1, op::CREDIT_UPDATE);
    update.buf_alloc = u32::MAX.into();
    siege.0.send(0, update, &[]);
    assert_eq!(siege.0.said(), []);
    assert_eq!(siege.0.got(1).len(), 1);
    siege.others_are_fine();
}

#[test]
fn a_flood_of_packets_without_a_connection_stops_at_the_senders_own_buffers() {
    let mut siege = Siege::new();
    let mut bad = siege.0.guests[0].packet(4, 9, 4000, op::RW);
    bad.len = 0.into();
    for _ in 0..80 {
        siege.0.guests[0].send(&bad, b"x");
    }
    siege.0.run();
    // 64 buffers for RSTs and 16 places for more.
    assert_eq!(siege.0.guests[0].unsent(), 0);
    for _ in 0..40 {
        siege.0.guests[0].send(&bad, b"x");
    }
    siege.0.run();
    assert_eq!(siege.0.guests[0].unsent(), 40);
    siege.others_are_fine();
    let mut resets = 0;
    for _ in 0..5 {
        resets += siege.0.got(0).iter().filter(|got| got.op() == op::RST).count();
        siege.0.run();
    }
    assert_eq!((resets, siege.0.guests[0].unsent()), (120, 0));
}

#[test]
fn queues_that_break_the_rules_of_virtio_stop_the_device_and_reset_its_connections() {
    type Attack = fn(&mut Guest);
    let attacks: &[(&str, Attack)] = &[
        ("a header that is too short", |g| _ = g.tx.add(&[Buffer::out(TX_AT, 43)])),
        ("a writable transmit buffer", |g| _ = g.tx.add(&[Buffer::into(TX_AT, 100)])),
        ("a header outside RAM", |g| _ = g.tx.add(&[Buffer::out(BASE + RAM, 44)])),
        ("payload outside RAM", |g| {
            _ = g.tx.add(&[Buffer::out(TX_AT, 44), Buffer::out(BASE + RAM - 1, 2)]);
        }),
        ("an address that overflows", |g| {
            _ = g.tx.add(&[Buffer::out(TX_AT, 44), Buffer::out(u64::MAX - 1, 4)]);
        }),
        ("avail.idx far ahead", |g| g.tx.corrupt_avail_index(5000)),
        ("a chain of 200 pieces", |g| {
            let parts: Vec<_> = (0..200).map(|_| Buffer::out(TX_AT, 100)).collect();
            _ = g.tx.add(&parts);
        }),
    ];
    for (name, attack) in attacks {
        let mut siege = Siege::new();
        siege.0.connect(0, 1, 1);
        attack(&mut siege.0.guests[0]);
        siege.0.run();
        assert!(matches!(siege.0.said()[..], [Said::Fault(0, _)]), "{name}");
        assert_eq!(siege.0.got(1).iter().map(Got::op).collect::<Vec<_>>(), [op::RST], "{name}");
        siege.others_are_fine();
        siege.0.restart_guest(0);
        siege.0.connect(0, 1, 1);
    }
}

#[test]
fn receive_buffers_that_break_the_rules_are_their_owners_fault() {
    type Attack = fn(&mut Guest);
    let attacks: &[(&str, Attack)] = &[
        ("a readable one", |g| _ = g.rx.add(&[Buffer::out(RX_AT, 4096)])),
        ("one that is too small", |g| _ = g.rx.add(&[Buffer::into(RX_AT, 43)])),
        ("one without room for payload", |g| _ = g.rx.add(&[Buffer::into(RX_AT, 44)])),
        ("one outside RAM", |g| _ = g.rx.add(&[Buffer::into(BASE + RAM - 44, 4096)])),
    ];
    for (name, attack) in attacks {
        let mut siege = Siege::new();
        siege.0.connect(1, 1, 0);
        // The good buffers are used up first.
        let rw = siege.0.guests[1].packet(3, 1, 5000, op::RW);
        for _ in 0..64 {
            siege.0.send(1, rw, b"f");
        }
        siege.0.guests[0].take();
        attack(&mut siege.0.guests[0]);
        siege.0.send(1, rw, b"the one");
        assert!(matches!(siege.0.said()[..], [Said::Fault(0, _)]), "{name}");
        assert_eq!(siege.0.got(1).iter().map(Got::op).collect::<Vec<_>>(), [op::RST], "{name}");
        assert_eq!(siege.0.guests[1].unsent(), 0, "{name}");
        siege.others_are_fine();
    }
}
