//! What a command that cannot go on says: one clear sentence for a person.

use std::{fmt, io, path::Path};

/// One sentence: what is wrong and, where it can be said, what would be right.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure(String);

/// Result of a step of the tool.
pub type Result<T = ()> = std::result::Result<T, Failure>;

impl Failure {
    /// From a finished sentence.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }

    /// An operation on a file failed. A full disk is named as such.
    pub fn file(verb: &str, path: &Path, error: &io::Error) -> Self {
        let path = path.display();
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self(format!(
                "cannot {verb} {path}: the disk is full; free some space and run the command again"
            )),
            io::ErrorKind::NotFound => Self(format!("cannot {verb} {path}: it does not exist")),
            io::ErrorKind::PermissionDenied => Self(format!("cannot {verb} {path}: permission denied")),
            _ => Self(format!("cannot {verb} {path}: {error}")),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

/// `Err(Failure)` with a formatted sentence.
#[macro_export]
macro_rules! fail {
    ($($argument:tt)*) => {
        return Err($crate::failure::Failure::new(format!($($argument)*)))
    };
}
