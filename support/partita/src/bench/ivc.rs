//! What bytes between guests cost: sockets by way of the broker, and the pipe over a shared-memory link.
//!
//! Two Debian guests run a script each, the first of which makes the marks: every flow with an amount and with twice as
//! much, and the difference counts, as for disks. There is no bare machine to compare with. What counts is what the guests
//! do not pay for themselves: instructions of seL4 and of the protection domains, and the **bytes that the latter store**: one
//! for each byte that arrives is one copy. The plugin sees every store, so nothing that copies can stay out of the figure.

use std::fmt::{self, Write as _};

use serde_json::{Value, json};

use super::{
    job::Choice,
    marks::{self, Cost},
    table::{hundredths, thousandths},
};
use crate::{fail, failure::Result};

/// What is counted in a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// KiB that arrive.
    Kib,
    /// Round trips.
    RoundTrip,
}

/// One way of sending.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// Its name in the table.
    pub name: &'static str,
    /// What its amount is counted in.
    pub unit: Unit,
    /// That of the shorter run; the longer has twice as much.
    pub amount: u64,
    /// The first guest's command; `$1` is the amount.
    sends: &'static str,
    /// The second guest's for each run, if it has to start something.
    answers: Option<&'static str>,
    /// Bytes that PDs may store for each that arrives: the copies, and what keeping count takes.
    stores_at_most: Option<f64>,
}

const fn flow(
    name: &'static str,
    (unit, amount): (Unit, u64),
    sends: &'static str,
    answers: Option<&'static str>,
    stores_at_most: Option<f64>,
) -> Flow {
    Flow { name, unit, amount, sends, answers, stores_at_most }
}

/// All of them.
pub const FLOWS: &[Flow] = &[
    flow(
        "vsock-guest",
        (Unit::Kib, 16 << 10),
        "socat -u -b 65536 OPEN:/dev/zero,readbytes=$(($1 * 1024)) VSOCK-CONNECT:4:5000",
        None,
        Some(1.5),
    ),
    flow(
        "vsock-discard",
        (Unit::Kib, 16 << 10),
        "socat -u -b 65536 OPEN:/dev/zero,readbytes=$(($1 * 1024)) VSOCK-CONNECT:2:9",
        None,
        None,
    ),
    flow(
        "vsock-chargen",
        (Unit::Kib, 4 << 10),
        "socat -u -b 65536 VSOCK-CONNECT:2:19,readbytes=$(($1 * 1024)) OPEN:/dev/null",
        None,
        None,
    ),
    flow(
        "pipe",
        (Unit::Kib, 16 << 10),
        "partita-pipe --wait 300 source $1K",
        Some("partita-pipe --wait 300 sink"),
        Some(0.25),
    ),
    flow(
        "doorbell",
        (Unit::RoundTrip, 2000),
        "partita-pipe --wait 300 ping $1",
        Some("partita-pipe --wait 300 pong"),
        None,
    ),
];

/// The two cells, as they are in a description; FILE(x) stands for the guest's file x.
pub fn description(file: impl Fn(&str) -> String) -> String {
    let cell = |n: u32, cid: u32| {
        format!(
            r#"    {{ "name": "debian{n}", "memory": "256M", "kernel": "{}", "initrd": "{}", "cid": {cid},
      "cmdline": "console=hvc0 quiet root=LABEL=debian{n} rw partita.run=/root/bench.sh",
      "disks": [{{ "controller": "disk0", "partition": "debian{n}" }}] }}"#,
            file("Image"),
            file("initrd.gz"),
        )
    };
    format!(
        r#"{{
  "controllers": [{{ "name": "disk0", "kind": "virtio-mmio", "slot": 0 }}],
  "cells": [
{},
{}
  ],
  "sockets": [
    {{ "from": "debian1", "to": "debian2", "ports": [5000, 5001] }},
    {{ "from": "debian1", "to": "host", "ports": [9, 19] }}
  ],
  "links": [{{ "name": "l0", "peers": ["debian1", "debian2"], "shared": "0K", "output": "256K" }}]
}}
"#,
        cell(1, 3),
        cell(2, 4)
    )
}

