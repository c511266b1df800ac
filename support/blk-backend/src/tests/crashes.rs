//! Death at every step: between any two stores that survive it, once, and again at every step of the recovery.
//!
//! The subject is everything that runs in the PD: set-up, calls, events. The guests and the device are not; they see what
//! a dead backend left. A request that the device had may have been done or not when it is reset, so both are tried.

use partita_virtio::fake::crash;

use super::*;

/// What is asked of the system in one go. Nothing in it conflicts, so that the result does not depend on the order.
type Batch = &'static [(usize, u32, u64, u8, usize)];

/// Guest, kind, sector, content, bytes.
const SCRIPT: [Batch; 5] = [
    &[(0, kind::OUT, 0, 0xa1, 1024), (1, kind::OUT, 0, 0xb1, 512), (0, kind::OUT, 8, 0xa2, 512)],
    &[(0, kind::FLUSH, 0, 0, 0), (0, kind::GET_ID, 0, 0, 20), (1, kind::OUT, 4, 0xb2, 2048)],
    &[
        (0, kind::IN, 0, 0, 1024),
        (0, 50, 0, 0, 0),
        (0, kind::OUT, SECTORS, 1, 512),
        (0, kind::OUT, 0, 0xa3, 1024),
    ],
    &[(0, kind::OUT, 1, 0xa4, 512), (1, kind::FLUSH, 0, 0, 0), (0, kind::IN, 8, 0, 512)],
    &[(0, kind::FLUSH, 0, 0, 0), (1, kind::IN, 4, 0, 2048)],
];

/// Which of the device's requests are done although nobody hears of it.
#[derive(Clone, Copy, Debug)]
enum Lost {
    Undone,
    Done,
    Half,
}

struct Run {
    system: System,
    /// Stores until the next deaths, the next last.
    deaths: Vec<u64>,
    left: Option<u64>,
    lost: Lost,
    died: usize,
    /// What each guest's acknowledged writes left, by sector.
    acknowledged: [HashMap<u64, u8>; 2],
}

impl Run {
    fn new(deaths: &[u64], lost: Lost, features: u64, queues: usize) -> Self {
        let mut deaths = deaths.to_vec();
        deaths.reverse();
        let left = deaths.pop();
        Run {
            system: System::with_queues(2, 3, features, &[queues]),
            deaths,
            left,
            lost,
            died: 0,
            acknowledged: Default::default(),
        }
    }

    /// Something the PD does; it may die of it, in which case it is started again.
    fn alive<R>(&mut self, subject: impl FnOnce(&mut System) -> R) -> Option<R> {
        let system = &mut self.system;
        let result = crash::run(&mut self.left, || subject(system));
        if result.is_none() {
            self.reborn();
        }
        result
    }

    fn reborn(&mut self) {
        loop {
            self.died += 1;
            self.left = self.deaths.pop();
            let count = self.system.backend.device().running.len();
            let done = match self.lost {
                Lost::Undone => 0,
                Lost::Done => count,
                Lost::Half => count / 2,
            };
            for _ in 0..done {
                self.system.backend.device_mut().finish(0);
            }
            let system = &mut self.system;
            if crash::run(&mut self.left, || system.restart()).is_some() {
                return;
            }
        }
    }

    /// As [`System::step`], with the guests outside.
    fn step(&mut self, done: &mut Vec<Got>) {
        let interrupt = self.system.backend.device().interrupt;
        let kicks: Vec<usize> = self
            .system
            .guests
            .iter_mut()
            .filter_map(|g| core::mem::take(&mut g.kick).then_some(g.number))
            .collect();
        let more = self.alive(|system| {
            if interrupt {
                system.backend.interrupt();
            }
            for guest in &kicks {
                system.backend.kicked(*guest);
            }
            system.backend.run()
        });
        if more == Some(true) {
            self.system.backend.device_mut().nudge();
        }
        let _ = self.system.backend.take_notify();
        // The VMM injects what it finds counted in the page, told or not: after a restart it looks anyway.
        for guest in &mut self.system.guests {
            guest.look(done);
        }
    }

