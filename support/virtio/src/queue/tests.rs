use super::*;
use crate::fake::{Buffer, DriverQueue, FakeRam};
use proptest::prelude::*;
use std::collections::HashMap;

const BASE: u64 = 0x4000_0000;
const SIZE: u64 = 0x10000;

fn pair(size: u16, features: u64) -> (FakeRam, DriverQueue, Queue) {
    let ram = FakeRam::new(BASE, SIZE, 0x8000_0000);
    let driver = DriverQueue::new(ram.ram(), BASE, size, features & features::EVENT_IDX != 0);
    let queue = Queue::new(ram.ram(), driver.layout, 256, features).unwrap();
    (ram, driver, queue)
}

fn walk(mut chain: Chain) -> Result<Vec<Descriptor>, Fault> {
    let mut all = Vec::new();
    while let Some(descriptor) = chain.next_descriptor()? {
        all.push(descriptor);
    }
    Ok(all)
}

/// Writes a descriptor as it is.
fn raw(ram: &FakeRam, table: u64, index: u16, addr: u64, len: u32, flags: u16, next: u16) {
    ram.ram().write_obj(table + 16 * u64::from(index), &RawDescriptor { addr, len, flags, next }).unwrap();
}

fn offer(driver: &DriverQueue, ram: &FakeRam, heads: &[u16]) {
    for (i, head) in (0u64..).zip(heads) {
        ram.ram().store_u16(driver.layout.avail + 4 + 2 * i, *head, Ordering::Relaxed).unwrap();
    }
    ram.ram().store_u16(driver.layout.avail + 2, heads.len() as u16, Ordering::Release).unwrap();
}

#[test]
fn set_up_is_checked_2_7() {
    let ram = FakeRam::new(BASE, SIZE, 0).ram();
    let good = QueueLayout { size: 8, desc: BASE, avail: BASE + 128, used: BASE + 256 };
    assert!(Queue::new(ram, good, 8, 0).is_ok());
    for (layout, fault) in [
        (QueueLayout { size: 0, ..good }, Fault::Size),
        (QueueLayout { size: 6, ..good }, Fault::Size),
        (QueueLayout { size: 16, ..good }, Fault::Size),
        (QueueLayout { desc: BASE + 8, ..good }, Fault::Alignment),
        (QueueLayout { avail: BASE + 1, ..good }, Fault::Alignment),
        (QueueLayout { used: BASE + 2, ..good }, Fault::Alignment),
        (QueueLayout { desc: BASE + SIZE - 112, ..good }, Fault::OutOfRam),
        (QueueLayout { avail: BASE + SIZE - 20, ..good }, Fault::OutOfRam),
        (QueueLayout { used: BASE + SIZE - 68, ..good }, Fault::OutOfRam),
        (QueueLayout { used: 0, ..good }, Fault::OutOfRam),
        (QueueLayout { used: u64::MAX - 3, ..good }, Fault::OutOfRam),
    ] {
        assert_eq!(Queue::new(ram, layout, 8, 0).unwrap_err(), fault, "{layout:?}");
    }
}

#[test]
fn chains_2_7_5() {
    let (_, mut driver, mut queue) = pair(8, 0);
    let buffers =
        [Buffer::out(BASE + 0x1000, 16), Buffer::into(BASE + 0x2000, 512), Buffer::into(BASE + 0x3000, 1)];
    let head = driver.add(&buffers).unwrap();
    let chain = queue.pop().unwrap().unwrap();
    assert_eq!(chain.head(), head);
    let seen: Vec<_> = walk(chain).unwrap().into_iter().map(|d| (d.addr, d.len, d.writable)).collect();
    assert_eq!(seen, buffers.map(|b| (b.addr, b.len, b.writable)));
    assert!(queue.pop().unwrap().is_none());
    queue.push(head, 513).unwrap();
    assert_eq!(driver.take_used(), None, "not before publish");
    assert!(queue.publish().unwrap());
    assert_eq!(driver.take_used(), Some((head, 513)));
    assert!(!queue.publish().unwrap(), "nothing new");
}

