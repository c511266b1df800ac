//! `partita import hvisor`: a partita.json from hvisor's two files, for people who move.
//!
//! hvisor's zone file says where everything lies and repeats it in device trees; here the host tool decides that. So the
//! sizes, images and devices come over, addresses and interrupt numbers do not, and each thing without a counterpart gets
//! a note. Nothing is left out silently: every key is taken, or named in a note.

mod hvisor;

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::failure::{Failure, Result};

/// A description, and what a person should know about it.
#[derive(Debug)]
pub struct Imported {
    /// Text of partita.json.
    pub description: String,
    /// What has no counterpart, what was assumed, what is to be done.
    pub notes: Vec<String>,
}

/// Prints the description, or writes it to `output`; prints the notes where they do not disturb.
///
/// # Errors
/// A file cannot be read or is not what hvisor's tool takes.
pub fn hvisor(zone: &Path, virtio: Option<&PathBuf>, output: Option<&Path>) -> Result {
    let read = |path: &Path| {
        let text = fs::read_to_string(path).map_err(|error| Failure::file("read", path, &error))?;
        Ok((path.display().to_string(), text))
    };
    let virtio = virtio.map(|path| read(path)).transpose()?;
    let imported = hvisor::import(&read(zone)?, virtio.as_ref())?;
    match output {
        Some(path) => crate::build::write(path, imported.description.as_bytes())?,
        None => print!("{}", imported.description),
    }
    for note in &imported.notes {
        eprintln!("note: {note}");
    }
    Ok(())
}
