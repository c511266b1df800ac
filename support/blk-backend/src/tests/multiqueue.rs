//! VIRTIO_BLK_F_MQ (5.2.3): several queues, one disk. That requests are neither lost nor doubled nor forgotten in any of them
//! is shown by `properties` and `crashes`, which run with several as well.

use std::collections::BTreeMap;

use super::*;

const QUEUES: usize = 4;

fn four(count: usize) -> System {
    System::with_queues(count, 16, offered(), &[QUEUES])
}

/// As many requests in flight as asked for, one queue after the other.
fn fly(s: &mut System, n: usize, requests: u64) {
    for sector in 0..requests {
        assert!(s.guests[n].send(kind::OUT, sector, &[sector as u8 + 1; 512], 512));
    }
    s.step(&mut Vec::new());
}

/// What a queue's ring says was used.
fn used(s: &System, n: usize) -> Vec<u16> {
    let guest = &s.guests[n];
    let index =
        |driver: &DriverQueue| guest.ram.ram().load_u16(driver.layout.used + 2, Ordering::Acquire).unwrap();
    guest.drivers.iter().map(index).collect()
}

#[test]
fn offered_only_if_there_are_several_5_2_3() {
    for queues in 1..=QUEUES {
        let mut s = System::with_queues(1, 16, offered(), &[queues]);
        let mrs = s.call(0, label::INFO, &[0]).1;
        assert_eq!(mrs[1] & feature::MQ != 0, queues > 1);
        assert_eq!(mrs[2], queues as u64);
        // num_queues is at byte 34 (5.2.4).
        assert_eq!(mrs[5 + 4] >> 16 & 0xffff, queues as u64);
        let layout = s.guests[0].drivers[0].layout;
        assert_eq!(s.call(0, label::RESET, &[0]).0, Status::Ok);
        for beyond in [queues as u64, QUEUES as u64, u64::MAX] {
            let queue = [0, beyond, layout.size.into(), layout.desc, layout.avail, layout.used];
            assert_eq!(s.call(0, label::QUEUE, &queue).0, Status::Invalid);
        }
    }
}

#[test]
fn without_the_feature_there_is_one_queue_5_2_2() {
    let mut s = four(1);
    let accepted = offered();
    assert_eq!(s.call(0, label::RESET, &[0]).0, Status::Ok);
    assert_eq!((s.queue(0, 0), s.queue(0, 1)), (Status::Ok, Status::Ok));
    assert_eq!(s.call(0, label::START, &[0, accepted]).0, Status::Invalid);
    assert_eq!(s.call(0, label::RESET, &[0]).0, Status::Ok);
    assert_eq!(s.queue(0, 0), Status::Ok);
    assert_eq!(s.call(0, label::START, &[0, accepted]).0, Status::Ok);
    s.guests[0].drivers.truncate(1);
    assert_eq!(one(&mut s, 0, kind::IN, 0, &[0; 512]).status, OK);
}

#[test]
fn queues_may_be_left_out() {
    let mut s = four(1);
    assert_eq!(s.call(0, label::RESET, &[0]).0, Status::Ok);
    assert_eq!((s.queue(0, 1), s.queue(0, 3)), (Status::Ok, Status::Ok));
    assert_eq!(s.call(0, label::START, &[0, s.guests[0].features]).0, Status::Ok);
    for (turn, works) in [(0, false), (1, true), (2, false), (3, true)] {
        s.guests[0].turn = turn;
        assert!(s.guests[0].send(kind::IN, 0, &[0; 512], 512));
        s.guests[0].kick = true;
        let mut done = Vec::new();
        s.finish(&mut done);
        assert_eq!(done.len(), usize::from(works), "queue {turn}");
    }
}

#[test]
fn each_queue_is_answered_and_counted_by_itself() {
    let mut s = four(1);
    fly(&mut s, 0, 6);
    s.backend.device_mut().finish_all();
    s.backend.interrupt();
    assert!(!s.backend.run());
    assert_eq!(used(&s, 0), [2, 2, 1, 1]);
    let counts: Vec<_> =
        s.guests[0].status.devices[0].used.iter().map(|n| n.load(Ordering::Acquire)).collect();
    assert_eq!(counts, [1; QUEUES], "however many requests of it were in the batch");
}

