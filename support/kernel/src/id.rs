//! Object numbers, and tables indexed by them.
//!
//! Objects refer to each other by number, so the kernel is plain safe Rust: a wrong number is caught by a bounds check
//! instead of being a wild pointer. Numbers come from the boot description, are checked there once, and never from users.

use core::marker::PhantomData;
use core::ops::{Index, IndexMut};

/// A kind of object number.
pub trait Id: Copy + Eq {
    /// Number `index`, which is below 65,536.
    fn new(index: usize) -> Self;
    /// The number.
    fn index(self) -> usize;
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident,)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(u16);
        impl Id for $name {
            fn new(index: usize) -> Self {
                $name(index as u16)
            }
            fn index(self) -> usize {
                usize::from(self.0)
            }
        }
    )*};
}

ids! {
    /// A thread.
    TcbId,
    /// An endpoint.
    EndpointId,
    /// A notification.
    NotificationId,
    /// A reply object.
    ReplyId,
    /// A scheduling context.
    SchedContextId,
    /// An IRQ handler.
    IrqId,
    /// A virtual CPU.
    VcpuId,
    /// A capability node.
    CNodeId,
    /// An address space.
    VSpaceId,
}

/// All objects of a kind.
pub struct Table<'a, I, T> {
    items: &'a mut [T],
    id: PhantomData<I>,
}

impl<'a, I: Id, T> Table<'a, I, T> {
    /// A table of at most 65,535 objects.
    pub fn new(items: &'a mut [T]) -> Self {
        Table { items, id: PhantomData }
    }
    /// How many there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
    /// All numbers.
    pub fn ids(&self) -> impl Iterator<Item = I> + use<I, T> {
        (0..self.items.len()).map(I::new)
    }
    /// All objects.
    pub fn iter(&self) -> impl Iterator<Item = (I, &T)> {
        self.items.iter().enumerate().map(|(i, t)| (I::new(i), t))
    }
}

impl<I: Id, T> Index<I> for Table<'_, I, T> {
    type Output = T;
    #[inline(always)]
    fn index(&self, id: I) -> &T {
        &self.items[id.index()]
    }
}

impl<I: Id, T> IndexMut<I> for Table<'_, I, T> {
    #[inline(always)]
    fn index_mut(&mut self, id: I) -> &mut T {
        &mut self.items[id.index()]
    }
}
