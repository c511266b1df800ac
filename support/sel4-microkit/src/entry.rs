//! From the first instruction to the event loop, the first time and every time after.
//!
//! Microkit loads a PD once. When its parent starts it again it writes the program counter and nothing else, so memory is
//! as the crash left it. The entry code therefore sets the stack pointer itself, restores `.data` and clears `.bss`:
//!
//! - What the tool patched is in a read-only segment (see `symbols.rs`) and needs no restoring.
//! - `.data` is copied aside at the first start, with a checksum, into memory that is not cleared. A later start restores
//!   it from there, or refuses to run if the copy is damaged.
//!
//! The mark that tells a first start from a later one is zero in a loaded image. What is neither zero nor the mark is damage
//! too.

#[cfg(target_os = "none")]
core::arch::global_asm!(
    r#"
    .section .text._start, "ax"
    .global _start
_start:
    // x0 pristine header, x1 copy, x2 .data, x3 its end, x4 checksum, x5 mark, x6 multiplier
    adrp    x0, __pristine
    add     x0, x0, :lo12:__pristine
    add     x1, x0, #16
    adrp    x2, __data_start
    add     x2, x2, :lo12:__data_start
    adrp    x3, __data_end
    add     x3, x3, :lo12:__data_end
    ldr     x4, ={seed}
    ldr     x5, ={mark}
    ldr     x6, ={multiplier}
    ldr     x7, [x0]
    cbz     x7, 10f
    cmp     x7, x5
    b.ne    90f

    // A later start: check the copy, then restore from it.
    mov     x8, x1
    sub     x9, x3, x2
    add     x9, x9, x1
1:  cmp     x8, x9
    b.eq    2f
    ldr     x10, [x8], #8
    eor     x4, x4, x10
    mul     x4, x4, x6
    ror     x4, x4, #29
    b       1b
2:  ldr     x10, [x0, #8]
    cmp     x10, x4
    b.ne    90f
3:  cmp     x2, x3
    b.eq    4f
    ldp     x10, x11, [x1], #16
    stp     x10, x11, [x2], #16
    b       3b
4:  adrp    x2, __bss_start
    add     x2, x2, :lo12:__bss_start
    adrp    x3, __bss_end
    add     x3, x3, :lo12:__bss_end
5:  cmp     x2, x3
    b.eq    20f
    stp     xzr, xzr, [x2], #16
    b       5b

    // The first start: keep a copy.
10: cmp     x2, x3
    b.eq    11f
    ldr     x10, [x2], #8
    str     x10, [x1], #8
    eor     x4, x4, x10
    mul     x4, x4, x6
    ror     x4, x4, #29
    b       10b
11: str     x4, [x0, #8]
    str     x5, [x0]

20: ldr     x0, =__stack_top
    cbnz    x0, 21f
    ldr     x0, ={microkit_stack}
21: mov     sp, x0
    mov     x29, xzr
    mov     x30, xzr
    b       __sel4_microkit__entry

90: mov     x0, #{damaged}
    ldr     x30, ={fault_address}
91: str     xzr, [x30]
    b       91b
    .ltorg
    "#,
    seed = const 0x6a09_e667_f3bc_c908_u64,
    mark = const 0x7061_7274_6974_6121_u64,
    multiplier = const 0x9e37_79b9_7f4a_7c15_u64,
    // Microkit's stack ends one guard page below the IPC buffer.
    microkit_stack = const sel4::sys::IPC_BUFFER - 0x1000,
    damaged = const crate::panicking::DAMAGED_IMAGE,
    fault_address = const crate::panicking::FAULT_ADDRESS,
);

#[cfg(target_os = "none")]
#[unsafe(no_mangle)]
extern "C" fn __sel4_microkit__entry() -> ! {
    unsafe extern "Rust" {
        safe fn __sel4_microkit__main() -> !;
    }

    // SAFETY: Microkit maps the IPC buffer of every PD at this address, for this thread alone, and this is the only place
    // that makes a reference to it, once per start.
    sel4::set_ipc_buffer(unsafe { &mut *(sel4::sys::IPC_BUFFER as *mut sel4::IpcBuffer) });
    __sel4_microkit__main()
}

/// Runs the event loop of the handler that `init` makes.
#[doc(hidden)]
pub fn run_main<T: crate::Handler>(init: impl FnOnce() -> T) -> ! {
    match init().run() {
        #[allow(unreachable_patterns)]
        Ok(never) => match never {},
        Err(error) => crate::panicking::main_failed(&error),
    }
}

/// Memory for a stack.
#[doc(hidden)]
#[repr(C, align(4096))]
pub struct Stack<const BYTES: usize>(core::cell::UnsafeCell<[u8; BYTES]>);

// SAFETY: no Rust code refers to it; the entry code makes it the stack of the only thread.
unsafe impl<const BYTES: usize> Sync for Stack<BYTES> {}

impl<const BYTES: usize> Stack<BYTES> {
    /// Its pages are filled with zeroes when loaded.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        assert!(BYTES >= 1024);
        Self(core::cell::UnsafeCell::new([0; BYTES]))
    }
}

/// Names the initialiser.
#[doc(hidden)]
#[macro_export]
macro_rules! declare_init {
    ($init:expr) => {
        #[cfg(target_os = "none")]
        #[allow(non_snake_case)]
        #[unsafe(no_mangle)]
        fn __sel4_microkit__main() -> ! {
            $crate::_private::run_main($init)
        }
    };
}

/// A stack of the program's own, between pages that are not mapped.
#[doc(hidden)]
#[macro_export]
macro_rules! declare_stack {
    ($size:expr) => {
        #[cfg(target_os = "none")]
        const _: () = {
            #[used]
            #[unsafe(link_section = ".stack")]
            static STACK: $crate::_private::Stack<{ $size }> = $crate::_private::Stack::new();
        };
    };
}
