//! What a guest asks: one JSON object, whose values are strings and numbers.
//!
//! Parsed by serde-json-core into this fixed form. Values that could nest are not skipped but refused, so a deep document
//! costs no stack. An error names the key.

use core::cell::RefCell;
use core::fmt;

use heapless::String;
use partita_protocol::manage::REQUEST_MAX;
use serde::de::{self, DeserializeSeed, MapAccess, Visitor};
use serde_json_core::de::Deserializer;

use super::mail::TEXT_MAX;
use crate::shell::command::nearest;

/// Bytes of the longest name: of a cell, of a command, of a PD.
const NAME: usize = 64;

/// What a keep-alive message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// The stream wants the cell's messages.
    Hello,
    /// A sign of life.
    Alive,
    /// Nothing but an acknowledgement.
    Got,
    /// No more signs of life will come, and that is right.
    Bye,
}

/// What was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Comes back in the answer.
    pub id: Option<u64>,
    /// Name of a command.
    pub command: Option<String<NAME>>,
    /// Kind of a keep-alive message.
    pub kind: Option<Type>,
    /// Name of a cell; for `log` of anything.
    pub cell: Option<String<NAME>>,
    /// Text of a message.
    pub text: Option<String<TEXT_MAX>>,
    /// Where a list goes on.
    pub from: Option<u64>,
    /// Number of an `alive`.
    pub seq: Option<u64>,
    /// Number of the last message that the client has.
    pub after: Option<u64>,
    /// Number up to which messages need not be kept.
    pub got: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Id,
    Command,
    Type,
    Cell,
    Text,
    From,
    Seq,
    After,
    Got,
}

const KEYS: [(&str, Key); 9] = [
    ("id", Key::Id),
    ("command", Key::Command),
    ("type", Key::Type),
    ("cell", Key::Cell),
    ("text", Key::Text),
    ("from", Key::From),
    ("seq", Key::Seq),
    ("after", Key::After),
    ("got", Key::Got),
];
const TYPES: [(&str, Type); 4] =
    [("hello", Type::Hello), ("alive", Type::Alive), ("got", Type::Got), ("bye", Type::Bye)];

impl Key {
    fn name(self) -> &'static str {
        KEYS.iter().find(|(_, key)| *key == self).map_or("", |(name, _)| name)
    }
}

/// What is wrong with a line. Displays as a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Not JSON, or no object; what the parser says.
    NotJson(serde_json_core::de::Error),
    /// A key that means nothing.
    UnknownKey(String<NAME>),
    /// A value of the wrong kind.
    Value(&'static str, &'static str),
    /// A kind of message that there is not.
    UnknownType(String<NAME>),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wrong::NotJson(error) => write!(f, "a line must be one JSON object: {error}"),
            Wrong::UnknownKey(key) => {
                write!(f, "\"{key}\" is no key of a request")?;
                match nearest(key, KEYS.iter().map(|(name, _)| *name)) {
                    Some(meant) => write!(f, "; did you mean \"{meant}\"?"),
                    None => f.write_str("; docs/management.md lists them"),
                }
            }
            Wrong::Value(key, expected) => write!(f, "\"{key}\" must be {expected}"),
            Wrong::UnknownType(kind) => {
                write!(f, "\"type\" cannot be \"{kind}\"; it is \"hello\", \"alive\", \"got\" or \"bye\"")
            }
        }
    }
}

/// Where the parser is, to be told when it fails.
type Place = RefCell<Option<Wrong>>;

impl Request {
    /// Parses one object.
    ///
    /// # Errors
    /// What is wrong, in a sentence that names the key.
    pub fn parse(text: &[u8]) -> Result<Self, Wrong> {
        if !escapes_are_hexadecimal(text) {
            return Err(Wrong::NotJson(serde_json_core::de::Error::InvalidEscapeSequence));
        }
        let place = Place::new(None);
        let mut unescaped = [0; REQUEST_MAX];
        let mut de = Deserializer::new(text, Some(&mut unescaped));
        let result = RequestSeed(&place).deserialize(&mut de).and_then(|request| de.end().map(|_| request));
        result.map_err(|error| place.into_inner().unwrap_or(Wrong::NotJson(error)))
    }
}

/// Four hexadecimal digits are behind each `\u`. The library reads them as a number, and a number may have a sign.
fn escapes_are_hexadecimal(text: &[u8]) -> bool {
    let mut rest = text.iter();
    while rest.any(|byte| *byte == b'\\') {
        if rest.next() == Some(&b'u')
            && !rest.as_slice().get(..4).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
        {
            return false;
        }
    }
    true
}

