//! virtio-blk as a whole on the host: registers, backend, failing disk, and a model of what must come of it.
//!
//! Between a guest's store to a register and a sector of the disk lie the transport and its `Remote` (of the VMM), the
//! backend and the in-flight page (of blk) and a driver. Their own tests take them one by one; here they run together as on
//! target: calls down, notifications up, and the backend may die between any two events. There are two guests, each with a disk
//! of two queues, of which some drivers use one. The
//! *neighbour* keeps to the rules of virtio, and every answer that it gets is compared with [`model::Model`]. The *offender*
//! stores anything into its registers, rings and buffers. The disk fails, hangs, breaks the rules, forgets to interrupt.
//!
//! A run is a list of [`Step`]s of eight bytes, so that the coverage-guided target `disk` of `fuzz/` and the property tests
//! here are the same program. Whatever the steps are: nothing panics, everything ends in bounded time, no request reaches
//! sectors or memory but its guest's, and the neighbour is answered once, and rightly.

pub mod flips;
pub mod guest;
pub mod model;
pub mod world;

pub use world::{Counts, Step, World, run};

#[cfg(test)]
mod tests;
