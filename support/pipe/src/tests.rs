use std::sync::atomic::{AtomicUsize, Ordering};
use std::vec::Vec;

use partita_ring::{AtomicU64, Header, Mine, Yours};
use proptest::prelude::*;

use super::*;

/// A peer's output section.
struct Section {
    session: Session,
    header: Header,
    data: Vec<AtomicU64>,
}

fn sections<const N: usize>(words: usize) -> [Section; N] {
    let data = || (0..words).map(|_| AtomicU64::new(0)).collect();
    core::array::from_fn(|_| Section { session: Session::new(), header: Header::new(), data: data() })
}

fn pair(all: &[Section], me: usize, partner: usize) -> Sections<'_> {
    let (mine, yours) = (&all[me], &all[partner]);
    Sections::new(
        (&mine.session, Mine::new(&mine.header, &mine.data)),
        (&yours.session, Yours::new(&yours.header, &yours.data)),
    )
}

fn open(all: &[Section], me: usize, partner: usize) -> Result<End<'_>, Error> {
    End::open(pair(all, me, partner), me as u32, partner as u32)
}

fn blocking<B: Bell>(all: &[Section], me: usize, bell: B) -> Pipe<'_, B> {
    Pipe::open(pair(all, me, 1 - me), me as u32, 1 - me as u32, bell).unwrap()
}

fn connected(all: &[Section]) -> (End<'_>, End<'_>) {
    let (mut a, mut b) = (open(all, 0, 1).unwrap(), open(all, 1, 0).unwrap());
    assert_eq!((a.connect(), b.connect()), (Ok(()), Ok(())));
    (a, b)
}

#[test]
fn bytes_arrive_and_the_end_of_the_stream_after_them() {
    let all = sections::<2>(4);
    let (mut a, mut b) = connected(&all);
    let mut out = [0; 40];
    assert_eq!(b.read(&mut out), Err(Error::WouldBlock));
    assert_eq!(a.write_vectored(&[b"some", b"", b" bytes"]), Ok(10));
    let (one, two) = out.split_at_mut(3);
    assert_eq!(b.read_vectored(&mut [one, two]), Ok(10));
    assert_eq!(&out[..10], b"some bytes");
    assert_eq!(a.write(&[7; 40]), Ok(32));
    assert_eq!(a.write(&[7; 40]), Err(Error::WouldBlock));
    assert_eq!(a.poll(), Ready { read: false, write: false, hang_up: false });
    a.finish();
    assert_eq!(a.write(b"more"), Err(Error::Closed));
    assert_eq!(b.read(&mut out), Ok(32));
    assert_eq!(b.read(&mut out), Ok(0));
    assert_eq!(b.poll(), Ready { read: true, write: true, hang_up: false });
    // The other direction goes on.
    assert_eq!(b.write(b"back"), Ok(4));
    assert_eq!(a.read(&mut out), Ok(4));
    b.close();
    assert!(a.is_closed() && a.poll().hang_up);
    assert_eq!(a.read(&mut out), Ok(0));
    assert_eq!((b.read(&mut []), b.write(&[])), (Ok(0), Err(Error::Closed)));
}

#[test]
fn nothing_goes_before_both_have_met() {
    let all = sections::<2>(4);
    let mut a = open(&all, 0, 1).unwrap();
    assert!(a.take_bell(), "the other may wait for it");
    assert_eq!((a.connect(), a.write(b"x")), (Err(Error::WouldBlock), Err(Error::WouldBlock)));
    assert!(!a.arm(Wait::Connected));
    let mut b = open(&all, 1, 0).unwrap();
    assert!(b.take_bell());
    // b has met a, a has not answered yet.
    assert_eq!(b.connect(), Err(Error::WouldBlock));
    assert!(!b.arm(Wait::Read));
    assert_eq!((a.connect(), a.take_bell()), (Ok(()), true));
    assert!(b.arm(Wait::Read), "connected: try again");
    assert_eq!(b.connect(), Ok(()));
    assert!(!b.take_bell());
}

#[test]
fn a_third_end_is_busy() {
    let all = sections::<3>(4);
    let (_a, b) = connected(&all);
    assert_eq!(open(&all, 2, 0).err(), Some(Error::Busy));
    assert_eq!(open(&all, 2, 1).err(), Some(Error::Busy));
    // As long as a waits for b, too.
    let mut b = b;
    b.close();
    let a = open(&all, 0, 1);
    assert_eq!(open(&all, 2, 0).err(), Some(Error::Busy));
    a.unwrap().close();
    let mut c = open(&all, 2, 0).unwrap();
    assert_eq!(c.connect(), Err(Error::WouldBlock));
    // Whoever comes with other wishes meanwhile.
    let mut a = open(&all, 0, 1).unwrap();
    assert_eq!((c.connect(), a.connect()), (Err(Error::Busy), Err(Error::WouldBlock)));
    assert!(c.arm(Wait::Connected), "no use waiting");
}

