//! The last bytes of something, for readers that take nothing out.
//!
//! One writer puts bytes in and never waits; the oldest give way. A reader asks for the bytes from a position on (positions
//! count all bytes ever written) and is told where it really read from, should those be gone. The page set is a ring's, of
//! which only the writer's half is used: `produced` is the end, and `consumed` the oldest byte that is not being overwritten,
//! which the writer moves *before* it touches what is older. So a reader that looks at it again after its copy knows how
//! much of the copy to believe.

use crate::bytes::{capacity, copy_in, copy_out};
use crate::page::{Mine, Yours};
use crate::sync::{Ordering, fence};

/// The writing end.
pub struct Writer<'a> {
    mine: Mine<'a>,
    end: u64,
}

impl<'a> Writer<'a> {
    /// Goes on behind what an earlier life wrote.
    pub fn new(mine: Mine<'a>) -> Self {
        Writer { mine, end: mine.header.produced.load(Ordering::Relaxed) }
    }

    /// Appends; of more than the capacity only the last bytes are kept.
    pub fn push(&mut self, bytes: &[u8]) {
        let Mine { header, data } = self.mine;
        let capacity = capacity(data);
        let end = self.end.wrapping_add(bytes.len() as u64);
        let kept = bytes.get(bytes.len().saturating_sub(capacity as usize)..).unwrap_or(&[]);
        header.consumed.store(end.saturating_sub(capacity), Ordering::Relaxed);
        // The new bound is visible before any byte behind it changes.
        fence(Ordering::SeqCst);
        copy_in(data, end.wrapping_sub(kept.len() as u64), kept);
        header.produced.store(end, Ordering::Release);
        self.end = end;
    }
}

/// The reading end.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    yours: Yours<'a>,
}

impl<'a> Reader<'a> {
    /// Of a writer's page set.
    pub const fn new(yours: Yours<'a>) -> Self {
        Reader { yours }
    }

    /// Reads what there is from `from` on, or from the oldest byte kept: the position of the first byte read, and how many.
    /// None are read at the end, and from a writer that overtakes us.
    pub fn read(&self, from: u64, out: &mut [u8]) -> (u64, usize) {
        let Yours { header, data } = self.yours;
        let end = header.produced.load(Ordering::Acquire);
        let oldest = end.saturating_sub(capacity(data));
        let at = from.max(oldest);
        let Some(there) = end.checked_sub(at) else { return (end, 0) };
        let len = out.len().min(usize::try_from(there).unwrap_or(usize::MAX));
        let Some(part) = out.get_mut(..len) else { return (at, 0) };
        copy_out(data, at, part);
        // The copy is over before we look at what was overwritten meanwhile.
        fence(Ordering::SeqCst);
        let bound = header.consumed.load(Ordering::Relaxed);
        match bound.checked_sub(at) {
            None | Some(0) => (at, len),
            Some(gone) => match usize::try_from(gone) {
                Ok(gone) if gone < len => {
                    out.copy_within(gone..len, 0);
                    (bound, len - gone)
                }
                _ => (bound, 0),
            },
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sync::AtomicU64;
    use crate::{Header, Mine, Yours};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 2 } else { 256 }, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn the_last_bytes_are_kept(
            words in 1usize..5,
            pushes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..20),
            from in 0u64..500,
            most in 0usize..60,
        ) {
            let header = Header::new();
            let data: Vec<_> = (0..words).map(|_| AtomicU64::new(0)).collect();
            let mut writer = Writer::new(Mine::new(&header, &data));
            let reader = Reader::new(Yours::new(&header, &data));
            let mut all = Vec::new();
            for (n, push) in pushes.iter().enumerate() {
                if n == 10 {
                    writer = Writer::new(Mine::new(&header, &data));
                }
                writer.push(push);
                all.extend(push);
            }
            let mut out = vec![0; most];
            let (at, len) = reader.read(from, &mut out);
            let expected = (from as usize).max(all.len().saturating_sub(words * 8)).min(all.len());
            prop_assert_eq!(at as usize, expected);
            prop_assert_eq!(len, most.min(all.len() - expected));
            prop_assert_eq!(&out[..len], &all[expected..expected + len]);
        }

        /// Whatever the writer's header says, a read stays in its memory and its buffer.
        #[test]
        fn a_header_of_nonsense_is_harmless(produced: u64, consumed: u64, from: u64, words in 0usize..4) {
            let header = Header::new();
            let data: Vec<_> = (0..words).map(|_| AtomicU64::new(7)).collect();
            header.produced.store(produced, Ordering::Relaxed);
            header.consumed.store(consumed, Ordering::Relaxed);
            let mut out = [0; 16];
            let (_, len) = Reader::new(Yours::new(&header, &data)).read(from, &mut out);
            prop_assert!(len <= 16);
            Writer::new(Mine::new(&header, &data)).push(&[1; 5]);
        }
    }

    /// A writer that runs on another core: what a reader believes is never a mix.
    #[test]
    fn a_reader_that_is_overtaken_notices() {
        let header = Header::new();
        let data: Vec<_> = (0..8).map(|_| AtomicU64::new(0)).collect();
        let rounds = if cfg!(miri) { 200u64 } else { 200_000 };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut writer = Writer::new(Mine::new(&header, &data));
                for n in 0..rounds {
                    writer.push(&n.to_le_bytes());
                }
            });
            let reader = Reader::new(Yours::new(&header, &data));
            let mut next = 0;
            while next < rounds * 8 {
                let mut out = [0; 24];
                let (at, len) = reader.read(next, &mut out);
                for (n, byte) in out[..len].iter().enumerate() {
                    let position = at + n as u64;
                    assert_eq!(*byte, (position / 8).to_le_bytes()[(position % 8) as usize], "{position}");
                }
                next = at + len as u64;
            }
        });
    }
}
