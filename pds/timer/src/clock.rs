//! The counter and its comparator.

use partita_protocol::timer::NEVER;

/// A counter that never stops and one comparator that interrupts while `count >= compare`.
pub trait Clock {
    /// The count now.
    fn now(&mut self) -> u64;
    /// Interrupt at this count, or not at all.
    fn set(&mut self, compare: Option<u64>);
}

/// Longest time for which the comparator is set, in ticks (over 30 years at 62.5 MHz, 2 minutes at 1 THz): far from any
/// question of how a comparator treats the top bit. A deadline beyond it is waited for in several steps.
const FURTHEST: u64 = 1 << 56;

/// Sets the comparator only when that changes something: an access may trap to a hypervisor below. The first time always
/// does, as nobody knows what an earlier life of this PD had set.
#[derive(Default)]
pub struct Alarm {
    set: Option<Option<u64>>,
}

impl Alarm {
    /// Not known.
    pub const fn new() -> Self {
        Alarm { set: None }
    }

    /// Arms `clock` for the earliest deadline ([`NEVER`]: for none).
    pub fn arm(&mut self, clock: &mut impl Clock, now: u64, earliest: u64) {
        let compare = (earliest != NEVER).then(|| earliest.min(now.saturating_add(FURTHEST)));
        if self.set != Some(compare) {
            self.set = Some(compare);
            clock.set(compare);
        }
    }
}
