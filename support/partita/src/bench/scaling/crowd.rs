//! Several guests at one disk.

use std::{fmt, fs, process::Command, time::Duration};

use serde_json::{Value, json};

use super::{Lab, cell};
use crate::{
    bench::marks::{self, Counters},
    fail,
    failure::{Failure, Result},
    process::Progress,
    session::Session,
};

/// Memory of each of several guests.
pub const MEMORY: &str = "256M";
/// Virtual seconds between the two answers.
const WINDOW: &str = "1";
/// Requests that every guest has made before it begins.
const WARM: u64 = 100;
/// From QEMU's start to the end of the window.
const LIMIT: Duration = Duration::from_secs(1800);

/// The script of all of them. The first one also watches: its command line says how many they are. No disk may be written: all
/// guests have the same ones.
fn script(fio: &str) -> String {
    format!(
        r#"#!/bin/bash
# Written by `partita bench`.
set -eu
cd /tmp
echo none > /sys/block/vdb/queue/scheduler
read_on() {{
    exec fio --name=job --filename=/dev/vdb --readonly --direct=1 --ioengine=libaio --size=256m --randrepeat=1 \
        --norandommap --thread --gtod_reduce=1 --minimal --output=/dev/null --time_based --runtime=100000 {fio}
}}
guests=$(sed -n 's/.*bench.guests=\([0-9]*\).*/\1/p' /proc/cmdline)
[ "$guests" ] || read_on
answered() {{ # of every guest's second disk, in the order of the guests
    partitactl --json disks | grep -oE '"disk":1,[^}}]*"reads":[0-9]+' | grep -oE '[0-9]+$' | tr '\n' ' '
}}
warm() {{
    local all=0 reads
    for reads in $(answered); do [ $reads -lt {WARM} ] || all=$((all + 1)); done
    [ $all = $guests ]
}}
read_on &
until warm; do sleep 0.1; done
/root/mark
from=$(answered)
/root/mark
sleep {WINDOW}
/root/mark
to=$(answered)
/root/mark
echo "@window $from: $to;"
sleep 1000
"#
    )
}

/// What it cost and who got how much.
#[derive(Clone, Debug)]
pub struct Crowd {
    name: String,
    /// Requests of each guest in the window.
    requests: Vec<u64>,
    /// What ran in it.
    ran: Counters,
}

impl Crowd {
    fn per_request(&self, instructions: u64) -> f64 {
        instructions as f64 / self.requests.iter().sum::<u64>().max(1) as f64
    }

    /// The least share against the greatest.
    fn fairness(&self) -> f64 {
        let (least, most) = (self.requests.iter().min(), self.requests.iter().max());
        least.copied().unwrap_or(0) as f64 / most.copied().unwrap_or(0).max(1) as f64
    }

    pub fn json(&self) -> Value {
        json!({
            "guests": self.requests.len(),
            "name": self.name,
            "requests": self.requests,
            "fairness": (self.fairness() * 1000.0).round() / 1000.0,
            "hypervisor_instructions": self.per_request(self.ran.kernel + self.ran.pd).round(),
            "pd_instructions": self.per_request(self.ran.pd).round(),
            "instructions": self.per_request(self.ran.all()).round(),
        })
    }
}

impl fmt::Display for Crowd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [self.ran.kernel + self.ran.pd, self.ran.pd, self.ran.all()].map(|n| self.per_request(n));
        write!(f, "{:<41}{:>11.0}{:>9.0}{:>9.0}", self.name, all[0], all[1], all[2])?;
        write!(f, "{:>10}{:>10.2}", self.requests.iter().sum::<u64>(), self.fairness())
    }
}