    fn batch(&mut self, batch: Batch) {
        let mut done = Vec::new();
        // Who has no FLUSH sends none, and its writes are durable at once (5.2.6.2).
        let through = self.system.guests[0].features & feature::FLUSH == 0;
        let sent = batch.iter().filter(|(_, kind, ..)| !through || *kind != kind::FLUSH);
        for (n, (guest, kind, sector, content, bytes)) in sent.clone().enumerate() {
            assert!(self.system.guests[*guest].send(*kind, *sector, &vec![*content; *bytes], 512));
            if n % 2 == 0 {
                self.step(&mut done);
            }
        }
        for _ in 0..200 {
            self.step(&mut done);
            let device = self.system.backend.device_mut();
            if device.running.is_empty()
                && !device.interrupt
                && self.system.guests.iter().all(|g| g.sent.is_empty())
            {
                break;
            }
            if !device.running.is_empty() {
                // The last first, so that completions are out of order.
                device.finish(device.running.len() - 1);
            }
        }
        for guest in &self.system.guests {
            assert!(guest.sent.is_empty(), "guest {} waits for {:?}", guest.number, guest.sent);
        }
        assert_eq!(done.len(), sent.count());
        for got in &done {
            let outside = got.sent.sector >= SECTORS;
            let expected = match got.sent.kind {
                50 => UNSUPP,
                kind::OUT if outside => IOERR,
                _ => OK,
            };
            assert_eq!(got.status, expected, "{:?}", got.sent);
        }
        for (guest, kind, sector, content, bytes) in batch {
            if *kind == kind::OUT && *sector < SECTORS {
                for n in 0..*bytes as u64 / 512 {
                    self.acknowledged[*guest].insert(sector + n, *content);
                }
            }
        }
        if through {
            for (guest, acknowledged) in self.acknowledged.iter().enumerate() {
                self.durable(guest, acknowledged);
            }
        }
    }

    fn durable(&self, guest: usize, before: &HashMap<u64, u8>) {
        for (sector, content) in before {
            let at = ((guest as u64 + 1) * SECTORS + sector) as usize * 512;
            let disk = &self.system.backend.device().durable[at..at + 512];
            assert!(
                disk.iter().all(|byte| byte == content),
                "guest {guest} sector {sector} is {:#x}, not {content:#x}",
                disk[0]
            );
        }
    }

    /// The whole script. Returns how often it died.
    fn go(mut self) -> usize {
        for batch in SCRIPT {
            let before = self.acknowledged.clone();
            self.batch(batch);
            // What was acknowledged before the batch and not overwritten in it is durable if the batch has a flush.
            for (guest, ..) in batch.iter().filter(|(_, kind, ..)| *kind == kind::FLUSH) {
                let kept = before[*guest]
                    .iter()
                    .filter(|(sector, _)| {
                        !batch.iter().any(|(g, kind, first, _, bytes)| {
                            g == guest
                                && *kind == kind::OUT
                                && (*first..first + *bytes as u64 / 512).contains(sector)
                        })
                    })
                    .map(|(sector, content)| (*sector, *content))
                    .collect();
                self.durable(*guest, &kept);
            }
            for (guest, sectors) in self.acknowledged.iter().enumerate() {
                for (sector, content) in sectors {
                    let at = ((guest as u64 + 1) * SECTORS + sector) as usize * 512;
                    let disk = &self.system.backend.device().bytes[at..at + 512];
                    assert!(disk.iter().all(|byte| byte == content), "guest {guest} sector {sector}");
                }
            }
        }
        assert!(
            (0..MAX_FLIGHTS).all(|id| self.system.page.get(id) == Entry::Free),
            "nothing is left in flight"
        );
        assert_eq!(self.system.backend.free.count_ones(), 3);
        self.died
    }
}