#[test]
fn indirect_2_7_5_3() {
    let (ram, mut driver, mut queue) = pair(4, features::INDIRECT_DESC);
    let buffers: Vec<_> = (0..20).map(|i| Buffer::out(BASE + 0x2000 + i * 8, 8)).collect();
    driver.add_indirect(BASE + 0x1000, &buffers).unwrap();
    assert_eq!(walk(queue.pop().unwrap().unwrap()).unwrap().len(), 20, "longer than the queue");

    let check = |table_flags, len, first_flags| {
        let (ram, driver, mut queue) = pair(4, features::INDIRECT_DESC);
        raw(&ram, driver.layout.desc, 0, BASE + 0x1000, len, table_flags, 1);
        raw(&ram, BASE + 0x1000, 0, BASE, 1, first_flags, 0);
        offer(&driver, &ram, &[0]);
        walk(queue.pop().unwrap().unwrap())
    };
    assert!(check(4, 16, 0).is_ok());
    assert_eq!(check(5, 16, 0), Err(Fault::Indirect), "with NEXT");
    assert_eq!(check(4, 16, 4), Err(Fault::Indirect), "nested");
    assert_eq!(check(4, 0, 0), Err(Fault::IndirectLength));
    assert_eq!(check(4, 17, 0), Err(Fault::IndirectLength));
    assert_eq!(check(4, 16 * (MAX_INDIRECT + 1), 0), Err(Fault::IndirectLength));
    assert_eq!(check(4, 16 * MAX_INDIRECT, 1), Err(Fault::ChainLength), "loop");
    assert_eq!(check(4, 0xffff_fff0, 0), Err(Fault::IndirectLength));

    let (_, mut driver, mut queue) = pair(4, 0);
    driver.add_indirect(BASE + 0x1000, &buffers).unwrap();
    assert_eq!(walk(queue.pop().unwrap().unwrap()), Err(Fault::Indirect), "not negotiated");
    let (_, mut driver, mut queue) = pair(4, features::INDIRECT_DESC);
    driver.add_indirect(BASE + 0x1000, &buffers).unwrap();
    raw(&ram, driver.layout.desc, 0, BASE, 16, 0, 0);
    ram.ram().fill(BASE + 0x1000, 16, 0xff).unwrap();
    assert!(queue.pop().unwrap().is_some());
}

#[test]
fn rule_breakers() {
    let case = |descriptors: &[(u64, u32, u16, u16)]| {
        let (ram, driver, mut queue) = pair(4, features::INDIRECT_DESC);
        for (i, d) in (0u16..).zip(descriptors) {
            raw(&ram, driver.layout.desc, i, d.0, d.1, d.2, d.3);
        }
        offer(&driver, &ram, &[0]);
        walk(queue.pop().unwrap().unwrap())
    };
    assert_eq!(case(&[(BASE, 1, 1, 0)]), Err(Fault::ChainLength), "loop to itself");
    assert_eq!(case(&[(BASE, 1, 1, 1), (BASE, 1, 1, 0)]), Err(Fault::ChainLength));
    assert_eq!(case(&[(BASE, 1, 1, 4)]), Err(Fault::DescriptorIndex));
    assert_eq!(case(&[(BASE, 1, 3, 1), (BASE, 1, 0, 0)]), Err(Fault::Order));
    assert_eq!(case(&[(BASE, 0, 0, 0)]), Err(Fault::EmptyDescriptor));
    assert_eq!(case(&[(BASE + SIZE, 16, 4, 0)]), Err(Fault::OutOfRam));
    assert_eq!(case(&[(u64::MAX - 15, 16, 4, 0)]), Err(Fault::OutOfRam));
}

#[test]
fn avail_ring_2_7_6() {
    let (ram, driver, mut queue) = pair(4, 0);
    offer(&driver, &ram, &[4]);
    assert_eq!(queue.pop().unwrap_err(), Fault::DescriptorIndex);
    let (_, mut driver, mut queue) = pair(4, 0);
    driver.corrupt_avail_index(5);
    assert_eq!(queue.pop().unwrap_err(), Fault::AvailIndex);
    let (_, mut driver, mut queue) = pair(4, 0);
    driver.corrupt_avail_index(u16::MAX);
    assert_eq!(queue.pop().unwrap_err(), Fault::AvailIndex);
    assert_eq!(queue.enable_kicks().unwrap_err(), Fault::AvailIndex);
}

#[test]
fn event_index_2_7_10() {
    assert!(crosses(0, 1, 0));
    assert!(!crosses(1, 1, 0));
    assert!(crosses(5, 8, 5));
    assert!(!crosses(8, 8, 5));
    assert!(!crosses(4, 8, 5));
    assert!(crosses(0xffff, 0, 0xffff));
    assert!(crosses(0, 2, 0xfffe));
    assert!(!crosses(7, 7, 7));
}

#[test]
fn wishes_are_written_before_the_other_side_is_looked_at() {
    for features in [0, features::EVENT_IDX] {
        let (_, mut driver, mut queue) = pair(8, features);
        assert!(queue.pop().unwrap().is_none());
        queue.disable_kicks().unwrap();
        assert!(!queue.enable_kicks().unwrap());
        let first = driver.add(&[Buffer::out(BASE, 1)]).unwrap();
        assert!(driver.needs_kick());
        queue.pop().unwrap().unwrap();
        queue.disable_kicks().unwrap();
        // Nobody is told of this one, so `enable_kicks` must say it.
        driver.add(&[Buffer::out(BASE, 1)]).unwrap();
        assert!(!driver.needs_kick());
        assert!(queue.enable_kicks().unwrap());
        // The same in the other direction: wished after the index was published, but looked for after the wish.
        driver.want_interrupt(false);
        queue.push(first, 0).unwrap();
        assert!(!queue.publish().unwrap());
        driver.want_interrupt(true);
        assert!(driver.take_used().is_some());
    }
}

