//! Lines from `ivc`: who says it, in which stream, and what.

/// Bytes of the numbers and spaces before a request or an answer, and of its newline, at most.
pub const PREFIX: usize = 24;

/// A line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Number of the cell.
    pub cell: usize,
    /// Number of the stream.
    pub session: u32,
    /// What the guest wrote.
    pub request: &'a [u8],
}

impl<'a> Line<'a> {
    /// `<cell> <session> <request>`; `None` if it is not of this form.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let mut parts = line.splitn(3, |byte| *byte == b' ');
        let cell = number(parts.next()?)?;
        let session = number(parts.next()?)?;
        Some(Line { cell: cell as usize, session, request: parts.next()? })
    }
}

fn number(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    core::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_numbers_and_a_request_are_a_line() {
        let line = Line::parse(b"1 4294967295 {\"a\": 1}");
        assert_eq!(line, Some(Line { cell: 1, session: u32::MAX, request: b"{\"a\": 1}" }));
        assert_eq!(Line::parse(b"0 0 ").map(|line| line.request), Some(&b""[..]));
        for wrong in ["", "1", "1 2", "+1 2 {}", "1 -2 {}", "1  2 {}", "1 4294967296 {}", "x 1 {}", " 1 1 {}"]
        {
            assert_eq!(Line::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
