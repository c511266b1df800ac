//! `partita bench`: what a disk request costs on this system and on bare QEMU, in instructions, and what bytes between
//! guests cost ([`ivc`]).
//!
//! Both machines boot the same kernel, initramfs and root file system and run the same script: fio jobs with a fixed number
//! of requests, straight to a second disk, O_DIRECT, no I/O scheduler. `-icount shift=0` makes one instruction one virtual
//! nanosecond. Two things are measured:
//!
//! - **Virtual time** by the guest's clock, which neither seL4 nor the VMM ever stops or moves: what a user of the guest sees,
//!   waiting for the device included ([`clock`]). The wait is the host's real time, so these figures need a quiet host.
//! - **Executed instructions** by a QEMU plugin (`support/count`), split into guest, seL4 and PDs: exact, and without the
//!   wait. "Hypervisor instructions" are those outside the guest. A plugin rather than counters of ours, because counters
//!   in the kernel and the PDs would cost what they count, and do not exist on the official kernel.
//!
//! A job is counted with N and with 2N requests; the difference leaves out fio's own start and end. Each pair is run several
//! times and the median counts. Times are taken in runs of their own, without the plugin.
//!
//! `make bench` does all of it: the disk's jobs on both machines, their times, the flows between guests, and how the cost
//! grows ([`scaling`]). Every part's figures are in the file before the next one begins ([`report`]).

mod boot;
mod chart;
mod clock;
mod guest;
mod ivc;
mod job;
pub mod kernel;
mod marks;
mod report;
mod scaling;
mod table;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use crate::{
    build::{self, Built},
    context::Context,
    fail,
    failure::{Failure, Result},
    process::{self, Progress},
    qemu::{Machine, escape},
    session::Session,
    tools,
};
use serde_json::{Map, Value, json};

use clock::Host;
use guest::Place;
pub use job::Choice;
use marks::Marks;
use report::Report;
use scaling::Scaling;

/// From one step of a script to the next.
const LIMIT: Duration = Duration::from_secs(900);
/// Memory of the guest, on both machines.
const MEMORY: &str = "512M";

/// Runs the measurements; prints the tables and writes `build/bench.json`.
///
/// # Errors
/// The build's; a machine that does not run to its end; figures that make no sense. What was measured before is kept.
pub fn run(context: &Context, choice: &Choice) -> Result {
    tools::require(context, &[tools::QEMU])?;
    tools::require(context, tools::DISK)?;
    let out = context.out().join("bench");
    build::create(&out)?;
    build::guest_recipe(context, "all")?;
    let plugin = plugin(context)?;
    let lab = Lab { context, choice, out: &out, plugin: &plugin };
    let name = if choice.is_complete() { "bench" } else { "bench-part" };
    let json = context.build_dir().join(name).with_extension("json");
    let svg = json.with_extension("svg");
    let mut report = Report::new(json, &commit(context))?;
    if !choice.jobs().is_empty() {
        lab.disks(&mut report, &svg)?;
    }
    if choice.has(boot::NAME) {
        report.part(boot::NAME, lab.boot())?;
    }
    if !choice.flows().is_empty() {
        let flows = lab.flows();
        report.part("between guests", flows)?;
    }
    for part in scaling::PARTS.iter().filter(|part| choice.scales(part.series())) {
        let measured = Scaling::measure(&lab, *part).map(|scaling| {
            print!("{scaling}");
            let figures = json!({ part.name(): scaling.json() });
            keyed([("kernel", scaling.kernel.into()), ("scaling", figures)])
        });
        report.part(&part.name(), measured)?;
    }
    let json = report.end()?;
    print!("The same as JSON: {}", json.display());
    if !choice.jobs().is_empty() {
        print!(", as a picture: {}", svg.display());
    }
    println!();
    Ok(())
}

fn keyed<const N: usize>(values: [(&str, Value); N]) -> Map<String, Value> {
    values.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Where it is measured.
struct Lab<'a> {
    context: &'a Context,
    choice: &'a Choice,
    /// Directory of descriptions, logs and counts.
    out: &'a Path,
    plugin: &'a Path,
}

