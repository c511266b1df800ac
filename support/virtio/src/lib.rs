//! Device side of virtio 1.2: mmio transport, split queue, block, console.
#![cfg_attr(not(test), no_std)]