#[test]
fn a_kick_wakes_the_queues_that_have_something() {
    let mut s = four(1);
    let event = |s: &System, queue: usize| {
        let layout = s.guests[0].drivers[queue].layout;
        s.guests[0]
            .ram
            .ram()
            .load_u16(layout.used + 4 + 8 * u64::from(layout.size), Ordering::Acquire)
            .unwrap()
    };
    s.guests[0].turn = 2;
    assert!(s.guests[0].send(kind::IN, 0, &[0; 512], 512));
    s.backend.kicked(0);
    assert_eq!(s.backend.tables.clients[0].as_ref().unwrap().ready, ring_bit(0, 2));
    assert!(!s.backend.run());
    assert_eq!([0, 1, 2, 3].map(|queue| event(&s, queue)), [0, 0, 1, 0]);
    // One that is awake already stays so, whatever the kick was for.
    assert!(s.guests[0].send(kind::IN, 0, &[0; 512], 512));
    s.backend.kicked(0);
    assert!(s.guests[0].send(kind::IN, 0, &[0; 512], 512));
    s.backend.kicked(0);
    assert_eq!(s.backend.tables.clients[0].as_ref().unwrap().ready, ring_bit(0, 3) | ring_bit(0, 0));
    let mut done = Vec::new();
    s.finish(&mut done);
    assert_eq!(done.len(), 3);
}

#[test]
fn a_reset_is_of_all_queues_and_waits_for_all() {
    let mut s = four(1);
    fly(&mut s, 0, 8);
    assert_eq!(s.call(0, label::RESET, &[0]).0, Status::Pending);
    while !s.backend.device().running.is_empty() {
        assert_eq!(s.call(0, label::RESET, &[0]).0, Status::Pending);
        s.backend.device_mut().finish(0);
        s.backend.interrupt();
        assert!(!s.backend.run());
    }
    assert_eq!(s.guests[0].status.devices[0].reset.load(Ordering::Acquire), 1);
    assert_eq!(used(&s, 0), [0; QUEUES], "an old ring is not written");
    s.start_afresh(0);
    for _ in 0..QUEUES {
        assert_eq!(one(&mut s, 0, kind::IN, 0, &[0; 512]).status, OK);
    }
}

#[test]
fn a_rule_broken_in_one_queue_is_about_the_disk() {
    let mut s = four(2);
    fly(&mut s, 0, 8);
    s.guests[0].drivers[2].corrupt_avail_index(1000);
    s.guests[0].kick = true;
    s.step(&mut Vec::new());
    assert_eq!(s.reports.0.borrow().faults, [(0, 0, Fault::AvailIndex)]);
    assert_eq!(s.guests[0].status.devices[0].needs_reset.load(Ordering::Acquire), 1);
    s.backend.device_mut().finish_all();
    s.step(&mut Vec::new());
    assert_eq!(used(&s, 0), [0; QUEUES]);
    assert_eq!(one(&mut s, 1, kind::IN, 0, &[0; 512]).status, OK, "the other guest");
    s.start_afresh(0);
    assert_eq!(one(&mut s, 0, kind::IN, 0, &[0; 512]).status, OK);
    assert_eq!(s.reports.0.borrow().faults.len(), 1);
}

/// Two queues with the same rings: whatever the guest gets, it is its own, and no number is lost.
#[test]
fn the_same_rings_twice() {
    let mut s = four(2);
    assert_eq!(s.call(0, label::RESET, &[0]).0, Status::Ok);
    let layout = s.guests[0].drivers[0].layout;
    for index in 0..QUEUES as u64 {
        let queue = [0, index, layout.size.into(), layout.desc, layout.avail, layout.used];
        assert_eq!(s.call(0, label::QUEUE, &queue).0, Status::Ok);
    }
    assert_eq!(s.call(0, label::START, &[0, s.guests[0].features]).0, Status::Ok);
    for sector in 0..3 {
        s.guests[0].turn = 0;
        assert!(s.guests[0].send(kind::OUT, sector, &[7; 512], 512));
        s.backend.kicked(0);
        assert!(!s.backend.run());
    }
    s.backend.device_mut().finish(1);
    s.backend.interrupt();
    assert!(!s.backend.run());
    assert!(s.guests[1].send(kind::OUT, 0, &[9; 512], 512));
    s.backend.kicked(1);
    assert!(!s.backend.run());
    s.backend.device_mut().finish_all();
    s.backend.interrupt();
    assert!(!s.backend.run());
    let mut done = Vec::new();
    s.guests[1].look(&mut done);
    assert_eq!((done.len(), done[0].status), (1, OK), "the other guest");
    s.renew();
    for index in 0..QUEUES as u64 {
        let queue = [0, index, layout.size.into(), layout.desc, layout.avail, layout.used];
        let _ = s.call(0, label::QUEUE, &queue);
    }
    let _ = s.call(0, label::START, &[0, s.guests[0].features]);
    s.start(1);
    for _ in 0..20 {
        s.backend.device_mut().finish_all();
        s.backend.interrupt();
        assert!(!s.backend.run());
    }
    s.start_afresh(0);
    assert_eq!(s.backend.free.count_ones(), 16);
    for n in 0..2 {
        assert_eq!(one(&mut s, n, kind::IN, 0, &[0; 512]).status, OK);
    }
    assert!(s.backend.device().bytes[..(SECTORS * 512) as usize].iter().all(|b| *b == 0));
}

