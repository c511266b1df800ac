//! Byte counts as people write them: `"512M"`.

use core::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A byte count; in the file a string of a decimal number and K, M or G (powers of 1024).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Size {
    /// From the file's form.
    pub fn parse(text: &str) -> Option<Self> {
        let (digits, shift) = match text.as_bytes().last()? {
            b'K' => (text.strip_suffix('K')?, 10),
            b'M' => (text.strip_suffix('M')?, 20),
            b'G' => (text.strip_suffix('G')?, 30),
            _ => return None,
        };
        if digits.is_empty() || digits.len() > 12 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let number = digits.parse::<u64>().ok()?;
        number.checked_mul(1 << shift).filter(|size| *size < 1 << 48).map(Self)
    }
}

impl fmt::Display for Size {
    /// The shortest form that [`Size::parse`] reads back, if there is one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n != 0 && n % (1 << 30) == 0 => write!(f, "{}G", n >> 30),
            n if n != 0 && n % (1 << 20) == 0 => write!(f, "{}M", n >> 20),
            n if n % (1 << 10) == 0 => write!(f, "{}K", n >> 10),
            n => write!(f, "{n} bytes"),
        }
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"512M\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                Size::parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
