//! What the parts of a file demand of each other. Nothing may overlap: names, transports, partitions.

use std::{string::String, vec::Vec};

use partita_protocol::{MAX_DEVICES, layout::guest::LOAD_ALIGN};

use super::{Problems, suggest};
use crate::{Cell, Config, Disk, Partition};

/// Least memory of a guest.
const MEMORY_MIN: u64 = 16 << 20;
/// Greatest: guest RAM is mapped at a stride of 64 GiB in a service, and no board has as much.
const MEMORY_MAX: u64 = 16 << 30;
/// Transports that share a page; two drivers must not.
const SLOTS_PER_PAGE: u8 = 8;

/// Adds everything that is wrong.
pub fn check(config: &Config<'_>, problems: &mut Problems<'_>) {
    controllers(config, problems);
    for (n, cell) in config.cells.iter().enumerate() {
        let path = format!("cells[{n}]");
        if let Some(other) = config.cells.iter().take(n).position(|other| other.name == cell.name) {
            problems.add(
                format!("{path}.name"),
                twice(cell.name, &format!("cells[{other}]")),
                "choose another name",
            );
        }
        self::cell(&path, cell, problems);
    }
    disks(config, problems);
}

fn twice(name: &str, other: &str) -> String {
    format!("\"{name}\" is the name of {other} already")
}

fn controllers(config: &Config<'_>, problems: &mut Problems<'_>) {
    for (n, controller) in config.controllers.iter().enumerate() {
        let path = format!("controllers[{n}]");
        for (o, other) in config.controllers.iter().enumerate().take(n) {
            let other_path = format!("controllers[{o}]");
            if other.name == controller.name {
                problems.add(
                    format!("{path}.name"),
                    twice(controller.name, &other_path),
                    "choose another name",
                );
            }
            if other.slot == controller.slot {
                let wrong = format!("slot {} is used by {other_path} already", controller.slot);
                problems.add(format!("{path}.slot"), wrong, "choose another slot");
            } else if other.slot / SLOTS_PER_PAGE == controller.slot / SLOTS_PER_PAGE {
                let wrong =
                    format!("slots {} and {} ({other_path}) share a page", controller.slot, other.slot);
                problems.add(
                    format!("{path}.slot"),
                    wrong,
                    "give each controller one of 0-7, 8-15, 16-23, 24-31",
                );
            }
        }
    }
}

fn cell(path: &str, cell: &Cell<'_>, problems: &mut Problems<'_>) {
    let memory = cell.memory.0;
    if !(MEMORY_MIN..=MEMORY_MAX).contains(&memory) || !memory.is_multiple_of(LOAD_ALIGN) {
        let wrong = format!("is {}", cell.memory);
        problems.add(format!("{path}.memory"), wrong, "it must be a multiple of 2M from 16M to 16G");
    }
    if cell.budget_us > cell.period_us {
        let wrong = format!("{} is more than period_us, {}", cell.budget_us, cell.period_us);
        problems.add(format!("{path}.budget_us"), wrong, "the budget is a part of the period");
    }
    let devices = cell.devices().count();
    if devices > MAX_DEVICES {
        let wrong = format!("the cell has {devices} virtio devices");
        problems.add(format!("{path}.disks"), wrong, format!("it can have {MAX_DEVICES}"));
    }
}

/// A disk, where it is in the file, and whose it is.
struct Place<'a> {
    path: String,
    disk: &'a Disk<'a>,
}

fn disks(config: &Config<'_>, problems: &mut Problems<'_>) {
    let mut seen: Vec<Place<'_>> = Vec::new();
    for (n, cell) in config.cells.iter().enumerate() {
        for (d, disk) in cell.disks.iter().enumerate() {
            let path = format!("cells[{n}].disks[{d}]");
            if config.controller(disk.controller).is_none() {
                let names: Vec<&str> = config.controllers.iter().map(|controller| controller.name).collect();
                let wrong = format!("there is no controller \"{}\"", disk.controller);
                problems.add(format!("{path}.controller"), wrong, suggest::sentence(disk.controller, names));
            }
            for other in seen.iter().filter(|other| clash(disk, other.disk)) {
                let wrong = format!("overlaps {}.partition", other.path);
                let right = "a part of a disk has one user, unless all of them are read_only";
                problems.add(format!("{path}.partition"), wrong, right);
            }
            seen.push(Place { path, disk });
        }
    }
}

/// Whether two disks share sectors and one may write them, as far as the file tells. `blk` compares the resolved windows.
fn clash(a: &Disk<'_>, b: &Disk<'_>) -> bool {
    if a.controller != b.controller || (a.read_only && b.read_only) {
        return false;
    }
    match (&a.partition, &b.partition) {
        (Partition::Range { first: f, count: c }, Partition::Range { first: g, count: d }) => {
            let ends_after = |first: u64, count: Option<u64>, other: u64| {
                count.is_none_or(|count| first.saturating_add(count) > other)
            };
            ends_after(*f, *c, *g) && ends_after(*g, *d, *f)
        }
        (a, b) => a == b,
    }
}
