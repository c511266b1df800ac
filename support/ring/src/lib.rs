//! Single-producer single-consumer rings and seqlock pages between PDs.
//!
//! Two PDs that exchange bytes do not trust each other's numbers and may be restarted one without the other. So every page
//! here has exactly one writer (the other side maps it read-only), whatever the other side wrote is read once and checked,
//! and all state that must survive a restart is in the pages: attaching to a link that was in use goes on where it stopped.
//!
//! - [`Duplex`]: a byte ring each way over two page sets, with [`Tx`] and [`Rx`] halves.
//! - [`log::Logger`]: lines of text over a ring; what every PD uses to say something to the user.
//! - [`history`]: the last bytes of something, for readers that take nothing out.
//! - [`seqlock`]: a page of one value with one writer and many readers.
//!
//! Nothing blocks and nothing calls the kernel: the halves *say* when the peer is owed a notification
//! ([`Tx::should_notify`], [`Rx::should_notify`]), the PD sends it.
#![cfg_attr(not(any(test, loom)), no_std)]

mod bytes;
mod duplex;
pub mod history;
pub mod log;
#[cfg(all(test, loom))]
mod loom;
mod page;
pub mod seqlock;
mod sync;

pub use duplex::{Duplex, Rx, Tx};
pub use page::{Header, Mine, Yours};
pub use sync::AtomicU64;
