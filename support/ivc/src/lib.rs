//! The broker between guests: all of `pds/ivc` that is not wiring, so that it runs against model guests on the host.
//!
//! [`vsock`] switches virtio-vsock streams between cells and serves the ports of CID 2. [`links`] passes the doorbells of
//! shared-memory links on.
#![cfg_attr(not(test), no_std)]

pub mod links;
pub mod vsock;
