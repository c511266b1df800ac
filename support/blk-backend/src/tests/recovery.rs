//! Devices that do not answer, answer wrongly, do not come back.

use std::collections::VecDeque;

use partita_storage::device::{Breach, Health, RestartError};
use proptest::prelude::*;

use super::*;
use crate::recover::TRIES;

const BREACH: Breach = Breach::NotItsRequest(77);

fn send(s: &mut System, n: usize, kind: u32, sector: u64, done: &mut Vec<Got>) {
    let content = if kind == kind::FLUSH { vec![] } else { vec![sector as u8; 512] };
    assert!(s.guests[n].send(kind, sector, &content, 4096));
    s.step(done);
}

fn statuses(done: &mut Vec<Got>) -> Vec<(u64, u8)> {
    let mut all: Vec<_> = done.drain(..).map(|got| (got.sent.sector, got.status)).collect();
    all.sort_unstable();
    all
}

#[test]
fn a_request_that_is_not_answered_fails_in_time_and_later_ones_are_sent_again() {
    let (mut s, mut done) = (System::new(2, 16, offered()), Vec::new());
    assert!(!s.backend.wants_tick());
    send(&mut s, 0, kind::OUT, 1, &mut done);
    for _ in 0..TICKS {
        assert!(s.backend.wants_tick());
        s.tick(&mut done);
    }
    send(&mut s, 0, kind::OUT, 2, &mut done);
    send(&mut s, 1, kind::OUT, 3, &mut done);
    assert_eq!((done.len(), s.backend.device().restarted), (0, 0));
    s.tick(&mut done);
    assert_eq!(statuses(&mut done), [(1, IOERR)]);
    assert_eq!(s.backend.device().running.len(), 2, "still with the device");
    s.finish(&mut done);
    assert_eq!(statuses(&mut done), [(2, OK), (3, OK)]);
    let remedy = Remedy::Restarted { failed: 1, again: 2 };
    assert_eq!(s.reports.0.borrow().device, [(Cause::Overdue, remedy)]);
    assert!(s.reports.0.borrow().failed.is_empty() && !s.backend.wants_tick());
}

#[test]
fn what_finished_without_an_interrupt_is_found() {
    let (mut s, mut done) = (System::new(1, 16, offered()), Vec::new());
    send(&mut s, 0, kind::IN, 1, &mut done);
    s.backend.device_mut().finish_all();
    s.backend.device_mut().interrupt = false;
    s.tick(&mut done);
    assert_eq!(statuses(&mut done), [(1, OK)]);
    assert_eq!(s.backend.device().restarted, 0);
}

#[test]
fn a_device_that_breaks_a_rule_is_restarted_and_no_guest_notices() {
    let (mut s, mut done) = (System::new(2, 16, offered()), Vec::new());
    send(&mut s, 0, kind::OUT, 1, &mut done);
    send(&mut s, 1, kind::OUT, 2, &mut done);
    s.backend.device_mut().stop(BREACH);
    s.step(&mut done);
    assert_eq!(s.backend.device().restarted, 1);
    s.finish(&mut done);
    assert_eq!(statuses(&mut done), [(1, OK), (2, OK)]);
    let remedy = Remedy::Restarted { failed: 0, again: 2 };
    assert_eq!(s.reports.0.borrow().device, [(Cause::Breach(BREACH), remedy)]);
}

#[test]
fn a_device_that_always_breaks_rules_is_restarted_once_per_tick() {
    let (mut s, mut done) = (System::new(1, 16, offered()), Vec::new());
    send(&mut s, 0, kind::OUT, 1, &mut done);
    for tick in 1..=TICKS as usize {
        for _ in 0..5 {
            s.backend.device_mut().stop(BREACH);
            s.backend.interrupt();
        }
        assert!(s.backend.wants_tick());
        assert_eq!(s.backend.device().restarted, tick);
        s.tick(&mut done);
        assert!(done.is_empty());
    }
    s.backend.device_mut().stop(BREACH);
    s.tick(&mut done);
    assert_eq!(statuses(&mut done), [(1, IOERR)]);
    // A request that comes while it is stopped reaches it later.
    s.backend.device_mut().stop(BREACH);
    s.backend.interrupt();
    send(&mut s, 0, kind::OUT, 2, &mut done);
    assert!(s.backend.device().running.is_empty());
    s.tick(&mut done);
    s.finish(&mut done);
    assert_eq!(statuses(&mut done), [(2, OK)]);
}

