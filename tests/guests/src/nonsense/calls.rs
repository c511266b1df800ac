//! PSCI, other SMCs, and HVC, which seL4 takes for its own system calls.

use core::fmt;

use super::{Cases, Expect, Subject};
use crate::machine::{frequency, hvc_number, set_timer, smc};

const NOT_SUPPORTED: u64 = u64::MAX;
const INVALID: u64 = -2i64 as u64;
const ALREADY_ON: u64 = -4i64 as u64;

/// Functions by SMC, each with rubbish.
pub const FUNCTIONS: Subject = Subject {
    name: "calls",
    expect: Expect::Lives,
    cases: Cases::Named(&[
        ("CPU_ON of itself", || smc([0xc400_0003, 0, 0x4000_0000, 0]) == ALREADY_ON),
        ("CPU_ON of a CPU that there is not", || {
            [1, 0xff, 0x100, 1 << 32, u64::MAX]
                .iter()
                .all(|cpu| smc([0xc400_0003, *cpu, 0x4000_0000, 0]) == INVALID)
        }),
        ("32-bit CPU_ON with 64-bit parameters", || smc([0x8400_0003, 1 << 40 | 1, u64::MAX, 0]) == INVALID),
        ("AFFINITY_INFO of levels that there are not", || {
            (1..5).all(|level| smc([0xc400_0004, 0, level, 0]) == INVALID)
        }),
        ("AFFINITY_INFO of CPUs that there are not", || {
            [1, 1 << 32, u64::MAX].iter().all(|cpu| smc([0xc400_0004, *cpu, 0, 0]) == INVALID)
        }),
        ("CPU_SUSPEND with rubbish", || {
            set_timer(Some(frequency() / 1000));
            smc([0xc400_0001, u64::MAX, u64::MAX, u64::MAX]) == 0
        }),
        ("64-bit variants of functions that have none", || {
            [0xc400_0000, 0xc400_0002, 0xc400_0006, 0xc400_0008, 0xc400_0009, 0xc400_000a]
                .iter()
                .all(|f| smc([*f, 0, 0, 0]) == NOT_SUPPORTED)
        }),
        ("MIGRATE, MEM_PROTECT and what else is optional", || {
            [5, 7, 0xb, 0xc, 0xd, 0xe, 0xf, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x1f]
                .iter()
                .all(|f| smc([0x8400_0000 | f, u64::MAX, u64::MAX, u64::MAX]) == NOT_SUPPORTED)
        }),
        ("SYSTEM_RESET2 and SYSTEM_SUSPEND", || {
            [0xc400_0012, 0xc400_000e].iter().all(|f| smc([*f, 0, 0, 0]) == NOT_SUPPORTED)
        }),
        ("PSCI_FEATURES of every function", || {
            (0..0x200u64).all(|f| smc([0x8400_000a, 0x8400_0000 | f, 0, 0]) as i64 >= -1)
        }),
        ("services of firmware, secure OS, standard hypervisor and vendors", || {
            (0..64u64).filter(|owner| *owner != 4).all(|owner| {
                (0..8).all(|f| {
                    let seen = smc([0x8000_0000 | owner << 24 | (0x20 + f), u64::MAX, u64::MAX, u64::MAX]);
                    seen == NOT_SUPPORTED
                })
            })
        }),
        ("yielding calls", || (0..64u64).all(|owner| smc([owner << 24, 1, 2, 3]) == NOT_SUPPORTED)),
        ("identifiers with rubbish above bit 31", || smc([0xffff_ffff_8400_0000, 0, 0, 0]) == 0x1_0001),
        ("SMC with an immediate", || {
            let result: u64;
            // SAFETY: as in `machine::smc`.
            unsafe {
                core::arch::asm!("smc #0xffff", inout("x0") 0x8400_0000u64 => result, out("x1") _, out("x2") _, out("x3") _,
                     options(nostack));
            }
            result == 0x1_0001 || result == NOT_SUPPORTED
        }),
        ("rubbish identifiers", || {
            let mut random = super::Random(77);
            // Not the owner whose functions end the guest.
            (0..500).all(|_| {
                let f = random.draw() & 0xffff_ffff;
                f >> 24 & 0x3f == 4
                    || smc([f, random.draw(), random.draw(), random.draw()]) as i64 <= 0x1_0001
            })
        }),
    ]),
};

/// HVC with every number of a system call in x7: all capabilities of a guest are null.
pub const NUMBERS: Subject =
    Subject { name: "hypercalls", expect: Expect::Either, cases: Cases::Product { count, name, run } };

const NAMES: [&str; 13] = [
    "0",
    "Call",
    "ReplyRecv",
    "NBSendRecv",
    "NBSendWait",
    "Send",
    "NBSend",
    "Recv",
    "NBRecv",
    "Wait",
    "NBWait",
    "Yield",
    "DebugPutChar",
];
/// What is in x0: a slot.
const SLOTS: [u64; 3] = [0, 1, u64::MAX];

fn count() -> usize {
    NAMES.len() * SLOTS.len()
}

fn name(index: usize, f: &mut dyn fmt::Write) -> fmt::Result {
    write!(f, "{} with x0 {:#x}", NAMES[index / SLOTS.len()], SLOTS[index % SLOTS.len()])
}

fn run(index: usize) -> bool {
    let number = (index / SLOTS.len()) as u64;
    // What a receive without a message waits for.
    set_timer(Some(frequency() / 10));
    let x1 = u64::MAX;
    let _ = hvc_number(number.wrapping_neg(), [SLOTS[index % SLOTS.len()], x1, 2, 3, 4, 5]);
    true
}
