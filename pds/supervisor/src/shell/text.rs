//! The answers of the commands for people: tables of text. [`crate::manage::json`] has the same for programs.

use core::fmt::{self, Write};

use heapless::{String, Vec};
use partita_config::Partition;
use partita_protocol::disk_stats::{BUCKETS, LATENCY_SHIFT};
use partita_protocol::ivc_stats;
use partita_protocol::stats::Counter;
use partita_protocol::supervisor::StopReason;
use partita_protocol::{MAX_CELLS, MAX_DISKS, MAX_LINKS, MAX_PEERS};

use super::log;
use super::table::{self, Bytes, Time, number, text};
use super::view::{CellView, DiskView, LinkView, SocketsView, System};

/// What the cells do.
pub fn cells(system: &impl System, out: &mut dyn Write) -> fmt::Result {
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

/// Windows, requests and latencies of the disks.
pub fn disks(system: &impl System, out: &mut dyn Write) -> fmt::Result {
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

/// Counters of one cell or all.
pub fn stats(system: &impl System, cell: Option<usize>, out: &mut dyn Write) -> fmt::Result {
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
pub const TITLE: usize = 10;

/// A row of `stats`.
#[derive(Clone, Copy)]
enum Row {
    Names,
    Exits,
    Counter(Counter),
}

/// Log lines shown.
const LINES: usize = 24;

/// The last log lines in which `name` occurs, or all.
pub fn log(system: &impl System, name: Option<&str>, out: &mut dyn Write) -> fmt::Result {
    let all = || log::Lines::new(system, 0);
    let wanted = |line: &log::Line| name.is_none_or(|name| log::names(line, name));
    let mut count = 0usize;
    let mut lines = all();
    while let Some(line) = lines.next() {
        count += usize::from(wanted(&line));
    }
    if count == 0 {
        return match name {
            Some(name) => writeln!(out, "no log line that is kept names {name}"),
            None => out.write_str("no log lines are kept\n"),
        };
    }
    let mut skip = count.saturating_sub(LINES);
    let mut lines = all();
    while let Some(line) = lines.next() {
        if !wanted(&line) {
            continue;
        }
        if skip > 0 {
            skip -= 1;
            continue;
        }
        writeln!(out, "{}", line.text)?;
    }
    Ok(())
}

/// Links between guests, by peer.
pub fn links(system: &impl System, out: &mut dyn Write) -> fmt::Result {
    let rows: Vec<LinkView<'_>, { MAX_LINKS * MAX_PEERS }> =
        (0..MAX_LINKS).flat_map(|n| (0..MAX_PEERS).map_while(move |peer| system.link(n, peer))).collect();
    if rows.is_empty() {
        return out.write_str("partita.json has no links\n");
    }
    let columns = [
        text("link"),
        number("id"),
        number("peer"),
        text("cell"),
        number("shared"),
        number("output"),
        number("rung"),
        number("refused"),
        number("delivered"),
        number("dropped"),
    ];
    table::write(out, &columns, &rows, |row, column, out| match column {
        0 => out.write_str(row.link),
        1 => write!(out, "{}", row.id),
        2 => write!(out, "{}", row.peer),
        3 => out.write_str(row.cell),
        4 => write!(out, "{}", Bytes(row.shared)),
        5 => write!(out, "{}", Bytes(row.output)),
        6 => write!(out, "{}", row.rung),
        7 => write!(out, "{}", row.refused),
        8 => write!(out, "{}", row.delivered),
        _ => write!(out, "{}", row.dropped),
    })
}

/// Connections between guests, by cell.
pub fn sockets(system: &impl System, out: &mut dyn Write) -> fmt::Result {
    use ivc_stats::Counter as C;
    let rows: Vec<SocketsView<'_>, MAX_CELLS> =
        (0..MAX_CELLS).map_while(|n| system.sockets(n)).filter(|view| view.cid.is_some()).collect();
    if rows.is_empty() {
        return out.write_str("no cell has a cid, so none has sockets\n");
    }
    let columns = [
        text("cell"),
        number("cid"),
        number("open"),
        number("made"),
        number("refused"),
        number("reset"),
        number("sent"),
        number("received"),
        number("violations"),
    ];
    table::write(out, &columns, &rows, |view, column, out| match column {
        0 => out.write_str(view.cell),
        1 => write!(out, "{}", view.cid.unwrap_or(0)),
        2 => write!(out, "{}", view.get(C::Open)),
        3 => write!(out, "{}", view.get(C::Connections)),
        4 => write!(out, "{}", view.get(C::Refused)),
        5 => write!(out, "{}", view.get(C::Resets)),
        6 => write!(out, "{}", Bytes(view.get(C::BytesSent))),
        7 => write!(out, "{}", Bytes(view.get(C::BytesReceived))),
        _ => write!(out, "{}", view.get(C::Violations)),
    })
}

/// Versions.
pub fn version(out: &mut dyn Write) -> fmt::Result {
    writeln!(out, "Partita {}, management protocol {}", env!("CARGO_PKG_VERSION"), crate::manage::PROTOCOL)
}
