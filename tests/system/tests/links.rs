//! Shared-memory links: two Debian guests, and Debian with a bare-metal guest (docs/links.md).

use std::path::PathBuf;
use std::time::Duration;

use partita::{build, fail, failure::Result};
use partita_system_tests::fixture::{self, SOON, System, with_system};

/// For what takes the guests a while.
const LONG: Duration = Duration::from_secs(300);

/// A Debian guest and another cell, joined by a link with these peers. IMAGE and INITRD stand for the files.
fn description(name: &str, other: &str, peers: &str) -> Result<PathBuf> {
    let context = fixture::context(None)?;
    let file = |name: &str| context.guest_dir().join(name).display().to_string();
    let text = format!(
        r#"{{
  "controllers": [{{ "name": "disk0", "kind": "virtio-mmio", "slot": 0 }}],
  "cells": [
    {{ "name": "debian1", "memory": "256M", "kernel": "{image}", "initrd": "{initrd}",
      "cmdline": "console=hvc0 root=/dev/vda rw", "disks": [{{ "controller": "disk0", "partition": "debian1" }}] }},
    {other}
  ],
  "links": [{{ "name": "l0", "peers": [{peers}], "shared": "8K", "output": "256K" }}]
}}
"#,
        image = file("Image"),
        initrd = file("initrd.gz"),
    );
    let text = text.replace("IMAGE", &file("Image")).replace("INITRD", &file("initrd.gz"));
    let dir = context.build_dir().join("test");
    build::create(&dir)?;
    let path = dir.join(format!("{name}.json"));
    build::write(&path, text.as_bytes())?;
    Ok(path)
}

const FIRST: usize = 1;
const SECOND: usize = 2;
/// The tool gives up after so many seconds, in which a loaded machine gets from one guest to the other.
const PIPE: &str = "partita-pipe --wait 200";

/// Runs a command in a guest.
fn run(system: &mut System, guest: usize, command: &str) -> Result<String> {
    system.guest(guest, command, LONG)
}

/// Runs the tool in the background, with what it says in /tmp/out.
fn begin(system: &mut System, guest: usize, command: &str) -> Result {
    run(system, guest, &format!("{PIPE} {command} > /tmp/out 2>&1 & true")).map(drop)
}

/// Runs a command in a guest and wants this status of it.
fn status(system: &mut System, guest: usize, command: &str, wanted: u32) -> Result {
    system.front(guest)?;
    let outcome = system.session.shell(command, LONG)?;
    if outcome.status != wanted {
        fail!("`{command}` ended with {}, not {wanted}: {}", outcome.status, outcome.output.trim());
    }
    Ok(())
}

fn contains(text: &str, wanted: &str) -> Result {
    if text.contains(wanted) { Ok(()) } else { fail!("no {wanted:?} in: {text}") }
}

/// EBUSY and ECONNRESET, as the tool's exit status.
const BUSY: u32 = 16;
const RESET: u32 = 104;

