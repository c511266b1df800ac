//! `partita bench`: what a disk request costs on this system and on bare QEMU, in instructions, and what bytes between
//! guests cost ([`ivc`]).
//!
//! Both machines boot the same kernel, initramfs and root file system and run the same script: fio jobs with a fixed number
//! of requests, straight to a second disk, O_DIRECT, no I/O scheduler. `-icount shift=0` makes one instruction one virtual
//! nanosecond. Two things are measured:
//!
//! - **Virtual time** by the guest's clock, which neither seL4 nor the VMM ever stops or moves: what a user of the guest sees,
//!   waiting for the device included. The wait is the host's real time, so these figures need a quiet host.
//! - **Executed instructions** by a QEMU plugin (`support/count`), split into guest, seL4 and PDs: exact, and without the
//!   wait. "Hypervisor instructions" are those outside the guest. A plugin rather than counters of ours, because counters
//!   in the kernel and the PDs would cost what they count, and do not exist on the official kernel.
//!
//! A job runs with N and with 2N requests; the difference leaves out fio's own start and end. Each pair is run several
//! times: of instructions the median counts, of times the least, as what a host adds by being busy is never negative.

mod chart;
mod guest;
mod ivc;
mod job;
pub mod kernel;
mod marks;
mod scaling;
mod table;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
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
use serde_json::Value;

use guest::Place;
pub use job::Choice;
use marks::Marks;
use scaling::Scaling;

/// From QEMU's start to the end of the script.
const LIMIT: Duration = Duration::from_secs(1800);
/// Memory of the guest, on both machines.
const MEMORY: &str = "512M";

/// Runs the measurements; prints the table and writes `build/bench.json`.
///
/// # Errors
/// The build's; a machine that does not run to its end; figures that make no sense.
pub fn run(context: &Context, choice: &Choice) -> Result {
    tools::require(context, &[tools::QEMU])?;
    tools::require(context, tools::DISK)?;
    let out = context.out().join("bench");
    build::create(&out)?;
    build::guest_recipe(context, "all")?;
    let plugin = plugin(context)?;
    let mut values = serde_json::Map::new();
    let mut chart = None;
    if !choice.jobs().is_empty() {
        let table = disks(context, choice, &out, &plugin)?;
        print!("{table}");
        if let Value::Object(table) = table.json() {
            values.extend(table);
        }
        chart = Some(chart::svg(&table));
    }
    if !choice.flows().is_empty() {
        let (flows, kernel) = flows(context, choice, &out, &plugin)?;
        print!("{flows}");
        values.insert("commit".into(), commit(context).into());
        values.insert("kernel".into(), kernel.into());
        values.insert("between_guests".into(), flows.json());
    }
    if choice.scaling.is_some() {
        let scaling = Scaling::measure(context, choice, &plugin)?;
        print!("{scaling}");
        values.insert("commit".into(), commit(context).into());
        values.insert("kernel".into(), scaling.kernel.into());
        values.insert("scaling".into(), scaling.json());
    }
    let name = if choice.is_complete() { "bench" } else { "bench-part" };
    let json = context.build_dir().join(name).with_extension("json");
    build::write(&json, format!("{:#}\n", Value::Object(values)).as_bytes())?;
    print!("The same as JSON: {}", json.display());
    if let Some(chart) = chart {
        let svg = json.with_extension("svg");
        build::write(&svg, chart.as_bytes())?;
        print!(", as a picture: {}", svg.display());
    }
    println!();
    Ok(())
}

