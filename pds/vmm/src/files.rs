//! Boot files beside the image: what the boot loader has put into memory is checked before it is used
//! ([`partita_guest::boot_file`]).
//!
//! The headers are looked at when the VMM starts. The files' checksum takes some ten milliseconds, so it is made piece by
//! piece, paced by the guest's own vCPU ([`crate::prepare`]), before the guest's first start; nobody can write the
//! files later.

use core::fmt;

use partita_guest::boot_file::{self, HEADER, Wrong};
use partita_guest::crc32c::Crc32c;

/// Bytes checked at a call.
pub const PIECE: usize = 1 << 20;

/// A file that is being checked.
#[derive(Clone, Copy, Debug)]
struct File<'a> {
    bytes: &'a [u8],
    crc: u32,
}

/// The kernel and the initramfs of a guest.
#[derive(Clone, Copy, Debug)]
pub struct Files<'a> {
    /// Where `guests.img` is.
    address: u64,
    state: State<'a>,
}

#[derive(Clone, Copy, Debug)]
enum State<'a> {
    /// Files of which the current one is checked up to `done`.
    Checking {
        current: File<'a>,
        next: Option<File<'a>>,
        done: usize,
        crc: Crc32c,
    },
    Good,
    Wrong(Wrong),
}

/// A line for the log about files that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    address: u64,
    wrong: Wrong,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, wrong } = self;
        write!(f, "guests.img is not at {address:#x}: found {wrong}; load it there beside loader.img")
    }
}

impl<'a> Files<'a> {
    /// Files in the image: nothing to check.
    pub const fn in_image() -> Self {
        Self { address: 0, state: State::Good }
    }

