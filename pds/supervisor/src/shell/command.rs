//! The commands: what can be asked for, and what is wrong with what was asked.
//!
//! One table for both ways in: the shell's lines of words, and the management protocol's JSON objects
//! ([`crate::manage`]). Both come down to a [`Call`] or a [`Mistake`]; the answer is rendered by [`super::text`] or by
//! [`crate::manage::json`].

use core::fmt::{self, Write};

use heapless::String;
use partita_protocol::MAX_CELLS;

use super::view::System;
use super::{services, text};
use crate::lifecycle::{By, Order};
use crate::manage::mail::TEXT_MAX;

/// Words after a command that are looked at.
pub const WORDS: usize = 24;

/// A command as `help` shows it.
pub struct Command {
    /// What is typed.
    pub name: &'static str,
    /// What follows it.
    pub argument: Argument,
    /// What it is good for.
    pub help: &'static str,
    run: Run,
}

/// What follows a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// Nothing.
    None,
    /// A cell.
    Cell,
    /// A cell, or nothing for all.
    MaybeCell,
    /// Any name, or nothing for all.
    MaybeName,
    /// A cell, then text.
    CellText,
    /// Text.
    Text,
    /// The shell's own: what follows it, as `help` shows it.
    Shell(&'static str),
}

impl Argument {
    /// As `help` shows it.
    pub const fn shown(self) -> &'static str {
        match self {
            Argument::None => "",
            Argument::Cell => "NAME",
            Argument::MaybeCell | Argument::MaybeName => "[NAME]",
            Argument::CellText => "NAME TEXT",
            Argument::Text => "TEXT",
            Argument::Shell(form) => form,
        }
    }

    /// Whether the first word can be the name of a cell.
    pub const fn takes_cell(self) -> bool {
        matches!(self, Argument::Cell | Argument::MaybeCell | Argument::MaybeName | Argument::CellText)
    }
}

/// What a command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// Table of cells.
    Cells,
    /// An order to a cell.
    Order(Order),
    /// Table of disks.
    Disks,
    /// Table of links.
    Links,
    /// Table of sockets.
    Sockets,
    /// Counters of the cells.
    Stats,
    /// The last log lines.
    Log,
    /// A message to a cell or to all.
    Send,
    /// Which version this is.
    Version,
    /// Table of protection domains.
    Services,
    /// Fault injection.
    Kill,
    /// Switch the machine off.
    ShutDown,
    /// The list of commands.
    Help,
}

const fn command(name: &'static str, argument: Argument, run: Run, help: &'static str) -> Command {
    Command { name, argument, help, run }
}

/// All of them.
pub const COMMANDS: [Command; 18] = [
    command("cells", Argument::None, Run::Cells, "what the guests do"),
    command("start", Argument::Cell, Run::Order(Order::Start), "start a guest with fresh memory"),
    command("stop", Argument::Cell, Run::Order(Order::Stop), "switch a guest off at once, as by its plug"),
    command("pause", Argument::Cell, Run::Order(Order::Pause), "stop its vCPUs where they are"),
    command("resume", Argument::Cell, Run::Order(Order::Resume), "let a paused guest go on"),
    command("restart", Argument::Cell, Run::Order(Order::Restart), "start it afresh, whatever it does now"),
    command("services", Argument::None, Run::Services, "what the protection domains do"),
    command(
        "kill",
        Argument::Shell("NAME ..."),
        Run::Kill,
        "test: [COUNT [MS]]: make a PD fault where it is",
    ),
    command("disks", Argument::None, Run::Disks, "their windows, requests and latencies"),
    command("links", Argument::None, Run::Links, "links between guests"),
    command("sockets", Argument::None, Run::Sockets, "connections between guests, and what they carried"),
    command("stats", Argument::MaybeCell, Run::Stats, "exits and interrupts of one guest or all"),
    command("log", Argument::MaybeName, Run::Log, "the last log lines, of one guest or PD or all"),
    command("send", Argument::CellText, Run::Send, "a message to a guest's partitactl"),
    command("broadcast", Argument::Text, Run::Send, "a message to every guest's"),
    command("version", Argument::None, Run::Version, "of Partita and of the management protocol"),
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
pub fn nearest<'a>(typed: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
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

/// A command that can be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call<'a> {
    /// What.
    pub run: Run,
    /// With which cell.
    pub cell: Option<usize>,
    /// The name as it was given, where it need not be a cell's.
    pub name: Option<&'a str>,
}

