//! Random histories of three guests: honest streams arrive whole whatever a hostile guest, restarts and missing buffers do.

use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Act {
    /// Cell 1 sends this many bytes to cell 2.
    Send(u16),
    /// Cell 2 takes what came and says so.
    Read,
    /// Cell 2 gives buffers.
    Offer(u8),
    /// Cell 0 sends anything.
    Nonsense {
        dst: u8,
        ports: (u8, u8),
        kind: u8,
        op: u8,
        len: u16,
        flags: u8,
        credit: (u32, u32),
        forge: bool,
        bytes: u8,
    },
    /// Cell 0 takes what came.
    Take,
    /// Cell 0 starts again.
    Restart,
    /// Time passes.
    Wait,
}

fn act() -> impl Strategy<Value = Act> {
    let nonsense = (
        (0..6u8, (0..3u8, 0..4u8), 0..4u8, 0..9u8),
        (0..300u16, 0..5u8, any::<(u32, u32)>(), prop::bool::weighted(0.1), any::<u8>()),
    );
    prop_oneof![
        4 => (1..9000u16).prop_map(Act::Send),
        3 => Just(Act::Read),
        2 => (1..20u8).prop_map(Act::Offer),
        8 => nonsense.prop_map(|((dst, ports, kind, op), (len, flags, credit, forge, bytes))| {
            Act::Nonsense { dst, ports, kind, op, len, flags, credit, forge, bytes }
        }),
        2 => Just(Act::Take),
        1 => Just(Act::Restart),
        1 => Just(Act::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 60 })
    })]
    #[test]
    fn an_honest_stream_arrives_whole(acts in prop::collection::vec(act(), 1..if cfg!(miri) { 12 } else { 150 })) {
        let mut world = World::open(3);
        world.connect(1, 70, 2);
        let (mut sent, mut read) = (Vec::new(), Vec::new());
        let (mut told, mut next) = (0usize, 0u8);
        for act in acts {
            match act {
                Act::Send(bytes) => {
                    // As an honest driver: within the credit.
                    let bytes = usize::from(bytes).min(told + 65536 - sent.len());
                    let data: Vec<u8> = (0..bytes).map(|_| { next = next.wrapping_add(1); next }).collect();
                    let rw = world.guests[1].packet(5, 70, 5000, op::RW);
                    if bytes > 0 && world.guests[1].send(&rw, &data) {
                        sent.extend(data);
                    }
                }
                Act::Read => {
                    let got = world.guests[2].receive();
                    prop_assert!(got.iter().filter(|g| g.header.src_cid.get() == 4).all(|g| g.op() == op::RW));
                    read.extend(got.iter().filter(|g| g.header.src_cid.get() == 4).flat_map(|g| g.payload.clone()));
                    let mut update = world.guests[2].packet(4, 5000, 70, op::CREDIT_UPDATE);
                    update.fwd_cnt = (read.len() as u32).into();
                    if world.guests[2].send(&update, &[]) {
                        told = read.len();
                    }
                    world.guests[1].receive();
                }
                Act::Offer(count) => world.guests[2].offer(count.into()),
                Act::Nonsense { dst, ports, kind, op, len, flags, credit, forge, bytes } => {
                    let port = |n: u8| [5000, 5001, 7, 514][usize::from(n)];
                    let header = Header {
                        src_cid: if forge { 4 } else { 3 }.into(),
                        dst_cid: u64::from(dst).into(),
                        src_port: u32::from(ports.0).into(),
                        dst_port: port(ports.1).into(),
                        len: u32::from(len).into(),
                        kind: if kind < 3 { 1 } else { u16::from(kind) - 1 }.into(),
                        op: u16::from(op).into(),
                        flags: u32::from(flags).into(),
                        buf_alloc: credit.0.into(),
                        fwd_cnt: if credit.1 % 2 == 0 { 0 } else { credit.1 }.into(),
                    };
                    world.guests[0].send(&header, &vec![7; bytes.into()]);
                }
                Act::Take => _ = world.guests[0].receive(),
                Act::Restart => world.restart_guest(0),
                Act::Wait => world.now += SECOND / 4,
            }
            world.run();
            prop_assert!(world.broker.connections.used() < 600);
        }
        // Let everything arrive.
        for _ in 0..200 {
            let got = world.guests[2].receive();
            read.extend(got.iter().filter(|g| g.header.src_cid.get() == 4).flat_map(|g| g.payload.clone()));
            world.guests[2].offer(8);
            world.guests[1].receive();
            world.guests[0].receive();
            world.run();
        }
        prop_assert_eq!(&read, &sent);
        let said = world.said();
        let blamed = |said: &Said| matches!(said, Said::Violation(0, _) | Said::Refused(0, ..) | Said::Line(0, _) | Said::GaveUp(0, _));
        prop_assert!(said.iter().all(blamed), "{:?}", said);
        for cell in 0..3 {
            world.reset(cell);
        }
        world.assert_empty();
    }
}
