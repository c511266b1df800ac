//! Block devices below the virtio-blk backend: one trait, its drivers, partitions.
#![cfg_attr(not(test), no_std)]