/// The VMM's calls after a death of the backend, of which the first few reach a life that dies as well. It makes all of them
/// again when it sees the generation changed; or the guest resets before that.
#[test]
fn calls_that_are_spread_over_two_lives() {
    for before in 0..=QUEUES {
        for again in [true, false] {
            let mut s = four(1);
            fly(&mut s, 0, 11);
            let mut done = Vec::new();
            // Out of order, and one queue ahead of the others.
            for index in [9, 5, 5] {
                s.backend.device_mut().finish(index);
            }
            s.step(&mut done);
            assert_eq!(done.len(), 3);
            s.renew();
            for queue in 0..before {
                assert_eq!(s.queue(0, queue), Status::Ok);
            }
            s.renew();
            for queue in before..QUEUES {
                assert_eq!(s.queue(0, queue), Status::Ok);
            }
            assert_eq!(s.call(0, label::START, &[0, s.guests[0].features]).0, Status::Ok);
            if again {
                // Some of the new life's requests are done by then.
                if !s.backend.device().running.is_empty() {
                    s.backend.device_mut().finish(0);
                }
                s.step(&mut done);
                s.start(0);
                assert_eq!(s.backend.device().running.len(), s.guests[0].sent.len(), "each once");
                s.finish(&mut done);
                let mut times = BTreeMap::new();
                done.iter().for_each(|got| *times.entry(got.sent.sector).or_insert(0) += 1);
                assert_eq!(times.len(), 11);
                assert!(times.values().all(|times| *times == 1) && s.guests[0].sent.is_empty());
                for got in &done {
                    let at = ((SECTORS + got.sent.sector) * 512) as usize;
                    assert_eq!((got.status, s.backend.device().bytes[at]), (OK, got.sent.sector as u8 + 1));
                }
            } else {
                s.backend.device_mut().finish_all();
                s.backend.interrupt();
                assert!(!s.backend.run());
                s.start_afresh(0);
            }
            assert_eq!(s.backend.free.count_ones(), 16, "{before} {again}");
            for _ in 0..2 * QUEUES {
                assert_eq!(one(&mut s, 0, kind::IN, 0, &[0; 512]).status, OK);
            }
        }
    }
}

#[test]
fn a_limit_is_the_disks_whatever_the_number_of_queues() {
    CLOCK.set(1_000_000);
    let mut s = four(1);
    s.backend.set_clock(|| CLOCK.get(), 1000);
    s.backend.limits.set(0, 0, crate::Rate { iops: 20, bytes_per_second: 0 });
    let mut done = Vec::new();
    for _ in 0..12 {
        assert!(s.guests[0].send(kind::IN, 0, &[0; 512], 512));
    }
    s.finish(&mut done);
    let at_once = done.len();
    assert!((1..=2).contains(&at_once), "{at_once}");
    for n in 1..=12 - at_once {
        let wake = s.backend.wake_at().expect("it waits");
        assert!(wake > CLOCK.get() && wake <= CLOCK.get() + 50, "{wake}");
        CLOCK.set(wake);
        s.backend.release();
        assert!(!s.backend.run());
        s.finish(&mut done);
        assert_eq!(done.len(), at_once + n);
    }
    let mut each = [0; QUEUES];
    used(&s, 0).iter().zip(&mut each).for_each(|(used, each)| *each = *used);
    assert_eq!(each, [3; QUEUES], "and they took turns");
}
