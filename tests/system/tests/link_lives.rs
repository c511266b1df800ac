//! A link outlives those who use it: guests that are stopped, started and restarted while a stream runs, a broker that is
//! killed or dies too often, and a store to where only the peer may write (docs/links.md). Sockets, which the same broker
//! serves, are there for the broker's sake.

use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use partita::{build, fail, failure::Result};
use partita_system_tests::fixture::{self, BOOT, PATIENT, SOON, System, with_system};

/// For what takes the guests a while.
const LONG: Duration = Duration::from_secs(300);
/// ECONNRESET, as the tool's exit status.
const RESET: &str = "104";
/// The tool gives up after this many seconds, with another status: longer than a test that goes well takes.
const PIPE: &str = "partita-pipe --wait 280";
/// Where the output section of peer 1 begins (docs/guest-abi.md): behind the shared section and peer 0's.
const SECTION: u64 = 0x1000_0000 + (8 << 10) + (256 << 10);

/// One byte comes, and then nothing: the reader waits. Connects as soon as the other listens.
const LISTENER: &str =
    "((sh -c 'echo x; exec sleep 1000' | socat -u - VSOCK-LISTEN:5000) > /dev/null 2>&1 &)";
const READER: &str = "rm -f /run/v.*; ((until [ -s /run/v.out ]; do sleep 0.2; socat -u VSOCK-CONNECT:4:5000 - \
    > /run/v.out 2> /run/v.err; done; touch /run/v.end) > /dev/null 2>&1 &)";

/// Two Debian guests, a link and a way for sockets.
fn description() -> Result<PathBuf> {
    let context = fixture::context(None)?;
    let text = format!(
        r#"{{ "controllers": [{{ "name": "disk0", "kind": "virtio-mmio", "slot": 0 }}],
  "cells": [{}, {}],
  "links": [{{ "name": "l0", "peers": ["debian1", "debian2"], "shared": "8K", "output": "256K" }}],
  "sockets": [{{ "from": "debian1", "to": "debian2", "ports": [5000] }}] }}
"#,
        fixture::debian(1, r#""cid": 3,"#)?,
        fixture::debian(2, r#""cid": 4,"#)?,
    );
    let dir = context.build_dir().join("test");
    build::create(&dir)?;
    let path = dir.join("link-lives.json");
    build::write(&path, text.as_bytes())?;
    Ok(path)
}

/// Runs something in a guest, in the background, and not as a job of the shell, which would talk of it. Its status will be in `/run/status`, what it says in `/run/said`.
fn begin(system: &mut System, n: usize, command: &str) -> Result {
    let command = format!(
        "rm -f /run/status; (({command} > /run/said 2>&1; echo $? > /run/new; mv /run/new /run/status) &)"
    );
    system.guest(n, &command, LONG).map(drop)
}

/// How it ended, and what it said.
fn end(system: &mut System, n: usize) -> Result<(String, String)> {
    let status = system.guest(n, "until [ -s /run/status ]; do sleep 0.1; done; cat /run/status", LONG)?;
    let said = system.guest(n, "cat /run/said", SOON)?;
    Ok((status.trim().to_owned(), said))
}

/// It was broken off.
fn reset(system: &mut System, n: usize, what: &str) -> Result {
    let (status, said) = end(system, n)?;
    if status != RESET {
        fail!("{what}: the peer's stream ended with {status}: {said}");
    }
    println!("{what}: {}", said.lines().last().unwrap_or_default());
    Ok(())
}

fn contains(text: &str, wanted: &str) -> Result {
    if text.contains(wanted) { Ok(()) } else { fail!("no {wanted:?} in: {text}") }
}

/// A new stream arrives whole.
fn again(system: &mut System, when: &str) -> Result {
    begin(system, 2, &format!("{PIPE} sink"))?;
    contains(&system.guest(1, &format!("{PIPE} source 4M"), LONG)?, "checksums agree")?;
    let (status, said) = end(system, 2)?;
    if status != "0" {
        fail!("{when}: the new stream's sink ended with {status}: {said}");
    }
    println!("{when}: a new stream works");
    Ok(())
}

/// Waits until `services` says this of the broker.
fn broker_is(system: &mut System, state: &str) -> Result {
    let end = Instant::now() + SOON;
    loop {
        let table = system.manage("services")?;
        let is = |line: &str| {
            let mut words = line.split_whitespace();
            words.next() == Some("ivc") && words.any(|word| word == state)
        };
        if table.lines().any(is) {
            return Ok(());
        }
        if Instant::now() > end {
            fail!("ivc does not become {state}: {table}");
        }
        thread::sleep(Duration::from_millis(300));
    }
}

