//! Messages for people about a wrong partita.json, and its schema for editors.
//!
//! The target's parser knows no paths and stops at the first error. So the host first walks the document along a table of
//! all keys ([`table`]), collecting everything that is wrong; then the target's parser reads it, which cannot fail any
//! more; then the parts are checked against each other.

mod check;
mod document;
mod json_schema;
mod markdown;
mod passthrough;
mod sockets;
mod suggest;
pub mod table;
mod walk;

use std::{fmt, string::String, vec::Vec};

pub use json_schema::json_schema;
pub use markdown::markdown;

use crate::Config;

/// One thing that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file's name.
    pub file: String,
    /// Where in it: `cells[1].disks[0].partition`, or a line and column if it is no JSON.
    pub path: String,
    /// What is wrong.
    pub wrong: String,
    /// What would be right.
    pub right: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.file)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.wrong)?;
        if !self.right.is_empty() {
            write!(f, "; {}", self.right)?;
        }
        Ok(())
    }
}

/// Collects problems.
struct Problems<'a> {
    file: &'a str,
    list: Vec<Problem>,
}

impl Problems<'_> {
    fn add(&mut self, path: impl Into<String>, wrong: impl Into<String>, right: impl Into<String>) {
        let (path, wrong, right) = (path.into(), wrong.into(), right.into());
        self.list.push(Problem { file: self.file.into(), path, wrong, right });
    }
}

/// Parses and checks the text of the file `file`.
///
/// # Errors
/// Everything that is wrong, in the file's order.
pub fn parse<'a>(file: &str, text: &'a str) -> Result<Config<'a>, Vec<Problem>> {
    let mut problems = Problems { file, list: Vec::new() };
    match document::read(text) {
        Ok(document) => walk::walk(&document, &mut problems),
        Err((place, wrong, right)) => problems.add(place, wrong, right),
    }
    if !problems.list.is_empty() {
        return Err(problems.list);
    }
    match crate::parse(text.as_bytes()) {
        Ok(config) => {
            check::check(&config, &mut problems);
            if problems.list.is_empty() { Ok(config) } else { Err(problems.list) }
        }
        // Not reached as long as the table says what the types say; a test keeps them together.
        Err(error) => {
            problems.add("", format!("the parser of the target refuses it: {error}"), "");
            Err(problems.list)
        }
    }
}

#[cfg(test)]
mod messages;
#[cfg(test)]
mod tests;