struct RequestSeed<'p>(&'p Place);

impl<'de> DeserializeSeed<'de> for RequestSeed<'_> {
    type Value = Request;

    fn deserialize<D: de::Deserializer<'de>>(self, de: D) -> Result<Request, D::Error> {
        de.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RequestSeed<'_> {
    type Value = Request;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Request, A::Error> {
        let mut request = Request::default();
        while let Some(key) = map.next_key_seed(KeySeed(self.0))? {
            match key {
                Key::Id => request.id = Some(number(self.0, key, &mut map)?),
                Key::From => request.from = Some(number(self.0, key, &mut map)?),
                Key::Seq => request.seq = Some(number(self.0, key, &mut map)?),
                Key::After => request.after = Some(number(self.0, key, &mut map)?),
                Key::Got => request.got = Some(number(self.0, key, &mut map)?),
                Key::Command => request.command = Some(text(self.0, key, NAME_EXPECTED, &mut map)?),
                Key::Cell => request.cell = Some(text(self.0, key, NAME_EXPECTED, &mut map)?),
                Key::Text => request.text = Some(text(self.0, key, TEXT_EXPECTED, &mut map)?),
                Key::Type => {
                    let name = text::<NAME, _>(self.0, key, NAME_EXPECTED, &mut map)?;
                    let found = TYPES.iter().find(|(known, _)| *known == name.as_str());
                    let Some((_, kind)) = found else {
                        return Err(wrong(self.0, Wrong::UnknownType(printable(&name))));
                    };
                    request.kind = Some(*kind);
                }
            }
        }
        Ok(request)
    }
}

const NAME_EXPECTED: &str = "a string of at most 64 bytes";
const TEXT_EXPECTED: &str = "a string of at most 192 bytes";
const _: () = assert!(NAME == 64 && TEXT_MAX == 192);

fn wrong<E: de::Error>(place: &Place, what: Wrong) -> E {
    if let Ok(mut place) = place.try_borrow_mut() {
        *place = Some(what);
    }
    E::custom("")
}

fn number<'de, A: MapAccess<'de>>(place: &Place, key: Key, map: &mut A) -> Result<u64, A::Error> {
    map.next_value::<u64>()
        .map_err(|_| wrong(place, Wrong::Value(key.name(), "a whole number from 0 to 18446744073709551615")))
}

fn text<'de, const N: usize, A: MapAccess<'de>>(
    place: &Place,
    key: Key,
    expected: &'static str,
    map: &mut A,
) -> Result<String<N>, A::Error> {
    map.next_value_seed(Text::<N>).map_err(|_| wrong(place, Wrong::Value(key.name(), expected)))
}

/// A string of at most `N` bytes.
struct Text<const N: usize>;

impl<'de, const N: usize> DeserializeSeed<'de> for Text<N> {
    type Value = String<N>;

    fn deserialize<D: de::Deserializer<'de>>(self, de: D) -> Result<String<N>, D::Error> {
        de.deserialize_str(self)
    }
}

impl<const N: usize> Visitor<'_> for Text<N> {
    type Value = String<N>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a string of at most {N} bytes")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<String<N>, E> {
        String::try_from(text).map_err(|_| E::custom(""))
    }
}

/// A guest's word for a sentence: as much as there is room for, nothing that a terminal would obey.
fn printable(text: &str) -> String<NAME> {
    let mut name = String::new();
    for c in text.chars().filter(|c| !c.is_control()) {
        if name.push(c).is_err() {
            break;
        }
    }
    name
}