/// A socket of guest 1 that is connected to guest 2 and waits for what will not come.
fn socket(system: &mut System) -> Result {
    system.guest(2, LISTENER, SOON)?;
    system.guest(1, READER, SOON)?;
    system.guest(1, "until [ -s /run/v.out ]; do sleep 0.1; done", LONG).map(drop)
}

/// The broker dies of its own faults until it is held: who waits for a peer, at a pipe or a socket, gets an error, and who
/// asks for a connection as well. Started by hand, all works again.
fn held(system: &mut System) -> Result {
    socket(system)?;
    begin(system, 2, &format!("{PIPE} sink"))?;
    begin(system, 1, &format!("{PIPE} source 4G"))?;
    system.rings(1)?;
    system.manage("kill ivc 5 200 own")?;
    broker_is(system, "refusing")?;
    reset(system, 1, "broker held, the writer")?;
    reset(system, 2, "broker held, the reader")?;
    contains(&system.guest(1, "partita-pipe info", SOON)?, "peer 1 does not run")?;
    // The transport's reset ends the connection (Linux says that it is reset, or that there is none); a new one is refused.
    let ended = system.guest(1, "until [ -e /run/v.end ]; do sleep 0.1; done; cat /run/v.err", LONG)?;
    contains(&ended, " E read(")?;
    // Asked for afterwards: the broker's line in the log may come between.
    begin(system, 1, &format!("socat -u VSOCK-CONNECT:4:5000,{PATIENT} -"))?;
    let (status, refused) = end(system, 1)?;
    contains(&refused, "reset by peer")?;
    contains(&status, "1")?;
    println!("broker held: {}", refused.lines().next().unwrap_or_default());
    system.manage("restart ivc")?;
    broker_is(system, "up")?;
    contains(&system.guest(1, "partita-pipe info", SOON)?, "peer 1 runs")?;
    again(system, "after a broker that was held")?;
    socket(system)
}

#[test]
fn a_link_outlives_guests_and_broker() {
    let description = description().unwrap_or_else(|failure| panic!("{failure}"));
    with_system("link-lives", Some(&description), |system| {
        system.session.expect("[blk_", BOOT)?;
        system.alive(1)?;
        system.alive(2)?;
        contains(&system.guest(1, "partita-pipe info", SOON)?, "peer 1 runs, start 1")?;

        // A writer's peer is stopped without a word.
        begin(system, 2, &format!("{PIPE} sink"))?;
        begin(system, 1, &format!("{PIPE} source 4G"))?;
        system.rings(1)?;
        system.order("stop", "debian2", "stops")?;
        reset(system, 1, "peer stopped while it reads")?;
        contains(&system.guest(1, "partita-pipe info", SOON)?, "peer 1 does not run, start 1")?;
        // Who opens now waits for the next start, and is no error.
        begin(system, 1, &format!("{PIPE} source 1M"))?;
        system.order("start", "debian2", "starts")?;
        system.alive(2)?;
        begin(system, 2, &format!("{PIPE} sink"))?;
        for n in [1, 2] {
            let (status, said) = end(system, n)?;
            if status != "0" {
                fail!("guest {n}, after the peer had been started again: {status}: {said}");
            }
        }
        contains(&system.guest(1, "partita-pipe info", SOON)?, "peer 1 runs, start 2")?;

        // A reader's peer is restarted, faster than anybody looks.
        begin(system, 1, &format!("{PIPE} sink"))?;
        begin(system, 2, &format!("{PIPE} source 4G"))?;
        system.rings(1)?;
        system.order("restart", "debian2", "restarts")?;
        reset(system, 1, "peer restarted while it writes")?;
        system.alive(2)?;
        again(system, "after the restart of a peer")?;

        // The broker is restarted under a stream: it has no part in the bytes, and no doorbell is lost.
        begin(system, 2, &format!("{PIPE} sink"))?;
        begin(system, 1, &format!("{PIPE} source 64M"))?;
        system.rings(1)?;
        system.manage("kill ivc")?;
        let (status, said) = end(system, 1)?;
        if status != "0" {
            fail!("a stream under which the broker was restarted ended with {status}: {said}");
        }
        contains(&said, "checksums agree")?;
        contains(&system.manage("services")?, "ivc")?;
        println!("broker restarted under a stream: {}", said.lines().last().unwrap_or_default());
        again(system, "after the restart of the broker")?;

        // The peer's section: the guest's driver does not map it for writing, so past that. Another process goes on.
        let store =
            system.guest(1, &format!("busybox devmem {SECTION:#x} 32 1 2>&1; echo status $?"), SOON)?;
        let [bus_error, refused] = ["status 135", "Operation not permitted"].map(|text| store.contains(text));
        if !bus_error || refused {
            fail!("a store to the peer's section: {store}");
        }
        again(system, "after a store to the peer's section")?;

        held(system)
    });
}
