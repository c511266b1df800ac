//! `partita bench-kernel`: what the kernel charges for its operations, in instructions, on both kernels side by side.
//!
//! The programs of `tests/conformance` do the operations, with `bench.system`; the counting plugin notes what the kernel has
//! executed whenever they mark (see `bench/mod.rs` there). The same binaries run on both kernels, so the columns differ
//! by the kernels alone. A plugin rather than the counter register: on one clock with the programs one would have to take
//! their own instructions off again, and those of reading the counter.

use std::{fmt, fs, path::Path, process::Command, time::Duration};

use serde_json::{Value, json};

use super::{commit, counting, marks, plugin};
use crate::{
    build,
    context::Context,
    fail,
    failure::{Failure, Result},
    process::{self, Progress},
    qemu::{MEMORY_END, Machine},
    sdk::{self, Sdk},
    session::Session,
    tools,
};

/// From QEMU's start to the end of the measurements; a few seconds on an idle host.
const LIMIT: Duration = Duration::from_secs(300);

/// Measures, prints the table, writes `build/bench-kernel.json`.
///
/// # Errors
/// The build's; a machine that does not run to its end; figures that make no sense.
pub fn run(context: &Context) -> Result {
    tools::require(context, &[tools::QEMU, tools::CC])?;
    build::create(&context.build_dir())?;
    let plugin = plugin(context)?;
    let named = context.options.microkit_sdk.as_ref();
    let is_embedded = named.is_some_and(|dir| dir.join("EMBEDDED").exists());
    let mut contexts = vec![context.clone()];
    if named.is_some() && !is_embedded {
        let mut embedded = context.clone();
        embedded.options.microkit_sdk = None;
        contexts.insert(0, embedded);
    }
    let mut columns = Vec::new();
    for context in &contexts {
        let mut sdk = sdk::find(context)?;
        sdk.embedded |= is_embedded;
        let name = if sdk.embedded { "embedded" } else { "sel4" };
        columns.push((name, measure(context, &sdk, &plugin)?));
    }
    let table = Table::new(columns, &context.config.to_string(), &commit(context))?;
    print!("{table}");
    let json = context.build_dir().join("bench-kernel.json");
    build::write(&json, table.json().as_bytes())?;
    println!("The same as JSON: {}", json.display());
    Ok(())
}

/// Builds and runs the measuring system.
fn measure(context: &Context, sdk: &Sdk, plugin: &Path) -> Result<Vec<Operation>> {
    let out = context.programs().join("bench-kernel");
    build::create(&out)?;
    tools::rust_target(tools::TARGET)?;
    let target = context.programs().join("target");
    let mut command = Command::new(tools::cargo());
    command
        .current_dir(&context.root)
        .args(["build", "--release", "-p", "partita-conformance", "--target", tools::TARGET, "--target-dir"])
        .arg(&target)
        .env("SEL4_INCLUDE_DIRS", sdk.include(context))
        .env_remove("SEL4_PREFIX");
    process::run("Building the measuring program", &mut command)?;
    let loader = out.join("loader.img");
    let mut command = Command::new(sdk.tool());
    command
        .arg(context.root.join("tests/conformance/bench.system"))
        .args(["--board", context.board.name, "--config", &context.config.to_string(), "--search-path"])
        .arg(target.join(tools::TARGET).join("release"))
        .arg("-o")
        .arg(&loader)
        .arg("-r")
        .arg(out.join("report.txt"))
        .env("MICROKIT_SDK", &sdk.dir);
    process::run("Packing the image", &mut command)?;

    let counts = out.join("bench.counts");
    // Of an earlier run.
    let _ = fs::remove_file(&counts);
    let machine = Machine {
        loader,
        load: context.board.load,
        boot_files: None,
        memory_end: MEMORY_END,
        disk: None,
        throwaway: false,
        arguments: Vec::new(),
    };
    let mut command = machine.command();
    command.args(["-icount", "shift=0,sleep=off", "-plugin", &counting(plugin, &out.join("bench"))]);
    let progress = Progress::new(&format!("Measuring {}", sdk.dir.display()));
    let said = listen(&mut command, &out.join("bench.log"));
    progress.end(said.is_ok());
    let said = said?;
    let text = fs::read_to_string(&counts).map_err(|_| {
        Failure::new("QEMU counted nothing; bench-kernel needs QEMU 9.1 or newer, built with plugins")
    })?;
    operations(&said, &marks::kernel_instructions(&text)?)
}

