//! Exception vectors, and the way back to user code.
//!
//! While user code runs, SP_EL2 points at the current thread's [`Context`]: an exception saves straight into it, then
//! takes the kernel's stack. Handlers return the context to go on with.

use core::arch::global_asm;
use core::mem::offset_of;

use partita_kernel::context::Context;

const _: () = assert!(offset_of!(Context, sp) == 248 && offset_of!(Context, pc) == 256);
const _: () = assert!(offset_of!(Context, spsr) == 264 && offset_of!(Context, fault_ip) == 272);

global_asm!(
    r#"
.macro save
    stp     x0, x1, [sp, #0]
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x19, [sp, #144]
    stp     x20, x21, [sp, #160]
    stp     x22, x23, [sp, #176]
    stp     x24, x25, [sp, #192]
    stp     x26, x27, [sp, #208]
    stp     x28, x29, [sp, #224]
    mrs     x1, sp_el0
    mrs     x2, elr_el2
    mrs     x3, spsr_el2
    stp     x30, x1, [sp, #240]
    stp     x2, x3, [sp, #256]
.endm

.macro kernel_stack
    adrp    x1, __stack_top
    add     x1, x1, :lo12:__stack_top
    mov     sp, x1
.endm

.section .text.vectors, "ax"
.balign 2048
.global vectors
vectors:
.rept 4
    // Current EL with SP_EL0: not used.
    b       kernel_trap
    .balign 128
.endr
.rept 4
    // Current EL: the kernel itself.
    b       kernel_trap
    .balign 128
.endr
    // Lower EL, AArch64: synchronous.
    save
    mrs     x0, esr_el2
    lsr     x1, x0, #26
    sub     x1, x1, #0x15
    cmp     x1, #1
    b       1f
    .balign 128
    // Interrupt.
    save
    str     x2, [sp, #272]
    b       2f
    .balign 128
    // FIQ: not used.
    b       kernel_trap
    .balign 128
    // SError.
    save
    str     x2, [sp, #272]
    b       3f
    .balign 128
.rept 4
    // Lower EL, AArch32: not used.
    b       kernel_trap
    .balign 128
.endr

1:  // SVC (0x15) and HVC (0x16) are system calls; everything else is a fault.
    b.hi    4f
    sub     x2, x2, #4
    str     x2, [sp, #272]
    kernel_stack
    bl      handle_syscall
    b       kernel_leave
4:  str     x2, [sp, #272]
    kernel_stack
    bl      handle_fault
    b       kernel_leave
2:  kernel_stack
    bl      handle_interrupt
    b       kernel_leave
3:  kernel_stack
    bl      handle_serror
    b       kernel_leave

.global kernel_leave
kernel_leave:
    // x0: context to go on with.
    mov     sp, x0
    ldp     x2, x3, [sp, #256]
    ldp     x30, x1, [sp, #240]
    msr     elr_el2, x2
    msr     spsr_el2, x3
    msr     sp_el0, x1
    ldp     x28, x29, [sp, #224]
    ldp     x26, x27, [sp, #208]
    ldp     x24, x25, [sp, #192]
    ldp     x22, x23, [sp, #176]
    ldp     x20, x21, [sp, #160]
    ldp     x18, x19, [sp, #144]
    ldp     x16, x17, [sp, #128]
    ldp     x14, x15, [sp, #112]
    ldp     x12, x13, [sp, #96]
    ldp     x10, x11, [sp, #80]
    ldp     x8, x9, [sp, #64]
    ldp     x6, x7, [sp, #48]
    ldp     x4, x5, [sp, #32]
    ldp     x2, x3, [sp, #16]
    ldp     x0, x1, [sp, #0]
    eret

kernel_trap:
    adrp    x1, __stack_top
    add     x1, x1, :lo12:__stack_top
    mov     sp, x1
    bl      handle_kernel_trap
    b       .
"#
);
