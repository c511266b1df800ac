//! A scripted session on the system's serial line: send, and wait for what must come.

use std::{
    fs::File,
    io::{Read, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use crate::{
    fail,
    failure::{Failure, Result},
    process::{self, Leash},
};

/// How much of the output a failure shows.
const SHOWN: usize = 1500;

/// A PD without a parent, or the kernel, has failed: nothing good can come after it.
const FATAL: &[&str] =
    &["MON|ERROR: faulting PD", "KERNEL DATA ABORT", "KERNEL INSTRUCTION ABORT", "seL4 failed assertion"];
/// After it, time for the rest of the message.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// A shell that has not answered in this time is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// Beyond its limit a wait goes on for so long while more and more is printed: the machine was slow, not silent.
const FLOOD: Duration = Duration::from_secs(30);
/// Most that is taken in at once. QEMU hands its UART's bytes on one by one.
const CHUNK: usize = 64 * 1024;

/// A running machine and what it has printed.
pub struct Session {
    child: Child,
    input: ChildStdin,
    output: Receiver<Vec<u8>>,
    /// Everything printed and not yet consumed by an `expect`.
    pending: String,
    log: File,
    commands: u32,
    /// Let go after the machine is dead.
    _leash: Leash,
}

/// How long something may still take.
struct Limit {
    within: Duration,
    end: Instant,
    /// How long it goes on beyond that while there is output.
    flood: Duration,
    fatal: bool,
    /// Bytes of the output that were searched for what is fatal.
    seen: usize,
}

impl Limit {
    fn new(within: Duration) -> Self {
        Self { within, end: Instant::now() + within, flood: FLOOD, fatal: false, seen: 0 }
    }
}

/// A text that is waited for. What was searched once is not searched again, or a long wait would be slower than the machine
/// that it waits for.
struct Wanted<'a> {
    text: &'a str,
    seen: usize,
    found: Option<usize>,
}

impl<'a> Wanted<'a> {
    fn all(texts: &[&'a str]) -> Vec<Self> {
        texts.iter().map(|text| Self { text, seen: 0, found: None }).collect()
    }

    /// Where it is first in `output`, which has only grown since the last look.
    fn find(&mut self, output: &str) -> Option<usize> {
        if self.found.is_none() {
            self.found = find_from(output, self.text, self.seen);
            self.seen = output.len();
        }
        self.found
    }
}

/// Where `text` is first in `output`, of which the first `seen` bytes do not contain it.
fn find_from(output: &str, text: &str, seen: usize) -> Option<usize> {
    let mut from = (seen + 1).saturating_sub(text.len()).min(output.len());
    while !output.is_char_boundary(from) {
        from -= 1;
    }
    output[from..].find(text).map(|at| from + at)
}

/// What became of a wait.
enum Came {
    Output,
    Nothing,
    End,
}

/// Result of a shell command in the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What it printed, with `\n` line ends.
    pub output: String,
    /// Its exit status.
    pub status: u32,
}

impl Session {
    /// Starts `command`; all output also goes to the file `log`.
    ///
    /// # Errors
    /// It does not start; the log cannot be written.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let log = File::create(log).map_err(|error| Failure::file("write", log, &error))?;
        let stderr =
            log.try_clone().map_err(|error| Failure::new(format!("cannot write the log: {error}")))?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .map_err(|error| process::cannot_start(&program, &error))?;
        let (Some(input), Some(mut stdout)) = (child.stdin.take(), child.stdout.take()) else {
            fail!("cannot connect to {program}");
        };
        let leash = Leash::on(&child.id().to_string());
        let (send, output) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stdout.read(&mut buffer) {
                if send.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, input, output, pending: String::new(), log, commands: 0, _leash: leash })
    }

    /// Sends text as it is.
    ///
    /// # Errors
    /// The machine has ended.
    pub fn send(&mut self, text: &str) -> Result {
        let sent = self.input.write_all(text.as_bytes()).and_then(|()| self.input.flush());
        sent.map_err(|error| Failure::new(format!("the machine ended early ({error})")))
    }

    /// Waits for `text`; returns what came before it.
    ///
    /// # Errors
    /// It does not come in time, or the machine ends.
    pub fn expect(&mut self, text: &str, within: Duration) -> Result<String> {
        self.expect_any(&[text], within).map(|(_, before)| before)
    }

    /// Waits for the first of several texts; returns its index and what came before it.
    ///
    /// # Errors
    /// None comes in time, or the machine ends.
    pub fn expect_any(&mut self, texts: &[&str], within: Duration) -> Result<(usize, String)> {
        let (mut limit, mut wanted) = (Limit::new(within), Wanted::all(texts));
        loop {
            if let Some(found) = self.first(&mut wanted) {
                return Ok(found);
            }
            self.more(&mut limit, texts)?;
        }
    }

    /// The first of several texts that is there: its index and what came before it.
    fn first(&mut self, wanted: &mut [Wanted]) -> Option<(usize, String)> {
        let found = wanted.iter_mut().enumerate();
        let found = found.filter_map(|(n, text)| Some((text.find(&self.pending)?, n, text.text.len())));
        let (at, n, length) = found.min()?;
        let mut before = self.take(at + length);
        before.truncate(at);
        Some((n, before))
    }

    /// Waits for all of several texts, in whatever order they come: who prints them are several, and nobody promises an
    /// order. Returns all up to the end of the last one.
    ///
    /// # Errors
    /// One does not come in time, or the machine ends.
    pub fn expect_all(&mut self, texts: &[&str], within: Duration) -> Result<String> {
        let (mut limit, mut wanted) = (Limit::new(within), Wanted::all(texts));
        loop {
            let ends = wanted.iter_mut().map(|text| Some(text.find(&self.pending)? + text.text.len()));
            if let Some(ends) = ends.collect::<Option<Vec<_>>>() {
                return Ok(self.take(ends.into_iter().max().unwrap_or(0)));
            }
            self.more(&mut limit, texts)?;
        }
    }

    /// The first bytes of what was not yet consumed.
    fn take(&mut self, bytes: usize) -> String {
        let rest = self.pending.split_off(bytes);
        std::mem::replace(&mut self.pending, rest)
    }

    /// Waits for more output.
    fn more(&mut self, limit: &mut Limit, texts: &[&str]) -> Result {
        match self.receive(limit) {
            Came::Output => Ok(()),
            end => Err(self.in_vain(end, limit, texts)),
        }
    }

    /// The sentence about a wait that has ended, after the last output.
    fn in_vain(&self, came: Came, limit: &Limit, texts: &[&str]) -> Failure {
        self.show();
        Failure::new(match came {
            Came::End => format!("the machine ended while {texts:?} was awaited (its last output is above)"),
            _ if limit.fatal => {
                "a protection domain or the kernel failed (the last output is above)".to_owned()
            }
            _ => format!(
                "waited {} s for {texts:?} in vain (the last output is above)",
                limit.within.as_secs()
            ),
        })
    }

    fn receive(&mut self, limit: &mut Limit) -> Came {
        let now = Instant::now();
        if now > limit.end + limit.flood {
            return Came::Nothing;
        }
        match self.output.recv_timeout(limit.end.saturating_duration_since(now)) {
            Ok(mut bytes) => {
                while bytes.len() < CHUNK
                    && let Ok(more) = self.output.try_recv()
                {
                    bytes.extend(more);
                }
                // The log is a convenience; a full disk shows elsewhere.
                let _ = self.log.write_all(&bytes);
                self.pending.push_str(&String::from_utf8_lossy(&bytes).replace('\r', ""));
                let fatal = |sign: &&str| find_from(&self.pending, sign, limit.seen).is_some();
                if !limit.fatal && FATAL.iter().any(fatal) {
                    limit.fatal = true;
                    limit.end = limit.end.min(now + LAST_WORDS);
                }
                limit.seen = self.pending.len();
                Came::Output
            }
            Err(RecvTimeoutError::Timeout) => Came::Nothing,
            Err(RecvTimeoutError::Disconnected) => Came::End,
        }
    }

    /// Types a key of the console and waits for its answer. Before the console runs it is lost, so it is typed again.
    ///
    /// # Errors
    /// No answer in time, or the machine ends.
    pub fn key(&mut self, key: &str, answer: &str, within: Duration) -> Result {
        let end = Instant::now() + within;
        loop {
            self.send(key)?;
            if self.comes(&[answer], within, end)?.is_some() {
                return Ok(());
            }
        }
    }

    /// Waits until the shell at the other end answers, and has the kernel there keep quiet, whose lines would come in the
    /// middle of answers. It is asked again and again: what is typed at a guest that boots may be lost, as a whole or in
    /// part, so the question has no quotation mark that could stay open. An answer may come when the next question was asked
    /// already, and is as good. Returns what came up to the answer.
    ///
    /// # Errors
    /// It does not answer in time, or the machine ends.
    pub fn answers(&mut self, within: Duration) -> Result<String> {
        let end = Instant::now() + within;
        let mut answers = Vec::new();
        loop {
            self.commands += 1;
            let n = self.commands;
            self.send(&format!("\ndmesg -n 1; echo @@alive$(({n}))@@\n"))?;
            answers.push(format!("@@alive{n}@@\n"));
            let texts: Vec<&str> = answers.iter().map(String::as_str).collect();
            if let Some(before) = self.comes(&texts, within, end)? {
                return Ok(before);
            }
        }
    }

    /// Waits for one of several answers, of which the last was asked for now, for [`ASK_AGAIN`], however much others print.
    /// `None`: not yet.
    fn comes(&mut self, answers: &[&str], within: Duration, end: Instant) -> Result<Option<String>> {
        let (mut limit, mut wanted) = (Limit::new(ASK_AGAIN), Wanted::all(answers));
        limit.within = within;
        if limit.end < end {
            limit.flood = Duration::ZERO;
        } else {
            limit.end = end;
        }
        loop {
            if let Some((n, mut before)) = self.first(&mut wanted) {
                before.push_str(answers.get(n).copied().unwrap_or_default());
                return Ok(Some(before));
            }
            match self.receive(&mut limit) {
                Came::Output => {}
                Came::Nothing if !limit.fatal && Instant::now() < end => return Ok(None),
                came => {
                    return Err(self.in_vain(came, &limit, answers.get(answers.len() - 1..).unwrap_or(&[])));
                }
            }
        }
    }

    /// Runs a command in the shell that waits at the other end.
    ///
    /// # Errors
    /// No answer in time.
    pub fn shell(&mut self, command: &str, within: Duration) -> Result<Outcome> {
        self.commands += 1;
        let n = self.commands;
        // The echo of the command line does not contain the marks: printf puts them together.
        self.send(&format!(
            "printf '@@%s%s@@\\n' begin {n}; {command}; printf '@@%s%s:%s@@\\n' end {n} $?\n"
        ))?;
        self.expect(&format!("@@begin{n}@@\n"), within)?;
        let output = self.expect(&format!("@@end{n}:"), within)?;
        let status = self.expect("@@", within)?;
        Ok(Outcome { output, status: status.parse().unwrap_or(u32::MAX) })
    }

    /// As [`Session::shell`], for a command that must succeed.
    ///
    /// # Errors
    /// It fails.
    pub fn shell_ok(&mut self, command: &str, within: Duration) -> Result<String> {
        let outcome = self.shell(command, within)?;
        if outcome.status != 0 {
            let (status, output) = (outcome.status, outcome.output.trim());
            fail!("in the guest, `{command}` ended with status {status}: {output}");
        }
        Ok(outcome.output)
    }

    /// Waits until the machine ends by itself.
    ///
    /// # Errors
    /// It does not, or ends with an error.
    pub fn wait(&mut self, within: Duration) -> Result {
        let end = Instant::now() + within;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => fail!("the machine ended with {status}"),
                Ok(None) if Instant::now() < end => thread::sleep(Duration::from_millis(50)),
                Ok(None) => fail!("the machine still runs {} s after its end was due", within.as_secs()),
                Err(error) => fail!("cannot wait for the machine: {error}"),
            }
        }
    }

    /// Ends QEMU in its own way (Ctrl-A x), so that everything it was told to write is written.
    ///
    /// # Errors
    /// It does not end.
    pub fn quit(&mut self) -> Result {
        if let Ok(Some(_)) = self.child.try_wait() {
            return Ok(());
        }
        self.send("\x01x")?;
        self.wait(Duration::from_secs(20))
    }

    fn show(&self) {
        let mut start = self.pending.len().saturating_sub(SHOWN);
        while !self.pending.is_char_boundary(start) {
            start += 1;
        }
        for line in self.pending.get(start..).unwrap_or_default().lines() {
            eprintln!("    {line}");
        }
    }
}

