//! FPU and SIMD registers. The kernel is compiled without them.

use core::arch::global_asm;

use super::regs::{isb, write};

/// A thread's registers.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
pub struct State {
    q: [u128; 32],
    fpsr: u64,
    fpcr: u64,
}

impl State {
    /// All zero.
    pub const ZERO: State = State { q: [0; 32], fpsr: 0, fpcr: 0 };
}

const _: () = assert!(size_of::<State>() <= 544);

unsafe extern "C" {
    fn fpu_save(to: *mut State);
    fn fpu_load(from: *const State);
}

/// CPTR_EL2: reserved bits.
const CPTR: u64 = 0x33ff;
/// CPTR_EL2.TFP: trap.
const TRAP: u64 = 1 << 10;

/// Lets threads use the FPU or trap.
pub fn enable(on: bool) {
    write!("cptr_el2", if on { CPTR } else { CPTR | TRAP });
}

/// Saves `from`'s registers and loads `to`'s. The FPU is enabled.
pub fn switch(from: Option<&mut State>, to: &State) {
    isb();
    // SAFETY: both are whole states; the assembly touches nothing else but FPU registers, which compiled code never uses.
    unsafe {
        if let Some(from) = from {
            fpu_save(from);
        }
        fpu_load(to);
    }
}

global_asm!(
    r#"
.arch armv8-a+fp+simd
.macro each op
    \op     q0, q1, [x0, #0]
    \op     q2, q3, [x0, #32]
    \op     q4, q5, [x0, #64]
    \op     q6, q7, [x0, #96]
    \op     q8, q9, [x0, #128]
    \op     q10, q11, [x0, #160]
    \op     q12, q13, [x0, #192]
    \op     q14, q15, [x0, #224]
    \op     q16, q17, [x0, #256]
    \op     q18, q19, [x0, #288]
    \op     q20, q21, [x0, #320]
    \op     q22, q23, [x0, #352]
    \op     q24, q25, [x0, #384]
    \op     q26, q27, [x0, #416]
    \op     q28, q29, [x0, #448]
    \op     q30, q31, [x0, #480]
.endm
.section .text.fpu, "ax"
.global fpu_save
fpu_save:
    each    stp
    mrs     x1, fpsr
    mrs     x2, fpcr
    str     x1, [x0, #512]
    str     x2, [x0, #520]
    ret
.global fpu_load
fpu_load:
    each    ldp
    ldr     x1, [x0, #512]
    ldr     x2, [x0, #520]
    msr     fpsr, x1
    msr     fpcr, x2
    ret
"#
);
