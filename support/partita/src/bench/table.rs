//! The figures as a table and as JSON.

use std::fmt;

use serde_json::{Map, Value, json};

use super::{
    clock::{QUIET, Timing},
    job::Job,
    marks::{Cost, Counters, Marks},
};
use crate::{fail, failure::Result};

/// VM exits that an idle guest may cost in a second.
const IDLE_LIMIT: f64 = 260.0;
/// From QEMU's start to the guest's script, in instructions, against bare QEMU: of the system of [`super::boot`].
pub(super) const BOOT_LIMIT: f64 = 1.3;

/// A job's figures.
#[derive(Clone, Debug)]
pub struct Row {
    /// The job.
    pub job: &'static Job,
    /// On this system.
    pub ours: Cost,
    /// On bare QEMU.
    pub bare: Cost,
    /// What it takes by the guest's clock here and on bare QEMU, if that was measured.
    times: Option<[Timing; 2]>,
}

impl Row {
    /// Instructions on bare QEMU against all that are executed here. What bare QEMU waits for its device is in neither.
    pub fn ratio_instructions(&self) -> f64 {
        self.bare.all / self.ours.all
    }

    /// Share of bare QEMU's speed by the guest's clock: the peers' measure, and that of the floors.
    fn ratio(&self) -> Option<f64> {
        self.times.as_ref().map(|[ours, bare]| bare.median() / ours.median())
    }

    /// Instructions outside the guest.
    pub fn hypervisor(&self) -> f64 {
        self.ours.kernel + self.ours.pd
    }

    /// Floors that are missed. That of the ratio is held on a quiet host only.
    fn misses(&self, quiet: bool) -> Vec<&'static str> {
        let instructions = self.job.floor_instructions.is_some_and(|floor| self.hypervisor() > floor as f64);
        let ratio =
            quiet && self.job.floor_ratio.zip(self.ratio()).is_some_and(|(floor, ratio)| ratio < floor);
        [(instructions, "instructions"), (ratio, "ratio")]
            .into_iter()
            .filter_map(|(missed, name)| missed.then_some(name))
            .collect()
    }

    fn json(&self, quiet: bool) -> Value {
        let pds = self.ours.pds.iter().filter(|pd| pd.runs > 0.0).map(|pd| {
            let (instructions, runs) = (pd.instructions.round(), hundredths(pd.runs));
            (pd.name.clone(), json!({ "instructions": instructions, "runs": runs }))
        });
        let time = |of: usize| self.times.as_ref().map(|times| &times[of]);
        json!({
            "name": self.job.name,
            "ours": time(0).map(|time| time.median().round()),
            "bare": time(1).map(|time| time.median().round()),
            "ratio": self.ratio().map(thousandths),
            "ours_range": time(0).map(Timing::json),
            "bare_range": time(1).map(Timing::json),
            "ours_instructions": self.ours.all.round(),
            "bare_instructions": self.bare.all.round(),
            "ratio_instructions": thousandths(self.ratio_instructions()),
            "hypervisor_instructions": self.hypervisor().round(),
            "exits": hundredths(self.ours.exits),
            "floor_ratio": self.job.floor_ratio,
            "floor_instructions": self.job.floor_instructions,
            "misses": self.misses(quiet),
            "kernel_instructions": self.ours.kernel.round(),
            "pd_instructions": self.ours.pd.round(),
            "pd_entries": hundredths(self.ours.pd_entries),
            "pds": pds.collect::<serde_json::Map<_, _>>(),
        })
    }
}

pub(super) fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

