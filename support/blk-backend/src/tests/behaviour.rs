//! One thing at a time.

use partita_storage::device::Health;
use partita_virtio::blk::Range;
use zerocopy::IntoBytes;

use super::*;

#[test]
fn info_offers_what_the_device_can() {
    let mut s = System::new(1, 16, offered());
    let (status, mrs) = s.call(0, label::INFO, &[0]);
    assert_eq!(status, Status::Ok);
    assert_eq!(mrs[1..5], [offered(), 1, 256, 60]);
    assert_eq!(mrs[5], SECTORS);
    assert_eq!(mrs[6] >> 32, 250, "seg_max");
    assert_eq!(s.call(0, label::INFO, &[1]).0, Status::NoDevice);
    assert_eq!(s.call(0, label::INFO, &[u64::MAX]).0, Status::NoDevice);
    assert_eq!(s.call(1, label::INFO, &[0]).0, Status::NoDevice);
    assert_eq!(s.call(99, label::INFO, &[0]).0, Status::NoDevice);
    assert_eq!(s.call(0, 77, &[0]).0, Status::Invalid);

    let p = s.backend.device_mut().properties_mut();
    p.flush = false;
    p.discard = None;
    p.write_zeroes = None;
    p.read_only = true;
    let features = s.call(0, label::INFO, &[0]).1[1];
    assert_eq!(features & (feature::FLUSH | feature::DISCARD | feature::WRITE_ZEROES), 0);
    assert_ne!(features & feature::RO, 0);
    s.backend.device_mut().health = Health::Failed;
    assert_eq!(s.call(0, label::INFO, &[0]).0, Status::Failed);
}

#[test]
fn data_goes_through_the_window_without_copy() {
    let mut s = System::new(2, 16, offered());
    let content: Vec<u8> = (0..1024).map(|i| i as u8).collect();
    let got = one(&mut s, 1, kind::OUT, 3, &content);
    assert_eq!((got.status, got.used), (OK, 1));
    let at = ((2 * SECTORS + 3) * 512) as usize;
    assert_eq!(s.backend.device().bytes[at..at + 1024], content);
    assert!(s.backend.device().bytes[..at].iter().all(|b| *b == 0));
    let got = one(&mut s, 1, kind::IN, 3, &[0; 1024]);
    assert_eq!((got.status, got.used), (OK, 1025));
    assert_eq!(got.data, content);
    let log = &s.backend.device().log;
    assert_eq!(log.len(), 2, "one request is one request");
    assert_eq!(log[0].segments[0].paddr >> 32, 0x20, "guest RAM itself");
}

#[test]
fn what_finishes_while_it_is_watched_needs_no_interrupt() {
    let mut s = System::new(1, 16, offered());
    let mut done = Vec::new();
    for soon in [1, 5] {
        for sector in 0..soon {
            assert!(s.guests[0].send(kind::IN, sector, &[0; 512], 4096));
        }
        s.backend.device_mut().soon = soon as usize;
        s.backend.device_mut().interrupt = false;
        s.step(&mut done);
        let device = s.backend.device();
        assert!(device.running.is_empty() && !s.backend.is_busy());
        assert_eq!(done.len(), soon as usize);
        done.clear();
    }
    // Of three two are done: they are returned, and the device is armed for the third.
    for sector in 0..3 {
        assert!(s.guests[0].send(kind::IN, sector, &[0; 512], 4096));
    }
    s.backend.device_mut().soon = 2;
    s.step(&mut done);
    assert_eq!((done.len(), s.backend.device().running.len()), (2, 1));
    s.finish(&mut done);
    assert_eq!(done.len(), 3);
}

#[test]
fn a_write_that_is_done_at_once_is_flushed_without_another_event() {
    let mut s = System::new(1, 16, offered() & !feature::FLUSH);
    let mut done = Vec::new();
    s.backend.device_mut().soon = 1;
    assert!(s.guests[0].send(kind::OUT, 1, &[7; 512], 4096));
    s.step(&mut done);
    let device = s.backend.device();
    assert_eq!(
        (device.queued.len(), device.running.len(), done.len()),
        (0, 1, 0),
        "the flush is with the device"
    );
    s.finish(&mut done);
    assert_eq!((done.len(), done[0].status), (1, OK));
    assert_eq!(s.backend.device().durable[SECTORS as usize * 512 + 512], 7);
}

