//! The initial thread's own capabilities and its last act.

use crate::cap;

/// Capability of the initial thread to itself, where the kernel puts it.
pub const TCB: cap::Tcb = cap::Tcb::from_bits(1);

/// Stops this thread for good.
///
/// A thread without a capability to itself (a PD) cannot be suspended by itself; it then waits for what never comes.
pub fn suspend_self<T>() -> T {
    loop {
        let _ = TCB.tcb_suspend();
        #[cfg(target_os = "none")]
        crate::r#yield();
        #[cfg(not(target_os = "none"))]
        panic!("suspend_self on the host");
    }
}
