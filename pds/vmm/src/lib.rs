//! Virtual machine monitor of one guest: everything but the machine itself.
//!
//! One instance runs per guest. It holds the guest's RAM and vCPUs, the link to its console, a status page and a channel
//! per backend, and nothing of any other guest. It learns of the guest's exits as faults, of everything else as
//! notifications, and answers each with one [`vmm::Next`], which says how to wait for the next event the cheapest way
//! that is right (docs/decisions and sel4-costs have the figures).
//!
//! The kernel is behind [`machine::Machine`], so that the whole VMM runs in host tests against a fake one.
#![cfg_attr(not(any(test, feature = "fake")), no_std)]

pub mod bus;
pub mod busy;
pub mod devices;
pub mod exits;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod files;
pub mod lifecycle;
pub mod links;
pub mod load;
pub mod machine;
pub mod prepare;
pub mod remote;
mod sleep;
pub mod stats;
pub mod terminal;
pub mod vmm;
mod wish;

#[cfg(test)]
mod tests;