/// The scripts of both guests.
pub fn scripts(choice: &Choice) -> [String; 2] {
    let mut first = String::from(
        "#!/bin/bash\n# Written by `partita bench`, as /root/bench.sh of the guest that makes the marks.\nset -eu\n\
         until socat -u OPEN:/dev/null VSOCK-CONNECT:4:5001 2> /dev/null; do sleep 1; done\nsleep 1\n/root/mark\n",
    );
    let mut second = String::from(
        "#!/bin/bash\n# The other guest's.\nset -eu\nsocat -u VSOCK-LISTEN:5000,fork OPEN:/dev/null &\nlistener=$!\n\
         socat -u VSOCK-LISTEN:5001 OPEN:/dev/null\n",
    );
    for round in 1..=choice.rounds {
        for flow in choice.flows() {
            // Writing to a string does not fail.
            let _ = writeln!(first, "echo \"@step round {round} of {}: {}\"", choice.rounds, flow.name);
            for amount in [flow.amount, 2 * flow.amount] {
                // An end of a pipe that is opened again takes from the other what that has not read yet.
                let pause = if flow.answers.is_some() { "sleep 2; " } else { "" };
                let sends = flow.sends;
                let _ =
                    writeln!(first, "{pause}set -- {amount}; /root/mark; {sends} > /dev/null; /root/mark");
                if let Some(answers) = flow.answers {
                    let _ = writeln!(second, "{answers} > /dev/null; sleep 1");
                }
            }
        }
    }
    first += "until socat -u OPEN:/dev/null VSOCK-CONNECT:4:5001 2> /dev/null; do sleep 1; done\n";
    second += "socat -u VSOCK-LISTEN:5001 OPEN:/dev/null\nkill $listener\n";
    [first, second]
}

/// A flow's figures.
#[derive(Clone, Debug)]
struct Row {
    flow: &'static Flow,
    /// Of a KiB or of a round trip.
    cost: Cost,
}

impl Row {
    fn hypervisor(&self) -> f64 {
        self.cost.kernel + self.cost.pd
    }

    fn bytes_per_thousand(&self) -> Option<f64> {
        (self.flow.unit == Unit::Kib).then(|| 1024.0 * 1000.0 / self.hypervisor())
    }

    /// Bytes that `stored` in a KiB are for each that arrives.
    fn per_byte(&self, stored: f64) -> Option<f64> {
        (self.flow.unit == Unit::Kib).then_some(stored / 1024.0)
    }

    /// Bytes that PDs stored.
    fn stored(&self) -> f64 {
        self.cost.pds.iter().map(|pd| pd.stored).sum()
    }

    fn misses(&self) -> bool {
        match (self.flow.stores_at_most, self.per_byte(self.stored())) {
            (Some(limit), Some(stores)) => stores > limit,
            _ => false,
        }
    }
}

/// The figures of one run.
#[derive(Clone, Debug)]
pub struct Flows {
    rows: Vec<Row>,
}

impl Flows {
    /// Reads the plugin's file.
    ///
    /// # Errors
    /// It does not have the script's marks; figures that cannot be.
    pub fn parse(text: &str, choice: &Choice) -> Result<Self> {
        let flows = choice.flows();
        let amounts: Vec<u64> = flows.iter().map(|flow| flow.amount).collect();
        let costs = marks::costs(text, &amounts, choice.rounds())?;
        let rows: Vec<Row> = flows.into_iter().zip(costs).map(|(flow, cost)| Row { flow, cost }).collect();
        for row in &rows {
            let name = row.flow.name;
            if row.cost.kernel < 1.0 || row.cost.pd < 1.0 || row.stored() < 1.0 {
                fail!("{name}: no instruction or no store of seL4 or of a protection domain was counted");
            }
            // A guest's payload that crosses the broker was stored by somebody.
            if name == "vsock-guest" && row.stored() < 1024.0 {
                fail!("{name}: {:.0} bytes stored for a KiB that arrives make no sense", row.stored());
            }
        }
        Ok(Self { rows })
    }

    /// For `build/bench.json`.
    pub fn json(&self) -> Value {
        let row = |row: &Row| {
            let cost = &row.cost;
            let pds = cost.pds.iter().filter(|pd| pd.runs > 0.0).map(|pd| {
                let (instructions, runs) = (pd.instructions.round(), hundredths(pd.runs));
                let value =
                    json!({ "instructions": instructions, "runs": runs, "stored": pd.stored.round() });
                (pd.name.clone(), value)
            });
            json!({
                "name": row.flow.name,
                "unit": match row.flow.unit { Unit::Kib => "KiB", Unit::RoundTrip => "round trip" },
                "bytes_per_1000_instructions": row.bytes_per_thousand().map(f64::round),
                "hypervisor_instructions": row.hypervisor().round(),
                "kernel_instructions": cost.kernel.round(),
                "pd_instructions": cost.pd.round(),
                "exits": hundredths(cost.exits),
                "stored_by_kernel": (cost.stored - row.stored()).round(),
                "stored_per_byte": row.per_byte(row.stored()).map(thousandths),
                "floor_stored_per_byte": row.flow.stores_at_most,
                "misses": row.misses(),
                "pds": pds.collect::<serde_json::Map<_, _>>(),
            })
        };
        Value::Array(self.rows.iter().map(row).collect())
    }
}