#[test]
fn a_device_that_does_not_come_back_is_given_up() {
    let (mut s, mut done) = (System::new(1, 16, offered()), Vec::new());
    send(&mut s, 0, kind::OUT, 1, &mut done);
    s.backend.device_mut().restarts = vec![Err(RestartError::NoReset); 99];
    s.backend.device_mut().stop(Breach::NeedsReset);
    s.step(&mut done);
    for _ in 1..TRIES {
        assert!(done.is_empty() && s.backend.wants_tick());
        s.tick(&mut done);
    }
    assert_eq!(statuses(&mut done), [(1, IOERR)]);
    assert_eq!(one(&mut s, 0, kind::IN, 0, &[0; 512]).status, IOERR);
    assert!(!s.backend.wants_tick());
    let remedy = Remedy::GivenUp { failed: 1, error: RestartError::NoReset };
    assert_eq!(s.reports.0.borrow().device, [(Cause::Breach(Breach::NeedsReset), remedy)]);
    assert_eq!(s.call(0, label::RESET, &[0]).0, Status::Ok);
    assert_eq!(s.call(0, label::INFO, &[0]).0, Status::Failed);
}

#[test]
fn a_life_that_refuses_answers_what_its_predecessor_had_and_all_that_comes() {
    let (mut s, mut done) = (System::new(2, 16, offered()), Vec::new());
    send(&mut s, 0, kind::OUT, 1, &mut done);
    send(&mut s, 0, kind::FLUSH, 0, &mut done);
    send(&mut s, 1, kind::IN, 2, &mut done);
    // Not even seen by the one that dies.
    assert!(s.guests[1].send(kind::OUT, 3, &[7; 512], 512));
    s.restart_refusing();
    s.step(&mut done);
    assert!(done.iter().all(|got| got.status == IOERR), "{done:?}");
    assert_eq!(done.len(), 4);
    for n in 0..2 {
        assert_eq!(one(&mut s, n, kind::IN, 0, &[0; 512]).status, IOERR);
        assert_eq!(s.call(n, label::RESET, &[0]).0, Status::Ok);
        assert_eq!(s.call(n, label::INFO, &[0]).0, Status::Failed);
    }
    assert!((0..MAX_FLIGHTS).all(|id| s.page.get(id) == crate::inflight::Entry::Free));
    assert!(!s.backend.wants_tick() && s.backend.device().log.is_empty());
}

#[test]
fn a_guests_reset_does_not_wait_for_a_device_that_does_not_answer() {
    let (mut s, mut done) = (System::new(2, 16, offered()), Vec::new());
    send(&mut s, 0, kind::OUT, 1, &mut done);
    assert_eq!(s.call(0, label::RESET, &[0]).0, Status::Pending);
    for _ in 0..=TICKS {
        assert_eq!(s.guests[0].status.devices[0].reset.load(Ordering::Relaxed), 0);
        s.tick(&mut done);
    }
    assert_eq!(s.guests[0].status.devices[0].reset.load(Ordering::Relaxed), 1);
    assert_eq!(s.call(0, label::RESET, &[0]).0, Status::Ok);
}

#[test]
fn a_restart_does_not_repeat_what_nobody_waits_for() {
    let (mut s, mut done) = (System::new(2, 16, offered()), Vec::new());
    send(&mut s, 0, kind::OUT, 4, &mut done);
    assert_eq!(s.call(0, label::RESET, &[0]).0, Status::Pending);
    s.backend.device_mut().stop(BREACH);
    s.step(&mut done);
    assert!(s.backend.device().running.is_empty());
    assert_eq!(s.call(0, label::RESET, &[0]).0, Status::Ok);
}

