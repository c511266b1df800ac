//! Faults with all that the kernel says about them, for handlers that report or decode more than upstream's `Fault` shows.

use core::fmt;

use sel4::{MessageInfo, Word, with_ipc_buffer};

use crate::Esr;

/// A fault message, taken out of the message registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultInfo {
    /// The capability at `addr` is not there.
    Cap {
        /// Program counter.
        ip: Word,
        /// Capability pointer.
        addr: Word,
        /// While receiving (or replying) rather than sending.
        receiving: bool,
        /// What is wrong with the pointer.
        failure: LookupFailure,
    },
    /// A system call that this kernel does not have.
    UnknownSyscall {
        /// x0–x7.
        registers: [Word; 8],
        /// Address of the instruction.
        ip: Word,
        /// Stack pointer.
        sp: Word,
        /// Processor state.
        spsr: Word,
        /// x7 as the kernel took it.
        number: Word,
    },
    /// An instruction that may not be executed.
    UserException {
        /// Program counter.
        ip: Word,
        /// Stack pointer.
        sp: Word,
        /// Processor state.
        spsr: Word,
        /// ESR.
        number: Word,
        /// 0.
        code: Word,
    },
    /// Debug kernels only.
    Debug {
        /// Program counter.
        ip: Word,
        /// Why.
        reason: DebugReason,
        /// Address that triggered it, of a breakpoint.
        address: Word,
    },
    /// The budget ran out.
    Timeout {
        /// Badge of the scheduling context.
        badge: Word,
        /// Microseconds used.
        consumed: Word,
    },
    /// An access that the address space does not allow.
    Vm {
        /// Program counter.
        ip: Word,
        /// Address; of a vCPU its (intermediate) physical address.
        addr: Word,
        /// An instruction was to be fetched.
        prefetch: bool,
        /// Syndrome.
        esr: Esr,
    },
    /// The guest ended the interrupt in a list register; `None`: another maintenance reason.
    Maintenance(Option<Word>),
    /// A trapped instruction of a guest, or an exception of a PD that fits nowhere else.
    Vcpu(Esr),
    /// A guest's private interrupt fired (27, the virtual timer).
    Vppi(Word),
    /// No fault of this kernel: somebody else sent this to the handler.
    Unknown(Word),
}

/// What is wrong with a capability pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupFailure {
    /// The root of the capability space is not there.
    InvalidRoot,
    /// The slot is empty.
    Missing {
        /// Bits of the pointer not yet used.
        bits_left: Word,
    },
    /// The pointer has bits left, or too few.
    Depth {
        /// Bits of the pointer not yet used.
        bits_left: Word,
        /// Bits a node would use.
        bits_found: Word,
    },
    /// The pointer's bits are not the node's guard.
    Guard {
        /// Bits of the pointer not yet used.
        bits_left: Word,
        /// The guard.
        guard: Word,
        /// Its size.
        guard_bits: Word,
    },
    /// None of the above.
    Other(Word),
}

/// Why a debug exception came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DebugReason {
    /// Data breakpoint.
    Watchpoint,
    /// Instruction breakpoint.
    Breakpoint,
    /// Single step.
    Step,
    /// A BRK instruction.
    Software,
    /// None of the above.
    Other(Word),
}

impl FaultInfo {
    /// Of the message that has just been received.
    pub fn new(info: &MessageInfo) -> Self {
        with_ipc_buffer(|buffer| {
            let mut words = [0; 13];
            words.iter_mut().zip(buffer.msg_regs()).take(info.length()).for_each(|(to, from)| *to = *from);
            Self::from_words(info.label(), &words)
        })
    }

    /// Of a label and its message registers (zero where the message has none).
    pub fn from_words(label: Word, words: &[Word; 13]) -> Self {
        let w = words;
        match label {
            1 => Self::Cap { ip: w[0], addr: w[1], receiving: w[2] != 0, failure: LookupFailure::new(w) },
            2 => Self::UnknownSyscall {
                registers: core::array::from_fn(|i| w[i]),
                ip: w[8],
                sp: w[9],
                spsr: w[11],
                number: w[12],
            },
            3 => Self::UserException { ip: w[0], sp: w[1], spsr: w[2], number: w[3], code: w[4] },
            4 => Self::Debug { ip: w[0], reason: DebugReason::new(w[1]), address: w[2] },
            5 => Self::Timeout { badge: w[0], consumed: w[1] },
            6 => Self::Vm { ip: w[0], addr: w[1], prefetch: w[2] != 0, esr: Esr(w[3]) },
            7 => Self::Maintenance(Some(w[0]).filter(|index| *index != Word::MAX)),
            8 => Self::Vcpu(Esr(w[0])),
            9 => Self::Vppi(w[0]),
            other => Self::Unknown(other),
        }
    }

