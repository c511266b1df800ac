//! A link seen from both ends: as a model, against a peer that writes nonsense, and over restarts.
#![cfg(not(loom))]

use partita_ring::{AtomicU64, Duplex, Header, Mine, Yours};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;

struct Pages {
    headers: [Header; 2],
    data: [Vec<AtomicU64>; 2],
}

impl Pages {
    fn new(words: [usize; 2]) -> Self {
        let data = words.map(|n| (0..n).map(|_| AtomicU64::new(0)).collect());
        Pages { headers: [Header::new(), Header::new()], data }
    }

    fn end(&self, me: usize) -> Duplex<'_> {
        let you = 1 - me;
        let mine = Mine::new(&self.headers[me], &self.data[me]);
        Duplex::new(mine, Yours::new(&self.headers[you], &self.data[you]))
    }

    /// The header words of a side as its PD could write them: produced, space event, consumed, data event.
    fn words(&self, side: usize) -> [&AtomicU64; 4] {
        let words: &[AtomicU64; 16] =
            // SAFETY: a header is 16 words of atomics.
            unsafe { &*std::ptr::from_ref(&self.headers[side]).cast() };
        const { assert!(size_of::<Header>() == 128) };
        [&words[0], &words[1], &words[8], &words[9]]
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write(usize, Vec<u8>),
    WriteAll(usize, Vec<u8>),
    Read(usize, usize),
    Peek(usize, usize),
    Restart(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..50);
    prop_oneof![
        3 => (0..2usize, bytes()).prop_map(|(side, bytes)| Step::Write(side, bytes)),
        1 => (0..2usize, bytes()).prop_map(|(side, bytes)| Step::WriteAll(side, bytes)),
        3 => (0..2usize, 0..50usize).prop_map(|(side, len)| Step::Read(side, len)),
        1 => (0..2usize, 0..50usize).prop_map(|(side, len)| Step::Peek(side, len)),
        1 => (0..2usize).prop_map(Step::Restart),
    ]
}

// Miri takes seconds for what takes microseconds natively.
const CASES: u32 = if cfg!(miri) { 2 } else { 256 };
const STEPS: usize = if cfg!(miri) { 20 } else { 80 };

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    /// Two honest ends, of any capacity, restarted at any time: a queue of bytes each way.
    #[test]
    fn a_queue_each_way(words in [1usize..6, 1usize..6], steps in prop::collection::vec(step(), 1..STEPS)) {
        let pages = Pages::new(words);
        let capacity = words.map(|n| n * 8);
        let mut ends = [pages.end(0), pages.end(1)];
        let mut queues = [VecDeque::<u8>::new(), VecDeque::new()];
        for step in steps {
            match step {
                Step::Write(side, bytes) => {
                    let free = capacity[side] - queues[side].len();
                    prop_assert_eq!(ends[side].tx.free(), free);
                    let taken = ends[side].tx.write(&bytes);
                    prop_assert_eq!(taken, bytes.len().min(free));
                    queues[side].extend(&bytes[..taken]);
                }
                Step::WriteAll(side, bytes) => {
                    let fits = bytes.len() <= capacity[side] - queues[side].len();
                    prop_assert_eq!(ends[side].tx.write_all(&bytes), fits);
                    queues[side].extend(bytes.iter().filter(|_| fits));
                }
                Step::Read(side, len) => {
                    let queue = &mut queues[1 - side];
                    prop_assert_eq!(ends[side].rx.available(), queue.len());
                    let mut out = vec![0; len];
                    let read = ends[side].rx.read(&mut out);
                    prop_assert_eq!(read, len.min(queue.len()));
                    prop_assert_eq!(&out[..read], &queue.drain(..read).collect::<Vec<_>>()[..]);
                }
                Step::Peek(side, len) => {
                    let mut out = vec![0; len];
                    let seen = ends[side].rx.peek(&mut out);
                    prop_assert!(out[..seen].iter().eq(queues[1 - side].iter().take(len)));
                }
                Step::Restart(side) => ends[side] = pages.end(side),
            }
            prop_assert_eq!([0, 1].map(|n| ends[n].tx.faults() + ends[n].rx.faults()), [0, 0]);
        }
    }

    /// One wait, one signal: whoever waits is told when there is a reason, and not twice.
    #[test]
    fn a_wait_is_answered_once(
        words in 1usize..6,
        before in 0usize..48,
        want in 1usize..60,
        moves in prop::collection::vec(1usize..20, 1..12),
    ) {
        let pages = Pages::new([words; 2]);
        let [mut a, mut b] = [pages.end(0), pages.end(1)];
        let before = a.tx.write(&vec![1; before]);
        // The reader waits for data.
        let mut out = vec![0; before];
        b.rx.read(&mut out);
        a.tx.should_notify();
        prop_assert!(!b.rx.arm());
        let mut signals = 0;
        for len in &moves {
            let written = a.tx.write(&vec![2; *len]);
            let told = a.tx.should_notify();
            prop_assert!(signals == 1 || told == (written > 0));
            signals += u32::from(told);
        }
        prop_assert_eq!(signals, 1);

        // The writer waits for room.
        a.tx.write(&[3; 100]);
        b.rx.should_notify();
        let capacity = a.tx.capacity();
        let want = want.min(capacity);
        prop_assert!(!a.tx.arm(want));
        let mut signals = 0;
        for len in moves {
            let free = a.tx.free();
            b.rx.read(&mut vec![0; len]);
            let told = b.rx.should_notify();
            prop_assert_eq!(told, free < want && a.tx.free() >= want);
            signals += u32::from(told);
        }
        prop_assert!(signals <= 1);
        // Nobody waits any more.
        a.tx.disarm();
        b.rx.read(&mut [0; 100]);
        prop_assert!(!b.rx.should_notify());
    }

    /// Whatever a peer writes into its page at whatever moment, this end stays within its memory and its numbers, and
    /// understands the peer again once that one is attached anew.
    #[test]
    fn nonsense_stays_with_its_author(
        words in [1usize..6, 1usize..6],
        lies in prop::collection::vec((0usize..4, any::<u64>(), 0i64..100, prop::collection::vec(any::<u8>(), 0..50)), 1..STEPS / 2),
    ) {
        let pages = Pages::new(words);
        let mut me = pages.end(0);
        let peer = pages.words(1);
        for (word, value, near, bytes) in lies {
            // Half of the lies are close to the truth.
            let base = if value & 1 == 0 { value } else { peer[word].load(Ordering::Relaxed) };
            peer[word].store(base.wrapping_add_signed(near - 50), Ordering::Relaxed);
            prop_assert!(me.tx.write(&bytes) <= words[0] * 8);
            prop_assert!(me.tx.free() <= words[0] * 8);
            let mut out = vec![0; 100];
            prop_assert!(me.rx.peek(&mut out) <= words[1] * 8);
            prop_assert!(me.rx.read(&mut out) <= words[1] * 8);
            me.rx.consume(usize::MAX);
            prop_assert_eq!(me.rx.available(), 0);
            let _ = (me.tx.should_notify(), me.rx.should_notify(), me.tx.arm(bytes.len()), me.rx.arm());
        }
        // The author is restarted; so is, later, this end, with what is now in the pages.
        let mut peer = pages.end(1);
        for _ in 0..2 {
            peer.rx.consume(usize::MAX);
            prop_assert!(me.tx.write_all(b"to you"));
            let mut out = [0; 6];
            prop_assert_eq!(peer.rx.read(&mut out), 6);
            prop_assert_eq!(&out, b"to you");
            me.rx.consume(usize::MAX);
            prop_assert!(peer.tx.write_all(b"to me"));
            prop_assert_eq!(me.rx.read(&mut out), 5);
            prop_assert_eq!(&out[..5], b"to me");
            me = pages.end(0);
        }
    }
}

