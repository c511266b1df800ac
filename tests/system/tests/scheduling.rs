//! Processor time: an idle guest takes none, a busy one no more than its budget.
//!
//! With `-icount` QEMU's time is the count of its instructions, so what is measured here does not depend on the machine that
//! runs the test, nor on what else it does.

use std::path::PathBuf;

use partita::{fail, failure::Result};
use partita_system_tests::fixture::{self, BOOT, System, no_trouble};

/// Cycles of three seconds that are measured, after the first, in which the system starts.
const CYCLES: u64 = 2;

/// What a guest gets done beside one that spins: in the first second of each cycle nobody does, in the second one of higher
/// priority with 2 ms in each 10 ms, in the third one of the same priority without a limit.
#[test]
fn a_guest_that_spins_takes_no_more_than_its_budget() {
    fixture::build_guests().unwrap_or_else(|failure| panic!("{failure}"));
    let description = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("descriptions/scheduling.json");
    // Eight nanoseconds an instruction: a second of the guests is about one of ours.
    let icount = ["-icount", "shift=3,sleep=off"];
    fixture::with_machine("scheduling", Some(&description), &icount, |system| {
        let [alone, limited, equal] = progress(system)?;
        let (limited, equal) = (limited * 100 / alone, equal * 100 / alone);
        println!("alone 100 %; beside 2 ms in 10 ms {limited} %; beside an equal {equal} %");
        // No more than its 20 %; less, because seL4 gives a vCPU two refills: what is left over of a budget, too short to be
        // run, moves the next one back. 2 ms in 18 ms is what both kernels make of it.
        if !(79..=90).contains(&limited) {
            fail!("beside a guest with 20 % of the processor {limited} % of the work is done");
        }
        if !(46..=54).contains(&equal) {
            fail!("beside an equal guest {equal} % of the work is done");
        }
        no_trouble(system)?;
        system.session.quit()
    });
}

/// Units of work by second of the cycle. Of the eighths of a second the outer ones do not count: a guest may still be
/// coming or going.
fn progress(system: &mut System) -> Result<[u64; 3]> {
    let mut done = [0; 3];
    let mut first = None;
    loop {
        system.session.expect("count: ", BOOT)?;
        let line = system.session.expect("\n", BOOT)?;
        let numbers: Option<Vec<u64>> = line.split_whitespace().map(|word| word.parse().ok()).collect();
        let Some([eighth, units]) = numbers.as_deref() else { fail!("the guest says: {line}") };
        let first = *first.get_or_insert(eighth / 24 + 1);
        let (cycle, second) = (eighth / 24, eighth / 8 % 3);
        if cycle >= first + CYCLES {
            return Ok(done);
        }
        if cycle >= first && (1..7).contains(&(eighth % 8)) {
            done[second as usize] += units;
        }
    }
}

#[test]
fn an_idle_guest_sleeps() {
    const SECONDS: u64 = 100;
    // Time that passes while the machine idles costs nothing with icount. Exits are counted by the management shell, which
    // the guest does not hear of, while its shell sleeps: before, how often it wakes up while it waits for its disk depends
    // on the host's.
    // Not a moment of the host passes while all wait for the disk, but any time of theirs: up to the next timer. Were that
    // blk's, it would give the device up after no time at all.
    let debian = fixture::debian(1, "").unwrap();
    let description = fixture::describe_with("idle", r#", "timeout_ms": 600000"#, &[debian]).unwrap();
    fixture::with_machine("idle", Some(&description), &["-icount", "shift=0,sleep=off"], |system| {
        system.shell()?;
        // Nothing is left to write to the disk.
        system.session.shell_ok("sync", BOOT)?;
        let before = system.cell("debian1")?.exits;
        system.guest(1, &format!("sleep {SECONDS}"), BOOT)?;
        let idle = system.cell("debian1")?.exits - before;
        println!("{idle} exits of a guest that idles for {SECONDS} virtual seconds");
        // A sleep cannot be without a timer.
        if !(SECONDS / 100..SECONDS * 100).contains(&idle) {
            fail!("{idle} exits in {SECONDS} virtual seconds of an idle guest");
        }
        system.front(1)?;
        system.power_off()?;
        let total = exits_total(&system.printed()?)?;
        if total < before + idle {
            fail!(
                "{total} exits from boot to power-off, of which {before} were before and {idle} while it slept"
            );
        }
        Ok(())
    });
}

/// `total=N` of the line that the VMM prints when its guest stops.
fn exits_total(printed: &str) -> Result<u64> {
    let line =
        printed.lines().find(|line| line.starts_with("[vmm_debian1]") && line.contains("exits total="));
    let Some(line) = line else { fail!("the VMM printed no exit counters") };
    let number: String =
        line.split("total=").nth(1).unwrap_or_default().chars().take_while(char::is_ascii_digit).collect();
    match number.parse() {
        Ok(total) => Ok(total),
        Err(_) => fail!("no number in: {line}"),
    }
}