    /// Program counter, where the message has it.
    pub fn ip(&self) -> Option<Word> {
        match *self {
            Self::Cap { ip, .. }
            | Self::UnknownSyscall { ip, .. }
            | Self::UserException { ip, .. }
            | Self::Debug { ip, .. }
            | Self::Vm { ip, .. } => Some(ip),
            _ => None,
        }
    }
}

impl LookupFailure {
    fn new(words: &[Word; 13]) -> Self {
        match words[3] {
            1 => Self::InvalidRoot,
            2 => Self::Missing { bits_left: words[4] },
            3 => Self::Depth { bits_left: words[4], bits_found: words[5] },
            4 => Self::Guard { bits_left: words[4], guard: words[5], guard_bits: words[6] },
            other => Self::Other(other),
        }
    }
}

impl DebugReason {
    fn new(word: Word) -> Self {
        match word {
            0 => Self::Watchpoint,
            1 => Self::Breakpoint,
            2 => Self::Step,
            3 => Self::Software,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for FaultInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cap { ip, addr, receiving, failure } => {
                let phase = if *receiving { "receive" } else { "send" };
                write!(f, "capability fault at {ip:#x}: {phase} by {addr:#x}, {failure}")
            }
            Self::UnknownSyscall { ip, number, .. } => {
                write!(f, "unknown system call {} at {ip:#x}", *number as i64)
            }
            Self::UserException { ip, number, .. } => write!(f, "exception at {ip:#x}: {}", Esr(*number)),
            Self::Debug { ip, reason, .. } => write!(f, "debug exception at {ip:#x}: {reason:?}"),
            Self::Timeout { badge, consumed } => write!(f, "budget of {badge:#x} used up ({consumed} us)"),
            Self::Vm { ip, addr, prefetch: true, esr } => {
                write!(f, "instruction fetch at {addr:#x}, pc {ip:#x}: {esr}")
            }
            Self::Vm { ip, addr, esr, .. } => write!(f, "access to {addr:#x} at {ip:#x}: {esr}"),
            Self::Maintenance(Some(index)) => write!(f, "end of the interrupt in list register {index}"),
            Self::Maintenance(None) => f.write_str("maintenance interrupt"),
            Self::Vcpu(esr) => write!(f, "{esr}"),
            Self::Vppi(irq) => write!(f, "private interrupt {irq}"),
            Self::Unknown(label) => write!(f, "message {label} that is no fault"),
        }
    }
}

impl fmt::Display for LookupFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidRoot => f.write_str("no capability space"),
            Self::Missing { bits_left } => write!(f, "empty slot ({bits_left} bits left)"),
            Self::Depth { bits_left, bits_found } => {
                write!(f, "wrong depth ({bits_left} bits left, {bits_found} found)")
            }
            Self::Guard { bits_left, guard, guard_bits } => {
                write!(f, "not the guard {guard:#x} of {guard_bits} bits ({bits_left} bits left)")
            }
            Self::Other(kind) => write!(f, "lookup failure {kind}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(start: &[Word]) -> [Word; 13] {
        core::array::from_fn(|i| start.get(i).copied().unwrap_or(0))
    }

    #[test]
    fn each_kind_says_what_it_knows() {
        let cases = [
            (
                1,
                words(&[0x20_0010, 9, 1, 2, 64]),
                "capability fault at 0x200010: receive by 0x9, empty slot (64 bits left)",
            ),
            (
                2,
                words(&[0, 0, 0, 0, 0, 0, 0, 0, 0x20_0010, 0, 0, 0, -99i64 as u64]),
                "unknown system call -99 at 0x200010",
            ),
            (
                6,
                words(&[0x20_0010, 8, 0, 0x9300_0006]),
                "access to 0x8 at 0x200010: data abort (ESR 0x93000006, not mapped, read)",
            ),
            (7, words(&[u64::MAX]), "maintenance interrupt"),
            (99, words(&[]), "message 99 that is no fault"),
        ];
        for (label, words, text) in cases {
            assert_eq!(FaultInfo::from_words(label, &words).to_string(), text);
        }
    }

    #[test]
    fn registers_beyond_the_message_are_zero() {
        sel4::with_ipc_buffer_mut(|buffer| buffer.msg_regs_mut().fill(7));
        let fault = FaultInfo::new(&MessageInfo::new(6, 0, 0, 2));
        assert_eq!(fault, FaultInfo::Vm { ip: 7, addr: 7, prefetch: false, esr: Esr(0) });
    }

    proptest! {
        #[test]
        fn any_message_can_be_shown(label in 0u64..20, start in proptest::collection::vec(any::<u64>(), 13)) {
            prop_assert!(!FaultInfo::from_words(label, &words(&start)).to_string().is_empty());
        }
    }
}
