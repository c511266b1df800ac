//! Guests that reset their disks at any moment, beside others that work; with limits and without, and with deaths of the
//! backend in between. As in the rest of these tests nobody looks without having been told, and time is told by the timer
//! alone: what was asked for after the last event.

use proptest::prelude::*;

use super::*;
use crate::Rate;

const GUESTS: usize = 3;
/// Counts of the clock in a second.
const SECOND: u64 = 10_000;

#[derive(Clone, Debug)]
enum Step {
    /// Guest, sector, sectors, write.
    Send(usize, u64, u64, bool),
    Flush(usize),
    /// The device finishes one of its requests.
    Finish(usize),
    /// So many finish just before the interrupt is armed.
    Late(usize),
    /// So many while the device is watched.
    Soon(usize),
    Deliver,
    /// A guest resets its disk, and starts it as soon as it may.
    Reset(usize),
    /// The backend dies and comes back.
    Restart,
    /// Time passes.
    Pass(u64),
    /// From now on the device fails all it is asked, or no more.
    Bad(bool),
}

struct World {
    system: System,
    rates: [Rate; GUESTS],
    resetting: [bool; GUESTS],
    /// What the timer was asked for.
    alarm: Option<u64>,
    done: Vec<Got>,
    /// The device fails at times.
    fails: bool,
}

impl World {
    fn new(depth: u16, queues: &[usize], rates: [Rate; GUESTS], fails: bool) -> Self {
        CLOCK.set(7 * SECOND);
        let system = System::with_queues(GUESTS, depth, offered(), queues);
        let mut world =
            Self { system, rates, resetting: [false; GUESTS], alarm: None, done: Vec::new(), fails };
        world.limit();
        world
    }

    fn limit(&mut self) {
        self.system.backend.set_clock(|| CLOCK.get(), SECOND);
        for (n, rate) in self.rates.into_iter().enumerate() {
            self.system.backend.limits.set(n, 0, rate);
        }
    }

    /// The VMM asks for the reset, for the first time or again.
    fn ask(&mut self, n: usize) {
        let (status, _) = self.system.call(n, label::RESET, &[0]);
        self.resetting[n] = status == Status::Pending;
        if self.resetting[n] {
            return;
        }
        assert_eq!(status, Status::Ok);
        let device = self.system.backend.device();
        let own = SECTORS * (n as u64 + 1)..SECTORS * (n as u64 + 2);
        for seen in device.running.iter().chain(&device.queued) {
            assert!(seen.sectors == 0 || !own.contains(&seen.sector), "{seen:?} is in flight after a reset");
        }
        self.system.start_afresh(n);
        // What the new driver finds is not for the old one.
        self.system.guests[n].look(&mut Vec::new());
    }

    fn told(&mut self) {
        let notify = self.system.backend.take_notify();
        for n in (0..GUESTS).filter(|n| notify & 1 << n != 0) {
            match self.resetting[n] {
                true => self.ask(n),
                false => self.system.guests[n].look(&mut self.done),
            }
        }
    }

    fn run(&mut self) {
        if self.system.backend.run() {
            self.system.backend.device_mut().nudge();
        }
        self.told();
        self.alarm = self.system.backend.wake_at();
    }

    fn deliver(&mut self) {
        let mut event = core::mem::take(&mut self.system.backend.device_mut().interrupt);
        if event {
            self.system.backend.interrupt();
        }
        for n in 0..GUESTS {
            if core::mem::take(&mut self.system.guests[n].kick) {
                self.system.backend.kicked(n);
                event = true;
            }
        }
        match event {
            true => self.run(),
            false => self.told(),
        }
        self.alarm = self.system.backend.wake_at();
    }

    fn pass(&mut self, counts: u64) {
        CLOCK.set(CLOCK.get() + counts);
        if self.alarm.is_some_and(|at| at <= CLOCK.get()) {
            self.system.backend.release();
            self.run();
        }
    }

    fn restart(&mut self) {
        self.system.renew();
        self.limit();
        let _ = self.system.backend.take_notify();
        for n in 0..GUESTS {
            match self.resetting[n] {
                true => self.ask(n),
                false => self.system.start(n),
            }
        }
        self.alarm = self.system.backend.wake_at();
    }

