//! How long a guest had something to run.
//!
//! A protection domain has no capability to a vCPU's scheduling context, so nobody here can ask seL4 what a guest consumed.
//! What a VMM can tell is how long at least one of its vCPUs could run: from the moment it waits for the next event until that
//! event comes. With a processor to itself that is the guest's processor time; beside guests that are busy as well it contains
//! their turns.

/// See the module. Counts of the architected counter.
#[derive(Debug, Default)]
pub struct Busy {
    since: Option<u64>,
    total: u64,
}

impl Busy {
    /// The VMM waits now; `runs`: for a guest that can run.
    pub fn leave(&mut self, now: u64, runs: bool) {
        self.since = runs.then_some(now);
    }

    /// An event has come.
    pub fn enter(&mut self, now: u64) {
        if let Some(since) = self.since.take() {
            self.total = self.total.wrapping_add(now.saturating_sub(since));
        }
    }

    /// All of it in milliseconds, by the counter's `frequency`.
    pub fn milliseconds(&self, frequency: u64) -> u64 {
        self.total / (frequency / 1000).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_in_which_somebody_could_run_counts() {
        let mut busy = Busy::default();
        busy.enter(5);
        busy.leave(10, true);
        busy.enter(3010);
        busy.leave(4000, false);
        busy.enter(90_000);
        busy.leave(100_000, true);
        busy.enter(99_000); // a counter that went back
        assert_eq!(busy.milliseconds(1000 * 1000), 3);
        assert_eq!(busy.milliseconds(0), 3000);
    }
}
