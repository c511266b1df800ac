//! `make soak`: services are killed, thousands of times, while two guests write, flush and verify.
//!
//! fio runs in both guests on their root file systems: random writes of 4 to 64 KiB past the page cache, a flush after every
//! eighth, and each block read back and compared with its checksum (`--verify=crc32c`). Meanwhile the management shell's
//! `kill` makes PDs fault wherever the timer's interrupt finds them. What may not happen is counted and ends the run with a
//! failure; all counts are written to `soak.json` in the build directory.
//!
//! At the end bits flip, through QEMU's gdb server, in the memory that is the second guest's: its RAM, with rings, requests
//! and page tables in it, and its registers. It may do what it wants then; the first one must go on and verify.

use std::{
    fmt::Write as _,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use partita::{
    build,
    context::Context,
    fail,
    failure::{Failure, Result},
    qemu::Machine,
    session::Session,
    tools,
};

use crate::{
    disk, flips,
    memory::{self, Memory},
};

const BOOT: Duration = Duration::from_secs(300);
const SOON: Duration = Duration::from_secs(120);
/// A guest that has not finished a round in this time hangs.
const ROUND: Duration = Duration::from_secs(180);
const GUESTS: [&str; 2] = ["debian1", "debian2"];
const CIDS: [u32; 2] = [3, 4];
/// Kills of blk in one go, and milliseconds between them.
const SERIES: u64 = 150;
const EVERY: u64 = 60;
/// Seconds between kills of the second guest's VMM, with which the guest starts again.
const VMM_EVERY: u64 = 120;

/// fio in a loop; each round has other random numbers. The file is kept, so blocks are overwritten again and again.
const WORKLOAD: &str = "(n=0; until [ -e /run/soak.stop ]; do fio --name=v --filename=/root/soak.v --size=8M \
    --bsrange=4k-64k --rw=randwrite --ioengine=libaio --iodepth=16 --direct=1 --fsync=8 --verify=crc32c \
    --verify_fatal=1 --verify_backlog=32 --randseed=$n > /run/soak.out 2>&1 || cat /run/soak.out >> /run/soak.bad; \
    n=$((n+1)); echo $n > /run/soak.rounds; done; touch /run/soak.end) > /dev/null 2>&1 & true";
/// Bytes that one round writes and verifies.
const ROUND_BYTES: u64 = 8 << 20;

/// Bits that flip, in steps between which the first guest has to go on.
const FLIPS: u64 = 240;
const FLIPS_AT_ONCE: u64 = 40;

/// What a kernel says of a disk that failed it, or of itself.
const COMPLAINTS: &str = "I/O error|EXT4-fs (error|warning)|JBD2: .*error|is not a head|id [0-9]+ out of range|blocked for more than|Oops|BUG:";

/// What happened.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// PDs killed.
    pub kills: u64,
    /// Of them, in the middle of their work (not in a receive).
    pub at_work: u64,
    /// Of them, blk with requests in flight.
    pub in_flight: u64,
    /// Kills by PD.
    pub by_pd: Vec<(String, u64)>,
    /// Restarts that the supervisor told of, and the milliseconds that they took.
    pub away: Vec<f64>,
    /// Blocks that were acknowledged and are not there.
    pub lost: u64,
    /// Blocks that are not as they were written.
    pub corrupt: u64,
    /// Errors that a guest saw.
    pub guest_errors: u64,
    /// Guests or services that did not go on.
    pub hangs: u64,
    /// PDs that faulted without being killed, or were held.
    pub faults: u64,
    /// Bits that flipped in the second guest's RAM and registers.
    pub flips: u64,
    /// Rounds of fio, in both guests.
    pub rounds: u64,
    /// How long it took.
    pub seconds: u64,
}

impl Counts {
    /// Nothing happened that may not.
    pub fn good(&self) -> bool {
        self.kills > 0
            && self.rounds > 0
            && self.flips > 0
            && [self.lost, self.corrupt, self.guest_errors, self.hangs, self.faults] == [0; 5]
    }