#[test]
fn indices_pass_the_end_of_their_range() {
    let pages = Pages::new([3, 3]);
    // Both ends agree that 2^64 - 5 bytes have gone by.
    let start = u64::MAX - 4;
    for side in 0..2 {
        let [produced, _, consumed, _] = pages.words(side);
        produced.store(start, Ordering::Relaxed);
        consumed.store(start, Ordering::Relaxed);
    }
    let [mut a, mut b] = [pages.end(0), pages.end(1)];
    assert!(!b.rx.arm());
    // 2^64 is no multiple of 24: what lies across the end is garbled, but counted right, and what follows is fine.
    assert_eq!(a.tx.write(&[7; 24]), 24);
    assert!(a.tx.should_notify());
    assert_eq!(b.rx.read(&mut [0; 100]), 24);
    assert!(a.tx.write_all(b"after"));
    let mut out = [0; 5];
    assert_eq!(b.rx.read(&mut out), 5);
    assert_eq!(&out, b"after");
    assert_eq!(a.tx.faults() + b.rx.faults(), 0);
}

#[test]
fn a_life_that_ended_before_it_told_is_made_up_for() {
    let pages = Pages::new([8, 8]);
    let mut b = pages.end(1);
    assert!(!b.rx.arm());
    {
        let mut first = pages.end(0);
        assert!(first.tx.write_all(b"said, not told"));
    }
    let mut second = pages.end(0);
    assert!(second.tx.should_notify());
    assert!(!second.tx.should_notify());

    // The other way round: the reader made room, and died.
    second.tx.write(&[0; 100]);
    assert!(!second.tx.arm(1));
    b.rx.read(&mut [0; 30]);
    let mut b = pages.end(1);
    assert!(b.rx.should_notify());
    assert!(!b.rx.should_notify());
}

#[test]
fn a_link_without_data_pages_is_always_full_and_always_empty() {
    let pages = Pages::new([0, 0]);
    let mut end = pages.end(0);
    assert_eq!((end.tx.write(b"x"), end.tx.free(), end.rx.read(&mut [0; 4])), (0, 0, 0));
    assert!(!end.tx.arm(1) && !end.rx.arm());
}
