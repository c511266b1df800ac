//! Services that die under the guests that use them.

use std::time::Duration;

use partita::{failure::Result, session::Session};
use partita_system_tests::{
    fixture::{self, SOON, System},
    soak,
};

/// In this time a guest gets its errors.
const ERRORS: Duration = Duration::from_secs(60);

/// Brings the management shell to the front, gives a command and waits for what must come.
fn order(session: &mut Session, command: &str, expected: &str) -> Result<String> {
    session.send("\x1d0")?;
    session.expect("[console] management shell", SOON)?;
    session.send(&format!("{command}\r"))?;
    session.expect(expected, SOON)
}

fn back(session: &mut Session) -> Result {
    session.send("\x1d1")?;
    session.expect("[console] guest 1: debian1", SOON).map(drop)
}

/// blk, timer, ivc, console and a VMM die under verified I/O of two guests; the other guest does not notice the VMM's.
#[test]
fn a_short_soak() {
    let result = fixture::context(None).and_then(|context| soak::run(context, 25));
    result.unwrap_or_else(|failure| panic!("{failure}"));
}

/// One guest: what it wrote before, while and after its services died is there; its sleeps end; the shell answers.
#[test]
fn services_die_and_a_guest_sees_a_delay() {
    let run = || -> Result {
        let mut system = System::start("restart", None, &[])?;
        system.shell()?;
        let session = &mut system.session;
        session.shell_ok("dd if=/dev/urandom of=/root/r bs=1M count=8 conv=fsync status=none; sha256sum /root/r > /root/r.sum", SOON)?;
        session.shell_ok(
            "(while [ ! -e /run/stop ]; do dd if=/dev/urandom of=/root/w bs=256k count=16 oflag=direct status=none || touch /run/bad; done; touch /run/end) > /dev/null 2>&1 & true",
            SOON,
        )?;
        order(session, "kill blk_disk0 40 50", "kill blk_disk0: done; kills=40")?;
        session.expect("restart 40, away for ", SOON)?;
        order(session, "kill timer 10 50", "restart 10, away for ")?;
        order(session, "kill console", "console restarted: ")?;
        // It shows what it showed before, and takes what is typed.
        order(session, "services", "last stopped because")?;
        back(session)?;
        session.shell_ok(
            "sleep 1; touch /run/stop; while [ ! -e /run/end ]; do sleep 0.2; done; test ! -e /run/bad",
            SOON,
        )?;
        session.shell_ok("echo 3 > /proc/sys/vm/drop_caches; sha256sum -c /root/r.sum", SOON)?;
        session.shell_ok("! dmesg | grep -E 'I/O error|EXT4-fs error|is not a head'", SOON)?;
        system.power_off()
    };
    run().unwrap_or_else(|failure| panic!("{failure}"));
}

/// A driver that dies again and again by its own fault is held and said so. Its guest does not wait for ever: what it has in
/// flight and asks for then ends in I/O errors. Started by hand, the driver works again, and so does the guest's disk.
#[test]
fn who_dies_too_often_is_held_until_somebody_starts_it() {
    let run = || -> Result {
        let mut system = System::start("held", None, &[])?;
        system.shell()?;
        let session = &mut system.session;
        // All programs are on the disk: what is needed later is in the cache then, or a part of the shell.
        session.shell_ok("dd if=/dev/vda of=/dev/null bs=64k count=16 iflag=direct", SOON)?;
        let output = order(
            session,
            "kill blk_disk0 5 400 own",
            "blk_disk0 is held: it faulted, 5 deaths within 60 s; requests get errors until",
        )?;
        assert!(output.contains("PD blk_disk0 stopped: "), "reported with its registers: {output}");
        assert!(output.contains("it pauses before its restart"), "{output}");
        order(session, "services", "refusing")?;
        back(session)?;
        session.answers(SOON)?;
        session.send("dd if=/dev/vda of=/dev/null bs=64k count=16 iflag=direct || echo failed$((1+1))\n")?;
        session.expect("failed2", ERRORS)?;
        order(session, "restart blk_disk0", "blk_disk0 restarted: as ordered")?;
        back(session)?;
        session.shell_ok("dd if=/dev/vda of=/dev/null bs=64k count=16 iflag=direct", SOON)?;
        order(session, "stop debian1", "debian1: stops")?;
        session.send("shutdown\r")?;
        // PDs have faulted, which is said.
        session.expect("[supervisor] power off: FAILED: 0 cells crashed, 5 PDs faulted", SOON)?;
        session.wait(SOON)
    };
    run().unwrap_or_else(|failure| panic!("{failure}"));
}