    /// Takes in what the machine printed.
    pub fn read(&mut self, output: &str) {
        for line in output.lines() {
            if let Some((_, rest)) = line.split_once("; kills=") {
                let mut numbers =
                    rest.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse::<u64>().ok());
                let mut next = || numbers.next().unwrap_or(0);
                let (kills, at_work, in_flight) = (next(), next(), next());
                self.kills += kills;
                self.at_work += at_work;
                self.in_flight += in_flight;
                let pd =
                    line.split_once("kill ").map_or("", |(_, rest)| rest.split(':').next().unwrap_or(""));
                match self.by_pd.iter_mut().find(|(name, _)| name == pd) {
                    Some((_, count)) => *count += kills,
                    None => self.by_pd.push((pd.into(), kills)),
                }
            } else if let Some((_, rest)) = line.split_once("away for ") {
                self.away.extend(rest.trim_end_matches(" ms").parse::<f64>());
            } else if line.contains(" is held: ")
                || line.contains("PD ") && (line.contains(" stopped: ") || line.contains(" panicked"))
            {
                self.faults += 1;
            }
        }
    }

    /// Sorts what fio said.
    pub fn read_fio(&mut self, bad: &str) {
        for line in bad.lines() {
            if line.contains("bad header") || line.contains("bad magic") {
                self.lost += 1;
            } else if line.contains("verify failed") || line.contains("verify: bad") {
                self.corrupt += 1;
            } else if line.contains("error=") || line.contains("Input/output error") {
                self.guest_errors += 1;
            }
        }
    }

    /// As `soak.json` has it.
    pub fn json(&self, kernel: &str) -> String {
        let mut text = String::from("{\n");
        for (name, value) in [
            ("kills", self.kills),
            ("kills_at_work", self.at_work),
            ("kills_in_flight", self.in_flight),
            ("lost", self.lost),
            ("corrupt", self.corrupt),
            ("guest_errors", self.guest_errors),
            ("hangs", self.hangs),
            ("faults", self.faults),
            ("flips", self.flips),
            ("rounds", self.rounds),
            ("verified_bytes", self.rounds * ROUND_BYTES),
            ("seconds", self.seconds),
        ] {
            let _ = writeln!(text, "  \"{name}\": {value},");
        }
        let (middle, longest) = self.times();
        let _ = writeln!(text, "  \"away_ms_median\": {middle:.3},\n  \"away_ms_max\": {longest:.3},");
        let by: Vec<String> = self.by_pd.iter().map(|(pd, count)| format!("\"{pd}\": {count}")).collect();
        let _ = writeln!(text, "  \"by_pd\": {{ {} }},", by.join(", "));
        text + &format!("  \"kernel\": \"{kernel}\"\n}}\n")
    }

    /// Median and maximum of the restarts, in milliseconds.
    pub fn times(&self) -> (f64, f64) {
        let mut away = self.away.clone();
        away.sort_by(f64::total_cmp);
        (away.get(away.len() / 2).copied().unwrap_or(0.0), away.last().copied().unwrap_or(0.0))
    }
}

struct Soak {
    session: Session,
    counts: Counts,
    /// Rounds of each guest that were seen.
    rounds: [u64; 2],
    /// Writes that each guest's disk had done when last asked.
    written: [u64; 2],
    marks: u32,
    memory: Memory,
    /// The text of report.txt.
    report: String,
    random: u64,
}

