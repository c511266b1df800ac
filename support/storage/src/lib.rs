//! Block devices below the virtio-blk backend: one trait, its drivers, partitions.
//!
//! The backend checks what guests ask for; a driver moves data between a device and physical memory that it never looks
//! at. The border is [`device::BlockDevice`]: scatter lists of physical addresses, submitted and completed asynchronously.
//! Which part of a device belongs to whom is a [`window::Window`], found by [`partition::resolve`] in a partition table
//! that is read, once, before any guest runs.
#![cfg_attr(not(any(test, feature = "fake")), no_std)]

pub mod device;
pub mod gpt;
pub mod mbr;
pub mod partition;
pub mod poll;
pub mod virtio_blk;
pub mod window;

#[cfg(any(test, feature = "fake"))]
pub mod fake;
