//! Virtual CPUs in hardware: EL1 registers, the GICv2 virtual interface, the virtual timer.

use core::arch::asm;

use partita_kernel::vcpu::{Vcpu, field, irq};

use super::gic;
use super::regs::{Block, dsb, isb, read, write};

// SAFETY: QEMU virt's virtual interface control; the packer never maps this page to anyone.
const GICH: Block = unsafe { Block::new(0x0803_0000) };

/// GICH registers.
mod h {
    pub const HCR: usize = 0x00;
    pub const VTR: usize = 0x04;
    pub const VMCR: usize = 0x08;
    pub const MISR: usize = 0x10;
    pub const EISR0: usize = 0x20;
    pub const APR: usize = 0xf0;
    pub const LR: usize = 0x100;
}

/// HCR_EL2 while a native thread runs: TGE, and EL1's and EL0's translation controls trap.
pub const HCR_NATIVE: u64 = 0x8e28_103b;
/// HCR_EL2 while a guest runs: WFI, WFE, SMC and physical interrupts come here.
pub const HCR_GUEST: u64 = 0x8008_6039;
/// SCTLR_EL1 while a native thread runs: EL0 may do cache maintenance and WFx; the MMU bit has no effect under TGE.
const SCTLR_NATIVE: u64 = 0x34d5_8820;
/// CNTKCTL_EL1 while a native thread runs: physical counter and timer, not the virtual ones.
const CNTKCTL_NATIVE: u64 = 0x201;
/// CPACR_EL1 while a native thread runs: the FPU is controlled by CPTR_EL2 alone.
const CPACR_NATIVE: u64 = 3 << 20;
/// CNTHCTL_EL2: EL1 and EL0 may use the physical counter and timer.
const CNTHCTL: u64 = 3;

/// Number of list registers.
pub fn init() -> usize {
    write!("hcr_el2", HCR_NATIVE);
    write!("cnthctl_el2", CNTHCTL);
    write!("cntvoff_el2", 0);
    write!("cntv_ctl_el0", 0);
    write!("hstr_el2", 0);
    write!("mdcr_el2", read!("mdcr_el2") & 0x1f);
    write!("pmuserenr_el0", 0);
    write!("vpidr_el2", read!("midr_el1"));
    native();
    GICH.write(h::HCR, 0);
    ((GICH.read(h::VTR) & 0x3f) as usize + 1).min(4)
}

fn native() {
    write!("sctlr_el1", SCTLR_NATIVE);
    write!("cntkctl_el1", CNTKCTL_NATIVE);
    write!("cpacr_el1", CPACR_NATIVE);
}

/// Makes `match` arms from field numbers to registers.
macro_rules! fields {
    ($($number:pat => $name:literal,)*) => {
        /// Reads a field from the CPU.
        pub fn read_field(f: usize) -> u64 {
            match f {
                $($number => read!($name),)*
                _ => 0,
            }
        }
        /// Writes a field to the CPU.
        pub fn write_field(f: usize, value: u64) {
            match f {
                $($number => write!($name, value),)*
                _ => {}
            }
        }
    };
}

fields! {
    0 => "sctlr_el1",
    1 => "cpacr_el1",
    2 => "ttbr0_el1",
    3 => "ttbr1_el1",
    4 => "tcr_el1",
    5 => "mair_el1",
    6 => "amair_el1",
    7 => "contextidr_el1",
    8 => "actlr_el1",
    9 => "afsr0_el1",
    10 => "afsr1_el1",
    11 => "esr_el1",
    12 => "far_el1",
    13 => "par_el1",
    14 => "vbar_el1",
    15 => "tpidr_el1",
    16 => "vmpidr_el2",
    17 => "sp_el1",
    18 => "elr_el1",
    19 => "spsr_el1",
    20 => "cntv_ctl_el0",
    21 => "cntv_cval_el0",
    22 => "cntvoff_el2",
    23 => "cntkctl_el1",
}

/// Fields that stay in the CPU while a virtual CPU is loaded: all that deactivation does not save.
macro_rules! resident {
    ($do:ident) => {
        $do!(2 "ttbr0_el1"; 3 "ttbr1_el1"; 4 "tcr_el1"; 5 "mair_el1"; 6 "amair_el1"; 7 "contextidr_el1";
             8 "actlr_el1"; 9 "afsr0_el1"; 10 "afsr1_el1"; 11 "esr_el1"; 12 "far_el1"; 13 "par_el1"; 14 "vbar_el1";
             15 "tpidr_el1"; 16 "vmpidr_el2"; 17 "sp_el1"; 18 "elr_el1"; 19 "spsr_el1")
    };
}

