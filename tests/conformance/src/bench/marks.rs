//! Routines that mark.

use core::arch::{asm, global_asm};

/// The counting plugin notes where it is. No operation at every exception level.
pub fn mark() {
    // SAFETY: an unallocated hint does nothing. It clobbers memory for the compiler, so that nothing moves across.
    unsafe { asm!("hint #127", options(nostack)) };
}

// Routines of children. x16 is a number of rounds, x17 the system call that comes first.
global_asm!(
    r#"
    .section .text.bench, "ax"
    .macro keep
        mov     x20, x0
        mov     x21, x1
        mov     x22, x6
        mov     x23, x7
        mov     x24, x8
        mov     x25, x16
    .endm
    .macro again
        mov     x0, x20
        mov     x1, x21
        mov     x6, x22
        mov     x7, x23
        mov     x8, x24
        svc     #0
    .endm
    // The same system call x16 times, a mark before each and after the last, then out.
    .global b_rounds
b_rounds:
    keep
1:  hint    #127
    again
    subs    x25, x25, #1
    b.ne    1b
    hint    #127
    mov     x7, #1000
    svc     #0
    b       .
    // System call x17, then for ever a mark and the given system call.
    .global b_serve
b_serve:
    keep
    mov     x7, x17
    svc     #0
1:  hint    #127
    again
    b       1b
    // The same without marks.
    .global b_quiet
b_quiet:
    keep
    mov     x7, x17
    svc     #0
1:  again
    b       1b
    // A mark and an undefined instruction, for ever: the director sends it back to the mark.
    .global b_undefined
b_undefined:
    hint    #127
    udf     #0
    b       .
    // A mark and a store of w1 to x0 that raises an interrupt, for ever.
    .global b_interrupt
b_interrupt:
    hint    #127
    str     w1, [x0]
    dsb     sy
    isb
    b       b_interrupt
    "#
);

macro_rules! routines {
    ($($name:ident)*) => {
        unsafe extern "C" {
            $(fn $name();)*
        }
        /// Addresses of the routines above.
        #[allow(missing_docs)]
        pub mod at {
            $(
                pub fn $name() -> u64 {
                    super::$name as *const () as u64
                }
            )*
        }
    };
}

routines! { b_rounds b_serve b_quiet b_undefined b_interrupt }
