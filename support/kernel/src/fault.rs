//! Faults: what happened to a thread, and the words its handler is told and may answer (seL4 manual 6.2).

use crate::abi::fault as label;
use crate::context::{Context, TIMEOUT_WORDS, sanitise_spsr};

/// Why a capability was not found (seL4 manual 3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The root is not a CNode. Threads here always have one; kept for the numbering.
    InvalidRoot,
    /// The slot is empty or of the wrong type.
    Missing {
        /// Bits not resolved.
        left: u8,
    },
    /// The CNode resolves more bits than are left.
    Depth {
        /// Bits not resolved.
        left: u8,
        /// Bits the CNode would resolve.
        found: u8,
    },
    /// The guard (always 0 here) is not in the pointer.
    Guard {
        /// Bits not resolved.
        left: u8,
        /// Guard's size.
        bits: u8,
    },
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A capability was not found.
    Cap {
        /// The capability pointer.
        pointer: u64,
        /// While receiving.
        receiving: bool,
        /// Why.
        lookup: Lookup,
    },
    /// No such system call.
    UnknownSyscall,
    /// Undefined instruction and the like.
    UserException {
        /// The architecture's number.
        number: u64,
        /// The architecture's code.
        code: u64,
    },
    /// BRK in the debug configuration.
    Breakpoint,
    /// The budget is used up.
    Timeout {
        /// Of the scheduling context.
        badge: u64,
        /// Microseconds used.
        consumed: u64,
    },
    /// Memory access.
    Vm {
        /// Virtual or, from a guest, intermediate physical address.
        address: u64,
        /// Instruction fetch.
        prefetch: bool,
        /// Syndrome.
        esr: u64,
    },
    /// The virtual interrupt controller wants attention.
    VgicMaintenance {
        /// List register whose interrupt was completed.
        index: Option<u8>,
    },
    /// Everything else a virtual CPU may trap on.
    Vcpu {
        /// Syndrome.
        esr: u64,
    },
    /// The virtual timer fired.
    VppiEvent {
        /// Interrupt number.
        irq: u64,
    },
}

/// A fault as a message.
pub struct Message {
    /// Label.
    pub label: u64,
    /// Message registers.
    pub words: [u64; 13],
    /// How many.
    pub length: usize,
}

/// Kind of lookup failure, as told in a capability fault.
const MISSING: u64 = 2;
const DEPTH: u64 = 3;
const GUARD: u64 = 4;

impl Fault {
    /// The message for a handler. `context` is the faulting thread's.
    pub fn message(&self, context: &Context) -> Message {
        let ip = context.fault_ip;
        let mut words = [0; 13];
        let mut put = |values: &[u64]| {
            for (word, value) in words.iter_mut().zip(values) {
                *word = *value;
            }
            values.len()
        };
        let (label, length) = match *self {
            Fault::Cap { pointer, receiving, lookup } => {
                let receiving = u64::from(receiving);
                let length = match lookup {
                    Lookup::InvalidRoot => put(&[ip, pointer, receiving, 1]),
                    Lookup::Missing { left } => put(&[ip, pointer, receiving, MISSING, left.into()]),
                    Lookup::Depth { left, found } => {
                        put(&[ip, pointer, receiving, DEPTH, left.into(), found.into()])
                    }
                    Lookup::Guard { left, bits } => {
                        put(&[ip, pointer, receiving, GUARD, left.into(), 0, bits.into()])
                    }
                };
                (label::CAP, length)
            }
            Fault::UnknownSyscall => {
                let [x0, x1, x2, x3, x4, x5, x6, x7, ..] = context.x;
                let (sp, pc, spsr) = (context.sp, context.pc, context.spsr);
                let length = put(&[x0, x1, x2, x3, x4, x5, x6, x7, ip, sp, pc, spsr, x7]);
                (label::UNKNOWN_SYSCALL, length)
            }
            Fault::UserException { number, code } => {
                (label::USER_EXCEPTION, put(&[ip, context.sp, context.spsr, number, code]))
            }
            Fault::Breakpoint => (label::DEBUG_EXCEPTION, put(&[ip, 3])),
            Fault::Timeout { badge, consumed } => (label::TIMEOUT, put(&[badge, consumed])),
            Fault::Vm { address, prefetch, esr } => (label::VM, put(&[ip, address, prefetch.into(), esr])),
            Fault::VgicMaintenance { index } => {
                (label::VGIC_MAINTENANCE, put(&[index.map_or(u64::MAX, u64::from)]))
            }
            Fault::Vcpu { esr } => (label::VCPU, put(&[esr])),
            Fault::VppiEvent { irq } => (label::VPPI_EVENT, put(&[irq])),
        };
        Message { label, words, length }
    }

