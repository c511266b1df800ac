//! Broker between guests: virtio-vsock and what CID 2 serves.
//!
//! The logic is `partita-ivc`; here is what ties it to Microkit: which memory it works on ([`setup`]) and which event calls
//! what ([`pd`]).
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod pd;
#[cfg(target_os = "none")]
mod setup;

#[cfg(not(target_os = "none"))]
fn main() {}
