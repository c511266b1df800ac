//! Interleavings that the memory model allows, of two ends that run at the same time.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p partita-link-pipe --release --lib loom`
//!
//! The ring's own models are in `partita-ring`; here it is about sessions: that two ends which come at the same time find
//! each other, and that an end which is restarted is never taken for its earlier life.

use std::boxed::Box;
use std::vec::Vec;

use ::loom::sync::Arc;
use ::loom::sync::atomic::{AtomicBool, Ordering};
use ::loom::thread;
use partita_ring::{AtomicU64, Header, Mine, Yours};

use crate::{End, Error, Sections, Session, Wait};

/// All interleavings with up to two preemptions: without a bound there are too many to finish.
fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = ::loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(f);
}

/// The sections of both ends, with one word of data each; leaked, a few bytes for each interleaving.
fn sections() -> [Sections<'static>; 2] {
    let side = || {
        let data = Vec::leak((0..1).map(|_| AtomicU64::new(0)).collect());
        let (session, header): (&Session, &Header) = (Box::leak(Box::default()), Box::leak(Box::default()));
        (session, header, &*data)
    };
    let (a, b) = (side(), side());
    [(a, b), (b, a)].map(|(mine, yours)| {
        Sections::new((mine.0, Mine::new(mine.1, mine.2)), (yours.0, Yours::new(yours.1, yours.2)))
    })
}

/// Two ends that open at the same time: whoever would wait for the other's doorbell gets one.
#[test]
fn ends_find_each_other() {
    model(|| {
        let [a, b] = sections();
        let rung = Arc::new(AtomicBool::new(false));
        let other = {
            let rung = rung.clone();
            thread::spawn(move || {
                let mut end = End::open(b, 1, 0).unwrap();
                let _ = end.connect();
                if end.take_bell() {
                    rung.store(true, Ordering::SeqCst);
                }
                end
            })
        };
        let mut end = End::open(a, 0, 1).unwrap();
        let ready = end.connect().is_ok() || end.arm(Wait::Connected);
        let mut other = other.join().unwrap();
        assert!(ready || rung.load(Ordering::SeqCst));
        // Each takes its turn, as the doorbells tell them to.
        let _ = (other.connect(), end.connect(), other.connect());
        assert_eq!((end.connect(), other.connect()), (Ok(()), Ok(())));
    });
}

/// One end crashes and comes back while the other reads and writes: nothing of the old stream is read in the new one, and
/// no index of the new one in the old.
#[test]
fn a_new_life_is_not_the_old_one() {
    model(|| {
        let [a, b] = sections();
        let mut old = End::open(b, 1, 0).unwrap();
        let mut end = End::open(a, 0, 1).unwrap();
        assert!(old.connect().is_ok() && end.connect().is_ok());
        assert_eq!(old.write(&[1, 1]), Ok(2));
        let other = thread::spawn(move || {
            let mut new = End::open(b, 1, 0).unwrap();
            // Not connected before the other comes back, which it does not here.
            assert_eq!(new.write(&[2]), Err(Error::WouldBlock));
            assert_eq!(new.read(&mut [0; 4]), Err(Error::WouldBlock));
        });
        let mut out = [0; 4];
        match end.read(&mut out) {
            Ok(count) => assert_eq!(&out[..count], [1, 1]),
            Err(error) => assert_eq!(error, Error::Reset),
        }
        match end.write(&[3; 8]) {
            Ok(count) => assert_eq!(count, 8),
            Err(error) => assert_eq!(error, Error::Reset),
        }
        other.join().unwrap();
        assert_eq!(end.read(&mut out), Err(Error::Reset));
    });
}
