//! Walks a document along the table of keys.

use std::{string::String, vec::Vec};

use super::{
    Problems,
    document::Node,
    suggest,
    table::{self, Key, Kind, Text},
};
use crate::{Address, Size};

/// Adds everything that is wrong with the shape of the document.
pub fn walk(document: &Node, problems: &mut Problems<'_>) {
    match document {
        Node::Table(entries) => object("", entries, table::CONFIG, problems),
        other => problems.add("", format!("the file holds {}", other.describe()), "it must hold an object"),
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.into() } else { format!("{path}.{key}") }
}

fn object(path: &str, entries: &[(String, Node)], keys: &[Key], problems: &mut Problems<'_>) {
    // A key that is missing because its name has a slip is reported once.
    let mut meant = Vec::new();
    for (place, (name, value)) in entries.iter().enumerate() {
        let path = join(path, name);
        if entries.iter().take(place).any(|(other, _)| other == name) {
            problems.add(path, "the key is there twice", "leave one of them");
        } else if let Some(key) = keys.iter().find(|key| key.name == name) {
            self::value(&path, value, &key.kind, problems);
        } else {
            let names = keys.iter().map(|key| key.name);
            meant.extend(suggest::nearest(name, names.clone()));
            problems.add(path, "unknown key", suggest::sentence(name, names));
        }
    }
    for key in keys.iter().filter(|key| key.default.is_none()) {
        if !entries.iter().any(|(name, _)| name == key.name) && !meant.contains(&key.name) {
            problems.add(join(path, key.name), "is missing", expected(&key.kind));
        }
    }
}

fn value(path: &str, node: &Node, kind: &Kind, problems: &mut Problems<'_>) {
    let fits = match (kind, node) {
        (Kind::Text(form) | Kind::TextOr(form, _), Node::Text(text)) => text_fits(text, *form),
        (Kind::Size, Node::Text(text)) => Size::parse(text).is_some(),
        (Kind::Address, Node::Text(text)) => Address::parse(text).is_some(),
        (Kind::Texts { form, min, max }, Node::List(nodes)) => {
            for (n, node) in nodes.iter().enumerate() {
                value(&format!("{path}[{n}]"), node, &Kind::Text(*form), problems);
            }
            (min..=max).contains(&&nodes.len())
        }
        (Kind::Number { min, max }, Node::Number(number)) => (min..=max).contains(&number),
        (Kind::Flag, Node::Flag(_)) => true,
        (Kind::Word(words), Node::Text(text)) => {
            if !words.contains(&text.as_str()) {
                let right = suggest::sentence(text, words.iter().copied());
                problems.add(path, format!("is {}", node.describe()), right);
            }
            true
        }
        (Kind::Table(keys), Node::Table(entries)) => {
            object(path, entries, keys, problems);
            true
        }
        (Kind::TextOr(_, keys), Node::Table(entries)) => {
            if entries.len() == 1 {
                object(path, entries, keys, problems);
            } else {
                let names: Vec<_> = keys.iter().map(|key| key.name).collect();
                let wrong = format!("has {} keys", entries.len());
                problems.add(path, wrong, format!("it must have one of {}", names.join(", ")));
            }
            true
        }
        (Kind::List { min, max, keys }, Node::List(nodes)) => {
            list(path, nodes, keys, problems);
            (min..=max).contains(&&nodes.len())
        }
        (Kind::Names { min, max }, Node::List(nodes)) => {
            for (n, node) in nodes.iter().enumerate() {
                self::value(&format!("{path}[{n}]"), node, &Kind::Text(Text::Name), problems);
            }
            (min..=max).contains(&&nodes.len())
        }
        (Kind::Numbers { count, max }, Node::List(nodes)) => {
            for (n, node) in nodes.iter().enumerate() {
                self::value(&format!("{path}[{n}]"), node, &Kind::Number { min: 1, max: *max }, problems);
            }
            (1..=*count).contains(&nodes.len())
        }
        _ => false,
    };
    if !fits {
        let wrong = match node {
            Node::List(nodes)
                if matches!(
                    kind,
                    Kind::List { .. } | Kind::Names { .. } | Kind::Texts { .. } | Kind::Numbers { .. }
                ) =>
            {
                format!("has {} entries", nodes.len())
            }
            other => format!("is {}", other.describe()),
        };
        problems.add(path, wrong, expected(kind));
    }
}

