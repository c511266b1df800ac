//! Rate limits of disks: requests and bytes per second.
//!
//! The generic cell rate algorithm (ITU-T I.371, annex A), which is a token bucket that keeps one time instead of tokens: each
//! request moves the moment at which the next one may begin by what it costs. A disk that was idle may begin [`BURST`] worth
//! of its rate at once. So in any time T a disk gets at most its rate times T plus the burst, and one request, as a request
//! is never cut.
//!
//! A disk whose time has not come is *held*: it is not ready, its guest's kicks stay off, and the PD sets a timer for
//! [`Limits::wake_at`]. Nothing here costs a backend without limits more than a branch, and no clock is read for it.

use partita_protocol::{MAX_CELLS, MAX_DISKS};

/// A disk may begin at once what its rate allows in one part of so many of a second.
pub const BURST: u64 = 20;

/// Limits of a disk; 0: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Requests per second.
    pub iops: u32,
    /// Bytes per second.
    pub bytes_per_second: u64,
}

/// One of the two limits.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    /// Units per second; 0: no limit.
    rate: u64,
    /// When the next request may begin.
    next: u64,
}

impl Cell {
    fn charge(&mut self, units: u64, now: u64, frequency: u64) {
        if self.rate == 0 {
            return;
        }
        // Rounded up, so that no rounding lets more pass. Units and frequency are far below 64 bits each.
        let cost = (u128::from(units) * u128::from(frequency)).div_ceil(u128::from(self.rate));
        let cost = u64::try_from(cost).unwrap_or(u64::MAX);
        // Credit for idle time is bounded by the burst.
        let from = self.next.max(now.saturating_sub(frequency / BURST));
        self.next = from.saturating_add(cost);
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Limit {
    requests: Cell,
    bytes: Cell,
}

impl Limit {
    fn next(&self) -> u64 {
        self.requests.next.max(self.bytes.next)
    }
}

/// The limits of all disks of a backend.
pub(crate) struct Limits {
    clock: fn() -> u64,
    frequency: u64,
    /// Some disk has a limit.
    any: bool,
    disks: [[Option<Limit>; MAX_DISKS]; MAX_CELLS],
    /// Bit `disk` of each client: it waits for its time.
    held: [u8; MAX_CELLS],
}

impl Limits {
    pub const fn none() -> Self {
        Limits {
            clock: || 0,
            frequency: 1,
            any: false,
            disks: [[None; MAX_DISKS]; MAX_CELLS],
            held: [0; MAX_CELLS],
        }
    }

    /// Goes by this clock.
    pub fn set_clock(&mut self, clock: fn() -> u64, frequency: u64) {
        (self.clock, self.frequency) = (clock, frequency.max(1));
    }

    pub fn set(&mut self, client: usize, disk: usize, rate: Rate) {
        let Some(place) = self.disks.get_mut(client).and_then(|disks| disks.get_mut(disk)) else { return };
        *place = (rate != Rate::default()).then(|| Limit {
            requests: Cell { rate: rate.iops.into(), next: 0 },
            bytes: Cell { rate: rate.bytes_per_second, next: 0 },
        });
        self.any = self.disks.iter().flatten().any(Option::is_some);
    }

    /// Whether some disk has a limit.
    #[inline]
    pub const fn any(&self) -> bool {
        self.any
    }

    /// Whether the disk may begin nothing now; it is held then.
    #[inline]
    pub fn holds(&mut self, client: usize, disk: usize) -> bool {
        self.any && self.hold(client, disk)
    }

    #[cold]
    fn hold(&mut self, client: usize, disk: usize) -> bool {
        let Some(Some(limit)) = self.disks.get(client).and_then(|disks| disks.get(disk)) else {
            return false;
        };
        let late = limit.next() > (self.clock)();
        if let Some(held) = self.held.get_mut(client).filter(|_| late) {
            *held |= 1 << disk;
        }
        late
    }

    /// The disk began a request of so many bytes.
    #[inline]
    pub fn charge(&mut self, client: usize, disk: usize, bytes: u64) {
        if self.any {
            self.pay(client, disk, bytes);
        }
    }

    #[cold]
    fn pay(&mut self, client: usize, disk: usize, bytes: u64) {
        let (now, frequency) = ((self.clock)(), self.frequency);
        if let Some(Some(limit)) = self.disks.get_mut(client).and_then(|disks| disks.get_mut(disk)) {
            limit.requests.charge(1, now, frequency);
            limit.bytes.charge(bytes, now, frequency);
        }
    }

    /// When the first of the held disks may go on.
    pub fn wake_at(&self) -> Option<u64> {
        if !self.any {
            return None;
        }
        let disks = self.disks.iter().zip(self.held).filter(|(_, held)| *held != 0);
        let times = disks.flat_map(|(disks, held)| {
            let held = disks.iter().enumerate().filter(move |(disk, _)| held & 1 << disk != 0);
            held.filter_map(|(_, limit)| limit.map(|limit| limit.next()))
        });
        times.min()
    }

    /// The next held disk whose time has come; it is held no more.
    pub fn release(&mut self) -> Option<(usize, usize)> {
        if !self.any {
            return None;
        }
        let now = (self.clock)();
        for (client, (disks, held)) in self.disks.iter().zip(&mut self.held).enumerate() {
            let due = |disk: &usize| {
                *held & 1 << disk != 0
                    && disks.get(*disk).is_some_and(|limit| limit.is_none_or(|limit| limit.next() <= now))
            };
            if let Some(disk) = (0..MAX_DISKS).find(due) {
                *held &= !(1 << disk);
                return Some((client, disk));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell as Shared;
    use proptest::prelude::*;

    std::thread_local! {
        static NOW: Shared<u64> = const { Shared::new(0) };
    }

    fn limits(rate: Rate) -> Limits {
        let mut limits = Limits::none();
        limits.set_clock(|| NOW.get(), 1_000_000);
        limits.set(2, 1, rate);
        limits
    }

    #[test]
    fn without_a_limit_nothing_is_held_and_no_clock_is_read() {
        let mut limits = Limits::none();
        limits.set_clock(|| panic!("the clock was read"), 1);
        limits.set(0, 0, Rate::default());
        limits.charge(0, 0, u64::MAX);
        assert!(!limits.holds(0, 0));
        assert_eq!((limits.wake_at(), limits.release()), (None, None));
    }

    #[test]
    fn a_held_disk_is_released_when_its_time_has_come() {
        NOW.set(5_000_000);
        let mut limits = limits(Rate { iops: 1000, bytes_per_second: 0 });
        // A burst of 50 ms, then one a millisecond.
        let mut begun = 0;
        while !limits.holds(2, 1) {
            limits.charge(2, 1, 1 << 30);
            begun += 1;
        }
        assert_eq!(begun, 51);
        // Others do not wait.
        assert!(!limits.holds(2, 0) && !limits.holds(8, 3) && !limits.holds(99, 99));
        assert_eq!((limits.wake_at(), limits.release()), (Some(5_001_000), None));
        NOW.set(5_001_000);
        assert_eq!((limits.release(), limits.release(), limits.wake_at()), (Some((2, 1)), None, None));
        assert!(!limits.holds(2, 1));
    }

    proptest! {
        /// Whatever is asked for and when: in the whole time no more than the rate, the burst and one request; and one
        /// who always asks gets the rate.
        #[test]
        fn the_rate_is_kept(
            iops in prop_oneof![Just(0u32), 1u32..100_000],
            bytes_per_second in prop_oneof![Just(0u64), 1024u64..1 << 40],
            requests in prop::collection::vec((0u64..4_000_000, prop_oneof![9 => Just(0u64), 1 => 0u64..3_000_000]), 1..300),
        ) {
            const START: u64 = 10_000_000;
            NOW.set(START);
            let mut limits = limits(Rate { iops, bytes_per_second });
            let (mut count, mut bytes, mut idle) = (0u64, 0u64, 0u64);
            for (size, pause) in requests {
                NOW.set(NOW.get() + pause);
                idle += pause;
                if limits.holds(2, 1) {
                    let wake = limits.wake_at().unwrap();
                    prop_assert!(wake > NOW.get());
                    NOW.set(wake);
                    prop_assert_eq!(limits.release(), Some((2, 1)));
                    prop_assert!(!limits.holds(2, 1));
                }
                let time = u128::from(NOW.get() - START) + u128::from(1_000_000 / BURST);
                // Before this request begins, what began earlier was within the rate.
                if iops != 0 {
                    prop_assert!(u128::from(count) * 1_000_000 <= u128::from(iops) * time + 1_000_000);
                }
                if bytes_per_second != 0 {
                    prop_assert!(u128::from(bytes) * 1_000_000 <= u128::from(bytes_per_second) * time + 1_000_000);
                }
                limits.charge(2, 1, size);
                (count, bytes) = (count + 1, bytes + size);
            }
            // Time that was neither idle nor needed was not waited.
            let waited = u128::from(NOW.get() - START - idle);
            let needed = |units: u64, rate: u64| match rate {
                0 => 0,
                rate => u128::from(units) * 1_000_000 / u128::from(rate) + u128::from(count),
            };
            prop_assert!(waited <= needed(count, iops.into()) + needed(bytes, bytes_per_second));
        }
    }
}
