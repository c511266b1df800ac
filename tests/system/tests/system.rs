//! The default system under QEMU: a Debian guest on its mediated disk, as `make run` starts it.
//!
//! `CONFIG=` and `MICROKIT_SDK=` choose what is tested. Each test has its own machine and its own copy of the disk.

use std::time::Duration;

use partita::{fail, failure::Result};
use partita_system_tests::{
    disk,
    fixture::{self, BOOT, SOON, System, with_system},
};

/// A panic or a fault of a PD, as the monitor, the supervisor or the kernel reports it.
const TROUBLE: &[&str] = &["panic", "fault", "FAILED", "needs reset", "dropped"];

/// Nothing but guest output and good news so far.
fn no_trouble(system: &System) -> Result {
    let printed = system.printed()?;
    // Log lines of PDs, and what comes before the first one (the kernel's and the monitor's).
    let ours = printed.lines().filter(|line| line.starts_with('[') && !line.starts_with("[ "));
    for line in ours.chain(printed.lines().take_while(|line| !line.starts_with('['))) {
        if TROUBLE.iter().any(|word| line.contains(word)) {
            fail!("the system reports trouble: {line}");
        }
    }
    Ok(())
}

#[test]
fn smoke() {
    let context = fixture::context(None).unwrap();
    if let Err(failure) = partita::smoke::run(&context) {
        panic!("{failure}");
    }
}

#[test]
fn the_guest_boots_to_its_root_and_powers_off() {
    with_system("boot", None, |system| {
        system.shell()?;
        let kernel = system.session.shell_ok("uname -r", SOON)?;
        if !kernel.contains("arm64") {
            fail!("not Debian's kernel: {kernel}");
        }
        let init = system.session.shell_ok("cat /proc/1/comm; findmnt -no SOURCE,FSTYPE /", SOON)?;
        if init != "init\n/dev/vda ext4\n" {
            fail!("not the root file system of the disk: {init}");
        }
        // No driver and no process complains.
        let errors = system.session.shell_ok("dmesg --level=emerg,alert,crit,err", SOON)?;
        // The virtio console is a module of the initramfs: there is none when the kernel first looks.
        let expected = "Warning: unable to open an initial console.";
        if errors.lines().any(|line| !line.trim().is_empty() && !line.ends_with(expected)) {
            fail!("the guest's kernel reports errors: {errors}");
        }
        system.power_off()?;
        no_trouble(system)
    });
}

#[test]
fn the_driver_never_sees_a_sector_outside_the_window_and_the_neighbour_stays() {
    with_system("window", None, |system| {
        let window = disk::partition(&system.disk, "debian1")?;
        let neighbour = disk::partition(&system.disk, "neighbour")?;
        let end = disk::partition(&system.disk, "debian2")?.end;
        system.shell()?;
        // Everything that a guest can reach through Linux: the last sectors, a partition that it invents behind them, one
        // that begins inside and ends outside, two far away.
        let sectors = window.end - window.start;
        let session = &mut system.session;
        session.shell_ok(
            &format!("dd if=/dev/vda of=/dev/null bs=512 skip={} count=8 iflag=direct", sectors - 8),
            SOON,
        )?;
        let places = [
            (sectors, 8),
            (sectors - 4, 8),
            (sectors + neighbour.start, 2048),
            (end, 8),
            (1 << 40, 8),
            (1 << 53, 8),
        ];
        for (n, (first, count)) in places.into_iter().enumerate() {
            let n = n + 1;
            session.shell_ok(&format!("addpart /dev/vda {n} {first} {count}"), SOON)?;
            // Of one that straddles the end not even the part inside may be done.
            for command in [
                format!("dd if=/dev/vda{n} of=/dev/null bs=4096 count=1 iflag=direct"),
                format!("dd if=/dev/zero of=/dev/vda{n} bs=4096 count=1 oflag=direct"),
            ] {
                let outcome = session.shell(&format!("{command} 2>&1"), SOON)?;
                if outcome.status == 0 || !outcome.output.contains("Input/output error") {
                    fail!(
                        "sector {first} of {sectors}: `{command}` gave {}: {}",
                        outcome.status,
                        outcome.output
                    );
                }
            }
            session.shell_ok(&format!("delpart /dev/vda {n}"), SOON)?;
        }
        // The guest goes on.
        session.shell_ok("dd if=/dev/zero of=/root/after bs=1M count=4 conv=fsync status=none", SOON)?;
        system.power_off()?;
        no_trouble(system)?;

        disk::check_pattern(&system.disk, &neighbour)?;
        let requests = system.requests()?;
        let mut inside = 0;
        for (write, first, count) in requests {
            if window.start <= first && first + count <= window.end {
                inside += 1;
            } else if write {
                fail!(
                    "QEMU's disk was asked to write {count} sectors at {first}, outside the guest's {window:?}"
                );
            } else if first >= 34 && first + count <= end {
                // blk reads the tables at both ends of the disk itself; nothing else is its business.
                fail!(
                    "QEMU's disk was asked to read {count} sectors at {first}, outside the guest's {window:?}"
                );
            }
        }
        if inside < 100 {
            fail!("only {inside} requests in the guest's window: the trace is not complete");
        }
        Ok(())
    });
}