impl fmt::Display for Flows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Between guests: a KiB, or a round trip of two doorbells, in instructions outside of the guests"
        )?;
        write!(f, "{:<16}{:>13}{:>12}", "flow", "bytes/1000", "hypervisor")?;
        writeln!(f, "{:>8}{:>8} |{:>7} | bytes stored by PDs for each that arrives", "seL4", "PDs", "exits")?;
        for row in &self.rows {
            let bytes = row.bytes_per_thousand().map_or("-".into(), |bytes| format!("{bytes:.0}"));
            write!(f, "{:<16}{bytes:>13}{:>12.0}", row.flow.name, row.hypervisor())?;
            write!(f, "{:>8.0}{:>8.0} |{:>7.2} |", row.cost.kernel, row.cost.pd, row.cost.exits)?;
            if let Some(all) = row.per_byte(row.stored()) {
                write!(f, " {all:.3}")?;
                for pd in row.cost.pds.iter().filter(|pd| pd.stored >= 1.0) {
                    write!(f, ", {} {:.3}", pd.name, pd.stored / 1024.0)?;
                }
            }
            if let Some(limit) = row.flow.stores_at_most {
                write!(f, " (at most {limit})")?;
            }
            writeln!(f, "{}", if row.misses() { "  misses" } else { "" })?;
        }
        writeln!(f, "By protection domain: instructions (times it was switched to)")?;
        for row in &self.rows {
            write!(f, "{:<16}", row.flow.name)?;
            for pd in row.cost.pds.iter().filter(|pd| pd.runs > 0.0) {
                write!(f, " {} {:.0} ({:.2})", pd.name, pd.instructions, pd.runs)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(rounds: u32) -> Choice {
        Choice { job: Vec::new(), rounds, scaling: None, profile: None }
    }

    #[test]
    fn both_scripts_have_the_same_runs() {
        let [first, second] = scripts(&choice(3));
        assert_eq!(first.matches("/root/mark").count(), 1 + 3 * FLOWS.len() * 4);
        for flow in FLOWS {
            let (sends, answers) = (first.matches(flow.sends).count(), flow.answers);
            assert_eq!(sends, 6, "{}", flow.name);
            assert!(answers.is_none_or(|answers| second.matches(answers).count() == 6), "{}", flow.name);
        }
        let one = Choice { job: vec!["pipe".into()], ..choice(1) };
        assert!(one.jobs().is_empty());
        assert_eq!(scripts(&one)[0].matches("/root/mark").count(), 5);
        assert!(choice(1).jobs().len() > 1);
        partita_config::parse(description(|name| name.into()).as_bytes()).unwrap();
    }

    /// Every KiB costs 600 instructions of seL4 and 400 of ivc, which stores `stored` bytes.
    fn file(stored: u64) -> String {
        let mut text = String::from(
            "# kernel guest_kernel guest_user pd pd:ivc exits pd_entries runs:pd runs:pd:ivc stored:kernel \
             stored:guest_kernel stored:pd stored:pd:ivc\n",
        );
        let mut now = [0_u64; 13];
        let line = |now: &[u64]| now.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ") + "\n";
        text += &line(&now);
        for flow in FLOWS {
            for amount in [flow.amount, 2 * flow.amount] {
                text += &line(&now);
                for (column, more) in [(0, 600), (4, 400), (5, 1), (8, 1), (9, 10), (12, stored)] {
                    now[column] += more * amount;
                }
                text += &line(&now);
            }
        }
        text + &line(&now)
    }

    #[test]
    fn copies_are_seen() {
        let flows = Flows::parse(&file(1074), &choice(1)).unwrap();
        let json = flows.json();
        assert_eq!(json[0]["bytes_per_1000_instructions"], json!(1024.0));
        assert_eq!((&json[0]["stored_per_byte"], &json[0]["misses"]), (&json!(1.049), &json!(false)));
        let (name, misses) = (&json[3]["name"], &json[3]["misses"]);
        assert_eq!((name, misses), (&json!("pipe"), &json!(true)), "nobody copies for a pipe");
        assert_eq!(json[4]["bytes_per_1000_instructions"], Value::Null);
        assert!(flows.to_string().contains("ivc 400 (1.00)"));
        let twice = Flows::parse(&file(2 * 1024), &choice(1)).unwrap();
        assert_eq!(twice.json()[0]["misses"], json!(true));
        assert!(Flows::parse(&file(100), &choice(1)).is_err(), "less than what arrives");
        assert!(Flows::parse("", &choice(1)).is_err());
    }
}
