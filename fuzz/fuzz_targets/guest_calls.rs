//! Syndromes and firmware calls as a guest can make them: decoding is total, and what it allows is in bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use partita_guest::{
    exception, fault,
    psci::{Action, Cpus},
    registers,
};

fuzz_target!(|input: ([u64; 4], u32, u64, u8)| {
    let (x, esr, word, caller) = input;
    let mut cpus = Cpus::new(3);
    if let Action::Start { vcpu, entry, .. } = cpus.call(usize::from(caller % 3), x, |at| at < 1 << 31) {
        assert!(vcpu < 3 && entry < 1 << 31 && entry % 4 == 0);
    }
    if let Ok(access) = fault::data_abort(esr, word) {
        assert!(registers::position(access.register).is_none_or(|at| at < registers::WORDS));
        assert!(access.wide || access.loaded(word) >> 32 == 0);
        assert_eq!(access.stored(word) & !access.width.mask(), 0);
    }
    let _ = fault::trap(esr);
    assert_eq!(exception::undefined(word, x[0], x[1], esr).pc & 0x7f, 0);
});
