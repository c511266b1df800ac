//! Device side of virtio 1.2: mmio transport, split queue, block, console, socket.
//!
//! Everything here handles what a guest wrote and therefore trusts nothing of it. The modules know neither seL4 nor
//! Microkit: they see guest memory through [`memory::GuestRam`] and the register page through [`mmio::RegisterPage`],
//! so the whole device side runs, and is tested, on the host.
//!
//! Section numbers are those of "Virtual I/O Device (VIRTIO) Version 1.2", OASIS CS 01.
#![cfg_attr(not(any(test, feature = "fake")), no_std)]

pub mod blk;
pub mod console;
pub mod features;
pub mod memory;
pub mod mmio;
pub mod queue;
pub mod vsock;

#[cfg(any(test, feature = "fake"))]
pub mod fake;
