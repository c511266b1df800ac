//! Where an invocation finds the IPC buffer: the thread's own, or one that is passed along.

use crate::{IpcBuffer, with_ipc_buffer_mut};

/// Gives access to an IPC buffer.
pub trait InvocationContext {
    /// Runs `f` with it.
    fn with_context<T>(&mut self, f: impl FnOnce(&mut IpcBuffer) -> T) -> T;
}

/// The buffer that [`crate::set_ipc_buffer`] was told of.
#[derive(Default, Debug, Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct ImplicitInvocationContext;

impl ImplicitInvocationContext {
    /// The only one.
    pub const fn new() -> Self {
        Self
    }
}

impl InvocationContext for ImplicitInvocationContext {
    fn with_context<T>(&mut self, f: impl FnOnce(&mut IpcBuffer) -> T) -> T {
        with_ipc_buffer_mut(f)
    }
}

/// No buffer: such a capability cannot be invoked until it is given one.
#[derive(Default, Debug, Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct NoInvocationContext;

impl NoInvocationContext {
    /// The only one.
    pub const fn new() -> Self {
        Self
    }
}

/// What a [`crate::Cap`] uses when nothing is said.
pub type NoExplicitInvocationContext = ImplicitInvocationContext;

impl InvocationContext for &mut IpcBuffer {
    fn with_context<T>(&mut self, f: impl FnOnce(&mut IpcBuffer) -> T) -> T {
        f(self)
    }
}

impl<U: InvocationContext> InvocationContext for &mut U {
    fn with_context<T>(&mut self, f: impl FnOnce(&mut IpcBuffer) -> T) -> T {
        U::with_context(self, f)
    }
}
