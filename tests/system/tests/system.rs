//! The default system under QEMU: a Debian guest on its mediated disk, as `make run` starts it.
//!
//! `CONFIG=` and `MICROKIT_SDK=` choose what is tested. Each test has its own machine and its own copy of the disk.

use partita::fail;
use partita_system_tests::{
    disk,
    fixture::{self, SOON, no_trouble, with_system},
};

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
        // Three speakers.
        let said = [
            "Kernel panic - not syncing",
            "[vmm_debian1] guest reset",
            "[supervisor] guest of vmm_debian1 reset, starting again",
        ];
        system.session.expect_all(&said, SOON)?;
        system.shell()?;
        system.power_off()?;
        disk::check_pattern(&system.disk, &disk::partition(&system.disk, "neighbour")?)
    });
}
