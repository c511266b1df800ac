//! Runtime of a Microkit protection domain, with the names of upstream rust-sel4.
#![cfg_attr(not(test), no_std)]
