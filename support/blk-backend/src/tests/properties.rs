//! Any script of events.

use proptest::prelude::*;

use super::*;

/// What a script step does.
#[derive(Clone, Debug)]
enum Step {
    /// Guest, kind, sector, sectors, size of pieces.
    Send(usize, u32, u64, u64, usize),
    /// The device finishes one of its requests.
    Finish(usize),
    /// Events are delivered.
    Deliver,
    /// Requests will finish just before the interrupt is armed.
    Late(usize),
    /// So many of the next finish while they are watched.
    Soon(usize),
    /// The backend dies and comes back.
    Restart,
}

fn step(guests: usize) -> impl Strategy<Value = Step> {
    let kind = prop_oneof![4 => Just(kind::IN), 4 => Just(kind::OUT), 1 => Just(kind::FLUSH), 1 => Just(kind::GET_ID), 1 => Just(50u32)];
    let sector = prop_oneof![9 => 0..SECTORS, 1 => any::<u64>()];
    prop_oneof![
        8 => (0..guests, kind, sector, 1u64..=16, prop_oneof![Just(512usize), Just(4096), Just(700)])
            .prop_map(|(g, k, s, n, p)| Step::Send(g, k, s, n, p)),
        5 => any::<usize>().prop_map(Step::Finish),
        4 => Just(Step::Deliver),
        1 => (1usize..3).prop_map(Step::Late),
        1 => (1usize..9).prop_map(Step::Soon),
    ]
}

fn send(
    system: &mut System,
    n: usize,
    kind: u32,
    sector: u64,
    sectors: u64,
    piece: usize,
    serial: u8,
) -> bool {
    let len = match kind {
        kind::IN | kind::OUT => sectors as usize * 512,
        kind::GET_ID => 20,
        _ => 0,
    };
    system.guests[n].send(kind, sector, &vec![serial; len], piece)
}

fn expected(sent: &Sent) -> u8 {
    let inside = sent.sector.checked_add(u64::from(sent.bytes) / 512).is_some_and(|end| end <= SECTORS);
    match sent.kind {
        kind::IN | kind::OUT if !inside => IOERR,
        50 => UNSUPP,
        _ => OK,
    }
}

/// Runs the script and checks every answer and, for guest 0, every byte against a model. Returns requests sent.
fn run(
    system: &mut System,
    script: Vec<Step>,
    well_behaved: std::ops::Range<usize>,
) -> Result<usize, TestCaseError> {
    let mut done = Vec::new();
    let mut sent = 0;
    for (i, step) in script.into_iter().enumerate() {
        match step {
            Step::Send(n, kind, sector, sectors, piece) => {
                if send(system, n, kind, sector, sectors, piece, i as u8) && well_behaved.contains(&n) {
                    sent += 1;
                }
            }
            Step::Finish(which) => {
                let running = system.backend.device().running.len();
                if running > 0 {
                    system.backend.device_mut().finish(which % running);
                }
            }
            Step::Late(count) => system.backend.device_mut().late = count,
            Step::Soon(count) => system.backend.device_mut().soon = count,
            Step::Deliver => system.step(&mut done),
            Step::Restart => system.restart(),
        }
    }
    system.finish(&mut done);
    for n in well_behaved {
        prop_assert!(system.guests[n].sent.is_empty(), "guest {} waits for {:?}", n, system.guests[n].sent);
    }
    for got in &done {
        prop_assert_eq!(got.status, expected(&got.sent), "{:?}", got.sent);
        let len = match (got.sent.kind, got.status) {
            (kind::IN | kind::GET_ID, OK) => got.sent.bytes + 1,
            (kind::IN, _) => 0,
            _ => 1,
        };
        prop_assert_eq!(got.used, len);
    }
    let depth = u32::from(system.backend.device().properties().depth);
    prop_assert_eq!(system.backend.free.count_ones(), depth);
    prop_assert!(!system.backend.is_busy());
    Ok(sent)
}

/// What no guest may ever touch: sectors before the first window.
fn untouched(system: &System) -> bool {
    system.backend.device().bytes[..(SECTORS * 512) as usize].iter().all(|b| *b == 0)
}

