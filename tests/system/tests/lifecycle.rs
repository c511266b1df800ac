//! The life of a cell (issue 3, docs/shell.md) while its disk is busy, and beside a guest that writes and verifies all the
//! time: every order of the shell, what guests do to themselves, crash policy, watchdog, and many restarts in a row.

use std::{thread, time::Duration};

use partita::{fail, failure::Result, smoke::disk as image};
use partita_system_tests::{
    disk,
    fixture::{self, BOOT, SOON, System, no_trouble, with_system},
};

/// Writes and verifies until told to stop, four files in turn: what is read back from the device, past the caches, must be
/// what was written. Its notes are in RAM but for the sums, so a restarted guest has none.
const LOAD: &str = "(n=0; until [ -e /run/stop ]; do f=/root/load.$((n%4)); \
    a=$(seq $((n*12345)) 99999999 | head -c 2M | tee $f | sha256sum); sync $f; \
    b=$(dd if=$f bs=256k iflag=direct status=none | sha256sum); [ \"$a\" = \"$b\" ] || echo \"$n $a $b\" >> /run/bad; \
    echo \"$a\" > $f.sum; n=$((n+1)); echo $n > /run/rounds; done; touch /run/end) > /dev/null 2>&1 & true";
/// For what takes long on a busy machine.
const LONG: Duration = Duration::from_secs(300);

/// Waits until guest `n` has done two rounds more, of which one was begun after now.
fn goes_on(system: &mut System, n: usize) -> Result {
    // The file is empty for a moment each time, and is not there before the first round is done.
    let wait = "r() { cat /run/rounds 2>/dev/null; }; a=$(r); a=${a:-0}; \
        until b=$(r); [ ${b:-0} -ge $((a+2)) ]; do sleep 0.2; done";
    system.guest(n, wait, LONG).map(drop)
}

/// Guest `n` has booted, on the disk that it had, with RAM that knows nothing of before; its disk is kept busy.
fn begin(system: &mut System, n: usize) -> Result {
    system.alive(n)?;
    system.guest(n, "test ! -e /run/rounds", SOON)?;
    system.guest(n, LOAD, SOON)?;
    goes_on(system, n)
}

/// Ends the load of guest `n`: nothing was read wrong, and the files are what they should be, read from the device again.
fn finish(system: &mut System, n: usize) -> Result {
    // Each of the four files was written, with its sum, since the guest was started last.
    let stop = "until r=$(cat /run/rounds); [ ${r:-0} -ge 4 ]; do sleep 0.2; done; touch /run/stop; \
        until [ -e /run/end ]; do sleep 0.1; done";
    system.guest(n, stop, LONG)?;
    let bad = system.guest(n, "cat /run/bad 2>/dev/null || true", SOON)?;
    if !bad.is_empty() {
        fail!("guest {n} read other than it wrote (round, written, read): {bad}");
    }
    let check = "sync; echo 3 > /proc/sys/vm/drop_caches; \
        for f in /root/load.?; do [ \"$(sha256sum < $f)\" = \"$(cat $f.sum)\" ] && echo good; done; true";
    let good = system.guest(n, check, LONG)?.lines().filter(|line| *line == "good").count();
    if good != 4 {
        fail!("{good} of 4 files of guest {n} have the right hash");
    }
    Ok(())
}

/// The row of a cell in `disks`.
fn disk_row(system: &mut System, name: &str) -> Result<String> {
    let table = system.manage("disks")?;
    match table.lines().find(|line| line.starts_with(name)) {
        Some(row) => Ok(row.split_whitespace().collect::<Vec<_>>().join(" ")),
        None => fail!("`disks` says nothing of {name}: {table}"),
    }
}