    /// How many registers a reply may write back.
    pub fn reply_words(&self) -> usize {
        match self {
            Fault::UnknownSyscall => 12,
            Fault::UserException { .. } => 3,
            Fault::Timeout { .. } => TIMEOUT_WORDS,
            _ => 0,
        }
    }

    /// Writes register `index` of a reply back.
    pub fn set_reply_word(&self, context: &mut Context, index: usize, value: u64, vm: bool) {
        match self {
            Fault::UnknownSyscall => match index {
                8 => context.fault_ip = value,
                9 => context.sp = value,
                10 => context.pc = value,
                11 => context.spsr = sanitise_spsr(value, vm),
                _ => {
                    if let Some(x) = context.x.get_mut(index) {
                        *x = value;
                    }
                }
            },
            Fault::UserException { .. } => match index {
                0 => context.fault_ip = value,
                1 => context.sp = value,
                _ => context.spsr = sanitise_spsr(value, vm),
            },
            _ => context.set_word(index, value, vm),
        }
    }

    /// Whether the thread goes on after a reply with this label.
    pub fn restarts(&self, label: u64) -> bool {
        match self {
            Fault::UnknownSyscall
            | Fault::UserException { .. }
            | Fault::Breakpoint
            | Fault::Timeout { .. } => label == 0,
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(fault: Fault, context: &Context) -> (u64, Vec<u64>) {
        let m = fault.message(context);
        (m.label, m.words[..m.length].to_vec())
    }

    #[test]
    fn messages() {
        let mut c = Context { fault_ip: 0x1000, pc: 0x1004, sp: 0x2000, spsr: 0x40, ..Default::default() };
        c.x[7] = 0x77;
        let lookup = Lookup::Guard { left: 58, bits: 49 };
        assert_eq!(
            words(Fault::Cap { pointer: 600, receiving: false, lookup }, &c),
            (1, vec![0x1000, 600, 0, 4, 58, 0, 49])
        );
        let lookup = Lookup::Missing { left: 0 };
        assert_eq!(words(Fault::Cap { pointer: 1, receiving: true, lookup }, &c).1, [0x1000, 1, 1, 2, 0]);
        let (label, unknown) = words(Fault::UnknownSyscall, &c);
        assert_eq!((label, unknown.len()), (2, 13));
        assert_eq!(unknown[7..], [0x77, 0x1000, 0x2000, 0x1004, 0x40, 0x77]);
        assert_eq!(words(Fault::VgicMaintenance { index: None }, &c), (7, vec![u64::MAX]));
    }

    #[test]
    fn replies() {
        let mut c = Context::default();
        Fault::UnknownSyscall.set_reply_word(&mut c, 8, 0x44, false);
        Fault::UnknownSyscall.set_reply_word(&mut c, 3, 9, false);
        assert_eq!((c.fault_ip, c.pc, c.x[3]), (0x44, 0, 9));
        assert!(!Fault::UnknownSyscall.restarts(1));
        assert!(Fault::Vcpu { esr: 0 }.restarts(1));
    }
}