#[test]
fn a_broken_disk_stays_broken_until_its_reset() {
    let mut s = System::new(1, 16, offered());
    let told = |s: &System| s.guests[0].status.devices[0].needs_reset.load(Ordering::Acquire);
    assert!(s.guests[0].send(kind::OUT, 0, &[1; 512], 512));
    // A head outside the ring.
    let avail = s.guests[0].drivers[0].layout.avail;
    s.guests[0].ram.ram().write_obj(avail + 4, &0xffffu16).unwrap();
    s.step(&mut Vec::new());
    assert_eq!(told(&s), 1);
    s.restart();
    s.guests[0].ram.ram().write_obj(avail + 4, &0u16).unwrap();
    s.backend.kicked(0);
    s.step(&mut Vec::new());
    assert!(s.backend.device().log.is_empty(), "nothing is fetched");
    assert_eq!(told(&s), 1);
    assert_eq!(s.call(0, label::RESET, &[0]).0, Status::Ok);
    assert_eq!(told(&s), 0);
}

proptest::proptest! {
    /// Bits of the in-flight page flip while the backend is dead: whatever it then believes, it neither panics nor loops
    /// nor touches what is no guest's, and after their resets both guests' disks work again.
    #[test]
    fn flipped_bits_in_the_page(flips in proptest::collection::vec((0usize..MAX_FLIGHTS, 0u32..64), 1..40)) {
        let mut s = System::with_queues(2, 6, offered(), &[3, 1]);
        let mut done = Vec::new();
        for n in 0..2 {
            for sector in 0..3 {
                assert!(s.guests[n].send(kind::OUT, sector, &[7; 512], 512));
            }
        }
        s.step(&mut done);
        for (id, bit) in flips {
            s.page.flip(id, bit);
        }
        s.restart_loosely();
        for _ in 0..50 {
            s.backend.device_mut().finish_all();
            s.backend.interrupt();
            let _ = s.backend.run();
        }
        assert!(s.backend.device().bytes[..(SECTORS * 512) as usize].iter().all(|b| *b == 0), "before the first window");
        for n in 0..2 {
            s.start_afresh(n);
        }
        let _ = s.backend.take_notify();
        for n in 0..2 {
            assert_eq!(one(&mut s, n, kind::OUT, 0, &[9; 512]).status, OK);
            assert_eq!(one(&mut s, n, kind::IN, 0, &[0; 512]).data, [9; 512]);
        }
        assert_eq!(s.backend.free.count_ones(), 6, "no number is lost");
    }
}

/// Stores of the whole script.
fn stores(features: u64, queues: usize) -> u64 {
    let before = crash::stores();
    assert_eq!(Run::new(&[u64::MAX], Lost::Undone, features, queues).go(), 0);
    crash::stores() - before
}

#[test]
fn every_store_is_a_good_one_to_die_at() {
    let old = offered() & !(features::EVENT_IDX | features::INDIRECT_DESC);
    let through = offered() & !feature::FLUSH & !features::EVENT_IDX;
    for (features, queues) in [(offered(), 1), (old, 1), (through, 1), (offered(), 2), (through, 3)] {
        let count = stores(features, queues);
        assert!(count > 100, "{count}");
        for lost in [Lost::Undone, Lost::Done, Lost::Half] {
            for at in 0..count {
                assert_eq!(Run::new(&[at], lost, features, queues).go(), 1, "{at} {lost:?} {queues}");
            }
        }
    }
}

#[test]
fn and_every_store_of_the_recovery_too() {
    for queues in [1, 2] {
        let count = stores(offered(), queues);
        let mut deaths = 0;
        for first in (0..count).step_by(3) {
            for second in 0.. {
                let died = Run::new(&[first, second, 1], Lost::Half, offered(), queues).go();
                deaths += died;
                // Far enough behind the first for the recovery to be over: that of two disks is some 60 stores.
                if second > 70 || died < 2 {
                    break;
                }
            }
        }
        assert!(deaths > 5000, "{deaths}");
    }
}
