//! Log lines: whole ones out of a ring, made harmless for a terminal.

use core::fmt::{self, Write};
use heapless::Vec;
use partita_ring::{Rx, log};

/// Bytes of the longest line that is printed, newline included.
pub const LINE: usize = log::LINE;

/// One line, without its end.
pub type Line = Vec<u8, LINE>;

/// The next whole line, if there is one, still in the ring, and the bytes to consume for it. A writer that keeps the rules
/// ends every line within [`LINE`] bytes; of another one, that many bytes count as a line.
pub fn peek(rx: &mut Rx<'_>) -> Option<(Line, usize)> {
    if rx.available() == 0 {
        return None;
    }
    let mut raw = [0; LINE];
    let seen = rx.peek(&mut raw);
    let raw = raw.get(..seen)?;
    let (text, used) = match raw.iter().position(|byte| *byte == b'\n') {
        Some(end) => (raw.get(..end)?, end + 1),
        None if seen == LINE => (raw, LINE),
        None => return None,
    };
    Some((Line::from_slice(text).ok()?, used))
}

/// Writes text with everything that a terminal would obey, or that is no text, as `?`.
pub fn write_clean(to: &mut impl Write, bytes: &[u8]) -> fmt::Result {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            to.write_char(if c.is_control() && c != '\t' { '?' } else { c })?;
        }
        if !chunk.invalid().is_empty() {
            to.write_char('?')?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_not_passed_on() {
        let mut out = String::new();
        write_clean(&mut out, b"a\tb\x1b[2J\r\x7f\xc3\xa4\xff\xc2\x9b").unwrap();
        assert_eq!(out, "a\tb?[2J??ä??");
    }
}
