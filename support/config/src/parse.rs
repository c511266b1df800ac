//! The parser: fills a [`Config`] where it is.
//!
//! serde's derived code hands values up by value, and each level keeps a copy on the stack. For a cell that is little; for
//! the whole file it would be several times the file's greatest size, in every protection domain. So the lists at the top
//! are filled in place, entry by entry.

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicBool, Ordering};

use heapless::Vec;
use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json_core::de::Error;

use crate::Config;

const KEYS: &[&str] = &["$schema", "boot_files", "controllers", "cells", "links", "sockets"];

/// The target's parser: no file that the host tool accepted fails here. After an error `config` holds what came before it.
///
/// # Errors
/// The parser's own, without a path; `host::parse` has a message for a person.
pub fn parse_into<'a>(text: &'a [u8], config: &mut Config<'a>) -> Result<(), Error> {
    let mut parser = serde_json_core::de::Deserializer::new(text, None);
    *config = Config::default();
    Whole(config).deserialize(&mut parser)?;
    let used = parser.end()?;
    match text.get(used..) {
        Some(rest) if rest.iter().all(u8::is_ascii_whitespace) => Ok(()),
        _ => Err(Error::TrailingCharacters),
    }
}

/// [`parse_into`] a new [`Config`]: for the host, whose stack is large.
///
/// # Errors
/// As there.
pub fn parse(text: &[u8]) -> Result<Config<'_>, Error> {
    let mut config = Config::default();
    parse_into(text, &mut config)?;
    Ok(config)
}

/// Room for one [`Config`] in a protection domain's data. It can be used once.
#[derive(Debug)]
pub struct Store {
    config: UnsafeCell<Config<'static>>,
    used: AtomicBool,
}

// SAFETY: the value is reached by `parse` only, which lets one caller through, ever; what it returns is shared.
unsafe impl Sync for Store {}

impl Store {
    /// Empty.
    pub const fn new() -> Self {
        Self { config: UnsafeCell::new(Config::new()), used: AtomicBool::new(false) }
    }

    /// Parses into it. `None`: the text is not what the host tool accepts, or the store was used before.
    pub fn parse(&'static self, text: &'static [u8]) -> Option<&'static Config<'static>> {
        if self.used.swap(true, Ordering::Relaxed) {
            return None;
        }
        // SAFETY: the swap lets one caller through, so there is no other reference.
        let config = unsafe { &mut *self.config.get() };
        parse_into(text, config).ok()?;
        Some(config)
    }
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

/// The object at the top.
struct Whole<'c, 'a>(&'c mut Config<'a>);

impl<'de: 'a, 'a> DeserializeSeed<'de> for Whole<'_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de: 'a, 'a> Visitor<'de> for Whole<'_, 'a> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a description of a system")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Whole(config) = self;
        let mut seen = [false; KEYS.len()];
        while let Some(key) = map.next_key::<&str>()? {
            let Some(place) = KEYS.iter().position(|known| *known == key) else {
                return Err(de::Error::unknown_field(key, KEYS));
            };
            if let (Some(seen), Some(name)) = (seen.get_mut(place), KEYS.get(place))
                && core::mem::replace(seen, true)
            {
                return Err(de::Error::duplicate_field(name));
            }
            match place {
                0 => config.schema = map.next_value()?,
                1 => config.boot_files = Some(map.next_value()?),
                2 => map.next_value_seed(List(&mut config.controllers, PhantomData))?,
                3 => map.next_value_seed(List(&mut config.cells, PhantomData))?,
                4 => map.next_value_seed(List(&mut config.links, PhantomData))?,
                _ => map.next_value_seed(List(&mut config.sockets, PhantomData))?,
            }
        }
        if seen.get(3) == Some(&true) { Ok(()) } else { Err(de::Error::missing_field("cells")) }
    }
}

/// One of its lists.
struct List<'v, 'de, T, const N: usize>(&'v mut Vec<T, N>, PhantomData<&'de ()>);

impl<'de, T: Deserialize<'de>, const N: usize> DeserializeSeed<'de> for List<'_, 'de, T, N> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for List<'_, 'de, T, N> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(entry) = list.next_element()? {
            self.0.push(entry).map_err(|_| de::Error::invalid_length(N + 1, &"fewer entries"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = br#"{ "cells": [{ "name": "a", "memory": "16M", "kernel": "k" }] }"#;

    #[test]
    fn what_is_missing_double_or_unknown_is_refused() {
        assert!(parse(TEXT).is_ok());
        for text in [
            r#"{}"#,
            r#"{ "controllers": [] }"#,
            r#"{ "cells": [], "cells": [] }"#,
            r#"{ "cells": [], "x": 1 }"#,
            r#"{ "cells": {} }"#,
            r#"{ "cells": [] } x"#,
            r#"[]"#,
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_list_that_is_too_long_is_refused() {
        let cell = |n| format!(r#"{{ "name": "c{n}", "memory": "16M", "kernel": "k" }}"#);
        let file = |count| {
            let cells: std::vec::Vec<_> = (0..count).map(cell).collect();
            format!(r#"{{ "cells": [{}] }}"#, cells.join(", "))
        };
        assert_eq!(parse(file(partita_protocol::MAX_CELLS).as_bytes()).unwrap().cells.len(), 9);
        assert!(parse(file(partita_protocol::MAX_CELLS + 1).as_bytes()).is_err());
    }

    #[test]
    fn a_store_is_used_once() {
        static STORE: Store = Store::new();
        assert_eq!(STORE.parse(TEXT).unwrap().cells[0].name, "a");
        assert!(STORE.parse(TEXT).is_none());
        static OTHER: Store = Store::new();
        assert!(OTHER.parse(b"{").is_none());
    }
}
