//! The JSON Schema of partita.json, from the table: editors complete and check with it.

use std::string::String;

use serde_json::{Map, Value, json};

use super::table::{self, Key, Kind, Text};

/// docs/partita.schema.json.
pub fn json_schema() -> String {
    let mut schema = object(table::CONFIG);
    if let Value::Object(map) = &mut schema {
        map.insert("$schema".into(), json!("https://json-schema.org/draft/2020-12/schema"));
        map.insert("title".into(), json!("Partita system"));
    }
    // A Value of strings, numbers and lists always has a text.
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}

fn object(keys: &[Key]) -> Value {
    let mut properties = Map::new();
    for key in keys {
        let mut value = kind(&key.kind);
        if let Value::Object(map) = &mut value {
            map.insert("description".into(), json!(key.about));
            if let Some(default) = key.default.and_then(|text| serde_json::from_str::<Value>(text).ok()) {
                map.insert("default".into(), default);
            }
        }
        properties.insert(key.name.into(), value);
    }
    let required: Vec<&str> = keys.iter().filter(|key| key.default.is_none()).map(|key| key.name).collect();
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

fn kind(kind: &Kind) -> Value {
    match kind {
        Kind::Text(form) => text(*form),
        Kind::Size => json!({ "type": "string", "pattern": "^[0-9]+[KMG]$" }),
        Kind::Address => json!({ "type": "string", "pattern": "^0x[0-9a-fA-F_]+$" }),
        Kind::Texts { form, min, max } => {
            json!({ "type": "array", "minItems": min, "maxItems": max, "items": text(*form) })
        }
        Kind::Number { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Word(words) => json!({ "enum": words }),
        Kind::List { min, max, keys } => {
            json!({ "type": "array", "minItems": min, "maxItems": max, "items": object(keys) })
        }
        Kind::Names { min, max } => {
            json!({ "type": "array", "minItems": min, "maxItems": max, "items": text(Text::Name) })
        }
        Kind::Numbers { count, max } => json!({
            "type": "array", "minItems": 1, "maxItems": count,
            "items": { "type": "integer", "minimum": 1, "maximum": max }
        }),
        Kind::Table(keys) => object(keys),
        Kind::TextOr(form, keys) => {
            let mut table = object(keys);
            if let Value::Object(map) = &mut table {
                map.insert("minProperties".into(), json!(1));
                map.insert("maxProperties".into(), json!(1));
            }
            json!({ "anyOf": [text(*form), table] })
        }
    }
}

fn text(form: Text) -> Value {
    match form {
        Text::Name => {
            json!({ "type": "string", "pattern": "^[a-z][a-z0-9_-]*$", "maxLength": table::NAME_MAX })
        }
        Text::File => json!({ "type": "string", "minLength": 1 }),
        Text::Label => json!({ "type": "string", "minLength": 1, "maxLength": table::LABEL_MAX }),
        Text::Line => json!({ "type": "string", "maxLength": table::LINE_MAX }),
        Text::Node => {
            json!({ "type": "string", "pattern": "^[a-zA-Z0-9,._+?#-]+$", "maxLength": table::NODE_MAX })
        }
        Text::Serial => json!({ "type": "string", "minLength": 1, "maxLength": table::SERIAL_MAX }),
    }
}
