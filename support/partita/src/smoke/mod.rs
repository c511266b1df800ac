//! `partita smoke`: one scripted session that shows the whole path of the guests' disks, and a look at the disk afterwards.
//!
//! The guests work on a copy of their disk. Inside: shells on ext4 roots; all guests write random data at the same time
//! and note the hashes; the last guest is restarted while the others go on writing; everything is read back from the
//! devices with cold caches; requests beyond a guest's window must end in I/O errors. Afterwards, on the host: the file
//! systems are clean, the files have the same hashes, and not one byte outside the guests' windows differs from the
//! original.

pub mod disk;
mod guests;

use std::{process::Command, time::Duration};

use partita_config::{Boot, Config, Partition};

use crate::{
    build,
    context::Context,
    fail,
    failure::{Failure, Result},
    process,
    process::Progress,
    qemu,
    session::Session,
    tools,
};

/// An emulated guest on a busy machine is slow.
const LONG: Duration = Duration::from_secs(300);
const SHORT: Duration = Duration::from_secs(120);

/// A guest that is tested: a Linux with a shell on its console and its root on a labelled partition.
struct Subject<'a> {
    /// Number of the cell.
    cell: usize,
    name: &'a str,
    label: &'a str,
    window: disk::Window,
}

/// A file that a guest has written, and the hash that it saw.
struct Written {
    file: String,
    hash: String,
}

/// Builds, runs, checks; prints `smoke: ok`.
///
/// # Errors
/// The first thing that is not as it must be.
pub fn run(context: &Context) -> Result {
    tools::require(context, &[tools::QEMU])?;
    tools::require(context, tools::DISK)?;
    let built = build::build(context)?;
    let text = context.read_description()?;
    let config = context.parse(&text)?;
    let labels = labels(&config)?;
    let Some(original) = qemu::disk(context)? else {
        fail!("the description has no disk controller; the smoke test needs one");
    };
    let out = built.out.join("smoke");
    build::create(&out)?;
    let copy = out.join("disk.img");
    let mut cp = Command::new("cp");
    cp.args(["--sparse=always", "--reflink=auto"]).arg(&original).arg(&copy);
    process::run("Copying the disk", &mut cp)?;
    let subjects: Vec<Subject<'_>> = labels
        .into_iter()
        .map(|(cell, name, label)| Ok(Subject { cell, name, label, window: disk::find(&copy, label)? }))
        .collect::<Result<_>>()?;

    let mut machine = qemu::Machine::new(context, &built, Some(copy.clone()))?;
    machine.throwaway = true;
    let log = out.join("serial.log");
    let progress = Progress::new(&format!("Running the guests (all output: {})", log.display()));
    let session = Session::start(&mut machine.command(), &log);
    let written = session.and_then(|session| guests::run(session, &subjects, &progress));
    progress.end(written.is_ok());
    let written = written?;

    let progress = Progress::new("Checking the disk");
    let checked = check_disk(&original, &copy, &subjects, &written, &out.join("smoke.bin"));
    progress.end(checked.is_ok());
    checked?;
    println!("smoke: ok");
    Ok(())
}

/// The cells to test: number, name, and the label of the partition behind the first disk.
fn labels<'a>(config: &'a Config<'a>) -> Result<Vec<(usize, &'a str, &'a str)>> {
    let labels: Vec<_> = config
        .cells
        .iter()
        .enumerate()
        .filter(|(_, cell)| cell.boot == Boot::Linux && cell.autostart)
        .filter_map(|(n, cell)| match cell.disks.first()?.partition {
            Partition::Label(label) => Some((n, cell.name, label)),
            _ => None,
        })
        .collect();
    if labels.is_empty() {
        fail!("the smoke test needs a Linux cell whose first disk is a labelled GPT partition");
    }
    Ok(labels)
}

/// What the host finds on the disk; `written` has the files of each subject.
fn check_disk(
    original: &std::path::Path,
    copy: &std::path::Path,
    subjects: &[Subject<'_>],
    written: &[Vec<Written>],
    scratch: &std::path::Path,
) -> Result {
    for (subject, written) in subjects.iter().zip(written) {
        let named = |failure: Failure| Failure::new(format!("{}: {failure}", subject.name));
        disk::check_file_system(copy, &subject.window).map_err(named)?;
        for Written { file, hash } in written {
            disk::check_file(copy, &subject.window, file, scratch, hash).map_err(named)?;
        }
        println!(
            "  host: e2fsck finds {} clean, {} files have the hashes that {} saw",
            subject.label,
            written.len(),
            subject.name
        );
    }
    let windows: Vec<disk::Window> = subjects.iter().map(|subject| subject.window).collect();
    disk::check_outside(original, copy, &windows)?;
    let labels: Vec<&str> = subjects.iter().map(|subject| subject.label).collect();
    println!("  host: nothing outside {} has changed", labels.join(" and "));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::labels;

    #[test]
    fn subjects_are_the_linux_cells_with_a_labelled_root() {
        let text = r#"{ "controllers": [{ "name": "d", "kind": "virtio-mmio" }], "cells": [
            { "name": "bare", "memory": "16M", "kernel": "k", "boot": "binary" },
            { "name": "a", "memory": "16M", "kernel": "k", "disks": [{ "controller": "d", "partition": "one" }] },
            { "name": "off", "memory": "16M", "kernel": "k", "autostart": false,
              "disks": [{ "controller": "d", "partition": "three" }] },
            { "name": "b", "memory": "16M", "kernel": "k", "disks": [{ "controller": "d", "partition": "two" }] }
        ] }"#;
        let config = partita_config::host::parse("x", text).unwrap();
        assert_eq!(labels(&config).unwrap(), [(1, "a", "one"), (3, "b", "two")]);
        let none = r#"{ "cells": [{ "name": "a", "memory": "16M", "kernel": "k" }] }"#;
        assert!(labels(&partita_config::host::parse("x", none).unwrap()).is_err());
    }
}
