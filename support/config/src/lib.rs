//! partita.json: schema, parser for host and target, validation.
//!
//! The file is read twice: by the host tool, which lays out the system and refuses what cannot work, and on target, where
//! every PD takes its own part from a read-only prefilled region. Both read the same bytes with the same parser into the
//! same types, so they cannot disagree about a key. On target nothing is allocated: strings are borrowed from the region,
//! which nobody can write, and lists have fixed capacities.
//!
//! What the parser accepts is less than JSON: strings have no backslash escapes (they could not be borrowed).
//!
//! The host has more to say about a wrong file than the target, which only ever sees a file that the host accepted:
//! `host` (feature `std`) names the path, what is wrong and what would be right.
#![cfg_attr(not(any(test, feature = "std")), no_std)]

mod address;
#[cfg(feature = "std")]
pub mod host;
mod parse;
mod partition;
pub mod passthrough;
pub mod pd;
mod schema;
mod size;

pub use address::Address;
pub use parse::{Store, parse, parse_into};
pub use partition::Partition;
pub use passthrough::{Passthrough, Trigger};
pub use pd::Pd;
pub use schema::{
    Boot, Cell, CellLink, Config, ConsoleKind, Controller, ControllerKind, Device, Disk, HOST, HOST_CID,
    Link, OnHang, Policy, Socket,
};
pub use serde_json_core::de::Error;
pub use size::Size;
