//! A pipe whose peer writes anything into its section, at any moment, between an honest end's operations.
//!
//! No operation may panic, take or give more than was asked for, or leave the sections; and once the peer is honest again,
//! the end that is opened anew finds it and bytes go through.
#![no_main]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use partita_pipe::{End, Error, Sections, Wait};

const WORDS: usize = 2 * 4096 / 8;

#[derive(Debug, Arbitrary)]
enum Step {
    /// The peer writes a word: of the ring's header (0..16), of the session (256..262), of the data.
    Forge {
        word: u16,
        value: u64,
        near: bool,
    },
    Read(u16),
    Write(u16),
    Poll,
    Arm(u8),
    Reopen,
    Close,
    Down,
}

#[repr(C, align(4096))]
struct Section([AtomicU64; WORDS]);

impl Section {
    fn new() -> Box<Self> {
        Box::new(Section([const { AtomicU64::new(0) }; WORDS]))
    }
}

fn sections<'a>(mine: &'a Section, yours: &'a Section) -> Sections<'a> {
    let at = |section: &'a Section| NonNull::from(section).cast::<u8>();
    // SAFETY: both are page aligned, all atomics, and live for `'a`; one end at a time uses each.
    unsafe { Sections::at(at(mine), at(yours), WORDS * 8) }.unwrap()
}

fuzz_target!(|steps: Vec<Step>| {
    let (a, b) = (Section::new(), Section::new());
    let mut end = End::open(sections(&a, &b), 0, 1).unwrap();
    let mut peer = End::open(sections(&b, &a), 1, 0).unwrap();
    let _ = (peer.connect(), end.connect());
    drop(peer);
    for step in steps {
        match step {
            Step::Forge { word, value, near } => {
                let place = match word % 4 {
                    0 => word / 4 % 16,
                    1 => 256 + word / 4 % 6,
                    _ => word / 4 % WORDS as u16,
                };
                let word = &b.0[usize::from(place)];
                let value = if near {
                    word.load(Ordering::Relaxed).wrapping_add(value % 17).wrapping_sub(8)
                } else {
                    value
                };
                word.store(value, Ordering::Relaxed);
            }
            Step::Read(len) => {
                let mut into = vec![0; len.into()];
                if let Ok(count) = end.read(&mut into) {
                    assert!(count <= into.len().min(4096));
                }
            }
            Step::Write(len) => {
                if let Ok(count) = end.write(&vec![1; len.into()]) {
                    assert!(count <= usize::from(len).min(4096));
                }
            }
            Step::Poll => {
                let _ = end.poll();
            }
            Step::Arm(kind) => {
                let _ =
                    end.arm([Wait::Connected, Wait::Read, Wait::Write(kind.into())][usize::from(kind % 3)]);
            }
            Step::Reopen => match End::open(sections(&a, &b), 0, 1) {
                Ok(new) => end = new,
                Err(error) => assert_eq!(error, Error::Busy),
            },
            Step::Close => end.close(),
            Step::Down => end.peer_is_down(),
        }
        let _ = end.take_bell();
    }
    // An honest peer, whatever was there: it comes back, and so do we.
    let mut peer = End::open(sections(&b, &a), 1, 0).unwrap();
    let mut end = End::open(sections(&a, &b), 0, 1).unwrap();
    let _ = (peer.connect(), end.connect(), peer.connect());
    assert_eq!((end.write(b"bytes"), peer.write(b"back")), (Ok(5), Ok(4)));
    let mut out = [0; 8];
    assert_eq!(peer.read(&mut out), Ok(5));
    assert_eq!(&out[..5], b"bytes");
    assert_eq!(end.read(&mut out), Ok(4));
});
