//! What a run says, without what may differ between builds of the same kernel.
//!
//! Two parts: the cases' lines (`%% NN name: result`) and, from a debug kernel, what the monitor prints about the PD without a
//! parent and the passive one. Of the latter (Microkit's text, not ours) only the number of lines and a digest are kept; the
//! program counter in it is a place in the program and is blotted out.

use std::collections::BTreeMap;
use std::fmt;

/// The last line.
pub const END: &str = "%% end";

/// A transcript.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Transcript {
    /// Case lines without `%% `, in order.
    pub lines: Vec<String>,
    /// The monitor's lines, where they are known.
    pub monitor: Vec<String>,
    /// What stands for the monitor's lines; empty if there are none.
    pub digest: String,
    /// Whether the end was reached.
    pub complete: bool,
}

/// Result of a comparison.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Equal cases.
    pub passed: usize,
    /// Others.
    pub failed: usize,
    /// Lines to show, `-` expected and `+` got.
    pub differences: Vec<String>,
}

impl Transcript {
    /// Of serial output.
    pub fn new(output: &str) -> Self {
        let mut transcript = Self { complete: output.contains(END), ..Self::default() };
        let mut registers = false;
        for line in output.lines().map(|line| line.trim_end()) {
            if let Some(case) = line.strip_prefix("%% ") {
                if case.starts_with(|c: char| c.is_ascii_digit()) {
                    transcript.lines.push(case.into());
                }
                registers = false;
            } else if line.starts_with("MON|") || line == "Registers:" || registers && line.contains(": 0x") {
                registers = line == "Registers:" || registers && !line.starts_with("MON|");
                transcript.monitor.push(blot(line));
            } else {
                registers = false;
            }
        }
        transcript.digest = digest(&transcript.monitor);
        transcript
    }

    /// Of a file written by `--bless`.
    pub fn parse(text: &str) -> Self {
        let mut transcript = Self { complete: true, ..Self::default() };
        for line in text.lines() {
            match line.strip_prefix("monitor: ") {
                Some(digest) => transcript.digest = digest.into(),
                None => transcript.lines.push(line.into()),
            }
        }
        transcript
    }

    /// What differs in `got` from this. A case is known by its name, so that one missing does not spoil the rest. The
    /// monitor's lines count as one case.
    pub fn compare(&self, got: &Self) -> Comparison {
        let mut comparison = Comparison::default();
        let mut others: BTreeMap<&str, &str> = got.lines.iter().map(|line| split(line)).collect();
        for line in &self.lines {
            let (name, result) = split(line);
            match others.remove(name) {
                Some(other) if other == result => comparison.passed += 1,
                other => {
                    comparison.failed += 1;
                    comparison.differences.push(format!("- {name}: {result}"));
                    comparison.differences.push(match other {
                        Some(other) => format!("+ {name}: {other}"),
                        None => format!("+ {name} did not end"),
                    });
                }
            }
        }
        for (name, result) in others {
            comparison.failed += 1;
            comparison.differences.push(format!("+ {name}: {result}"));
        }
        if self.digest == got.digest {
            comparison.passed += usize::from(!self.digest.is_empty());
        } else {
            comparison.failed += 1;
            comparison.differences.push(format!("- monitor: {}", self.digest));
            comparison.differences.push(format!("+ monitor: {}", got.digest));
            comparison.differences.extend(got.monitor.iter().map(|line| format!("+ {line}")));
        }
        comparison
    }
}

/// Name and result of a case.
fn split(line: &str) -> (&str, &str) {
    let start = line.find(' ').map_or(0, |space| space + 1);
    // Names may hold a colon ("guest: WFI"); the result follows the last one before its text.
    let name = line[start..].find(": ").map(|at| start + at);
    let name = match name {
        Some(at) if ["guest", "SMC", "cache operations"].contains(&&line[start..at]) => {
            line[at + 2..].find(": ").map(|next| at + 2 + next)
        }
        other => other,
    };
    match name {
        Some(at) => (&line[start..at], line[at + 2..].trim_end()),
        None => (&line[start..], ""),
    }
}

/// Number of lines and FNV-1a of the text.
fn digest(lines: &[String]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let bytes = lines.iter().flat_map(|line| line.bytes().chain([b'\n']));
    let hash = bytes
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    format!("{} lines, digest {hash:016x}", lines.len())
}

/// Hides places in the program.
fn blot(line: &str) -> String {
    let mut text = line.to_string();
    for key in ["pc : 0x", "ip=0x"] {
        if let Some(at) = text.find(key) {
            let digits = at + key.len();
            let end =
                text[digits..].find(|c: char| !c.is_ascii_hexdigit()).map_or(text.len(), |n| digits + n);
            text.replace_range(digits..end, "*");
        }
    }
    text
}

impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        if self.digest.is_empty() { Ok(()) } else { writeln!(f, "monitor: {}", self.digest) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "boot\r\nMON|ERROR: faulting PD: x\r\nRegisters: \r\npc : 0x0000000000200168\r\nx0 : 0x1\r\n\
        MON|ERROR: VMFault: ip=0x0000000000200168  fault_addr=0x8\r\n%% begin\n%% 01 a call: 1 2 \n<<noise: 0x1>>\n\
        %% 02 guest: WFI: x: y\n%% end\n";

    #[test]
    fn noise_and_places_are_left_out() {
        let transcript = Transcript::new(OUTPUT);
        assert_eq!(transcript.lines, ["01 a call: 1 2", "02 guest: WFI: x: y"]);
        assert_eq!(
            transcript.monitor[2..],
            ["pc : 0x*", "x0 : 0x1", "MON|ERROR: VMFault: ip=0x*  fault_addr=0x8"]
        );
        assert!(transcript.complete);
        let again = Transcript::parse(&transcript.to_string());
        assert_eq!((again.lines, again.digest), (transcript.lines, transcript.digest));
    }

    #[test]
    fn equal_transcripts_pass() {
        let transcript = Transcript::new(OUTPUT);
        let comparison = transcript.compare(&Transcript::new(OUTPUT));
        assert_eq!((comparison.passed, comparison.failed, comparison.differences.len()), (3, 0, 0));
    }

    #[test]
    fn every_difference_counts_once_and_is_shown() {
        let expected = Transcript::parse("01 a: 1\n02 guest: b: 2\n03 c: 3\nmonitor: 1 lines, digest 0\n");
        let got = Transcript::parse("01 a: 1\n02 c: 4\n03 d: 5\n");
        let comparison = expected.compare(&got);
        assert_eq!((comparison.passed, comparison.failed), (1, 4));
        let shown = [
            "- guest: b: 2",
            "+ guest: b did not end",
            "- c: 3",
            "+ c: 4",
            "+ d: 5",
            "- monitor: 1 lines, digest 0",
            "+ monitor: ",
        ];
        assert_eq!(comparison.differences, shown);
    }
}
