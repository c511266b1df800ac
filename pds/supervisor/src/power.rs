//! Switching the machine off without losing the last words.
//!
//! Console is asked to drain and the machine goes off when it has, or when it has not within [`PATIENCE`] (it may be dead).

/// Seconds that console has for its output.
pub const PATIENCE: u64 = 3;

/// Where the switching off stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Power {
    /// Not wanted.
    #[default]
    On,
    /// Console drains until the deadline.
    Draining {
        /// Count of the clock.
        deadline: u64,
    },
    /// Nothing to wait for.
    Off,
}

impl Power {
    /// Begins, once. The result is the deadline to set, if this call began it.
    pub fn begin(&mut self, now: u64, ticks: u64, console_lives: bool) -> Option<u64> {
        if *self != Power::On {
            return None;
        }
        let deadline = now.saturating_add(ticks.saturating_mul(PATIENCE));
        *self = if console_lives { Power::Draining { deadline } } else { Power::Off };
        console_lives.then_some(deadline)
    }

    /// Console has drained, or died.
    pub fn drained(&mut self) {
        if matches!(self, Power::Draining { .. }) {
            *self = Power::Off;
        }
    }

    /// The time is `now`.
    pub fn tick(&mut self, now: u64) {
        if matches!(self, Power::Draining { deadline } if *deadline <= now) {
            *self = Power::Off;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_for_console_but_not_forever() {
        let mut power = Power::On;
        power.drained();
        power.tick(u64::MAX);
        assert_eq!(power, Power::On, "nobody asked for it");
        assert_eq!(power.begin(1000, 10, true), Some(1030));
        assert_eq!(power.begin(1001, 10, true), None);
        power.tick(1029);
        assert_eq!(power, Power::Draining { deadline: 1030 });
        let mut late = power;
        late.tick(1030);
        power.drained();
        assert_eq!([power, late], [Power::Off; 2]);
        let mut alone = Power::On;
        assert_eq!((alone.begin(u64::MAX, u64::MAX, false), alone), (None, Power::Off));
    }
}
