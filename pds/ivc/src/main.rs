//! Broker between guests: virtio-vsock and what CID 2 serves.
//!
//! The logic is `partita-ivc`; here is what ties it to Microkit: which memory it works on ([`setup`]), which event calls
//! what ([`pd`]), and what is said in the log ([`report`]).
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod pd;
#[cfg(target_os = "none")]
mod report;
#[cfg(target_os = "none")]
mod setup;

#[cfg(not(target_os = "none"))]
fn main() {}
