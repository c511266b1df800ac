//! Counts of tests, read from what the runners print.

use std::{fmt, iter::Sum, ops::Add};

/// How many tests ended in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Ran and were right.
    pub passed: u64,
    /// Ran and were wrong, or could not run though they should.
    pub failed: u64,
    /// Were not run, on purpose.
    pub skipped: u64,
}

impl Counts {
    /// One test.
    pub const fn one(passed: bool) -> Self {
        Self { passed: passed as u64, failed: !passed as u64, skipped: 0 }
    }

    /// One test that was left out.
    pub const SKIPPED: Self = Self { passed: 0, failed: 0, skipped: 1 };

    /// Reads one line of a runner: cargo's `test result: ok. 3 passed; 0 failed; 1 ignored; ...`, or the plain
    /// `N passed, N failed[, N skipped]` of this project's own runners.
    pub fn from_line(line: &str) -> Option<Self> {
        let line = line.trim();
        if let Some(result) = line.strip_prefix("test result: ") {
            let (_, counts) = result.split_once(". ")?;
            let field = |name: &str| {
                counts.split(';').find_map(|part| part.trim().strip_suffix(name)?.trim().parse::<u64>().ok())
            };
            return Some(Self {
                passed: field("passed")?,
                failed: field("failed")?,
                skipped: field("ignored")?,
            });
        }
        let mut counts = Self::default();
        let mut fields = line.split(", ");
        counts.passed = fields.next()?.strip_suffix(" passed")?.parse().ok()?;
        counts.failed = fields.next()?.strip_suffix(" failed")?.parse().ok()?;
        if let Some(skipped) = fields.next() {
            counts.skipped = skipped.strip_suffix(" skipped")?.parse().ok()?;
        }
        fields.next().is_none().then_some(counts)
    }

    /// What a suite amounts to: the sum of what it printed; and when it ended badly without naming a failed test (it did
    /// not build, crashed or took too long) or printed no result at all, one failure.
    pub fn of_suite(printed: &str, success: bool) -> Self {
        let counts: Self = printed.lines().filter_map(Self::from_line).sum();
        let ran = counts.passed + counts.failed + counts.skipped;
        if counts.failed == 0 && (!success || ran == 0) { counts + Self::one(false) } else { counts }
    }
}

impl Add for Counts {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }
}

impl Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), Add::add)
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &str =
        "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s";

    #[test]
    fn cargo_and_own_lines_are_read_and_others_are_not() {
        assert_eq!(Counts::from_line(OK), Some(Counts { passed: 3, failed: 0, skipped: 1 }));
        let failed = "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 9.01s";
        assert_eq!(Counts::from_line(failed), Some(Counts { passed: 3, failed: 2, skipped: 0 }));
        assert_eq!(
            Counts::from_line(" 43 passed, 1 failed"),
            Some(Counts { passed: 43, failed: 1, skipped: 0 })
        );
        assert_eq!(
            Counts::from_line("43 passed, 0 failed, 2 skipped"),
            Some(Counts { passed: 43, failed: 0, skipped: 2 })
        );
        for other in [
            "",
            "test a ... ok",
            "3 passed",
            "3 passed, 4 failed, 5",
            "x passed, 0 failed",
            "test result: ok",
        ] {
            assert_eq!(Counts::from_line(other), None, "{other}");
        }
    }

    #[test]
    fn what_is_printed_is_read_back() {
        for counts in [Counts::one(true), Counts::one(false), Counts { passed: 7, failed: 1, skipped: 2 }] {
            assert_eq!(Counts::from_line(&counts.to_string()), Some(counts));
        }
    }

    #[test]
    fn a_suite_that_did_not_build_is_a_failure() {
        assert_eq!(Counts::of_suite("error: could not compile", false), Counts::one(false));
        assert_eq!(Counts::of_suite("", true), Counts::one(false), "a suite without a test is no success");
        assert_eq!(
            Counts::of_suite(&format!("{OK}\n{OK}"), true),
            Counts { passed: 6, failed: 0, skipped: 2 }
        );
        assert_eq!(
            Counts::of_suite(OK, false),
            Counts { passed: 3, failed: 1, skipped: 1 },
            "one crate did not build"
        );
    }
}
