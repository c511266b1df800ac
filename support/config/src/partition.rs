//! Which part of a disk a guest sees.
//!
//! In the file it is a string (the label of a GPT partition) or an object with one key. serde-json-core cannot look ahead
//! (`deserialize_any`), but a string or an object of one key is exactly how serde writes an enum, so the value is read as
//! one whose unit variants are the labels.

use core::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeMap};

/// A part of a disk, to be resolved by `blk` when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partition<'a> {
    /// `"debian1"`: the GPT partition of that name.
    Label(&'a str),
    /// `{"gpt": 2}`: the GPT entry of that number, from 1.
    Gpt(u32),
    /// `{"mbr": 1}`: the MBR partition of that number; 1 to 4 are primary.
    Mbr(u32),
    /// `{"range": {"first": 2048, "count": 4096}}`: sectors of 512 bytes. Without `count` up to the disk's end.
    Range {
        /// First sector.
        first: u64,
        /// Number of sectors.
        count: Option<u64>,
    },
}

/// Keys of the object form.
const KEYS: &[&str] = &["gpt", "mbr", "range"];

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Range {
    first: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
}

/// The string: a label, or a key of the object form.
struct Word<'a>(&'a str);

impl<'de: 'a, 'a> Deserialize<'de> for Word<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&'a str>::deserialize(deserializer).map(Word)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Partition<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Partition<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a partition label or an object with one of the keys gpt, mbr, range")
            }

            fn visit_enum<A: de::EnumAccess<'de>>(self, access: A) -> Result<Self::Value, A::Error> {
                use de::VariantAccess;
                let (word, content) = access.variant::<Word<'de>>()?;
                match word.0 {
                    "gpt" => content.newtype_variant().map(Partition::Gpt),
                    "mbr" => content.newtype_variant().map(Partition::Mbr),
                    "range" => content
                        .newtype_variant()
                        .map(|Range { first, count }| Partition::Range { first, count }),
                    label => content.unit_variant().map(|()| Partition::Label(label)),
                }
            }
        }
        deserializer.deserialize_enum("Partition", KEYS, Visitor)
    }
}

impl Serialize for Partition<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Partition::Label(label) = self {
            return serializer.serialize_str(label);
        }
        let mut map = serializer.serialize_map(Some(1))?;
        match *self {
            Partition::Label(_) => {}
            Partition::Gpt(number) => map.serialize_entry("gpt", &number)?,
            Partition::Mbr(number) => map.serialize_entry("mbr", &number)?,
            Partition::Range { first, count } => map.serialize_entry("range", &Range { first, count })?,
        }
        map.end()
    }
}
