//! Results of invocations.

use core::{fmt, result};

use crate::{MessageInfo, Word};

/// Result of an invocation.
pub type Result<T> = result::Result<T, Error>;

/// Why an invocation was refused: the label of the kernel's answer.
#[repr(u32)]
#[derive(Debug, Clone, Copy, Eq, PartialEq)]
#[allow(missing_docs)]
pub enum Error {
    InvalidArgument = 1,
    InvalidCapability = 2,
    IllegalOperation = 3,
    RangeError = 4,
    AlignmentError = 5,
    FailedLookup = 6,
    TruncatedMessage = 7,
    DeleteFirst = 8,
    RevokeFirst = 9,
    NotEnoughMemory = 10,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seL4 error {} ({self:?})", *self as u32)
    }
}

impl Error {
    /// The kernel's number.
    pub const fn into_sys(self) -> u32 {
        self as u32
    }

    /// From the kernel's number; `None` is success. A number no kernel of this version gives counts as
    /// [`Error::IllegalOperation`], so that a wrong answer cannot stop its reader.
    pub fn from_sys(number: u32) -> Option<Self> {
        Some(match number {
            0 => return None,
            1 => Self::InvalidArgument,
            2 => Self::InvalidCapability,
            4 => Self::RangeError,
            5 => Self::AlignmentError,
            6 => Self::FailedLookup,
            7 => Self::TruncatedMessage,
            8 => Self::DeleteFirst,
            9 => Self::RevokeFirst,
            10 => Self::NotEnoughMemory,
            _ => Self::IllegalOperation,
        })
    }

    pub(crate) fn from_reply(info: &MessageInfo) -> Result<()> {
        match Self::from_sys(u32::try_from(info.label()).unwrap_or(u32::MAX)) {
            None => Ok(()),
            Some(error) => Err(error),
        }
    }

    pub(crate) fn with_first(info: &MessageInfo, first: Word) -> Result<Word> {
        Self::from_reply(info).map(|()| first)
    }
}
