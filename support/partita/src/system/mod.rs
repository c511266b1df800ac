//! The system description: from partita.json and a board to Microkit's system.xml.
//!
//! [`model`] says what a system consists of, [`compose`] fills it in, [`xml`] writes it. What a reader wants to know of
//! a system (who may touch what) is decided in [`compose`] alone, with the numbers of [`partita_protocol::layout`].

pub mod compose;
mod devices;
pub mod model;
pub mod xml;

use partita_config::{Config, Size};

use crate::{board::Board, boot_files::BootFiles, fail, failure::Result};

/// Memory that is not left for guests: kernel, PDs, the image with the guests' kernels in it.
const RESERVED: u64 = 128 << 20;

/// system.xml of a system; `files`: the guests' files that are beside the image.
///
/// # Errors
/// The system does not fit into the board's memory or Microkit's limits.
pub fn generate(config: &Config<'_>, board: &Board, files: &BootFiles) -> Result<String> {
    let links: u64 = config.links.iter().map(|link| link.bytes()).sum();
    let memory: u64 = links + kernels_memory(config);
    let most = board.ram.saturating_sub(RESERVED);
    if memory > most {
        fail!(
            "cells: they have {} of memory together{}; {} has {} for them",
            Size(memory),
            if links == 0 { "" } else { ", their links included" },
            board.name,
            Size(most)
        );
    }
    devices::check(config, board)?;
    fixed_memory(config, board)?;
    files.check(config, board)?;
    let system = compose::compose(config, board, files);
    system.check_limits()?;
    Ok(xml::write(&system))
}

/// Bytes of guest RAM that come from the kernel's memory.
fn kernels_memory(config: &Config<'_>) -> u64 {
    config.cells.iter().filter(|cell| cell.memory_address.is_none()).map(|cell| cell.memory.0).sum()
}

/// Guest RAM at a fixed place is outside of the kernel's: inside, what the kernel and the packer put there would be in the
/// way, at places that nobody knows beforehand.
fn fixed_memory(config: &Config<'_>, board: &Board) -> Result {
    for (n, cell) in config.cells.iter().enumerate() {
        if let Some(range) = cell.fixed_memory()
            && !board.spares(range.start, range.end)
        {
            fail!(
                "cells[{n}].memory_address: {} from {:#x} are not in the memory that {} keeps from the kernel, \
                 {}; leave memory_address out, or choose an address there",
                cell.memory,
                range.start,
                board.name,
                board.spare_words()
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