proptest! {
    /// Each request completes exactly once with the right status, whatever the order of events; nobody is left asleep.
    #[test]
    fn conservation(
        script in prop::collection::vec(step(3), 1..200),
        depth in 2u16..20,
        event_idx: bool,
        indirect: bool,
        flush: bool,
        queues in prop::collection::vec(1usize..=4, 3),
    ) {
        let mut features = offered();
        if !event_idx { features &= !features::EVENT_IDX; }
        if !indirect { features &= !features::INDIRECT_DESC; }
        if !flush { features &= !feature::FLUSH; }
        let mut system = System::with_queues(3, depth, features, &queues);
        run(&mut system, script, 0..3)?;
        prop_assert!(untouched(&system));
    }

    /// The same with the backend dying anywhere between events: guests see a delay, no request is lost or doubled.
    #[test]
    fn restarts(
        script in prop::collection::vec(prop_oneof![12 => step(2), 1 => Just(Step::Restart)], 1..200),
        depth in 2u16..20,
        queues in prop::collection::vec(1usize..=4, 2),
    ) {
        let mut system = System::with_queues(2, depth, offered(), &queues);
        run(&mut system, script, 0..2)?;
        prop_assert!(untouched(&system));
    }

    /// One guest writes anything anywhere into its rings and tables: the other guest's requests all complete, and neither
    /// sectors nor memory outside what is the mad one's are touched (the fake device would panic).
    #[test]
    fn a_mad_guest(
        script in prop::collection::vec(step(2), 1..100),
        noise in prop::collection::vec((0u64..0x9000, any::<[u8; 8]>(), any::<bool>()), 1..60),
        queues in prop::collection::vec(1usize..=4, 2),
    ) {
        let mut system = System::with_queues(2, 16, offered(), &queues);
        let ram = system.guests[0].ram.ram();
        let mut done = Vec::new();
        let chunk = script.len().div_ceil(noise.len());
        let mut script = script.into_iter();
        for (at, bytes, kick) in noise {
            for step in script.by_ref().take(chunk) {
                // Only the good guest's requests are looked at; the mad one sends through its rings as they are.
                match step {
                    Step::Send(1, kind, sector, sectors, piece) => {
                        send(&mut system, 1, kind, sector, sectors, piece, 9);
                    }
                    Step::Send(_, kind, sector, sectors, piece) if system.guests[0].sent.len() < 8 => {
                        send(&mut system, 0, kind, sector, sectors, piece, 9);
                    }
                    Step::Finish(which) => {
                        let running = system.backend.device().running.len();
                        if running > 0 { system.backend.device_mut().finish(which % running); }
                    }
                    _ => {}
                }
            }
            ram.write(BASE + at, &bytes).unwrap();
            system.guests[0].kick |= kick;
            step_without_looking(&mut system, &mut done);
        }
        for _ in 0..1000 {
            system.backend.device_mut().finish_all();
            step_without_looking(&mut system, &mut done);
            let device = system.backend.device();
            if device.running.is_empty() && !device.interrupt && !system.guests[1].kick { break; }
        }
        prop_assert!(system.guests[1].sent.is_empty(), "the good guest waits: {:?}", system.guests[1].sent);
        for got in &done {
            prop_assert_eq!(got.status, expected(&got.sent));
        }
        prop_assert!(untouched(&system));
        let other = system.guests[1].status.devices[0].needs_reset.load(Ordering::Acquire);
        prop_assert_eq!(other, 0);
        // And the mad one can come back.
        system.start_afresh(0);
        prop_assert_eq!(one(&mut system, 0, kind::IN, 0, &[0; 512]).status, OK);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Two guests that always have requests waiting get the same number of bytes, whatever the sizes of their requests and
    /// however many queues they are in.
    #[test]
    fn fairness(
        sizes in (1u64..=16, 1u64..=16),
        depth in 4u16..12,
        queues in prop::collection::vec(1usize..=4, 2),
    ) {
        let mut system = System::with_queues(2, depth, offered(), &queues);
        let mut done = Vec::new();
        let sizes = [sizes.0, sizes.1];
        let mut served = [0i64; 2];
        let mut logged = 0;
        for _ in 0..600 {
            for (n, size) in sizes.into_iter().enumerate() {
                while system.guests[n].sent.len() < 32 && send(&mut system, n, kind::IN, 0, size, 8192, 0) {}
            }
            system.step(&mut done);
            done.clear();
            for seen in &system.backend.device().log[logged..] {
                let n = (seen.sector / SECTORS - 1) as usize;
                served[n] += i64::from(seen.sectors) * 512 + turns::REQUEST;
            }
            logged = system.backend.device().log.len();
            if !system.backend.device().running.is_empty() { system.backend.device_mut().finish(0); }
        }
        let apart = (served[0] - served[1]).abs();
        prop_assert!(apart <= 2 * turns::QUANTUM + 2 * 16 * 512 * i64::from(depth), "{:?}", served);
        prop_assert!(served[0] + served[1] > 300 * 512);
    }
}

/// Delivers events, but lets only guest 1 look at its ring.
fn step_without_looking(system: &mut System, done: &mut Vec<Got>) {
    if system.backend.device().interrupt {
        system.backend.interrupt();
    }
    for n in 0..2 {
        if core::mem::take(&mut system.guests[n].kick) {
            system.backend.kicked(n);
        }
    }
    if system.backend.run() {
        system.backend.device_mut().nudge();
    }
    if system.backend.take_notify() & 2 != 0 {
        system.guests[1].look(done);
    }
}
