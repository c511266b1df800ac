//! The commands: what can be typed, what is wrong with it, what comes out.

use core::fmt::{self, Write};

use heapless::{String, Vec};
use partita_config::Partition;
use partita_protocol::disk_stats::{BUCKETS, LATENCY_SHIFT};
use partita_protocol::stats::Counter;
use partita_protocol::supervisor::StopReason;
use partita_protocol::{MAX_CELLS, MAX_DISKS};

use super::table::{self, Bytes, Time, number, text};
use super::view::{CellView, DiskView, System};
use crate::lifecycle::Order;

/// Words after a command that are looked at.
pub const WORDS: usize = 4;

/// A command as `help` shows it.
pub struct Command {
    /// What is typed.
    pub name: &'static str,
    argument: Argument,
    help: &'static str,
    run: Run,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Argument {
    None,
    Cell,
    MaybeCell,
}

#[derive(Clone, Copy)]
enum Run {
    Cells,
    Order(Order),
    Disks,
    Links,
    Stats,
    ShutDown,
    Help,
}

impl Command {
    /// Whether the name of a cell can follow it.
    pub fn takes_cell(&self) -> bool {
        matches!(self.argument, Argument::Cell | Argument::MaybeCell)
    }
}

const fn command(name: &'static str, argument: Argument, run: Run, help: &'static str) -> Command {
    Command { name, argument, help, run }
}

/// All of them.
pub const COMMANDS: [Command; 11] = [
    command("cells", Argument::None, Run::Cells, "what the guests do"),
    command("start", Argument::Cell, Run::Order(Order::Start), "start a guest with fresh memory"),
    command("stop", Argument::Cell, Run::Order(Order::Stop), "switch a guest off at once, as by its plug"),
    command("pause", Argument::Cell, Run::Order(Order::Pause), "stop its vCPUs where they are"),
    command("resume", Argument::Cell, Run::Order(Order::Resume), "let a paused guest go on"),
    command("restart", Argument::Cell, Run::Order(Order::Restart), "start it afresh, whatever it does now"),
    command("disks", Argument::None, Run::Disks, "their windows, requests and latencies"),
    command("links", Argument::None, Run::Links, "links between guests"),
    command("stats", Argument::MaybeCell, Run::Stats, "exits and interrupts of one guest or all"),
    command("shutdown", Argument::None, Run::ShutDown, "stop all guests and switch the machine off"),
    command("help", Argument::None, Run::Help, "this list"),
];

/// Characters of names that are compared.
const NAME: usize = 64;

/// Edit distance (insert, delete, replace) of two names.
fn distance(a: &str, b: &str) -> usize {
    let mut row: [usize; NAME + 1] = core::array::from_fn(|n| n);
    for (i, x) in a.bytes().take(NAME).enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (above, y) in row.iter_mut().skip(1).zip(b.bytes()) {
            let replaced = diagonal + usize::from(x != y);
            diagonal = *above;
            left = replaced.min(left + 1).min(*above + 1);
            *above = left;
        }
    }
    row.get(b.len().min(NAME)).copied().unwrap_or(usize::MAX)
}

/// The candidate that was most likely meant, if one is near.
fn nearest<'a>(typed: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = |name: &str| {
        let distance = distance(typed, name);
        let prefix = !typed.is_empty() && name.starts_with(typed);
        (prefix || distance <= 1 + name.len() / 4).then_some(distance)
    };
    candidates
        .filter_map(|name| Some((near(name)?, name)))
        .min_by_key(|(near, _)| *near)
        .map(|(_, name)| name)
}

/// Runs one line. `Err` only if `out` fails.
pub fn execute(name: &str, words: &[&str], system: &mut impl System, out: &mut dyn Write) -> fmt::Result {
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
        write!(out, "there is no command {name}")?;
        if let Some(meant) = nearest(name, COMMANDS.iter().map(|command| command.name)) {
            write!(out, "; did you mean {meant}?")?;
        }
        return out.write_str(" (help lists all commands)\n");
    };
    let cell = match (command.argument, words) {
        (Argument::None, []) | (Argument::MaybeCell, []) => None,
        (Argument::Cell | Argument::MaybeCell, [name]) => match find(system, name) {
            Some(cell) => Some(cell),
            None => return no_cell(system, name, out),
        },
        (Argument::None, _) => return writeln!(out, "{name} stands alone; nothing can follow it"),
        (Argument::Cell, _) => return writeln!(out, "{name} takes the name of one cell: {name} NAME"),
        (Argument::MaybeCell, _) => {
            return writeln!(out, "{name} takes the name of one cell, or nothing for all: {name} [NAME]");
        }
    };
    match (command.run, cell) {
        (Run::Order(order), Some(n)) => give(system, n, order, out),
        (Run::Stats, cell) => stats(system, cell, out),
        (Run::Disks, _) => disks(system, out),
        (Run::Links, _) => out.write_str("no links: this version has no inter-VM communication\n"),
        (Run::ShutDown, _) => {
            out.write_str("all guests are stopped, then the machine goes off\n")?;
            system.shut_down();
            Ok(())
        }
        (Run::Help, _) => help(out),
        (Run::Cells | Run::Order(_), _) => cells(system, out),
    }
}

