//! How the cost of a request grows: with queue depth, request size and the part of the disk that is used, in one guest; with
//! the queues of a guest of two vCPUs; and with the number of guests at one disk.
//!
//! One guest is measured as the jobs are, N requests against 2N. Several guests that read without end are measured in one
//! windows, one for each round: the first of them, which may manage the system, asks how many requests of each were answered,
//! and marks the time before and after each of the two answers. What ran between the middles of the two is divided by the
//! requests between the answers. *Fairness* is the least guest's share of them against the greatest one's.

mod crowd;

use std::{fmt, fmt::Write as _};

use serde_json::{Value, json};

use super::{
    Lab, MEMORY, Scratch, guest,
    job::{self, Job},
    marks::{Cost, Marks},
};
use crate::{build, build::Built, context::Context, failure::Result, qemu::Machine};
use crowd::Crowd;

/// What is measured one after the other, each on a system of its own.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    /// Depth, size and area in one guest.
    Alone,
    /// A guest of several vCPUs with so many queues.
    Queues(u64),
    /// So many guests at one disk.
    Guests(usize),
}

/// What can be measured without the rest.
pub const SERIES: &[&str] = &["alone", "queues", "guests"];

/// All of them.
pub const PARTS: &[Part] =
    &[Part::Alone, Part::Queues(1), Part::Queues(VCPUS), Part::Guests(1), Part::Guests(2), Part::Guests(4)];

impl Part {
    /// What it is called on the command line, with its like.
    pub const fn series(&self) -> &'static str {
        match self {
            Self::Alone => "alone",
            Self::Queues(_) => "queues",
            Self::Guests(_) => "guests",
        }
    }

    /// And in the file.
    pub fn name(&self) -> String {
        match self {
            Self::Alone => self.series().into(),
            Self::Queues(number) => format!("queues-{number}"),
            Self::Guests(number) => format!("guests-{number}"),
        }
    }
}

/// A job without a floor.
const fn point(name: &'static str, fio: &'static str, requests: u64) -> Job {
    Job { name, fio, requests, timed: 0, floor_ratio: None, floor_instructions: None }
}

/// Requests in flight, 4 KiB each.
const DEPTHS: &[Job] = &[
    point("depth 1", "--rw=randread --bs=4k --iodepth=1", 800),
    point("depth 2", "--rw=randread --bs=4k --iodepth=2", 800),
    point("depth 4", "--rw=randread --bs=4k --iodepth=4", 1600),
    point("depth 8", "--rw=randread --bs=4k --iodepth=8", 1600),
    point("depth 16", "--rw=randread --bs=4k --iodepth=16", 1600),
    point("depth 32", "--rw=randread --bs=4k --iodepth=32", 3200),
    point("depth 64", "--rw=randread --bs=4k --iodepth=64", 3200),
];
/// Bytes a request, one at a time.
const SIZES: &[Job] = &[
    point("4 KiB", "--rw=randread --bs=4k --iodepth=1", 800),
    point("16 KiB", "--rw=randread --bs=16k --iodepth=1", 800),
    point("64 KiB", "--rw=randread --bs=64k --iodepth=1", 400),
    point("256 KiB", "--rw=randread --bs=256k --iodepth=1", 200),
    point("1 MiB", "--rw=randread --bs=1m --iodepth=1", 64),
];
/// Parts of the disk that the requests go to.
const AREAS: &[Job] = &[
    point("in 1 MiB", "--rw=randread --bs=4k --iodepth=1 --size=1m --io_size=64m", 800),
    point("in 16 MiB", "--rw=randread --bs=4k --iodepth=1 --size=16m --io_size=64m", 800),
    point("in 256 MiB", "--rw=randread --bs=4k --iodepth=1 --size=256m", 800),
];
/// One job on each vCPU, so fio makes as many more requests.
const QUEUES: &[Job] = &[point(
    "depth 1",
    "--rw=randread --bs=4k --iodepth=1 --numjobs=2 --cpus_allowed=0-1 --cpus_allowed_policy=split",
    100,
)];
/// vCPUs of the guest whose queues are varied. On one processor a vCPU spins for the rest of its slice for a lock whose holder
/// waits for its own. Linux spins with WFE, for which QEMU leaves its loop each time: one slice is half a second of the host's,
/// hence few vCPUs and few requests, and none at a greater depth, where the lock of the one queue is taken more often.
const VCPUS: u64 = 2;
/// What several guests do.
const CROWD: &[(&str, &str)] = &[
    ("depth 1", "--rw=randread --bs=4k --iodepth=1"),
    (
        "depth 32",
        "--rw=randread --bs=4k --iodepth=32 --iodepth_batch_submit=16 --iodepth_batch_complete_min=16",
    ),
];