/// Runs it for so many seconds.
///
/// # Errors
/// The build's, QEMU's; something happened that may not.
pub fn run(mut context: Context, seconds: u64) -> Result {
    describe(&mut context)?;
    tools::require(&context, &[tools::QEMU])?;
    let built = build::build(&context)?;
    build::guest_recipe(&context, "disk")?;
    let dir = context.build_dir().join("test");
    build::create(&dir)?;
    let disk = dir.join("soak.img");
    disk::copy_sparse(&context.guest_dir().join("disk.img"), &disk)?;
    let mut machine = Machine::new(&context, &built, Some(disk.clone()))?;
    let socket = memory::socket("soak");
    machine.arguments.extend(memory::arguments(&socket));
    let mut session = Session::start(&mut machine.command(), &dir.join("soak.log"))?;
    let report = built.out.join("report.txt");
    let report = std::fs::read_to_string(&report).map_err(|error| Failure::file("read", &report, &error))?;
    session.expect("[blk_", BOOT)?;
    let memory = Memory::connect(&socket)?;
    let mut soak = Soak {
        session,
        counts: Counts::default(),
        rounds: [0; 2],
        written: [0; 2],
        marks: 0,
        memory,
        report,
        random: 0x9e37_79b9_7f4a_7c15,
    };
    let result = soak.go(seconds);
    if result.is_err() {
        soak.counts.hangs += 1;
    }
    let kernel = kernel(&context);
    let counts = soak.counts;
    drop(soak.session);
    let _ = std::fs::remove_file(&disk);
    let json = counts.json(&kernel);
    let path = context.build_dir().join("soak.json");
    build::write(&path, json.as_bytes())?;
    print!("{json}");
    result?;
    if !counts.good() {
        fail!("something was lost, failed or hung: see above and {}", dir.join("soak.log").display());
    }
    println!("{} kills, nothing lost", counts.kills);
    Ok(())
}

/// Which kernel this was.
fn kernel(context: &Context) -> String {
    let embedded = |sdk: &PathBuf| sdk.join("EMBEDDED").exists();
    let kind = match &context.options.microkit_sdk {
        Some(sdk) if !embedded(sdk) => "seL4",
        _ => "embedded",
    };
    format!("{kind} {}", context.config)
}

/// Two guests that are started again when their VMM dies.
fn describe(context: &mut Context) -> Result {
    let file = |name: &str| context.guest_dir().join(name).display().to_string();
    let cell = |(n, name): (usize, &str)| {
        format!(
            r#"{{ "name": "{name}", "cid": {}, "memory": "256M", "kernel": "{}", "initrd": "{}", "on_crash": "restart",
      "cmdline": "console=hvc0 root=/dev/vda rw", "disks": [{{ "controller": "disk0", "partition": "{name}" }}] }}"#,
            CIDS[n],
            file("Image"),
            file("initrd.gz")
        )
    };
    let cells: Vec<String> = GUESTS.into_iter().enumerate().map(cell).collect();
    let text = format!(
        "{{\n  \"controllers\": [{{ \"name\": \"disk0\", \"kind\": \"virtio-mmio\", \"slot\": 0, \"timeout_ms\": 60000 }}],\n  \"cells\": [{}]\n}}\n",
        cells.join(",\n    ")
    );
    let dir = context.build_dir().join("test");
    build::create(&dir)?;
    context.options.description = dir.join("soak-system.json");
    build::write(&context.options.description, text.as_bytes())
}

impl Soak {
    fn go(&mut self, seconds: u64) -> Result {
        for n in 0..GUESTS.len() {
            self.wait_for_shell(n)?;
            self.shell(n, "dd if=/dev/urandom of=/root/soak.ref bs=1M count=8 conv=fsync status=none && sha256sum /root/soak.ref > /root/soak.sum && sync")?;
            self.shell(n, WORKLOAD)?;
        }
        let begin = Instant::now();
        let mut vmm = Duration::from_secs((VMM_EVERY / 2).min(seconds / 2));
        while begin.elapsed().as_secs() < seconds {
            let left = seconds - begin.elapsed().as_secs();
            self.kill("blk_disk0", SERIES.min(left * 1000 / EVERY + 1), EVERY)?;
            self.kill("timer", 5, 50)?;
            self.kill("ivc", 2, 100)?;
            self.kill_console()?;
            for n in 0..GUESTS.len() {
                self.goes_on(n)?;
            }
            if begin.elapsed() > vmm {
                vmm += Duration::from_secs(VMM_EVERY);
                self.kill_vmm()?;
            }
            self.counts.seconds = begin.elapsed().as_secs();
            eprintln!(
                "  {} s: {} kills, {} rounds",
                self.counts.seconds, self.counts.kills, self.counts.rounds
            );
        }
        self.counts.seconds = begin.elapsed().as_secs();
        self.judge(1)?;
        self.flip()?;
        self.judge(0)?;
        self.bring(0)?;
        self.session.send("poweroff\n")?;
        let output = self.session.expect(&format!("{} switched off", GUESTS[0]), SOON)?;
        self.counts.read(&output);
        // The second one is stopped, which keeps the machine on.
        self.session.send("\x1d0")?;
        let output = self.session.expect("[console] management shell", SOON)?;
        self.counts.read(&output);
        self.session.send("shutdown\r")?;
        // The second guest may have crashed.
        let output = self.session.expect("[supervisor] power off: ", SOON)?;
        self.counts.read(&output);
        let end = self.session.expect("\n", SOON)?;
        if end.trim() != "ok" && !end.contains(" 0 PDs faulted") {
            fail!("PDs have faulted: {end}");
        }
        self.session.wait(SOON)
    }