#[test]
fn a_restarted_peer_breaks_the_stream_off_and_rejoins() {
    let all = sections::<2>(4);
    let (mut a, mut b) = connected(&all);
    assert_eq!(a.write(b"old bytes"), Ok(9));
    assert_eq!(b.read(&mut [0; 4]), Ok(4));
    // A crash of b: nothing is said.
    let mut b = open(&all, 1, 0).unwrap();
    assert!(b.take_bell());
    assert_eq!(b.read(&mut [0; 4]), Err(Error::WouldBlock), "nothing of the old stream");
    assert!(a.arm(Wait::Read));
    assert_eq!(a.read(&mut [0; 4]), Err(Error::Reset));
    assert_eq!((a.write(b"x"), a.connect()), (Err(Error::Reset), Err(Error::Reset)));
    assert_eq!(a.poll(), Ready { read: true, write: true, hang_up: true });
    let mut a = open(&all, 0, 1).unwrap();
    let _ = a.connect();
    assert_eq!(b.connect(), Ok(()));
    assert_eq!(a.write(b"new"), Ok(3));
    let mut out = [0; 9];
    assert_eq!(b.read(&mut out), Ok(3));
    assert_eq!(&out[..3], b"new");
    a.peer_is_down();
    assert_eq!(a.read(&mut out), Err(Error::Reset));
}

#[test]
fn a_life_is_never_taken_for_an_earlier_one() {
    let all = sections::<2>(4);
    let (a, b) = connected(&all);
    let (old_a, old_b) = (a.life(), b.life());
    // b's guest has scribbled over its section: it does not know its last life, but a's section does.
    let mut all = all;
    all[1].session = Session::new();
    let mut b = open(&all, 1, 0).unwrap();
    assert_ne!(b.life(), old_b);
    assert_eq!(b.connect(), Err(Error::WouldBlock), "a is still in its old life, {old_a}");
}

#[test]
fn doorbells_ring_only_for_who_waits() {
    let all = sections::<2>(8);
    let (mut a, mut b) = connected(&all);
    let _ = (a.take_bell(), b.take_bell());
    // A fresh stream counts as waited for; later b reads without waiting.
    assert_eq!((a.write(&[1; 8]), a.take_bell()), (Ok(8), true));
    for _ in 0..10 {
        assert_eq!(b.read(&mut [0; 8]), Ok(8));
        assert_eq!((a.write(&[1; 8]), a.take_bell()), (Ok(8), false));
    }
    assert_eq!(b.read(&mut [0; 8]), Ok(8));
    assert!(!b.arm(Wait::Read));
    assert_eq!((a.write(&[1; 64]), a.take_bell()), (Ok(64), true));
    // a waits for room: told once there is as much as it asked for, and at half at the latest.
    assert!(!a.arm(Wait::Write(16)));
    assert_eq!((b.read(&mut [0; 15]), b.take_bell()), (Ok(15), false));
    assert_eq!((b.read(&mut [0; 1]), b.take_bell()), (Ok(1), true));
    assert_eq!(a.write(&[1; 16]), Ok(16));
    assert!(!a.arm(Wait::Write(1000)));
    assert_eq!((b.read(&mut [0; 31]), b.take_bell()), (Ok(31), false));
    assert_eq!((b.read(&mut [0; 1]), b.take_bell()), (Ok(1), true));
}

#[test]
fn a_lying_peer_gets_an_error() {
    for (word, value) in [(0, 65u64), (0, u64::MAX), (8, 1), (8, u64::MAX / 2)] {
        let all = sections::<2>(8);
        let (mut a, _) = connected(&all);
        // b's produced is the ring header's first word, consumed its ninth.
        let header = core::ptr::from_ref(&all[1].header).cast::<AtomicU64>();
        // SAFETY: a header is 16 words, all of them atomics, and `all` outlives the borrow.
        unsafe { &*header.add(word) }.store(value, Ordering::Relaxed);
        let answers = (a.read(&mut [0; 100]), a.write(&[0; 100]));
        assert!(
            answers.0 == Err(Error::Broken) || answers.1 == Err(Error::Broken),
            "{word} {value}: {answers:?}"
        );
        assert_eq!(a.connect(), Err(Error::Broken));
    }
}

/// Rings by counting; never waits, as both ends take turns.
struct Count<'a>(&'a AtomicUsize);

impl Bell for Count<'_> {
    fn ring(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn wait(&mut self) -> Result<(), Error> {
        Err(Error::WouldBlock)
    }
}

