//! What the plugin counted, put into the order of the script.

use std::ops::Sub;

use super::job::{IDLE_SECONDS, Job};
use crate::{fail, failure::Result};

/// What a protection domain ran.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Share<T> {
    /// Its name.
    pub name: String,
    /// Instructions.
    pub instructions: T,
    /// Times it was switched to.
    pub runs: T,
    /// Bytes that it stored, if that was counted.
    pub stored: T,
}

/// The plugin's counters, at a mark or between two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// Instructions, runs and bytes stored of each PD that is told apart.
    pub pds: Vec<(u64, u64, u64)>,
    /// Bytes stored by seL4 and PDs, if that was counted.
    pub stored: u64,
}

/// What the columns of the plugin's file are.
struct Columns<'a>(Vec<&'a str>);

impl<'a> Columns<'a> {
    /// From the first line.
    fn parse(line: &'a str) -> Option<Self> {
        Some(Self(line.strip_prefix('#')?.split_whitespace().collect()))
    }

    /// Names of the PDs that are told apart.
    fn pds(&self) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter_map(|name| name.strip_prefix("pd:"))
    }

    fn counters(&self, line: &str) -> Option<Counters> {
        let words: Vec<u64> = line.split_whitespace().map(|word| word.parse().ok()).collect::<Option<_>>()?;
        let of = |name: &str| words.get(self.0.iter().position(|column| *column == name)?).copied();
        let pds = self.pds().map(|pd| {
            let stored = of(&format!("stored:pd:{pd}")).unwrap_or(0);
            Some((of(&format!("pd:{pd}"))?, of(&format!("runs:pd:{pd}"))?, stored))
        });
        let pds: Vec<(u64, u64, u64)> = pds.collect::<Option<_>>()?;
        let of_pds = |which: fn(&(u64, u64, u64)) -> u64| pds.iter().map(which).sum::<u64>();
        Some(Counters {
            kernel: of("kernel")?,
            pd: of("pd")? + of_pds(|pd| pd.0),
            guest: of("guest_kernel")? + of("guest_user")?,
            exits: of("exits")?,
            pd_entries: of("pd_entries")?,
            stored: of("stored:kernel").unwrap_or(0) + of("stored:pd").unwrap_or(0) + of_pds(|pd| pd.2),
            pds,
        })
    }
}

impl Counters {
    /// All instructions.
    pub const fn all(&self) -> u64 {
        self.kernel + self.pd + self.guest
    }
}

impl Sub for &Counters {
    type Output = Counters;
    fn sub(self, earlier: Self) -> Counters {
        let sub = |a: u64, b: u64| a.saturating_sub(b);
        let pds = self.pds.iter().zip(&earlier.pds);
        Counters {
            kernel: sub(self.kernel, earlier.kernel),
            pd: sub(self.pd, earlier.pd),
            guest: sub(self.guest, earlier.guest),
            exits: sub(self.exits, earlier.exits),
            pd_entries: sub(self.pd_entries, earlier.pd_entries),
            pds: pds
                .map(|(now, then)| (sub(now.0, then.0), sub(now.1, then.1), sub(now.2, then.2)))
                .collect(),
            stored: sub(self.stored, earlier.stored),
        }
    }
}

/// What one request costs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cost {
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
    /// What each PD ran.
    pub pds: Vec<Share<f64>>,
    /// Bytes that seL4 and PDs stored, if that was counted.
    pub stored: f64,
}

/// All that a machine counted.
#[derive(Clone, Debug, PartialEq)]
pub struct Marks {
    /// From the machine's start to the start of the script.
    pub boot: Counters,
    /// Cost of one request of each job.
    pub costs: Vec<Cost>,
    /// What a second of doing nothing costs.
    pub idle: Cost,
}

/// The plugin's counters at each mark, the end of the machine last, and what its columns are.
fn read(text: &str) -> Result<(Columns<'_>, Vec<Counters>)> {
    let Some((columns, text)) = text.split_once('\n').and_then(|(h, t)| Some((Columns::parse(h)?, t))) else {
        fail!("the plugin's file does not name its columns")
    };
    let marks = text.lines().filter_map(|line| columns.counters(line)).collect();
    Ok((columns, marks))
}