/// Runs the machine to its end; what it printed.
fn listen(command: &mut Command, log: &Path) -> Result<String> {
    let mut session = Session::start(command, log)?;
    let said = session.expect("%% end\n", LIMIT)?;
    session.wait(Duration::from_secs(60))?;
    Ok(said)
}

/// What one operation costs.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Operation {
    name: String,
    /// The median of the rounds, and the least and the most.
    instructions: [u64; 3],
}

/// Puts the counts at the marks into the order of the measurements that were announced.
fn operations(said: &str, counts: &[u64]) -> Result<Vec<Operation>> {
    let mut operations = Vec::new();
    // The first mark starts the plugin, the last line is the end of the machine.
    let mut rest = counts.get(1..counts.len().saturating_sub(1)).unwrap_or_default();
    for line in said.lines().filter_map(|line| line.trim().strip_prefix("%% ")) {
        let mut words = line.split('|').map(str::trim);
        let Some(rounds) = words.next().and_then(|word| word.parse::<usize>().ok()).filter(|n| *n > 0) else {
            fail!("a measurement did not come to its end: {line}")
        };
        let phases: Vec<&str> = words.collect();
        let Some((marks, after)) = rest.split_at_checked(rounds * phases.len() + 1) else {
            fail!("there are not enough marks for: {line}")
        };
        rest = after;
        for (n, name) in phases.iter().enumerate().filter(|(_, name)| **name != "-") {
            let each = marks.windows(2).skip(n).step_by(phases.len());
            let mut each: Vec<u64> = each.map(|pair| pair[1].saturating_sub(pair[0])).collect();
            each.sort_unstable();
            let instructions = [marks::median(each.clone()), each[0], each[each.len() - 1]];
            operations.push(Operation { name: (*name).to_owned(), instructions });
        }
    }
    if !rest.is_empty() {
        fail!("there are {} marks more than were announced", rest.len());
    }
    Ok(operations)
}

/// Operations, and what they cost on each kernel.
struct Table {
    columns: Vec<&'static str>,
    rows: Vec<(String, Vec<[u64; 3]>)>,
    config: String,
    commit: String,
}