/// Rings another thread.
struct Park(std::sync::Arc<(std::sync::Mutex<[bool; 2]>, std::sync::Condvar)>, usize);

impl Bell for Park {
    fn ring(&mut self) {
        self.0.0.lock().unwrap()[1 - self.1] = true;
        self.0.1.notify_all();
    }
    fn wait(&mut self) -> Result<(), Error> {
        let mut rung = self.0.0.lock().unwrap();
        while !core::mem::take(&mut rung[self.1]) {
            rung = self.0.1.wait(rung).unwrap();
        }
        Ok(())
    }
}

#[test]
fn two_threads_exchange_a_stream_and_nobody_oversleeps() {
    let bytes: usize = if cfg!(miri) { 300 } else { 1 << 20 };
    let all = &sections::<2>(16);
    let shared = std::sync::Arc::new(Default::default());
    std::thread::scope(|scope| {
        for me in 0..2 {
            let bell = Park(std::sync::Arc::clone(&shared), me);
            scope.spawn(move || {
                let mut pipe = blocking(all, me, bell);
                pipe.connect().unwrap();
                let data: Vec<u8> = (0..bytes).map(|n| (n * 7 / 3) as u8).collect();
                if me == 0 {
                    pipe.write_all(&data).unwrap();
                    pipe.finish();
                    let mut answer = [0; 8];
                    assert_eq!(pipe.read_full(&mut answer), Ok(8));
                    assert_eq!(u64::from_le_bytes(answer), bytes as u64);
                } else {
                    let mut got = std::vec![0; bytes + 1];
                    assert_eq!(pipe.read_full(&mut got), Ok(bytes));
                    assert_eq!(got[..bytes], data);
                    pipe.write_all(&(bytes as u64).to_le_bytes()).unwrap();
                }
                pipe.close();
            });
        }
    });
}

#[test]
fn a_bell_that_does_not_ring_is_no_hang() {
    let all = sections::<2>(4);
    let rung = AtomicUsize::new(0);
    let mut pipe = blocking(&all, 0, Count(&rung));
    let mut other = open(&all, 1, 0).unwrap();
    assert_eq!((pipe.now(End::connect), other.connect()), (Ok(()), Ok(())));
    assert_eq!(pipe.read(&mut [0; 4]), Err(Error::WouldBlock));
    assert_eq!(pipe.write_all(&[0; 100]), Err(Error::WouldBlock));
    assert!(rung.load(Ordering::Relaxed) >= 1);
}

/// Tells the other guest's life; each wait ends with the next of these.
struct Lives(Vec<u32>);

impl Bell for Lives {
    fn ring(&mut self) {}
    fn wait(&mut self) -> Result<(), Error> {
        assert!(self.0.len() > 1, "nothing will ring");
        self.0.remove(0);
        Ok(())
    }
    fn peer_life(&mut self) -> u32 {
        self.0[0]
    }
}

/// The other end's guest stops, with nobody there to say so.
#[test]
fn a_peer_that_is_stopped_ends_what_waits_for_it() {
    // Stopped; stopped and started again before anybody looked; both after a doorbell for nothing.
    for lives in [&[3, 4][..], &[3, 5], &[3, 3, 4], &[1, 3]] {
        for write in [false, true] {
            let all = sections::<2>(4);
            let mut pipe = blocking(&all, 0, Lives(lives.to_vec()));
            let mut other = open(&all, 1, 0).unwrap();
            assert_eq!((pipe.connect(), other.connect()), (Ok(()), Ok(())));
            let result = if write { pipe.write_all(&[0; 100]) } else { pipe.read(&mut [0; 4]).map(|_| ()) };
            assert_eq!(result, Err(Error::Reset), "{lives:?} {write}");
            assert_eq!(pipe.poll(), Ready { read: true, write: true, hang_up: true });
            // It comes back and both open again.
            let mut pipe = blocking(&all, 0, Lives(std::vec![5]));
            let mut other = open(&all, 1, 0).unwrap();
            assert_eq!((pipe.connect(), other.connect()), (Ok(()), Ok(())));
            assert_eq!((other.write(b"new"), pipe.read(&mut [0; 100])), (Ok(3), Ok(3)));
        }
    }
}

