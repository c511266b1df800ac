//! Guest kernels and initramfs that the boot loader puts into memory beside the image (`guests.img`, docs/boot-files.md).
//!
//! Microkit's tool deflates what a region is prefilled with and its initialiser inflates it again, at 20 instructions a byte;
//! a boot loader just reads a file. But nothing then ties that file to the image: it may be missing, of an earlier build, or
//! cut short by a loader that had too little room. So each file stands behind a page with a header that says how long it is
//! and what its CRC-32C is, and the image holds a copy of the header that the file must have. A CRC and not a
//! cryptographic hash: who loads this file loads the image too, so there is nobody to defend against but mistakes.

use core::fmt;

/// Bytes before the file: a page, so that the file is aligned as in the image.
pub const LEAD: usize = 0x1000;
/// Bytes of a [`Header`].
pub const HEADER: usize = 32;
/// Regions begin at multiples of this and are multiples of it.
pub const ALIGN: u64 = 2 << 20;

const MAGIC: [u8; 8] = *b"PARTITA\x1a";
const VERSION: u32 = 1;

/// What stands before a file. In memory: magic, version, CRC of the file, its length, CRC of all that, zero; little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the file.
    pub length: u64,
    /// Its CRC-32C.
    pub crc: u32,
}

/// Why a file is not the one that the image was built with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// No header; the first bytes there.
    Nothing([u8; 8]),
    /// A header whose own checksum is wrong.
    BadHeader,
    /// A header of another version.
    Version(u32),
    /// A file of another build.
    Other {
        /// Its header.
        found: Header,
        /// The header that it should have.
        expected: Header,
    },
    /// The image does not know which file to expect, or has too little room for it: the host tool's mistake.
    Unknown,
    /// The right header, but this CRC.
    Damaged {
        /// Of the file.
        found: u32,
        /// By the header.
        expected: u32,
    },
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wrong::Nothing(bytes) => {
                write!(f, "no header (the first bytes are {:016x})", u64::from_be_bytes(*bytes))
            }
            Wrong::BadHeader => f.write_str("a damaged header"),
            Wrong::Version(version) => write!(f, "version {version}, this is for version {VERSION}"),
            Wrong::Other { found, expected } => write!(
                f,
                "that of another build ({} bytes with CRC {:08x} instead of {} with {:08x})",
                found.length, found.crc, expected.length, expected.crc
            ),
            Wrong::Unknown => f.write_str("no room for the expected file"),
            Wrong::Damaged { found, expected } => {
                write!(f, "a damaged file or a part of it (CRC {found:08x} instead of {expected:08x})")
            }
        }
    }
}

/// Bytes of the region that a file of `length` bytes needs; `None` of a length that no memory has.
pub const fn room(length: u64) -> Option<u64> {
    match length.checked_add(LEAD as u64) {
        Some(bytes) => bytes.checked_next_multiple_of(ALIGN),
        None => None,
    }
}

impl Header {
    /// In memory.
    pub fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.crc.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.length.to_le_bytes());
        let own = crate::crc32c::crc32c(&bytes[..24]);
        bytes[24..28].copy_from_slice(&own.to_le_bytes());
        bytes
    }

    /// From whatever is in memory.
    ///
    /// # Errors
    /// It is no header, or none of this version.
    pub fn parse(bytes: &[u8]) -> Result<Self, Wrong> {
        let Some(bytes) = bytes.first_chunk::<HEADER>() else { return Err(Wrong::Nothing([0; 8])) };
        let [magic, rest, length, own] = bytes.as_chunks::<8>().0 else { return Err(Wrong::Unknown) };
        if *magic != MAGIC {
            return Err(Wrong::Nothing(*magic));
        }
        // Two words in one.
        let halves = |word: &[u8; 8]| {
            let word = u64::from_le_bytes(*word);
            (word as u32, (word >> 32) as u32)
        };
        let (version, crc) = halves(rest);
        if version != VERSION {
            return Err(Wrong::Version(version));
        }
        let header = Self { length: u64::from_le_bytes(*length), crc };
        let (own, zero) = halves(own);
        let is_whole = bytes.get(..24).map(crate::crc32c::crc32c) == Some(own);
        if is_whole && zero == 0 { Ok(header) } else { Err(Wrong::BadHeader) }
    }
}

