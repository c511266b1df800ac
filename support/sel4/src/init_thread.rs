//! The initial thread's own capabilities and its last act.

use crate::cap;

/// Capability of the initial thread to itself, where the kernel puts it.
pub const TCB: cap::Tcb = cap::Tcb::from_bits(1);

/// Stops this thread for good. A thread that has no capability to itself there (a PD) gives up its time for ever instead.
#[cfg(target_os = "none")]
pub fn suspend_self<T>() -> T {
    loop {
        // If it succeeds, it does not return.
        let _ = TCB.tcb_suspend();
        crate::r#yield();
    }
}
