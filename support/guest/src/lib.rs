//! What a guest sees of its machine: vGIC, PSCI, fault decoding, boot protocol, memory.
#![cfg_attr(not(test), no_std)]