impl Drop for Session {
    /// No machine outlives its session.
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // It may end between the two calls.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(name: &str) -> Session {
        let log = std::env::temp_dir().join(format!("partita-session-{}-{name}", std::process::id()));
        let session = Session::start(&mut Command::new("sh"), &log).unwrap();
        std::fs::remove_file(log).unwrap();
        session
    }

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn commands_give_their_output_and_status() {
        let mut session = shell("commands");
        assert_eq!(session.shell_ok("echo one; echo two", SOON).unwrap(), "one\ntwo\n");
        assert_eq!(session.shell("(exit 3)", SOON).unwrap(), Outcome { output: String::new(), status: 3 });
        assert!(session.shell_ok("false", SOON).unwrap_err().to_string().contains("status 1"));
    }

    #[test]
    fn the_first_of_several_texts_wins() {
        let mut session = shell("several");
        session.send("echo a-first-b-second-c\n").unwrap();
        assert_eq!(session.expect_any(&["second", "first"], SOON).unwrap(), (1, "a-".into()));
        assert_eq!(session.expect("second", SOON).unwrap(), "-b-");
    }

    #[test]
    fn all_of_several_texts_come_in_any_order() {
        let mut session = shell("all");
        session.send("echo a-first-b-second-c\n").unwrap();
        assert_eq!(session.expect_all(&["second", "first"], SOON).unwrap(), "a-first-b-second");
        assert_eq!(session.expect("\n", SOON).unwrap(), "-c");
        session.send("echo first\n").unwrap();
        let one = session.expect_all(&["first", "second"], Duration::from_millis(200));
        assert!(one.unwrap_err().to_string().contains("in vain"), "the first one alone is not enough");
    }

    #[test]
    fn a_shell_is_asked_until_it_answers() {
        let mut session = shell("answers");
        // The first questions are lost, the first answer is cut, and the shell lives.
        session.send("dmesg() { :; }; read -r a; read -r b\n").unwrap();
        session.answers(Duration::from_secs(60)).unwrap();
        assert_eq!(session.shell_ok("echo $b", SOON).unwrap().matches("@@alive").count(), 1);
        // Each answer comes when the next question was asked already.
        session.send("dmesg() { sleep 6; }\n").unwrap();
        let begun = session.commands;
        session.answers(Duration::from_secs(60)).unwrap();
        assert_eq!(session.commands - begun, 2);
        session.send("exec sleep 1000\n").unwrap();
        let silence = session.answers(Duration::from_millis(50)).unwrap_err().to_string();
        assert!(silence.contains("in vain"), "{silence}");
    }

    /// A UART's bytes come one by one, and there may be many: 200 KB took minutes of this program's time once, and the machine
    /// was blamed.
    #[test]
    fn a_long_wait_stays_as_fast_as_the_output() {
        let (mut output, mut wanted) = (String::new(), Wanted { text: "the end", seen: 0, found: None });
        let begun = Instant::now();
        for byte in "[vmm_again] starts at 0x40000000: the beginning\n".chars().cycle().take(300_000) {
            output.push(byte);
            let found = wanted.find(&output);
            assert_eq!(found, None);
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        output.push_str("the end");
        assert_eq!(wanted.find(&output), Some(300_000));
    }

    proptest::proptest! {
        /// However the output is cut, the text is found where it is first, as soon as it is there.
        #[test]
        fn a_text_is_found_in_pieces(output in "[ab\u{e4}]{0,60}", text in "[ab\u{e4}]{1,4}") {
            let mut wanted = Wanted { text: &text, seen: 0, found: None };
            for end in (0..=output.len()).filter(|end| output.is_char_boundary(*end)) {
                proptest::prop_assert_eq!(wanted.find(&output[..end]), output[..end].find(&text));
            }
        }
    }

    /// A program that is killed takes its machine with it.
    #[test]
    fn no_machine_outlives_its_program() {
        let mut session = shell("outlives");
        let pid: u32 = session.shell_ok("echo $$", SOON).unwrap().trim().parse().unwrap();
        let alive = || Path::new(&format!("/proc/{pid}")).exists();
        // What the leash sees when the program is gone.
        session._leash.lose();
        let end = Instant::now() + SOON;
        while !session.child.try_wait().is_ok_and(|status| status.is_some()) && Instant::now() < end {
            thread::sleep(Duration::from_millis(10));
        }
        assert!(!alive(), "it runs on");
    }

    #[test]
    fn silence_and_an_early_end_are_errors() {
        let mut session = shell("silence");
        session.send("echo 'MON|ERROR: faulting PD: x'\n").unwrap();
        let fatal = session.expect("never", SOON).unwrap_err().to_string();
        assert!(fatal.contains("failed"), "{fatal}");
        session.pending.clear();
        let silence = session.expect("never", Duration::from_millis(50)).unwrap_err().to_string();
        assert!(silence.contains("in vain"), "{silence}");
        session.send("exit 1\n").unwrap();
        let end = session.expect("never", SOON).unwrap_err().to_string();
        assert!(end.contains("ended while"), "{end}");
        assert!(session.wait(SOON).is_err());
    }
}