impl Lab<'_> {
    /// What a request to a disk costs, here and on bare QEMU: two parts, what is counted and what it takes.
    fn disks(&self, report: &mut Report, svg: &Path) -> Result {
        let description = described(self.context, self.out, "bench", &describe(self.context, "", ""))?;
        let built = build::build(&description)?;
        let mut table = match self.counted(&description, &built) {
            Ok(table) => table,
            Err(why) => return report.part("disk", Err(why)),
        };
        build::write(svg, chart::svg(&table).as_bytes())?;
        report.part("disk", Ok(table.json()))?;
        let times = self.timed(&description, &built);
        let times = times.map(|([ours, bare], others)| table.add_times(ours, bare, others));
        print!("{table}");
        report.part("disk, by the guest's clock", times.map(|()| table.json()))
    }

    fn counted(&self, description: &Context, built: &Built) -> Result<table::Table> {
        let (choice, jobs) = (self.choice, self.choice.jobs());
        let count = |name: &str, command: &mut Command, counting: &str, to: &Path| {
            let text = measure(name, command, counting, to)?;
            Marks::parse(&text, &jobs, choice.rounds())
        };
        let [(mut ours, _kept), (mut bare, _too)] =
            self.machines(description, built, &job::script(choice))?;
        let to = self.out.join("ours");
        let ours = count("this system", &mut ours, &counting_pds(built, choice, self.plugin, &to), &to)?;
        let to = self.out.join("bare");
        let bare = count("bare QEMU", &mut bare, &counting(self.plugin, &to), &to)?;
        table::Table::new(&ours, &bare, &jobs, kernel(built), &commit(self.context))
    }

    /// Times of every job here and on bare QEMU, and the processors that others had meanwhile.
    fn timed(&self, description: &Context, built: &Built) -> Result<([Vec<clock::Timing>; 2], Option<f64>)> {
        let (jobs, rounds) = (self.choice.jobs(), clock::rounds(self.choice.rounds));
        let machines = self.machines(description, built, &clock::script(&jobs, rounds))?;
        let begin = Host::now();
        let mut times = [Vec::new(), Vec::new()];
        for (((mut command, _disk), times), what) in
            machines.into_iter().zip(&mut times).zip(["ours", "bare"])
        {
            let progress = Progress::new(&format!("Taking times, {what}"));
            command.args(["-icount", "shift=0"]);
            let said = run_script(&mut command, &self.out.join(format!("{what}-times.log")), &progress);
            progress.end(said.is_ok());
            *times = clock::parse(&said?, &jobs, rounds)?;
        }
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let others = Host::now().zip(begin).and_then(|(end, begin)| end.others(&begin, processors));
        Ok((times, others))
    }

    /// The two machines with the same script, each on a disk of its own.
    fn machines(
        &self,
        description: &Context,
        built: &Built,
        script: &str,
    ) -> Result<[(Command, Scratch); 2]> {
        let original = self.context.guest_dir().join("disk.img");
        let disk = || -> Result<_> {
            let disk = Scratch::new(self.out);
            let (root, scratch) = guest::prepare(&original, &disk.0, self.out, [Some(script), None])?;
            Ok((disk, root, scratch))
        };
        let (first, ..) = disk()?;
        let mut machine = Machine::new(description, built, None)?;
        machine.arguments.extend(drive(&first.0, None, 0));
        let (second, root, scratch) = disk()?;
        let mut bare = bare(self.context);
        bare.args(drive(&second.0, Some(root), 0)).args(drive(&second.0, Some(scratch), 1));
        Ok([(machine.command(), first), (bare, second)])
    }

    /// What bytes between two guests cost.
    fn flows(&self) -> Result<Map<String, Value>> {
        let context = self.context;
        let text = ivc::description(|name| context.guest_dir().join(name).display().to_string());
        let description = described(context, self.out, "bench-ivc", &text)?;
        let built = build::build(&description)?;
        let disk = Scratch::new(self.out);
        let original = context.guest_dir().join("disk.img");
        let [first, second] = ivc::scripts(self.choice);
        guest::prepare(&original, &disk.0, self.out, [Some(&first), Some(&second)])?;

        let mut machine = Machine::new(&description, &built, None)?;
        machine.arguments.extend(drive(&disk.0, None, 0));
        let to = self.out.join("ivc");
        let counting = counting_pds(&built, self.choice, self.plugin, &to) + ",stores=1,strangers=guest";
        let text = measure("sockets and links", &mut machine.command(), &counting, &to)?;
        let flows = ivc::Flows::parse(&text, self.choice)?;
        print!("{flows}");
        Ok(keyed([("kernel", kernel(&built).into()), ("between_guests", flows.json())]))
    }
}

