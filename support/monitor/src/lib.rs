//! What the monitor prints about a fault, in the format that users of Microkit know.
#![cfg_attr(target_os = "none", no_std)]

use core::fmt::{self, Display};

use sel4::{Fault, UserContext, Word};

/// A fault's words in the message, before anything overwrote them.
pub struct Report<'a> {
    /// What happened.
    pub fault: &'a Fault,
    /// Message label.
    pub label: Word,
    /// Message words.
    pub words: [Word; 7],
    /// Lowest address of the PD's stack.
    pub stack_bottom: Word,
}

/// All registers, one to a line.
pub struct Registers<'a> {
    /// Those that a context gives access to.
    pub context: &'a UserContext,
    /// TPIDR_EL0 and TPIDRRO_EL0.
    pub thread_pointers: [Word; 2],
}

/// Bytes below the stack that count as its overflow.
const STACK_GUARD: Word = 0x1000;

impl Display for Registers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = self.context;
        writeln!(f, "Registers: ")?;
        writeln!(f, "pc : {:#018x}\nsp: {:#018x}\nspsr : {:#018x}", c.pc(), c.sp(), c.spsr())?;
        for x in (0..=8).chain(16..=18).chain(29..=30).chain(9..=15).chain(19..=28) {
            writeln!(f, "x{x} : {:#018x}", c.gpr(x))?;
        }
        let [tpidr, tpidrro] = self.thread_pointers;
        writeln!(f, "tpidr_el0 : {tpidr:#018x}\ntpidrro_el0 : {tpidrro:#018x}")
    }
}

impl Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [ip, address, phase, lookup, left, found, bits] = self.words;
        match self.fault {
            Fault::CapFault(_) => {
                write!(f, "MON|ERROR: CapFault: ip={ip:#018x}  fault_addr={address:#018x}")?;
                write!(f, "  in_recv_phase={}  lookup_failure_type=", phase != 0)?;
                match lookup {
                    0 => f.write_str("seL4_NoFailure")?,
                    1 => f.write_str("seL4_InvalidRoot")?,
                    2 => write!(f, "seL4_MissingCapability  bits_left={left:#018x}")?,
                    3 => write!(
                        f,
                        "seL4_DepthMismatch  bits_left={left:#018x}  depth_bits_found={found:#018x}"
                    )?,
                    4 => write!(
                        f,
                        "seL4_GuardMismatch  bits_left={left:#018x}  guard_found={found:#018x}  \
                         guard_bits_found={bits:#018x}"
                    )?,
                    other => write!(f, "{other:#018x}")?,
                }
                writeln!(f)
            }
            Fault::UserException(_) => writeln!(f, "MON|ERROR: UserException"),
            Fault::VmFault(fault) => {
                let (esr, kind) = (fault.fsr(), if fault.is_prefetch() { "instruction" } else { "data" });
                write!(f, "MON|ERROR: VMFault: ip={ip:#018x}  fault_addr={address:#018x}")?;
                writeln!(f, "  fsr={esr:#018x}  ({kind} fault)")?;
                let (class, il, iss) = (esr >> 26, esr >> 25 & 1, esr & 0x1ff_ffff);
                writeln!(
                    f,
                    "MON|ERROR:   ec: {class:#010x}  {}   il: {il}   iss: {iss:#010x}",
                    class_name(class)
                )?;
                if class == 0x24 {
                    data_abort(f, iss)?;
                }
                let below = self.stack_bottom.wrapping_sub(fault.addr());
                if (1..=STACK_GUARD).contains(&below) {
                    writeln!(
                        f,
                        "MON|ERROR: potential stack overflow, fault address within one page outside of stack region"
                    )?;
                }
                Ok(())
            }
            Fault::VCpuFault(fault) => {
                let esr = fault.hsr();
                writeln!(f, "MON|ERROR: received vCPU fault with ESR: {esr:#018x}")?;
                writeln!(f, "MON|ERROR: Unknown vCPU fault ({})", class_name(esr >> 26))
            }
            _ => writeln!(f, "MON|ERROR: Unknown fault\n{:#018x}", self.label),
        }
    }
}

fn data_abort(f: &mut fmt::Formatter<'_>, iss: Word) -> fmt::Result {
    let status = iss & 0x3f;
    write!(f, "MON|ERROR:   dfsc = {} ({status:#010x})", status_name(status))?;
    for (bit, text) in [
        (9, " -- external abort"),
        (8, " -- cache maint"),
        (7, " -- stage 2 fault for stage 1 page table walk"),
        (6, " -- write not read"),
    ] {
        if iss >> bit & 1 != 0 {
            f.write_str(text)?;
        }
    }
    writeln!(f)
}