/// Instructions of the kernel at each mark, the end of the machine last.
///
/// # Errors
/// The file is not the plugin's.
pub fn kernel_instructions(text: &str) -> Result<Vec<u64>> {
    Ok(read(text)?.1.iter().map(|counters| counters.kernel).collect())
}

/// The counters at each mark, the end of the machine last.
///
/// # Errors
/// The file is not the plugin's.
pub fn counters(text: &str) -> Result<Vec<Counters>> {
    Ok(read(text)?.1)
}

impl Cost {
    /// What each of `number` parts costs.
    pub fn divided(mut self, number: f64) -> Self {
        for figure in [&mut self.kernel, &mut self.pd, &mut self.all, &mut self.exits, &mut self.pd_entries] {
            *figure /= number;
        }
        for pd in &mut self.pds {
            (pd.instructions, pd.runs) = (pd.instructions / number, pd.runs / number);
        }
        self
    }
}

impl Marks {
    /// Reads the plugin's file.
    ///
    /// # Errors
    /// There are not as many marks as the script makes.
    pub fn parse(text: &str, jobs: &[&Job], rounds: usize) -> Result<Self> {
        let runs = rounds * jobs.len();
        // Begin and end of two runs per job and round; begin and end of idling.
        let (columns, marks) = read_all(text, runs * 4 + 2)?;
        let Some((start, rest)) = marks.split_first() else { fail!("no marks") };
        let (measured, idle) = rest.split_at(runs * 4);
        let mut costs = Vec::new();
        for (n, job) in jobs.iter().enumerate() {
            let each = differences(measured, rounds, jobs.len(), n);
            costs.push(cost(&each, job.requests, &columns));
        }
        let idle = cost(&[&idle[1] - &idle[0]], IDLE_SECONDS, &columns);
        Ok(Self { boot: start.clone(), costs, idle })
    }
}

/// As [`read`]; `expected` are the marks between the start and the end of the machine.
fn read_all(text: &str, expected: usize) -> Result<(Columns<'_>, Vec<Counters>)> {
    let (columns, marks) = read(text)?;
    if marks.len() != expected + 2 {
        fail!("the guest made {} marks instead of {}", marks.len(), expected + 2);
    }
    Ok((columns, marks))
}

/// What the longer run of job `n` of `jobs` cost more than the shorter one, in each round.
fn differences(measured: &[Counters], rounds: usize, jobs: usize, n: usize) -> Vec<Counters> {
    (0..rounds)
        .map(|round| {
            let at = 4 * (round * jobs + n);
            &(&measured[at + 3] - &measured[at + 2]) - &(&measured[at + 1] - &measured[at])
        })
        .collect()
}

/// What one of the things costs of which each job has so many more in its longer run.
///
/// # Errors
/// There are not as many marks as the script makes.
pub fn costs(text: &str, numbers: &[u64], rounds: usize) -> Result<Vec<Cost>> {
    let (columns, marks) = read_all(text, rounds * numbers.len() * 4)?;
    let measured = marks.get(1..).unwrap_or_default();
    let one = |(n, number): (usize, &u64)| {
        cost(&differences(measured, rounds, numbers.len(), n), *number, &columns)
    };
    Ok(numbers.iter().enumerate().map(one).collect())
}

/// The median of several rounds, for one of `number`.
fn cost(rounds: &[Counters], number: u64, columns: &Columns<'_>) -> Cost {
    let one =
        |what: &dyn Fn(&Counters) -> u64| median(rounds.iter().map(what).collect()) as f64 / number as f64;
    let share = |(n, name): (usize, &str)| Share {
        name: name.to_owned(),
        instructions: one(&|c| c.pds[n].0),
        runs: one(&|c| c.pds[n].1),
        stored: one(&|c| c.pds[n].2),
    };
    Cost {
        kernel: one(&|c| c.kernel),
        pd: one(&|c| c.pd),
        all: one(&|c| c.all()),
        exits: one(&|c| c.exits),
        pd_entries: one(&|c| c.pd_entries),
        pds: columns.pds().enumerate().map(share).collect(),
        stored: one(&|c| c.stored),
    }
}

