//! A pipe: a byte stream, both ways, between two cells of a shared-memory link.
//!
//! Each end writes its own output section only, which the second stage of translation enforces; what it reads in the
//! other's is checked before use, so that a lying peer gets an error and nothing else. Bytes go through
//! [`partita_ring::Duplex`], with one doorbell only when the other side waits; `session` says who is connected to whom.
//! There are exactly two ends: who opens a third is told [`Error::Busy`].
//!
//! - [`End`]: never blocks, allocates nothing, runs in PDs, bare-metal guests and Linux alike.
//! - [`Pipe`]: an end with a [`Bell`]: blocking reads and writes.
//! - `linux` (feature `std`): over `/dev/hivc<id>`.
#![cfg_attr(not(any(test, loom, feature = "std")), no_std)]

mod end;
#[cfg(all(feature = "std", target_os = "linux", not(loom)))]
pub mod linux;
#[cfg(all(test, loom))]
mod loom;
pub mod pattern;
mod pipe;
mod session;
mod sync;
#[cfg(all(test, not(loom)))]
mod tests;

pub use end::{End, Error, HEADER, Ready, Sections, Wait};
pub use pipe::{Bell, Pipe};
pub use session::Session;
