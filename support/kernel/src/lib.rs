//! The embedded kernel: the seL4 MCS ABI that a PD can reach, for development and tests. See docs/kernel.md.
//!
//! The system is static: objects are made at boot from the image's description ([`image`]), nothing is allocated
//! afterwards. This library is the kernel's logic: safe Rust over tables of objects, tested on the host. Machine code is
//! in the binary (`src/arch`), behind the traits of [`hal`].
#![cfg_attr(not(test), no_std)]

pub mod abi;
pub mod boot;
pub mod context;
mod cspace;
pub mod debug;
pub mod fault;
pub mod hal;
pub mod id;
pub mod image;
mod invoke;
mod ipc;
pub mod kernel;
mod notification;
pub mod object;
pub mod pool;
pub mod queue;
pub mod refill;
mod reply;
pub mod sched;
pub mod stage2;
mod syscall;
pub mod vcpu;

#[cfg(test)]
mod tests;