#[test]
fn two_linux_guests_exchange_messages_and_streams() {
    let other = r#"{ "name": "debian2", "memory": "256M", "kernel": "IMAGE", "initrd": "INITRD",
      "cmdline": "console=hvc0 root=/dev/vda rw", "disks": [{ "controller": "disk0", "partition": "debian2" }] }"#;
    let description = description("links", other, "\"debian1\", \"debian2\"").unwrap();
    with_system("links", Some(&description), |system| {
        system.alive(FIRST)?;
        system.alive(SECOND)?;
        let info = run(system, FIRST, "partita-pipe info")?;
        contains(&info, "link 0: peer 0 of 2, shared 8192, output 262144")?;
        contains(&run(system, SECOND, "partita-pipe info")?, "link 0: peer 1 of 2")?;

        // hvisor's demo.
        begin(system, SECOND, "hello second")?;
        contains(
            &run(system, FIRST, &format!("{PIPE} hello first"))?,
            "heard: hello peer 0, this is peer 1",
        )?;
        contains(&run(system, SECOND, "wait; cat /tmp/out")?, "heard: hello peer 1, this is peer 0")?;

        // A stream each way.
        begin(system, SECOND, "sink")?;
        contains(&run(system, FIRST, &format!("{PIPE} source 32M"))?, "checksums agree")?;
        contains(&run(system, SECOND, "wait; cat /tmp/out")?, "received 33554432 bytes")?;
        begin(system, FIRST, "sink")?;
        contains(&run(system, SECOND, &format!("{PIPE} source 8M"))?, "checksums agree")?;

        // A file, by the names that people use.
        begin(system, SECOND, "receive /tmp/file")?;
        run(system, FIRST, &format!("head -c 1000001 /dev/urandom >/tmp/file; {PIPE} send /tmp/file"))?;
        let sum = |text: &str| text.split_whitespace().find(|word| word.len() == 64).map(str::to_owned);
        let here = sum(&run(system, FIRST, "sha256sum /tmp/file")?);
        if here.is_none() || here != sum(&run(system, SECOND, "wait; sha256sum /tmp/file")?) {
            fail!("the file is another one at the other end");
        }

        // Doorbells: many become fewer, at least one arrives, none is made up.
        begin(system, SECOND, "count")?;
        run(
            system,
            SECOND,
            "until grep -q waiting /tmp/out; do sleep 0.1; done; grep hivc /proc/interrupts >/tmp/before",
        )?;
        run(system, FIRST, "partita-pipe ring 1000")?;
        let counts = "wait; a=$(awk '{print $2}' /tmp/before); b=$(awk '/hivc/ {print $2}' /proc/interrupts); \
                      w=$(awk '/woken/ {print $2}' /tmp/out); [ $w -ge 1 ] && [ $w -le $((b - a)) ] && [ $((b - a)) -le 1000 ]";
        run(system, SECOND, counts)?;

        // A stream that does not end by itself: a third end is refused. Then the program at the other end dies.
        begin(system, SECOND, "sink")?;
        begin(system, FIRST, "source 1000G")?;
        system.rings(FIRST)?;
        status(system, FIRST, "partita-pipe --wait 5 source 1K", BUSY)?;
        run(system, SECOND, "kill -9 $!")?;
        begin(system, SECOND, "sink")?;
        status(system, FIRST, "wait $!", RESET)?;
        contains(&run(system, FIRST, &format!("{PIPE} source 1M"))?, "checksums agree")?;
        Ok(())
    });
}

/// `links`, of the link of the bare-metal guest: doorbells went both ways, no more arrived than were rung, and the three
/// that the guest rang for nobody are counted.
fn counted(table: &str) -> Result {
    let row = |peer: &str, cell: &str, refused: &str| -> Result<(u64, u64)> {
        let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        for row in rows {
            if let ["l0", "0", number, name, "8K", "256K", rung, nobody, delivered, _] = row.as_slice()
                && (*number, *name, *nobody) == (peer, cell, refused)
                && let (Ok(rung), Ok(delivered)) = (rung.parse(), delivered.parse())
            {
                return Ok((rung, delivered));
            }
        }
        fail!("no row of {cell} as peer {peer} with {refused} refused: {table}")
    };
    let (bare, linux) = (row("0", "pipe", "3")?, row("1", "debian1", "0")?);
    if bare.1 == 0 || linux.1 == 0 || bare.1 > linux.0 || linux.1 > bare.0 {
        fail!("doorbells (rung, delivered) of the peers: {bare:?} {linux:?}");
    }
    Ok(())
}

#[test]
fn linux_and_a_bare_metal_guest_exchange_a_stream() {
    fixture::build_guests().unwrap();
    let kernel = fixture::context(None)
        .unwrap()
        .build_dir()
        .join("target/aarch64-unknown-none-softfloat/release/pipe");
    let other = format!(
        r#"{{ "name": "pipe", "memory": "16M", "boot": "binary", "kernel": "{}" }}"#,
        kernel.display()
    );
    let description = description("link-bare", &other, "\"pipe\", \"debian1\"").unwrap();
    with_system("link-bare", Some(&description), |system| {
        system.alive(FIRST)?;
        contains(&run(system, FIRST, "partita-pipe info")?, "link 0: peer 1 of 2")?;
        contains(&run(system, FIRST, &format!("{PIPE} source 16M"))?, "checksums agree")?;
        system.front(2)?;
        let verdict = system.session.expect(" failed", SOON)?;
        contains(&verdict, "pipe: received 16777216 bytes")?;
        contains(&verdict, "pipe: 7 passed, 0")?;
        counted(&system.manage("links")?)
    });
}
