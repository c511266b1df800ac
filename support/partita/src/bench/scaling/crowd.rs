//! Several guests at one disk.

use std::{fmt, fs, path::Path, process::Command, time::Duration};

use serde_json::{Value, json};

use super::cell;
use crate::{
    bench::{
        self, Lab,
        marks::{self, Counters, median},
    },
    build::Built,
    fail,
    failure::Result,
    process::Progress,
    session::Session,
};

/// Memory of each of several guests.
pub const MEMORY: &str = "256M";
/// Virtual seconds between the two answers of a window.
const WINDOW: &str = "1";
/// Requests that every guest has made before it begins.
const WARM: u64 = 100;
/// From QEMU's start to the end of the first window, and from one to the next.
const LIMIT: Duration = Duration::from_secs(900);

/// The script of all of them. The first one also watches: its command line says how many they are. No disk may be written: all
/// guests have the same ones.
fn script(fio: &str, rounds: u32) -> String {
    format!(
        r#"#!/bin/bash
# Written by `partita bench`.
set -eu
# As in the script of the jobs: not before Linux has random numbers.
head -c 32 /dev/random > /dev/null
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
for round in $(seq {rounds}); do
    /root/mark
    from=$(answered)
    /root/mark
    sleep {WINDOW}
    /root/mark
    to=$(answered)
    /root/mark
    echo "@window $from: $to;"
done
sleep 1000
"#
    )
}

/// Requests of each guest in a window, and what ran in it.
#[derive(Clone, Debug)]
struct Window {
    requests: Vec<u64>,
    ran: Counters,
}

impl Window {
    /// The least share against the greatest.
    fn fairness(&self) -> f64 {
        let (least, most) = (self.requests.iter().min(), self.requests.iter().max());
        least.copied().unwrap_or(0) as f64 / most.copied().unwrap_or(0).max(1) as f64
    }
}

/// What it cost and who got how much.
#[derive(Clone, Debug)]
pub struct Crowd {
    name: String,
    windows: Vec<Window>,
}

impl Crowd {
    /// The median of the windows.
    fn per_request(&self, of: fn(&Counters) -> u64) -> u64 {
        let one = |window: &Window| of(&window.ran) / window.requests.iter().sum::<u64>().max(1);
        median(self.windows.iter().map(one).collect())
    }

    /// Of all windows.
    fn requests(&self) -> Vec<u64> {
        let guests = self.windows.first().map_or(0, |window| window.requests.len());
        (0..guests).map(|n| self.windows.iter().map(|window| window.requests[n]).sum()).collect()
    }

    pub fn json(&self) -> Value {
        // The median of shares, which are no integers.
        let mut fairness: Vec<f64> = self.windows.iter().map(Window::fairness).collect();
        fairness.sort_by(f64::total_cmp);
        json!({
            "series": "guests",
            "guests": self.requests().len(),
            "name": self.name,
            "requests": self.requests(),
            "fairness": fairness.get(fairness.len() / 2).map(|share| (share * 1000.0).round() / 1000.0),
            "hypervisor_instructions": self.per_request(|ran| ran.kernel + ran.pd),
            "pd_instructions": self.per_request(|ran| ran.pd),
            "instructions": self.per_request(Counters::all),
        })
    }
}

impl fmt::Display for Crowd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [hypervisor, pds, all] =
            [|ran: &Counters| ran.kernel + ran.pd, |ran: &Counters| ran.pd, Counters::all]
                .map(|of| self.per_request(of));
        let requests = self.requests();
        write!(f, "{:<41}{hypervisor:>11}{pds:>9}{all:>9}{:>10} ", self.name, requests.iter().sum::<u64>())?;
        if requests.len() > 1 {
            self.windows.iter().try_for_each(|window| write!(f, " {:.2}", window.fairness()))?;
            write!(f, "; {requests:?}")?;
        }
        Ok(())
    }
}

impl Lab<'_> {
    /// So many guests that all do the same, of each of these jobs.
    pub(super) fn crowds(&self, guests: usize, jobs: &[(&str, &str)]) -> Result<(&'static str, Vec<Crowd>)> {
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
        let file = format!("scaling-guests-{guests}");
        let (description, built) = self.system(&file, &cells)?;
        let mut crowds = Vec::new();
        for (job, fio) in jobs {
            let (machine, _disk) = self.machine(&description, &built, &script(fio, self.choice.rounds))?;
            let plural = if guests == 1 { "" } else { "s" };
            let name = format!("{guests} guest{plural}, {job} each");
            crowds.push(self.crowd(name, guests, &mut machine.command(), &built)?);
        }
        Ok((bench::kernel(&built), crowds))
    }

    fn crowd(&self, name: String, guests: usize, command: &mut Command, built: &Built) -> Result<Crowd> {
        let to = self.out.join(name.replace([' ', ','], "-"));
        let counting = bench::counting_pds(built, self.choice, self.plugin, &to);
        let counts = to.with_extension("counts");
        // Of an earlier run.
        let _ = fs::remove_file(&counts);
        command.args(["-icount", "shift=0", "-plugin", &counting]);
        let progress = Progress::new(&format!("Measuring {name}"));
        let windows = watch(command, &to.with_extension("log"), self.choice.rounds, &progress);
        progress.end(windows.is_ok());
        let windows = windows?;
        judge(name, guests, &bench::read_counts(&counts)?, &windows)
    }
}

