//! From the first byte of loader.img, at EL3 or EL2, to Rust.

use core::arch::global_asm;

// At EL3 (firmware left us there) all interrupts become group 1, so that the non-secure kernel can use them, and EL2 is
// entered. The MMU may be on: it is turned off before the stack is used.
global_asm!(
    r#"
.section .text.boot, "ax"
.global _start
_start:
    msr     daifset, #15
    mrs     x9, mpidr_el1
    and     x9, x9, #0xff
    cbnz    x9, 9f
    mrs     x9, CurrentEL
    lsr     x9, x9, #2
    cmp     x9, #2
    b.eq    2f
    b.lo    9f

    // EL3
    mov     x0, #0x08000000
    add     x1, x0, #0x80
    mov     w2, #-1
    mov     x3, #8
1:  str     w2, [x1], #4
    subs    x3, x3, #1
    b.ne    1b
    add     x1, x0, #0x10000
    mov     w2, #0xff
    str     w2, [x1, #4]
    mov     x0, #0x5b1
    msr     scr_el3, x0
    msr     cptr_el3, xzr
    mov     x0, #0x3c9
    msr     spsr_el3, x0
    adr     x0, 2f
    msr     elr_el3, x0
    eret

2:  // EL2
    ldr     x0, =0x30c50830
    msr     sctlr_el2, x0
    isb
    adrp    x0, __bss_start
    add     x0, x0, :lo12:__bss_start
    adrp    x1, __bss_end
    add     x1, x1, :lo12:__bss_end
3:  cmp     x0, x1
    b.hs    4f
    stp     xzr, xzr, [x0], #16
    b       3b
4:  adrp    x0, __stack_top
    add     x0, x0, :lo12:__stack_top
    mov     sp, x0
    bl      kernel_start
    b       kernel_leave

9:  wfe
    b       9b
"#
);