impl Table {
    fn new(columns: Vec<(&'static str, Vec<Operation>)>, config: &str, commit: &str) -> Result<Self> {
        let (names, columns): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
        let Some(first) = columns.first().filter(|first| !first.is_empty()) else {
            fail!("nothing was measured")
        };
        let mut rows = Vec::new();
        for (n, operation) in first.iter().enumerate() {
            let of = |column: &Vec<Operation>| {
                column.get(n).filter(|o| o.name == operation.name).map(|o| o.instructions)
            };
            let Some(figures) = columns.iter().map(of).collect::<Option<Vec<_>>>() else {
                fail!("{}: not measured on every kernel", operation.name)
            };
            if figures.iter().any(|[median, ..]| *median == 0) {
                fail!("{}: no instruction of the kernel was counted", operation.name);
            }
            rows.push((operation.name.clone(), figures));
        }
        Ok(Self { columns: names, rows, config: config.to_owned(), commit: commit.to_owned() })
    }

    fn json(&self) -> String {
        let rows = self.rows.iter().map(|(name, figures)| {
            let mut row = serde_json::Map::from_iter([("name".to_owned(), json!(name))]);
            for (kernel, [median, least, most]) in self.columns.iter().zip(figures) {
                row.insert((*kernel).to_owned(), json!(median));
                row.insert(format!("{kernel}_least_most"), json!([least, most]));
            }
            Value::Object(row)
        });
        let rows: Vec<Value> = rows.collect();
        let value = json!({
            "commit": self.commit, "config": self.config, "unit": "kernel instructions", "rows": rows,
        });
        format!("{value:#}\n")
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Instructions of the kernel, {}, commit {}", self.config, self.commit)?;
        write!(f, "{:<64}", "operation")?;
        self.columns.iter().try_for_each(|name| write!(f, "{name:>10}"))?;
        writeln!(f, "{}", if self.columns.len() == 2 { "     ratio" } else { "" })?;
        for (name, figures) in &self.rows {
            write!(f, "{name:<64}")?;
            figures.iter().try_for_each(|[median, ..]| write!(f, "{median:>10}"))?;
            if let [[ours, ..], [theirs, ..]] = figures[..] {
                write!(f, "{:>10.2}", ours as f64 / theirs as f64)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Marks of a measurement with one phase and of one with three, the second of which has no name.
    const SAID: &str = "boot\n%% 3 | alone\nnoise\n%% 2 | first | - | third\r\n";

    fn counts() -> Vec<u64> {
        // Start; 3 rounds; 2 rounds of three; end.
        let steps = [7, 100, 10, 12, 10, 1000, 20, 5, 30, 22, 5, 30, 9];
        steps
            .iter()
            .scan(0, |sum, step| {
                Some({
                    *sum += step;
                    *sum
                })
            })
            .collect()
    }

    fn operation(name: &str, instructions: [u64; 3]) -> Operation {
        Operation { name: name.into(), instructions }
    }

    #[test]
    fn marks_go_to_the_phases_that_were_announced() {
        let expected =
            [operation("alone", [10, 10, 12]), operation("first", [22, 20, 22]), operation("third", [30; 3])];
        assert_eq!(operations(SAID, &counts()).unwrap(), expected);
    }

    #[test]
    fn a_run_that_is_not_complete_is_refused() {
        let counts = counts();
        assert!(operations(SAID, &counts[..counts.len() - 1]).is_err(), "a mark is missing");
        assert!(operations(SAID, &[&counts[..], &[5000]].concat()).is_err(), "one too many");
        assert!(operations(&format!("{SAID}%% failed\n"), &counts).is_err());
        assert!(operations("%% 0 | x\n", &[1, 2]).is_err());
        assert!(operations(SAID, &[]).is_err());
    }

    #[test]
    fn kernels_stand_side_by_side() {
        let new = |columns| Table::new(columns, "release", "abc");
        let ours = vec![operation("call", [300, 290, 320]), operation("signal", [100; 3])];
        let theirs = vec![operation("call", [150; 3]), operation("signal", [400; 3])];
        let table = new(vec![("embedded", ours.clone()), ("sel4", theirs.clone())]).unwrap();
        let text = table.to_string();
        assert!(
            text.contains("call ")
                && text.contains("2.00")
                && text.contains("    ratio")
                && text.contains("0.25"),
            "{text}"
        );
        let json: Value = serde_json::from_str(&table.json()).unwrap();
        assert_eq!((&json["rows"][0]["embedded"], &json["rows"][0]["sel4"]), (&json!(300), &json!(150)));
        assert_eq!(json["rows"][0]["embedded_least_most"], json!([290, 320]));
        assert!(!new(vec![("embedded", ours.clone())]).unwrap().to_string().contains("    ratio"));

        assert!(new(vec![]).is_err() && new(vec![("embedded", vec![])]).is_err());
        assert!(new(vec![("embedded", ours.clone()), ("sel4", theirs[..1].to_vec())]).is_err());
        let nothing = vec![operation("call", [0; 3]), operation("signal", [1; 3])];
        assert!(new(vec![("embedded", nothing)]).is_err(), "the kernel is not where it was");
    }
}
