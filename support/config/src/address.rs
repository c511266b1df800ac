//! Physical addresses as people write them: `"0x9040000"`.

use core::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A physical address; in the file a string of `0x` and hexadecimal digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address(pub u64);

impl Address {
    /// From the file's form. `_` may separate digits.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("0x")?;
        let mut value = 0u64;
        let mut any = false;
        for byte in digits.bytes().filter(|byte| *byte != b'_') {
            let digit = char::from(byte).to_digit(16)?;
            value = value.checked_mul(16)?.checked_add(digit.into())?;
            any = true;
        }
        any.then_some(Self(value))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Address;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address such as \"0x9040000\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Address, E> {
                Address::parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forms() {
        assert_eq!(Address::parse("0x9040000"), Some(Address(0x904_0000)));
        assert_eq!(Address::parse("0xfe34_0000"), Some(Address(0xfe34_0000)));
        for wrong in ["", "0x", "0x_", "9040000", "0X1", "0x1g", "0x10000000000000000", "-0x1", "0x 1"] {
            assert_eq!(Address::parse(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(value: u64) {
            prop_assert_eq!(Address::parse(&Address(value).to_string()), Some(Address(value)));
        }
    }
}
