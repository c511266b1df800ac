//! Guests of our own (`tests/guests`): one that checks the machine from inside, one that breaks every rule of its devices,
//! one that crashes.

use std::path::PathBuf;

use partita::{fail, failure::Result};
use partita_system_tests::{
    check::counts::Counts,
    disk,
    fixture::{self, BOOT, POWERED_OFF, SOON, System, with_system},
};

fn description(guest: &str) -> PathBuf {
    fixture::build_guests().unwrap_or_else(|failure| panic!("{failure}"));
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("descriptions/{guest}.json"))
}

/// Waits for the guest's own verdict and the end of the machine.
fn verdict(system: &mut System, guest: &str, at_least: u64) -> Result {
    system.session.expect(&format!("{guest}: "), BOOT)?;
    // The first line is a greeting, the last one the verdict.
    let line = loop {
        let line = system.session.expect("\n", BOOT)?;
        if line.contains(" passed, ") {
            break line;
        }
        system.session.expect(&format!("{guest}: "), BOOT)?;
    };
    let Some(counts) = Counts::from_line(&line) else { fail!("{guest} said: {line}") };
    if counts.failed != 0 || counts.passed < at_least {
        fail!("{guest}: {counts}");
    }
    system.session.expect(POWERED_OFF, SOON)?;
    system.session.wait(SOON)
}

/// No request left the window, and the neighbour is as it was.
fn inside_window(system: &System) -> Result {
    let window = disk::partition(&system.disk, "debian1")?;
    let end = disk::partition(&system.disk, "debian2")?.end;
    for (write, first, count) in system.requests()? {
        let inside = window.start <= first && first + count <= window.end;
        let table = !write && (first + count <= 34 || first >= end);
        if !inside && !table {
            fail!(
                "QEMU's disk was asked for {count} sectors at {first} (write: {write}), outside {window:?}"
            );
        }
    }
    disk::check_pattern(&system.disk, &disk::partition(&system.disk, "neighbour")?)
}

#[test]
fn a_guest_finds_its_machine_as_described() {
    with_system("hello", Some(&description("hello")), |system| {
        verdict(system, "hello", 20)?;
        inside_window(system)
    });
}

#[test]
fn a_guest_that_breaks_the_rules_hurts_only_itself() {
    with_system("nonsense", Some(&description("nonsense")), |system| {
        verdict(system, "nonsense", 30)?;
        inside_window(system)?;
        // What a guest can provoke is logged within limits, and no PD came to harm.
        let printed = system.printed()?;
        let logged = printed.lines().filter(|line| line.starts_with('[')).count();
        if logged > 200 {
            fail!("a guest provoked {logged} log lines");
        }
        if let Some(line) = printed.lines().find(|line| line.contains("fault") || line.contains("panic")) {
            fail!("a PD came to harm: {line}");
        }
        Ok(())
    });
}

#[test]
fn a_guest_that_crashes_is_named_and_stopped() {
    with_system("crash", Some(&description("crash")), |system| {
        system.session.expect("[vmm_crash] guest crashed: store to nothing at ipa 0x10000000", BOOT)?;
        // No cell is left, and the system says that it did not end well.
        system.session.expect("[supervisor] power off: FAILED: 1 cells crashed, 0 PDs faulted", SOON)?;
        system.session.wait(SOON)?;
        inside_window(system)
    });
}
