//! A place in the SDF and what is wrong there.
//!
//! A message names file, line, column, element and attribute, says what is wrong and then what would be right, so that
//! the reader can correct the file without looking into a manual.

use std::fmt;

/// Where an element or attribute begins. Lines and columns count from 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The file as the user named it.
    pub file: String,
    /// Line.
    pub line: u32,
    /// Column, in characters.
    pub column: u32,
    /// Element name, empty for the document.
    pub element: String,
    /// Attribute name.
    pub attribute: Option<String>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}:", self.file, self.line, self.column)?;
        if !self.element.is_empty() {
            write!(f, " <{}", self.element)?;
            if let Some(attribute) = &self.attribute {
                write!(f, " {attribute}")?;
            }
            write!(f, ">:")?;
        }
        Ok(())
    }
}

impl Place {
    /// An error at this place.
    pub fn error(&self, wrong: impl Into<String>, right: impl Into<String>) -> Error {
        Error { place: Box::new(self.clone()), wrong: wrong.into(), right: right.into() }
    }
}

/// A refused system description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Where.
    pub place: Box<Place>,
    /// What is wrong.
    pub wrong: String,
    /// What would be right.
    pub right: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.place, self.wrong)?;
        if !self.right.is_empty() {
            write!(f, "; {}", self.right)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// Result of reading a part of the SDF.
pub type Result<T> = std::result::Result<T, Error>;