/// What a request to a disk costs, here and on bare QEMU.
fn disks(context: &Context, choice: &Choice, out: &Path, plugin: &Path) -> Result<table::Table> {
    let description = described(context, out, "bench", &describe(context))?;
    let built = build::build(&description)?;
    let disk = Scratch::new(out);
    let original = context.guest_dir().join("disk.img");
    let script = job::script(choice);
    let (root, scratch) = guest::prepare(&original, &disk.0, out, [Some(&script), None])?;

    let mut machine = Machine::new(&description, &built, None)?;
    machine.arguments.extend(drive(&disk.0, None, 0));
    let counting = counting_pds(&built, choice, plugin, &out.join("ours"));
    let text = measure("this system", &mut machine.command(), &counting, &out.join("ours"))?;
    let ours = Marks::parse(&text.0, &text.1, &choice.jobs(), choice.rounds())?;

    let mut command = bare(context);
    command.args(drive(&disk.0, Some(root), 0)).args(drive(&disk.0, Some(scratch), 1));
    let counting = self::counting(plugin, &out.join("bare"));
    let text = measure("bare QEMU", &mut command, &counting, &out.join("bare"))?;
    let bare = Marks::parse(&text.0, &text.1, &choice.jobs(), choice.rounds())?;
    table::Table::new(&ours, &bare, &choice.jobs(), kernel(&built), &commit(context))
}

/// What bytes between two guests cost, and the kernel's name.
fn flows(
    context: &Context,
    choice: &Choice,
    out: &Path,
    plugin: &Path,
) -> Result<(ivc::Flows, &'static str)> {
    let text = ivc::description(|name| context.guest_dir().join(name).display().to_string());
    let description = described(context, out, "bench-ivc", &text)?;
    let built = build::build(&description)?;
    let disk = Scratch::new(out);
    let original = context.guest_dir().join("disk.img");
    let [first, second] = ivc::scripts(choice);
    guest::prepare(&original, &disk.0, out, [Some(&first), Some(&second)])?;

    let mut machine = Machine::new(&description, &built, None)?;
    machine.arguments.extend(drive(&disk.0, None, 0));
    let to = out.join("ivc");
    let counting = counting_pds(&built, choice, plugin, &to) + ",stores=1,strangers=guest";
    let (text, _) = measure("sockets and links", &mut machine.command(), &counting, &to)?;
    Ok((ivc::Flows::parse(&text, choice)?, kernel(&built)))
}

const fn kernel(built: &Built) -> &'static str {
    if built.sdk.embedded { "embedded" } else { "sel4" }
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
        Self(dir.join(format!("partita-bench-{}.img", std::process::id())))
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

/// The measured system: one cell with a root and a second disk.
fn describe(context: &Context) -> String {
    let file = |name: &str| context.guest_dir().join(name).display().to_string();
    format!(
        r#"{{
  "controllers": [{{ "name": "disk0", "kind": "virtio-mmio", "slot": 0 }}],
  "cells": [
    {{
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

/// Runs a machine from start to power-off: what the plugin counted, and the times that the script told.
fn measure(what: &str, command: &mut Command, counting: &str, to: &Path) -> Result<(String, Vec<u64>)> {
    let counts = to.with_extension("counts");
    // Of an earlier run.
    let _ = fs::remove_file(&counts);
    command.args(["-icount", "shift=0", "-plugin", counting]);
    let progress = Progress::new(&format!("Measuring {what}"));
    let result = run_script(command, &to.with_extension("log"), &progress);
    progress.end(result.is_ok());
    let times = result?;
    let text = fs::read_to_string(&counts).map_err(|_| {
        Failure::new("QEMU counted nothing; bench needs QEMU 9.1 or newer, built with plugins")
    })?;
    Ok((text, times))
}

/// Runs the guest's script to its end; the microseconds that it took between marks.
fn run_script(command: &mut Command, log: &Path, progress: &Progress) -> Result<Vec<u64>> {
    let mut session = Session::start(command, log)?;
    let mut times = Vec::new();
    progress.detail("booting");
    loop {
        let (which, before) =
            session.expect_any(&["@step ", "partita.run: exit ", "@time ", "Kernel panic"], LIMIT)?;
        match which {
            0 => progress.detail(&session.expect("\n", LIMIT)?),
            1 => break,
            2 => times.extend(session.expect(" us", LIMIT)?.parse::<u64>()),
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
    Ok(times)
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