/// Why it cannot be run.
#[derive(Clone, Copy)]
pub enum Mistake<'a> {
    /// There is no such command.
    NoCommand(&'a str),
    /// There is no such cell.
    NoCell(&'a str),
    /// Something follows where nothing can, or the other way round.
    Argument(&'static Command),
}

/// Looks a command up, and the cell that it is for: `name`. `count` is the number of words that follow.
pub fn resolve<'a>(
    command: &'a str,
    name: Option<&'a str>,
    count: usize,
    system: &impl System,
) -> Result<Call<'a>, Mistake<'a>> {
    let found = COMMANDS.iter().find(|entry| entry.name == command);
    let found = found.ok_or(Mistake::NoCommand(command))?;
    let cell = match (found.argument, count, name) {
        (Argument::None, 0, _) | (Argument::MaybeCell | Argument::MaybeName, 0, _) => None,
        (Argument::Text, 1.., _) => None,
        (Argument::MaybeName, 1, Some(name)) => find(system, name),
        (Argument::Cell | Argument::MaybeCell, 1, Some(name)) | (Argument::CellText, 2.., Some(name)) => {
            Some(find(system, name).ok_or(Mistake::NoCell(name))?)
        }
        _ => return Err(Mistake::Argument(found)),
    };
    Ok(Call { run: found.run, cell, name: name.filter(|_| count > 0) })
}

impl Mistake<'_> {
    /// Says it in one sentence. `json` is whether the command came as a JSON object.
    pub fn explain(&self, system: &impl System, json: bool, out: &mut dyn Write) -> fmt::Result {
        match self {
            Mistake::NoCommand(typed) => {
                write!(out, "there is no command {typed}")?;
                if let Some(meant) = nearest(typed, COMMANDS.iter().map(|command| command.name)) {
                    write!(out, "; did you mean {meant}?")?;
                }
                out.write_str(" (help lists all commands)")
            }
            Mistake::NoCell(typed) => no_cell(system, typed, out),
            Mistake::Argument(command) => {
                let Command { name, argument, .. } = command;
                let form = argument.shown();
                match (argument, json) {
                    (Argument::Shell(_), _) => write!(out, "{name} is for the shell: {name} {form}"),
                    (Argument::None, false) => write!(out, "{name} stands alone; nothing can follow it"),
                    (Argument::None, true) => {
                        write!(out, "{name} stands alone: without \"cell\" and \"text\"")
                    }
                    (Argument::Cell, false) => {
                        write!(out, "{name} takes the name of one cell: {name} {form}")
                    }
                    (Argument::Cell, true) => {
                        write!(out, "{name} takes the name of one cell in \"cell\", and no \"text\"")
                    }
                    (Argument::MaybeCell | Argument::MaybeName, false) => {
                        write!(out, "{name} takes the name of one cell, or nothing for all: {name} {form}")
                    }
                    (Argument::MaybeCell | Argument::MaybeName, true) => {
                        write!(
                            out,
                            "{name} takes the name of one cell in \"cell\", or none for all, and no \"text\""
                        )
                    }
                    (Argument::CellText, false) => {
                        write!(out, "{name} takes the name of one cell and what to tell it: {name} {form}")
                    }
                    (Argument::CellText, true) => {
                        write!(
                            out,
                            "{name} takes the name of one cell in \"cell\" and what to tell it in \"text\""
                        )
                    }
                    (Argument::Text, false) => write!(out, "{name} takes what to tell: {name} {form}"),
                    (Argument::Text, true) => {
                        write!(out, "{name} takes what to tell in \"text\", and no \"cell\"")
                    }
                }
            }
        }
    }
}