/// Saves what stays in the CPU while the virtual CPU is loaded.
pub fn save_all(vcpu: &mut Vcpu, registers: usize) {
    macro_rules! save {
        ($($f:literal $name:literal);*) => { $(vcpu.fields[$f] = read!($name);)* };
    }
    resident!(save);
    vcpu.vgic_vmcr = GICH.read(h::VMCR);
    vcpu.vgic_apr = GICH.read(h::APR);
    for (i, lr) in vcpu.list.iter_mut().enumerate().take(registers) {
        *lr = GICH.read(h::LR + 4 * i);
    }
}

/// Loads it.
pub fn load_all(vcpu: &Vcpu, registers: usize) {
    macro_rules! load {
        ($($f:literal $name:literal);*) => { $(write!($name, vcpu.fields[$f]);)* };
    }
    resident!(load);
    GICH.write(h::VMCR, vcpu.vgic_vmcr);
    GICH.write(h::APR, vcpu.vgic_apr);
    for (i, lr) in vcpu.list.iter().enumerate().take(registers) {
        GICH.write(h::LR + 4 * i, *lr);
    }
}

/// A guest is about to run.
pub fn activate(vcpu: &Vcpu) {
    write!("sctlr_el1", vcpu.fields[field::SCTLR]);
    write!("cpacr_el1", vcpu.fields[field::CPACR]);
    write!("cntkctl_el1", vcpu.fields[field::CNTKCTL]);
    write!("hcr_el2", HCR_GUEST);
    write!("cntvoff_el2", vcpu.fields[field::CNTVOFF]);
    write!("cntv_cval_el0", vcpu.fields[field::CNTV_CVAL]);
    write!("cntv_ctl_el0", vcpu.fields[field::CNTV_CTL]);
    GICH.write(h::HCR, vcpu.vgic_hcr);
    if !vcpu.vtimer_masked {
        gic::enable(irq::VTIMER, true);
    }
}

/// A guest has run.
pub fn deactivate(vcpu: &mut Vcpu) {
    vcpu.fields[field::CNTV_CTL] = read!("cntv_ctl_el0");
    write!("cntv_ctl_el0", 0);
    gic::enable(irq::VTIMER, false);
    vcpu.fields[field::CNTV_CVAL] = read!("cntv_cval_el0");
    vcpu.fields[field::CNTVOFF] = read!("cntvoff_el2");
    vcpu.vgic_hcr = GICH.read(h::HCR);
    GICH.write(h::HCR, 0);
    vcpu.fields[field::SCTLR] = read!("sctlr_el1");
    vcpu.fields[field::CPACR] = read!("cpacr_el1");
    vcpu.fields[field::CNTKCTL] = read!("cntkctl_el1");
    write!("hcr_el2", HCR_NATIVE);
    native();
}

/// Reads a list register.
pub fn read_lr(index: usize) -> u32 {
    GICH.read(h::LR + 4 * index)
}

/// Writes a list register.
pub fn write_lr(index: usize, value: u32) {
    GICH.write(h::LR + 4 * index, value);
}

/// Maintenance status and completed interrupts.
pub fn maintenance() -> (u32, u32) {
    (GICH.read(h::MISR), GICH.read(h::EISR0))
}

/// Discards the current machine's stage-1 translations.
pub fn flush_translations() {
    // SAFETY: discards translations of the address space in VTTBR_EL2, which EL2 does not use.
    unsafe { asm!("tlbi vmalle1", options(nostack, preserves_flags)) };
    dsb();
    isb();
}

/// Intermediate physical address of the active guest's virtual address, by its own translation. The low 12 bits are the
/// virtual address's; the guest's PAR_EL1 is kept.
pub fn guest_address(vaddr: u64) -> u64 {
    let par = read!("par_el1");
    // SAFETY: a translation by the guest's tables; it changes nothing but PAR_EL1.
    unsafe { asm!("at s1e1r, {}", in(reg) vaddr, options(nostack, preserves_flags)) };
    isb();
    let result = read!("par_el1");
    write!("par_el1", par);
    let page = if result & 1 == 0 {
        result & 0xff_ffff_f000
    } else {
        // The walk itself aborted: the page is the table's.
        (read!("hpfar_el2") & 0xff_ffff_fff0) << 8
    };
    page | vaddr & 0xfff
}
