//! A page that holds one value, written by one PD and read by any number.
//!
//! The writer never waits. A reader takes a copy and knows whether it is one value or a mix of two: the sequence number is
//! odd while the value changes, and differs before and after if it changed meanwhile (Boehm, "Can seqlocks get along with
//! programming language memory models?", MSPC 2012). A reader tries a bounded number of times, as the writer may have died
//! halfway or may write without pause on purpose; what it read is still data from outside, to be checked.

use crate::sync::{AtomicU64, Ordering, fence};
use core::marker::PhantomData;
#[cfg(not(loom))]
use core::ptr::NonNull;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// What a reader does at most before it gives up: more than one writer's step can disturb only on purpose.
const TRIES: usize = 8;

/// The sequence number and the words of a page.
#[derive(Clone, Copy)]
struct Page<'a> {
    sequence: &'a AtomicU64,
    words: &'a [AtomicU64],
}

impl<'a> Page<'a> {
    /// # Safety
    /// As [`Writer::at`], but that reading is enough.
    #[cfg(not(loom))]
    unsafe fn at<T>(page: NonNull<u8>) -> Self {
        let words = page.cast::<AtomicU64>();
        // SAFETY: the caller promises an aligned, mapped page that holds the sequence number and a `T`; atomics may change
        // under our hands and every bit pattern is valid for them.
        unsafe {
            Page {
                sequence: words.as_ref(),
                words: core::slice::from_raw_parts(words.as_ptr().add(1), words_of::<T>()),
            }
        }
    }
}

/// Words that a `T` takes.
pub const fn words_of<T>() -> usize {
    size_of::<T>().div_ceil(size_of::<u64>())
}

/// Bytes that a page with a `T` takes.
pub const fn bytes_of<T>() -> usize {
    (1 + words_of::<T>()) * size_of::<u64>()
}

/// The writing end.
pub struct Writer<'a, T> {
    page: Page<'a>,
    sequence: u64,
    _value: PhantomData<fn(T)>,
}

impl<'a, T: IntoBytes + Immutable> Writer<'a, T> {
    /// From parts; `words` has [`words_of::<T>()`](words_of) elements.
    pub fn new(sequence: &'a AtomicU64, words: &'a [AtomicU64]) -> Self {
        // An earlier life may have died halfway (odd): the next publication steps over it to the next even number.
        let seen = sequence.load(Ordering::Relaxed);
        Writer { page: Page { sequence, words }, sequence: seen.wrapping_add(seen & 1), _value: PhantomData }
    }

    /// The page at `page`.
    ///
    /// # Safety
    /// [`bytes_of::<T>()`](bytes_of) bytes at `page` are aligned to 8, mapped readable and writable for `'a`, and written
    /// by nothing else than this writer.
    #[cfg(not(loom))]
    pub unsafe fn at(page: NonNull<u8>) -> Self {
        // SAFETY: the same promise.
        let Page { sequence, words } = unsafe { Page::at::<T>(page) };
        Writer::new(sequence, words)
    }

    /// Replaces the value.
    pub fn publish(&mut self, value: &T) {
        let Page { sequence, words } = self.page;
        sequence.store(self.sequence.wrapping_add(1), Ordering::Relaxed);
        // Orders the odd number before the words: a reader that sees one of them sees the odd number at its second look.
        fence(Ordering::Release);
        for (word, bytes) in words.iter().zip(value.as_bytes().chunks(size_of::<u64>())) {
            let mut padded = [0; size_of::<u64>()];
            for (to, from) in padded.iter_mut().zip(bytes) {
                *to = *from;
            }
            word.store(u64::from_le_bytes(padded), Ordering::Relaxed);
        }
        self.sequence = self.sequence.wrapping_add(2);
        sequence.store(self.sequence, Ordering::Release);
    }
}

/// A reading end.
pub struct Reader<'a, T> {
    page: Page<'a>,
    _value: PhantomData<fn() -> T>,
}

impl<'a, T: FromBytes + IntoBytes> Reader<'a, T> {
    /// From parts; see [`Writer::new`].
    pub fn new(sequence: &'a AtomicU64, words: &'a [AtomicU64]) -> Self {
        Reader { page: Page { sequence, words }, _value: PhantomData }
    }

    /// The page at `page`.
    ///
    /// # Safety
    /// [`bytes_of::<T>()`](bytes_of) bytes at `page` are aligned to 8 and mapped readable for `'a`.
    #[cfg(not(loom))]
    pub unsafe fn at(page: NonNull<u8>) -> Self {
        // SAFETY: the same promise.
        Reader { page: unsafe { Page::at::<T>(page) }, _value: PhantomData }
    }

    /// A copy of the value (zeroes before the first publication). `None` if it kept changing, or if the writer died halfway.
    pub fn read(&self) -> Option<T> {
        (0..TRIES).find_map(|_| self.try_read())
    }

    /// [`Reader::read`] with one try.
    pub fn try_read(&self) -> Option<T> {
        let Page { sequence, words } = self.page;
        let before = sequence.load(Ordering::Acquire);
        if before & 1 != 0 {
            return None;
        }
        let mut value = T::new_zeroed();
        for (word, bytes) in words.iter().zip(value.as_mut_bytes().chunks_mut(size_of::<u64>())) {
            for (to, from) in bytes.iter_mut().zip(word.load(Ordering::Relaxed).to_le_bytes()) {
                *to = from;
            }
        }
        // Pairs with the writer's release fence.
        fence(Ordering::Acquire);
        (sequence.load(Ordering::Relaxed) == before).then_some(value)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    type Value = [u8; 20];

    fn page() -> (AtomicU64, Vec<AtomicU64>) {
        (AtomicU64::new(0), (0..words_of::<Value>()).map(|_| AtomicU64::new(0)).collect())
    }

    #[test]
    fn a_reader_gets_zeroes_then_the_last_value() {
        let (sequence, words) = page();
        let mut writer = Writer::<Value>::new(&sequence, &words);
        let reader = Reader::<Value>::new(&sequence, &words);
        assert_eq!(reader.read(), Some([0; 20]));
        for i in 1..5 {
            writer.publish(&[i; 20]);
            assert_eq!(reader.read(), Some([i; 20]));
        }
        assert_eq!(words.len(), 3);
        assert_eq!(bytes_of::<Value>(), 32);
    }

    #[test]
    fn a_writer_that_died_halfway_is_noticed_and_its_next_life_repairs_the_page() {
        let (sequence, words) = page();
        Writer::<Value>::new(&sequence, &words).publish(&[1; 20]);
        sequence.store(3, Ordering::Relaxed);
        let reader = Reader::<Value>::new(&sequence, &words);
        assert_eq!(reader.read(), None);
        let mut writer = Writer::<Value>::new(&sequence, &words);
        assert_eq!(reader.read(), None);
        writer.publish(&[2; 20]);
        assert_eq!(reader.read(), Some([2; 20]));
        assert_eq!(sequence.load(Ordering::Relaxed), 6);
    }

    #[test]
    fn a_page_in_memory() {
        let mut memory = [0u64; bytes_of::<Value>() / 8];
        let at = NonNull::from(&mut memory).cast();
        // SAFETY: `memory` is aligned, big enough and used through these two only.
        let (mut writer, reader) = unsafe { (Writer::<Value>::at(at), Reader::<Value>::at(at)) };
        writer.publish(&[9; 20]);
        assert_eq!(reader.read(), Some([9; 20]));
    }
}