#[test]
fn errors_of_the_device_are_reported_with_their_request() {
    let (mut s, mut done) = (System::new(1, 16, offered()), Vec::new());
    s.backend.device_mut().bad = SECTORS + 5..SECTORS + 6;
    send(&mut s, 0, kind::IN, 5, &mut done);
    send(&mut s, 0, kind::IN, 6, &mut done);
    s.finish(&mut done);
    assert_eq!(statuses(&mut done), [(5, IOERR), (6, OK)]);
    assert_eq!(s.reports.0.borrow().failed, [(0, Operation::Read { sector: 5 }, Outcome::IoError)]);
}

#[derive(Clone, Debug)]
enum Step {
    Send(usize, u64),
    Flush(usize),
    Finish(usize),
    Stop,
    Refuse(usize),
    Tick,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0usize..2, 0u64..SECTORS).prop_map(|(n, sector)| Step::Send(n, sector)),
        1 => (0usize..2).prop_map(Step::Flush),
        3 => (0usize..8).prop_map(Step::Finish),
        1 => Just(Step::Stop),
        1 => (1usize..3).prop_map(Step::Refuse),
        4 => Just(Step::Tick),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever the device does: every request is answered exactly once and in time; what is answered well was done; an
    /// answered flush made all durable that was answered before it was sent.
    #[test]
    fn every_request_is_answered_in_time(write_through: bool, steps in prop::collection::vec(step(), 1..120)) {
        let features = if write_through { offered() & !feature::FLUSH } else { offered() };
        let mut s = System::new(2, 8, features);
        let mut done = Vec::new();
        // Ages in ticks, oldest first; queueing behind a full device comes on top of the limit.
        let mut waiting: VecDeque<usize> = VecDeque::new();
        let mut sent = 0usize;
        for step in steps {
            match step {
                Step::Send(n, sector) if sent - done.len() < 8 => {
                    prop_assert!(s.guests[n].send(kind::OUT, sector, &[sector as u8 | 1; 512], 512));
                    sent += 1;
                    waiting.push_back(0);
                }
                Step::Flush(n) if !write_through && sent - done.len() < 8 => {
                    prop_assert!(s.guests[n].send(kind::FLUSH, 0, &[], 512));
                    sent += 1;
                    waiting.push_back(0);
                }
                Step::Finish(index) => {
                    let device = s.backend.device_mut();
                    if device.health == Health::Working && index < device.running.len() {
                        device.finish(index);
                    }
                }
                Step::Stop if s.backend.device().health == Health::Working => {
                    s.backend.device_mut().stop(BREACH);
                }
                Step::Refuse(times) => {
                    s.backend.device_mut().restarts = vec![Err(RestartError::Changed); times];
                }
                Step::Tick => {
                    s.tick(&mut done);
                    waiting.iter_mut().for_each(|age| *age += 1);
                }
                _ => {}
            }
            s.step(&mut done);
            waiting.drain(..waiting.len() - (sent - done.len()));
            // As many are waiting as sent and not answered; which ones, the oldest bound does not need to know.
            let bound = (TICKS + 1 + TRIES) as usize;
            let oldest = s.guests.iter().all(|g| g.sent.is_empty()) || waiting.iter().all(|age| *age <= 2 * bound);
            prop_assert!(oldest, "{waiting:?}");
        }
        // Nothing more from the device: time alone must end everything.
        s.backend.device_mut().restarts = Vec::new();
        for _ in 0..2 * (TICKS + 1) + TRIES {
            s.tick(&mut done);
            s.step(&mut done);
        }
        prop_assert_eq!(done.len(), sent);
        prop_assert!(!s.backend.wants_tick());
        let device = s.backend.device();
        for got in done.iter().filter(|got| got.sent.kind == kind::OUT && got.status == OK) {
            // Both guests write what follows from the sector alone, so what is there once stays.
            let wanted = got.sent.sector as u8 | 1;
            let there = |bytes: &[u8], n: u64| {
                let at = ((SECTORS * n + got.sent.sector) * 512) as usize;
                bytes[at..at + 512].iter().all(|byte| *byte == wanted)
            };
            prop_assert!(there(&device.bytes, 1) || there(&device.bytes, 2));
            prop_assert!(!write_through || there(&device.durable, 1) || there(&device.durable, 2));
        }
    }
}
