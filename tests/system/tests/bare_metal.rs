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
    inside_windows(system, "debian1", "debian1")
}

/// No request left these two windows, and what is beside them is as it was.
fn inside_windows(system: &System, one: &str, other: &str) -> Result {
    let windows = [disk::partition(&system.disk, one)?, disk::partition(&system.disk, other)?];
    let end = disk::partition(&system.disk, "debian2")?.end;
    for (write, first, count) in system.requests()? {
        let inside = windows.iter().any(|window| window.start <= first && first + count <= window.end);
        let table = !write && (first + count <= 34 || first >= end);
        if !inside && !table {
            fail!(
                "QEMU's disk was asked for {count} sectors at {first} (write: {write}), outside {windows:?}"
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

/// Cases that the catalogue has at least.
const CASES: u64 = 500;
/// Requests that the neighbour makes meanwhile, at least.
const REQUESTS: u64 = 1000;
/// Its echoes, and connections of the offender that it took.
const ECHOES: u64 = 1000;
const CONNECTIONS: u64 = 300;
/// Prompt of the management shell.
const SHELL: &str = "partita> ";

/// Goes through the catalogue of `nonsense` to its verdict. A case that stops the guest has its line in the log; the guest
/// is started again and goes on. Returns the verdict and how often that was.
fn catalogue(system: &mut System) -> Result<(Counts, usize)> {
    let mut restarts = 0;
    let session = &mut system.session;
    loop {
        // The last one is progress: no case may take long, all of them together may.
        let ends = ["guest of vmm_nonsense crashed", " passed, ", "FAIL: its disk", "ok   "];
        match session.expect_any(&ends, BOOT)? {
            (3, _) => {}
            (0, _) => {
                restarts += 1;
                session.expect("\n", SOON)?;
                session.send("\x1d0")?;
                session.expect(SHELL, SOON)?;
                session.send("start nonsense\n")?;
                session.expect("starts", SOON)?;
                session.send("\x1d1")?;
            }
            (1, text) => {
                let rest = session.expect("\n", SOON)?;
                let line = format!("{} passed, {rest}", text.rsplit("nonsense: ").next().unwrap_or_default());
                let Some(counts) = Counts::from_line(line.trim()) else { fail!("nonsense said: {line}") };
                return Ok((counts, restarts));
            }
            _ => fail!("the offender's disk does not work again"),
        }
    }
}

#[test]
fn a_guest_that_breaks_every_rule_hurts_only_itself() {
    with_system("nonsense", Some(&description("nonsense")), |system| {
        // The neighbour works first, so that it is there for every case. What is typed before the console runs is lost.
        system.session.expect("[blk_disk0] victim disk 0: ", BOOT)?;
        system.session.send("\x1d2")?;
        system.session.expect("victim: works", BOOT)?;
        system.session.send("\x1d1")?;
        let (counts, restarts) = catalogue(system)?;
        if counts.failed != 0 || counts.passed < CASES {
            fail!("nonsense: {counts}");
        }
        system.session.send("\x1d2")?;
        system.session.send("q")?;
        system.session.expect("victim: ", SOON)?;
        let victim = loop {
            let line = system.session.expect("\n", SOON)?;
            if line.contains(" requests in ") {
                break line;
            }
        };
        println!("nonsense: {counts}; it was stopped {restarts} times; its neighbour: {}", victim.trim());
        if !victim.contains(" 0 wrong, 0 late") {
            fail!("the neighbour noticed: {victim}");
        }
        let words: Vec<&str> = victim.split_whitespace().collect();
        for (what, least) in [("requests", REQUESTS), ("echoes,", ECHOES), ("connections", CONNECTIONS)] {
            let number =
                words.windows(2).find(|pair| pair[1] == what).and_then(|pair| pair[0].parse::<u64>().ok());
            if number.unwrap_or(0) < least {
                fail!("the neighbour made too few {what} to notice anything: {victim}");
            }
        }
        system.session.expect("[supervisor] power off: ", SOON)?;
        system.session.wait(SOON)?;
        inside_windows(system, "debian1", "debian2")?;
        // What a guest can provoke is logged within limits, and no PD came to harm.
        let printed = system.printed()?;
        let logged = printed.lines().filter(|line| line.starts_with('[')).count();
        // Each stop and start is a handful of lines of VMM and supervisor.
        if logged > 300 + 8 * restarts {
            fail!("a guest provoked {logged} log lines");
        }
        if let Some(line) =
            printed.lines().find(|line| line.contains("has faulted") || line.contains("panic"))
        {
            fail!("a PD came to harm: {line}");
        }
        Ok(())
    });
}

#[test]
fn a_guest_that_crashes_is_named_and_stopped() {
    with_system("crash", Some(&description("crash")), |system| {
        // No cell is left, and the system says that it did not end well.
        let said = [
            "[vmm_crash] guest crashed: store to nothing at ipa 0x10000000",
            "[supervisor] power off: FAILED: 1 cells crashed, 0 PDs faulted",
        ];
        system.session.expect_all(&said, BOOT)?;
        system.session.wait(SOON)?;
        inside_window(system)
    });
}