/// By the SDK's own mark: an embedded one may also be named as a directory.
fn kernel(built: &Built) -> &'static str {
    if built.sdk.embedded || built.sdk.dir.join("EMBEDDED").is_file() { "embedded" } else { "sel4" }
}

/// A disk image in memory if there is room, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(out: &Path) -> Self {
        let memory = Path::new("/dev/shm");
        // The image takes about 300 MiB, and the jobs write as much again.
        let room = process::output(Command::new("df").args(["-m", "--output=avail", "/dev/shm"]))
            .ok()
            .and_then(|text| text.lines().last()?.trim().parse::<u64>().ok())
            .is_some_and(|mib| mib > 2048);
        let dir = if room { memory } else { out };
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Relaxed);
        Self(dir.join(format!("partita-bench-{}-{number}.img", std::process::id())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It may never have been made.
        let _ = fs::remove_file(&self.0);
    }
}

/// Builds the QEMU plugin.
fn plugin(context: &Context) -> Result<PathBuf> {
    let target = context.build_dir().join("target");
    let mut command = Command::new(tools::cargo());
    command
        .current_dir(&context.root)
        .args(["build", "--release", "-p", "partita-count", "--target-dir"])
        .arg(&target);
    process::run("Building the counting plugin", &mut command)?;
    Ok(target.join("release/libpartita_count.so"))
}

/// The measured system: one cell with a root and a second disk. `system` and `cell` are more keys of either, each with its
/// comma behind it.
fn describe(context: &Context, system: &str, cell: &str) -> String {
    let file = |name: &str| context.guest_dir().join(name).display().to_string();
    format!(
        r#"{{ {system}
  "controllers": [{{ "name": "disk0", "kind": "virtio-mmio", "slot": 0 }}],
  "cells": [
    {{ {cell}
      "name": "debian1",
      "memory": "{MEMORY}",
      "vcpus": 1,
      "kernel": "{}",
      "initrd": "{}",
      "cmdline": "console=hvc0 {}",
      "disks": [
        {{ "controller": "disk0", "partition": "debian1" }},
        {{ "controller": "disk0", "partition": "debian2" }}
      ]
    }}
  ]
}}
"#,
        file("Image"),
        file("initrd.gz"),
        job::CMDLINE,
    )
}

/// A description of its own, in a file.
fn described(context: &Context, out: &Path, name: &str, text: &str) -> Result<Context> {
    let path = out.join(name).with_extension("json");
    build::write(&path, text.as_bytes())?;
    let mut options = context.options.clone();
    options.description = path;
    Context::new(options)
}

/// QEMU without us. The same machine, less its virtualization extension.
fn bare(context: &Context) -> Command {
    let file = |name: &str| context.guest_dir().join(name);
    let either = |chosen: &Option<PathBuf>, name: &str| chosen.clone().unwrap_or_else(|| file(name));
    let mut command = Command::new(tools::QEMU.program);
    command
        .args(["-machine", "virt", "-cpu", "cortex-a53", "-m", MEMORY, "-nographic", "-nic", "none"])
        .args(["-global", "virtio-mmio.force-legacy=false", "-kernel"])
        .arg(either(&context.options.guest_kernel, "Image"))
        .arg("-initrd")
        .arg(either(&context.options.guest_initrd, "initrd.gz"))
        .arg("-append")
        .arg(format!("console=ttyAMA0 {}", job::CMDLINE));
    command
}

