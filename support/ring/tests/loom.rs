//! Every interleaving that the memory model allows, of two ends that run at the same time.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p partita-ring --release --test loom`
#![cfg(loom)]

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use partita_ring::{AtomicU64, Duplex, Header, Mine, Yours, seqlock};

struct Pages {
    headers: [Header; 2],
    data: [Vec<AtomicU64>; 2],
}

impl Pages {
    fn new() -> Arc<Self> {
        let data = || vec![AtomicU64::new(0)];
        Arc::new(Pages { headers: [Header::new(), Header::new()], data: [data(), data()] })
    }

    fn end(&self, me: usize) -> Duplex<'_> {
        let you = 1 - me;
        let mine = Mine::new(&self.headers[me], &self.data[me]);
        Duplex::new(mine, Yours::new(&self.headers[you], &self.data[you]))
    }
}

/// Bytes arrive in order and whole, also over the end of the ring, whatever the reader sees of the writer's progress.
#[test]
fn bytes_arrive_in_order() {
    loom::model(|| {
        let pages = Pages::new();
        let writer = {
            let pages = pages.clone();
            thread::spawn(move || {
                let mut end = pages.end(0);
                let first = end.tx.write(&[1, 2, 3, 4, 5, 6]);
                first + end.tx.write(&[7, 8, 9, 10])
            })
        };
        let mut end = pages.end(1);
        let mut got: Vec<u8> = Vec::new();
        for _ in 0..2 {
            let mut out = [0; 8];
            let len = end.rx.read(&mut out);
            got.extend(&out[..len]);
        }
        let sent = writer.join().unwrap();
        let mut out = [0; 8];
        let len = end.rx.read(&mut out);
        got.extend(&out[..len]);
        assert_eq!(got.len(), sent);
        assert!(got.iter().copied().eq((1..=10).take(sent)), "{got:?}");
    });
}

/// A reader that sleeps after `arm` is woken: either it saw the bytes, or the writer saw that it waits.
#[test]
fn no_wake_up_for_data_is_lost() {
    loom::model(|| {
        let (pages, signal) = (Pages::new(), Arc::new(AtomicBool::new(false)));
        let writer = {
            let (pages, signal) = (pages.clone(), signal.clone());
            thread::spawn(move || {
                let mut end = pages.end(0);
                for byte in [1, 2] {
                    end.tx.write(&[byte]);
                    if end.tx.should_notify() {
                        signal.store(true, Ordering::SeqCst);
                    }
                }
            })
        };
        let mut end = pages.end(1);
        let mut out = [0; 8];
        let got = end.rx.read(&mut out);
        let sleeps = !end.rx.arm();
        writer.join().unwrap();
        if sleeps && got < 2 {
            assert!(signal.load(Ordering::SeqCst), "asleep with {} of 2 bytes", got);
        }
    });
}

/// The same for a writer that waits for room.
#[test]
fn no_wake_up_for_room_is_lost() {
    loom::model(|| {
        let (pages, signal) = (Pages::new(), Arc::new(AtomicBool::new(false)));
        assert_eq!(pages.end(0).tx.write(&[0; 8]), 8);
        let reader = {
            let (pages, signal) = (pages.clone(), signal.clone());
            thread::spawn(move || {
                let mut end = pages.end(1);
                for _ in 0..2 {
                    end.rx.read(&mut [0; 2]);
                    if end.rx.should_notify() {
                        signal.store(true, Ordering::SeqCst);
                    }
                }
            })
        };
        let mut end = pages.end(0);
        let sleeps = !end.tx.arm(3);
        reader.join().unwrap();
        if sleeps {
            assert!(signal.load(Ordering::SeqCst), "asleep with {} free", end.tx.free());
        }
    });
}

/// A reader of a seqlock page gets one value or none, never a mix, and never an older one than before.
#[test]
fn a_seqlock_page_holds_one_value() {
    loom::model(|| {
        let page = Arc::new((AtomicU64::new(0), [AtomicU64::new(0), AtomicU64::new(0)]));
        let writer = {
            let page = page.clone();
            thread::spawn(move || {
                let mut writer = seqlock::Writer::<[u64; 2]>::new(&page.0, &page.1);
                writer.publish(&[1, 1]);
                writer.publish(&[2, 2]);
            })
        };
        let reader = seqlock::Reader::<[u64; 2]>::new(&page.0, &page.1);
        let mut last = 0;
        for _ in 0..2 {
            if let Some([a, b]) = reader.try_read() {
                assert_eq!(a, b);
                assert!(a >= last);
                last = a;
            }
        }
        writer.join().unwrap();
        assert_eq!(reader.read(), Some([2, 2]));
    });
}
