//! Bare-metal guests that check Partita's machine from inside, and that misbehave on purpose.
//!
//! They bring a machine to life with as little as possible (MMU and caches on with an identity map, no interrupts taken),
//! so that what they see is the VMM's doing and nobody else's. Each prints one line per check and at the end
//! `<name>: N passed, N failed`, then powers off by PSCI.
#![cfg_attr(target_os = "none", no_std)]

#[cfg(target_os = "none")]
pub mod blk;
#[cfg(target_os = "none")]
pub mod check;
#[cfg(target_os = "none")]
pub mod link;
#[cfg(target_os = "none")]
pub mod machine;
#[cfg(target_os = "none")]
pub mod neighbour;
#[cfg(target_os = "none")]
pub mod nonsense;
#[cfg(target_os = "none")]
mod start;
#[cfg(target_os = "none")]
pub mod uart;
#[cfg(target_os = "none")]
pub mod vsock;