/// A cell by its name, or by the number of its console.
fn find(system: &impl System, name: &str) -> Option<usize> {
    let named = (0..MAX_CELLS).find(|n| system.cell(*n).is_some_and(|cell| cell.name == name));
    let numbered = || name.parse::<usize>().ok()?.checked_sub(1).filter(|n| system.cell(*n).is_some());
    named.or_else(numbered)
}

fn no_cell(system: &impl System, typed: &str, out: &mut dyn Write) -> fmt::Result {
    let all = || (0..MAX_CELLS).map_while(|n| system.cell(n)).map(|cell| cell.name);
    write!(out, "there is no cell {typed}; ")?;
    if let Some(meant) = nearest(typed, all()) {
        return writeln!(out, "did you mean {meant}?");
    }
    out.write_str("there are: ")?;
    for (n, name) in all().enumerate() {
        write!(out, "{}{name}", if n > 0 { ", " } else { "" })?;
    }
    out.write_str("\n")
}

fn give(system: &mut impl System, n: usize, order: Order, out: &mut dyn Write) -> fmt::Result {
    let result = system.order(n, order);
    let name = system.cell(n).map_or("", |cell| cell.name);
    match result {
        Ok(()) => writeln!(out, "{name}: {}", order.answer()),
        Err(refused) => writeln!(out, "{name} {refused}"),
    }
}

fn cells(system: &impl System, out: &mut dyn Write) -> fmt::Result {
    let rows: Vec<(usize, CellView<'_>), MAX_CELLS> =
        (0..MAX_CELLS).map_while(|n| Some((n, system.cell(n)?))).collect();
    let columns = [
        number("#"),
        text("name"),
        text("state"),
        number("vCPUs"),
        number("memory"),
        number("epoch"),
        number("exits"),
        text("ended by"),
    ];
    table::write(out, &columns, &rows, |(n, cell), column, out| match column {
        0 => write!(out, "{}", n + 1),
        1 => out.write_str(cell.name),
        2 => out.write_str(cell.state),
        3 => write!(out, "{}/{}", cell.vcpus_on, cell.vcpus),
        4 => write!(out, "{}", Bytes(cell.memory)),
        5 => write!(out, "{}", cell.epoch),
        6 => write!(out, "{}", cell.exits),
        _ => out.write_str(match cell.reason {
            None => "-",
            Some(StopReason::PowerOff) => "power-off",
            Some(StopReason::Reset) => "reset",
            Some(StopReason::Crash) => "crash",
        }),
    })
}

/// The window, in words.
struct Window<'a, 'b>(&'b DiskView<'a>);

impl fmt::Display for Window<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DiskView { first, sectors, partition, .. } = self.0;
        match partition {
            Partition::Label(label) => f.write_str(label)?,
            Partition::Gpt(number) => write!(f, "gpt {number}")?,
            Partition::Mbr(number) => write!(f, "mbr {number}")?,
            Partition::Range { .. } => f.write_str("range")?,
        }
        match sectors {
            0 => f.write_str(" (not served)"),
            _ => write!(f, " ({first}+{sectors})"),
        }
    }
}

