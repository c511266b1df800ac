//! Debug system calls. On a kernel without them they do nothing.

use crate::sys::{self, syscall};
use crate::{Cap, CapType, InvocationContext, Word, arch, cap};

/// Stops the machine.
pub fn debug_halt() {
    if sys::DEBUG_BUILD {
        arch::debug(syscall::DEBUG_HALT, 0);
    }
}

/// Prints the kernel's objects.
pub fn debug_snapshot() {
    if sys::DEBUG_BUILD {
        arch::debug(syscall::DEBUG_SNAPSHOT, 0);
    }
}

impl<C: InvocationContext> cap::Tcb<C> {
    /// Names the thread in the kernel's messages; what does not fit is cut.
    pub fn debug_name(self, name: &[u8]) {
        if !sys::DEBUG_BUILD {
            return;
        }
        self.invoke(|cptr, buffer| {
            let bytes = buffer.msg_bytes_mut();
            let length = name.len().min(bytes.len() - 1);
            bytes[..length].copy_from_slice(&name[..length]);
            bytes[length] = 0;
            arch::debug(syscall::DEBUG_NAME_THREAD, cptr.bits());
        });
    }
}

impl<T: CapType> Cap<T> {
    /// Kernel's number of the capability's type; 0 for an empty slot.
    pub fn debug_identify(self) -> u32 {
        if !sys::DEBUG_BUILD {
            return 0;
        }
        let word: Word = arch::debug(syscall::DEBUG_CAP_IDENTIFY, self.bits());
        word as u32
    }
}
