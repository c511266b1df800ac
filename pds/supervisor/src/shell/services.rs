//! The commands on protection domains: what they do, starting one again, killing one for a test.

use core::fmt::{self, Write};

use heapless::Vec;

use super::table::{self, number, text};
use super::view::{PdView, System};
use crate::restarts::CHILDREN;

/// Milliseconds between the kills of a series, if none are given.
const EVERY: u32 = 1000;
/// Most kills in one series.
const KILLS: u32 = 1_000_000;

/// The PD of this name.
pub fn find(system: &impl System, name: &str) -> Option<usize> {
    (0..CHILDREN).find(|n| system.pd(*n).is_some_and(|pd| pd.name == name))
}

/// `services`
pub fn list(system: &impl System, out: &mut dyn Write) -> fmt::Result {
    let rows: Vec<PdView, CHILDREN> = (0..CHILDREN).filter_map(|n| system.pd(n)).collect();
    let columns =
        [text("PD"), text("state"), number("restarts"), number("pings"), text("last stopped because")];
    table::write(out, &columns, &rows, |pd, column, out| match column {
        0 => out.write_str(&pd.name),
        1 => out.write_str(pd.state.word()),
        2 => write!(out, "{}", pd.restarts),
        3 => write!(out, "{}", pd.beats),
        _ => match pd.why {
            None => out.write_str("-"),
            Some(why) => write!(out, "{why}"),
        },
    })
}

/// `restart` of a PD.
pub fn restart(system: &mut impl System, n: usize, out: &mut dyn Write) -> fmt::Result {
    let name = system.pd(n).map(|pd| pd.name).unwrap_or_default();
    match system.restart_pd(n) {
        Ok(()) => writeln!(out, "{name}: restarts"),
        Err(why) => writeln!(out, "{name} {why}"),
    }
}

/// `kill NAME [COUNT [MILLISECONDS [own]]]`: with `own` the deaths count as the PD's own faults.
pub fn kill(system: &mut impl System, words: &[&str], out: &mut dyn Write) -> fmt::Result {
    let usage = "kill takes the name of a PD, how often, and every how many milliseconds: kill NAME [COUNT [EVERY]]\n";
    let (words, own) = match words {
        [rest @ .., "own"] => (rest, true),
        words => (words, false),
    };
    let (name, count, every) = match words {
        [name] => (name, Ok(1), Ok(EVERY)),
        [name, count] => (name, count.parse(), Ok(EVERY)),
        [name, count, every] => (name, count.parse(), every.parse()),
        _ => return out.write_str(usage),
    };
    let (Ok(count @ 1..=KILLS), Ok(every @ 1..)) = (count, every) else { return out.write_str(usage) };
    let Some(n) = find(system, name) else {
        return writeln!(out, "there is no PD {name} (services lists all)");
    };
    match system.kill(n, count, every, own) {
        Ok(()) => writeln!(out, "{name}: killed {count} times, every {every} ms"),
        Err(why) => writeln!(out, "{name} {why}"),
    }
}
