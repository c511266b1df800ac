//! System tests under QEMU.
#![cfg_attr(not(test), no_std)]