/// Requests of each guest answered before a window and after it.
type Answered = (Vec<u64>, Vec<u64>);

/// Runs the machine until the first guest has told of so many windows.
fn watch(command: &mut Command, log: &Path, rounds: u32, progress: &Progress) -> Result<Vec<Answered>> {
    let mut session = Session::start(command, log)?;
    let mut windows = Vec::new();
    for round in 1..=rounds {
        progress.step(&format!("window {round} of {rounds}"));
        let (which, _) = session.expect_any(&["@window ", "partita.run: exit ", "Kernel panic"], LIMIT)?;
        if which != 0 {
            fail!("the first guest did not come to its window; its output is in {}", log.display());
        }
        let line = session.expect(";", LIMIT)?;
        let (from, to) = line.split_once(':').unwrap_or_default();
        let numbers = |text: &str| text.split_whitespace().map_while(|word| word.parse().ok()).collect();
        windows.push((numbers(from), numbers(to)));
    }
    session.quit()?;
    Ok(windows)
}

/// What the plugin counted between the middles of each two answers, and the requests between them.
fn judge(name: String, guests: usize, text: &str, answered: &[Answered]) -> Result<Crowd> {
    let marks = marks::counters(text)?;
    let mut windows = Vec::new();
    // What is behind the last window's marks is the end of the machine.
    for (n, (from, to)) in answered.iter().enumerate() {
        let Some([a, b, c, d]) = marks.get(4 * n..4 * n + 4) else {
            fail!("{name}: the guest made {} marks instead of {}", marks.len(), 4 * answered.len());
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
        windows.push(Window { requests, ran });
    }
    Ok(Crowd { name, windows })
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
        judge("2 guests".into(), 2, &text, &[(vec![10, 20], vec![960, 1020])]).unwrap()
    }

    #[test]
    fn the_window_is_from_middle_to_middle() {
        let crowd = example();
        let window = &crowd.windows[0];
        assert_eq!(window.requests, [950, 1000]);
        assert_eq!((window.ran.kernel, window.ran.pd, window.ran.guest), (3300, 100, 500));
        assert_eq!(window.fairness(), 0.95);
    }

    #[test]
    fn of_several_windows_the_median_counts() {
        let window = |requests: [u64; 2], kernel: u64| Window {
            requests: requests.to_vec(),
            ran: Counters { kernel, ..Counters::default() },
        };
        let windows =
            vec![window([50, 100], 150 * 30), window([100, 80], 180 * 20), window([90, 100], 190 * 70)];
        let crowd = Crowd { name: "2 guests".into(), windows };
        let json = crowd.json();
        assert_eq!((&json["fairness"], &json["instructions"]), (&json!(0.8), &json!(30)));
        assert_eq!(json["requests"], json!([240, 280]));
        assert!(crowd.to_string().ends_with(" 0.50 0.80 0.90; [240, 280]"), "{crowd}");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let text = format!("{HEAD}{}", "1 0 0 0 0 0 0 0 0\n".repeat(5));
        let judge =
            |from: &[u64], to: &[u64]| judge("2 guests".into(), 2, &text, &[(from.to_vec(), to.to_vec())]);
        assert!(judge(&[0, 0], &[500, 500]).is_ok());
        assert!(judge(&[0, 0], &[500]).is_err(), "a guest is missing");
        assert!(judge(&[500, 500], &[500, 500]).is_err(), "nobody reads");
        let short = super::judge("2 guests".into(), 2, HEAD, &[(vec![0, 0], vec![500, 500])]);
        assert!(short.is_err(), "no marks");
    }

    #[test]
    fn the_script_is_for_the_shell() {
        let text = script("--rw=randread", 3);
        assert!(
            text.contains("--runtime=100000 --rw=randread\n") && text.contains("[^}]*\"reads\""),
            "{text}"
        );
        assert_eq!(text.matches("/root/mark\n").count(), 4);
    }
}
