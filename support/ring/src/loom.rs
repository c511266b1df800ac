//! Every interleaving that the memory model allows, of two ends that run at the same time.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p partita-ring --release --lib loom`
//!
//! Checked by taking away each ordering in turn: every fence and the release of `produced` is missed by a test here. Not
//! shown: that `consumed` needs its release, as loom runs loads in program order and so never lets a store overtake one.

use crate::{AtomicU64, Duplex, Header, Mine, Yours, seqlock};
use ::loom::sync::Arc;
use ::loom::sync::atomic::{AtomicBool, Ordering};
use ::loom::thread;

/// Both ends of a link with `words` words each way.
///
/// Made before the threads: of the accesses to an atomic, loom's partial-order reduction compares a new one with the last one
/// only, so a thread that reads a word of its own before it writes it (as attaching does) hides what the other thread did
/// in between, and most interleavings are never tried. The pages are leaked, a few bytes for each interleaving.
fn link(words: usize) -> [Duplex<'static>; 2] {
    let side = || {
        let data = (0..words).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
        let (header, data): (&Header, &[AtomicU64]) = (Box::leak(Box::new(Header::new())), data.leak());
        (header, data)
    };
    let (a, b) = (side(), side());
    [(a, b), (b, a)].map(|(mine, yours)| Duplex::new(Mine::new(mine.0, mine.1), Yours::new(yours.0, yours.1)))
}

/// Bytes arrive in order and whole, also over the end of the ring, whatever the reader sees of the writer's progress.
#[test]
fn bytes_arrive_in_order() {
    ::loom::model(|| {
        let [mut writer, mut end] = link(1);
        let writer = thread::spawn(move || {
            // The first fills the ring, the second fits only after a read.
            let first = writer.tx.write(&[1, 2, 3, 4, 5, 6, 7, 8]);
            first + writer.tx.write(&[9, 10])
        });
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
    ::loom::model(|| {
        let ([mut writer, mut end], signal) = (link(2), Arc::new(AtomicBool::new(false)));
        // A fresh link counts as armed. This one has been used and is not.
        writer.tx.write(&[0; 8]);
        assert!(writer.tx.should_notify());
        assert_eq!(end.rx.read(&mut [0; 16]), 8);
        let writer = {
            let signal = signal.clone();
            thread::spawn(move || {
                writer.tx.write(&[1; 8]);
                if writer.tx.should_notify() {
                    signal.store(true, Ordering::SeqCst);
                }
            })
        };
        let sleeps = !end.rx.arm();
        writer.join().unwrap();
        if sleeps {
            assert!(signal.load(Ordering::SeqCst), "asleep with {} bytes to read", end.rx.available());
        }
    });
}

/// The same for a writer that waits for room.
#[test]
fn no_wake_up_for_room_is_lost() {
    ::loom::model(|| {
        let ([mut end, mut reader], signal) = (link(1), Arc::new(AtomicBool::new(false)));
        assert_eq!(end.tx.write(&[0; 8]), 8);
        let reader = {
            let signal = signal.clone();
            thread::spawn(move || {
                for _ in 0..2 {
                    reader.rx.read(&mut [0; 2]);
                    if reader.rx.should_notify() {
                        signal.store(true, Ordering::SeqCst);
                    }
                }
            })
        };
        let sleeps = !end.tx.arm(3);
        reader.join().unwrap();
        if sleeps {
            assert!(signal.load(Ordering::SeqCst), "asleep with {} free", end.tx.free());
        }
    });
}

/// A reader of a seqlock page gets one value or none, never a mix.
#[test]
fn a_seqlock_page_holds_one_value() {
    ::loom::model(|| {
        let page: &(AtomicU64, [AtomicU64; 2]) =
            Box::leak(Box::new((AtomicU64::new(0), [AtomicU64::new(0), AtomicU64::new(0)])));
        let mut writer = seqlock::Writer::<[u64; 2]>::new(&page.0, &page.1);
        let writer = thread::spawn(move || {
            writer.publish(&[1, 1]);
            writer.publish(&[2, 2]);
        });
        let reader = seqlock::Reader::<[u64; 2]>::new(&page.0, &page.1);
        if let Some([a, b]) = reader.try_read() {
            assert_eq!(a, b);
        }
        writer.join().unwrap();
        assert_eq!(reader.read(), Some([2, 2]));
    });
}
