//! The broker between guests: all of `pds/ivc` that is not wiring, so that it runs against model guests on the host.
//!
//! [`vsock`] switches virtio-vsock streams between cells and serves the ports of CID 2.
#![cfg_attr(not(test), no_std)]

pub mod vsock;
