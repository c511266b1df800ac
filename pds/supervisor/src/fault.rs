//! What to tell the user when a PD faults.
//!
//! `sel4_vm` decodes the kernel's message and the last words of a PD that panicked; here they become a block of lines with
//! the PD's name, its registers, and a guess where one is due.

use core::fmt;
use sel4_vm::{FaultInfo, PanicReport, UserContext};

/// Bytes around the stack pointer in which a fault is put down to the stack. A frame is seldom bigger.
const NEAR: u64 = 0x4000;

/// Whether it looks as if the stack had run over: nothing is mapped there, and it is around the stack pointer.
fn is_stack_overflow(fault: &FaultInfo, sp: u64) -> bool {
    match fault {
        FaultInfo::Vm { addr, prefetch: false, esr, .. } => {
            // A translation fault of any level (Arm ARM, ISS of a data abort).
            matches!(esr.0 & 0x3f, 0x04..=0x07) && addr.abs_diff(sp) < NEAR
        }
        _ => false,
    }
}

/// Writes the report: lines without a newline at the end of the last. `registers` are missing if they could not be read.
pub fn report(
    out: &mut impl fmt::Write,
    name: impl fmt::Display,
    fault: &FaultInfo,
    registers: Option<&UserContext>,
) -> fmt::Result {
    let Some(registers) = registers else { return write!(out, "PD {name} stopped: {fault}") };
    if PanicReport::is_report(fault) {
        return write!(out, "PD {name} {}", PanicReport::new(registers));
    }
    let (pc, sp, lr, fp) = (registers.pc(), registers.sp(), registers.gpr(30), registers.gpr(29));
    write!(out, "PD {name} stopped: {fault}\n  pc {pc:#x} lr {lr:#x} sp {sp:#x} fp {fp:#x}")?;
    for first in [0, 4] {
        out.write_str("\n ")?;
        for n in first..first + 4 {
            write!(out, " x{n} {:#x}", registers.gpr(n))?;
        }
    }
    if is_stack_overflow(fault, *sp) {
        out.write_str("\n  nothing is mapped there and the stack pointer is near: stack overflow?")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sel4_vm::Esr;

    const WRITE: u64 = 0x9200_0047;

    fn text(fault: &FaultInfo, registers: Option<&UserContext>) -> String {
        let mut out = String::new();
        report(&mut out, "blk_main", fault, registers).unwrap();
        out
    }

    fn memory(addr: u64, esr: u64) -> FaultInfo {
        FaultInfo::Vm { ip: 0x20_0010, addr, prefetch: false, esr: Esr(esr) }
    }

    #[test]
    fn a_memory_fault_with_its_registers() {
        let mut registers = UserContext::default();
        (*registers.pc_mut(), *registers.sp_mut(), *registers.gpr_mut(7)) = (0x20_0010, 0xff_ffff_8100, 0x77);
        let lines = text(&memory(0x1000, WRITE), Some(&registers));
        let lines: Vec<_> = lines.lines().collect();
        assert!(
            lines[0].starts_with("PD blk_main stopped: access to 0x1000 at 0x200010: data abort"),
            "{lines:?}"
        );
        assert!(lines[0].contains("not mapped, write"), "{lines:?}");
        assert_eq!(lines[1], "  pc 0x200010 lr 0x0 sp 0xffffff8100 fp 0x0");
        assert_eq!(lines[2..], ["  x0 0x0 x1 0x0 x2 0x0 x3 0x0", "  x4 0x0 x5 0x0 x6 0x0 x7 0x77"]);
    }

    #[test]
    fn a_stack_overflow_is_suspected_only_where_it_may_be() {
        let mut registers = UserContext::default();
        *registers.sp_mut() = 0xff_ffff_8100;
        for (addr, esr, suspected) in [
            (0xff_ffff_7ff8, WRITE, true),
            (0xff_ffff_8200, WRITE, true),
            // A permission fault; far away.
            (0xff_ffff_7ff8, WRITE | 0xf, false),
            (0x1000, WRITE, false),
        ] {
            let text = text(&memory(addr, esr), Some(&registers));
            assert_eq!(text.contains("stack overflow?"), suspected, "{text}");
        }
    }

    #[test]
    fn last_words_need_no_registers_beside_them() {
        let mut registers = UserContext::default();
        (*registers.gpr_mut(0), *registers.gpr_mut(1)) = (1, 12);
        *registers.gpr_mut(9) = u64::from_le_bytes(*b"no disk\0");
        let last = text(&memory(0xff_dead_0000, WRITE), Some(&registers));
        assert_eq!(last, "PD blk_main panicked at :12: no disk");
        assert!(text(&memory(0xff_dead_0000, WRITE), None).contains("0xffdead0000"));
    }

    proptest! {
        #[test]
        fn no_fault_breaks_the_report(label in 0u64..16, words: [u64; 13], registers: [u64; 8]) {
            let mut context = UserContext::default();
            *context.sp_mut() = registers[0];
            for (n, value) in registers.into_iter().enumerate() {
                *context.gpr_mut(n) = value;
            }
            let lines = text(&FaultInfo::from_words(label, &words), Some(&context));
            prop_assert!(lines.lines().all(|line| line.len() < partita_ring::log::LINE));
        }
    }
}
