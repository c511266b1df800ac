//! System registers and instructions that are not a guest's. Each is refused as an undefined instruction or does nothing
//! that anybody else could notice.

use super::{Cases, Expect, Subject};
use crate::refused;

/// The exception class of a refusal: undefined instruction or trapped register.
fn quiet(esr: u64) -> bool {
    matches!(esr >> 26, 0 | 0x18)
}

macro_rules! cases {
    ($($name:literal: $instruction:literal),* $(,)?) => {
        &[$(($name, || quiet(refused!($instruction)))),*]
    };
}

/// The catalogue's entry.
pub const SUBJECT: Subject = Subject {
    name: "registers of the processor",
    expect: Expect::Lives,
    cases: Cases::Named(cases! {
        "write of ICC_SGI1R_EL1": "msr S3_0_C12_C11_5, x0",
        "write of ICC_SRE_EL1": "msr S3_0_C12_C12_5, x0",
        "read of ICC_IAR1_EL1": "mrs x0, S3_0_C12_C12_0",
        "read of HCR_EL2": "mrs x0, hcr_el2",
        "write of HCR_EL2": "msr hcr_el2, xzr",
        "write of VTTBR_EL2": "msr vttbr_el2, xzr",
        "write of VTCR_EL2": "msr vtcr_el2, xzr",
        "write of SCTLR_EL2": "msr sctlr_el2, xzr",
        "write of VBAR_EL2": "msr vbar_el2, xzr",
        "write of ELR_EL2": "msr elr_el2, xzr",
        "write of CPTR_EL2": "msr cptr_el2, xzr",
        "write of CNTHCTL_EL2": "msr cnthctl_el2, xzr",
        "write of CNTVOFF_EL2": "msr cntvoff_el2, xzr",
        "write of CNTHP_CTL_EL2": "msr cnthp_ctl_el2, xzr",
        "write of ICH_LR0_EL2": "msr S3_4_C12_C12_0, xzr",
        "write of VMPIDR_EL2": "msr vmpidr_el2, xzr",
        "write of TPIDR_EL2": "msr tpidr_el2, xzr",
        "write of SCR_EL3": "msr S3_6_C1_C1_0, xzr",
        "write of SCTLR_EL3": "msr S3_6_C1_C0_0, xzr",
        "write of CNTFRQ_EL0": "msr cntfrq_el0, xzr",
        "read of ID_AA64MMFR0_EL1": "mrs x0, id_aa64mmfr0_el1",
        "read of an unallocated ID register": "mrs x0, S3_0_C0_C7_7",
        "read of ACTLR_EL1": "mrs x0, actlr_el1",
        "read of L2CTLR_EL1": "mrs x0, S3_1_C11_C0_2",
        "write of L2ACTLR_EL1": "msr S3_1_C15_C0_0, xzr",
        "write of CPUACTLR_EL1": "msr S3_1_C15_C2_0, xzr",
        "read of PMCR_EL0": "mrs x0, pmcr_el0",
        "write of PMUSERENR_EL0": "msr pmuserenr_el0, xzr",
        "write of MDSCR_EL1": "msr mdscr_el1, xzr",
        "write of OSLAR_EL1": "msr oslar_el1, xzr",
        "write of DBGBVR0_EL1": "msr dbgbvr0_el1, xzr",
        "write of DBGBCR0_EL1": "msr dbgbcr0_el1, xzr",
        "write of DBGWCR0_EL1": "msr dbgwcr0_el1, xzr",
        "ERET to EL2": "mrs x0, spsr_el2",
        "TLBI ALLE2": "tlbi alle2",
        "TLBI ALLE1": "tlbi alle1",
        "TLBI VMALLS12E1": "tlbi vmalls12e1",
        "TLBI VMALLE1IS": "tlbi vmalle1is",
        "TLBI IPAS2E1": "tlbi ipas2e1, x0",
        "AT S12E1R": "at s12e1r, x0",
        "AT S1E2R": "at s1e2r, x0",
        "DC ISW": "dc isw, xzr",
        "DC CISW": "dc cisw, xzr",
        "IC IALLUIS": "ic ialluis",
        "write of CSSELR_EL1": "msr csselr_el1, xzr",
        "read of CCSIDR_EL1": "mrs x0, ccsidr_el1",
        "a store-only hint": "hint #127",
        "an unallocated instruction": ".inst 0x00000000",
        "an instruction of SVE": ".inst 0x04e0e3e0",
        "LSE atomics, which this core has not": ".inst 0xf8e00000",
        "SMC's neighbour HLT": "hlt #0xffff",
    }),
};
