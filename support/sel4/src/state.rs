//! The thread's own IPC buffer.
//!
//! A PD is one thread, so the target keeps one static slot; the host keeps one per thread, made on first use. Either way
//! the buffer is lent to one borrower at a time, which is checked.

use crate::IpcBuffer;

/// Tells this thread where its IPC buffer is.
pub fn set_ipc_buffer(ipc_buffer: &'static mut IpcBuffer) {
    slot::set(ipc_buffer);
}

/// Runs `f` with this thread's IPC buffer.
///
/// # Panics
/// If the buffer is lent already, or on the target before [`set_ipc_buffer`].
pub fn with_ipc_buffer<T>(f: impl FnOnce(&IpcBuffer) -> T) -> T {
    slot::with(|buffer| f(buffer))
}

/// Runs `f` with this thread's IPC buffer.
///
/// # Panics
/// As [`with_ipc_buffer`].
pub fn with_ipc_buffer_mut<T>(f: impl FnOnce(&mut IpcBuffer) -> T) -> T {
    slot::with(f)
}

#[cfg(target_os = "none")]
mod slot {
    use core::ptr;
    use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};

    use crate::IpcBuffer;

    /// The buffer, or null while it is lent and before it is known.
    static BUFFER: AtomicPtr<IpcBuffer> = AtomicPtr::new(ptr::null_mut());

    pub fn set(buffer: &'static mut IpcBuffer) {
        BUFFER.store(buffer, Relaxed);
    }

    pub fn with<T>(f: impl FnOnce(&mut IpcBuffer) -> T) -> T {
        // One thread: a load and a store need not be one operation, and relaxed ordering is program order.
        let lent = BUFFER.load(Relaxed);
        BUFFER.store(ptr::null_mut(), Relaxed);
        // SAFETY: not null means that it came from the `&'static mut` given to `set` and that no other call holds it,
        // since every holder leaves null here until it is done (panics abort, so nobody unwinds past the restoring store).
        let result = f(unsafe { lent.as_mut() }.expect("IPC buffer is not set or in use"));
        BUFFER.store(lent, Relaxed);
        result
    }
}

#[cfg(not(target_os = "none"))]
mod slot {
    use std::cell::RefCell;

    use crate::IpcBuffer;

    thread_local! {
        static BUFFER: RefCell<&'static mut IpcBuffer> = RefCell::new(Box::leak(Box::default()));
    }

    pub fn set(buffer: &'static mut IpcBuffer) {
        BUFFER.with(|slot| slot.replace(buffer));
    }

    pub fn with<T>(f: impl FnOnce(&mut IpcBuffer) -> T) -> T {
        BUFFER.with(|slot| f(&mut slot.borrow_mut()))
    }
}
