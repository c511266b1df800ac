//! A Debian guest with one good disk and one that fails: QEMU injects errors into it (blkdebug), makes it too slow (a
//! throttle), and takes it away. The guest gets an I/O error in bounded time, the log says why in one line, and the other
//! disk does not notice.

use std::{
    fs::File,
    path::PathBuf,
    time::{Duration, Instant},
};

use partita::{build, fail, failure::Result};
use partita_system_tests::{
    fixture::{self, SOON, System, with_machine},
    qmp::{self, Qmp},
};

/// Of the disk that is too slow. The others have what a slow host needs.
const TIMEOUT: Duration = Duration::from_millis(1000);
/// Of the others.
const PATIENCE: Duration = Duration::from_secs(60);

/// A guest with its own disk, and two windows of a second one that may take so long for a request.
fn description(name: &str, timeout: Duration) -> PathBuf {
    let context = fixture::context(None).unwrap();
    let file = |name: &str| context.guest_dir().join(name).display().to_string();
    let text = format!(
        r#"{{
  "controllers": [
    {{ "name": "good", "kind": "virtio-mmio", "slot": 0 }},
    {{ "name": "bad", "kind": "virtio-mmio", "slot": 8, "timeout_ms": {} }}
  ],
  "cells": [
    {{
      "name": "debian1",
      "memory": "512M",
      "kernel": "{}",
      "initrd": "{}",
      "cmdline": "console=hvc0 root=/dev/vda rw",
      "disks": [
        {{ "controller": "good", "partition": "debian1" }},
        {{ "controller": "bad", "partition": {{ "range": {{ "first": 0, "count": 32768 }} }} }},
        {{ "controller": "bad", "partition": {{ "range": {{ "first": 32768, "count": 32768 }} }} }}
      ]
    }}
  ]
}}
"#,
        timeout.as_millis(),
        file("Image"),
        file("initrd.gz")
    );
    let dir = context.build_dir().join("test");
    build::create(&dir).unwrap();
    let path = dir.join(format!("{name}.json"));
    build::write(&path, text.as_bytes()).unwrap();
    path
}

/// QEMU's arguments for the bad disk: a file of 32 MiB behind error injection and a throttle that lets everything pass. It
/// is in the host's page cache: only the throttle makes it slow.
fn bad_disk(file: &str, errors: &[&str]) -> Vec<String> {
    let mut drive = format!(
        "if=none,id=bad,driver=raw,cache=writeback,file.driver=throttle,file.throttle-group=slow,\
         file.file.driver=blkdebug,file.file.image.driver=file,file.file.image.filename={}",
        file.replace(',', ",,")
    );
    for (n, error) in errors.iter().enumerate() {
        for part in error.split(' ') {
            drive += &format!(",file.file.inject-error.{n}.{part}");
        }
        drive += &format!(",file.file.inject-error.{n}.event=none");
    }
    let mut arguments: Vec<String> = ["-object", "throttle-group,id=slow", "-drive"].map(Into::into).into();
    arguments.push(drive);
    arguments.extend(["-device", "virtio-blk-device,drive=bad,bus=virtio-mmio-bus.8"].map(Into::into));
    arguments
}

fn sick(name: &str, timeout: Duration, errors: &[&str], test: impl FnOnce(&mut System, &mut Qmp) -> Result) {
    let context = fixture::context(None).unwrap();
    let file = context.build_dir().join(format!("test/{name}.bad.img"));
    build::create(&context.build_dir().join("test")).unwrap();
    File::create(&file).unwrap().set_len(32 << 20).unwrap();
    let socket = qmp::socket(name);
    let mut arguments = bad_disk(&file.display().to_string(), errors);
    arguments.extend(qmp::arguments(&socket));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    with_machine(name, Some(&description(name, timeout)), &arguments, |system| {
        system.shell()?;
        let mut qmp = Qmp::connect(&socket)?;
        test(system, &mut qmp)?;
        // Whatever the other disk does.
        system
            .session
            .shell_ok("dd if=/dev/urandom of=/root/x bs=64k count=16 conv=fsync status=none", SOON)?;
        system
            .session
            .shell_ok("sync; md5sum /root/x > /root/sum; echo 3 > /proc/sys/vm/drop_caches", SOON)?;
        system.session.shell_ok("md5sum -c /root/sum", SOON)?;
        system.power_off()
    });
    let _ = std::fs::remove_file(file);
}