pub(super) fn thousandths(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// All figures of one run.
#[derive(Clone, Debug)]
pub struct Table {
    kernel: &'static str,
    commit: String,
    /// The jobs.
    pub rows: Vec<Row>,
    boot: (Counters, Counters),
    idle: Cost,
    /// Processors that others had while times were measured; not known without `/proc`.
    others: Option<f64>,
}

impl Table {
    /// From what the two machines counted.
    ///
    /// # Errors
    /// Figures that cannot be: nothing measured, or somebody else's instructions where only the guest runs.
    pub fn new(
        ours: &Marks,
        bare: &Marks,
        jobs: &[&'static Job],
        kernel: &'static str,
        commit: &str,
    ) -> Result<Self> {
        let rows: Vec<Row> = jobs
            .iter()
            .zip(ours.costs.iter().zip(&bare.costs))
            .map(|(job, (ours, bare))| Row { job, ours: ours.clone(), bare: bare.clone(), times: None })
            .collect();
        for row in &rows {
            let name = row.job.name;
            if row.bare.all < 1000.0 || row.ours.all < row.bare.all / 2.0 {
                fail!(
                    "{name}: {:.0} instructions here and {:.0} on bare QEMU make no sense",
                    row.ours.all,
                    row.bare.all
                );
            }
            if row.bare.kernel + row.bare.pd > 1.0 {
                fail!(
                    "{name}: on bare QEMU something ran that is not the guest; its addresses are taken for ours"
                );
            }
            if row.hypervisor() < 1.0 {
                fail!(
                    "{name}: no instruction outside the guest was counted; seL4's addresses are not where they were"
                );
            }
            let known: f64 = row.ours.pds.iter().map(|pd| pd.instructions).sum();
            if known < row.ours.pd * 0.9 {
                fail!(
                    "{name}: of {:.0} instructions of protection domains {known:.0} are in one that is known",
                    row.ours.pd
                );
            }
        }
        let boot = (ours.boot.clone(), bare.boot.clone());
        Ok(Self { kernel, commit: commit.to_owned(), rows, boot, idle: ours.idle.clone(), others: None })
    }

    /// Adds what requests take by the guest's clock here and on bare QEMU, and the processors that others had meanwhile.
    pub fn add_times(&mut self, ours: Vec<Timing>, bare: Vec<Timing>, others: Option<f64>) {
        for (row, times) in self.rows.iter_mut().zip(ours.into_iter().zip(bare)) {
            row.times = Some(times.into());
        }
        self.others = others;
    }

    /// Whether the times are worth a judgement.
    fn is_quiet(&self) -> bool {
        self.others.is_some_and(|others| others <= QUIET)
    }

    /// What was measured, on what.
    pub fn title(&self) -> String {
        let kernel = if self.kernel == "sel4" { "seL4" } else { "the embedded kernel" };
        format!("One request on {kernel}, commit {}: executed instructions", self.commit)
    }

    /// Instructions until the guest's script, against bare QEMU.
    fn boot_ratio(&self) -> f64 {
        self.boot.0.all() as f64 / self.boot.1.all() as f64
    }

    /// `build/bench.json`.
    pub fn json(&self) -> Map<String, Value> {
        let (ours, bare) = &self.boot;
        super::keyed([
            ("commit", self.commit.as_str().into()),
            ("kernel", self.kernel.into()),
            ("unit", "ours, bare: virtual ns per request; all others: instructions per request".into()),
            ("host", json!({ "others": self.others.map(hundredths), "quiet": self.is_quiet() })),
            ("rows", self.rows.iter().map(|row| row.json(self.is_quiet())).collect()),
            (
                "boot",
                json!({
                    "ours": ours.all(),
                    "bare": bare.all(),
                    "kernel_instructions": ours.kernel,
                    "pd_instructions": ours.pd,
                    "times_bare": thousandths(self.boot_ratio()),
                    "floor_held_by": "boot_beside",
                }),
            ),
            (
                "idle_second",
                json!({
                    "exits": hundredths(self.idle.exits),
                    "hypervisor_instructions": (self.idle.kernel + self.idle.pd).round(),
                    "floor_exits": IDLE_LIMIT,
                    "misses": self.idle.exits > IDLE_LIMIT,
                }),
            ),
        ])
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}; ns by the guest's clock (of its rounds the median, the least and the greatest)",
            self.title()
        )?;
        write!(f, "{:<16}{:>11}{:>7}{:>8}{:>6}", "job", "hypervisor", "limit", "seL4", "PDs")?;
        write!(f, "{:>6}{:>8} |{:>8}{:>8}{:>7} |", "exits", "PD runs", "ours", "bare", "ratio")?;
        writeln!(f, "{:>8}{:>17}{:>8}{:>17}{:>7}{:>7}", "ns ours", "", "bare", "", "ratio", "floor")?;
        for row in &self.rows {
            let floor = row.job.floor_ratio.map_or("-".into(), |floor| format!("{floor:.2}"));
            let limit = row.job.floor_instructions.map_or("-".into(), |limit| limit.to_string());
            write!(f, "{:<16}{:>11.0}{limit:>7}", row.job.name, row.hypervisor())?;
            write!(f, "{:>8.0}{:>6.0}", row.ours.kernel, row.ours.pd)?;
            write!(f, "{:>6.1}{:>8.1} |", row.ours.exits, row.ours.pd_entries)?;
            write!(f, "{:>8.0}{:>8.0}{:>7.2} |", row.ours.all, row.bare.all, row.ratio_instructions())?;
            for time in row.times.iter().flatten() {
                let range = time.range().map(|end| format!("{end:.0}")).join("-");
                write!(f, "{:>8.0}{range:>17}", time.median())?;
            }
            if let Some(ratio) = row.ratio() {
                write!(f, "{ratio:>7.2}{floor:>7}")?;
            }
            let misses = row.misses(self.is_quiet());
            writeln!(f, "{}{}", if misses.is_empty() { "" } else { "  misses " }, misses.join(", "))?;
        }
        match self.others {
            Some(others) if self.is_quiet() => {
                writeln!(f, "While times were taken, others had {others:.2} processors: a quiet host")?;
            }
            Some(others) => writeln!(
                f,
                "While times were taken, others had {others:.2} processors: ratios of time are not held against their floors"
            )?,
            None => writeln!(
                f,
                "How busy the host was is not known: ratios of time are not held against their floors"
            )?,
        }
        writeln!(f, "By protection domain: instructions a request (times it was switched to)")?;
        for row in &self.rows {
            write!(f, "{:<16}", row.job.name)?;
            for pd in row.ours.pds.iter().filter(|pd| pd.runs > 0.0) {
                write!(f, " {} {:.0} ({:.2})", pd.name, pd.instructions, pd.runs)?;
            }
            writeln!(f)?;
        }
        let (ours, bare) = &self.boot;
        writeln!(
            f,
            "boot to the guest's init: {:.0} million instructions, on bare QEMU {:.0}: {:.2} times (the floor of {BOOT_LIMIT} is held against the system with boot_files, below)",
            ours.all() as f64 / 1e6,
            bare.all() as f64 / 1e6,
            self.boot_ratio()
        )?;
        writeln!(
            f,
            "idle guest: {:.1} VM exits and {:.0} hypervisor instructions per virtual second (exits at most {IDLE_LIMIT:.0}){}",
            self.idle.exits,
            self.idle.kernel + self.idle.pd,
            if self.idle.exits > IDLE_LIMIT { "  misses" } else { "" }
        )
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::bench::{job::JOBS, marks::Share};

    fn marks(kernel: f64, all: f64) -> Marks {
        let pds = vec![Share { name: "vmm".into(), instructions: kernel / 2.0, runs: 4.0, stored: 0.0 }];
        let (exits, pd_entries) = (kernel / 1000.0, kernel / 900.0);
        let cost = Cost { kernel, pd: kernel / 2.0, all, exits, pd_entries, pds, stored: 0.0 };
        let boot = Counters { guest: 1_500_000_000, ..Counters::default() };
        Marks { boot, costs: vec![cost.clone(); JOBS.len()], idle: Cost { exits: 123.0, ..cost } }
    }

    fn new(ours: &Marks, bare: &Marks) -> Result<Table> {
        Table::new(ours, bare, &JOBS.iter().collect::<Vec<_>>(), "sel4", "abc")
    }

    /// One with made-up figures. Bare QEMU waits for its device, so that it is not as far ahead.
    pub(in crate::bench) fn example() -> Table {
        let mut table = new(&marks(20_000.0, 55_000.0), &marks(0.0, 25_000.0)).unwrap();
        let times = |ns: [f64; 3]| vec![Timing::new(ns.to_vec()).unwrap(); JOBS.len()];
        table.add_times(
            times([60_000.0, 57_000.0, 90_000.0]),
            times([45_000.0, 39_000.0, 44_000.0]),
            Some(0.1),
        );
        table
    }

    #[test]
    fn figures_and_floors_are_shown() {
        let table = example();
        let text = table.to_string();
        let row = text.lines().find(|line| line.starts_with("read-4k-qd1 ")).unwrap();
        assert!(row.contains(" 0.45 ") && row.contains("57000-90000") && row.contains(" 0.73 "), "{row}");
        assert!(row.ends_with("misses instructions"), "{row}");
        let row = text.lines().find(|line| line.starts_with("read-1m-qd8 ")).unwrap();
        assert!(row.ends_with(" 0.95  misses ratio"), "{row}");
        assert!(text.contains("vmm 10000 (4.00)") && text.contains("1.00 times"), "{text}");
        let json = table.json();
        assert_eq!((&json["kernel"], &json["commit"]), (&json!("sel4"), &json!("abc")));
        let row = &json["rows"][0];
        assert_eq!((&row["name"], &row["ratio"]), (&json!("read-4k-qd1"), &json!(0.733)));
        assert_eq!((&row["ours"], &row["bare"]), (&json!(60_000.0), &json!(44_000.0)));
        assert_eq!((&row["ratio_instructions"], &row["bare_range"][0]), (&json!(0.455), &json!(39_000.0)));
        assert_eq!(row["hypervisor_instructions"], json!(30_000.0));
        assert_eq!((&row["floor_ratio"], &row["misses"]), (&json!(0.66), &json!(["instructions"])));
        assert_eq!(row["pds"]["vmm"]["instructions"], json!(10_000.0));
        let unfloored = json["rows"].as_array().unwrap().iter().find(|row| row["name"] == "write-512-qd1");
        assert_eq!(
            unfloored.unwrap()["floor_ratio"],
            Value::Null,
            "the 512-byte write has no ratio to reach"
        );
    }

    #[test]
    fn a_busy_host_judges_no_times() {
        for others in [Some(0.5), None] {
            let mut table = example();
            table.others = others;
            assert!(!table.to_string().contains("ratio\n"), "{table}");
            let json = table.json();
            assert_eq!((&json["host"]["quiet"], &json["rows"][7]["misses"]), (&json!(false), &json!([])));
            assert_eq!(json["rows"][0]["misses"], json!(["instructions"]));
        }
    }

    #[test]
    fn without_times_the_counts_are_shown() {
        let table = new(&marks(20_000.0, 55_000.0), &marks(0.0, 25_000.0)).unwrap();
        let json = table.json();
        assert_eq!(
            (&json["rows"][0]["ratio"], &json["rows"][0]["ours_instructions"]),
            (&Value::Null, &json!(55_000.0))
        );
        assert!(table.to_string().contains("0.45"));
    }

    #[test]
    fn figures_that_cannot_be_are_refused() {
        let ours = marks(20_000.0, 55_000.0);
        assert!(new(&ours, &marks(10.0, 25_000.0)).is_err(), "not only the guest on bare QEMU");
        assert!(new(&marks(0.0, 25_000.0), &marks(0.0, 25_000.0)).is_err(), "no seL4");
        assert!(new(&ours, &marks(0.0, 0.0)).is_err(), "nothing measured");
        let mut unknown = ours;
        unknown.costs.iter_mut().for_each(|cost| cost.pds.clear());
        assert!(new(&unknown, &marks(0.0, 25_000.0)).is_err(), "no PD is known");
    }
}
