//! Copies between private bytes and a ring's words.
//!
//! The data of a ring is words of 8 bytes, and every access is one atomic load or store of a whole word: the fastest there
//! is without vector registers, and never two sizes for one location. At the ends of a copy, where a word holds bytes of a
//! neighbour, the writer (there is one) stores back what it loaded; a reader that looks at the neighbour meanwhile sees the
//! same bytes as before.

use crate::sync::{AtomicU64, Ordering};

const WORD: usize = size_of::<u64>();

/// Copies `out.len()` bytes that start `at` bytes into `data`, with wrap-around. Bytes beyond one round are not touched.
pub fn copy_out(data: &[AtomicU64], at: u64, out: &mut [u8]) {
    let Some([first, second]) = segments(data, at, out.len()) else { return };
    let (one, rest) = out.split_at_mut_checked(first.len).unwrap_or_default();
    read(first, one);
    read(second, rest.get_mut(..second.len).unwrap_or_default());
}

/// Copies `bytes` to where `at` points in `data`, with wrap-around. Only the ring's writer may call this.
pub fn copy_in(data: &[AtomicU64], at: u64, bytes: &[u8]) {
    let Some([first, second]) = segments(data, at, bytes.len()) else { return };
    let (one, rest) = bytes.split_at_checked(first.len).unwrap_or_default();
    write(first, one);
    write(second, rest.get(..second.len).unwrap_or_default());
}

/// A run of bytes that does not wrap: the words that hold it, the bytes before it in the first, and its length.
#[derive(Clone, Copy)]
struct Segment<'a> {
    words: &'a [AtomicU64],
    skip: usize,
    len: usize,
}

/// The one or two runs of `len` bytes at `at`; at most one round. `None`: there is no data.
fn segments(data: &[AtomicU64], at: u64, len: usize) -> Option<[Segment<'_>; 2]> {
    let capacity = capacity(data);
    let start = at.checked_rem(capacity)? as usize;
    let len = len.min(capacity as usize);
    let first = len.min(capacity as usize - start);
    let words = data.get(start / WORD..).unwrap_or_default();
    Some([
        Segment { words, skip: start % WORD, len: first },
        Segment { words: data, skip: 0, len: len - first },
    ])
}

/// Splits a run of `len` bytes that starts `skip` bytes into a word: bytes of a first word that is not whole, whole words.
fn head(skip: usize, len: usize) -> usize {
    if skip == 0 { 0 } else { len.min(WORD - skip) }
}

fn read(segment: Segment<'_>, out: &mut [u8]) {
    let Segment { words, skip, len } = segment;
    let part = |word: &AtomicU64, from: usize, out: &mut [u8]| {
        let bytes = word.load(Ordering::Relaxed).to_le_bytes();
        if let Some(bytes) = bytes.get(from..from + out.len()) {
            out.copy_from_slice(bytes);
        }
    };
    let (first, rest) = out.split_at_mut_checked(head(skip, len)).unwrap_or_default();
    let mut words = words.iter();
    if !first.is_empty()
        && let Some(word) = words.next()
    {
        part(word, skip, first);
    }
    let mut chunks = rest.chunks_exact_mut(WORD);
    for (to, word) in chunks.by_ref().zip(words.by_ref()) {
        to.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
    }
    let last = chunks.into_remainder();
    if !last.is_empty()
        && let Some(word) = words.next()
    {
        part(word, 0, last);
    }
}

fn write(segment: Segment<'_>, bytes: &[u8]) {
    let Segment { words, skip, len } = segment;
    let part = |word: &AtomicU64, to: usize, bytes: &[u8]| {
        let mut merged = word.load(Ordering::Relaxed).to_le_bytes();
        if let Some(place) = merged.get_mut(to..to + bytes.len()) {
            place.copy_from_slice(bytes);
        }
        word.store(u64::from_le_bytes(merged), Ordering::Relaxed);
    };
    let (first, rest) = bytes.split_at_checked(head(skip, len)).unwrap_or_default();
    let mut words = words.iter();
    if !first.is_empty()
        && let Some(word) = words.next()
    {
        part(word, skip, first);
    }
    let chunks = rest.chunks_exact(WORD);
    let last = chunks.remainder();
    for (from, word) in chunks.zip(words.by_ref()) {
        let whole = <[u8; WORD]>::try_from(from).unwrap_or_default();
        word.store(u64::from_le_bytes(whole), Ordering::Relaxed);
    }
    if !last.is_empty()
        && let Some(word) = words.next()
    {
        part(word, 0, last);
    }
}

/// Bytes that a ring's data can hold.
pub fn capacity(data: &[AtomicU64]) -> u64 {
    size_of::<u64>() as u64 * data.len() as u64
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ring(words: usize) -> Vec<AtomicU64> {
        (0..words).map(|_| AtomicU64::new(0x5a5a_5a5a_5a5a_5a5a)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 2 } else { 256 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]
        #[test]
        fn what_goes_in_comes_out_and_neighbours_stay(words in 1usize..9, at: u64, bytes: Vec<u8>) {
            let data = ring(words);
            let capacity = words * WORD;
            let bytes = &bytes[..bytes.len().min(capacity)];
            copy_in(&data, at, bytes);
            let mut back = vec![0; bytes.len()];
            copy_out(&data, at, &mut back);
            prop_assert_eq!(&back[..], bytes);

            // Model: byte i of the ring is at (at + i) mod capacity.
            let flat: Vec<u8> = data.iter().flat_map(|w| w.load(Ordering::Relaxed).to_le_bytes()).collect();
            let start = (at % capacity as u64) as usize;
            for (i, byte) in flat.iter().enumerate() {
                let distance = (i + capacity - start) % capacity;
                prop_assert_eq!(*byte, bytes.get(distance).copied().unwrap_or(0x5a));
            }
        }
    }

    #[test]
    fn an_empty_ring_and_a_copy_of_more_than_a_round_are_harmless() {
        copy_in(&[], 7, b"abc");
        copy_out(&[], 7, &mut [0; 3]);
        let data = ring(1);
        copy_in(&data, 3, b"0123456789");
        assert_eq!(&data[0].load(Ordering::Relaxed).to_le_bytes(), b"56701234");
    }
}
