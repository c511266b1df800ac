//! What a guest sees of its machine, as plain state machines: no seL4 call and no device access happens in this crate, so
//! all of it runs under the host's tests and fuzzers. `pds/vmm` feeds it decoded exits and carries out what it answers.
//!
//! What a guest may rely on is written down in docs/guest-abi.md.
#![cfg_attr(not(test), no_std)]

pub mod boot;
pub mod boot_file;
pub mod crc32c;
pub mod exception;
pub mod fault;
pub mod gic;
pub mod lines;
pub mod pl011;
pub mod psci;
pub mod registers;
pub mod vtimer;
