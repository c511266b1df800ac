//! The tables of docs/configuration.md, from the table of keys.

use std::{fmt::Write, string::String};

use super::table::{self, Key, Kind, Text};

/// All tables, with their headings.
pub fn markdown() -> String {
    let mut text = String::new();
    let tables = [
        ("The file", table::CONFIG),
        ("`controllers[]`", table::CONTROLLER),
        ("`cells[]`", table::CELL),
        ("`cells[].disks[]`", table::DISK),
        ("`partition` as an object", table::PARTITION),
        ("`range`", table::RANGE),
        ("`links[]`", table::LINK),
        ("`cells[].passthrough[]`", table::PASSTHROUGH),
        ("`cells[].passthrough[].irqs[]`", table::PASSTHROUGH_IRQ),
        ("`cells[].passthrough[].device_tree`", table::DEVICE_TREE),
        ("`cells[].passthrough[].device_tree.properties[]`", table::PROPERTY),
        ("`sockets[]`", table::SOCKET),
    ];
    for (heading, keys) in tables {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n## {heading}\n\n| key | value | without it | meaning |\n|---|---|---|---|\n");
        for key in keys {
            let _ =
                writeln!(text, "| `{}` | {} | {} | {} |", key.name, kind(&key.kind), default(key), key.about);
        }
    }
    text
}

fn default(key: &Key) -> String {
    match key.default {
        None => "refused".into(),
        Some("") => "nothing".into(),
        // A value of the file; otherwise words.
        Some(value) if serde_json::from_str::<serde_json::Value>(value).is_ok() => format!("`{value}`"),
        Some(words) => words.into(),
    }
}

fn kind(kind: &Kind) -> String {
    match kind {
        Kind::Text(form) => text(*form),
        Kind::Size => "size: `\"512M\"` (K, M, G)".into(),
        Kind::Address => "address: `\"0x9040000\"`".into(),
        Kind::Texts { form, min, max } => format!("list, {min} to {max} of: {}", text(*form)),
        Kind::Number { min, max } if *max >= 1 << 50 => format!("number from {min}"),
        Kind::Number { min, max } => format!("{min} to {max}"),
        Kind::Flag => "`true`, `false`".into(),
        Kind::Word(words) => words.iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(", "),
        Kind::List { min: 0, max, .. } => format!("list, at most {max}"),
        Kind::List { min, max, .. } => format!("list, {min} to {max}"),
        Kind::Names { min, max } => format!("list of names, {min} to {max}"),
        Kind::Numbers { count, .. } => format!("list of 1 to {count} numbers"),
        Kind::Table(_) => "object".into(),
        Kind::TextOr(form, _) => format!("{} or object", text(*form)),
    }
}

fn text(form: Text) -> String {
    match form {
        Text::Name => format!("name: a-z, 0-9, `-`, `_`, a letter first, at most {}", table::NAME_MAX),
        Text::File => "file name".into(),
        Text::Label => format!("label, at most {} characters", table::LABEL_MAX),
        Text::Line => format!("ASCII, at most {} characters", table::LINE_MAX),
        Text::Node => format!("device-tree name, at most {}", table::NODE_MAX),
        Text::Serial => format!("ASCII, at most {} characters", table::SERIAL_MAX),
    }
}
