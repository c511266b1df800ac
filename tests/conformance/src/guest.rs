//! Pieces of guest code and how the director runs them.
//!
//! The pieces are position-independent, copied to the start of guest RAM, and end with `smc #0xee`, at which the director
//! reads their registers. The MMU of the guest stays off. Guest RAM is at the same address for the guest (intermediate
//! physical) and for the director (virtual).

use core::arch::global_asm;

use crate::director::{Child, Director, Event, VCPU};
use crate::raw::label;

global_asm!(
    r#"
    .section .rodata.guest, "a"
    .balign 2048
    .global guest_begin
guest_begin:
    // Vectors: x20 says which was taken, x21 ESR_EL1, x22 ELR_EL1.
    .macro vector number
        .balign 128
        mov     x20, #\number
        mrs     x21, esr_el1
        mrs     x22, elr_el1
        b       guest_taken
    .endm
    .macro interrupt
        .balign 128
        mov     x20, #0x280
        b       guest_interrupt
    .endm
    vector 0x000
    vector 0x080
    vector 0x100
    vector 0x180
    vector 0x200
    interrupt
    vector 0x300
    vector 0x380
    .balign 128
    .skip 1024
guest_taken:
    smc     #0xee
    b       .
    // x24: address of the CPU interface. Takes one interrupt (x23), stops at smc #1, ends it, goes on.
guest_interrupt:
    ldr     w23, [x24, #0xc]
    smc     #1
    str     w23, [x24, #0x10]
    eret

    .macro done
        smc     #0xee
        b       .
    .endm
    .global g_wfi
g_wfi:
    wfi
    mov     x1, #2
    done
    .global g_done
g_done:
    done
    .global g_hvc
g_hvc:
    hvc     #0
    done
    .global g_load
g_load:
    ldr     x1, [x0]
    done
    .global g_load_byte
g_load_byte:
    ldrb    w5, [x0, #3]
    done
    .global g_load_pair
g_load_pair:
    ldp     x1, x2, [x0]
    done
    .global g_store
g_store:
    str     w1, [x0]
    done
    .global g_jump
g_jump:
    br      x0
    .global g_svc
g_svc:
    svc     #9
    done
    .global g_brk
g_brk:
    brk     #9
    done
    .global g_sgi
g_sgi:
    msr     s3_0_c12_c11_5, x0 // ICC_SGI1R_EL1
    done
    .global g_cntp
g_cntp:
    mrs     x0, cntp_ctl_el0
    done
    .global g_ids
g_ids:
    mrs     x0, mpidr_el1
    mrs     x1, currentel
    mrs     x2, midr_el1
    mrs     x3, sctlr_el1
    done
    .global g_counters
g_counters:
    mrs     x0, cntpct_el0
    isb
    mrs     x1, cntvct_el0
    mrs     x2, cntfrq_el0
    done
    .global g_fp
g_fp:
    mov     x0, #(3 << 20)
    msr     cpacr_el1, x0
    isb
    .inst   0x9e670027 // fmov d7, x1
    smc     #2
    .inst   0x9e6600e2 // fmov x2, d7
    done
    .global g_fp_off
g_fp_off:
    .inst   0x9e670027 // fmov d7, x1
    done
    .global g_tpidr
g_tpidr:
    msr     tpidr_el1, x0
    smc     #2
    mrs     x0, tpidr_el1
    done
    // Enables the CPU interface at x24 and interrupts, then waits for x25 to become x26 in a handler.
    .global g_irq
g_irq:
    mov     w9, #0xff
    str     w9, [x24, #4]
    mov     w9, #1
    str     w9, [x24]
    msr     daifclr, #2
    smc     #2
    isb
    done
    // Interrupts on, then sleeps.
    .global g_irq_wfi
g_irq_wfi:
    mov     w9, #0xff
    str     w9, [x24, #4]
    mov     w9, #1
    str     w9, [x24]
    msr     daifclr, #2
    wfi
    mov     x1, #2
    done
    // Arms the virtual timer with x0 ticks.
    .global g_timer
g_timer:
    mov     w9, #0xff
    str     w9, [x24, #4]
    mov     w9, #1
    str     w9, [x24]
    msr     cntv_tval_el0, x0
    mov     x9, #1
    msr     cntv_ctl_el0, x9
    isb
    msr     daifclr, #2
1:  mrs     x9, cntv_ctl_el0
    tbz     x9, #2, 1b
    isb
    mov     x1, #3
    smc     #2
    msr     cntv_ctl_el0, xzr
    isb
    smc     #3
    done
    // Spins until the word at x0 is not zero.
    .global g_until
g_until:
    ldr     w1, [x0]
    cbz     w1, g_until
    done
    .global guest_end
guest_end:
    .previous
    "#
);

unsafe extern "C" {
    static guest_begin: u8;
    static guest_end: u8;
}

macro_rules! pieces {
    ($($name:ident)*) => {
        unsafe extern "C" {
            $(static $name: u8;)*
        }
        /// Where each piece is in guest RAM.
        #[allow(missing_docs)]
        pub mod piece {
            $(
                pub fn $name() -> u64 {
                    super::in_guest((&raw const super::$name) as u64)
                }
            )*
        }
    };
}

pieces! {
    g_wfi g_done g_hvc g_load g_load_byte g_load_pair g_store g_jump g_svc g_brk g_sgi g_cntp g_ids g_counters g_fp g_fp_off
    g_tpidr g_irq g_irq_wfi g_timer g_until
}

/// Guest RAM, for the guest and the director.
pub const RAM: u64 = 0x4000_0000;
/// A page that is read-only for the guest.
pub const PAGE: u64 = 0x0a00_0000;
/// The same page for the director.
pub const PAGE_HERE: u64 = 0x5000_0000;
/// The CPU interface of the guest's interrupt controller.
pub const GICC: u64 = 0x0801_0000;
/// Free guest RAM behind the code.
pub const DATA: u64 = RAM + 0x4000;

/// EL1h, all masked.
pub const EL1: u64 = 0x3c5;

fn in_guest(address: u64) -> u64 {
    address - (&raw const guest_begin) as u64 + RAM
}

/// Reads a word of guest RAM.
pub fn peek(address: u64) -> u32 {
    // SAFETY: callers pass addresses of guest RAM or of the shared page, which the director maps.
    unsafe { (address as *const u32).read_volatile() }
}

/// Writes a word of guest RAM and cleans it to memory, where the guest (caches off) looks.
pub fn poke(address: u64, value: u32) {
    // SAFETY: as in `peek`; cleaning changes nothing.
    unsafe {
        (address as *mut u32).write_volatile(value);
        core::arch::asm!("dc civac, {0}", "dsb sy", in(reg) address, options(nostack));
    }
}

/// Copies the pieces to guest RAM.
pub fn load() {
    let (begin, end) = (&raw const guest_begin, &raw const guest_end);
    let bytes = end as usize - begin as usize;
    for offset in (0..bytes).step_by(4) {
        // SAFETY: within the code between the two symbols, which are 4-byte aligned.
        let word = unsafe { begin.add(offset).cast::<u32>().read() };
        poke(RAM + offset as u64, word);
    }
    // SAFETY: drops stale instructions.
    unsafe { core::arch::asm!("ic ivau, {0}", "dsb sy", "isb", in(reg) RAM, options(nostack)) };
}

/// Starts a vCPU at a piece with x0 to x8.
pub fn start_on(t: &Director, child: Child, pc: u64, x: &[u64]) {
    let mut registers = [0; 36];
    (registers[0], registers[2]) = (pc, EL1);
    registers[3..3 + x.len()].copy_from_slice(x);
    registers[29] = GICC; // x24
    t.write_registers(child, true, &registers);
}

/// Starts the first vCPU at a piece; what it does next.
pub fn run(t: &Director, pc: u64, x: &[u64]) -> Option<Event> {
    load();
    t.invoke(crate::director::vcpu(VCPU), sel4::sys::invocation_label::ARMVCPUWriteReg, &[], &[14, RAM]);
    start_on(t, VCPU, pc, x);
    t.next()
}

/// The immediate of the SMC that a vCPU stopped at.
pub fn smc(event: &Event) -> Option<u64> {
    (label(event.info) == 8 && event.mr[0] >> 26 == 0x17).then_some(event.mr[0] & 0xffff)
}

/// Lets a vCPU that stopped at an SMC go on behind it.
pub fn go_on(t: &Director, child: Child) -> Option<Event> {
    let pc = t.read_registers(child, 1).mr[0];
    t.write_registers(child, true, &[pc + 4]);
    t.next()
}

/// General-purpose registers x0 to x8 of a vCPU.
pub fn registers(t: &Director, child: Child) -> [u64; 9] {
    let answer = t.read_registers(child, 36);
    core::array::from_fn(|i| answer.mr[3 + i])
}

/// x20 to x23 of a vCPU.
pub fn high_registers(t: &Director, child: Child) -> [u64; 4] {
    let answer = t.read_registers(child, 36);
    core::array::from_fn(|i| answer.mr[25 + i])
}
