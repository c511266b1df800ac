//! `partita smoke`: one scripted session that shows the whole path of a guest's disk, and a look at the disk afterwards.
//!
//! The guest works on a copy of its disk. Inside: a shell on the ext4 root, 64 MiB of random data written, synced, read
//! back from the device with the caches dropped, and requests beyond the guest's window, which must end in I/O errors.
//! Afterwards, on the host: the file system is clean, the file has the same hash, and not one byte outside the guest's
//! window differs from the original.

pub mod disk;

use std::{path::Path, process::Command, time::Duration};

use partita_config::{Cell, Config, Partition};

use crate::{
    build, context::Context, fail, failure::Result, process, process::Progress, qemu, session::Session, tools,
};

/// Name of the file that the guest writes.
const FILE: &str = "/root/smoke.bin";
/// Its size.
const MIB: u64 = 64;
/// An emulated guest on a busy machine is slow.
const LONG: Duration = Duration::from_secs(300);
const SHORT: Duration = Duration::from_secs(60);

/// Builds, runs, checks; prints `smoke: ok`.
///
/// # Errors
/// The first thing that is not as it must be.
pub fn run(context: &Context) -> Result {
    tools::require(context, &[tools::QEMU])?;
    tools::require(context, tools::DISK)?;
    let built = build::build(context)?;
    let text = context.read_description()?;
    let config = context.parse(&text)?;
    let (cell, label) = first_cell(&config)?;
    let Some(original) = qemu::disk(context)? else {
        fail!("the description has no disk controller; the smoke test needs one");
    };
    let out = built.out.join("smoke");
    build::create(&out)?;
    let copy = out.join("disk.img");
    let mut cp = Command::new("cp");
    cp.args(["--sparse=always", "--reflink=auto"]).arg(&original).arg(&copy);
    process::run("Copying the disk", &mut cp)?;
    let window = disk::find(&copy, label)?;

    let machine = qemu::Machine::new(context, &built, Some(copy.clone()))?;
    let log = out.join("serial.log");
    let progress = Progress::new(&format!("Running the guest (all output: {})", log.display()));
    let hash = in_guest(&mut machine.command(), &log, cell, &window, &progress);
    progress.end(hash.is_ok());
    let hash = hash?;

    let progress = Progress::new("Checking the disk");
    let checked = disk::check_file_system(&copy, &window)
        .and_then(|()| disk::check_file(&copy, &window, FILE, &out.join("smoke.bin"), &hash))
        .and_then(|()| disk::check_outside(&original, &copy, &window));
    progress.end(checked.is_ok());
    checked?;
    println!(
        "  host: e2fsck finds {label} clean, {FILE} has the same hash, nothing outside {label} has changed"
    );
    println!("smoke: ok");
    Ok(())
}

/// The first cell, and the label of the partition behind its first disk.
fn first_cell<'a>(config: &'a Config<'a>) -> Result<(&'a Cell<'a>, &'a str)> {
    for cell in &config.cells {
        if let Some(disk) = cell.disks.first()
            && let Partition::Label(label) = disk.partition
        {
            return Ok((cell, label));
        }
    }
    fail!("the smoke test needs a cell whose first disk is a labelled GPT partition");
}

/// The session; the hash of the written file.
fn in_guest(
    command: &mut Command,
    log: &Path,
    cell: &Cell<'_>,
    window: &disk::Window,
    progress: &Progress,
) -> Result<String> {
    let mut session = Session::start(command, log)?;
    progress.detail("booting");
    session.expect(&format!("root@{}:~#", cell.name), LONG)?;

    progress.detail("looking at the root file system");
    let root = session.shell_ok("grep ' / ' /proc/mounts", SHORT)?;
    if !root.contains("/dev/vda / ext4") {
        fail!("the guest's root is not ext4 on /dev/vda but: {}", root.trim());
    }
    let sectors = session.shell_ok("blockdev --getsz /dev/vda", SHORT)?;
    if !sectors.lines().any(|line| line.trim() == window.sectors.to_string()) {
        fail!("the guest's /dev/vda has {} sectors; its partition has {}", sectors.trim(), window.sectors);
    }
    println!("  guest: shell on ext4, /dev/vda, {} sectors", window.sectors);

    progress.detail("writing");
    session
        .shell_ok(&format!("dd if=/dev/urandom of={FILE} bs=1M count={MIB} conv=fsync status=none"), LONG)?;
    let hash = session.shell_ok(&format!("sha256sum {FILE}"), LONG).and_then(|text| sha256(&text))?;
    session.shell_ok("sync", LONG)?;
    session.shell_ok("echo 3 > /proc/sys/vm/drop_caches", SHORT)?;
    progress.detail("reading back");
    let before = sectors_read(&mut session)?;
    let again = session.shell_ok(&format!("sha256sum {FILE}"), LONG).and_then(|text| sha256(&text))?;
    let read = sectors_read(&mut session)?.saturating_sub(before) / 2048;
    if again != hash {
        fail!("the guest wrote a file of hash {hash} and read one of hash {again}");
    }
    if read < MIB {
        fail!("only {read} MiB were read from the disk: the caches were not dropped");
    }
    println!("  guest: wrote {MIB} MiB, read them back from the device, same sha256");

    progress.detail("reaching beyond the window");
    beyond(&mut session, window)?;
    println!("  guest: sectors beyond its window give I/O errors");

    progress.detail("powering off");
    session.send("poweroff\n")?;
    let (which, why) =
        session.expect_any(&["[supervisor] power off: ok", "[supervisor] power off: FAILED"], LONG)?;
    if which != 0 {
        fail!("the system did not power off: {}", why.lines().last().unwrap_or_default());
    }
    session.wait(SHORT)?;
    println!("  guest: powered off by PSCI, the machine with it");
    Ok(hash)
}

/// Linux itself refuses sectors beyond a disk's end, but not those of a partition that it was told reaches there.
fn beyond(session: &mut Session, window: &disk::Window) -> Result {
    session.shell_ok(&format!("addpart /dev/vda 1 {} 2048", window.sectors), SHORT)?;
    session.shell_ok("test -b /dev/vda1", SHORT)?;
    let attempts = [
        ("read", "dd if=/dev/vda1 of=/dev/null bs=4096 count=1 iflag=direct"),
        ("write", "dd if=/dev/zero of=/dev/vda1 bs=4096 count=1 oflag=direct"),
    ];
    for (what, command) in attempts {
        let outcome = session.shell(&format!("{command} 2>&1"), SHORT)?;
        if outcome.status == 0 {
            fail!("a {what} beyond the guest's window succeeded");
        }
        if !outcome.output.contains("Input/output error") {
            fail!(
                "a {what} beyond the guest's window ended otherwise than by an I/O error: {}",
                outcome.output.trim()
            );
        }
    }
    session.shell_ok("delpart /dev/vda 1", SHORT).map(drop)
}

/// Sectors that the guest has read from its disk so far.
fn sectors_read(session: &mut Session) -> Result<u64> {
    let text = session.shell_ok("cat /sys/block/vda/stat", SHORT)?;
    match text.split_whitespace().nth(2).and_then(|word| word.parse().ok()) {
        Some(sectors) => Ok(sectors),
        None => fail!("the guest's /sys/block/vda/stat is not understood: {}", text.trim()),
    }
}

/// The hash in sha256sum's output.
fn sha256(text: &str) -> Result<String> {
    let is_hash = |word: &&str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    match text.split_whitespace().find(is_hash) {
        Some(hash) => Ok(hash.to_owned()),
        None => fail!("sha256sum printed no hash: {}", text.trim()),
    }
}
