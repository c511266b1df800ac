//! Guest and backend on two processors: neither may fall asleep while the other counts on it (2.7.7.2, 2.7.10).

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use super::*;

const REQUESTS: u32 = 30_000;

/// A wake-up that stays until it is taken, as a notification object's does.
#[derive(Default)]
struct Notification(AtomicBool);

impl Notification {
    fn signal(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
    /// False if nobody signals for long.
    fn wait(&self) -> bool {
        let end = Instant::now() + Duration::from_secs(20);
        while !self.0.swap(false, Ordering::SeqCst) {
            if Instant::now() > end {
                return false;
            }
            thread::yield_now();
        }
        true
    }
}

fn conversation(features: u64) {
    let mut system = System::new(1, 16, features);
    let ram = system.guests[0].ram.ram();
    let mut driver =
        core::mem::replace(&mut system.guests[0].driver, DriverQueue::new(ram, BASE + 0x5000, 2, true));
    // A request that is answered at once, so that only the rings are in play.
    ram.write_obj(SLOTS, &Header { kind: 99, reserved: 0, sector: 0 }).unwrap();
    let [kick, interrupt, over] = [(); 3].map(|()| Arc::new(Notification::default()));
    let guest = {
        let (kick, interrupt, over) = (kick.clone(), interrupt.clone(), over.clone());
        thread::spawn(move || {
            let (mut sent, mut got) = (0, 0);
            while got < REQUESTS {
                // A few at a time, so that both sides often are near the end of the ring.
                let most = 1 + sent % 3;
                while sent < REQUESTS && sent - got < most {
                    driver.add(&[Buffer::out(SLOTS, 16), Buffer::into(SLOTS + 16, 1)]).unwrap();
                    sent += 1;
                    if driver.needs_kick() {
                        kick.signal();
                    }
                }
                loop {
                    while driver.take_used().is_some() {
                        got += 1;
                    }
                    if got == sent {
                        break;
                    }
                    driver.want_interrupt(true);
                    if driver.take_used().is_some() {
                        got += 1;
                    } else if !interrupt.wait() {
                        break;
                    }
                }
                if got != sent {
                    break;
                }
            }
            over.signal();
            kick.signal();
            got
        })
    };
    while kick.wait() && !over.0.load(Ordering::SeqCst) {
        system.backend.kicked(0);
        while system.backend.run() {}
        if system.backend.take_notify() != 0 {
            interrupt.signal();
        }
    }
    assert_eq!(guest.join().unwrap(), REQUESTS, "left asleep");
}

#[test]
fn with_event_index() {
    conversation(offered());
}

#[test]
fn with_flags() {
    conversation(offered() & !features::EVENT_IDX);
}
