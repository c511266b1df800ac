//! The figures as a table and as JSON.

use std::fmt;

use super::{
    job::{JOBS, Job},
    marks::{Cost, Marks},
};
use crate::{fail, failure::Result};

/// VM exits that an idle guest may cost in a second.
const IDLE_LIMIT: f64 = 300.0;

/// A job's figures.
#[derive(Clone, Debug)]
struct Row {
    job: &'static Job,
    ours: Cost,
    bare: Cost,
}

impl Row {
    /// Share of bare QEMU's speed, by executed instructions: the same on every host.
    fn ratio(&self) -> f64 {
        self.bare.all / self.ours.all
    }

    /// The same by the guest's clock, the wait for the device included.
    fn ratio_time(&self) -> f64 {
        // A time of 0 is noise: the host was busy during the shorter runs.
        if self.ours.time > 0.0 { self.bare.time / self.ours.time } else { 0.0 }
    }

    fn hypervisor(&self) -> f64 {
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
}

/// All figures of one run.
#[derive(Clone, Debug)]
pub struct Table {
    kernel: &'static str,
    commit: String,
    rows: Vec<Row>,
    boot: (u64, u64),
    idle_exits: f64,
}

impl Table {
    /// From what the two machines counted.
    ///
    /// # Errors
    /// Figures that cannot be: nothing measured, or somebody else's instructions where only the guest runs.
    pub fn new(ours: &Marks, bare: &Marks, kernel: &'static str, commit: &str) -> Result<Self> {
        let rows: Vec<Row> = JOBS
            .iter()
            .zip(ours.costs.iter().zip(&bare.costs))
            .map(|(job, (&ours, &bare))| Row { job, ours, bare })
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
        }
        Ok(Self {
            kernel,
            commit: commit.to_owned(),
            rows,
            boot: (ours.boot, bare.boot),
            idle_exits: ours.idle_exits,
        })
    }

    /// `build/bench.json`.
    pub fn json(&self) -> String {
        let number = |value: Option<f64>| value.map_or("null".into(), |value| value.to_string());
        let rows: Vec<String> = self
            .rows
            .iter()
            .map(|row| {
                format!(
                    "    {{ \"name\": \"{}\", \"ours\": {:.0}, \"bare\": {:.0}, \"ratio\": {:.3}, \
                     \"ours_ns\": {:.0}, \"bare_ns\": {:.0}, \"ratio_ns\": {:.3}, \
                     \"hypervisor_instructions\": {:.0}, \"kernel_instructions\": {:.0}, \"pd_instructions\": {:.0}, \
                     \"exits\": {:.2}, \"pd_entries\": {:.2}, \"floor_ratio\": {}, \"floor_instructions\": {} }}",
                    row.job.name,
                    row.ours.all,
                    row.bare.all,
                    row.ratio(),
                    row.ours.time,
                    row.bare.time,
                    row.ratio_time(),
                    row.hypervisor(),
                    row.ours.kernel,
                    row.ours.pd,
                    row.ours.exits,
                    row.ours.pd_entries,
                    number(row.job.floor_ratio),
                    number(row.job.floor_instructions.map(|floor| floor as f64)),
                )
            })
            .collect();
        format!(
            "{{\n  \"commit\": \"{}\",\n  \"kernel\": \"{}\",\n  \"unit\": \"instructions per request\",\n  \
             \"boot\": {{ \"ours\": {}, \"bare\": {} }},\n  \"idle_exits_per_second\": {:.1},\n  \"rows\": [\n{}\n  ]\n}}\n",
            self.commit,
            self.kernel,
            self.boot.0,
            self.boot.1,
            self.idle_exits,
            rows.join(",\n")
        )
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kernel = if self.kernel == "sel4" { "seL4" } else { "the embedded kernel" };
        let commit = &self.commit;
        writeln!(f, "One request on {kernel}, commit {commit}: executed instructions, then virtual ns")?;
        write!(f, "{:<14}{:>9}{:>9}{:>7}{:>7} |", "job", "ours", "bare", "ratio", "floor")?;
        write!(f, "{:>11}{:>7}{:>7}{:>7} |", "hypervisor", "limit", "seL4", "PDs")?;
        writeln!(f, "{:>6}{:>8} |{:>8}{:>8}{:>7}", "exits", "PD runs", "ns ours", "bare", "ratio")?;
        for row in &self.rows {
            let floor = row.job.floor_ratio.map_or("-".into(), |floor| format!("{floor:.2}"));
            let limit = row.job.floor_instructions.map_or("-".into(), |limit| limit.to_string());
            write!(f, "{:<14}{:>9.0}{:>9.0}", row.job.name, row.ours.all, row.bare.all)?;
            write!(f, "{:>7.2}{floor:>7} |{:>11.0}{limit:>7}", row.ratio(), row.hypervisor())?;
            write!(f, "{:>7.0}{:>7.0} |", row.ours.kernel, row.ours.pd)?;
            write!(f, "{:>6.1}{:>8.1} |", row.ours.exits, row.ours.pd_entries)?;
            write!(f, "{:>8.0}{:>8.0}{:>7.2}", row.ours.time, row.bare.time, row.ratio_time())?;
            writeln!(f, "{}", if row.misses() { "  misses" } else { "" })?;
        }
        let (ours, bare) = self.boot;
        writeln!(
            f,
            "boot to the guest's init: {:.0} million instructions, on bare QEMU {:.0}: {:.2} times",
            ours as f64 / 1e6,
            bare as f64 / 1e6,
            ours as f64 / bare as f64
        )?;
        let verdict = if self.idle_exits < IDLE_LIMIT { "" } else { "  too many" };
        writeln!(
            f,
            "idle guest: {:.1} VM exits per virtual second (at most {IDLE_LIMIT:.0}){verdict}",
            self.idle_exits
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(kernel: f64, all: f64) -> Marks {
        let cost = Cost {
            time: all * 1.2,
            kernel,
            pd: kernel / 2.0,
            all,
            exits: kernel / 1000.0,
            pd_entries: kernel / 900.0,
        };
        Marks { boot: 1_500_000_000, costs: vec![cost; JOBS.len()], idle_exits: 123.0 }
    }

    #[test]
    fn figures_and_floors_are_shown() {
        let table = Table::new(&marks(20_000.0, 55_000.0), &marks(0.0, 25_000.0), "sel4", "abc").unwrap();
        let text = table.to_string();
        assert!(text.contains("read-4k-qd1") && text.contains("  misses") && text.contains("0.45"), "{text}");
        let json = table.json();
        assert!(json.contains("\"kernel\": \"sel4\"") && json.contains("\"ratio\": 0.455"), "{json}");
        assert!(json.contains("\"hypervisor_instructions\": 30000"), "{json}");
        assert!(json.contains("\"floor_ratio\": null"), "the 512-byte write has no floor: {json}");
        assert_eq!(json.matches('{').count(), json.matches('}').count());
    }

    #[test]
    fn figures_that_cannot_be_are_refused() {
        let ours = marks(20_000.0, 55_000.0);
        assert!(
            Table::new(&ours, &marks(10.0, 25_000.0), "sel4", "").is_err(),
            "not only the guest on bare QEMU"
        );
        assert!(Table::new(&marks(0.0, 25_000.0), &marks(0.0, 25_000.0), "sel4", "").is_err(), "no seL4");
        assert!(Table::new(&ours, &marks(0.0, 0.0), "sel4", "").is_err(), "nothing measured");
    }
}