impl Lab<'_> {
    /// So many guests that do the same.
    pub fn crowd(&self, guests: usize, name: &str, fio: &str) -> Result<Crowd> {
        let cells: Vec<_> = (1..=guests)
            .map(|n| {
                let (keys, argument) = match n {
                    1 => (r#""cid": 3, "manager": true,"#, format!(" bench.guests={guests}")),
                    _ => (r#""manager": false,"#, String::new()),
                };
                let cmdline = format!("quiet root=/dev/vda ro partita.run=/root/bench.sh{argument}");
                cell(self.context, n, keys, 1, &cmdline, r#", "read_only": true"#)
            })
            .collect();
        let to = self.context.out().join("bench").join(format!("scaling-guests-{guests}"));
        let file = to.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (machine, counting, _disk) = self.machine(&file, &cells, &script(fio))?;
        let counts = to.with_extension("counts");
        // Of an earlier run.
        let _ = fs::remove_file(&counts);
        let mut command = machine.command();
        command.args(["-icount", "shift=0", "-plugin", &counting]);
        let plural = if guests == 1 { "" } else { "s" };
        let name = format!("{guests} guest{plural}, {name} each");
        let progress = Progress::new(&format!("Measuring {name}"));
        let window = watch(&mut command, &to.with_extension("log"));
        progress.end(window.is_ok());
        let (from, end) = window?;
        let text = fs::read_to_string(&counts).map_err(|_| {
            Failure::new("QEMU counted nothing; bench needs QEMU 9.1 or newer, built with plugins")
        })?;
        judge(name, guests, &text, &from, &end)
    }
}

/// Runs the machine until the first guest has said what was answered before and after the window.
fn watch(command: &mut Command, log: &std::path::Path) -> Result<(Vec<u64>, Vec<u64>)> {
    let mut session = Session::start(command, log)?;
    let (which, _) = session.expect_any(&["@window ", "partita.run: exit ", "Kernel panic"], LIMIT)?;
    if which != 0 {
        fail!("the first guest did not come to its window; its output is in {}", log.display());
    }
    let line = session.expect(";", LIMIT)?;
    let (from, to) = line.split_once(':').unwrap_or_default();
    let numbers = |text: &str| text.split_whitespace().map_while(|word| word.parse().ok()).collect();
    let window = (numbers(from), numbers(to));
    session.quit()?;
    Ok(window)
}

/// What the plugin counted between the middles of the two answers, and the requests between them.
fn judge(name: String, guests: usize, text: &str, from: &[u64], to: &[u64]) -> Result<Crowd> {
    let marks = marks::counters(text)?;
    let [a, b, c, d, ..] = marks.as_slice() else {
        fail!("{name}: the guest made {} marks instead of 4", marks.len());
    };
    let requests: Vec<u64> = to.iter().zip(from).map(|(to, from)| to.saturating_sub(*from)).collect();
    if (from.len(), to.len()) != (guests, guests) || requests.iter().all(|count| *count < 100) {
        fail!("{name}: answered before the window {from:?}, after it {to:?}");
    }
    let (first, second) = (c - a, d - b);
    let middle = |of: fn(&Counters) -> u64| (of(&first) + of(&second)) / 2;
    let ran = Counters {
        kernel: middle(|c| c.kernel),
        pd: middle(|c| c.pd),
        guest: middle(|c| c.guest),
        ..Counters::default()
    };
    Ok(Crowd { name, requests, ran })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const HEAD: &str = "# kernel guest_kernel guest_user pd pd:vmm exits pd_entries runs:pd runs:pd:vmm\n";

    pub fn example() -> Crowd {
        // The answers take 200 and 400 instructions of the kernel, of which half are in the window.
        let text = format!(
            "{HEAD}1000 0 0 0 0 0 0 0 0\n1200 0 0 0 0 0 0 0 0\n4200 500 0 60 40 0 0 0 0\n4600 500 0 60 40 0 0 0 0\n4700 500 0 60 40 0 0 0 0\n"
        );
        judge("2 guests".into(), 2, &text, &[10, 20], &[960, 1020]).unwrap()
    }

    #[test]
    fn the_window_is_from_middle_to_middle() {
        let crowd = example();
        assert_eq!(crowd.requests, [950, 1000]);
        assert_eq!((crowd.ran.kernel, crowd.ran.pd, crowd.ran.guest), (3300, 100, 500));
        assert_eq!(crowd.fairness(), 0.95);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let text = format!("{HEAD}{}", "1 0 0 0 0 0 0 0 0\n".repeat(5));
        let judge = |from: &[u64], to: &[u64]| judge("2 guests".into(), 2, &text, from, to);
        assert!(judge(&[0, 0], &[500, 500]).is_ok());
        assert!(judge(&[0, 0], &[500]).is_err(), "a guest is missing");
        assert!(judge(&[500, 500], &[500, 500]).is_err(), "nobody reads");
        let short = super::judge("2 guests".into(), 2, HEAD, &[0, 0], &[500, 500]);
        assert!(short.is_err(), "no marks");
    }

    #[test]
    fn the_script_is_for_the_shell() {
        let text = script("--rw=randread");
        assert!(
            text.contains("--runtime=100000 --rw=randread\n") && text.contains("[^}]*\"reads\""),
            "{text}"
        );
        assert_eq!(text.matches("/root/mark\n").count(), 4);
    }
}
