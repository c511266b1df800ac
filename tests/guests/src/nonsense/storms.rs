//! Much of what is allowed, and silence where an answer is due. The machine must stay this guest's own affair.

use partita_protocol::layout::guest;

use super::device::{DEVICES, State};
use super::{Cases, Expect, Random, Subject};
use crate::blk::{self, BASE, Disk, FLUSH, IN, OUT, SIZE, reg};
use crate::machine::{self, now, pause, read, set_timer, smc, wait, write};

/// The catalogue's entry.
pub const SUBJECT: Subject = Subject {
    name: "storms",
    expect: Expect::Lives,
    cases: Cases::Named(&[
        ("5000 kicks with nothing to do", || kicks(State::Live)),
        ("5000 kicks before DRIVER_OK", || kicks(State::Ready)),
        ("5000 kicks after a reset", || kicks(State::Reset)),
        ("5000 kicks of a broken device", || kicks(State::Broken)),
        ("300 resets", || {
            (0..300).all(|_| DEVICES.iter().all(|device| device.enter(State::Live) && device.reset()))
        }),
        ("100 resets with requests in flight", resets_in_flight),
        ("reset with requests in flight, then other use of the memory", silence),
        ("500 starts that break at once", || {
            (0..500).all(|_| DEVICES.iter().all(|device| device.enter(State::Broken)))
        }),
        ("5000 feature selections", || {
            for i in 0..5000 {
                write(BASE + reg::DEVICE_FEATURES_SEL, i);
                write(BASE + reg::DRIVER_FEATURES_SEL, i);
            }
            DEVICES[0].is_itself()
        }),
        ("a thousand flushes", flushes),
        ("60 requests whose interrupts nobody acknowledges", unacknowledged),
        ("requests with the interrupt masked", masked),
        ("acknowledgements of interrupts that there are none", || {
            let live = DEVICES.iter().all(|device| device.enter(State::Live));
            for _ in 0..1000 {
                for device in &DEVICES {
                    device.write(reg::INTERRUPT_ACK, u32::MAX);
                }
            }
            live && DEVICES.iter().all(super::device::Device::is_itself)
        }),
        ("an index that runs ahead again and again", || {
            for _ in 0..50 {
                let Some(mut disk) = Disk::start() else { return false };
                for _ in 0..20 {
                    disk.set_avail(SIZE as u16 + 1);
                    disk.kick();
                }
            }
            true
        }),
        ("3000 rubbish stores to the disk's registers", || rubbish(BASE, 0x200, 8)),
        ("3000 rubbish stores to the console's registers", || rubbish(BASE + 0x1000, 0x200, 8)),
        ("3000 rubbish stores to the sockets' registers", || rubbish(BASE + 0x2000, 0x200, 8)),
        ("2000 rubbish stores to the PL011", uart),
        ("2000 reads of the PL011", || {
            for offset in 0..2000u64 {
                let _ = read(guest::UART + offset * 4 % 0x1000);
            }
            read(guest::UART + 0xfe0) == 0x11
        }),
        ("2000 calls for the PSCI version", || (0..2000).all(|_| smc([0x8400_0000, 0, 0, 0]) == 0x1_0001)),
        ("2000 hypercalls", || {
            // Some have an answer: where links are.
            let answered = (0..2000).filter(|n| machine::hvc(*n) != u64::MAX).count();
            answered < 20
        }),
        ("1000 WFIs with a timer that is due", || {
            for _ in 0..1000 {
                set_timer(Some(0));
                wait();
            }
            true
        }),
        ("a timer in the far past and one in the far future", || {
            for ticks in [u64::MAX, 0, 1, u64::MAX / 2] {
                set_timer(Some(ticks.wrapping_sub(now())));
                pause(1);
            }
            set_timer(Some(0));
            wait();
            true
        }),
        ("1000 timers of a microsecond", || {
            for _ in 0..1000 {
                set_timer(Some(machine::frequency() / 1_000_000));
                pause(0);
            }
            true
        }),
        ("a second of nothing but work", || {
            pause(1000);
            true
        }),
    ]),
};

fn kicks(state: State) -> bool {
    let mut ok = true;
    for device in &DEVICES {
        ok &= device.enter(state);
        for _ in 0..2500 {
            device.write(reg::QUEUE_NOTIFY, device.kicked);
        }
        ok &= device.is_itself();
    }
    ok
}

fn resets_in_flight() -> bool {
    (0..100).all(|_| {
        let Some(mut disk) = Disk::start() else { return false };
        for slot in 0..5 {
            Disk::prepare(slot, IN, 8 * slot as u64, 4096);
            disk.offer(3 * slot as u16);
        }
        disk.kick();
        blk::reset()
    })
}

/// After a reset nothing of the old requests may reach memory any more.
fn silence() -> bool {
    (0..20).all(|round| {
        let Some(mut disk) = Disk::start() else { return false };
        for slot in 0..5 {
            Disk::prepare(slot, IN, 8 * slot as u64, 4096);
            disk.offer(3 * slot as u16);
        }
        disk.kick();
        let reset = blk::reset();
        let pattern = [0xa5 ^ round as u8; 4096];
        for slot in 0..5 {
            blk::store(slot, pattern);
        }
        pause(5);
        reset && (0..5).all(|slot| blk::load(slot) == pattern)
    })
}

fn flushes() -> bool {
    let Some(mut disk) = Disk::start() else { return false };
    (0..200).all(|_| {
        for slot in 0..5 {
            Disk::prepare(slot, FLUSH, 0, 0);
            disk.offer(3 * slot as u16);
        }
        disk.kick();
        disk.wait(5)
    })
}

fn unacknowledged() -> bool {
    let Some(mut disk) = Disk::start() else { return false };
    for round in 0..12 {
        for slot in 0..5 {
            Disk::prepare(slot, if round % 2 == 0 { OUT } else { IN }, 64 + 8 * slot as u64, 4096);
            disk.offer(3 * slot as u16);
        }
        disk.kick();
        if !disk.spin(5) {
            return false;
        }
    }
    read(BASE + reg::INTERRUPT_STATUS) == 1
}

fn masked() -> bool {
    write(guest::GICC + 4, 0);
    write(guest::GICD + 0x180 + 4, u32::MAX);
    let ok = unacknowledged();
    write(guest::GICD, 0);
    ok && unacknowledged()
}

fn rubbish(base: u64, length: u64, most: u64) -> bool {
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ base);
    for _ in 0..3000 {
        let width = (1 << (random.draw() % 4)).min(most);
        let offset = random.draw() % length / width * width;
        machine::write_width(base + offset, width as u8, random.draw());
    }
    true
}

/// All but CR and DR, so that this goes on to be printed.
fn uart() -> bool {
    let mut random = Random(0x1234_5678_9abc_def1);
    for _ in 0..2000 {
        let width = 1 << (random.draw() % 3);
        let offset = 0x34 + random.draw() % 0xf00;
        machine::write_width(guest::UART + offset / width * width, width as u8, random.draw());
    }
    write(guest::UART + 0x38, 0);
    read(guest::UART + 0xfe0) == 0x11
}