fn list(path: &str, nodes: &[Node], keys: &[Key], problems: &mut Problems<'_>) {
    for (n, node) in nodes.iter().enumerate() {
        let path = format!("{path}[{n}]");
        match node {
            Node::Table(entries) => object(&path, entries, keys, problems),
            other => problems.add(path, format!("is {}", other.describe()), "it must be an object"),
        }
    }
}

fn text_fits(text: &str, form: Text) -> bool {
    let count = text.chars().count();
    let printable = !text.chars().any(char::is_control);
    match form {
        Text::Name => {
            let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
            text.starts_with(|c: char| c.is_ascii_lowercase())
                && text.chars().all(allowed)
                && count <= table::NAME_MAX
        }
        Text::File => count != 0 && printable,
        Text::Label => {
            let reserved = table::PARTITION.iter().any(|key| key.name == text);
            count != 0 && text.encode_utf16().count() <= table::LABEL_MAX && printable && !reserved
        }
        Text::Line => text.len() <= table::LINE_MAX && text.is_ascii() && printable,
        Text::Serial => (1..=table::SERIAL_MAX).contains(&count) && text.is_ascii() && printable,
        Text::Node => {
            let allowed = |c: char| c.is_ascii_alphanumeric() || ",._+?#-".contains(c);
            (1..=table::NODE_MAX).contains(&count) && text.chars().all(allowed)
        }
    }
}

/// What would be right.
fn expected(kind: &Kind) -> String {
    match kind {
        Kind::Text(form) => format!("it must be {}", describe(*form)),
        Kind::TextOr(form, keys) => {
            let names: Vec<_> = keys.iter().map(|key| key.name).collect();
            format!("it must be {}, or an object with one of the keys {}", describe(*form), names.join(", "))
        }
        Kind::Size => "it must be a size such as \"512M\" (K, M or G)".into(),
        Kind::Address => "it must be an address such as \"0x9040000\"".into(),
        Kind::Texts { form, min, max } => {
            format!("it must be a list of {min} to {max} strings, each {}", describe(*form))
        }
        Kind::Number { min, max } => format!("it must be a whole number from {min} to {max}"),
        Kind::Flag => "it must be true or false".into(),
        Kind::Word(words) => format!("it must be one of: {}", words.join(", ")),
        Kind::List { min: 0, max, .. } => format!("it must be a list of at most {max} objects"),
        Kind::List { min, max, .. } => format!("it must be a list of {min} to {max} objects"),
        Kind::Names { min, max } => format!("it must be a list of {min} to {max} names"),
        Kind::Numbers { count, .. } => format!("it must be a list of 1 to {count} whole numbers"),
        Kind::Table(_) => "it must be an object".into(),
    }
}

fn describe(form: Text) -> String {
    match form {
        Text::Name => format!(
            "a name of lower-case letters, digits, - and _ that begins with a letter, at most {} characters",
            table::NAME_MAX
        ),
        Text::File => "a file name".into(),
        Text::Label => format!("a GPT partition label of 1 to {} characters", table::LABEL_MAX),
        Text::Line => format!("a command line of at most {} ASCII characters", table::LINE_MAX),
        Text::Node => format!(
            "a name of letters, digits and , . _ + ? # - as device trees have them, at most {} characters",
            table::NODE_MAX
        ),
        Text::Serial => format!("a string of 1 to {} ASCII characters", table::SERIAL_MAX),
    }
}