/// The file in `region`, if the header before it is that of `expected`, the header that the image has. Its CRC is not
/// looked at.
///
/// # Errors
/// What is there instead.
pub fn open<'a>(region: &'a [u8], expected: &[u8]) -> Result<(&'a [u8], u32), Wrong> {
    let expected = Header::parse(expected).map_err(|_| Wrong::Unknown)?;
    let found = Header::parse(region)?;
    if found != expected {
        return Err(Wrong::Other { found, expected });
    }
    let length = usize::try_from(found.length).map_err(|_| Wrong::Unknown)?;
    let file = region.get(LEAD..).and_then(|rest| rest.get(..length)).ok_or(Wrong::Unknown)?;
    Ok((file, found.crc))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crc32c::crc32c;
    use proptest::prelude::*;

    fn region(file: &[u8]) -> (std::vec::Vec<u8>, Header) {
        let header = Header { length: file.len() as u64, crc: crc32c(file) };
        let mut region = std::vec![0; LEAD];
        region[..HEADER].copy_from_slice(&header.to_bytes());
        region.extend(file);
        (region, header)
    }

    #[test]
    fn what_is_written_is_found() {
        let (region, header) = region(b"kernel");
        assert_eq!(Header::parse(&region), Ok(header));
        assert_eq!(open(&region, &header.to_bytes()), Ok((&b"kernel"[..], header.crc)));
        assert_eq!((room(0), room(ALIGN - LEAD as u64)), (Some(ALIGN), Some(ALIGN)));
        assert_eq!((room(ALIGN), room(u64::MAX - 5000)), (Some(2 * ALIGN), None));
    }

    #[test]
    fn each_mistake_has_its_words() {
        let (good, header) = region(b"kernel");
        let said = |region: &[u8]| std::format!("{}", open(region, &header.to_bytes()).unwrap_err());
        assert_eq!(said(&[0; 100]), "no header (the first bytes are 0000000000000000)");
        assert_eq!(
            said(b"\xd0\x0d\xfe\xed...................................."),
            "no header (the first bytes are d00dfeed2e2e2e2e)"
        );
        assert_eq!(said(&[]), "no header (the first bytes are 0000000000000000)");
        let changed = |at: usize| {
            let mut bytes = good.clone();
            bytes[at] ^= 2;
            bytes
        };
        assert_eq!(said(&changed(8)), "version 3, this is for version 1");
        assert_eq!(said(&changed(17)), "a damaged header");
        assert_eq!(said(&changed(28)), "a damaged header");
        assert_eq!(
            said(&region(b"other").0),
            std::format!(
                "that of another build (5 bytes with CRC {:08x} instead of 6 with {:08x})",
                crc32c(b"other"),
                header.crc
            )
        );
        assert_eq!(said(&good[..LEAD + 3]), "no room for the expected file");
        assert_eq!(open(&good, &[]), Err(Wrong::Unknown));
        let damaged = Wrong::Damaged { found: 1, expected: 0xabc };
        assert_eq!(
            std::format!("{damaged}"),
            "a damaged file or a part of it (CRC 00000001 instead of 00000abc)"
        );
    }

    proptest! {
        /// Foreign bytes are refused or are a header that is written the same way; nothing outside of the region is returned.
        #[test]
        fn foreign_bytes(mut bytes in prop::collection::vec(any::<u8>(), 0..200), length: u64, crc: u32, flip in 0usize..400,
                         like: bool, lead: bool) {
            let expected = Header { length, crc };
            if like {
                bytes.splice(..HEADER.min(bytes.len()), expected.to_bytes());
            }
            if lead {
                bytes.resize(LEAD + bytes.len(), 7);
            }
            if let Some(byte) = bytes.get_mut(flip) {
                *byte ^= 1;
            }
            if let Ok(header) = Header::parse(&bytes) {
                prop_assert_eq!(&header.to_bytes()[..], &bytes[..HEADER]);
            }
            if let Ok((file, _)) = open(&bytes, &expected.to_bytes()) {
                prop_assert_eq!(file.len() as u64, length);
                prop_assert!(like && flip >= HEADER);
            }
        }
    }
}