/// A row: what was varied, and what a request costs.
#[derive(Clone, Debug)]
pub struct Point {
    /// Which figure varies.
    series: &'static str,
    /// And what it is here.
    name: String,
    /// A request.
    cost: Cost,
}

/// The figures of a series.
#[derive(Clone, Debug)]
pub struct Scaling {
    /// `sel4` or `embedded`.
    pub kernel: &'static str,
    points: Vec<Point>,
    crowds: Vec<Crowd>,
}

impl Scaling {
    /// Boots one system and measures it.
    ///
    /// # Errors
    /// As [`super::run`].
    pub fn measure(lab: &Lab<'_>, part: Part) -> Result<Self> {
        let mut scaling = Self { kernel: "", points: Vec::new(), crowds: Vec::new() };
        match part {
            Part::Alone => scaling.alone(lab)?,
            Part::Queues(count) => scaling.queues(lab, count)?,
            Part::Guests(guests) => (scaling.kernel, scaling.crowds) = lab.crowds(guests, CROWD)?,
        }
        Ok(scaling)
    }

    fn alone(&mut self, lab: &Lab<'_>) -> Result {
        let series = ["depth", "size", "area"].into_iter().zip([DEPTHS, SIZES, AREAS]);
        let jobs: Vec<_> =
            series.flat_map(|(series, jobs)| jobs.iter().map(move |job| (series, job))).collect();
        let alone: Vec<&'static Job> = jobs.iter().map(|(_, job)| *job).collect();
        let (kernel, marks) = lab.one_guest("scaling-alone", "", &alone)?;
        self.kernel = kernel;
        for ((series, job), cost) in jobs.into_iter().zip(marks.costs) {
            self.points.push(Point { series, name: job.name.into(), cost });
        }
        Ok(())
    }

    fn queues(&mut self, lab: &Lab<'_>, count: u64) -> Result {
        let jobs: Vec<&'static Job> = QUEUES.iter().collect();
        let keys = format!(r#", "queues": {count}"#);
        let (kernel, marks) = lab.one_guest(&format!("scaling-queues-{count}"), &keys, &jobs)?;
        self.kernel = kernel;
        for (job, cost) in jobs.iter().zip(marks.costs) {
            let name = format!("{count} for {VCPUS} vCPUs, {} each", job.name);
            self.points.push(Point { series: "queues", name, cost: cost.divided(VCPUS as f64) });
        }
        Ok(())
    }

    /// For `build/bench.json`.
    pub fn json(&self) -> Value {
        let points = self.points.iter().map(|point| {
            json!({
                "series": point.series,
                "name": point.name,
                "hypervisor_instructions": (point.cost.kernel + point.cost.pd).round(),
                "pd_instructions": point.cost.pd.round(),
                "instructions": point.cost.all.round(),
                "exits": (point.cost.exits * 100.0).round() / 100.0,
            })
        });
        points.chain(self.crowds.iter().map(Crowd::json)).collect()
    }
}

impl fmt::Display for Scaling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "How it grows: instructions a request (4 KiB reads, where nothing else is said)")?;
        if !self.points.is_empty() {
            writeln!(f, "{:<41}{:>11}{:>9}{:>9}{:>7}", "", "hypervisor", "PDs", "all", "exits")?;
        }
        for Point { series, name, cost } in &self.points {
            let hypervisor = cost.kernel + cost.pd;
            write!(f, "{series:<9}{name:<32}{hypervisor:>11.0}{:>9.0}{:>9.0}", cost.pd, cost.all)?;
            writeln!(f, "{:>7.2}", cost.exits)?;
        }
        if !self.crowds.is_empty() {
            writeln!(
                f,
                "{:<41}{:>11}{:>9}{:>9}{:>10}  fairness by window; requests by guest",
                "guests", "hypervisor", "PDs", "all", "requests"
            )?;
        }
        self.crowds.iter().try_for_each(|crowd| writeln!(f, "{crowd}"))
    }
}

