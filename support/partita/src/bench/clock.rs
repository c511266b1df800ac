//! What a request takes by the guest's clock, the wait for the device included.
//!
//! With `-icount shift=0` an instruction is a nanosecond, and while the processor sleeps the guest's clock follows the
//! host's. So a time is what was executed, and of the device's real time what nothing was executed in. This is what the
//! peers' ratios are made of, and so it is measured as theirs were:
//!
//! - **without the counting plugin**, under which an instruction takes the host several times as long, so that the device
//!   would seem to be several times as fast;
//! - by **fio's own clock** from its first request to its last answer. The time of fio as a program is no measure: it looks
//!   every 10 virtual ms whether its jobs have ended, which for 1,000 requests is 10,000 ns each;
//! - the **median** of several rounds, beside the least and the greatest: a busy host makes the device late, but it also
//!   stops the virtual processor while the device works, so that no end of the range is the true one.
//!
//! `sleep=off`, with which the clock jumps to the next timer instead of waiting, is no way out: the device's answer then
//! comes after as many jumps as fit into its real time.

use serde_json::{Value, json};

use super::job::{self, Job};
use crate::{fail, failure::Result};

/// Share of a processor that others may have had while times were measured. With more of it they are shown, not judged.
pub const QUIET: f64 = 0.25;

/// Virtual nanoseconds a request, sorted, one for each round.
#[derive(Clone, Debug, PartialEq)]
pub struct Timing(Vec<f64>);

impl Timing {
    /// Of some rounds; none if there are none, or one that took no time.
    pub fn new(mut rounds: Vec<f64>) -> Option<Self> {
        rounds.sort_by(f64::total_cmp);
        (*rounds.first()? > 0.0).then_some(Self(rounds))
    }

    pub fn median(&self) -> f64 {
        self.0.get(self.0.len() / 2).copied().unwrap_or(0.0)
    }

    /// Least and greatest.
    pub fn range(&self) -> [f64; 2] {
        [self.0.first(), self.0.last()].map(|end| end.copied().unwrap_or(0.0))
    }

    pub fn json(&self) -> Value {
        json!(self.range().map(f64::round))
    }
}

/// Rounds of times for so many rounds of counts: they are noisier, and take less.
pub const fn rounds(counted: u32) -> u32 {
    2 * counted - 1
}

/// The script: each job in each round, and a line `@fio`, KiB read, ms, KiB written, ms.
pub fn script(jobs: &[&Job], rounds: u32) -> String {
    let mut text = String::from(job::PREPARE);
    text += r#"measure() { # REQUESTS FIO-OPTIONS...
    local requests=$1 bs number
    shift
    bs="$*" bs=${bs##*--bs=} bs=${bs%% *} number=${bs%[km]}
    # More than the disk's size: round again.
    echo "@fio $("${fio[@]}" "$@" --io_size=$((requests * number))${bs#"$number"} | cut -d';' -f6,9,47,50 | tr ';' ' ') ms"
}
"#;
    text + &job::lines(jobs, rounds, |job| job.timed)
}

/// What fio said, in the order of [`script`].
///
/// # Errors
/// A line is missing or makes no sense.
pub fn parse(said: &[String], jobs: &[&Job], rounds: u32) -> Result<Vec<Timing>> {
    if said.len() != jobs.len() * rounds as usize {
        fail!("fio told {} times instead of {}", said.len(), jobs.len() * rounds as usize);
    }
    let of = |(n, job): (usize, &&Job)| {
        let lines = said.iter().skip(n).step_by(jobs.len());
        match lines
            .map(|line| one(line, job.timed, job.block()))
            .collect::<Option<Vec<_>>>()
            .and_then(Timing::new)
        {
            Some(timing) => Ok(timing),
            None => fail!("{}: what fio told makes no sense: {said:?}", job.name),
        }
    };
    jobs.iter().enumerate().map(of).collect()
}

/// Nanoseconds a request, if fio did as many of so many bytes as it was told.
fn one(line: &str, requests: u64, block: u64) -> Option<f64> {
    let words: Vec<u64> = line.split_whitespace().map(|word| word.parse().ok()).collect::<Option<_>>()?;
    let &[read, read_ms, written, written_ms] = words.as_slice() else { return None };
    let all = (read + written) * 1024 == requests * block;
    (requests > 0 && all).then(|| (read_ms + written_ms) as f64 * 1e6 / requests as f64)
}

/// A reading of the host's and of this program's processor time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// Ticks that all processors were busy, and idle.
    busy: u64,
    idle: u64,
    /// Those of this program and of what it has started and seen end.
    own: u64,
}

