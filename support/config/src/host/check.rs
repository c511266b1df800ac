//! What the parts of a file demand of each other. Nothing may overlap: names, transports, partitions.

use std::{string::String, vec::Vec};

use partita_protocol::{MAX_CELL_LINKS, MAX_DEVICES, layout::guest};

use super::{Problems, sockets, suggest};
use crate::{Boot, Cell, Config, ConsoleKind, Disk, Link, OnHang, Partition, Size};

/// Least memory of a guest.
const MEMORY_MIN: u64 = 16 << 20;
/// Greatest: guest RAM is mapped at a stride of 64 GiB in a service, and no board has as much.
const MEMORY_MAX: u64 = 16 << 30;
/// Least rate of a disk: 1 MiB, the most that one request usually has, takes 16 s of it.
const RATE_MIN: u64 = 64 << 10;
/// Sectors of 512 bytes whose place in bytes still has a number.
const SECTORS_MAX: u64 = 1 << 55;
/// Transports that share a page; two drivers must not.
const SLOTS_PER_PAGE: u8 = 8;
/// Interrupt of transport 0.
const FIRST_IRQ: u32 = 48;

/// Adds everything that is wrong.
pub fn check(config: &Config<'_>, problems: &mut Problems<'_>) {
    if let Some(address) = config.boot_files
        && !address.0.is_multiple_of(guest::LOAD_ALIGN)
    {
        problems.add("boot_files", format!("is {address}"), "it must be a multiple of 2M");
    }
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
        if let Some(own) = cell.fixed_memory()
            && let Some(other) = config.cells.iter().take(n).position(|other| {
                other.fixed_memory().is_some_and(|other| own.start < other.end && other.start < own.end)
            })
        {
            let wrong = format!("overlaps the memory of cells[{other}]");
            problems.add(format!("{path}.memory_address"), wrong, "choose another address");
        }
    }
    files(config, problems);
    disks(config, problems);
    links(config, problems);
    super::passthrough::check(config, problems);
    sockets::check(config, problems);
}

/// Names of files that the host tool makes: beside them, a file of the user's could not be found by the packer.
const GENERATED: &[&str] = &[
    "partita.json",
    "system.xml",
    "guests.img",
    "supervisor.elf",
    "pulse.elf",
    "timer.elf",
    "console.elf",
    "blk.elf",
    "ivc.elf",
    "vmm.elf",
];

fn files(config: &Config<'_>, problems: &mut Problems<'_>) {
    for (n, cell) in config.cells.iter().enumerate() {
        for (key, file) in [("kernel", Some(cell.kernel)), ("initrd", cell.initrd)] {
            let Some(file) = file else { continue };
            let is_cells = |cell: &Cell<'_>| {
                [".dtb", ".boot"].iter().any(|ending| file.strip_suffix(ending) == Some(cell.name))
            };
            if GENERATED.contains(&file) || config.cells.iter().any(is_cells) {
                let wrong = format!("\"{file}\" is the name of a file that is generated");
                problems.add(
                    format!("cells[{n}].{key}"),
                    wrong,
                    "rename the file, or put it into a directory",
                );
            }
        }
    }
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
                let irq = FIRST_IRQ + u32::from(controller.slot);
                let wrong =
                    format!("slot {} (interrupt {irq}) is used by {other_path} already", controller.slot);
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
    if !(MEMORY_MIN..=MEMORY_MAX).contains(&memory) || !memory.is_multiple_of(guest::LOAD_ALIGN) {
        let wrong = format!("is {}", cell.memory);
        problems.add(format!("{path}.memory"), wrong, "it must be a multiple of 2M from 16M to 16G");
    }
    if let Some(address) = cell.memory_address
        && !address.0.is_multiple_of(guest::LOAD_ALIGN)
    {
        problems.add(
            format!("{path}.memory_address"),
            format!("is {address}"),
            "it must be a multiple of 2M",
        );
    }
    if cell.budget_us() > cell.period_us() {
        let wrong = format!("{} is more than period_us, {}", cell.budget_us(), cell.period_us());
        problems.add(format!("{path}.budget_us"), wrong, "the budget is a part of the period");
    }
    if cell.on_hang != OnHang::Report && cell.watchdog_seconds == 0 {
        let right = "set watchdog_seconds to the seconds of silence that are too many";
        problems.add(format!("{path}.on_hang"), "nobody watches this cell", right);
    }
    if let (Boot::Linux, Some(cmdline)) = (cell.boot, cell.cmdline) {
        command_line(&format!("{path}.cmdline"), cell, cmdline, problems);
    }
    let devices = cell.devices().count();
    if devices > MAX_DEVICES {
        let wrong = format!("the cell has {devices} virtio devices");
        problems.add(format!("{path}.disks"), wrong, format!("it can have {MAX_DEVICES}"));
    }
}