#[test]
fn a_peer_that_starts_late_or_closed_before_it_stopped_is_no_error() {
    let all = sections::<2>(4);
    // It has never run; it starts while we wait for it.
    let mut pipe = blocking(&all, 0, Lives(std::vec![0, 1, 1]));
    assert_eq!(pipe.now(End::connect), Err(Error::WouldBlock));
    pipe.bell().wait().unwrap();
    let mut other = open(&all, 1, 0).unwrap();
    assert_eq!((pipe.connect(), other.connect()), (Ok(()), Ok(())));
    assert_eq!(other.write(b"last words"), Ok(10));
    other.close();
    pipe.bell().0 = std::vec![2];
    let mut out = [0; 100];
    assert_eq!((pipe.read(&mut out), pipe.read(&mut out)), (Ok(10), Ok(0)));
    assert_eq!(pipe.write(b"x"), Err(Error::Closed));
    // The end of a stream that was opened before it stopped and met afterwards is not trusted.
    let all = sections::<2>(4);
    let mut pipe = blocking(&all, 0, Lives(std::vec![1]));
    let mut other = open(&all, 1, 0).unwrap();
    assert_eq!(other.connect(), Err(Error::WouldBlock));
    pipe.bell().0 = std::vec![2];
    assert_eq!((pipe.now(End::connect), other.connect()), (Ok(()), Ok(())));
    pipe.bell().0 = std::vec![3];
    assert_eq!(pipe.read(&mut out), Err(Error::Reset));
}

/// What happens to the pipe.
#[derive(Clone, Debug)]
enum Step {
    Write(usize, Vec<u8>),
    Read(usize, usize),
    Reopen(usize),
    Close(usize),
    Connect(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let side = 0usize..2;
    prop_oneof![
        4 => (side.clone(), prop::collection::vec(any::<u8>(), 0..20)).prop_map(|(s, b)| Step::Write(s, b)),
        4 => (side.clone(), 0usize..20).prop_map(|(s, n)| Step::Read(s, n)),
        1 => side.clone().prop_map(Step::Reopen),
        1 => side.clone().prop_map(Step::Close),
        2 => side.prop_map(Step::Connect),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { 256 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    /// Against a model: a reader gets exactly what the life it is connected with wrote, in order.
    #[test]
    fn a_life_reads_only_what_its_partner_wrote_for_it(steps in prop::collection::vec(step(), 1..200)) {
        let all = sections::<2>(2);
        let mut ends = [open(&all, 0, 1).unwrap(), open(&all, 1, 0).unwrap()];
        // By writer: its life, its bytes, and how many the reader has.
        let mut sent: [(u32, Vec<u8>); 2] = [(ends[0].life(), Vec::new()), (ends[1].life(), Vec::new())];
        let mut got = [0; 2];
        for step in steps {
            match step {
                Step::Write(side, bytes) => {
                    if let Ok(count) = ends[side].write(&bytes) {
                        sent[side].1.extend(&bytes[..count]);
                    }
                }
                Step::Read(side, len) => {
                    let mut out = std::vec![0; len];
                    if let Ok(count) = ends[side].read(&mut out) {
                        let from = got[1 - side];
                        prop_assert_eq!(Some(&out[..count]), sent[1 - side].1.get(from..from + count));
                        got[1 - side] += count;
                    }
                }
                Step::Reopen(side) => {
                    let earlier = ends[side].life();
                    ends[side] = open(&all, side, 1 - side).unwrap();
                    prop_assert!(ends[side].life() > earlier);
                    sent = [(ends[0].life(), Vec::new()), (ends[1].life(), Vec::new())];
                    got = [0; 2];
                }
                Step::Close(side) => ends[side].close(),
                Step::Connect(side) => { let _ = ends[side].connect(); }
            }
        }
    }

    /// A section full of anything: errors, never a panic, and what is read is no more than was asked for.
    #[test]
    fn any_contents_of_the_peers_section_are_harmless(
        words in prop::collection::vec((0usize..20, prop_oneof![any::<u64>(), 0u64..40]), 0..30),
        met in any::<bool>(),
    ) {
        let all = sections::<2>(4);
        let (mut a, _) = connected(&all);
        if !met {
            a = open(&all, 0, 1).unwrap();
        }
        let header = core::ptr::from_ref(&all[1].header).cast::<AtomicU64>();
        let session = core::ptr::from_ref(&all[1].session).cast::<AtomicU64>();
        for (word, value) in words {
            // SAFETY: 16 words of header, 6 of session (the first four are poked), all atomics; `all` outlives the borrow.
            unsafe { &*if word < 16 { header.add(word) } else { session.add(word - 16) } }.store(value, Ordering::Relaxed);
            let mut out = [0; 50];
            let read = a.read(&mut out);
            prop_assert!(read.is_err() || read.is_ok_and(|count| count <= 32));
            let wrote = a.write(&[0; 50]);
            prop_assert!(wrote.is_err() || wrote.is_ok_and(|count| count <= 32));
            let _ = (a.poll(), a.arm(Wait::Read), a.arm(Wait::Write(5)), a.take_bell());
        }
    }
}