impl Host {
    /// Now; none where `/proc` does not say.
    pub fn now() -> Option<Self> {
        let read = |path: &str| std::fs::read_to_string(path).ok();
        Self::parse(&read("/proc/stat")?, &read("/proc/self/stat")?)
    }

    fn parse(host: &str, own: &str) -> Option<Self> {
        let ticks = |word: &str| word.parse::<u64>().ok();
        // user nice system idle iowait irq softirq steal; what follows is in them.
        let host: Vec<u64> = host.lines().next()?.split_whitespace().skip(1).map_while(ticks).collect();
        let &[user, nice, system, idle, iowait, irq, softirq, steal, ..] = host.as_slice() else {
            return None;
        };
        // Behind the name, which may contain anything: utime and stime are the 12th and 13th, then those of children.
        let own = own.rsplit_once(')')?.1.split_whitespace().skip(11).take(4);
        let own: Vec<u64> = own.map_while(ticks).collect();
        let busy = user + nice + system + irq + softirq + steal;
        (own.len() == 4).then(|| Self { busy, idle: idle + iowait, own: own.iter().sum() })
    }

    /// Processors that others had since `earlier`, on a host with so many.
    pub fn others(&self, earlier: &Self, processors: usize) -> Option<f64> {
        let [busy, idle, own] =
            [(self.busy, earlier.busy), (self.idle, earlier.idle), (self.own, earlier.own)]
                .map(|(now, then)| now.saturating_sub(then));
        let all = busy + idle;
        (all > 0).then(|| busy.saturating_sub(own) as f64 / all as f64 * processors as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::job::JOBS;

    #[test]
    fn times_are_those_of_the_job_and_their_median_counts() {
        let jobs: Vec<&Job> = JOBS.iter().take(2).collect();
        let said = |ms: [u64; 6]| -> Vec<String> {
            let of = |(n, ms): (usize, &u64)| format!(" {} {ms} 0 0 ", 4 * jobs[n % 2].timed);
            ms.iter().enumerate().map(of).collect()
        };
        let times = parse(&said([80, 10, 90, 30, 120, 20]), &jobs, 3).unwrap();
        let ns = |ms: f64, n: usize| ms * 1e6 / jobs[n].timed as f64;
        assert_eq!(times[0].median(), ns(90.0, 0));
        assert_eq!((times[1].median(), times[1].range()), (ns(20.0, 1), [ns(10.0, 1), ns(30.0, 1)]));
        assert!(parse(&said([80, 10, 90, 30, 120, 20])[1..], &jobs, 3).is_err(), "one is missing");
        assert!(parse(&said([80, 0, 90, 30, 120, 20]), &jobs, 3).is_err(), "no time");
        let short = said([80, 10, 90, 30, 120, 20])
            .iter()
            .map(|line| line.replacen(' ', " 1", 1))
            .collect::<Vec<_>>();
        assert!(parse(&short, &jobs, 3).is_err(), "fio did something else than it was told");
        assert!(parse(&vec!["fio: error".to_owned(); 6], &jobs, 3).is_err());
    }

    #[test]
    fn the_script_times_every_job_in_every_round() {
        let jobs: Vec<&Job> = JOBS.iter().collect();
        let text = script(&jobs, 5);
        for job in JOBS {
            assert_eq!(text.matches(&format!("measure {} {}\n", job.timed, job.fio)).count(), 5);
        }
        assert!(!text.contains("/root/mark"), "nobody counts");
        // A ms is what fio can tell: at most 2 % of a job that takes 8,000 ns for 4 KiB and 60,000 for a MiB.
        let least = |job: &Job| job.timed * if job.fio.contains("bs=1m") { 65_000 } else { 8_000 };
        assert!(JOBS.iter().all(|job| least(job) > 50_000_000));
    }

    #[test]
    fn what_others_used_is_what_this_program_did_not() {
        let host = |busy: u64, idle: u64| format!("cpu  {busy} 10 20 {idle} 30 1 2 3 0 0\ncpu0 1 2 3\n");
        let own = |ticks: u64| format!("1 (a) b)) R 0 0 0 0 0 0 0 0 0 0 {ticks} 5 100 7 20 0 1\n");
        let first = Host::parse(&host(1000, 5000), &own(50)).unwrap();
        assert_eq!((first.busy, first.idle, first.own), (1036, 5030, 162));
        let second = Host::parse(&host(1100, 5100), &own(90)).unwrap();
        assert_eq!(second.others(&first, 2), Some(0.6));
        assert_eq!(first.others(&first, 2), None, "no time has passed");
        assert_eq!(Host::parse("cpu 1 2\n", &own(50)), None);
        assert_eq!(Host::parse(&host(1, 1), "1 (a) R 0"), None);
    }
}
