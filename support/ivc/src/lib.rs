//! The broker between guests: all of `pds/ivc` that is not wiring, so that it runs against model guests on the host.
//!
//! [`vsock`] switches virtio-vsock streams between cells and serves the ports of CID 2. [`links`] passes the doorbells of
//! shared-memory links on. There is no unsafe code here (the tests have some): memory is reached through `partita-virtio` and
//! `partita-ring`, which Miri runs.
#![cfg_attr(not(test), no_std, forbid(unsafe_code))]

pub mod links;
pub mod vsock;
