//! Devices that break the rules, each in its own way.

use super::*;

/// A driver with reads 3, 4 and 5 in flight at a device that does not answer by itself.
fn three() -> (Shared, VirtioBlk<Fake>) {
    let d = device(ALL);
    let mut driver = driver(&d, 64);
    d.borrow_mut().hold = true;
    for id in 3..6 {
        driver.submit(&read(id, id.into(), &[segment(u64::from(id) * 512, 512)])).unwrap();
    }
    driver.kick();
    (d, driver)
}

/// The device returns `head` as a request of which it wrote `len` bytes.
fn answers(d: &Shared, head: u16, len: u32) {
    let mut device = d.borrow_mut();
    let queue = device.queue.as_mut().unwrap();
    queue.push(head, len).unwrap();
    queue.publish().unwrap();
}

fn done(driver: &mut VirtioBlk<Fake>) -> Vec<(u16, Outcome)> {
    let mut all: Vec<_> = std::iter::from_fn(|| driver.complete()).map(|c| (c.id, c.outcome)).collect();
    all.sort_by_key(|(id, _)| *id);
    all
}

fn arrived(d: &Shared, id: u64) -> bool {
    let device = d.borrow();
    let at = (id * 512) as usize;
    device.ram.bytes(PAYLOAD + id * 512, 512) == device.disk[at..at + 512]
}

#[test]
fn an_answer_to_nothing_stops_it_and_a_restart_brings_all_back() {
    for head in [9, 62, 64, 0xffff] {
        let (d, mut driver) = three();
        // The device may write anything into the used ring.
        let used = d.borrow().layout.unwrap().used;
        let ram = d.borrow().ram.ram();
        ram.store_u32(used + 4, head, core::sync::atomic::Ordering::Relaxed).unwrap();
        ram.store_u16(used + 2, 1, core::sync::atomic::Ordering::Relaxed).unwrap();
        assert_eq!(driver.complete(), None);
        assert_eq!(driver.health(), Health::Stopped(Breach::NotItsRequest(head)));
        assert!(d.borrow().status.is_empty() && !driver.arm());
        // What comes meanwhile is taken, but does not reach the device.
        driver.submit(&read(6, 6, &[segment(6 * 512, 512)])).unwrap();
        driver.kick();
        assert_eq!(driver.restart(1 << 4), Ok(()));
        assert_eq!(d.borrow().taken.len(), 3);
        d.borrow_mut().finish(9);
        let wanted = [(3, Outcome::Done), (4, Outcome::Lost), (5, Outcome::Done), (6, Outcome::Done)];
        assert_eq!(done(&mut driver), wanted);
        assert!(arrived(&d, 3) && arrived(&d, 5) && arrived(&d, 6));
        assert_eq!(driver.busy, 0);
    }
}

#[test]
fn a_second_answer_stops_it() {
    let (d, mut driver) = three();
    d.borrow_mut().finish(1);
    assert_eq!(done(&mut driver), [(5, Outcome::Done)]);
    answers(&d, 5, 513);
    assert_eq!(driver.complete(), None);
    assert_eq!(driver.health(), Health::Stopped(Breach::NotItsRequest(5)));
    assert_eq!(driver.restart(0), Ok(()));
    d.borrow_mut().finish(9);
    assert_eq!(done(&mut driver), [(3, Outcome::Done), (4, Outcome::Done)]);
}

#[test]
fn a_used_index_that_runs_away_is_noticed_at_its_first_lie() {
    let (d, mut driver) = three();
    let used = d.borrow().layout.unwrap().used;
    let ram = d.borrow().ram.ram();
    ram.store_u16(used + 2, 0x8000, core::sync::atomic::Ordering::Relaxed).unwrap();
    // Its elements are zeroes: request 0, which is not in flight.
    assert_eq!(driver.complete(), None);
    assert_eq!(driver.health(), Health::Stopped(Breach::NotItsRequest(0)));
}

#[test]
fn lengths_that_are_not_what_was_asked_are_errors() {
    let (d, mut driver) = three();
    for (id, len) in [(3u16, 511), (4, 514), (5, u32::MAX)] {
        d.borrow().ram.ram().write_obj(driver.page(id) + STATUS, &0u8).unwrap();
        answers(&d, id, len);
    }
    let all = done(&mut driver);
    assert_eq!(all, [3, 4, 5].map(|id| (id, Outcome::Incomplete)));
    assert_eq!(driver.health(), Health::Working);
    // Of a write, nothing is expected.
    let one = [segment(0, 512)];
    let write = Request { id: 0, command: Command::Write, sector: 0, sectors: 1, segments: &one };
    driver.submit(&write).unwrap();
    driver.kick();
    d.borrow().ram.ram().write_obj(driver.page(0) + STATUS, &0u8).unwrap();
    answers(&d, 0, 0);
    assert_eq!(done(&mut driver), [(0, Outcome::Done)]);
}

