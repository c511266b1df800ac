//! System tests under QEMU (`tests/`), and the runner of all tests (`make test`, `bin/check.rs`).

pub mod check;
pub mod coverage;
pub mod disk;
pub mod fixture;
pub mod flips;
pub mod memory;
pub mod qmp;
pub mod soak;
pub mod specification;
pub mod spin;
pub mod terminal;