/// The command fails with an I/O error.
fn fails(system: &mut System, command: &str) -> Result {
    let outcome = system.session.shell(&format!("{command} 2>&1"), SOON)?;
    if outcome.status == 0 || !outcome.output.contains("Input/output error") {
        fail!("`{command}` gave {}: {}", outcome.status, outcome.output);
    }
    Ok(())
}

/// Lines of the log of the bad disk's PD with this text.
fn lines(system: &System, text: &str) -> Result<usize> {
    let printed = system.printed()?;
    Ok(printed.lines().filter(|line| line.starts_with("[blk_bad]") && line.contains(text)).count())
}

#[test]
fn errors_of_the_device_reach_the_guest_and_the_log() {
    let errors = ["iotype=read sector=1000", "iotype=write sector=2000", "iotype=flush"];
    sick("disk-errors", PATIENCE, &errors, |system, _| {
        fails(system, "dd if=/dev/vdb of=/dev/null bs=512 skip=1000 count=1 iflag=direct")?;
        fails(system, "dd if=/dev/zero of=/dev/vdb bs=512 seek=2000 count=1 oflag=direct")?;
        fails(system, "dd if=/dev/zero of=/dev/vdc bs=512 count=1 conv=fsync")?;
        // Beside the bad sectors all is well, also what is written there before.
        let session = &mut system.session;
        session.shell_ok("dd if=/dev/vdb of=/dev/null bs=512 count=1000 iflag=direct status=none", SOON)?;
        session.shell_ok(
            "dd if=/dev/zero of=/dev/vdb bs=512 seek=1001 count=999 oflag=direct status=none",
            SOON,
        )?;
        for text in [
            "debian1 disk 0: the device reports an error for a read at sector 1000; I/O error",
            "debian1 disk 0: the device reports an error for a write at sector 2000; I/O error",
            "debian1 disk 1: the device reports an error for a flush; I/O error",
        ] {
            if lines(system, text)? == 0 {
                fail!("the log does not say: {text}");
            }
        }
        match lines(system, "it was reset")? {
            0 => Ok(()),
            n => fail!("the device was reset {n} times for errors that it reported"),
        }
    });
}

#[test]
fn a_device_that_does_not_answer_in_time_is_reset_and_works_again() {
    sick("disk-slow", TIMEOUT, &[], |system, qmp| {
        let limits = |iops: u32| {
            format!(
                r#"{{"execute": "qom-set", "arguments": {{"path": "/objects/slow", "property": "limits", "value": {{"iops-total": {iops}}}}}}}"#
            )
        };
        qmp.execute(&limits(1))?;
        // More at once than such a disk can answer in time. All end, some with errors, soon.
        let begun = Instant::now();
        let outcome = system.session.shell(
            "for i in $(seq 24); do dd if=/dev/vdb of=/dev/null bs=4k skip=$i count=1 iflag=direct & done 2>&1; \
             dd if=/dev/zero of=/root/y bs=64k count=4 conv=fsync status=none; wait",
            SOON,
        )?;
        let errors = outcome.output.matches("Input/output error").count();
        if errors == 0 {
            fail!("no request failed: {}", outcome.output);
        }
        // Linux repeats nothing of this; the limit, an eighth, and what a loaded machine takes for 24 processes.
        if begun.elapsed() > 10 * TIMEOUT + Duration::from_secs(60) {
            fail!("{errors} errors took {:?}", begun.elapsed());
        }
        qmp.execute(&limits(0))?;
        system
            .session
            .shell_ok("dd if=/dev/vdb of=/dev/null bs=64k count=64 iflag=direct status=none", SOON)?;
        system
            .session
            .shell_ok("dd if=/dev/zero of=/dev/vdc bs=64k count=64 conv=fsync status=none", SOON)?;
        if lines(system, "the device did not answer within 1000 ms: it was reset; ")? == 0 {
            fail!("the log does not say that the device was reset");
        }
        Ok(())
    });
}

#[test]
fn a_disk_that_is_taken_away_gives_errors_and_hurts_nobody() {
    sick("disk-gone", PATIENCE, &[], |system, qmp| {
        system
            .session
            .shell_ok("dd if=/dev/vdb of=/dev/null bs=64k count=4 iflag=direct status=none", SOON)?;
        qmp.monitor("drive_del bad")?;
        fails(system, "dd if=/dev/vdb of=/dev/null bs=64k count=4 iflag=direct")?;
        fails(system, "dd if=/dev/zero of=/dev/vdc bs=64k count=4 oflag=direct")
    });
}