/// What Linux would wait for in vain, or say to nobody.
fn command_line(path: &str, cell: &Cell<'_>, cmdline: &str, problems: &mut Problems<'_>) {
    let words = || cmdline.split_ascii_whitespace();
    let root = words().rev().find_map(|word| word.strip_prefix("root=/dev/vd")?.bytes().next());
    if let Some(letter @ b'a'..=b'z') = root
        && usize::from(letter - b'a') >= cell.disks.len()
    {
        let disk = format!("/dev/vd{}", char::from(letter));
        let wrong = match cell.disks.len() {
            0 => format!("root is on {disk}, and the cell has no disks"),
            1 => format!("root is on {disk}, and the cell has only /dev/vda"),
            count => format!("root is on {disk}, and the cell has {count} disks, /dev/vda first"),
        };
        problems.add(path, wrong, "add the disk to disks, or name one that is there");
    }
    let hvc = words().any(|word| word == "console=hvc0" || word.starts_with("console=hvc0,"));
    if hvc && cell.console == ConsoleKind::Pl011 {
        let right = "write console=ttyAMA0, or \"console\": \"virtio\"";
        problems.add(path, "console=hvc0 is a virtio-console, and the cell has only a PL011", right);
    }
}

/// A disk, where it is in the file, and whose it is.
struct Place<'a> {
    path: String,
    cell: usize,
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
            if let Partition::Range { first, count: Some(count) } = disk.partition
                && first + count > SECTORS_MAX
            {
                let wrong = format!("ends at sector {}", first + count);
                problems.add(format!("{path}.partition.range"), wrong, "no disk has more than 2^55 sectors");
            }
            if disk.bytes_per_second.is_some_and(|rate| rate.0 < RATE_MIN) {
                let wrong = format!("is {}", disk.bytes_per_second.unwrap_or_default());
                problems.add(
                    format!("{path}.bytes_per_second"),
                    wrong,
                    "it must be at least 64K: a guest waits for one large request no longer than its patience",
                );
            }
            if let Some(serial) = disk.serial
                && let Some(other) = seen.iter().find(|o| o.cell == n && o.disk.serial == Some(serial))
            {
                let wrong = format!("\"{serial}\" is the serial of {} already", other.path);
                problems.add(
                    format!("{path}.serial"),
                    wrong,
                    "a guest tells its disks apart by it: choose another",
                );
            }
            let at_same = seen.iter().filter(|other| other.disk.controller == disk.controller);
            if let Some(kind) = table_kind(disk)
                && let Some((other, theirs)) =
                    at_same.filter_map(|o| Some((&o.path, table_kind(o.disk)?))).find(|(_, k)| *k != kind)
            {
                let wrong = format!("is a partition of {kind}, {other}.partition one of {theirs}");
                let right = format!("the disk of {} has one partition table", disk.controller);
                problems.add(format!("{path}.partition"), wrong, right);
            }
            for other in seen.iter().filter(|other| clash(disk, other.disk)) {
                let wrong = format!("overlaps {}.partition", other.path);
                let right = "a part of a disk has one user, unless all of them are read_only";
                problems.add(format!("{path}.partition"), wrong, right);
            }
            seen.push(Place { path, cell: n, disk });
        }
    }
}

/// Pages of a link's sections.
const PAGE: u64 = 4 << 10;

fn links(config: &Config<'_>, problems: &mut Problems<'_>) {
    for (n, link) in config.links.iter().enumerate() {
        let path = format!("links[{n}]");
        let id = |n: usize, link: &Link<'_>| link.id.map_or(n, usize::from);
        for (o, other) in config.links.iter().enumerate().take(n) {
            if other.name == link.name {
                let wrong = twice(link.name, &format!("links[{o}]"));
                problems.add(format!("{path}.name"), wrong, "choose another name");
            }
            if id(o, other) == id(n, link) {
                let wrong = format!("{} is the id of links[{o}] already", id(n, link));
                problems.add(format!("{path}.id"), wrong, "guests tell links apart by it: choose another");
            }
        }
        for (p, peer) in link.peers.iter().enumerate() {
            let path = format!("{path}.peers[{p}]");
            if config.cell(peer).is_none() {
                let names = config.cells.iter().map(|cell| cell.name);
                let wrong = format!("there is no cell \"{peer}\"");
                problems.add(path, wrong, suggest::sentence(peer, names.collect::<Vec<_>>()));
            } else if let Some(other) = link.peers.iter().take(p).position(|other| other == peer) {
                let wrong = format!("\"{peer}\" is peer {other} already");
                problems.add(path, wrong, "a cell is in a link once");
            } else if config.links.iter().take(n).filter(|l| l.peers.contains(peer)).count() == MAX_CELL_LINKS
            {
                let wrong = format!("\"{peer}\" is in {MAX_CELL_LINKS} links already");
                problems.add(path, wrong, "hvisor's guests can be told of no more");
            }
        }
        for (key, size, least) in [("shared", link.shared, 0), ("output", link.output, PAGE)] {
            if size.0 < least || !size.0.is_multiple_of(PAGE) || size.0 > guest::LINK_STRIDE {
                let wrong = format!("is {size}");
                let from = if least == 0 { "0K" } else { "4K" };
                let right =
                    format!("it must be a multiple of 4K from {from} to {}", Size(guest::LINK_STRIDE));
                problems.add(format!("{path}.{key}"), wrong, right);
            }
        }
        if link.bytes() > guest::LINK_STRIDE {
            let wrong = format!("has {} of memory", Size(link.bytes()));
            let right = format!("there is room for {} in a guest's address space", Size(guest::LINK_STRIDE));
            problems.add(path, wrong, right);
        }
    }
}

/// The partition table that the disk must have.
fn table_kind(disk: &Disk<'_>) -> Option<&'static str> {
    match disk.partition {
        Partition::Label(_) | Partition::Gpt(_) => Some("a GPT"),
        Partition::Mbr(_) => Some("an MBR"),
        Partition::Range { .. } => None,
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
