//! The timer answers for its own silence.
//!
//! Each pulse (see `pds/pulse`) that finds a deadline passed and nothing heard from the timer since the last one counts; as many
//! as [`PATIENCE`] in a row and it is taken for hung. Time alone would not do: the whole machine may have stood still (a device
//! register that takes its host seconds to write, a debugger), and then all deadlines have passed at once, by nobody's fault.
//! Between two pulses the timer, which runs below `pulse` and above all else, could have run.

/// Silent pulses in a row. One is of no account, since a deadline may have passed this very moment.
const PATIENCE: u32 = 3;

/// Silent pulses so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silence(u32);

impl Silence {
    /// The timer was heard, or is started again.
    pub const fn heard(&mut self) {
        self.0 = 0;
    }

    /// A pulse; `late`: a deadline has passed. True: the timer is hung, and what follows counts from now.
    pub const fn pulse(&mut self, late: bool) -> bool {
        self.0 = if late { self.0 + 1 } else { 0 };
        let hung = self.0 >= PATIENCE;
        if hung {
            self.heard();
        }
        hung
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_silent_for_three_pulses_is_hung() {
        let mut silence = Silence::default();
        let said: Vec<_> = (0..7).map(|_| silence.pulse(true)).collect();
        assert_eq!(said, [false, false, true, false, false, true, false]);
    }

    #[test]
    fn a_machine_that_stood_still_is_not_the_timers_fault() {
        let mut silence = Silence::default();
        for _ in 0..100 {
            // However late, it is heard between two pulses.
            assert!(!silence.pulse(true) && !silence.pulse(true));
            silence.heard();
        }
        assert!((0..100).all(|n| !silence.pulse(n % 3 != 0)), "nothing to wait for is no silence");
    }
}
