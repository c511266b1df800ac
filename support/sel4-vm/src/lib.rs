//! VM, VCPU, SMC, cache and child-PD operations that upstream sel4-microkit lacks, over the public API of the sel4 crate.
#![cfg_attr(not(test), no_std)]