impl Lab<'_> {
    /// One guest that runs the jobs; with keys for its disk it has [`VCPUS`] vCPUs.
    fn one_guest(&self, name: &str, disk_keys: &str, jobs: &[&'static Job]) -> Result<(&'static str, Marks)> {
        let rounds = self.choice.rounds;
        let vcpus = if disk_keys.is_empty() { 1 } else { VCPUS };
        let cell = cell(self.context, 1, "", vcpus, job::CMDLINE, disk_keys);
        let (description, built) = self.system(name, &[cell])?;
        let (machine, _disk) = self.machine(&description, &built, &job::script_of(jobs, rounds))?;
        let to = self.out.join(name);
        let counting = super::counting_pds(&built, self.choice, self.plugin, &to);
        let text = super::measure(name, &mut machine.command(), &counting, &to)?;
        Ok((super::kernel(&built), Marks::parse(&text, jobs, rounds as usize)?))
    }

    /// Builds a system of these cells.
    fn system(&self, name: &str, cells: &[String]) -> Result<(Context, Built)> {
        let text = format!(
            r#"{{ "controllers": [{{ "name": "disk0", "kind": "virtio-mmio", "slot": 0 }}], "cells": [{}] }}"#,
            cells.join(",\n")
        );
        let description = super::described(self.context, self.out, name, &text)?;
        let built = build::build(&description)?;
        Ok((description, built))
    }

    /// It on a copy of the disk with this script.
    fn machine(&self, description: &Context, built: &Built, script: &str) -> Result<(Machine, Scratch)> {
        let disk = Scratch::new(self.out);
        let original = self.context.guest_dir().join("disk.img");
        guest::prepare(&original, &disk.0, self.out, [Some(script), None])?;
        let mut machine = Machine::new(description, built, None)?;
        machine.arguments.extend(super::drive(&disk.0, None, 0));
        Ok((machine, disk))
    }
}

/// A cell, with more keys of its own and of its scratch disk.
fn cell(context: &Context, n: usize, keys: &str, vcpus: u64, cmdline: &str, disk_keys: &str) -> String {
    let file = |name: &str| context.guest_dir().join(name).display().to_string();
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write!(
        text,
        r#"{{ "name": "debian{n}", "memory": "{}", "vcpus": {vcpus}, "kernel": "{}", "initrd": "{}", {keys}
      "cmdline": "console=hvc0 {}",
      "disks": [{{ "controller": "disk0", "partition": "debian1"{disk_keys} }},
        {{ "controller": "disk0", "partition": "debian2"{disk_keys} }}] }}"#,
        if keys.is_empty() { MEMORY } else { crowd::MEMORY },
        file("Image"),
        file("initrd.gz"),
        cmdline,
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_in_a_series_and_has_its_own_name() {
        let names: Vec<String> = PARTS.iter().map(Part::name).collect();
        for (n, part) in PARTS.iter().enumerate() {
            assert!(SERIES.contains(&part.series()) && !names[..n].contains(&names[n]), "{part:?}");
        }
        assert!(SERIES.iter().all(|series| PARTS.iter().any(|part| part.series() == *series)));
    }

    #[test]
    fn every_figure_is_in_the_table_and_in_the_json() {
        let cost = Cost { kernel: 1000.0, pd: 234.0, all: 5678.0, exits: 3.0, ..Cost::default() };
        let point = Point { series: "depth", name: "depth 8".into(), cost };
        let scaling = Scaling { kernel: "sel4", points: vec![point], crowds: vec![crowd::tests::example()] };
        let text = scaling.to_string();
        assert!(text.contains("depth 8") && text.contains("1234") && text.contains("5678"), "{text}");
        let json = scaling.json();
        assert_eq!(json[0]["hypervisor_instructions"], json!(1234.0));
        assert_eq!(json[1]["fairness"], json!(0.95));
    }
}