/// A drive on virtio-mmio transport `slot`: all of the file or a part. Two drives of one file need its lock off.
fn drive(file: &Path, part: Option<Place>, slot: u32) -> Vec<String> {
    let part = part.map_or(String::new(), |place| format!(",offset={},size={}", place.offset, place.bytes));
    let file = escape(file);
    vec![
        "-drive".into(),
        format!(
            "file.filename={file},file.driver=file,file.locking=off,if=none,format=raw,cache=unsafe,id=d{slot}{part}"
        ),
        "-device".into(),
        format!("virtio-blk-device,drive=d{slot},bus=virtio-mmio-bus.{slot}"),
    ]
}

/// The option that loads the counting plugin, which writes beside `to`.
fn counting(plugin: &Path, to: &Path) -> String {
    format!("{},out={}", escape(plugin), escape(&to.with_extension("counts")))
}

/// The same, with the protection domains told apart.
fn counting_pds(built: &Built, choice: &Choice, plugin: &Path, to: &Path) -> String {
    let mut counting = counting(plugin, to);
    for pd in build::PDS {
        counting += &format!(",pd={pd}:{}", escape(&built.out.join(format!("{pd}.elf"))));
    }
    if let Some(profile) = &choice.profile {
        counting += &format!(",profile={}", escape(profile));
    }
    counting
}

/// Runs a machine from start to power-off: what the plugin counted.
fn measure(what: &str, command: &mut Command, counting: &str, to: &Path) -> Result<String> {
    let counts = to.with_extension("counts");
    // Of an earlier run.
    let _ = fs::remove_file(&counts);
    command.args(["-icount", "shift=0", "-plugin", counting]);
    let progress = Progress::new(&format!("Measuring {what}"));
    let result = run_script(command, &to.with_extension("log"), &progress);
    progress.end(result.is_ok());
    result?;
    read_counts(&counts)
}

/// The plugin's file.
fn read_counts(counts: &Path) -> Result<String> {
    fs::read_to_string(counts)
        .map_err(|_| Failure::new("QEMU counted nothing; bench needs QEMU 9.1 or newer, built with plugins"))
}

/// Runs the guest's script to its end; what it told behind `@fio`.
fn run_script(command: &mut Command, log: &Path, progress: &Progress) -> Result<Vec<String>> {
    let mut session = Session::start(command, log)?;
    let mut said = Vec::new();
    progress.detail("booting");
    loop {
        let (which, before) =
            session.expect_any(&["@step ", "partita.run: exit ", "@fio ", "Kernel panic"], LIMIT)?;
        match which {
            0 => progress.step(session.expect("\n", LIMIT)?.trim()),
            1 => break,
            2 => said.push(session.expect(" ms", LIMIT)?),
            _ => fail!("the guest's kernel panicked: {}", before.lines().last().unwrap_or_default()),
        }
    }
    let status = session.expect("\n", LIMIT)?;
    if status.trim() != "0" {
        fail!(
            "the benchmark script ended with {}; the guest's output is in {}",
            status.trim(),
            log.display()
        );
    }
    session.wait(Duration::from_secs(120))?;
    Ok(said)
}

/// The tree's commit; `-dirty` with changes.
fn commit(context: &Context) -> String {
    let mut git = Command::new("git");
    git.current_dir(&context.root).args(["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]);
    process::output(&mut git).map_or_else(|_| "unknown".into(), |text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drive_can_be_a_part_of_a_file() {
        let [_, whole, _, device] = drive(Path::new("/a,b"), None, 0).try_into().unwrap();
        assert!(whole.starts_with("file.filename=/a,,b,") && !whole.contains("offset"), "{whole}");
        assert_eq!(device, "virtio-blk-device,drive=d0,bus=virtio-mmio-bus.0");
        let [_, part, ..] =
            <[String; 4]>::try_from(drive(Path::new("/a"), Some(Place { offset: 512, bytes: 1024 }), 1))
                .unwrap();
        assert!(part.ends_with("id=d1,offset=512,size=1024"), "{part}");
    }
}
