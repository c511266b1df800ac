//! The management protocol's lines: anything in front of a request, and anything as a request.
//!
//! serde_json is the other opinion. What ours takes, that must take too and read the same; an object of known keys, each
//! with a value of its kind and length, ours must take. What ours says of a mistake is one printable sentence.
#![no_main]

use libfuzzer_sys::fuzz_target;
use partita_protocol::manage::REQUEST_MAX;
use partita_supervisor::manage::line::Line;
use partita_supervisor::manage::request::{Request, Type};
use serde_json::Value;

/// Longest name and longest text (docs/management.md).
const NAME: usize = 64;
const TEXT: usize = 192;
const NUMBERS: [&str; 5] = ["id", "from", "seq", "after", "got"];
const TYPES: [(&str, Type); 4] =
    [("hello", Type::Hello), ("alive", Type::Alive), ("got", Type::Got), ("bye", Type::Bye)];

/// What serde_json's object says under a key must be this.
fn same(key: &str, theirs: Option<&Value>, number: Option<u64>, text: Option<&str>) {
    match (number, text) {
        (Some(number), _) => assert_eq!(theirs.and_then(Value::as_u64), Some(number), "{key}"),
        (_, Some(text)) => assert_eq!(theirs.and_then(Value::as_str), Some(text), "{key}"),
        (None, None) => assert_eq!(theirs, None, "{key}"),
    }
}

/// Whether a value is one that the table of requests allows.
fn is_good(key: &str, value: &Value) -> bool {
    match key {
        "command" | "cell" => value.as_str().is_some_and(|text| text.len() <= NAME),
        "text" => value.as_str().is_some_and(|text| text.len() <= TEXT),
        "type" => value.as_str().is_some_and(|text| TYPES.iter().any(|(name, _)| *name == text)),
        key => NUMBERS.contains(&key) && value.is_u64(),
    }
}

/// JSON of which the two may think differently: escaped halves of surrogate pairs, which ours does not take, and a key that is
/// there twice, of which serde_json shows only the last value.
fn is_exotic(text: &[u8]) -> bool {
    let count = |word: &[u8]| text.windows(word.len()).filter(|part| *part == word).count();
    let keys = NUMBERS.into_iter().chain(["command", "cell", "text", "type"]);
    count(b"\\u") > 0 || keys.into_iter().any(|key| count(format!("\"{key}\"").as_bytes()) > 1)
}

fuzz_target!(|data: &[u8]| {
    if let Some(line) = Line::parse(data) {
        assert!(line.request.len() < data.len());
        let again = format!("{} {} ", line.cell, line.session).into_bytes();
        let again = [&again, line.request].concat();
        assert_eq!(Line::parse(&again), Some(line));
    }
    let text = data.get(..REQUEST_MAX).unwrap_or(data);
    let theirs = serde_json::from_slice::<Value>(text);
    match Request::parse(text) {
        Ok(request) => {
            let object = match &theirs {
                Ok(Value::Object(object)) => object,
                // Raw control characters: ours takes them, as no line has the one that would matter.
                Err(_) if text.iter().any(|byte| byte.is_ascii_control()) => return,
                other => panic!("{request:?}, but {other:?}"),
            };
            let numbers = [request.id, request.from, request.seq, request.after, request.got];
            for (key, number) in NUMBERS.into_iter().zip(numbers) {
                same(key, object.get(key), number, None);
            }
            let kind = request.kind.and_then(|kind| TYPES.iter().find(|(_, known)| *known == kind));
            same("type", object.get("type"), None, kind.map(|(name, _)| *name));
            same("command", object.get("command"), None, request.command.as_deref());
            same("cell", object.get("cell"), None, request.cell.as_deref());
            same("text", object.get("text"), None, request.text.as_deref());
            assert!(object.iter().all(|(key, value)| is_good(key, value)), "{object:?}");
        }
        Err(wrong) => {
            let sentence = wrong.to_string();
            assert!(!sentence.chars().any(char::is_control) && sentence.len() < 512, "{sentence:?}");
            if let Ok(Value::Object(object)) = theirs
                && !is_exotic(text)
            {
                let good = object.iter().all(|(key, value)| is_good(key, value));
                assert!(!good, "refused: {sentence}");
            }
        }
    }
});
