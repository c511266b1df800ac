//! What the plugin counted, put into the order of the script.

use std::ops::Sub;

use super::job::{IDLE_SECONDS, JOBS, ROUNDS};
use crate::{fail, failure::Result};

/// The plugin's counters, at a mark or between two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Instructions of seL4.
    pub kernel: u64,
    /// Instructions of PDs.
    pub pd: u64,
    /// Instructions of the guest.
    pub guest: u64,
    /// Times the guest was left.
    pub exits: u64,
    /// Times a PD was entered.
    pub pd_entries: u64,
}

impl Counters {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace().map(str::parse);
        let mut next = || words.next()?.ok();
        let (kernel, pd, guest_kernel, guest_user): (u64, u64, u64, u64) =
            (next()?, next()?, next()?, next()?);
        Some(Self { kernel, pd, guest: guest_kernel + guest_user, exits: next()?, pd_entries: next()? })
    }

    /// All instructions.
    pub const fn all(&self) -> u64 {
        self.kernel + self.pd + self.guest
    }
}

impl Sub for Counters {
    type Output = Self;
    fn sub(self, earlier: Self) -> Self {
        let sub = |a: u64, b: u64| a.saturating_sub(b);
        Self {
            kernel: sub(self.kernel, earlier.kernel),
            pd: sub(self.pd, earlier.pd),
            guest: sub(self.guest, earlier.guest),
            exits: sub(self.exits, earlier.exits),
            pd_entries: sub(self.pd_entries, earlier.pd_entries),
        }
    }
}

/// What one request costs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Virtual nanoseconds by the guest's clock, the wait for the device included.
    pub time: f64,
    /// Instructions of seL4.
    pub kernel: f64,
    /// Instructions of PDs.
    pub pd: f64,
    /// Instructions, all of them.
    pub all: f64,
    /// Times the guest was left.
    pub exits: f64,
    /// Times a PD was entered.
    pub pd_entries: f64,
}

/// All that a machine counted.
#[derive(Clone, Debug, PartialEq)]
pub struct Marks {
    /// Instructions from the machine's start to the start of the script.
    pub boot: u64,
    /// Cost of one request of each job.
    pub costs: Vec<Cost>,
    /// Times the guest was left in a second of doing nothing.
    pub idle_exits: f64,
}

impl Marks {
    /// Reads the plugin's file; `times` are the script's, microseconds for each run.
    ///
    /// # Errors
    /// There are not as many marks or times as the script makes.
    pub fn parse(text: &str, times: &[u64]) -> Result<Self> {
        let marks: Vec<Counters> =
            text.lines().filter(|line| !line.starts_with('#')).filter_map(Counters::parse).collect();
        // Start; begin and end of two runs per job and round; begin and end of idling; end of the machine.
        let expected = 1 + ROUNDS * JOBS.len() * 4 + 2 + 1;
        if marks.len() != expected {
            fail!("the guest made {} marks instead of {expected}", marks.len());
        }
        if times.len() != ROUNDS * JOBS.len() * 2 {
            fail!("the guest measured {} times instead of {}", times.len(), ROUNDS * JOBS.len() * 2);
        }
        let Some((start, rest)) = marks.split_first() else { fail!("no marks") };
        let (runs, idle) = rest.split_at(ROUNDS * JOBS.len() * 4);
        let mut costs = Vec::new();
        for (n, job) in JOBS.iter().enumerate() {
            let rounds: Vec<Counters> = (0..ROUNDS)
                .map(|round| {
                    let at = 4 * (round * JOBS.len() + n);
                    (runs[at + 3] - runs[at + 2]) - (runs[at + 1] - runs[at])
                })
                .collect();
            let per_request = |what: fn(&Counters) -> u64| {
                median(rounds.iter().map(what).collect()) as f64 / job.requests as f64
            };
            let least = |which: usize| {
                (0..ROUNDS).map(|round| times[2 * (round * JOBS.len() + n) + which]).min().unwrap_or(0)
            };
            costs.push(Cost {
                time: least(1).saturating_sub(least(0)) as f64 * 1000.0 / job.requests as f64,
                kernel: per_request(|c| c.kernel),
                pd: per_request(|c| c.pd),
                all: per_request(Counters::all),
                exits: per_request(|c| c.exits),
                pd_entries: per_request(|c| c.pd_entries),
            });
        }
        let idle_exits = (idle[1] - idle[0]).exits as f64 / IDLE_SECONDS as f64;
        Ok(Self { boot: start.all(), costs, idle_exits })
    }
}

/// The middle one; 0 of none.
fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine on which a run costs `fixed` guest instructions and each request 100 of the guest, 10 of seL4, 1 of PDs.
    fn file(fixed: impl Fn(usize) -> u64) -> String {
        let mut now = [50_u64, 0, 1000, 0, 0, 0];
        let line = |now: &[u64]| now.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ") + "\n";
        let mut text = String::from("# names\n") + &line(&now);
        for round in 0..ROUNDS {
            for job in JOBS {
                for requests in [job.requests, 2 * job.requests] {
                    text += &line(&now);
                    for (value, more) in now.iter_mut().zip([10, 1, 60, 40, 3, 2]) {
                        *value += more * requests;
                    }
                    now[2] += fixed(round);
                    text += &line(&now);
                }
            }
        }
        text += &line(&now);
        now[4] += 2500;
        text + &line(&now) + &line(&now)
    }

    /// A run takes 300 us and 5 us a request.
    fn times() -> Vec<u64> {
        let run = |job: &super::super::job::Job| [300 + 5 * job.requests, 300 + 10 * job.requests];
        (0..ROUNDS).flat_map(|_| JOBS.iter().flat_map(run)).collect()
    }

    #[test]
    fn the_start_of_a_run_drops_out() {
        let marks = Marks::parse(&file(|_| 1_000_000), &times()).unwrap();
        assert_eq!(marks.boot, 1050);
        assert_eq!(marks.idle_exits, 250.0);
        assert_eq!(marks.costs.len(), JOBS.len());
        for cost in marks.costs {
            assert_eq!(
                cost,
                Cost { time: 5000.0, kernel: 10.0, pd: 1.0, all: 111.0, exits: 3.0, pd_entries: 2.0 }
            );
        }
    }

    #[test]
    fn a_file_that_is_too_short_is_refused() {
        let text = file(|_| 0);
        let short: Vec<&str> = text.lines().collect();
        assert!(Marks::parse(&short[..short.len() - 1].join("\n"), &times()).is_err());
        assert!(Marks::parse("", &times()).is_err());
        assert!(Marks::parse(&text, &times()[1..]).is_err());
    }
}
