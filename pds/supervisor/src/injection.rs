//! Killing a PD for a test, at whatever instruction the timer's interrupt finds it in.
//!
//! The supervisor has the highest priority, so when it is woken by the timer the victim stands where the interrupt caught
//! it: in the middle of its work or, most of the time, in its receive. A victim at rest (or a disk driver without a request
//! in flight) is looked at again a little later, so that most deaths are at work. What is done to it (its program counter is set to an address that nobody maps) makes it
//! fault as a wild jump would, and everything from there on is the way that a real fault goes.

use partita_protocol::timer::NEVER;

/// Looks at a victim that is at rest before it is killed there.
const LOOKS: u32 = 100;
/// The first message registers and the input capability of a receive: see [`Injection::is_at_rest`].
const INPUT: u64 = 1;

/// What a look ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Nothing now.
    Wait,
    /// Kill it.
    Kill,
}

/// Counts of a series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Kills.
    pub kills: u32,
    /// Of them, not at rest.
    pub at_work: u32,
    /// Of them, with requests in flight.
    pub in_flight: u32,
}

/// A series of kills.
#[derive(Clone, Copy, Debug)]
pub struct Injection {
    /// The victim's child id.
    pub victim: usize,
    /// The deaths are to count as its own faults.
    pub own: bool,
    left: u32,
    every: u64,
    next: u64,
    looks: u32,
    /// Ticks of a microsecond, at least 1.
    microsecond: u64,
    random: u64,
    counts: Counts,
}

impl Injection {
    /// `count` kills, `every` ticks one on average (half to one and a half of it); `second` is in ticks too.
    pub fn new(victim: usize, count: u32, every: u64, own: bool, second: u64, now: u64) -> Self {
        let microsecond = (second / 1_000_000).max(1);
        Injection {
            victim,
            own,
            left: count,
            every,
            next: now,
            looks: 0,
            microsecond,
            random: now | 1,
            counts: Counts::default(),
        }
    }

    /// When to look; [`NEVER`] if it is over.
    pub fn deadline(&self) -> u64 {
        if self.left == 0 { NEVER } else { self.next }
    }

    /// All are done.
    pub const fn is_over(&self) -> bool {
        self.left == 0
    }

    /// What was done.
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether these registers are of a PD that receives: the number of a system call in x7 (seL4's are -1 to -11), the
    /// input capability in x0. They may be left over from the last receive for some instructions after it; then the PD
    /// looks at rest for a moment longer than it is.
    pub const fn is_at_rest(x0: u64, x7: u64) -> bool {
        x0 == INPUT && matches!(x7 as i64, -11..=-1)
    }

    /// xorshift64.
    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below.max(1)
    }

    /// The deadline has passed. `at_rest` is `None` if the victim does not run now, `in_flight` if it has no requests by
    /// nature.
    pub fn look(&mut self, at_rest: Option<bool>, in_flight: Option<u64>, now: u64) -> Act {
        if self.left == 0 || now < self.next {
            return Act::Wait;
        }
        let (microsecond, every) = (self.microsecond, self.every);
        match at_rest {
            None => {
                self.next = now.saturating_add(1000 * microsecond);
                return Act::Wait;
            }
            Some(at_rest) if self.looks < LOOKS && (at_rest || in_flight == Some(0)) => {
                self.looks += 1;
                self.next = now.saturating_add(microsecond * (20 + self.random(200)));
                return Act::Wait;
            }
            Some(_) => {}
        }
        self.looks = 0;
        self.left -= 1;
        self.counts.kills += 1;
        self.counts.at_work += u32::from(at_rest == Some(false));
        self.counts.in_flight += u32::from(in_flight.is_some_and(|count| count != 0));
        self.next = now.saturating_add(every / 2).saturating_add(self.random(every));
        Act::Kill
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_victim_at_rest_is_given_time_and_then_killed_there() {
        let mut series = Injection::new(4, 3, 1000, false, 1_000_000, 10);
        assert_eq!(series.deadline(), 10);
        assert_eq!(series.look(Some(false), Some(2), 9), Act::Wait, "too early");
        assert_eq!(series.look(Some(false), Some(2), 10), Act::Kill);
        assert!((510..1510).contains(&series.deadline()));
        let mut looks = 0;
        loop {
            let now = series.deadline();
            looks += 1;
            if series.look(Some(looks % 2 == 0), Some(0), now) == Act::Kill {
                break;
            }
            assert!((20..220).contains(&(series.deadline() - now)));
        }
        assert_eq!(looks, LOOKS + 1);
        assert_eq!(series.look(None, None, series.deadline()), Act::Wait, "it is being restarted");
        assert_eq!(series.look(Some(false), None, series.deadline()), Act::Kill);
        assert_eq!((series.is_over(), series.deadline()), (true, NEVER));
        assert_eq!(series.look(Some(false), None, NEVER), Act::Wait);
        assert_eq!(series.counts(), Counts { kills: 3, at_work: 3, in_flight: 1 });
    }

    #[test]
    fn a_receive_is_known_by_its_registers() {
        assert!(Injection::is_at_rest(1, -7i64 as u64) && Injection::is_at_rest(1, -3i64 as u64));
        for (x0, x7) in [(2, -7i64 as u64), (1, 0), (1, 7), (1, -12i64 as u64)] {
            assert!(!Injection::is_at_rest(x0, x7));
        }
    }
}