/// The middle one; 0 of none.
pub fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::job::JOBS;

    const ROUNDS: usize = 3;

    fn jobs() -> Vec<&'static Job> {
        JOBS.iter().collect()
    }

    /// A machine on which a run costs `fixed` guest instructions and each request 100 of the guest, 10 of seL4, 1 of an
    /// unknown PD and 4 of the VMM.
    fn file(fixed: impl Fn(usize) -> u64) -> String {
        let mut now = [50_u64, 1000, 0, 0, 0, 0, 0, 0, 0];
        let line = |now: &[u64]| now.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ") + "\n";
        let mut text =
            String::from("# kernel guest_kernel guest_user pd pd:vmm exits pd_entries runs:pd runs:pd:vmm\n")
                + &line(&now);
        for round in 0..ROUNDS {
            for job in JOBS {
                for requests in [job.requests, 2 * job.requests] {
                    text += &line(&now);
                    for (value, more) in now.iter_mut().zip([10, 60, 40, 1, 4, 3, 2, 0, 1]) {
                        *value += more * requests;
                    }
                    now[1] += fixed(round);
                    text += &line(&now);
                }
            }
        }
        text += &line(&now);
        now[5] += 2500;
        text + &line(&now) + &line(&now)
    }

    #[test]
    fn the_start_of_a_run_drops_out() {
        let marks = Marks::parse(&file(|_| 1_000_000), &jobs(), ROUNDS).unwrap();
        assert_eq!(marks.boot.all(), 1050);
        assert_eq!(marks.idle.exits, 250.0);
        assert_eq!(marks.costs.len(), JOBS.len());
        for cost in marks.costs {
            let vmm = Share { name: "vmm".into(), instructions: 4.0, runs: 1.0, stored: 0.0 };
            let (kernel, pd, all, exits, pd_entries, stored) = (10.0, 5.0, 115.0, 3.0, 2.0, 0.0);
            assert_eq!(cost, Cost { kernel, pd, all, exits, pd_entries, pds: vec![vmm], stored });
        }
    }

    /// Two flows of 10 and 20 KiB more in the longer run; a KiB costs 7 of seL4 and 5 of ivc, which stores 1100 bytes.
    #[test]
    fn bytes_stored_are_told_by_who_stored_them() {
        let mut now = [0_u64; 13];
        let mut text = String::from(
            "# kernel guest_kernel guest_user pd pd:ivc exits pd_entries runs:pd runs:pd:ivc stored:kernel \
             stored:guest_kernel stored:pd stored:pd:ivc\n",
        );
        let mut note = |now: &[u64]| {
            text += &(now.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ") + "\n");
        };
        note(&now);
        for amount in [10, 20, 20, 40] {
            note(&now);
            for (column, more) in [(0, 7), (4, 5), (9, 30), (12, 1100)] {
                now[column] += more * amount;
            }
            now[4] += 100_000;
            note(&now);
        }
        note(&now);
        let costs = costs(&text, &[10, 20], 1).unwrap();
        assert_eq!(costs.len(), 2);
        for cost in costs {
            assert_eq!((cost.kernel, cost.pd, cost.stored), (7.0, 5.0, 1130.0));
            assert_eq!(
                cost.pds,
                [Share { name: "ivc".into(), instructions: 5.0, runs: 0.0, stored: 1100.0 }]
            );
        }
        assert!(super::costs(&text, &[10], 1).is_err());
    }

    #[test]
    fn a_file_that_is_too_short_is_refused() {
        let text = file(|_| 0);
        let parse = |text: &str| Marks::parse(text, &jobs(), ROUNDS);
        assert!(parse(&text).is_ok());
        let short: Vec<&str> = text.lines().collect();
        assert!(parse(&short[..short.len() - 1].join("\n")).is_err());
        assert!(parse("").is_err());
        assert!(parse(&text.replace(" exits", " x")).is_err(), "a column is missing");
    }
}
