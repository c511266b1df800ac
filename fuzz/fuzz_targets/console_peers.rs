//! The console's peers: a guest's ring and a PD's log ring whose pages hold anything, changed at any moment, and any typing.
//!
//! The console must come to rest, stay within its budget, pass on no control character from a log line, and understand
//! honest peers afterwards.
#![no_main]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use partita_console::mux::{Mux, Name, Pumped};
use partita_console::uart::Uart;
use partita_protocol::layout::{Service, size};
use partita_ring::{Duplex, Mine, Yours};

#[derive(Debug, Arbitrary)]
enum Step {
    /// The guest or the log writes a word of its page set: of the header, or of the data.
    Forge {
        log: bool,
        word: u16,
        value: u64,
        near: bool,
    },
    Type(u8),
    Pump {
        room: u16,
    },
}

#[repr(C, align(4096))]
struct Region([AtomicU64; size::LOG_RING / 8]);

impl Region {
    fn new() -> Box<Self> {
        Box::new(Region([const { AtomicU64::new(0) }; size::LOG_RING / 8]))
    }
}

fn link(mine: &Region, yours: &Region) -> Duplex<'static> {
    // SAFETY: regions are aligned, of this size, made of atomics, and outlive the links of a run.
    unsafe {
        let at = |region: &Region| NonNull::from(region).cast::<u8>();
        Duplex::new(Mine::at(at(mine), size::LOG_RING), Yours::at(at(yours), size::LOG_RING))
    }
}

#[derive(Default)]
struct Wire {
    room: usize,
    out: Vec<u8>,
}

impl Uart for Wire {
    fn write(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.room);
        self.room -= taken;
        self.out.extend(&bytes[..taken]);
        taken
    }
    fn read(&mut self) -> Option<u8> {
        None
    }
    fn overruns(&mut self) -> u32 {
        0
    }
    fn tx_interrupt(&mut self, _on: bool) {}
    fn is_idle(&self) -> bool {
        true
    }
}

fuzz_target!(|steps: Vec<Step>| {
    let [guest_theirs, guest_ours, log_theirs, log_ours] = [(); 4].map(|()| Region::new());
    let mut scrollback = vec![0; 256];
    let mut mux = Mux::new();
    let name = |text| Name::try_from(text).unwrap_or_default();
    mux.add_guest(0, name("guest"), link(&guest_ours, &guest_theirs), &mut scrollback);
    mux.add_service_log(Service::Timer, name("timer"), link(&log_ours, &log_theirs));
    let mut wire = Wire::default();
    let mut guest_spoke = false;
    for step in steps {
        match step {
            Step::Forge { log, word, value, near } => {
                guest_spoke |= !log;
                let region = if log { &log_theirs } else { &guest_theirs };
                // A third of the words is the header, whose indices matter most.
                let at =
                    if word % 3 == 0 { usize::from(word / 3 % 10) } else { 512 + usize::from(word) % 512 };
                let base = if near { region.0[at].load(Ordering::Relaxed) } else { 0 };
                let value = if near { base.wrapping_add(value % 600) } else { value };
                region.0[at].store(value, Ordering::Relaxed);
            }
            Step::Type(byte) => mux.typed(byte),
            Step::Pump { room } => {
                wire.room = usize::from(room);
                mux.pump(&mut wire);
                mux.notify_cells(|cell| assert_eq!(cell, 0));
            }
        }
    }
    let at_rest = (0..1000).any(|_| {
        wire.room = 100_000;
        mux.pump(&mut wire) == Pumped::Idle
    });
    assert!(at_rest && mux.drained());
    // What a guest says is its own affair; everything else is clean.
    let obeyed = |byte: &u8| *byte < b' ' && !matches!(byte, b'\t' | b'\r' | b'\n') || *byte == 0x7f;
    assert!(guest_spoke || !wire.out.iter().any(obeyed));

    // An honest peer that is attached to these pages is understood.
    let mut honest = link(&log_theirs, &log_ours);
    honest.rx.consume(usize::MAX);
    wire.out.clear();
    assert!(honest.tx.write_all(b"\nhonest line\n"));
    wire.room = 100_000;
    mux.pump(&mut wire);
    assert!(wire.out.ends_with(b"[timer] honest line\r\n"));
});
