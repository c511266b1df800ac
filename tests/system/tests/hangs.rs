//! Services that spin: who is hung is found, started again, and nobody loses anything.

use std::{fs, path::PathBuf, time::Duration};

use partita::failure::Result;
use partita_system_tests::{
    fixture::{self, SOON, System},
    memory::{self, Memory},
    spin::Spin,
};

/// Time enough for five unanswered pings and a restart.
const NOTICED: Duration = Duration::from_secs(90);

/// Runs a Debian guest whose memory can be written from outside.
fn with_memory(name: &str, test: impl FnOnce(&mut System, &mut Memory, &dyn Fn(&str) -> PathBuf) -> Result) {
    let run = || -> Result {
        let socket = memory::socket(name);
        let arguments = memory::arguments(&socket);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut system = System::start(name, None, &arguments)?;
        let out = fixture::one_guest()?.out();
        system.shell()?;
        let mut memory = Memory::connect(&socket)?;
        test(&mut system, &mut memory, &|pd| out.join(format!("{pd}.elf")))?;
        // Large; a failed test's is kept.
        let _ = fs::remove_file(&system.disk);
        Ok(())
    };
    run().unwrap_or_else(|failure| panic!("{name}: {failure}"));
}

/// The timer spins above everybody but the supervisor: only `pulse` is left to say so.
#[test]
fn a_timer_that_spins_is_started_again() {
    with_memory("spin-timer", |system, memory, program| {
        system.session.shell_ok("dmesg -n 1; sleep 0.2", SOON)?;
        let spin = Spin::begin(memory, &program("timer"))?;
        // While it spins nobody else runs, so what the supervisor says is printed when it has given up.
        system.session.expect("timer restarted: it hung", NOTICED)?;
        system.session.expect("timer is held: it hung", NOTICED)?;
        spin.end(memory)?;
        system.session.send("\x1d0")?;
        system.session.expect("[console] management shell", SOON)?;
        system.session.send("restart timer\r")?;
        system.session.expect("timer restarted: as ordered", SOON)?;
        system.session.send("\x1d1")?;
        system.session.expect("[console] guest 1: debian1", SOON)?;
        system.session.shell_ok("sleep 0.5", SOON)?;
        system.session.send("poweroff\n")?;
        system.session.expect("[supervisor] power off: FAILED: 0 cells crashed, ", SOON)?;
        system.session.wait(SOON)
    });
}

/// The driver spins in the middle of the guest's I/O. It is started again, and once it works again all is done.
#[test]
fn a_disk_driver_that_spins_is_started_again() {
    with_memory("spin-blk", |system, memory, program| {
        system.session.shell_ok("dd if=/dev/urandom of=/root/r bs=1M count=4 conv=fsync status=none; sha256sum /root/r > /root/r.sum; sync", SOON)?;
        let spin = Spin::begin(memory, &program("blk"))?;
        system
            .session
            .send("echo 3 > /proc/sys/vm/drop_caches; sha256sum -c /root/r.sum && touch /run/read\n")?;
        system.session.expect("blk_disk0 restarted: it hung, 5 pings unanswered", NOTICED)?;
        spin.end(memory)?;
        // The shell takes the next command when the one above has ended.
        system.session.shell_ok("test -e /run/read", SOON)?;
        system.session.shell_ok("! dmesg | grep -E 'I/O error|EXT4-fs error|is not a head'", SOON)?;
        system.session.send("poweroff\n")?;
        // A PD has hung, perhaps more than once, which is said.
        system.session.expect("[supervisor] power off: FAILED: 0 cells crashed, ", SOON)?;
        system.session.wait(SOON)
    });
}