/// Every order and everything that a Debian guest does to itself, each in the middle of its writes.
#[test]
fn debian_is_stopped_and_started_in_every_way_while_disks_are_busy() {
    let cells = || Ok([fixture::debian(1, "")?, fixture::debian(2, r#""on_crash": "restart","#)?]);
    let cells = cells().unwrap_or_else(|failure: partita::failure::Failure| panic!("{failure}"));
    let description = fixture::describe("lifecycle", &cells).unwrap_or_else(|failure| panic!("{failure}"));
    with_system("lifecycle", Some(&description), |system| {
        system.session.expect("[blk_", BOOT)?;
        begin(system, 1)?;
        begin(system, 2)?;

        system.order("pause", "debian2", "pauses")?;
        let paused = system.until("debian2", "paused", |cell| cell.state == "paused")?;
        goes_on(system, 1)?;
        // What it had begun is done, and nothing is added.
        let row = disk_row(system, "debian2")?;
        if !row.ends_with(" 0 0") {
            fail!("a paused guest has errors or requests in flight: {row}");
        }
        thread::sleep(Duration::from_secs(1));
        let (later, cell) = (disk_row(system, "debian2")?, system.cell("debian2")?);
        if later != row || cell != paused {
            fail!("a paused guest did something: {row}, {paused:?}; then {later}, {cell:?}");
        }
        system.order("resume", "debian2", "goes on")?;
        system.started("debian2", 0)?;
        goes_on(system, 2)?;

        system.order("stop", "debian2", "stops")?;
        system.until("debian2", "stopped", |cell| cell.state == "stopped" && cell.ended == "-")?;
        goes_on(system, 1)?;
        system.order("start", "debian2", "starts")?;
        system.started("debian2", 1)?;
        begin(system, 2)?;

        system.order("restart", "debian2", "restarts")?;
        system.started("debian2", 2)?;
        begin(system, 2)?;

        system.front(2)?;
        system.session.send("reboot\n")?;
        system.session.expect("[supervisor] guest of vmm_debian2 reset, starting again", LONG)?;
        system.started("debian2", 3)?;
        begin(system, 2)?;

        system.front(2)?;
        system.session.send("poweroff\n")?;
        system.session.expect("[supervisor] guest of vmm_debian2 switched off", LONG)?;
        system.until("debian2", "off", |cell| cell.state == "off" && cell.ended == "power-off")?;
        goes_on(system, 1)?;
        system.order("restart", "debian2", "restarts")?;
        system.started("debian2", 4)?;
        begin(system, 2)?;

        // A load from where nothing is.
        system.front(2)?;
        system.session.send("busybox devmem 0x10000000\n")?;
        let said = [
            "[vmm_debian2] guest crashed: load from nothing at ipa 0x10000000",
            "[supervisor] guest of vmm_debian2 crashed, starting again",
        ];
        system.session.expect_all(&said, SOON)?;
        system.started("debian2", 5)?;
        begin(system, 2)?;

        for n in [2, 1] {
            finish(system, n)?;
        }
        no_trouble(system)?;
        for n in [2, 1] {
            system.front(n)?;
            system.session.send("poweroff\n")?;
            system.session.expect(&format!("guest of vmm_debian{n} switched off"), LONG)?;
        }
        system.session.expect(fixture::POWERED_OFF, SOON)?;
        system.session.wait(SOON)?;
        let windows = ["debian1", "debian2"].map(|label| image::find(&system.disk, label));
        let [first, second] = windows;
        let windows = [first?, second?];
        for window in &windows {
            image::check_file_system(&system.disk, window)?;
        }
        image::check_outside(&system.original, &system.disk, &windows)
    });
}

/// Restarts of a guest that leaves its RAM full and its disk busy each time, most by itself, some by the shell; one that
/// hangs; one that crashes at once. Beside them a Debian guest that notices nothing.
#[test]
fn a_hundred_restarts_a_hang_and_crashes_leave_the_neighbour_alone() {
    let cells = || {
        let disk = |partition: &str, more: &str| {
            format!(r#""disks": [{{ "controller": "disk0", "partition": "{partition}"{more} }}],"#)
        };
        let hang = r#""autostart": false, "watchdog_seconds": 2, "on_hang": "restart","#;
        fixture::describe(
            "restarts",
            &[
                fixture::debian(1, "")?,
                fixture::bare("again", &disk("debian2", ""))?,
                fixture::bare("hang", &(disk("neighbour", r#", "read_only": true"#) + hang))?,
                fixture::bare("crash", r#""autostart": false, "on_crash": "restart","#)?,
            ],
        )
    };
    let description = cells().unwrap_or_else(|failure: partita::failure::Failure| panic!("{failure}"));
    with_system("restarts", Some(&description), |system| {
        system.session.expect("[blk_", BOOT)?;
        begin(system, 1)?;
        let enough = |cell: &partita_system_tests::terminal::Cell| cell.epoch >= 100 || cell.state == "off";
        let cell = system.until_within("again", "restarted 100 times", LONG, enough)?;
        if cell.state == "off" {
            system.front(2)?;
            fail!("the guest gave up: {}", system.session.expect("again: FAIL: ", SOON)?);
        }
        for _ in 0..10 {
            system.order("restart", "again", "restarts")?;
        }
        let before = system
            .order("stop", "again", "stops")
            .and_then(|()| system.until("again", "stopped", |cell| cell.state == "stopped"))?;
        system.order("start", "again", "starts")?;
        let cell = system.until("again", "restarted more", |cell| cell.epoch > before.epoch + 3)?;
        println!("{} restarts of a guest with its disk busy", cell.epoch);
        system.order("stop", "again", "stops")?;
        system.until("again", "stopped", |cell| cell.state == "stopped")?;
        // Its own words: it found RAM clear and the disk as it must be, each time.
        system.front(2)?;
        system.session.expect("again: run ", SOON)?;
        if system.printed()?.contains("again: FAIL") {
            fail!("the guest complains");
        }
        goes_on(system, 1)?;

        system.order("start", "hang", "starts")?;
        for _ in 0..2 {
            system.session.expect("hang hangs: no sign of life for 2 s, starting again", SOON)?;
        }
        system.order("stop", "hang", "stops")?;
        system.until("hang", "stopped", |cell| cell.state == "stopped" && cell.epoch >= 2)?;

        // Five restarts in quick succession, then it is left alone.
        system.order("start", "crash", "starts")?;
        system.until("crash", "left alone", |cell| cell.state == "crashed" && cell.epoch == 6)?;

        goes_on(system, 1)?;
        finish(system, 1)?;
        system.front(1)?;
        system.session.send("poweroff\n")?;
        system.session.expect("guest of vmm_debian1 switched off", LONG)?;
        // One cell has crashed, as it should.
        if system.shutdown()? {
            fail!("the system does not say that a cell crashed");
        }

        image::check_file_system(&system.disk, &image::find(&system.disk, "debian1")?)?;
        disk::check_pattern(&system.disk, &disk::partition(&system.disk, "neighbour")?)?;
        let (window, end) =
            (disk::partition(&system.disk, "neighbour")?, disk::partition(&system.disk, "debian2")?.end);
        for (write, first, count) in system.requests()? {
            if write
                && (first < 2048 || first + count > end || first + count > window.start && first < window.end)
            {
                fail!("QEMU's disk was asked to write {count} sectors at {first}");
            }
        }
        Ok(())
    });
}