#[test]
fn the_console_loses_no_output() {
    with_system("console", None, |system| {
        system.shell()?;
        let session = &mut system.session;
        // Out: as fast as the guest can print. 39000 bytes are many times every buffer between it and us.
        let lines = session.shell_ok("seq 1 8000", Duration::from_secs(300))?;
        let expected: String = (1..=8000).map(|n| format!("{n}\n")).collect();
        if lines != expected {
            let at = lines.lines().zip(expected.lines()).position(|(a, b)| a != b);
            fail!(
                "8000 lines were printed; of {} bytes, line {at:?} is the first that is wrong",
                lines.len()
            );
        }
        system.power_off()?;
        no_trouble(system)
    });
}

#[test]
fn what_is_pasted_arrives() {
    with_system("paste", None, |system| {
        system.shell()?;
        let session = &mut system.session;
        // In: pasted in pieces of many times what the UART's FIFO holds, each well below the 8 KiB that are kept for a guest
        // that is slow to read (docs/shell.md).
        let text: String =
            (0..400).map(|n| format!("line {n} of what was pasted, {:032x}\n", n * 7919)).collect();
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        for piece in lines.chunks(50) {
            // Only when `cat` reads does ^D mean the end: before, the shell's line editor has the terminal.
            session.send("stty -echo; echo rea''dy; cat >> /root/pasted\n")?;
            session.expect("ready", SOON)?;
            session.send(&piece.concat())?;
            session.send("\x04stty echo\n")?;
            session.shell_ok("sync", SOON)?;
        }
        let wanted = "wc -lc < /root/pasted; awk '{s += NR * length($0)} END {print s}' /root/pasted";
        let got = session.shell_ok(wanted, SOON)?;
        let sum: usize = text.lines().enumerate().map(|(n, line)| (n + 1) * line.len()).sum();
        let got: Vec<&str> = got.split_whitespace().collect();
        let (lines, bytes, weighted) = ("400".to_owned(), text.len().to_string(), sum.to_string());
        if got != [lines.as_str(), bytes.as_str(), weighted.as_str()] {
            fail!("400 lines ({bytes} bytes, sum {weighted}) were pasted, the guest got {got:?}");
        }
        system.power_off()?;
        no_trouble(system)
    });
}

#[test]
fn a_guest_that_reboots_starts_again_on_its_disk() {
    with_system("reboot", None, |system| {
        system.shell()?;
        system.session.shell_ok("echo kept > /root/kept", SOON)?;
        system.session.send("reboot\n")?;
        system.session.expect("[vmm_debian1] guest reset", SOON)?;
        system.shell()?;
        let kept = system.session.shell_ok("cat /root/kept", SOON)?;
        if kept != "kept\n" {
            fail!("what was written before the reboot is: {kept}");
        }
        system.power_off()?;
        no_trouble(system)
    });
}

#[test]
fn a_guest_that_panics_is_reported_and_starts_again() {
    with_system("panic", None, |system| {
        system.shell()?;
        // The kernel's own crash, with a reset after a second.
        system.session.send("echo 1 > /proc/sys/kernel/panic; echo c > /proc/sysrq-trigger\n")?;
        system.session.expect("Kernel panic - not syncing", SOON)?;
        system.session.expect("[vmm_debian1] guest reset", SOON)?;
        system.session.expect("[supervisor] guest of vmm_debian1 reset, starting again", SOON)?;
        system.shell()?;
        system.power_off()?;
        disk::check_pattern(&system.disk, &disk::partition(&system.disk, "neighbour")?)
    });
}

#[test]
fn an_idle_guest_sleeps() {
    const SECONDS: u64 = 100;
    // Time that passes while the machine idles costs nothing with icount. Start and end of the guest are in the count,
    // some thousand exits: without them it is even less (`make bench` leaves them out).
    let mut total = 0;
    fixture::with_machine("idle", None, &["-icount", "shift=0,sleep=off"], |system| {
        system.shell()?;
        system.session.shell_ok(&format!("sleep {SECONDS}"), BOOT)?;
        system.power_off()?;
        total = exits_total(&system.printed()?)?;
        Ok(())
    });
    assert!(total > 1000, "{total} exits from boot to power-off: they are not counted");
    let rate = total / SECONDS;
    assert!(rate < 300, "{rate} exits per virtual second of an idle guest, {total} in all");
    println!("fewer than {} exits per virtual second of an idle guest", rate + 1);
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