#[test]
fn a_status_that_was_not_written_is_an_error() {
    let (d, mut driver) = three();
    answers(&d, 3, 513);
    assert_eq!(done(&mut driver), [(3, Outcome::IoError)]);
}

#[test]
fn a_wish_to_be_reset_is_heard() {
    let (d, mut driver) = three();
    d.borrow_mut().status |= DeviceStatus::DEVICE_NEEDS_RESET;
    d.borrow_mut().interrupt = 2;
    driver.acknowledge();
    assert_eq!(driver.health(), Health::Stopped(Breach::NeedsReset));
    assert_eq!(driver.restart(0), Ok(()));
    d.borrow_mut().finish(9);
    assert_eq!(done(&mut driver), [3, 4, 5].map(|id| (id, Outcome::Done)));
}

#[test]
fn a_surprise_reset_is_mended_by_a_restart() {
    let (d, mut driver) = three();
    // It forgot everything and does not say so.
    Fake(d.clone()).set_status(DeviceStatus::empty());
    assert_eq!(driver.complete(), None);
    assert_eq!(driver.restart(0), Ok(()));
    d.borrow_mut().finish(9);
    assert_eq!(done(&mut driver), [3, 4, 5].map(|id| (id, Outcome::Done)));
}

#[test]
fn a_device_that_ignores_its_reset_keeps_its_requests_until_it_is_given_up() {
    let (d, mut driver) = three();
    d.borrow_mut().deaf = true;
    assert_eq!(driver.restart(!0), Err(RestartError::NoReset));
    assert_eq!(done(&mut driver), []);
    driver.give_up();
    assert_eq!(done(&mut driver), [3, 4, 5].map(|id| (id, Outcome::Lost)));
    assert_eq!(driver.health(), Health::Failed);
    assert_eq!(driver.submit(&read(0, 0, &[segment(0, 512)])), Err(Refused::Failed));
    driver.nudge();
    assert!(!driver.arm() && driver.complete().is_none());
}

#[test]
fn a_device_that_comes_back_as_another_is_not_used() {
    type Change = fn(&mut Device);
    let changes: [(Change, bool); 5] = [
        (|d| d.features &= !feature::FLUSH, false),
        (|d| d.config[..8].copy_from_slice(&(SECTORS - 1).to_le_bytes()), false),
        (|d| d.config[..8].copy_from_slice(&(SECTORS + 1).to_le_bytes()), true),
        (|d| d.config[12] = 1, false),
        (|d| d.queue_max = 8, false),
    ];
    for (change, fine) in changes {
        let (d, mut driver) = three();
        change(&mut d.borrow_mut());
        assert_eq!(driver.restart(0).is_ok(), fine);
        assert_eq!(driver.properties().sectors, SECTORS);
        d.borrow_mut().finish(9);
        assert_eq!(done(&mut driver).len(), if fine { 3 } else { 0 });
    }
}

#[test]
fn a_driver_that_refuses_ends_what_the_device_had_and_takes_nothing() {
    let (d, _dead) = three();
    let mut driver = VirtioBlk::refusing(Fake(d.clone()), dma(&d, 64)).unwrap();
    assert!(d.borrow().status.is_empty(), "reset");
    assert_eq!(driver.health(), Health::Failed);
    let segments = [segment(0, 512)];
    assert_eq!(driver.submit(&read(3, 3, &segments)), Err(Refused::Failed));
    driver.kick();
    driver.acknowledge();
    assert!(!driver.arm() && driver.finished() == 0);
    assert_eq!(driver.complete(), None);
    assert!(d.borrow().status.is_empty() && d.borrow().taken.is_empty());
}

#[test]
fn a_nudge_that_is_lost_can_be_repeated() {
    let d = device(ALL);
    let mut driver = driver(&d, 64);
    d.borrow_mut().hold = true;
    driver.nudge();
    assert_eq!(driver.restart(0), Ok(()));
    d.borrow_mut().hold = false;
    driver.nudge();
    assert_eq!(d.borrow().ids, 2);
    assert_eq!(driver.complete(), None);
}
