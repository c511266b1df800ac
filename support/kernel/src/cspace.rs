//! Capability lookup (seL4 manual 3.3) and message registers.

use crate::abi::{REGISTERS, buffer};
use crate::fault::Lookup;
use crate::hal::Hardware;
use crate::id::TcbId;
use crate::kernel::Kernel;
use crate::object::Cap;

impl<'a, H: Hardware> Kernel<'a, H> {
    /// What a thread's capability pointer names. Bits left over behind a capability that is not a CNode are ignored.
    ///
    /// A reference, as this is done several times for each system call: slots never change, and a copy of a slot through two
    /// results took a third of a signal's instructions.
    pub(crate) fn lookup(&self, t: TcbId, pointer: u64) -> Result<&'a Cap, Lookup> {
        let tcb = &self.tcbs[t];
        let (mut node, mut guard) = (tcb.cspace, tcb.guard_bits);
        let mut left = 64u8;
        loop {
            let cnode = self.cnodes[node];
            // What is left of the pointer, at the top of the word; `left` is 1 to 64 here.
            let rest = pointer << (64 - u32::from(left));
            if guard > left || (guard > 0 && rest >> (64 - u32::from(guard)) != 0) {
                return Err(Lookup::Guard { left, bits: guard });
            }
            let level = guard + cnode.bits;
            if level > left {
                return Err(Lookup::Depth { left, found: level });
            }
            let offset = pointer >> (left - level) & ((1 << cnode.bits) - 1);
            let cap = self.slots.get(cnode.start as usize + offset as usize).unwrap_or(&Cap::Null);
            left -= level;
            match *cap {
                Cap::CNode(next, next_guard) if left > 0 => (node, guard) = (next, next_guard),
                _ => return Ok(cap),
            }
        }
    }

    /// Message register `index` of a thread; 0 if it has no IPC buffer to hold it.
    pub(crate) fn mr(&self, t: TcbId, index: usize) -> u64 {
        let tcb = &self.tcbs[t];
        if index < REGISTERS {
            tcb.context.x[2 + index]
        } else if let Some(paddr) = tcb.buffer {
            self.hw.read(word_address(paddr, buffer::MESSAGE + index))
        } else {
            0
        }
    }

    /// Sets message register `index`, if the thread has a place for it.
    pub(crate) fn set_mr(&mut self, t: TcbId, index: usize, value: u64) {
        let tcb = &mut self.tcbs[t];
        if index < REGISTERS {
            tcb.context.x[2 + index] = value;
        } else if let Some(paddr) = tcb.buffer {
            self.hw.write(word_address(paddr, buffer::MESSAGE + index), value);
        }
    }

    /// Extra capability pointer or received badge `index`.
    pub(crate) fn extra_pointer(&self, t: TcbId, index: usize) -> u64 {
        self.tcbs[t].buffer.map_or(0, |paddr| self.hw.read(word_address(paddr, buffer::CAPS + index)))
    }

    /// How many message registers a thread has places for.
    pub(crate) fn places(&self, t: TcbId, length: usize) -> usize {
        if self.tcbs[t].buffer.is_some() { length } else { length.min(REGISTERS) }
    }
}

/// Address of a word of an IPC buffer.
pub(crate) fn word_address(paddr: u64, word: usize) -> u64 {
    // The buffer is 1 KiB and aligned to it, so this never carries out of it.
    paddr | (word % buffer::WORDS * 8) as u64
}
