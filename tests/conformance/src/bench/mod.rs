//! What the kernel charges for its operations: the same director and children, measuring instead of comparing.
//!
//! `partita bench-kernel` boots `bench.system` with the counting plugin, which notes the instructions that the kernel has
//! executed whenever somebody executes `hint #127`. So a measurement is a loop in which those that a kernel operation goes
//! from and to mark when they leave user code and when they are back in it. What lies between two marks is a *phase*; the
//! instructions of PDs and guests in it do not count, only the kernel's.
//!
//! For each measurement the director prints `%% ROUNDS | phase | phase ...` and makes `ROUNDS` times as many marks as there
//! are phases, and one more at the end. A phase named `-` only leads to the next one.

mod guests;
mod marks;
mod pds;

use sel4::sys::invocation_label as inv;

use crate::director::Director;
use crate::say;
use crate::serial::Serial;

pub use marks::mark;

/// How often each phase is run. The runner takes the median.
pub const ROUNDS: u64 = 51;

/// Runs one measurement; `None` is: something that had to come did not.
type Measure = fn(&Director) -> Option<()>;

/// Runs them all and turns the machine off.
pub fn run_all() -> ! {
    let director = Director::new();
    // At its first mark the plugin forgets what was translated before; that takes a while.
    mark();
    for _ in 0..1_000_000 {
        core::hint::spin_loop();
    }
    for (phases, measure) in pds::MEASURES.iter().chain(guests::MEASURES) {
        say!(&mut Serial, "%% {ROUNDS} | {phases}\n");
        if measure(&director).is_none() {
            say!(&mut Serial, "%% failed\n");
        }
        director.clean_up();
    }
    say!(&mut Serial, "%% end\n");
    // PSCI SYSTEM_OFF: QEMU ends, and the plugin writes what it counted.
    director.invoke(7, inv::ARMSMCCall, &[], &[0x8400_0008, 0, 0, 0, 0, 0, 0, 0]);
    loop {
        core::hint::spin_loop();
    }
}