    /// Bits flip in the second guest, which is busy, and the first one goes on.
    fn flip(&mut self) -> Result {
        self.shell(1, "rm -f /run/soak.stop /run/soak.end")?;
        self.shell(1, WORKLOAD)?;
        let before = self.seen(0)?;
        let report = &self.report;
        let places = self.memory.still(|machine| flips::places(report, GUESTS[1], CIDS[1], machine))?;
        while self.counts.flips < FLIPS {
            let mut bits = Vec::new();
            for _ in 0..FLIPS_AT_ONCE {
                let (at, bytes) = places[self.random(places.len() as u64) as usize];
                bits.push((at + self.random(bytes), self.random(8) as u8));
            }
            self.memory.still(|machine| bits.iter().try_for_each(|(at, bit)| machine.flip(*at, *bit)))?;
            self.counts.flips += FLIPS_AT_ONCE;
            self.goes_on(0)?;
        }
        self.wait_for(0, before + 1)?;
        let output = self.order(&format!("stop {}", GUESTS[1]))?;
        self.counts.read(&output);
        eprintln!("  {} bits flipped in {}; {} goes on", self.counts.flips, GUESTS[1], GUESTS[0]);
        Ok(())
    }

    /// xorshift64.
    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below.max(1)
    }

    fn bring(&mut self, n: usize) -> Result {
        self.session.send(&format!("\x1d{}", n + 1))?;
        let output = self.session.expect(&format!("[console] guest {}: {}", n + 1, GUESTS[n]), SOON)?;
        self.counts.read(&output);
        Ok(())
    }

    fn shell(&mut self, n: usize, command: &str) -> Result<String> {
        self.bring(n)?;
        self.session.shell_ok(command, SOON)
    }

    fn wait_for_shell(&mut self, n: usize) -> Result {
        self.bring(n)?;
        let output = self.session.answers(BOOT)?;
        self.counts.read(&output);
        Ok(())
    }

    /// A series of kills, up to the end of the last restart.
    fn kill(&mut self, pd: &str, count: u64, every: u64) -> Result {
        let mut output = self.order(&format!("kill {pd} {count} {every}"))?;
        let end = Instant::now() + SOON + Duration::from_millis(4 * count * every);
        let over = |output: &str| {
            let done = output.split_once(&format!("kill {pd}: done"));
            done.is_some_and(|(_, rest)| rest.contains(&format!("{pd} restarted: ")) && rest.ends_with('\n'))
        };
        while !over(&output) {
            let left = end.saturating_duration_since(Instant::now());
            output += &self.session.expect("\n", left)?;
            output.push('\n');
        }
        self.counts.read(&output);
        Ok(())
    }

    /// A command of the management shell, and what came with its answer. That is known to be complete by the answer to
    /// another command, which does not exist.
    fn order(&mut self, command: &str) -> Result<String> {
        self.session.send("\x1d0")?;
        let output = self.session.expect("[console] management shell", SOON)?;
        self.counts.read(&output);
        self.marks += 1;
        let mark = format!("mark{}", self.marks);
        self.session.send(&format!("{command}\r{mark}\r"))?;
        let mut output = self.session.expect(&format!("no command {mark}"), SOON)?;
        output += &self.session.expect("\n", SOON)?;
        output.push('\n');
        Ok(output)
    }

    /// What console had taken out of its rings and not yet sent dies with it, so its own end may not be told: the restart
    /// counts, seen in the table.
    fn kill_console(&mut self) -> Result {
        let before = self.restarts("console")?;
        let output = self.order("kill console 1 1000")?;
        self.counts.read(&output.replace("; kills=", "; "));
        thread::sleep(Duration::from_millis(1500));
        let after = self.restarts("console")?;
        if after == before {
            fail!("console was not killed");
        }
        self.counts.read(&format!("kill console: done; kills={}", after - before));
        Ok(())
    }

    /// What the last table of services says.
    fn restarts(&mut self, pd: &str) -> Result<u64> {
        let output = self.order("services")?;
        let of = |line: &str| {
            let mut words = line.split_whitespace();
            (words.next() == Some(pd)).then(|| words.nth(1)?.parse().ok())?
        };
        let last = output.lines().filter_map(of).next_back();
        self.counts.read(&output);
        last.ok_or_else(|| Failure::new(format!("the table of services has no {pd}: {output}")))
    }

    /// The second guest starts again with its VMM, the first one does not notice.
    fn kill_vmm(&mut self) -> Result {
        let before = self.seen(0)?;
        // So that nobody takes the old life for the new one: it does not answer any more.
        self.bring(1)?;
        self.session.send("printf '@@%s@@\\n' waiting; sleep 3600\n")?;
        let output = self.session.expect("@@waiting@@", SOON)?;
        self.counts.read(&output);
        self.kill("vmm_debian2", 1, 1000)?;
        // Those of the round that it was in do not count.
        self.rounds[1] = 0;
        self.wait_for_shell(1)?;
        self.shell(1, "echo 3 > /proc/sys/vm/drop_caches; sha256sum -c /root/soak.sum")?;
        self.shell(1, WORKLOAD)?;
        if self.wait_for(0, before + 1)? <= before {
            fail!("debian1 stood still while debian2 was started again");
        }
        Ok(())
    }

    /// Rounds that a guest has finished.
    fn seen(&mut self, n: usize) -> Result<u64> {
        let text = self.shell(n, "cat /run/soak.rounds 2>/dev/null || echo 0")?;
        let seen = text.lines().find_map(|line| line.trim().parse().ok()).unwrap_or(self.rounds[n]);
        self.counts.rounds += seen.saturating_sub(self.rounds[n]);
        self.rounds[n] = self.rounds[n].max(seen);
        Ok(seen)
    }

    fn wait_for(&mut self, n: usize, rounds: u64) -> Result<u64> {
        let end = Instant::now() + ROUND;
        loop {
            let seen = self.seen(n)?;
            if seen >= rounds {
                return Ok(seen);
            }
            if Instant::now() > end {
                fail!("{} hangs: round {rounds} did not end in {} s", GUESTS[n], ROUND.as_secs());
            }
            thread::sleep(Duration::from_millis(500));
        }
    }

    /// The guest answers, and its disk has written since it was last asked.
    fn goes_on(&mut self, n: usize) -> Result {
        let end = Instant::now() + ROUND;
        loop {
            self.seen(n)?;
            let stat = self.shell(n, "cat /sys/block/vda/stat")?;
            let written = stat.lines().find_map(|line| {
                let mut words = line.split_whitespace();
                (words.clone().count() >= 11).then(|| words.nth(4)?.parse().ok())?
            });
            match written {
                Some(written) if written != self.written[n] => {
                    self.written[n] = written;
                    return Ok(());
                }
                _ if Instant::now() > end => fail!("{} hangs: its disk writes nothing", GUESTS[n]),
                _ => thread::sleep(Duration::from_millis(200)),
            }
        }
    }

    /// What the guest has to say at the end.
    fn judge(&mut self, n: usize) -> Result {
        self.shell(n, "touch /run/soak.stop")?;
        let end = Instant::now() + ROUND;
        while !self.shell(n, "test -e /run/soak.end && echo ended || true")?.contains("ended") {
            if Instant::now() > end {
                fail!("{} hangs: its last round does not end", GUESTS[n]);
            }
            thread::sleep(Duration::from_millis(500));
        }
        self.seen(n)?;
        let bad = self.shell(n, "cat /run/soak.bad 2>/dev/null || true")?;
        let before = self.counts.clone();
        self.counts.read_fio(&bad);
        if !bad.trim().is_empty() && self.counts == before {
            // fio failed for a reason that is not known here.
            self.counts.guest_errors += 1;
        }
        let complaints = self.shell(n, &format!("dmesg | grep -E '{COMPLAINTS}' || true"))?;
        let complaints: Vec<&str> =
            complaints.lines().filter(|line| !line.starts_with('[') || line.contains("] ")).collect();
        for line in complaints.iter().filter(|line| !line.trim().is_empty()) {
            eprintln!("  {}: {line}", GUESTS[n]);
            self.counts.guest_errors += 1;
        }
        let sum = self.shell(
            n,
            "echo 3 > /proc/sys/vm/drop_caches; sha256sum -c /root/soak.sum && echo same || echo other",
        )?;
        if !sum.contains("same") {
            self.counts.corrupt += 1;
        }
        if !bad.trim().is_empty() {
            eprintln!("  {}: {}", GUESTS[n], bad.trim());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_prints_is_counted() {
        let mut counts = Counts::default();
        counts.read(
            "[supervisor] blk_disk0 restarted: killed at 0x200cdc with 3 requests in flight; restart 1, away for 2.500 ms\n\
             [supervisor] kill blk_disk0: done; kills=150 at_work=140 in_flight=99\n\
             [supervisor] kill blk_disk0: done; kills=10 at_work=4 in_flight=3\n\
             [supervisor] kill timer: done; kills=5 at_work=1 in_flight=0\n\
             [supervisor] timer restarted: killed at 0x1; restart 1, away for 0.500 ms\n",
        );
        assert_eq!((counts.kills, counts.at_work, counts.in_flight), (165, 145, 102));
        assert_eq!(counts.by_pd, [("blk_disk0".into(), 160), ("timer".into(), 5)]);
        assert_eq!(counts.times(), (2.5, 2.5));
        assert!(!counts.good(), "no round of fio is no success");
        counts.rounds = 2;
        assert!(!counts.good(), "nor is one in which no bit flipped");
        counts.flips = 40;
        assert!(counts.good());
        counts.read("[supervisor] PD blk_disk0 stopped: access to 0x0 at 0x200010\n");
        assert_eq!(counts.faults, 1);
        counts.read("[supervisor] vmm_a is held: it faulted, 5 deaths within 60 s\n");
        assert!(!counts.good() && counts.faults == 2);
        let json = counts.json("embedded debug");
        for part in [
            "\"kills\": 165",
            "\"faults\": 2",
            "\"flips\": 40",
            "\"by_pd\": { \"blk_disk0\": 160, \"timer\": 5 }",
            "\"kernel\": \"embedded debug\"",
            "\"away_ms_max\": 2.500",
        ] {
            assert!(json.contains(part), "{json}");
        }
    }

    #[test]
    fn what_fio_says_is_sorted() {
        let mut counts = Counts { kills: 1, rounds: 1, flips: 1, ..Counts::default() };
        counts.read_fio("verify: bad magic header 0, wanted acca at file /root/v offset 4096, length 4096\n");
        counts.read_fio("crc32c: verify failed at file /root/v offset 0, length 4096\n");
        counts.read_fio("fio: io_u error on file /root/v: Input/output error: write offset=0\n");
        assert_eq!((counts.lost, counts.corrupt, counts.guest_errors), (1, 1, 1));
        assert!(!counts.good());
    }
}
