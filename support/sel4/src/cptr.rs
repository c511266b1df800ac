//! Capability pointers with the type of what they point to.

use core::fmt;
use core::hash::Hash;
use core::marker::PhantomData;

use crate::{InvocationContext, IpcBuffer, NoExplicitInvocationContext, Word};

/// The bits of a capability pointer.
pub type CPtrBits = Word;

/// A capability pointer: an address in this thread's capability space.
#[derive(Debug, Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash)]
#[repr(transparent)]
pub struct CPtr {
    bits: CPtrBits,
}

impl CPtr {
    /// Its bits.
    pub const fn bits(self) -> CPtrBits {
        self.bits
    }

    /// From bits.
    pub const fn from_bits(bits: CPtrBits) -> Self {
        Self { bits }
    }

    /// As a capability of type `T`. Nothing is checked until the kernel is asked.
    pub const fn cast<T: CapType>(self) -> Cap<T> {
        Cap::from_cptr(self)
    }
}

/// A capability pointer that says what it should point to, and where invocations find the IPC buffer.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct Cap<T: CapType, C = NoExplicitInvocationContext> {
    cptr: CPtr,
    context: C,
    of: PhantomData<T>,
}

impl<T: CapType, C> Cap<T, C> {
    /// The pointer.
    pub const fn cptr(&self) -> CPtr {
        self.cptr
    }

    /// Its bits.
    pub const fn bits(&self) -> CPtrBits {
        self.cptr.bits()
    }

    /// The same pointer, taken for another type.
    pub fn cast<T1: CapType>(self) -> Cap<T1, C> {
        Cap { cptr: self.cptr, context: self.context, of: PhantomData }
    }

    /// To be invoked with this IPC buffer.
    pub fn with<C1>(self, context: C1) -> Cap<T, C1> {
        Cap { cptr: self.cptr, context, of: PhantomData }
    }

    /// To be invoked with the thread's own IPC buffer.
    pub fn without_context(self) -> Cap<T> {
        Cap::from_cptr(self.cptr)
    }

    /// Gives the context back.
    pub fn into_invocation_context(self) -> C {
        self.context
    }

    /// Forgets the type.
    pub fn upcast(self) -> Cap<cap_type::Unspecified, C> {
        self.cast()
    }
}

impl<C> Cap<cap_type::Unspecified, C> {
    /// Takes it for a type.
    pub fn downcast<T: CapType>(self) -> Cap<T, C> {
        self.cast()
    }
}

impl<T: CapType> Cap<T> {
    /// From a pointer.
    pub const fn from_cptr(cptr: CPtr) -> Self {
        Self { cptr, context: NoExplicitInvocationContext::new(), of: PhantomData }
    }

    /// From bits.
    pub const fn from_bits(bits: CPtrBits) -> Self {
        Self::from_cptr(CPtr::from_bits(bits))
    }
}

impl<T: CapType, C: InvocationContext> Cap<T, C> {
    pub(crate) fn invoke<R>(self, f: impl FnOnce(CPtr, &mut IpcBuffer) -> R) -> R {
        let cptr = self.cptr;
        let mut context = self.context;
        context.with_context(|ipc_buffer| f(cptr, ipc_buffer))
    }
}

impl<T: CapType, C> fmt::Debug for Cap<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple(T::NAME).field(&self.bits()).finish()
    }
}

/// A kind of capability.
pub trait CapType: Copy + Clone + Eq + PartialEq + Ord + PartialOrd + Hash {
    /// Its name.
    const NAME: &'static str;
}

macro_rules! cap_types {
    ($($(#[$doc:meta])* $name:ident)*) => {
        /// Markers for the kinds of capabilities.
        pub mod cap_type {
            $(
                $(#[$doc])*
                #[derive(Debug, Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash)]
                pub struct $name;

                impl super::CapType for $name {
                    const NAME: &'static str = stringify!($name);
                }
            )*
        }

        /// Capabilities by kind.
        pub mod cap {
            $(
                $(#[$doc])*
                pub type $name<C = crate::NoExplicitInvocationContext> = super::Cap<super::cap_type::$name, C>;
            )*
        }
    };
}

cap_types! {
    /// A place where threads meet to pass messages.
    Endpoint
    /// A word of flags that can be waited for.
    Notification
    /// A thread.
    Tcb
    /// The right to answer one caller.
    Reply
    /// A share of processor time.
    SchedContext
    /// A table of capabilities.
    CNode
    /// One interrupt line.
    IrqHandler
    /// A virtual processor.
    VCpu
    /// An address space.
    VSpace
    /// Untyped memory.
    Untyped
    /// A 4 KiB frame.
    Granule
    /// The right to configure scheduling contexts.
    SchedControl
    /// Nothing.
    Null
    /// Anything.
    Unspecified
}
