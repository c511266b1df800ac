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
mod partition;
pub mod passthrough;
pub mod pd;
mod schema;
mod size;

pub use address::Address;
pub use partition::Partition;
pub use passthrough::{Passthrough, Trigger};
pub use pd::Pd;
pub use schema::{
    Boot, Cell, CellLink, Config, ConsoleKind, Controller, ControllerKind, Device, Disk, HOST, HOST_CID,
    Link, OnHang, Policy, Socket,
};
pub use serde_json_core::de::Error;
pub use size::Size;

/// The target's parser: no file that the host tool accepted fails here.
///
/// # Errors
/// The parser's own, without a path; `host::parse` has a message for a person.
pub fn parse(text: &[u8]) -> Result<Config<'_>, Error> {
    let (config, used) = serde_json_core::from_slice::<Config<'_>>(text)?;
    match text.get(used..) {
        Some(rest) if rest.iter().all(u8::is_ascii_whitespace) => Ok(config),
        _ => Err(Error::TrailingCharacters),
    }
}