fn disks(system: &impl System, out: &mut dyn Write) -> fmt::Result {
    let rows: Vec<DiskView<'_>, { MAX_CELLS * MAX_DISKS }> =
        (0..MAX_CELLS).flat_map(|n| (0..MAX_DISKS).map_while(move |number| system.disk(n, number))).collect();
    if rows.is_empty() {
        return out.write_str("no cell has a disk\n");
    }
    let columns = [
        text("cell"),
        text("disk"),
        text("controller"),
        text("window (first+sectors)"),
        text("mode"),
        number("reads"),
        number("writes"),
        number("others"),
        number("read"),
        number("written"),
        number("errors"),
        number("in flight"),
    ];
    table::write(out, &columns, &rows, |disk, column, out| match column {
        0 => out.write_str(disk.cell),
        1 => write!(out, "{}", disk.number),
        2 => out.write_str(disk.controller),
        3 => write!(out, "{}", Window(disk)),
        4 => out.write_str(if disk.read_only { "ro" } else { "rw" }),
        5 => write!(out, "{}", disk.reads),
        6 => write!(out, "{}", disk.writes),
        7 => write!(out, "{}", disk.others),
        8 => write!(out, "{}", Bytes(disk.read_bytes)),
        9 => write!(out, "{}", Bytes(disk.written_bytes)),
        10 => write!(out, "{}", disk.errors),
        _ => write!(out, "{}", disk.in_flight),
    })?;
    out.write_str("\nlatency: requests by the time that they were with the device\n")?;
    const COLUMNS: usize = 2 + BUCKETS;
    let mut labels: [String<16>; COLUMNS] = [const { String::new() }; COLUMNS];
    for (n, label) in labels.iter_mut().enumerate() {
        // What does not fit is cut; only an absurd frequency makes it so long.
        let _ = match n {
            0 => label.write_str("cell"),
            1 => label.write_str("disk"),
            n if n + 1 == COLUMNS => label.write_str("more"),
            n => write!(
                label,
                "<{}",
                Time { counts: 1 << (n - 2 + LATENCY_SHIFT), frequency: system.frequency() }
            ),
        };
    }
    let mut columns = labels.each_ref().map(|label| number(label));
    if let Some([cell, disk]) = columns.first_chunk_mut() {
        (*cell, *disk) = (text("cell"), text("disk"));
    }
    table::write(out, &columns, &rows, |disk, column, out| match column {
        0 => out.write_str(disk.cell),
        1 => write!(out, "{}", disk.number),
        n => write!(out, "{}", disk.latency.get(n - 2).copied().unwrap_or(0)),
    })
}

fn stats(system: &impl System, cell: Option<usize>, out: &mut dyn Write) -> fmt::Result {
    let cells: Vec<(&str, [u64; Counter::ALL.len()]), MAX_CELLS> = (0..MAX_CELLS)
        .map_while(|n| Some((n, system.cell(n)?)))
        .filter(|(n, _)| cell.is_none_or(|cell| cell == *n))
        .map(|(n, view)| (view.name, system.counters(n)))
        .collect();
    // One row for the names, one for the sum, then what happened at all.
    let value = |counters: &[u64; Counter::ALL.len()], row: Row| match row {
        Row::Names => 0,
        Row::Exits => counters.iter().take(Counter::EXITS).fold(0, |sum: u64, n| sum.wrapping_add(*n)),
        Row::Counter(counter) => counters.get(counter as usize).copied().unwrap_or(0),
    };
    let happened = |counter: &Counter| cells.iter().any(|(_, all)| value(all, Row::Counter(*counter)) != 0);
    let mut rows = Vec::<Row, { 2 + Counter::ALL.len() }>::new();
    rows.extend([Row::Names, Row::Exits]);
    rows.extend(Counter::ALL.into_iter().filter(happened).map(Row::Counter));
    let width = |row: Row, (name, counters): &(&str, _)| match row {
        Row::Names => name.len(),
        _ => value(counters, row).checked_ilog10().map_or(1, |digits| digits as usize + 1),
    };
    for row in &rows {
        let title = match row {
            Row::Names => "",
            Row::Exits => "exits",
            Row::Counter(counter) => counter.name(),
        };
        // The kinds of exits are indented below their sum.
        let indent = match row {
            Row::Counter(counter) if (*counter as usize) < Counter::EXITS => 2,
            _ => 0,
        };
        write!(out, "{:indent$}{title:<1$}", "", TITLE - indent)?;
        for cell in &cells {
            let most = rows.iter().map(|row| width(*row, cell)).max().unwrap_or(0);
            match row {
                Row::Names => write!(out, "  {:>most$}", cell.0)?,
                _ => write!(out, "  {:>most$}", value(&cell.1, *row))?,
            }
        }
        out.write_str("\n")?;
    }
    Ok(())
}

/// Characters of the longest title of a counter.
const TITLE: usize = 10;

/// A row of `stats`.
#[derive(Clone, Copy)]
enum Row {
    Names,
    Exits,
    Counter(Counter),
}

fn help(out: &mut dyn Write) -> fmt::Result {
    for Command { name, argument, help, .. } in &COMMANDS {
        let argument = match argument {
            Argument::None => "",
            Argument::Cell => "NAME",
            Argument::MaybeCell => "[NAME]",
        };
        writeln!(out, "  {name:8} {argument:6}  {help}")?;
    }
    out.write_str("Ctrl-] 1..9 shows a guest's console, Ctrl-] 0 this one\n")
}

#[cfg(test)]
pub(super) mod tests;
