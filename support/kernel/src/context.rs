//! A thread's saved registers, and the order in which `seL4_UserContext` shows them.

use crate::abi::{BUILD, Config};

/// Saved registers. The exception vectors know this layout.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Context {
    /// x0 to x30.
    pub x: [u64; 31],
    /// SP_EL0.
    pub sp: u64,
    /// Where the thread goes on.
    pub pc: u64,
    /// Processor state.
    pub spsr: u64,
    /// Where it goes on if it is restarted: the instruction that entered the kernel.
    pub fault_ip: u64,
    /// TPIDR_EL0; stale while the thread is loaded.
    pub tpidr: u64,
    /// TPIDRRO_EL0; stale while the thread is loaded.
    pub tpidrro: u64,
}

/// Words of `seL4_UserContext`.
pub const USER_CONTEXT_WORDS: usize = 36;
/// The first words of it: what a system call reads, changes or keeps ("frame registers").
pub const FRAME_WORDS: usize = 17;
/// Words of a timeout fault's reply.
pub const TIMEOUT_WORDS: usize = 34;

/// SPSR of a thread at EL0.
const SPSR_USER: u64 = match BUILD {
    Config::Debug => 0x40,
    Config::Release => 0x140,
};

/// General register behind each word of `seL4_UserContext` from word 3 on.
const ORDER: [u8; 31] = [
    0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 17, 18, 29, 30, 9, 10, 11, 12, 13, 14, 15, 19, 20, 21, 22, 23, 24, 25, 26,
    27, 28,
];

impl Context {
    /// Word `index` of `seL4_UserContext`; the program counter is where the thread would be restarted.
    pub fn word(&self, index: usize) -> u64 {
        match index {
            0 => self.fault_ip,
            1 => self.sp,
            2 => self.spsr,
            34 => self.tpidr,
            35 => self.tpidrro,
            _ => match ORDER.get(index - 3) {
                Some(&x) => self.x[usize::from(x)],
                None => 0,
            },
        }
    }

    /// Writes word `index` of `seL4_UserContext`. `vm`: the thread has a virtual CPU.
    pub fn set_word(&mut self, index: usize, value: u64, vm: bool) {
        match index {
            0 => {
                self.fault_ip = value;
                self.pc = value;
            }
            1 => self.sp = value,
            2 => self.spsr = sanitise_spsr(value, vm),
            34 => self.tpidr = value,
            35 => self.tpidrro = value,
            _ => {
                if let Some(&x) = ORDER.get(index - 3) {
                    self.x[usize::from(x)] = value;
                }
            }
        }
    }

    /// Badge of a received message or signal.
    pub fn set_badge(&mut self, badge: u64) {
        self.x[0] = badge;
    }
}

/// What a thread may have as its processor state: with a virtual CPU EL0t, EL1t and EL1h as they are, otherwise EL0 with
/// the given condition flags.
pub fn sanitise_spsr(spsr: u64, vm: bool) -> u64 {
    if vm && matches!(spsr & 0x1f, 0 | 4 | 5) { spsr } else { spsr & 0xf000_0000 | SPSR_USER }
}

/// SPSR of a new thread.
pub const fn initial_spsr(vm: bool) -> u64 {
    if vm { 0 } else { SPSR_USER }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_register_has_one_word() {
        let mut c = Context::default();
        for i in 0..USER_CONTEXT_WORDS {
            c.set_word(i, 0x1000 + i as u64, false);
        }
        for i in 0..USER_CONTEXT_WORDS {
            let expected = if i == 2 { SPSR_USER } else { 0x1000 + i as u64 };
            assert_eq!(c.word(i), expected, "word {i}");
        }
        assert_eq!(c.pc, 0x1000);
        assert_eq!((c.x[8], c.x[16], c.x[29], c.x[9], c.x[28]), (0x100b, 0x100c, 0x100f, 0x1011, 0x1021));
        assert_eq!(c.word(36), 0);
    }

    #[test]
    fn processor_state() {
        assert_eq!(sanitise_spsr(0x3c5, true), 0x3c5);
        assert_eq!(sanitise_spsr(0x3c9, true), SPSR_USER);
        assert_eq!(sanitise_spsr(0xf000_03c5, false), 0xf000_0000 | SPSR_USER);
    }
}
