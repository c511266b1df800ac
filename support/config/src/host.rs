//! Messages for people about a wrong partita.json.
use std::{fmt, string::String, vec::Vec};

use crate::Config;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem(pub String);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Parses and checks.
///
/// # Errors
/// Everything that is wrong.
pub fn parse<'a>(name: &str, text: &'a str) -> Result<Config<'a>, Vec<Problem>> {
    crate::parse(text.as_bytes()).map_err(|error| vec![Problem(format!("{name}: {error}"))])
}
/// x
pub fn json_schema() -> String { String::new() }
