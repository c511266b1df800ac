//! From the first instruction to main.

pub use sel4::_private::PatchedCell;
pub use sel4::BootInfoPtr;

use crate::Termination;

#[cfg(target_os = "none")]
core::arch::global_asm!(
    r#"
    .section .text._start, "ax"
    .global _start
_start:
    ldr     x1, =__stack_top
    mov     sp, x1
    mov     x29, xzr
    mov     x30, xzr
    b       __sel4_root_task__entry
    .ltorg
    "#
);

#[cfg(target_os = "none")]
#[unsafe(no_mangle)]
extern "C" fn __sel4_root_task__entry(bootinfo: *const sel4::BootInfo) -> ! {
    unsafe extern "Rust" {
        safe fn __sel4_root_task__main(bootinfo: &BootInfoPtr) -> !;
    }

    let none = sel4::BootInfo::with_ipc_buffer(sel4::sys::IPC_BUFFER as *mut sel4::IpcBuffer);
    let bootinfo = if bootinfo.is_null() { &raw const none } else { bootinfo };
    // SAFETY: the kernel started this thread with boot information that it does not change any more, or `none` outlives
    // everything, since this function never returns.
    let bootinfo = unsafe { BootInfoPtr::new(bootinfo) };
    // SAFETY: the kernel maps the IPC buffer of this thread there, and this is the only reference to it.
    match unsafe { bootinfo.ipc_buffer().as_mut() } {
        Some(buffer) => sel4::set_ipc_buffer(buffer),
        None => stop(),
    }
    __sel4_root_task__main(&bootinfo)
}

/// Runs main.
pub fn run_main<T: Termination>(main: impl FnOnce(&BootInfoPtr) -> T, bootinfo: &BootInfoPtr) -> ! {
    let error = main(bootinfo).report();
    crate::abort!("root task ended: {error:?}")
}

/// Stops this thread for good: by a fault that says so, since a thread need not hold a capability to itself.
pub fn stop() -> ! {
    #[cfg(target_os = "none")]
    loop {
        // SAFETY: UDF raises an exception and does nothing else.
        unsafe { core::arch::asm!("udf #0", options(nomem, nostack)) }
    }
    #[cfg(not(target_os = "none"))]
    panic!("the root task would stop")
}

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    crate::abort!("root task: {info}")
}

/// Memory for a stack.
#[repr(C, align(4096))]
pub struct Stack<const BYTES: usize>(core::cell::UnsafeCell<[u8; BYTES]>);

// SAFETY: no Rust code refers to it; the entry code makes it the stack of the only thread.
unsafe impl<const BYTES: usize> Sync for Stack<BYTES> {}

impl<const BYTES: usize> Stack<BYTES> {
    /// Its pages are filled with zeroes when loaded.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self(core::cell::UnsafeCell::new([0; BYTES]))
    }
}
