//! The system description: from partita.json and a board to Microkit's system.xml.
//!
//! [`model`] says what a system consists of, [`compose`] fills it in, [`xml`] writes it. What a reader wants to know of
//! a system (who may touch what) is decided in [`compose`] alone, with the numbers of [`partita_protocol::layout`].

pub mod compose;
pub mod model;
pub mod xml;

use partita_config::Config;

use crate::{board::Board, failure::Result};

/// system.xml of a system.
///
/// # Errors
/// The system does not fit into Microkit's limits.
pub fn generate(config: &Config<'_>, board: &Board) -> Result<String> {
    let system = compose::compose(config, board);
    system.check_limits()?;
    Ok(xml::write(&system))
}

#[cfg(test)]
mod tests;
