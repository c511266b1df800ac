//! From the entry to `guest_main`: stack, zeroed bss, identity map, exception vectors.

use core::arch::global_asm;

use crate::{check, machine};

global_asm!(
    r#"
    .section .text.start, "ax"
    .global _start
_start:
    adrp x1, stack_top
    add x1, x1, :lo12:stack_top
    mov sp, x1
    adrp x1, bss_start
    add x1, x1, :lo12:bss_start
    adrp x2, bss_end
    add x2, x2, :lo12:bss_end
1:  cmp x1, x2
    b.eq 2f
    stp xzr, xzr, [x1], #16
    b 1b
2:  adrp x1, vectors
    add x1, x1, :lo12:vectors
    msr vbar_el1, x1
    mov x19, x0
    // 39-bit addresses, 4 KiB granule: the table has one entry per GiB. 0: devices, 1: RAM.
    adrp x1, table
    add x1, x1, :lo12:table
    movz x2, #0x0405                // block, AF, attribute 1, execute never
    movk x2, #0x0060, lsl #48
    str x2, [x1]
    movz x2, #0x0701                // block, AF, inner shareable, attribute 0
    movk x2, #0x4000, lsl #16
    str x2, [x1, #8]
    mov x2, #0xff                   // 0: normal write-back, 1: device nGnRnE
    msr mair_el1, x2
    movz x2, #0x3519                // T0SZ 25, write-back, inner shareable
    movk x2, #0x0080, lsl #16       // EPD1
    msr tcr_el1, x2
    msr ttbr0_el1, x1
    dsb sy
    isb
    tlbi vmalle1
    dsb sy
    ic iallu
    dsb sy
    isb
    mrs x2, sctlr_el1
    mov x3, #0x1005                 // M, C, I
    orr x2, x2, x3
    bic x2, x2, #0x80000            // WXN
    msr sctlr_el1, x2
    isb
    mov x0, x19
    bl guest_main
    bl guest_done
1:  wfi
    b 1b

    .section .text.vectors, "ax"
    .balign 2048
    .global vectors
vectors:
    .rept 16
    .balign 128
    b exception
    .endr
exception:
    mrs x0, esr_el1
    mrs x1, elr_el1
    mrs x2, far_el1
    // An exception that a check waits for: go on behind the instruction.
    adrp x3, expected
    add x3, x3, :lo12:expected
    ldr x4, [x3]
    cbz x4, unexpected
    str x0, [x3, #8]
    str xzr, [x3]
    add x1, x1, #4
    msr elr_el1, x1
    eret
unexpected:
    bl guest_exception
1:  wfi
    b 1b

    .section .bss
    .balign 4096
table:
    .skip 4096
    .global expected
expected:
    .skip 16
"#
);

/// After `guest_main`.
#[unsafe(no_mangle)]
extern "C" fn guest_done() -> ! {
    machine::power_off()
}

/// An exception that nobody expected.
#[unsafe(no_mangle)]
extern "C" fn guest_exception(esr: u64, elr: u64, far: u64) -> ! {
    crate::println!("FAIL unexpected exception: esr {esr:#x}, elr {elr:#x}, far {far:#x}");
    check::summary("exception", true);
    machine::power_off()
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    crate::println!("FAIL {info}");
    machine::power_off()
}
