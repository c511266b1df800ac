//! What a vCPU's thread and a child PD's have in common: registers, start, stop.

use sel4::sys::invocation_label as label;
use sel4::{MessageInfo, Result, UserContext, Word, cap::Tcb, with_ipc_buffer, with_ipc_buffer_mut};

use crate::check;

/// Registers in a [`UserContext`].
pub(crate) const ALL: usize = 36;

/// How many registers, from the first, must be read or written to reach general-purpose register `gpr` (31 and beyond:
/// all of them). The order is pc, sp, spsr, x0–x8, x16–x18, x29, x30, x9–x15, x19–x28.
pub const fn register_count(gpr: usize) -> usize {
    match gpr {
        0..=8 => 4 + gpr,
        16..=18 => 13 + gpr - 16,
        29 | 30 => 16 + gpr - 29,
        9..=15 => 18 + gpr - 9,
        19..=28 => 25 + gpr - 19,
        _ => ALL,
    }
}

/// Sets the program counter and starts the thread, without a result.
pub(crate) fn resume_at(tcb: Tcb, pc: Word) {
    tcb.send_with_mrs(write_pc(), [RESUME, 1, pc]);
}

/// Sets the program counter and starts the thread.
pub(crate) fn resume_at_checked(tcb: Tcb, pc: Word) -> Result<()> {
    check(&tcb.call_with_mrs(write_pc(), [RESUME, 1, pc]).info)
}

/// Sets the program counter of a stopped or faulted thread and leaves it so, without a result.
pub(crate) fn set_pc(tcb: Tcb, pc: Word) {
    tcb.send_with_mrs(write_pc(), [0, 1, pc]);
}

/// pc, sp, spsr and x0, in registers all the way.
pub(crate) fn read_four(tcb: Tcb) -> Result<[Word; 4]> {
    let answer = tcb.call_with_mrs(MessageInfo::new(label::TCBReadRegisters.into(), 0, 0, 2), [0, 4]);
    check(&answer.info)?;
    Ok(answer.msg)
}

/// Reads the first `count` registers, lets `change` change them, writes them back and starts the thread.
pub(crate) fn update(tcb: Tcb, count: usize, change: impl FnOnce(&mut UserContext)) -> Result<()> {
    let count = count.clamp(1, ALL) as Word;
    let mut context = tcb.tcb_read_registers(false, count)?;
    change(&mut context);
    tcb.tcb_write_registers(true, count, &mut context)
}

/// Writes the first registers, in the kernel's order, and starts the thread if `resume`, without a result. Registers beyond
/// [`ALL`] are not sent.
pub(crate) fn write_by_send(tcb: Tcb, registers: &[Word], resume: bool) {
    let count = registers.len().min(ALL);
    with_ipc_buffer_mut(|buffer| {
        let message = buffer.msg_regs_mut();
        message[..2].copy_from_slice(&[resume.into(), count as Word]);
        message[2..2 + count].copy_from_slice(&registers[..count]);
    });
    tcb.send(MessageInfo::new(label::TCBWriteRegisters.into(), 0, 0, 2 + count));
}

/// Reads as many registers as `registers` holds, in the kernel's order; returns how many came.
pub(crate) fn read_into(tcb: Tcb, registers: &mut [Word]) -> Result<usize> {
    let count = registers.len().min(ALL) as Word;
    with_ipc_buffer_mut(|buffer| buffer.msg_regs_mut()[..2].copy_from_slice(&[0, count]));
    let answer = tcb.call(MessageInfo::new(label::TCBReadRegisters.into(), 0, 0, 2));
    check(&answer)?;
    let length = answer.length().min(registers.len());
    with_ipc_buffer(|buffer| {
        registers.iter_mut().zip(buffer.msg_regs()).take(length).for_each(|(to, from)| *to = *from);
    });
    Ok(length)
}

pub(crate) fn suspend_by_send(tcb: Tcb) {
    tcb.send_with_mrs(MessageInfo::new(label::TCBSuspend.into(), 0, 0, 0), []);
}

pub(crate) fn resume_by_send(tcb: Tcb) {
    tcb.send_with_mrs(MessageInfo::new(label::TCBResume.into(), 0, 0, 0), []);
}

const RESUME: Word = 1;

/// The kernel asks for two words and as many as the second says; libsel4's stub always sends 38.
fn write_pc() -> MessageInfo {
    MessageInfo::new(label::TCBWriteRegisters.into(), 0, 0, 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_reach_the_register_and_no_further() {
        // The position of each register in the kernel's order, written out.
        let order = [
            0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 17, 18, 29, 30, 9, 10, 11, 12, 13, 14, 15, 19, 20, 21, 22, 23, 24,
            25, 26, 27, 28,
        ];
        for (place, gpr) in order.into_iter().enumerate() {
            assert_eq!(register_count(gpr), 3 + place + 1, "x{gpr}");
        }
        assert_eq!(register_count(31), 36);
    }
}
