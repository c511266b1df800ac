//! The log as the console PD keeps it (`partita_ring::history`), line by line.

use heapless::String;

use super::view::System;

/// Bytes of the longest line: a PD's name in brackets and what it said. What is longer is cut.
pub const LINE: usize = 64 + 3 + partita_ring::log::LINE;
/// Bytes read in one go.
const PART: usize = 256;

/// A line, and where the next one begins.
pub struct Line {
    /// Without its end.
    pub text: String<LINE>,
    /// Position of the next line.
    pub next: u64,
}

/// The lines from a position on, or from the oldest that is kept.
pub struct Lines<'s, S> {
    system: &'s S,
    at: u64,
    part: [u8; PART],
    /// Unread bytes of `part`.
    range: core::ops::Range<usize>,
    /// The first line may be half a line.
    in_line: bool,
    lost: u64,
}

impl<'s, S: System> Lines<'s, S> {
    /// From the line that begins at `from` on. A position that an earlier line told is the beginning of a line.
    pub fn new(system: &'s S, from: u64) -> Self {
        Lines { system, at: from, part: [0; PART], range: 0..0, in_line: false, lost: 0 }
    }

    /// Bytes before what was read that are not kept any more.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Where the next line begins, or will.
    pub fn position(&self) -> u64 {
        self.at
    }

    fn byte(&mut self) -> Option<u8> {
        if self.range.is_empty() {
            let wanted = self.at;
            let (from, len) = self.system.log(wanted, &mut self.part);
            if from > wanted {
                // Overtaken: what follows may be half a line.
                self.lost = self.lost.saturating_add(from - wanted);
                self.at = from;
                self.in_line = true;
            }
            self.range = 0..len.min(PART);
        }
        let byte = self.part.get(self.range.next()?).copied()?;
        self.at += 1;
        Some(byte)
    }

    /// The next whole line.
    #[expect(clippy::should_implement_trait, reason = "an iterator could not be asked for its position")]
    pub fn next(&mut self) -> Option<Line> {
        let mut raw = heapless::Vec::<u8, LINE>::new();
        let begin = self.at;
        loop {
            let Some(byte) = self.byte() else {
                // Its end is not there yet.
                self.at = begin;
                self.range = 0..0;
                return None;
            };
            if core::mem::take(&mut self.in_line) {
                raw.clear();
                let mut byte = byte;
                while byte != b'\n' {
                    byte = self.byte()?;
                }
                continue;
            }
            if byte == b'\n' {
                break;
            }
            // What does not fit is cut.
            let _ = raw.push(byte);
        }
        let mut text = String::new();
        for chunk in raw.utf8_chunks() {
            let _ = text.push_str(chunk.valid());
        }
        Some(Line { text, next: self.at })
    }
}

/// Whether `name` occurs in the line as a word; `_` does not make one longer, so that `debian1` is in `vmm_debian1`.
pub fn names(line: &Line, name: &str) -> bool {
    let text = line.text.as_str();
    let edge = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '-');
    !name.is_empty()
        && text.match_indices(name).any(|(at, _)| {
            let (before, after) = (text.get(..at).unwrap_or(""), text.get(at + name.len()..).unwrap_or(""));
            edge(before.chars().next_back()) && edge(after.chars().next())
        })
}
