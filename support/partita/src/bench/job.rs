//! What is measured: the jobs, the figures they must reach, and the script that runs them in the guest.

use std::{fmt::Write as _, path::PathBuf};

use clap::{Args, builder::PossibleValuesParser};

use super::{
    ivc::{FLOWS, Flow},
    scaling::SERIES,
};

/// Times that each pair of runs is measured; the median counts.
pub const ROUNDS: u32 = 3;
/// Virtual seconds of doing nothing.
pub const IDLE_SECONDS: u64 = 10;

/// Kernel command line, less the console. By label: the order of bare QEMU's disks is not ours to choose.
pub const CMDLINE: &str = "quiet root=LABEL=debian1 rw partita.run=/root/bench.sh";

/// One kind of request.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    /// Its name in the table.
    pub name: &'static str,
    /// fio's options.
    pub fio: &'static str,
    /// Requests of the shorter run that is counted; the longer has twice as many.
    pub requests: u64,
    /// Requests of a run whose time is taken.
    pub timed: u64,
    /// Least share of bare QEMU's speed, by the guest's clock.
    pub floor_ratio: Option<f64>,
    /// Most instructions outside the guest.
    pub floor_instructions: Option<u64>,
}

const fn job(
    name: &'static str,
    fio: &'static str,
    (requests, timed): (u64, u64),
    floor_ratio: Option<f64>,
    floor_instructions: Option<u64>,
) -> Job {
    Job { name, fio, requests, timed, floor_ratio, floor_instructions }
}

/// All jobs. The batched ones hand over and take back sixteen requests at a time.
pub const JOBS: &[Job] = &[
    job("read-4k-qd1", "--rw=randread --bs=4k --iodepth=1", (1000, 8000), Some(0.66), Some(14_000)),
    job("read-4k-qd32", BATCHED_READ, (4096, 16_384), Some(0.88), Some(1_300)),
    job("write-4k-qd1", "--rw=randwrite --bs=4k --iodepth=1", (1000, 8000), Some(0.62), Some(14_500)),
    job("write-4k-qd32", BATCHED_WRITE, (4096, 16_384), Some(0.85), Some(1_400)),
    job("write-512-qd1", "--rw=randwrite --bs=512 --iodepth=1", (1000, 8000), None, Some(14_500)),
    job("read-64k-qd1", "--rw=randread --bs=64k --iodepth=1", (400, 6400), Some(0.75), Some(17_000)),
    job("read-1m-qd1", "--rw=randread --bs=1m --iodepth=1", (64, 800), Some(0.85), Some(45_000)),
    job("read-1m-qd8", "--rw=randread --bs=1m --iodepth=8", (128, 800), Some(0.95), None),
    job("seqwrite-1m-qd8", "--rw=write --bs=1m --iodepth=8", (128, 800), Some(0.90), None),
];

impl Job {
    /// Bytes of a request; 0 if fio is not told.
    pub fn block(&self) -> u64 {
        let size = self.fio.split_whitespace().find_map(|option| option.strip_prefix("--bs=")).unwrap_or("0");
        let number = |text: &str| text.parse::<u64>().unwrap_or(0);
        match size.split_at(size.len() - 1) {
            (size, "k") => number(size) << 10,
            (size, "m") => number(size) << 20,
            _ => number(size),
        }
    }
}

/// What of it is to be measured.
#[derive(Args, Clone, Debug)]
pub struct Choice {
    /// Only this job; may be repeated. The figures go to bench-part.json
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(names()))]
    pub job: Vec<String>,
    /// Times that each job is measured; the median counts
    #[arg(long, value_name = "N", default_value_t = ROUNDS, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub rounds: u32,
    /// Only how the cost grows, in one guest with depth, size and area, with queues, with guests, or all of it
    #[arg(long, conflicts_with = "job", value_name = "SERIES", num_args = 0..=1, require_equals = true,
        default_missing_value = "all", value_parser = PossibleValuesParser::new(["all"].iter().chain(SERIES)))]
    pub scaling: Option<String>,
    /// Write which code ran how often, from mark to mark, into this file
    #[arg(long, value_name = "FILE")]
    pub profile: Option<PathBuf>,
}

/// Of jobs and flows.
fn names() -> impl Iterator<Item = &'static str> {
    JOBS.iter().map(|job| job.name).chain(FLOWS.iter().map(|flow| flow.name)).chain([super::boot::NAME])
}

impl Choice {
    /// Whether this job, flow or part is to be measured.
    pub fn has(&self, name: &str) -> bool {
        self.scaling.is_none() && (self.job.is_empty() || self.job.iter().any(|chosen| chosen == name))
    }

    /// The flows between guests, in the order of the table.
    pub fn flows(&self) -> Vec<&'static Flow> {
        FLOWS.iter().filter(|flow| self.has(flow.name)).collect()
    }

    /// All of it.
    pub fn is_complete(&self) -> bool {
        self.job.is_empty() && self.scaling.is_none() && self.rounds >= ROUNDS
    }

    /// The jobs, in the order of the table.
    pub fn jobs(&self) -> Vec<&'static Job> {
        JOBS.iter().filter(|job| self.has(job.name)).collect()
    }

    /// Whether this series of [`super::scaling`] is to be measured.
    pub fn scales(&self, series: &str) -> bool {
        match self.scaling.as_deref() {
            Some(chosen) => chosen == "all" || chosen == series,
            None => self.job.is_empty(),
        }
    }

    /// Times that each job is measured.
    pub const fn rounds(&self) -> usize {
        self.rounds as usize
    }
}

