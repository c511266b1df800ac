//! System calls with every register under the test's control.

use core::arch::{asm, global_asm};

/// x0 to x8 before a system call, or after.
pub type Regs = [u64; 9];

/// System-call numbers.
pub mod nr {
    pub use sel4::sys::syscall::*;
}

/// Executes `svc #0` with these registers.
pub fn svc(x: &mut Regs) {
    // SAFETY: loads and stores nine words of `x`; the kernel changes nothing else of this thread but its IPC buffer, which
    // this program reads through raw pointers only.
    unsafe {
        asm!(
            "ldp x0, x1, [x9]", "ldp x2, x3, [x9, #16]", "ldp x4, x5, [x9, #32]", "ldp x6, x7, [x9, #48]",
            "ldr x8, [x9, #64]", "svc #0",
            "stp x0, x1, [x9]", "stp x2, x3, [x9, #16]", "stp x4, x5, [x9, #32]", "stp x6, x7, [x9, #48]",
            "str x8, [x9, #64]",
            in("x9") x.as_mut_ptr(),
            out("x0") _, out("x1") _, out("x2") _, out("x3") _, out("x4") _, out("x5") _, out("x6") _, out("x7") _,
            out("x8") _, options(nostack),
        );
    }
}

/// A message tag.
pub const fn tag(label: u64, extra: u64, length: u64) -> u64 {
    label << 12 | extra << 7 | length
}

/// Label of a tag.
pub const fn label(info: u64) -> u64 {
    info >> 12
}

/// Length of a tag.
pub const fn length(info: u64) -> usize {
    (info & 0x7f) as usize
}

fn buffer() -> *mut u64 {
    sel4::sys::IPC_BUFFER as *mut u64
}

/// Message register `i` in this thread's IPC buffer.
pub fn get_mr(i: usize) -> u64 {
    assert!(i < 120);
    // SAFETY: within the mapped IPC buffer of this thread.
    unsafe { buffer().add(1 + i).read_volatile() }
}

/// Sets message register `i` in this thread's IPC buffer.
pub fn set_mr(i: usize, value: u64) {
    assert!(i < 120);
    // SAFETY: as in `get_mr`.
    unsafe { buffer().add(1 + i).write_volatile(value) }
}

/// Capability word `i` of this thread's IPC buffer.
pub fn get_cap(i: usize) -> u64 {
    assert!(i < 3);
    // SAFETY: as in `get_mr`.
    unsafe { buffer().add(122 + i).read_volatile() }
}

/// Sets capability word `i` of this thread's IPC buffer.
pub fn set_cap(i: usize, value: u64) {
    assert!(i < 3);
    // SAFETY: as in `get_mr`.
    unsafe { buffer().add(122 + i).write_volatile(value) }
}

/// Number of the unknown system call by which a child hands its registers to the director.
pub const EXIT: u64 = 1000;

/// Ends a child's routine: the director gets `x` and the routine's number.
pub fn exit(x: [u64; 7]) -> ! {
    let mut regs = [0; 9];
    regs[..7].copy_from_slice(&x);
    regs[7] = EXIT;
    loop {
        svc(&mut regs);
    }
}

// Routines in assembly: what they do to the registers is the test.
global_asm!(
    r#"
    .section .text.routines, "ax"
    .macro exit
        mov     x7, #1000
        svc     #0
        b       .
    .endm
    // One system call with the registers as the director set them, then out with the result.
    .global t_sys
t_sys:
    svc     #0
    exit
    .global t_spin
t_spin:
    b       t_spin
    .global t_load
t_load:
    ldr     x1, [x0]
    exit
    .global t_store
t_store:
    str     x1, [x0]
    exit
    .global t_jump
t_jump:
    br      x0
    .global t_udf
t_udf:
    udf     #0
    mov     x0, #77
    exit
    .global t_brk
t_brk:
    brk     #5
    mov     x0, #77
    exit
    .global t_midr
t_midr:
    mrs     x0, midr_el1
    exit
    .global t_cntvct
t_cntvct:
    mrs     x0, cntvct_el0
    exit
    .global t_hvc
t_hvc:
    hvc     #3
    exit
    .global t_smc
t_smc:
    smc     #3
    exit
    .global t_fp
t_fp:
    .inst   0x1e2703e0 // fmov s0, wzr
    mov     x0, #55
    exit
    // Puts x0 into d7, waits on capability x1, gives d7 back.
    .global t_fp_keep
t_fp_keep:
    .inst   0x9e670007 // fmov d7, x0
    mov     x0, x1
    mov     x7, #-9
    svc     #0
    .inst   0x9e6600e1 // fmov x1, d7
    exit
    .global t_tls
t_tls:
    mrs     x0, tpidr_el0
    exit
    // x0: counter address. Counts for ever.
    .global t_count
t_count:
    ldr     x1, [x0]
    add     x1, x1, #1
    str     x1, [x0]
    b       t_count
    .global t_sp
t_sp:
    mov     x0, sp
    exit
    "#
);

// Every register but the program counter known, then a load from what is not mapped.
global_asm!(
    r#"
    .section .text.fault_with_known_registers, "ax"
    .global t_known
t_known:
    .irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30
    mov     x\n, #(0x100 + \n)
    .endr
    ldr     x16, =0xffffffe000
    mov     sp, x16
    mov     x16, #0x110
    msr     nzcv, xzr
    str     x1, [x0]
    b       .
    .ltorg
    "#
);

unsafe extern "C" {
    fn t_known() -> !;
}

/// Ends in a data fault whose report is the same for every build.
pub fn fault_with_known_registers() -> ! {
    // SAFETY: it never returns, so what it does to the registers harms nobody.
    unsafe { t_known() }
}

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

routines! {
    t_sys t_spin t_load t_store t_jump t_udf t_brk t_midr t_cntvct t_hvc t_smc t_fp t_fp_keep t_tls t_count t_sp
}