#[test]
fn window_and_mode() {
    let mut s = System::new(2, 16, offered());
    for (kind, sector, len) in [
        (kind::IN, SECTORS, 512),
        (kind::IN, SECTORS - 1, 1024),
        (kind::OUT, SECTORS, 512),
        (kind::OUT, u64::MAX, 512),
        (kind::IN, u64::MAX - SECTORS + 1, 512),
    ] {
        assert_eq!(one(&mut s, 0, kind, sector, &vec![1; len]).status, IOERR, "{sector}");
    }
    let range = Range { sector: SECTORS - 1, sectors: 2, flags: 0 };
    assert_eq!(one(&mut s, 0, kind::WRITE_ZEROES, 0, range.as_bytes()).status, IOERR);
    let range = Range { sector: 0, sectors: 0, flags: 0 };
    assert_eq!(one(&mut s, 0, kind::DISCARD, 0, range.as_bytes()).status, IOERR);
    assert_eq!(s.reports.0.borrow().outside, 7);
    assert!(s.backend.device().log.is_empty(), "the driver never sees them");
    assert_eq!(one(&mut s, 0, kind::IN, SECTORS - 1, &[0; 512]).status, OK);

    s.backend.tables.clients[0].as_mut().unwrap().disks[0].as_mut().unwrap().config.read_only = true;
    let range = Range { sector: 0, sectors: 1, flags: 0 };
    assert_eq!(one(&mut s, 0, kind::OUT, 0, &[1; 512]).status, IOERR);
    assert_eq!(one(&mut s, 0, kind::DISCARD, 0, range.as_bytes()).status, IOERR);
    assert_eq!(one(&mut s, 0, kind::WRITE_ZEROES, 0, range.as_bytes()).status, IOERR);
    assert_eq!(one(&mut s, 0, kind::FLUSH, 0, &[]).status, OK);
    assert_eq!(s.backend.device().log.len(), 2);
}