/// Exception class (Arm ARM D24.2.40, ESR_EL2.EC).
const fn class_name(class: Word) -> &'static str {
    match class {
        0x00 => "Unknown reason",
        0x01 => "Trapped WFI or WFE instruction execution",
        0x07 => "Access to SVE, Advanced SIMD, or floating-point functionality",
        0x0e => "Illegal Execution state",
        0x15 => "SVC instruction execution in AArch64 state",
        0x16 => "HVC instruction execution in AArch64 state",
        0x17 => "SMC instruction execution in AArch64 state",
        0x18 => "Trapped MSR, MRS or System instruction",
        0x20 => "Instruction Abort from a lower Exception level",
        0x22 => "PC alignment fault",
        0x24 => "Data Abort from a lower Exception level",
        0x26 => "SP alignment fault",
        0x2c => "Trapped floating-point exception",
        0x2f => "SError interrupt",
        0x30 => "Breakpoint",
        0x32 => "Software Step",
        0x34 => "Watchpoint",
        0x3c => "BRK instruction execution in AArch64 state",
        _ => "other",
    }
}

/// Data fault status code.
const fn status_name(status: Word) -> &'static str {
    match status {
        0x00 => "address size fault, level 0",
        0x01 => "address size fault, level 1",
        0x02 => "address size fault, level 2",
        0x03 => "address size fault, level 3",
        0x04 => "translation fault, level 0",
        0x05 => "translation fault, level 1",
        0x06 => "translation fault, level 2",
        0x07 => "translation fault, level 3",
        0x09 => "access flag fault, level 1",
        0x0a => "access flag fault, level 2",
        0x0b => "access flag fault, level 3",
        0x0d => "permission fault, level 1",
        0x0e => "permission fault, level 2",
        0x0f => "permission fault, level 3",
        0x10 => "synchronous external abort",
        0x14..=0x17 => "synchronous external abort on a table walk",
        0x21 => "alignment fault",
        0x30 => "TLB conflict abort",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sel4::{IpcBuffer, MessageInfo};

    fn report(label: Word, words: [Word; 7], stack_bottom: Word) -> String {
        let mut buffer = IpcBuffer::default();
        buffer.msg_regs_mut()[..7].copy_from_slice(&words);
        let fault = Fault::new(&buffer, &MessageInfo::new(label, 0, 0, 7));
        Report { fault: &fault, label, words, stack_bottom }.to_string()
    }

    #[test]
    fn registers_have_a_line_each() {
        let text = Registers { context: &UserContext::default(), thread_pointers: [1, 2] }.to_string();
        assert_eq!(text.lines().count(), 1 + 36);
        assert!(text.ends_with(
            "x28 : 0x0000000000000000\ntpidr_el0 : 0x0000000000000001\ntpidrro_el0 : 0x0000000000000002\n"
        ));
    }

    #[test]
    fn store_to_nowhere() {
        let text = report(6, [0x20_0014, 0, 0, 0x9300_0046, 0, 0, 0], 0xff_ffff_c000);
        assert_eq!(
            text,
            "MON|ERROR: VMFault: ip=0x0000000000200014  fault_addr=0x0000000000000000  \
             fsr=0x0000000093000046  (data fault)\n\
             MON|ERROR:   ec: 0x00000024  Data Abort from a lower Exception level   il: 1   iss: 0x01000046\n\
             MON|ERROR:   dfsc = translation fault, level 2 (0x00000006) -- write not read\n"
        );
    }

    #[test]
    fn stack_overflow_is_hinted_at() {
        let words = |address| [0x20_0014, address, 0, 0x9300_0047, 0, 0, 0];
        for (address, hint) in [(0xbfff, true), (0xb000, true), (0xafff, false), (0xc000, false)] {
            assert_eq!(report(6, words(address), 0xc000).contains("stack overflow"), hint, "{address:#x}");
        }
    }

    #[test]
    fn capability_fault() {
        let text = report(1, [1, 600, 0, 4, 58, 0, 49], 0);
        assert!(text.contains("in_recv_phase=false  lookup_failure_type=seL4_GuardMismatch  bits_left="));
        assert!(text.ends_with("guard_bits_found=0x0000000000000031\n"));
    }
}
