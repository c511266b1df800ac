//! What happens inside the guests of a smoke test.
//!
//! One terminal, several guests: the script brings a guest to the front before it speaks to it. What must go on
//! meanwhile runs in the background of the others' shells and leaves files that are looked at later.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{LONG, SHORT, Subject, Written};
use crate::{fail, failure::Result, process::Progress, session::Session};

/// Files that each guest writes, again and again.
const FILES: u64 = 4;
/// Size of each.
const MIB: u64 = 16;
/// How often progress is looked at.
const POLL: Duration = Duration::from_millis(500);

/// Writes until told to stop. The state is in files: the shell stays free, and another guest may be in front.
const WRITER: &str = "(n=0; until [ -e /run/smoke.stop ]; do f=/root/smoke.$((n%4)); \
    dd if=/dev/urandom of=$f bs=1M count=16 conv=fsync status=none && sha256sum $f > $f.sum || touch /run/smoke.bad; \
    n=$((n+1)); echo $n > /run/smoke.rounds; done; touch /run/smoke.end) > /dev/null 2>&1 & true";

/// Prompt of the management shell.
const SHELL: &str = "partita> ";

/// The terminal, and who is in front.
struct Terminal<'a> {
    session: Session,
    subjects: &'a [Subject<'a>],
    front: Option<usize>,
}

