//! Capabilities, invocations and faults of seL4, with the names of upstream rust-sel4.
#![cfg_attr(not(test), no_std)]
