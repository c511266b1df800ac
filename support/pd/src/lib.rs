//! What every protection domain finds when it starts: memory at the addresses of [`partita_protocol::layout`], the
//! configuration, its own signs of life. And a place for what is too big for its stack.
//!
//! What a PD alone has (its device, its clients) is found by the PD itself.
#![cfg_attr(target_os = "none", no_std)]

pub mod memory;
mod once;

#[cfg(target_os = "none")]
mod config;

#[cfg(target_os = "none")]
pub use config::config;
pub use once::Once;
