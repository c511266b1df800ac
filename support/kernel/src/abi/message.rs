//! Message info words, error labels and the layout of the IPC buffer.

/// Message registers that travel in CPU registers (x2 to x5).
pub const REGISTERS: usize = 4;
/// Greatest message length.
pub const MAX_LENGTH: usize = 120;
/// Greatest number of extra capabilities.
pub const MAX_EXTRA_CAPS: usize = 3;

/// Word indices into the IPC buffer.
pub mod buffer {
    /// First message register; number `i` is at `MESSAGE + i`.
    pub const MESSAGE: usize = 1;
    /// First extra capability or received badge.
    pub const CAPS: usize = 122;
    /// Words in all.
    pub const WORDS: usize = 128;
}

/// A message info word: length 6:0, extra capabilities 8:7, unwrapped capabilities 11:9, label above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct MessageInfo(pub u64);

impl MessageInfo {
    /// A message with a label and a length, no capabilities.
    pub const fn new(label: u64, length: usize) -> Self {
        MessageInfo(label << 12 | (length as u64 & 0x7f))
    }
    /// The label.
    pub const fn label(self) -> u64 {
        self.0 >> 12
    }
    /// The length, at most [`MAX_LENGTH`].
    pub const fn length(self) -> usize {
        let length = (self.0 & 0x7f) as usize;
        if length > MAX_LENGTH { MAX_LENGTH } else { length }
    }
    /// Number of extra capabilities.
    pub const fn extra_caps(self) -> usize {
        (self.0 >> 7 & 3) as usize
    }
    /// What is delivered: the same label, the clamped length, the given capability fields.
    pub const fn delivered(self, length: usize, extra_caps: u64, unwrapped: u64) -> Self {
        MessageInfo(self.0 & !0xfff | unwrapped << 9 | extra_caps << 7 | length as u64)
    }
}

/// Why an invocation failed: the label of the reply, and its message registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// 1; the argument's number.
    InvalidArgument(u64),
    /// 2; the capability's number, 0 being the invoked one.
    InvalidCapability(u64),
    /// 3
    IllegalOperation,
    /// 4; least and greatest value.
    Range(u64, u64),
    /// 7
    TruncatedMessage,
    /// 8
    DeleteFirst,
}

impl Error {
    /// Label, message registers, their number.
    pub const fn message(self) -> (u64, [u64; 2], usize) {
        match self {
            Error::InvalidArgument(n) => (1, [n, 0], 1),
            Error::InvalidCapability(n) => (2, [n, 0], 1),
            Error::IllegalOperation => (3, [0, 0], 0),
            Error::Range(min, max) => (4, [min, max], 2),
            Error::TruncatedMessage => (7, [0, 0], 0),
            Error::DeleteFirst => (8, [0, 0], 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields() {
        let info = MessageInfo(0xabcd << 12 | 5 << 9 | 2 << 7 | 127);
        assert_eq!((info.label(), info.length(), info.extra_caps()), (0xabcd, 120, 2));
        assert_eq!(info.delivered(120, 0, 0), MessageInfo::new(0xabcd, 120));
        assert_eq!(info.delivered(3, 1, 1).0, 0xabcd << 12 | 1 << 9 | 1 << 7 | 3);
    }
}
