//! Checked access to XML elements: every reader of the SDF goes through here, so that no attribute is taken without its
//! place being known and no unknown one is overlooked.

use super::error::{Error, Place, Result};

/// An element.
#[derive(Clone, Copy)]
pub struct Node<'a, 'i> {
    xml: roxmltree::Node<'a, 'i>,
    file: &'a str,
}

impl<'a, 'i> Node<'a, 'i> {
    /// Wraps an element of `file`.
    pub fn new(xml: roxmltree::Node<'a, 'i>, file: &'a str) -> Self {
        Self { xml, file }
    }

    /// Element name.
    pub fn name(&self) -> &'a str {
        self.xml.tag_name().name()
    }

    /// Child elements.
    pub fn children(&self) -> impl Iterator<Item = Node<'a, 'i>> + use<'a, 'i> {
        let file = self.file;
        self.xml.children().filter(roxmltree::Node::is_element).map(move |xml| Node { xml, file })
    }

    fn place_at(&self, byte: usize, attribute: Option<&str>) -> Place {
        let at = self.xml.document().text_pos_at(byte);
        Place {
            file: self.file.to_owned(),
            line: at.row,
            column: at.col,
            element: self.name().to_owned(),
            attribute: attribute.map(str::to_owned),
        }
    }

    /// Where the element begins.
    pub fn place(&self) -> Place {
        self.place_at(self.xml.range().start, None)
    }

    /// Where an attribute begins, or the element if it has none of that name.
    pub fn place_of(&self, attribute: &str) -> Place {
        match self.xml.attribute_node(attribute) {
            Some(node) => self.place_at(node.range().start, Some(attribute)),
            None => Place { attribute: Some(attribute.to_owned()), ..self.place() },
        }
    }

    /// An error about the element.
    pub fn error(&self, wrong: impl Into<String>, right: impl Into<String>) -> Error {
        self.place().error(wrong, right)
    }

    /// An error about an attribute.
    pub fn error_in(&self, attribute: &str, wrong: impl Into<String>, right: impl Into<String>) -> Error {
        self.place_of(attribute).error(wrong, right)
    }

    /// Refuses attributes that are not in `allowed`.
    pub fn only(&self, allowed: &[&str]) -> Result<()> {
        match self.xml.attributes().find(|attribute| !allowed.contains(&attribute.name())) {
            None => Ok(()),
            Some(attribute) => Err(self
                .place_at(attribute.range().start, Some(attribute.name()))
                .error(format!("unknown attribute '{}'", attribute.name()), one_of("attributes", allowed))),
        }
    }

    /// An element that is not among `allowed` children of `parent`.
    pub fn unknown(&self, parent: &str, allowed: &[&str]) -> Error {
        self.error(
            format!("<{}> is not allowed in <{parent}>", self.name()),
            one_of(&format!("children of <{parent}>"), allowed),
        )
    }

    /// An attribute's text.
    pub fn text(&self, attribute: &str) -> Option<&'a str> {
        self.xml.attribute(attribute)
    }

    /// An attribute that must be there.
    pub fn required(&self, attribute: &str) -> Result<&'a str> {
        self.text(attribute).ok_or_else(|| {
            self.error(format!("attribute '{attribute}' is missing"), format!("write {attribute}=\"...\""))
        })
    }

    /// A number: decimal or 0x, `_` anywhere.
    pub fn number(&self, attribute: &str) -> Result<Option<u64>> {
        let Some(text) = self.text(attribute) else { return Ok(None) };
        match parse_number(text) {
            Some(value) => Ok(Some(value)),
            None => Err(self.error_in(
                attribute,
                format!("'{text}' is not a number"),
                "write a decimal or 0x number below 2^64; '_' may separate digits",
            )),
        }
    }

    /// A number that must be there.
    pub fn required_number(&self, attribute: &str) -> Result<u64> {
        self.required(attribute)?;
        Ok(self.number(attribute)?.unwrap_or_default())
    }

    /// An identifier: decimal only, 0 to `max`.
    pub fn id(&self, attribute: &str, max: u64) -> Result<u64> {
        let text = self.required(attribute)?;
        let right = format!("write a decimal number from 0 to {max}");
        match text.parse::<i128>() {
            Ok(value) if (0..=i128::from(max)).contains(&value) => Ok(value as u64),
            Ok(_) => Err(self.error_in(attribute, format!("{text} is out of range"), right)),
            Err(_) if parse_number(text).is_some() => {
                Err(self.error_in(attribute, format!("'{text}' is not decimal"), right))
            }
            Err(_) => Err(self.error_in(attribute, format!("'{text}' is not a number"), right)),
        }
    }

    /// `true` or `false`.
    pub fn boolean(&self, attribute: &str, default: bool) -> Result<bool> {
        match self.text(attribute) {
            None => Ok(default),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(other) => Err(self.error_in(
                attribute,
                format!("'{other}' is not a boolean"),
                "write 'true' or 'false'",
            )),
        }
    }
}

/// The SDF's number syntax.
pub fn parse_number(text: &str) -> Option<u64> {
    let digits: String = text.chars().filter(|&c| c != '_').collect();
    match digits.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => digits.parse().ok(),
    }
}

fn one_of(what: &str, allowed: &[&str]) -> String {
    if allowed.is_empty() {
        format!("no {what} are allowed")
    } else {
        format!("{what} are: {}", allowed.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::parse_number;

    #[test]
    fn numbers_as_the_official_tool_reads_them() {
        assert_eq!(parse_number("0x1_0000"), Some(0x10000));
        assert_eq!(parse_number("1_000"), Some(1000));
        assert_eq!(parse_number("_0x10"), Some(16));
        assert_eq!(parse_number("+7"), Some(7));
        assert_eq!(parse_number("0xffff_ffff_ffff_ffff"), Some(u64::MAX));
        for bad in ["", "0x", "-1", "1k", "0X10", " 1", "18446744073709551616"] {
            assert_eq!(parse_number(bad), None, "{bad:?}");
        }
    }
}