/// Runs one line of the shell. `Err` only if `out` fails.
pub fn execute(name: &str, words: &[&str], system: &mut impl System, out: &mut dyn Write) -> fmt::Result {
    // What is about PDs is the shell's alone: the management service serves guests.
    match (name, words) {
        ("services", []) => return services::list(system, out),
        ("kill", words) => return services::kill(system, words, out),
        ("restart", [name]) => {
            if let Some(pd) = services::find(system, name) {
                return services::restart(system, pd, out);
            }
        }
        _ => {}
    }
    let call = match resolve(name, words.first().copied(), words.len(), system) {
        Ok(call) => call,
        Err(mistake) => {
            mistake.explain(system, false, out)?;
            return out.write_str("\n");
        }
    };
    match (call.run, call.cell) {
        (Run::Order(order), Some(n)) => give(system, n, order, out),
        (Run::Stats, cell) => text::stats(system, cell, out),
        (Run::Disks, _) => text::disks(system, out),
        (Run::Links, _) => text::links(system, out),
        (Run::Sockets, _) => text::sockets(system, out),
        (Run::Log, _) => text::log(system, call.name, out),
        (Run::Send, cell) => {
            let said = words.get(usize::from(cell.is_some())..).unwrap_or(&[]);
            send(system, cell, said, out)
        }
        (Run::Version, _) => text::version(out),
        (Run::ShutDown, _) => {
            out.write_str("all guests are stopped, then the machine goes off\n")?;
            system.shut_down(By::Shell);
            Ok(())
        }
        (Run::Help, _) => help(out),
        (Run::Cells | Run::Order(_) | Run::Services | Run::Kill, _) => text::cells(system, out),
    }
}

/// A cell by its name, or by the number of its console.
pub fn find(system: &impl System, name: &str) -> Option<usize> {
    let named = (0..MAX_CELLS).find(|n| system.cell(*n).is_some_and(|cell| cell.name == name));
    let numbered = || name.parse::<usize>().ok()?.checked_sub(1).filter(|n| system.cell(*n).is_some());
    named.or_else(numbered)
}

fn no_cell(system: &impl System, typed: &str, out: &mut dyn Write) -> fmt::Result {
    let all = || (0..MAX_CELLS).map_while(|n| system.cell(n)).map(|cell| cell.name);
    write!(out, "there is no cell {typed}; ")?;
    if let Some(meant) = nearest(typed, all()) {
        return write!(out, "did you mean {meant}?");
    }
    out.write_str("there are: ")?;
    for (n, name) in all().enumerate() {
        write!(out, "{}{name}", if n > 0 { ", " } else { "" })?;
    }
    Ok(())
}

fn give(system: &mut impl System, n: usize, order: Order, out: &mut dyn Write) -> fmt::Result {
    let result = system.order(n, order, By::Shell);
    let name = system.cell(n).map_or("", |cell| cell.name);
    match result {
        Ok(()) => writeln!(out, "{name}: {}", order.answer()),
        Err(refused) => writeln!(out, "{name} {refused}"),
    }
}

fn send(system: &mut impl System, to: Option<usize>, words: &[&str], out: &mut dyn Write) -> fmt::Result {
    let mut said = String::<TEXT_MAX>::new();
    for (n, word) in words.iter().enumerate() {
        if (n > 0 && said.push(' ').is_err()) || said.push_str(word).is_err() {
            return writeln!(out, "a message has {TEXT_MAX} bytes at most");
        }
    }
    let cells = system.send(to, By::Shell, &said);
    writeln!(out, "sent to {cells} {}", if cells == 1 { "cell" } else { "cells" })
}

fn help(out: &mut dyn Write) -> fmt::Result {
    for Command { name, argument, help, .. } in &COMMANDS {
        writeln!(out, "  {name:9} {:9}  {help}", argument.shown())?;
    }
    out.write_str("Ctrl-] 1..9 shows a guest's console, Ctrl-] 0 this one\n")
}

#[cfg(test)]
pub(crate) mod tests;