    fn step(&mut self, step: Step) {
        let running = self.system.backend.device().running.len();
        match step {
            Step::Send(n, ..) | Step::Flush(n) | Step::Reset(n) if self.resetting[n] => {}
            Step::Send(n, sector, sectors, write) => {
                let kind = if write { kind::OUT } else { kind::IN };
                self.system.guests[n].send(kind, sector, &vec![n as u8; sectors as usize * 512], 4096);
            }
            Step::Flush(n) => _ = self.system.guests[n].send(kind::FLUSH, 0, &[], 1),
            Step::Finish(which) if running > 0 => self.system.backend.device_mut().finish(which % running),
            Step::Finish(_) => {}
            Step::Late(count) => self.system.backend.device_mut().late = count,
            Step::Soon(count) => self.system.backend.device_mut().soon = count,
            Step::Deliver => self.deliver(),
            Step::Reset(n) => {
                self.system.guests[n].kick = false;
                self.ask(n);
                self.alarm = self.system.backend.wake_at();
            }
            Step::Restart => self.restart(),
            Step::Pass(counts) => self.pass(counts),
            Step::Bad(bad) => {
                let all = 0..SECTORS * (GUESTS as u64 + 1);
                self.system.backend.device_mut().bad = if bad && self.fails { all } else { 0..0 };
            }
        }
    }

    fn settle(&mut self) {
        for _ in 0..20_000 {
            self.deliver();
            let device = self.system.backend.device_mut();
            let idle = device.running.is_empty() && !device.interrupt;
            device.finish_all();
            if idle && !self.system.guests.iter().any(|guest| guest.kick) {
                match self.alarm {
                    Some(at) => self.pass(at.saturating_sub(CLOCK.get())),
                    None => return,
                }
            }
        }
        panic!("no end");
    }
}

fn step() -> impl Strategy<Value = Step> {
    let guest = || 0..GUESTS;
    prop_oneof![
        10 => (guest(), 0..SECTORS - 16, 1u64..=16, any::<bool>()).prop_map(|(n, at, count, write)| Step::Send(n, at, count, write)),
        1 => guest().prop_map(Step::Flush),
        5 => any::<usize>().prop_map(Step::Finish),
        1 => (1usize..3).prop_map(Step::Late),
        1 => (1usize..9).prop_map(Step::Soon),
        5 => Just(Step::Deliver),
        3 => prop_oneof![3 => Just(0usize), 1 => guest()].prop_map(Step::Reset),
        1 => Just(Step::Restart),
        2 => (0u64..2 * SECOND / 10).prop_map(Step::Pass),
        1 => any::<bool>().prop_map(Step::Bad),
    ]
}

fn rate() -> impl Strategy<Value = Rate> {
    prop_oneof![
        2 => Just(Rate::default()),
        1 => (1u32..200, prop_oneof![Just(0u64), 1_000u64..1_000_000])
            .prop_map(|(iops, bytes_per_second)| Rate { iops, bytes_per_second }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Every request whose disk was not reset is answered, with success unless the device fails, every reset has an end with nothing in flight, and
    /// afterwards all disks work.
    #[test]
    fn a_guest_that_resets_all_the_time_takes_nothing_from_the_others(
        steps in prop::collection::vec(step(), 1..200),
        depth in 2u16..20,
        queues in prop::collection::vec(1usize..=4, GUESTS),
        rates in prop::array::uniform3(rate()),
        fails: bool,
    ) {
        let mut world = World::new(depth, &queues, rates, fails);
        for step in steps {
            world.step(step);
        }
        world.settle();
        world.step(Step::Bad(false));
        prop_assert_eq!(world.resetting, [false; GUESTS], "a reset has no end");
        for n in 0..GUESTS {
            let left = &world.system.guests[n].sent;
            prop_assert!(left.is_empty(), "guest {} waits for {:?}", n, left);
            prop_assert!(world.system.guests[n].send(kind::OUT, 1, &[n as u8; 512], 512));
        }
        world.settle();
        for n in 0..GUESTS {
            prop_assert!(world.system.guests[n].sent.is_empty(), "guest {}'s disk does not work", n);
        }
        for got in &world.done {
            prop_assert!(got.status == OK || fails && got.status == IOERR, "{:?}: {}", got.sent, got.status);
        }
        prop_assert_eq!(world.system.backend.free.count_ones(), u32::from(depth));
    }
}
