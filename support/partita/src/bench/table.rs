//! The figures as a table and as JSON.

use std::fmt;

use serde_json::{Value, json};

use super::{
    job::Job,
    marks::{Cost, Counters, Marks},
};
use crate::{fail, failure::Result};

/// VM exits that an idle guest may cost in a second.
const IDLE_LIMIT: f64 = 260.0;
/// From QEMU's start to the guest's script, in instructions, against bare QEMU.
const BOOT_LIMIT: f64 = 1.3;

/// A job's figures.
#[derive(Clone, Debug)]
pub struct Row {
    /// The job.
    pub job: &'static Job,
    /// On this system.
    pub ours: Cost,
    /// On bare QEMU.
    pub bare: Cost,
}

impl Row {
    /// Share of bare QEMU's speed, by executed instructions: the same on every host.
    pub fn ratio(&self) -> f64 {
        self.bare.all / self.ours.all
    }

    /// The same by the guest's clock, the wait for the device included.
    fn ratio_time(&self) -> f64 {
        // A time of 0 is noise: the host was busy during the shorter runs.
        if self.ours.time > 0.0 { self.bare.time / self.ours.time } else { 0.0 }
    }

    /// Instructions outside the guest.
    pub fn hypervisor(&self) -> f64 {
        self.ours.kernel + self.ours.pd
    }

    /// The floor of instructions decides; that of the ratio, which contains the peer's wait for its device, where there is
    /// none.
    fn misses(&self) -> bool {
        match (self.job.floor_instructions, self.job.floor_ratio) {
            (Some(floor), _) => self.hypervisor() > floor as f64,
            (None, Some(floor)) => self.ratio() < floor,
            (None, None) => false,
        }
    }

    fn json(&self) -> Value {
        let pds = self.ours.pds.iter().filter(|pd| pd.runs > 0.0).map(|pd| {
            let (instructions, runs) = (pd.instructions.round(), hundredths(pd.runs));
            (pd.name.clone(), json!({ "instructions": instructions, "runs": runs }))
        });
        json!({
            "name": self.job.name,
            "ours": self.ours.all.round(),
            "bare": self.bare.all.round(),
            "ratio": thousandths(self.ratio()),
            "hypervisor_instructions": self.hypervisor().round(),
            "exits": hundredths(self.ours.exits),
            "floor_ratio": self.job.floor_ratio,
            "floor_instructions": self.job.floor_instructions,
            "misses": self.misses(),
            "kernel_instructions": self.ours.kernel.round(),
            "pd_instructions": self.ours.pd.round(),
            "pd_entries": hundredths(self.ours.pd_entries),
            "pds": pds.collect::<serde_json::Map<_, _>>(),
            "ours_ns": self.ours.time.round(),
            "bare_ns": self.bare.time.round(),
            "ratio_ns": thousandths(self.ratio_time()),
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
            .map(|(job, (ours, bare))| Row { job, ours: ours.clone(), bare: bare.clone() })
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
        Ok(Self { kernel, commit: commit.to_owned(), rows, boot, idle: ours.idle.clone() })
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
    pub fn json(&self) -> Value {
        let (ours, bare) = &self.boot;
        json!({
            "commit": self.commit,
            "kernel": self.kernel,
            "unit": "instructions per request",
            "rows": self.rows.iter().map(Row::json).collect::<Vec<_>>(),
            "boot": {
                "ours": ours.all(),
                "bare": bare.all(),
                "kernel_instructions": ours.kernel,
                "pd_instructions": ours.pd,
                "times_bare": thousandths(self.boot_ratio()),
                "floor_times_bare": BOOT_LIMIT,
                "misses": self.boot_ratio() > BOOT_LIMIT,
            },
            "idle_second": {
                "exits": hundredths(self.idle.exits),
                "hypervisor_instructions": (self.idle.kernel + self.idle.pd).round(),
                "floor_exits": IDLE_LIMIT,
                "misses": self.idle.exits > IDLE_LIMIT,
            },
        })
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, then virtual ns", self.title())?;
        write!(f, "{:<16}{:>9}{:>9}{:>7}{:>7} |", "job", "ours", "bare", "ratio", "floor")?;
        write!(f, "{:>11}{:>7}{:>7}{:>7} |", "hypervisor", "limit", "seL4", "PDs")?;
        writeln!(f, "{:>6}{:>8} |{:>8}{:>8}{:>7}", "exits", "PD runs", "ns ours", "bare", "ratio")?;
        for row in &self.rows {
            let floor = row.job.floor_ratio.map_or("-".into(), |floor| format!("{floor:.2}"));
            let limit = row.job.floor_instructions.map_or("-".into(), |limit| limit.to_string());
            write!(f, "{:<16}{:>9.0}{:>9.0}", row.job.name, row.ours.all, row.bare.all)?;
            write!(f, "{:>7.2}{floor:>7} |{:>11.0}{limit:>7}", row.ratio(), row.hypervisor())?;
            write!(f, "{:>7.0}{:>7.0} |", row.ours.kernel, row.ours.pd)?;
            write!(f, "{:>6.1}{:>8.1} |", row.ours.exits, row.ours.pd_entries)?;
            write!(f, "{:>8.0}{:>8.0}{:>7.2}", row.ours.time, row.bare.time, row.ratio_time())?;
            writeln!(f, "{}", if row.misses() { "  misses" } else { "" })?;
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
            "boot to the guest's init: {:.0} million instructions, on bare QEMU {:.0}: {:.2} times (at most {BOOT_LIMIT}){}",
            ours.all() as f64 / 1e6,
            bare.all() as f64 / 1e6,
            self.boot_ratio(),
            if self.boot_ratio() > BOOT_LIMIT { "  misses" } else { "" }
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
        let cost =
            Cost { time: all * 1.2, kernel, pd: kernel / 2.0, all, exits, pd_entries, pds, stored: 0.0 };
        let boot = Counters { guest: 1_500_000_000, ..Counters::default() };
        Marks { boot, costs: vec![cost.clone(); JOBS.len()], idle: Cost { exits: 123.0, ..cost } }
    }

    fn new(ours: &Marks, bare: &Marks) -> Result<Table> {
        Table::new(ours, bare, &JOBS.iter().collect::<Vec<_>>(), "sel4", "abc")
    }

    /// One with made-up figures.
    pub(in crate::bench) fn example() -> Table {
        new(&marks(20_000.0, 55_000.0), &marks(0.0, 25_000.0)).unwrap()
    }

    #[test]
    fn figures_and_floors_are_shown() {
        let table = example();
        let text = table.to_string();
        assert!(text.contains("read-4k-qd1") && text.contains("  misses") && text.contains("0.45"), "{text}");
        assert!(text.contains("vmm 10000 (4.00)") && text.contains("1.00 times"), "{text}");
        let json = table.json();
        assert_eq!((&json["kernel"], &json["commit"]), (&json!("sel4"), &json!("abc")));
        let row = &json["rows"][0];
        assert_eq!((&row["name"], &row["ratio"]), (&json!("read-4k-qd1"), &json!(0.455)));
        assert_eq!(row["hypervisor_instructions"], json!(30_000.0));
        assert_eq!((&row["floor_ratio"], &row["misses"]), (&json!(0.66), &json!(true)));
        assert_eq!(row["pds"]["vmm"]["instructions"], json!(10_000.0));
        let unfloored = json["rows"].as_array().unwrap().iter().find(|row| row["name"] == "write-512-qd1");
        assert_eq!(
            unfloored.unwrap()["floor_ratio"],
            Value::Null,
            "the 512-byte write has no ratio to reach"
        );
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
