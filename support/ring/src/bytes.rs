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
    walk(data, at, out.len(), |word, from, range| {
        let bytes = word.load(Ordering::Relaxed).to_le_bytes();
        if let (Some(to), Some(from)) = (out.get_mut(range.clone()), bytes.get(from..from + range.len())) {
            to.copy_from_slice(from);
        }
    });
}

/// Copies `bytes` to where `at` points in `data`, with wrap-around. Only the ring's writer may call this.
pub fn copy_in(data: &[AtomicU64], at: u64, bytes: &[u8]) {
    walk(data, at, bytes.len(), |word, to, range| {
        let Some(bytes) = bytes.get(range) else { return };
        let value = match <[u8; WORD]>::try_from(bytes) {
            Ok(whole) => whole,
            Err(_) => {
                let mut merged = word.load(Ordering::Relaxed).to_le_bytes();
                if let Some(part) = merged.get_mut(to..to + bytes.len()) {
                    part.copy_from_slice(bytes);
                }
                merged
            }
        };
        word.store(u64::from_le_bytes(value), Ordering::Relaxed);
    });
}

/// Calls `f(word, offset in the word, range of the private bytes)` for each word that a copy of `len` bytes touches.
fn walk(
    data: &[AtomicU64],
    at: u64,
    len: usize,
    mut f: impl FnMut(&AtomicU64, usize, core::ops::Range<usize>),
) {
    let capacity = capacity(data);
    let Some(start) = at.checked_rem(capacity) else { return };
    let (len, start) = (len.min(capacity as usize), start as usize);
    let (skip, mut within, mut done) = (start / WORD, start % WORD, 0);
    let (first, second) = data.split_at_checked(skip).unwrap_or((data, &[]));
    // At most one round: the word that the copy starts in may be the one that it ends in.
    for word in second.iter().chain(first).chain(second.first()) {
        if done >= len {
            break;
        }
        let take = (WORD - within).min(len - done);
        f(word, within, done..done + take);
        done += take;
        within = 0;
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
