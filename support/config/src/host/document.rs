//! The document as it stands: keys in order and duplicates kept, which `serde_json::Value` would not do.

use std::{fmt, string::String, vec::Vec};

use serde::{Deserialize, Deserializer, de};

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// `null`
    Null,
    /// `true`, `false`
    Flag(bool),
    /// A whole number that is not negative.
    Number(u64),
    /// Any other number.
    Odd(String),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Node>),
    /// An object.
    Table(Vec<(String, Node)>),
}

impl Node {
    /// What it is, with its value if that is short.
    pub fn describe(&self) -> String {
        match self {
            Node::Null => "null".into(),
            Node::Flag(flag) => flag.to_string(),
            Node::Number(number) => number.to_string(),
            Node::Odd(text) => text.clone(),
            Node::Text(text) if text.len() <= 40 => format!("{text:?}"),
            Node::Text(_) => "a long string".into(),
            Node::List(_) => "a list".into(),
            Node::Table(_) => "an object".into(),
        }
    }
}

/// Reads JSON; on failure the place, what is wrong and what would be right.
pub fn read(text: &str) -> Result<Node, (String, String, String)> {
    if let Some(at) = text.find('\\') {
        let before = text.get(..at).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        let right = "write the character itself; quotes and control characters cannot be written";
        return Err((
            format!("line {line}, column {column}"),
            "a backslash is not supported".into(),
            right.into(),
        ));
    }
    serde_json::from_str(text).map_err(|error| {
        let message = error.to_string();
        let wrong = message.split(" at line ").next().unwrap_or_default();
        let right = match wrong {
            "trailing comma" => "remove the comma before the bracket",
            "trailing characters" => "nothing may follow the last bracket",
            "expected value" => "a value must be here; JSON has no comments",
            wrong if wrong.starts_with("EOF") => {
                "the file ends too early: a bracket or quotation mark is missing"
            }
            _ => "look at the commas, colons and quotation marks before this place",
        };
        (
            format!("line {}, column {}", error.line(), error.column()),
            format!("not JSON: {wrong}"),
            right.into(),
        )
    })
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON value")
            }

            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Null)
            }

            fn visit_bool<E>(self, flag: bool) -> Result<Node, E> {
                Ok(Node::Flag(flag))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Node, E> {
                Ok(Node::Number(number))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Node, E> {
                Ok(Node::Odd(number.to_string()))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Node, E> {
                Ok(Node::Odd(number.to_string()))
            }

            fn visit_str<E>(self, text: &str) -> Result<Node, E> {
                Ok(Node::Text(text.into()))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
                let mut list = Vec::new();
                while let Some(node) = access.next_element()? {
                    list.push(node);
                }
                Ok(Node::List(list))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
                let mut table = Vec::new();
                while let Some(entry) = access.next_entry()? {
                    table.push(entry);
                }
                Ok(Node::Table(table))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