/// Runs the session up to the power-off of the machine; the files that each guest has written.
pub fn run(session: Session, subjects: &[Subject<'_>], progress: &Progress) -> Result<Vec<Vec<Written>>> {
    let mut terminal = Terminal { session, subjects, front: None };
    let guests = || 0..subjects.len();
    progress.detail("booting");
    // From the first log line on, console takes what is typed.
    terminal.session.expect("[blk_", LONG)?;
    for n in guests() {
        terminal.wait_for_shell(n)?;
        terminal.look_at_root(n)?;
    }

    progress.detail("writing");
    for n in guests() {
        terminal.shell(n, WRITER, SHORT)?;
    }
    for n in guests() {
        terminal.wait_for_rounds(n, FILES)?;
    }
    let at_once = if subjects.len() > 1 { "all at once, " } else { "" };
    println!("  guests: {at_once}{FILES} files of {MIB} MiB written and synced by each");

    let last = subjects.len() - 1;
    terminal.stop_writing(last)?;
    let written_by_last = terminal.hashes(last)?;
    progress.detail(&format!("restarting {}", subjects[last].name));
    let before: Vec<u64> = (0..last).map(|n| terminal.rounds(n)).collect::<Result<_>>()?;
    terminal.restart(last)?;
    terminal.verify(last, &written_by_last)?;
    println!(
        "  guest {}: restarted from the management shell, same hashes read from its disk",
        subjects[last].name
    );
    for (n, before) in before.into_iter().enumerate() {
        terminal.wait_for_rounds(n, before + 1)?;
        let rounds = terminal.rounds(n)? - before;
        println!("  guest {}: went on writing meanwhile ({rounds} more files)", subjects[n].name);
    }

    let mut written = Vec::new();
    for n in 0..last {
        progress.detail("reading back");
        terminal.stop_writing(n)?;
        let hashes = terminal.hashes(n)?;
        terminal.read_back(n, &hashes)?;
        written.push(hashes);
    }
    written.push(written_by_last);
    for n in guests() {
        progress.detail("reaching beyond the window");
        terminal.beyond(n)?;
    }
    println!("  guests: sectors beyond their windows give I/O errors");

    progress.detail("powering off");
    terminal.power_off()?;
    println!("  guests: powered off by PSCI, the machine with them");
    Ok(written)
}

impl Terminal<'_> {
    /// Brings a guest to the front.
    fn bring(&mut self, n: usize) -> Result {
        if self.front == Some(n) {
            return Ok(());
        }
        let subject = &self.subjects[n];
        let guest = subject.cell + 1;
        self.session.key(
            &format!("\x1d{guest}"),
            &format!("[console] guest {guest}: {}", subject.name),
            SHORT,
        )?;
        self.front = Some(n);
        Ok(())
    }

    /// A command that must succeed, in the shell of a guest.
    fn shell(&mut self, n: usize, command: &str, within: Duration) -> Result<String> {
        self.bring(n)?;
        self.session.shell_ok(command, within)
    }

    fn wait_for_shell(&mut self, n: usize) -> Result {
        self.bring(n)?;
        self.session.answers(LONG).map(drop)
    }

    fn look_at_root(&mut self, n: usize) -> Result {
        let Subject { name, window, .. } = self.subjects[n];
        let root = self.shell(n, "grep ' / ' /proc/mounts", SHORT)?;
        if !root.contains("/dev/vda / ext4") {
            fail!("the root of {name} is not ext4 on /dev/vda but: {}", root.trim());
        }
        let sectors = self.shell(n, "blockdev --getsz /dev/vda", SHORT)?;
        if !sectors.lines().any(|line| line.trim() == window.sectors.to_string()) {
            fail!(
                "the /dev/vda of {name} has {} sectors; its partition has {}",
                sectors.trim(),
                window.sectors
            );
        }
        println!("  guest {name}: shell on ext4, /dev/vda, {} sectors", window.sectors);
        Ok(())
    }

    /// Files that the guest's writer has finished.
    fn rounds(&mut self, n: usize) -> Result<u64> {
        let text = self.shell(n, "cat /run/smoke.rounds 2>/dev/null || echo 0", SHORT)?;
        // The writer may be about to write the file: then it is empty.
        Ok(text.split_whitespace().find_map(|word| word.parse().ok()).unwrap_or(0))
    }

    /// Waits until `test` holds in the guest.
    fn wait_until(&mut self, n: usize, what: &str, test: impl Fn(&mut Self) -> Result<bool>) -> Result {
        let end = Instant::now() + LONG;
        while !test(self)? {
            if Instant::now() > end {
                fail!("{}: waited {} s in vain for {what}", self.subjects[n].name, LONG.as_secs());
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    fn wait_for_rounds(&mut self, n: usize, rounds: u64) -> Result {
        self.wait_until(n, "its writer", |terminal| Ok(terminal.rounds(n)? >= rounds))
    }

    fn stop_writing(&mut self, n: usize) -> Result {
        self.shell(n, "touch /run/smoke.stop", SHORT)?;
        self.wait_until(n, "the end of its writer", |terminal| {
            Ok(terminal.shell(n, "test -e /run/smoke.end && echo ended || true", SHORT)?.contains("ended"))
        })?;
        self.shell(n, "test ! -e /run/smoke.bad", SHORT)?;
        self.shell(n, "sync", LONG).map(drop)
    }

    /// What the writer has noted.
    fn hashes(&mut self, n: usize) -> Result<Vec<Written>> {
        (0..FILES)
            .map(|number| {
                let file = format!("/root/smoke.{number}");
                let hash = sha256(&self.shell(n, &format!("cat {file}.sum"), SHORT)?)?;
                Ok(Written { file, hash })
            })
            .collect()
    }

    /// The files have these hashes, as the guest reads them now.
    fn verify(&mut self, n: usize, written: &[Written]) -> Result {
        for Written { file, hash } in written {
            let again = sha256(&self.shell(n, &format!("sha256sum {file}"), LONG)?)?;
            if again != *hash {
                fail!(
                    "{} wrote {file} with the hash {hash} and reads one of hash {again}",
                    self.subjects[n].name
                );
            }
        }
        Ok(())
    }

    /// [`Terminal::verify`] with caches dropped, and shown to have been read from the device.
    fn read_back(&mut self, n: usize, written: &[Written]) -> Result {
        let name = self.subjects[n].name;
        self.shell(n, "echo 3 > /proc/sys/vm/drop_caches", SHORT)?;
        let before = self.sectors_read(n)?;
        self.verify(n, written)?;
        let read = self.sectors_read(n)?.saturating_sub(before) / 2048;
        if read < FILES * MIB {
            fail!("{name}: only {read} MiB were read from the disk: the caches were not dropped");
        }
        println!("  guest {name}: read {} MiB back from the device, same sha256", FILES * MIB);
        Ok(())
    }

    /// Sectors that the guest has read from its disk so far.
    fn sectors_read(&mut self, n: usize) -> Result<u64> {
        let text = self.shell(n, "cat /sys/block/vda/stat", SHORT)?;
        match text.split_whitespace().nth(2).and_then(|word| word.parse().ok()) {
            Some(sectors) => Ok(sectors),
            None => fail!("the guest's /sys/block/vda/stat is not understood: {}", text.trim()),
        }
    }

    /// Has the management shell restart the guest, and waits for its shell.
    ///
    /// So that its old life is not taken for the new one, that does not answer any more.
    fn restart(&mut self, n: usize) -> Result {
        let name = self.subjects[n].name;
        self.bring(n)?;
        self.session.send("printf '@@%s@@\\n' waiting; sleep 3600\n")?;
        self.session.expect("@@waiting@@", SHORT)?;
        self.session.send("\x1d0")?;
        self.front = None;
        self.session.expect(SHELL, SHORT)?;
        self.session.send(&format!("restart {name}\r"))?;
        self.session.expect(&format!("{name}: restarts"), SHORT)?;
        self.wait_for_shell(n)
    }

    /// Linux itself refuses sectors beyond a disk's end, but not those of a partition that it was told reaches there.
    fn beyond(&mut self, n: usize) -> Result {
        let Subject { name, window, .. } = self.subjects[n];
        self.shell(n, &format!("addpart /dev/vda 1 {} 2048", window.sectors), SHORT)?;
        self.shell(n, "test -b /dev/vda1", SHORT)?;
        let attempts = [
            ("read", "dd if=/dev/vda1 of=/dev/null bs=4096 count=1 iflag=direct"),
            ("write", "dd if=/dev/zero of=/dev/vda1 bs=4096 count=1 oflag=direct"),
        ];
        for (what, command) in attempts {
            let outcome = self.session.shell(&format!("{command} 2>&1"), SHORT)?;
            if outcome.status == 0 {
                fail!("{name}: a {what} beyond its window succeeded");
            }
            if !outcome.output.contains("Input/output error") {
                fail!(
                    "{name}: a {what} beyond its window ended otherwise than by an I/O error: {}",
                    outcome.output.trim()
                );
            }
        }
        self.shell(n, "delpart /dev/vda 1", SHORT).map(drop)
    }

    /// The last guest's power-off is the machine's.
    fn power_off(&mut self) -> Result {
        let subjects = self.subjects;
        for (n, subject) in subjects.iter().enumerate() {
            self.bring(n)?;
            self.session.send("poweroff\n")?;
            if n + 1 < subjects.len() {
                self.session.expect(&format!("{} switched off", subject.name), LONG)?;
            }
        }
        let (which, why) = self
            .session
            .expect_any(&["[supervisor] power off: ok", "[supervisor] power off: FAILED"], LONG)?;
        if which != 0 {
            fail!("the system did not power off: {}", why.lines().last().unwrap_or_default());
        }
        self.session.wait(SHORT)
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
