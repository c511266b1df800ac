//! The management service from inside the guests of the default system (docs/management.md): debian1 is the manager,
//! debian2 is not.

use std::time::Duration;

use partita::{fail, failure::Result};
use partita_system_tests::fixture::{SOON, System, default_system, no_trouble};

/// For what an emulated guest on a busy machine takes long for.
const LONG: Duration = Duration::from_secs(300);
const MANAGER: usize = 1;
const OTHER: usize = 2;

/// What a command prints that must contain all of these.
fn says(system: &mut System, guest: usize, command: &str, wanted: &[&str]) -> Result<String> {
    let said = system.guest(guest, command, LONG)?;
    if let Some(missing) = wanted.iter().find(|wanted| !said.contains(*wanted)) {
        fail!("`{command}` in guest {guest} does not say \"{missing}\": {said}");
    }
    Ok(said)
}

/// State and epoch of a cell, as `partitactl` has them.
fn cell(system: &mut System, name: &str) -> Result<(String, u64)> {
    let table = says(system, MANAGER, "partitactl cells", &["ended by", name])?;
    let row = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    match row.into_iter().find(|words| words.get(1) == Some(&name)).as_deref() {
        Some([_, _, state, _, _, epoch, ..]) => Ok(((*state).to_owned(), epoch.parse().unwrap_or(u64::MAX))),
        _ => fail!("no row of {name}: {table}"),
    }
}

/// A command that must end with this status and say this.
fn ends(system: &mut System, guest: usize, command: &str, status: u32, with: &str) -> Result {
    system.front(guest)?;
    let outcome = system.session.shell(&format!("{command} 2>&1"), LONG)?;
    if outcome.status != status || !outcome.output.contains(with) {
        fail!("`{command}` should end with {status} and \"{with}\": {}: {}", outcome.status, outcome.output);
    }
    Ok(())
}

#[test]
fn a_manager_guest_manages_and_another_is_refused() {
    default_system("manage", |system| {
        system.alive(MANAGER)?;
        system.alive(OTHER)?;
        system.guest(MANAGER, "echo here > /run/same-life", SOON)?;
        system.guest(OTHER, "echo here > /run/same-life", SOON)?;
        questions(system)?;
        refused(system)?;
        restarts_the_other(system)?;
        messages(system)?;
        no_trouble(system)
    });
}

fn questions(system: &mut System) -> Result {
    says(system, MANAGER, "partitactl version", &["Partita 0.", "management protocol 1"])?;
    for name in ["debian1", "debian2"] {
        if cell(system, name)? != ("running".to_owned(), 0) {
            fail!("{name} should run, for the first time");
        }
    }
    let exits = |said: String| -> Option<u64> {
        said.lines().find_map(|line| line.strip_prefix("exits"))?.trim().parse().ok()
    };
    let stats = says(system, MANAGER, "partitactl stats debian1", &["debian1", "exits", "virtio"])?;
    let later = says(system, MANAGER, "partitactl stats debian1", &["debian1", "exits", "virtio"])?;
    match (exits(stats), exits(later)) {
        (Some(before), Some(after)) if 0 < before && before < after => {}
        both => fail!("a guest that works has exits, and more later: {both:?}"),
    }
    says(system, MANAGER, "partitactl links", &["no links"])?;
    says(system, MANAGER, "partitactl services", &["timer", "ivc", "blk_disk0", "vmm_debian2"])?;
    ends(system, MANAGER, "partitactl restart debian3", 1, "there is no cell debian3; did you mean debian")
}

/// Nothing is done for a cell that is no manager; the log of the manager shows who tried.
fn refused(system: &mut System) -> Result {
    for command in ["cells", "stop debian1", "shutdown"] {
        ends(system, OTHER, &format!("partitactl {command}"), 3, "Connection reset by peer")?;
    }
    says(system, MANAGER, "partitactl log", &["debian2 may not manage: connection refused"])?;
    if cell(system, "debian1")?.0 != "running" {
        fail!("debian1 was stopped by a cell that is no manager");
    }
    Ok(())
}

fn restarts_the_other(system: &mut System) -> Result {
    says(system, MANAGER, "partitactl restart debian2", &[])?;
    says(system, MANAGER, "partitactl log debian2", &["[supervisor] debian2: restarts (debian1)"])?;
    system.alive(OTHER)?;
    system.guest(OTHER, "test ! -e /run/same-life", SOON)?;
    system.guest(MANAGER, "test -e /run/same-life", SOON)?;
    let (first, second) = (cell(system, "debian1")?, cell(system, "debian2")?);
    if first != ("running".to_owned(), 0) || second != ("running".to_owned(), 1) {
        fail!("debian2 alone should have been started again: {first:?} {second:?}");
    }
    Ok(())
}

/// From guest to guest, without a socket between them.
fn messages(system: &mut System) -> Result {
    let heard = "cat /run/heard 2> /dev/null";
    system.guest(OTHER, "partitactl messages > /run/heard 2>&1 & true", SOON)?;
    let until = |text: &str| {
        format!(
            "n=0; until grep -q '{text}' /run/heard; do n=$((n+1)); [ $n -lt 250 ] || break; sleep 1; done; {heard}"
        )
    };
    says(system, OTHER, &until("connected as debian2"), &["connected as debian2"])?;
    says(system, MANAGER, "partitactl send debian2 hello from one", &["sent to 1 cell"])?;
    says(system, OTHER, &until("message 1"), &["message 1 from debian1: hello from one"])?;
    says(system, MANAGER, "partitactl broadcast to all", &["sent to 2 cell"])?;
    says(system, OTHER, &until("message 2"), &["message 2 from debian1: to all"]).map(drop)
}
