//! virtio-blk backend with the passthrough driver of one disk controller.
//!
//! The logic is `partita-blk-backend` and `partita-storage`; here is what ties them to Microkit: which memory they work on
//! ([`setup`]), which event calls what ([`pd`]), and what is said in the log ([`report`]).
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod pd;
#[cfg(target_os = "none")]
mod report;
#[cfg(target_os = "none")]
mod setup;

#[cfg(not(target_os = "none"))]
fn main() {}