struct KeySeed<'p>(&'p Place);

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Key;

    fn deserialize<D: de::Deserializer<'de>>(self, de: D) -> Result<Key, D::Error> {
        de.deserialize_identifier(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key of a request")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Key, E> {
        KEYS.iter()
            .find(|(name, _)| *name == text)
            .map(|(_, key)| *key)
            .ok_or_else(|| wrong(self.0, Wrong::UnknownKey(printable(text))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sentence(text: &str) -> std::string::String {
        match Request::parse(text.as_bytes()) {
            Ok(request) => std::format!("{request:?}"),
            Err(wrong) => wrong.to_string(),
        }
    }

    #[test]
    fn every_key_is_read() {
        let text = r#" { "id":7,"command":"restart" , "cell":"b\u00e4\"","text":"a\\b\n","from":1,"seq":2,"after":3,
                         "got":18446744073709551615,"type":"bye" } "#;
        let request = Request::parse(text.as_bytes()).unwrap();
        assert_eq!(
            request,
            Request {
                id: Some(7),
                command: Some("restart".try_into().unwrap()),
                kind: Some(Type::Bye),
                cell: Some("bä\"".try_into().unwrap()),
                text: Some("a\\b\n".try_into().unwrap()),
                from: Some(1),
                seq: Some(2),
                after: Some(3),
                got: Some(u64::MAX),
            }
        );
        assert_eq!(Request::parse(b"{}"), Ok(Request::default()));
        let request = Request::parse(br#"{"text":"\\u+599"}"#).unwrap();
        assert_eq!(request.text.as_deref(), Some("\\u+599"), "an escaped backslash escapes nothing");
    }

    #[test]
    fn mistakes_name_the_key() {
        for (text, expected) in [
            ("", "a line must be one JSON object: EOF while parsing a JSON value."),
            ("cells", "a line must be one JSON object: "),
            ("[]", "a line must be one JSON object: "),
            ("{\"command\":\"cells\"", "a line must be one JSON object: "),
            (
                "{} {}",
                "a line must be one JSON object: JSON has non-whitespace trailing characters after the value.",
            ),
            (r#"{"comand":"cells"}"#, "\"comand\" is no key of a request; did you mean \"command\"?"),
            (r#"{"xyzzy":[[[[]]]]}"#, "\"xyzzy\" is no key of a request; docs/management.md lists them"),
            (r#"{"id":"7"}"#, "\"id\" must be a whole number from 0 to 18446744073709551615"),
            (r#"{"id":-7}"#, "\"id\" must be a whole number from 0 to 18446744073709551615"),
            (r#"{"id":18446744073709551616}"#, "\"id\" must be a whole number from 0 to"),
            (r#"{"id":1.5}"#, "a line must be one JSON object: "),
            (r#"{"cell":1}"#, "\"cell\" must be a string of at most 64 bytes"),
            (r#"{"command":{"a":1}}"#, "\"command\" must be a string of at most 64 bytes"),
            (
                r#"{"type":"ping"}"#,
                "\"type\" cannot be \"ping\"; it is \"hello\", \"alive\", \"got\" or \"bye\"",
            ),
            ("{\"type\":\"\u{1b}[2J\"}", "\"type\" cannot be \"[2J\"; it is \"hello\""),
            (r#"{"text":"\q"}"#, "\"text\" must be a string of at most 192 bytes"),
            (r#"{"text":"\u+599"}"#, "a line must be one JSON object: "),
            (r#"{"text":"\\u+599\u00"#, "a line must be one JSON object: "),
        ] {
            let said = sentence(text);
            assert!(said.starts_with(expected), "{text}: {said}");
        }
        let long = std::format!(r#"{{"text":"{}"}}"#, "x".repeat(TEXT_MAX + 1));
        assert_eq!(sentence(&long), "\"text\" must be a string of at most 192 bytes");
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = std::format!("{{\"cell\":{}", "[".repeat(REQUEST_MAX));
        assert_eq!(sentence(&deep), "\"cell\" must be a string of at most 64 bytes");
        let deep = std::format!("{{\"zz\":{}", "{\"a\":".repeat(REQUEST_MAX));
        assert!(sentence(&deep).starts_with("\"zz\" is no key"), "{}", sentence(&deep));
    }

    proptest! {
        #[test]
        fn noise_is_harmless(bytes in prop::collection::vec(any::<u8>(), 0..REQUEST_MAX)) {
            let _ = Request::parse(&bytes);
        }

        #[test]
        fn near_json_is_harmless(parts in prop::collection::vec(prop::sample::select(vec![
            "{", "}", ":", ",", "\"", "\\", "\\u", "00e4", "d800", "\"id\":", "\"cell\"", "\"text\":\"", "1", "-",
            "99999999999999999999", "null", "true", "[", "]", " ", "ä", "\u{1}", "\"type\":\"alive\"",
        ]), 0..60)) {
            let text = parts.concat();
            if let Err(wrong) = Request::parse(text.as_bytes()) {
                prop_assert!(wrong.to_string().len() < 256);
            }
        }

        /// What a client writes with any JSON library is read back.
        #[test]
        fn strings_survive(cell in "\\PC{0,16}", text in "\\PC{0,48}", id: u64) {
            let line = serde_json::json!({ "id": id, "cell": cell, "text": text }).to_string();
            let request = Request::parse(line.as_bytes()).unwrap();
            prop_assert_eq!(request.cell.as_deref(), Some(cell.as_str()));
            prop_assert_eq!(request.text.as_deref(), Some(text.as_str()));
            prop_assert_eq!(request.id, Some(id));
        }
    }
}