const BATCHED_READ: &str =
    "--rw=randread --bs=4k --iodepth=32 --iodepth_batch_submit=16 --iodepth_batch_complete_min=16";
const BATCHED_WRITE: &str =
    "--rw=randwrite --bs=4k --iodepth=32 --iodepth_batch_submit=16 --iodepth_batch_complete_min=16";

/// What every script begins with: random numbers, the second disk, and fio and its libraries in memory, the disk's blocks allocated.
pub const PREPARE: &str = r#"#!/bin/bash
# Written by `partita bench`.
set -eu
# QEMU hands its guest a seed, a VMM has none to give. Until Linux has random numbers it makes each anew, for the offset of the
# stack at every system call: ten blocks of blake2s a request.
head -c 32 /dev/random > /dev/null
root=$(findmnt -no SOURCE /)
case $root in /dev/vda) disk=vdb ;; *) disk=vda ;; esac
echo none > /sys/block/$disk/queue/scheduler
fio=(fio --name=job --filename=/dev/$disk --direct=1 --ioengine=libaio --size=256m --randrepeat=1 --norandommap
    --thread --gtod_reduce=1 --minimal)
# With several processors fio would first try whether their clocks agree, which takes minutes where they share one.
[ "$(nproc)" = 1 ] || fio+=(--clocksource=clock_gettime)
"${fio[@]}" --rw=write --bs=1m --iodepth=1 > /dev/null
"#;

/// The script. It executes a mark once at its start, then around every run in the order of `marks`.
pub fn script(choice: &Choice) -> String {
    script_of(&choice.jobs(), choice.rounds)
}

/// The same for any jobs.
pub fn script_of(jobs: &[&Job], rounds: u32) -> String {
    // /root/mark is one instruction for the counting plugin, and an exit. The first one ends the boot.
    let (first, rest) = PREPARE.split_once("set -eu\n").unwrap_or_default();
    let mut text = format!("{first}set -eu\n/root/mark\n{rest}");
    text += r#"measure() { # REQUESTS FIO-OPTIONS...
    local requests=$1
    shift
    for n in $requests $((2 * requests)); do
        /root/mark
        "${fio[@]}" "$@" --number_ios=$n --output=/dev/null
        /root/mark
    done
}
"#;
    text += &lines(jobs, rounds, |job| job.requests);
    // Writing to a string does not fail.
    let _ = writeln!(text, "echo \"@step idle for {IDLE_SECONDS} s\"");
    let _ = writeln!(text, "sleep 1; /root/mark; sleep {IDLE_SECONDS}; /root/mark");
    text
}

/// A call of `measure` for each job in each round.
pub fn lines(jobs: &[&Job], rounds: u32, requests: fn(&Job) -> u64) -> String {
    let mut text = String::new();
    for round in 1..=rounds {
        for job in jobs {
            // Writing to a string does not fail.
            let _ = writeln!(text, "echo \"@step round {round} of {rounds}: {}\"", job.name);
            let _ = writeln!(text, "measure {} {}", requests(job), job.fio);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_runs_every_job_in_every_round() {
        let all = Choice { job: Vec::new(), rounds: ROUNDS, scaling: None, profile: None };
        let text = script(&all);
        for job in JOBS {
            let line = format!("measure {} {}\n", job.requests, job.fio);
            assert_eq!(text.matches(&line).count(), all.rounds(), "{}", job.name);
        }
        let one = Choice { job: vec![JOBS[2].name.into()], rounds: 1, ..all.clone() };
        assert!(all.is_complete() && !one.is_complete());
        assert!(all.scales("queues") && !one.scales("queues"));
        let some = Choice { scaling: Some("guests".into()), ..all.clone() };
        assert!(
            some.scales("guests") && !some.scales("alone") && some.jobs().is_empty() && !some.is_complete()
        );
        assert_eq!(script(&one).matches("\nmeasure ").count(), 1);
        assert!(script(&one).contains(JOBS[2].fio));
        // The boot ends at the first mark, before anything is prepared.
        let mark = text.find("/root/mark\n").unwrap();
        assert!(text[..mark].lines().count() < 5 && text[mark..].contains("--rw=write --bs=1m"), "{text}");
    }

    #[test]
    fn a_job_knows_its_requests_and_counts_no_more_than_the_disk_has() {
        let block = |name: &str| JOBS.iter().find(|job| job.name == name).unwrap().block();
        assert_eq!(block("write-512-qd1"), 512);
        assert_eq!((block("read-4k-qd32"), block("read-64k-qd1")), (4096, 65_536));
        assert_eq!(block("seqwrite-1m-qd8"), 1 << 20);
        assert!(PREPARE.contains("--size=256m"));
        // fio stops at the size, whatever the number of requests.
        assert!(JOBS.iter().all(|job| 2 * job.requests * job.block() <= 256 << 20));
    }

    #[test]
    fn names_are_unique() {
        let all: Vec<&str> = names().collect();
        for (n, name) in all.iter().enumerate() {
            assert!(!all[..n].contains(name), "{name}");
        }
    }
}
