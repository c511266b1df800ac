//! What a root task's main function may return.

use core::fmt;

/// How main ends: never, or with an error.
pub trait Termination {
    /// The error.
    type Error: fmt::Debug;

    /// The error, if main ended.
    fn report(self) -> Self::Error;
}

/// What never comes.
#[derive(Debug, Copy, Clone, PartialOrd, Ord, PartialEq, Eq, Hash)]
pub enum Never {}

impl fmt::Display for Never {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

impl Termination for Never {
    type Error = Never;

    fn report(self) -> Never {
        self
    }
}

impl<E: fmt::Debug> Termination for Result<Never, E> {
    type Error = E;

    fn report(self) -> E {
        match self {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Never, Termination};

    #[test]
    fn main_ends_only_with_an_error() {
        assert_eq!(Err::<Never, _>("no memory").report(), "no memory");
    }
}
