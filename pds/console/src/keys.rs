//! The escape key: `Ctrl-]` and what follows it.

/// `Ctrl-]`.
pub const ESCAPE: u8 = 0x1d;

/// What a typed byte means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// For the guest in front.
    Byte(u8),
    /// Bring this cell to the front.
    Cell(u8),
    /// The management shell.
    Shell,
    /// What can be typed here.
    Help,
    /// Nothing that is known.
    Unknown(u8),
}

/// The state between bytes.
#[derive(Default)]
pub struct Keys {
    escaped: bool,
}

impl Keys {
    /// No `Ctrl-]` yet.
    pub const fn new() -> Self {
        Keys { escaped: false }
    }

    /// The meaning of the next byte; `None` for the first `Ctrl-]`.
    pub fn feed(&mut self, byte: u8) -> Option<Key> {
        if !core::mem::replace(&mut self.escaped, false) {
            self.escaped = byte == ESCAPE;
            return (byte != ESCAPE).then_some(Key::Byte(byte));
        }
        Some(match byte {
            ESCAPE => Key::Byte(ESCAPE),
            b'0' => Key::Shell,
            b'1'..=b'9' => Key::Cell(byte - b'1'),
            b'?' => Key::Help,
            _ => Key::Unknown(byte),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key() {
        let mut keys = Keys::default();
        let seen: Vec<_> =
            b"a\x1d1\x1d9\x1d0\x1d?\x1d\x1db\x1dq1".iter().filter_map(|b| keys.feed(*b)).collect();
        use Key::*;
        let expected =
            [Byte(b'a'), Cell(0), Cell(8), Shell, Help, Byte(ESCAPE), Byte(b'b'), Unknown(b'q'), Byte(b'1')];
        assert_eq!(seen, expected);
    }
}
