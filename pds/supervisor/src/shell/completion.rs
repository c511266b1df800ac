//! What Tab can add to a line: the rest of a command's name, or of a cell's name after a command that takes one.

use heapless::String;
use partita_protocol::MAX_CELLS;

use super::LINE;
use super::command::COMMANDS;
use super::view::System;

/// What fits behind a line.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Completion {
    /// What all names that fit go on with.
    pub rest: String<LINE>,
    /// How many names fit.
    pub names: usize,
}

/// Calls `f` with each name that fits the last word of `line`, and how much of it is typed.
pub fn each(line: &str, system: &impl System, mut f: impl FnMut(&str, usize)) {
    let (before, typed) = line.rsplit_once(' ').unwrap_or(("", line));
    let mut offer = |name: &str| {
        if name.starts_with(typed) {
            f(name, typed.len());
        }
    };
    let mut words = before.split_ascii_whitespace();
    match (words.next(), words.next()) {
        (None, _) => COMMANDS.iter().for_each(|command| offer(command.name)),
        (Some(name), None)
            if COMMANDS.iter().any(|command| command.name == name && command.argument.takes_cell()) =>
        {
            (0..MAX_CELLS).map_while(|n| system.cell(n)).for_each(|cell| offer(cell.name));
        }
        _ => {}
    }
}

/// What fits behind `line`.
pub fn find(line: &str, system: &impl System) -> Completion {
    let mut found = Completion::default();
    each(line, system, |name, typed| {
        let rest = name.get(typed..).unwrap_or("");
        found.names += 1;
        if found.names == 1 {
            // What does not fit into a line cannot be typed either.
            let _ = found.rest.push_str(rest);
        } else {
            // Names are ASCII, so every place is between characters.
            let common = found.rest.bytes().zip(rest.bytes()).take_while(|(a, b)| a == b).count();
            found.rest.truncate(common);
        }
    });
    found
}

#[cfg(test)]
mod tests {
    use super::super::command::tests::Fake;
    use super::*;

    #[test]
    fn names_of_commands_and_cells() {
        let found = |line: &str| {
            let Completion { rest, names } = find(line, &Fake::two());
            (rest.as_str().to_owned(), names)
        };
        assert_eq!(found("shu"), ("tdown".into(), 1));
        assert_eq!(found("  shu"), ("tdown".into(), 1));
        assert_eq!(found("sta"), ("".into(), 2).clone());
        assert_eq!(found("star"), ("t".into(), 1));
        assert_eq!(found("x"), ("".into(), 0));
        assert_eq!(found(""), ("".into(), COMMANDS.len()));
        // Both cells begin with `debian`.
        assert_eq!(found("pause "), ("debian".into(), 2));
        assert_eq!(found("  pause   d"), ("ebian".into(), 2));
        assert_eq!(found("stats debian"), ("".into(), 2));
        assert_eq!(found("pause debian2"), ("".into(), 1));
        // Nothing more, no cell, no such command.
        for line in ["pause debian1 ", "pause x", "disks ", "disks d", "nonsense d"] {
            assert_eq!(found(line), ("".into(), 0), "{line}");
        }
    }
}