#[test]
fn resumes_after_a_restart() {
    let (_, mut driver, mut queue) = pair(8, features::EVENT_IDX);
    let heads: Vec<_> = (0..6).map(|i| driver.add(&[Buffer::out(BASE + 0x1000 + i, 1)]).unwrap()).collect();
    for _ in 0..4 {
        queue.pop().unwrap().unwrap();
    }
    queue.push(heads[1], 0).unwrap();
    queue.publish().unwrap();
    let mut again = Queue::new(*queue.ram(), driver.layout, 256, features::EVENT_IDX).unwrap();
    again.resume(3).unwrap();
    assert_eq!(again.chain_at(heads[0]).unwrap().head(), heads[0]);
    assert!(again.chain_at(8).is_err());
    assert_eq!(again.pop().unwrap().unwrap().head(), heads[4]);
    again.push(heads[0], 0).unwrap();
    again.publish().unwrap();
    assert_eq!(driver.take_used(), Some((heads[1], 0)));
    assert_eq!(driver.take_used(), Some((heads[0], 0)));
}

proptest! {
    /// Driver and device, each asleep unless the other owes it a notification, get through any schedule: every chain is
    /// used exactly once, with its length, and nobody sleeps for ever. Runs over the wrap of the indices.
    #[test]
    fn conversation(
        event_idx: bool,
        indirect: bool,
        log_size in 1u32..5,
        script in prop::collection::vec((0u8..3, 1usize..6), 50..400),
    ) {
        let mut features = features::INDIRECT_DESC;
        if event_idx { features |= features::EVENT_IDX; }
        let (_, mut driver, mut queue) = pair(1 << log_size, features);
        // Close to the wrap of the 16-bit indices.
        driver.start_at(65530);
        queue.resume(0).unwrap();
        let mut live: HashMap<u16, u32> = HashMap::new();
        let mut tables: HashMap<u16, u64> = HashMap::new();
        let mut taken: Vec<(u16, u32)> = Vec::new();
        let (mut kicked, mut interrupted) = (queue.enable_kicks().unwrap(), false);
        driver.want_interrupt(true);
        let mut serial = 0u32;
        for (who, amount) in script.into_iter().chain(std::iter::repeat_n((1, 64), 4).chain([(2, 64), (1, 64), (2, 64)])) {
            match who {
                0 => {
                    for _ in 0..amount {
                        serial += 1;
                        let parts = 1 + serial % 3;
                        let buffers: Vec<_> = (0..parts)
                            .map(|p| Buffer { addr: u64::from(serial), len: 1 + p, writable: p > 0 }).collect();
                        // A table is used again only when its chain is.
                        let slot = (0..).find(|slot| !tables.values().any(|used| used == slot)).unwrap();
                        let table = BASE + 0x4000 + 64 * slot;
                        let head = if indirect { driver.add_indirect(table, &buffers) } else { driver.add(&buffers) };
                        if let Some(head) = head {
                            prop_assert!(live.insert(head, serial).is_none());
                            tables.insert(head, slot);
                        }
                    }
                    kicked |= driver.needs_kick();
                }
                1 if kicked || !taken.is_empty() => {
                    let mut budget = amount;
                    while budget > 0 {
                        budget -= 1;
                        match queue.pop().unwrap() {
                            Some(chain) => {
                                let all = walk(chain).unwrap();
                                let serial = live[&chain.head()];
                                prop_assert_eq!(all.len() as u32, 1 + serial % 3);
                                prop_assert!(all.iter().all(|d| d.addr == u64::from(serial)));
                                taken.push((chain.head(), serial));
                            }
                            None if queue.enable_kicks().unwrap() => {}
                            None => { kicked = false; break; }
                        }
                    }
                    // Out of order.
                    for _ in 0..amount.min(taken.len()) {
                        let (head, serial) = taken.swap_remove(taken.len() / 2);
                        queue.push(head, serial).unwrap();
                    }
                    interrupted |= queue.publish().unwrap();
                }
                2 if interrupted => {
                    interrupted = false;
                    loop {
                        while let Some((head, written)) = driver.take_used() {
                            tables.remove(&head);
                            prop_assert_eq!(live.remove(&head), Some(written));
                        }
                        driver.want_interrupt(true);
                        match driver.take_used() {
                            Some((head, written)) => {
                                tables.remove(&head);
                                prop_assert_eq!(live.remove(&head), Some(written));
                            }
                            None => break,
                        }
                    }
                }
                _ => {}
            }
        }
        prop_assert!(taken.is_empty());
        prop_assert!(live.is_empty(), "left asleep: {:?}", live);
    }

    /// Random bytes in all three areas: every walk ends, and what it yields was bounded.
    #[test]
    fn garbage(bytes in prop::collection::vec(any::<u8>(), 512), features: u64, avail: u16) {
        let (ram, mut driver, mut queue) = pair(8, features);
        ram.ram().write(BASE, &bytes).unwrap();
        driver.corrupt_avail_index(avail);
        for _ in 0..16 {
            match queue.pop() {
                Ok(Some(chain)) => { let _ = walk(chain).map(|all| assert!(all.len() as u32 <= MAX_INDIRECT + 8)); }
                _ => break,
            }
        }
    }
}
