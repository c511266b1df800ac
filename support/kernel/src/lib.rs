//! The embedded kernel: the seL4 MCS ABI that a PD can reach, for development and tests. See docs/kernel.md.
#![cfg_attr(not(test), no_std)]

pub mod image;