    /// Looks at the headers in `kernel` and, if there is an initramfs, `initrd`: regions whose files are to have the headers
    /// in `expected`, one behind the other. `address` is where `guests.img` must be. Also returns both files, empty where
    /// one is not there.
    pub fn open(
        address: u64,
        kernel: &'a [u8],
        initrd: Option<&'a [u8]>,
        expected: &[u8],
    ) -> (Self, [&'a [u8]; 2]) {
        let (first, second) = expected.split_at_checked(HEADER).unwrap_or((expected, &[]));
        let open = |region, expected| {
            let (bytes, crc) = boot_file::open(region, expected)?;
            Ok(File { bytes, crc })
        };
        let opened = open(kernel, first)
            .and_then(|kernel| Ok((kernel, initrd.map(|initrd| open(initrd, second)).transpose()?)));
        match opened {
            Ok((current, next)) => {
                let state = State::Checking { current, next, done: 0, crc: Crc32c::new() };
                let images = [current.bytes, next.map_or(&[][..], |next| next.bytes)];
                (Self { address, state }, images)
            }
            Err(wrong) => (Self { address, state: State::Wrong(wrong) }, [&[], &[]]),
        }
    }

    /// Whether they can be used; `None`: [`Files::check`] has to be called until it is known.
    pub fn verdict(&self) -> Option<Result<(), Refused>> {
        match self.state {
            State::Checking { .. } => None,
            State::Good => Some(Ok(())),
            State::Wrong(wrong) => Some(Err(Refused { address: self.address, wrong })),
        }
    }

    /// Checks the next `piece` bytes.
    pub fn check(&mut self, piece: usize) {
        let State::Checking { current, next, done, crc } = &mut self.state else { return };
        let rest = current.bytes.get(*done..).unwrap_or_default();
        let now = rest.get(..piece).unwrap_or(rest);
        crc.add(now);
        *done += now.len();
        if *done < current.bytes.len() {
            return;
        }
        let (found, expected) = (crc.value(), current.crc);
        self.state = match *next {
            _ if found != expected => State::Wrong(Wrong::Damaged { found, expected }),
            Some(next) => State::Checking { current: next, next: None, done: 0, crc: Crc32c::new() },
            None => State::Good,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;
    use std::vec::Vec;

    use partita_guest::boot_file::{Header, LEAD};
    use partita_guest::crc32c::crc32c;
    use proptest::prelude::*;

    use super::*;

    fn region(file: &[u8]) -> Vec<u8> {
        let mut region = std::vec![0; LEAD];
        region[..HEADER].copy_from_slice(&header(file));
        region.extend(file);
        region
    }

    fn header(file: &[u8]) -> [u8; HEADER] {
        Header { length: file.len() as u64, crc: crc32c(file) }.to_bytes()
    }

    fn both(kernel: &[u8], initrd: &[u8]) -> Vec<u8> {
        [header(kernel), header(initrd)].concat()
    }

    #[test]
    fn one_file_or_two_and_nothing_to_check() {
        assert_eq!(Files::in_image().verdict(), Some(Ok(())));
        let (kernel, initrd) = (region(b"kernel"), region(b"initrd"));
        let (mut files, images) = Files::open(0, &kernel, None, &header(b"kernel"));
        assert_eq!((images, files.verdict()), ([&b"kernel"[..], b""], None));
        files.check(100);
        assert_eq!(files.verdict(), Some(Ok(())));
        let (mut files, images) = Files::open(0, &kernel, Some(&initrd), &both(b"kernel", b"initrd"));
        assert_eq!(images, [&b"kernel"[..], b"initrd"]);
        files.check(100);
        assert_eq!(files.verdict(), None);
        files.check(100);
        assert_eq!(files.verdict(), Some(Ok(())));
    }

    #[test]
    fn what_is_wrong_is_said_with_the_place() {
        let said = |files: Files<'_>| files.verdict().unwrap().unwrap_err().to_string();
        let (kernel, initrd) = (region(b"kernel"), region(b"initrd"));
        let (files, images) = Files::open(0xc000_0000, &[0; 4096], None, &header(b"kernel"));
        assert_eq!(images, [b""; 2]);
        assert_eq!(
            said(files),
            "guests.img is not at 0xc0000000: found no header (the first bytes are 0000000000000000); load it there \
             beside loader.img"
        );
        let (files, _) = Files::open(0, &kernel, Some(&initrd), &both(b"kernel", b"another"));
        assert!(said(files).contains("found that of another build (6 bytes"));
        let (files, _) = Files::open(0, &kernel, Some(&initrd), &header(b"kernel"));
        assert!(said(files).contains("no room for the expected file"));
        for (damaged, calls) in [(LEAD, 1), (LEAD + 5, 1)] {
            let mut kernel = kernel.clone();
            kernel[damaged] ^= 0x80;
            let (mut files, _) = Files::open(0, &kernel, Some(&initrd), &both(b"kernel", b"initrd"));
            (0..calls).for_each(|_| files.check(100));
            assert!(said(files).contains("found a damaged file or a part of it (CRC "));
            files.check(100);
            assert!(said(files).contains("damaged"), "it stays so");
        }
    }

    proptest! {
        /// However large the pieces, a good pair is good and one with a changed bit is not, after as many calls as it must
        /// take.
        #[test]
        fn every_bit_counts(kernel in prop::collection::vec(any::<u8>(), 1..200), initrd in prop::collection::vec(any::<u8>(), 1..200),
                            piece in 1usize..100, flip in 0usize..3200) {
            let expected = both(&kernel, &initrd);
            let (kernel_region, mut initrd_region) = (region(&kernel), region(&initrd));
            let flipped = match initrd_region[LEAD..].get_mut(flip / 8) {
                Some(byte) => { *byte ^= 1 << (flip % 8); true }
                None => false,
            };
            let (mut files, _) = Files::open(0, &kernel_region, Some(&initrd_region), &expected);
            for _ in 0..kernel.len().div_ceil(piece) + initrd.len().div_ceil(piece) {
                prop_assert_eq!(files.verdict(), None);
                files.check(piece);
            }
            prop_assert_eq!(files.verdict().map(|verdict| verdict.is_err()), Some(flipped));
        }
    }
}
