//! Runtime of a root task, with the names of upstream rust-sel4.
#![cfg_attr(not(test), no_std)]