#[test]
fn other_requests() {
    let mut s = System::new(1, 16, offered());
    let got = one(&mut s, 0, kind::GET_ID, 0, &[0; 20]);
    assert_eq!((got.status, got.used), (OK, 21));
    assert_eq!(got.data, b"serial\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    assert_eq!(one(&mut s, 0, kind::GET_ID, 0, &[0; 19]).status, IOERR);
    assert_eq!(one(&mut s, 0, 99, 0, &[]).status, UNSUPP);
    assert!(s.backend.device().log.is_empty());
    one(&mut s, 0, kind::OUT, 4, &[7; 4096]);
    let range = Range { sector: 5, sectors: 2, flags: 1 };
    assert_eq!(one(&mut s, 0, kind::WRITE_ZEROES, 0, range.as_bytes()).status, OK);
    let data = one(&mut s, 0, kind::IN, 4, &[0; 2048]).data;
    assert!(
        data[..512].iter().all(|b| *b == 7) && data[512..1536].iter().all(|b| *b == 0) && data[1536] == 7
    );
    s.backend.device_mut().bad = SECTORS + 10..SECTORS + 11;
    let got = one(&mut s, 0, kind::IN, 9, &[0; 1024]);
    assert_eq!((got.status, got.used), (IOERR, 0), "the device's error is the guest's");
}

#[test]
fn flush_is_the_devices() {
    let mut s = System::new(1, 16, offered());
    one(&mut s, 0, kind::OUT, 0, &[5; 512]);
    let at = (SECTORS * 512) as usize;
    assert_eq!(s.backend.device().durable[at], 0);
    s.guests[0].send(kind::FLUSH, 0, &[], 1);
    let mut done = Vec::new();
    s.step(&mut done);
    assert!(done.is_empty(), "not before the device has done it");
    s.finish(&mut done);
    assert_eq!((done[0].status, s.backend.device().durable[at]), (OK, 5));
}

#[test]
fn without_flush_writes_are_durable_5_2_6_2() {
    let mut s = System::new(1, 16, offered() & !feature::FLUSH);
    s.guests[0].send(kind::OUT, 0, &[5; 512], 512);
    let mut done = Vec::new();
    s.step(&mut done);
    s.backend.device_mut().finish_all();
    s.step(&mut done);
    assert!(done.is_empty(), "the write is done, the flush behind it is not");
    s.finish(&mut done);
    assert_eq!((done[0].status, s.backend.device().durable[(SECTORS * 512) as usize]), (OK, 5));
    one(&mut s, 0, kind::IN, 0, &[0; 512]);
    assert_eq!(s.backend.device().log.len(), 3, "a read needs no flush");
}

#[test]
fn a_broken_guest_is_alone() {
    let mut s = System::new(2, 16, offered());
    let status = [s.guests[0].status, s.guests[1].status];
    s.guests[0].drivers[0].corrupt_avail_index(1000);
    s.guests[0].kick = true;
    s.step(&mut Vec::new());
    assert_eq!(s.reports.0.borrow().faults, [(0, 0, Fault::AvailIndex)]);
    assert_eq!(status[0].devices[0].needs_reset.load(Ordering::Acquire), 1);
    assert_eq!(status[1].devices[0].needs_reset.load(Ordering::Acquire), 0);
    s.guests[0].kick = true;
    s.step(&mut Vec::new());
    assert_eq!(s.reports.0.borrow().faults.len(), 1, "said once");
    assert_eq!(one(&mut s, 1, kind::IN, 0, &[0; 512]).status, OK);

    assert_eq!(s.call(0, label::START, &[0, offered()]).0, Status::Invalid, "not without reset");
    assert_eq!(s.call(0, label::RESET, &[0]).0, Status::Ok);
    assert_eq!(status[0].devices[0].needs_reset.load(Ordering::Acquire), 0);
    let ram = s.guests[0].ram.ram();
    s.guests[0].drivers[0] = DriverQueue::new(ram, BASE, QUEUE, true);
    s.start(0);
    assert_eq!(one(&mut s, 0, kind::IN, 0, &[0; 512]).status, OK);
}

#[test]
fn reset_waits_for_the_device() {
    let mut s = System::new(1, 16, offered());
    for i in 0..5 {
        s.guests[0].send(kind::IN, i, &[0; 512], 512);
    }
    s.step(&mut Vec::new());
    let counter = &s.guests[0].status.devices[0].reset;
    assert_eq!(s.call(0, label::RESET, &[0]).0, Status::Pending);
    s.guests[0].send(kind::IN, 9, &[0; 512], 512);
    s.guests[0].kick = true;
    s.step(&mut Vec::new());
    assert_eq!(s.backend.device().log.len(), 5, "nothing is fetched any more");
    for left in (0..5).rev() {
        assert_eq!(counter.load(Ordering::Acquire), 0);
        assert_eq!(s.call(0, label::RESET, &[0]).0, Status::Pending);
        s.backend.device_mut().finish(left);
        s.backend.interrupt();
        assert!(!s.backend.run());
    }
    assert_eq!(counter.load(Ordering::Acquire), 1);
    assert_eq!(s.backend.take_notify(), 1);
    assert_eq!(s.call(0, label::RESET, &[0]).0, Status::Ok);
    assert!(s.guests[0].drivers[0].take_used().is_none(), "an old ring is not written");
    let ram = s.guests[0].ram.ram();
    s.guests[0].drivers[0] = DriverQueue::new(ram, BASE, QUEUE, true);
    s.guests[0].sent.clear();
    s.start(0);
    assert_eq!(one(&mut s, 0, kind::IN, 0, &[0; 512]).status, OK);
}

#[test]
fn parameters_are_checked() {
    let mut s = System::new(1, 16, offered());
    let layout = s.guests[0].drivers[0].layout;
    let queue = |index, size, desc| [0, index, size, desc, layout.avail, layout.used];
    assert_eq!(s.call(0, label::QUEUE, &queue(0, 32, layout.desc)).0, Status::Invalid, "it is live");
    assert_eq!(s.call(0, label::START, &[0, offered() & !feature::FLUSH]).0, Status::Invalid, "likewise");
    assert_eq!(s.call(0, label::QUEUE, &queue(0, 64, layout.desc)).0, Status::Ok, "the same again");
    assert_eq!(s.call(0, label::START, &[0, offered()]).0, Status::Ok, "the same again");
    assert_eq!(s.call(0, label::RESET, &[0]).0, Status::Ok);
    for (index, size, desc) in [
        (1, 64, layout.desc),
        (0, 0, layout.desc),
        (0, 512, layout.desc),
        (0, 1 << 16, layout.desc),
        (0, 64, 0),
        (0, 64, BASE + RAM),
        (0, 64, layout.desc + 8),
    ] {
        assert_eq!(s.call(0, label::QUEUE, &queue(index, size, desc)).0, Status::Invalid);
    }
    assert_eq!(s.call(0, label::START, &[0, offered() | 1 << 60]).0, Status::Invalid);
    assert_eq!(s.call(0, label::START, &[0, offered() & !features::VERSION_1]).0, Status::Invalid);
    assert_eq!(s.call(0, label::START, &[0, offered()]).0, Status::Ok, "a driver may use no queue");
    s.guests[0].send(kind::IN, 0, &[0; 512], 512);
    s.step(&mut Vec::new());
    assert!(s.backend.device().log.is_empty());
}

#[test]
fn windows_do_not_overlap() {
    let mut s = System::new(2, 16, offered());
    let sectors = s.backend.device().properties().sectors;
    let config = |first, read_only| DiskConfig {
        window: Window::new(first, 10, sectors).unwrap(),
        read_only,
        serial: [0; ID_BYTES],
        rate: crate::Rate::default(),
        queues: 1,
    };
    assert_eq!(s.backend.add_disk(0, 1, config(3 * SECTORS - 1 - 9, false)), Err(1));
    assert_eq!(s.backend.add_disk(0, 1, config(3 * SECTORS - 10, true)), Err(1), "the other may write");
    assert_eq!(s.backend.add_disk(0, 1, config(10, true)), Ok(()));
    assert_eq!(s.backend.add_disk(1, 1, config(15, true)), Ok(()), "two readers may");
    assert_eq!(s.backend.add_disk(1, 2, config(15, false)), Err(0));
}

#[test]
fn a_dead_device_answers_everything_with_errors() {
    let mut s = System::new(1, 16, offered());
    s.backend.device_mut().health = Health::Failed;
    assert_eq!(one(&mut s, 0, kind::IN, 0, &[0; 512]).status, IOERR);
    s.backend.tick();
    assert!(!s.backend.wants_tick() && s.reports.0.borrow().device.is_empty());
}

#[test]
fn one_wake_up_is_bounded() {
    let mut s = System::new(1, 16, offered());
    assert_eq!(s.call(0, label::RESET, &[0]).0, Status::Ok);
    let ram = s.guests[0].ram.ram();
    s.guests[0].drivers[0] = DriverQueue::new(ram, BASE, 256, true);
    s.start(0);
    // Requests that are answered at once: no completion will call the backend again.
    ram.write_obj(SLOTS, &Header { kind: 99, reserved: 0, sector: 0 }).unwrap();
    let request = [Buffer::out(SLOTS, 16), Buffer::into(SLOTS + 16, 1)];
    for _ in 0..200 {
        s.guests[0].drivers[0].add_indirect(SLOTS + 32, &request).unwrap();
    }
    s.backend.kicked(0);
    assert!(s.backend.run(), "there is more, and nobody else would say so");
    let mut answered = || std::iter::from_fn(|| s.guests[0].drivers[0].take_used()).count();
    assert_eq!(answered(), BUDGET);
    s.backend.device_mut().nudge();
    assert!(s.backend.device().interrupt);
    s.backend.interrupt();
    assert!(!s.backend.run());
    let mut answered = || std::iter::from_fn(|| s.guests[0].drivers[0].take_used()).count();
    assert_eq!(answered(), 200 - BUDGET);
}

#[test]
fn of_two_that_finish_together_who_has_had_less_is_told_first() {
    let mut s = System::new(2, 16, offered());
    // One sector of the one, then more of the other, then two small ones again.
    for (n, sectors, first) in [(0, 1, 1), (1, 64, 0), (0, 8, 0), (0, 64, 1)] {
        assert_eq!(one(&mut s, n, kind::IN, 0, &vec![0; 512 * sectors]).status, OK);
        assert_eq!(s.backend.first(0b11), first, "after {sectors} of {n}");
    }
    assert_eq!([s.backend.first(0b01), s.backend.first(0b10)], [0, 1]);
}

#[test]
fn shares_leave_room_for_others() {
    let mut s = System::new(3, 16, offered());
    for i in 0..60 {
        s.guests[0].send(kind::IN, i, &[0; 512], 512);
    }
    s.step(&mut Vec::new());
    assert_eq!(s.backend.device().running.len(), 12, "16 less 2 for each of the two others");
    s.guests[1].send(kind::IN, 0, &[0; 512], 512);
    s.step(&mut Vec::new());
    assert_eq!(s.backend.device().running.len(), 13, "at once");
    let mut done = Vec::new();
    s.finish(&mut done);
    assert_eq!(done.len(), 61);
}

#[test]
fn a_crash_between_used_element_and_index() {
    use crate::inflight::Owner;
    for published in [false, true] {
        let mut s = System::new(1, 16, offered());
        let mut done = Vec::new();
        for i in 0..3 {
            s.guests[0].send(kind::IN, i, &[0; 512], 512);
        }
        s.step(&mut done);
        let heads: Vec<_> = (0..3)
            .map(|id| match s.page.get(id) {
                Entry::Taken(owner) => owner.head,
                other => panic!("{other:?}"),
            })
            .collect();
        // As if the second of them had finished: element written at position 0, then the crash, before or after the index.
        let ram = s.guests[0].ram.ram();
        let used = s.guests[0].drivers[0].layout.used;
        ram.store_u32(used + 4, heads[1].into(), Ordering::Relaxed).unwrap();
        ram.store_u32(used + 8, 513, Ordering::Relaxed).unwrap();
        ram.write_obj(SLOTS + SLOT * 62 + 16, &OK).unwrap();
        s.page.set(1, Entry::Finishing(Owner { client: 0, disk: 0, queue: 0, head: heads[1] }, 0));
        ram.store_u16(used + 2, published.into(), Ordering::Release).unwrap();
        s.guests[0].send(kind::IN, 7, &[0; 512], 512);
        s.restart();
        let again = s.backend.device().log.len();
        assert_eq!(again, if published { 3 } else { 4 }, "two or three in flight, one new");
        s.finish(&mut done);
        assert_eq!(done.len(), 4);
        assert!(done.iter().all(|got| got.status == OK));
    }
}

#[test]
fn reset_forgets_an_earlier_life() {
    let mut s = System::new(1, 16, offered());
    for i in 0..3 {
        s.guests[0].send(kind::IN, i, &[0; 512], 512);
    }
    s.step(&mut Vec::new());
    let rams = [s.guests[0].ram];
    let device = FakeDisk::new(SECTORS * 2, 16, &rams);
    s.backend = System::backend(device, &s.guests, &s.reports, s.page);
    assert_eq!(s.backend.free.count_ones(), 13, "numbers are kept for the guest");
    assert_eq!(s.call(0, label::RESET, &[0]).0, Status::Ok, "nothing of it is with the device");
    assert_eq!(s.backend.free.count_ones(), 16);
    assert!((0..MAX_FLIGHTS).all(|id| s.page.get(id) == Entry::Free));
    let ram = s.guests[0].ram.ram();
    s.guests[0].drivers[0] = DriverQueue::new(ram, BASE, QUEUE, true);
    s.guests[0].sent.clear();
    s.start(0);
    assert_eq!(one(&mut s, 0, kind::IN, 0, &[0; 512]).status, OK);
}

#[test]
fn a_chain_that_comes_while_falling_asleep_2_7_10() {
    for features in [offered(), offered() & !features::EVENT_IDX] {
        let mut s = System::new(1, 16, features);
        let ram = s.guests[0].ram.ram();
        one(&mut s, 0, kind::IN, 0, &[0; 512]);
        // A second handle on the ring, for the guest that acts in between.
        let mut driver =
            core::mem::replace(&mut s.guests[0].drivers[0], DriverQueue::new(ram, BASE + 0x5000, 2, true));
        ram.write_obj(SLOTS, &Header { kind: 99, reserved: 0, sector: 0 }).unwrap();
        let request = [Buffer::out(SLOTS, 16), Buffer::into(SLOTS + 16, 1)];
        driver.add(&request).unwrap();
        assert!(driver.needs_kick());
        let driver = Rc::new(RefCell::new(driver));
        let other = driver.clone();
        BEFORE_SLEEP.set(Some(Box::new(move || {
            let mut driver = other.borrow_mut();
            driver.add(&request).unwrap();
            assert!(!driver.needs_kick(), "the backend has not asked for it");
        })));
        s.backend.kicked(0);
        assert!(!s.backend.run());
        let mut driver = driver.borrow_mut();
        assert!(driver.take_used().is_some());
        assert!(driver.take_used().is_some(), "nobody will kick for the second one");
    }
}

#[test]
fn counters_tell_what_was_done() {
    use partita_protocol::disk_stats::LATENCY_SHIFT;
    let mut s = System::new(2, 16, offered());
    let page = s.backend.counting.unwrap().page;
    let read = |counter: &core::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let disk = &page.disks[1][0];
    assert_eq!([&disk.first, &disk.sectors].map(read), [SECTORS * 2, SECTORS]);
    one(&mut s, 1, kind::OUT, 0, &[1; 1024]);
    one(&mut s, 1, kind::IN, 0, &[0; 512]);
    one(&mut s, 1, kind::FLUSH, 0, &[]);
    one(&mut s, 1, kind::GET_ID, 0, &[0; 20]);
    one(&mut s, 1, kind::IN, SECTORS, &[0; 512]);
    s.guests[1].send(kind::IN, 1, &[0; 4096], 512);
    s.step(&mut Vec::new());
    assert_eq!(read(&disk.in_flight), 1);
    CLOCK.set(CLOCK.get() + (1 << LATENCY_SHIFT));
    s.finish(&mut Vec::new());
    assert_eq!([&disk.reads, &disk.writes, &disk.others].map(read), [3, 1, 2]);
    assert_eq!([&disk.read_bytes, &disk.written_bytes].map(read), [4608, 1024]);
    assert_eq!([&disk.errors, &disk.in_flight].map(read), [1, 0]);
    // What never was with the device has no latency.
    assert_eq!([&disk.latency[0], &disk.latency[1], &disk.latency[2]].map(read), [3, 1, 0]);
    let other = &page.disks[0][0];
    assert_eq!([&other.reads, &other.writes, &other.others, &other.errors].map(read), [0; 4]);
}

#[test]
fn a_limited_disk_waits_for_its_time_and_nobody_else_does() {
    CLOCK.set(1_000_000);
    let mut s = System::new(2, 16, offered());
    s.backend.set_clock(|| CLOCK.get(), 1000);
    // Twenty a second: one at once (the burst is a twentieth of a second), then one every 50 counts.
    s.backend.limits.set(0, 0, crate::Rate { iops: 20, bytes_per_second: 0 });
    assert_eq!(s.backend.wake_at(), None);
    let mut done = Vec::new();
    for _ in 0..10 {
        assert!(s.guests[0].send(kind::IN, 0, &[0; 512], 512));
        assert!(s.guests[1].send(kind::IN, 0, &[0; 1024], 512));
    }
    s.finish(&mut done);
    // They are told apart by what they read.
    let of =
        |done: &[Got], guest: usize| done.iter().filter(|got| got.data.len() == 512 * (guest + 1)).count();
    let at_once = of(&done, 0);
    assert!((1..=2).contains(&at_once), "{at_once}");
    assert_eq!(of(&done, 1), 10);
    // A kick of a disk that waits changes nothing, and too early is too early.
    assert!(s.guests[0].send(kind::IN, 0, &[0; 512], 512));
    s.finish(&mut done);
    s.backend.release();
    assert!(!s.backend.run());
    assert_eq!(of(&done, 0), at_once);
    for n in 1..=11 - at_once {
        let wake = s.backend.wake_at().expect("it waits");
        assert!(wake > CLOCK.get() && wake <= CLOCK.get() + 50, "{wake}");
        CLOCK.set(wake);
        s.backend.release();
        assert!(!s.backend.run());
        s.finish(&mut done);
        assert_eq!(of(&done, 0), at_once + n);
    }
    // Nothing is left: nobody needs to be woken.
    if let Some(wake) = s.backend.wake_at() {
        CLOCK.set(wake);
        s.backend.release();
        assert!(!s.backend.run());
    }
    assert_eq!(s.backend.wake_at(), None);
    // A reset while it waits.
    for _ in 0..5 {
        assert!(s.guests[0].send(kind::IN, 0, &[0; 512], 512));
    }
    s.finish(&mut done);
    assert!(s.backend.wake_at().is_some());
    assert_eq!(s.call(0, label::RESET, &[0]).0, Status::Ok);
    CLOCK.set(CLOCK.get() + 1000);
    s.backend.release();
    assert!(!s.backend.run());
    assert_eq!((s.backend.wake_at(), s.backend.is_busy()), (None, false));
}

/// Sends reads of a sector each until so many are with the device.
fn reads_in_flight(s: &mut System, count: usize) {
    for sector in 0..count as u64 {
        assert!(s.guests[0].send(kind::IN, sector, &[0; 512], 4096));
        s.step(&mut Vec::new());
    }
    assert_eq!(s.backend.device().running.len(), count);
}

#[test]
fn a_busy_disk_asks_for_no_kicks_and_looks_at_the_next_completion() {
    for event_idx in [true, false] {
        let features = if event_idx { offered() } else { offered() & !features::EVENT_IDX };
        let mut s = System::new(1, 16, features);
        reads_in_flight(&mut s, BUSY.into());
        let mut done = Vec::new();
        for _ in 0..2 {
            assert!(s.guests[0].send(kind::IN, 9, &[0; 512], 4096));
            assert!(!s.guests[0].kick, "it waits behind the others");
        }
        s.backend.device_mut().finish(2);
        s.step(&mut done);
        assert_eq!((done.len(), s.backend.device().running.len()), (1, usize::from(BUSY) + 1));
        // Still busy, still quiet; with one less it is not.
        for (left, kick) in [(usize::from(BUSY), false), (usize::from(BUSY) - 1, true)] {
            s.backend.device_mut().finish(0);
            s.step(&mut done);
            assert_eq!(s.backend.device().running.len(), left);
            assert!(s.guests[0].send(kind::IN, 9, &[0; 512], 4096));
            assert_eq!(s.guests[0].kick, kick);
            if !kick {
                s.backend.device_mut().finish(0);
                s.step(&mut done);
            }
        }
        s.finish(&mut done);
        assert!(s.guests[0].sent.is_empty());
    }
}

#[test]
fn what_may_take_long_does_not_keep_others_waiting() {
    let mut s = System::new(1, 16, offered());
    assert!(s.guests[0].send(kind::FLUSH, 0, &[], 4096));
    s.step(&mut Vec::new());
    for sector in 0..2 * u64::from(BUSY) {
        assert!(s.guests[0].send(kind::IN, sector, &[0; 512], 4096));
        assert!(s.guests[0].kick, "a flush is in flight");
        s.step(&mut Vec::new());
    }
    // Nor does a disk whose writes are flushed one by one.
    let mut s = System::new(1, 16, offered() & !feature::FLUSH);
    for sector in 0..2 * u64::from(BUSY) {
        assert!(s.guests[0].send(kind::OUT, sector, &[0; 512], 4096));
        assert!(s.guests[0].kick);
        s.step(&mut Vec::new());
    }
    s.finish(&mut Vec::new());
    assert!(s.guests[0].sent.is_empty());
}
