//! The atomics in use: `core`'s, or loom's model of them under `--cfg loom`.

pub use partita_ring::AtomicU64;

#[cfg(not(loom))]
pub use core::sync::atomic::{Ordering, fence};
#[cfg(loom)]
pub use loom::sync::atomic::{Ordering, fence};
