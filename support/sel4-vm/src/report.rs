//! The last words of a PD that panicked, as its parent reads them from the PD's registers.
//!
//! The other side is `sel4_microkit::panicking`. What is read here was written by a PD that has just failed: nothing is taken
//! for true but that these are 29 words.

use core::fmt::{self, Write};

use sel4::UserContext;

use crate::FaultInfo;

/// The address a panicking PD stores to.
const FAULT_ADDRESS: u64 = 0xff_dead_0000;

/// What ended a PD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PanicKind {
    /// A panic.
    Panicked,
    /// Its event loop ended with an error.
    MainFailed,
    /// It was started again and found its saved data damaged. Only loading it anew would help.
    DamagedImage,
    /// None of the above.
    Other(u64),
}

/// What a PD said when it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PanicReport {
    /// What happened.
    pub kind: PanicKind,
    /// Line, 0 if not known.
    pub line: u64,
    /// Column.
    pub column: u64,
    file: [u8; 48],
    message: [u8; 152],
}

impl PanicReport {
    /// Whether a fault is a PD's last word: then its registers hold the report.
    pub fn is_report(fault: &FaultInfo) -> bool {
        matches!(fault, FaultInfo::Vm { addr: FAULT_ADDRESS, prefetch: false, .. })
    }

    /// From the registers of the PD.
    pub fn new(context: &UserContext) -> Self {
        let kind = match *context.gpr(0) {
            1 => PanicKind::Panicked,
            2 => PanicKind::MainFailed,
            3 => PanicKind::DamagedImage,
            other => PanicKind::Other(other),
        };
        let damaged = kind == PanicKind::DamagedImage;
        let word = |gpr: usize| if damaged { 0 } else { *context.gpr(gpr) };
        let (mut file, mut message) = ([0; 48], [0; 152]);
        let file_words = file.chunks_exact_mut(8).zip(3..=8);
        // x19 is not used: it belongs to the compiler on the other side.
        let message_words = message.chunks_exact_mut(8).zip((9..=18).chain(20..=28));
        for (bytes, gpr) in file_words.chain(message_words) {
            bytes.copy_from_slice(&word(gpr).to_le_bytes());
        }
        Self { kind, line: word(1), column: word(2), file, message }
    }

    /// End of the source file's name, as far as it is printable.
    pub fn file(&self) -> impl fmt::Display + '_ {
        Printable(&self.file)
    }

    /// Beginning of the message, as far as it is printable.
    pub fn message(&self) -> impl fmt::Display + '_ {
        Printable(&self.message)
    }
}

impl fmt::Display for PanicReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            PanicKind::Panicked => write!(f, "panicked at {}:{}: {}", self.file(), self.line, self.message()),
            PanicKind::MainFailed => write!(f, "ended: {}", self.message()),
            PanicKind::DamagedImage => f.write_str("cannot restart: its saved data is damaged"),
            PanicKind::Other(code) => write!(f, "ended with code {code}"),
        }
    }
}

/// Bytes up to the first NUL; what is not printable ASCII becomes a dot, so that no peer can send control sequences to a
/// terminal.
struct Printable<'a>(&'a [u8]);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.iter().take_while(|byte| **byte != 0);
        text.map(|byte| if (b' '..=b'~').contains(byte) { char::from(*byte) } else { '.' })
            .try_for_each(|c| f.write_char(c))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Esr;

    fn pack(context: &mut UserContext, registers: impl Iterator<Item = usize>, text: &str) {
        let mut bytes = text.bytes();
        for gpr in registers {
            let word = core::array::from_fn(|_| bytes.next().unwrap_or(0));
            *context.gpr_mut(gpr) = u64::from_le_bytes(word);
        }
    }

    #[test]
    fn the_other_side_uses_the_same_numbers() {
        use sel4_microkit::panicking;
        assert_eq!(FAULT_ADDRESS, panicking::FAULT_ADDRESS);
        for (code, kind) in [
            (panicking::PANICKED, PanicKind::Panicked),
            (panicking::MAIN_FAILED, PanicKind::MainFailed),
            (panicking::DAMAGED_IMAGE, PanicKind::DamagedImage),
        ] {
            let mut context = UserContext::default();
            *context.gpr_mut(0) = code;
            assert_eq!(PanicReport::new(&context).kind, kind);
        }
    }

    #[test]
    fn a_report_reads_as_a_sentence() {
        let mut context = UserContext::default();
        *context.gpr_mut(0) = 1;
        *context.gpr_mut(1) = 42;
        pack(&mut context, 3..=8, "pds/blk/src/main.rs");
        pack(
            &mut context,
            (9..=18).chain(20..=28),
            "queue \x1b[31m is gone, and this text goes on past the ninth register",
        );
        let report = PanicReport::new(&context);
        let text = "panicked at pds/blk/src/main.rs:42: queue .[31m is gone, and this text goes on past the ninth register";
        assert_eq!(report.to_string(), text);
    }

    #[test]
    fn only_the_agreed_address_is_a_report() {
        let at = |addr| FaultInfo::Vm { ip: 0, addr, prefetch: false, esr: Esr(0) };
        assert!(PanicReport::is_report(&at(0xff_dead_0000)));
        assert!(!PanicReport::is_report(&at(0xff_dead_0008)));
        assert!(!PanicReport::is_report(&FaultInfo::Vppi(27)));
    }
}
