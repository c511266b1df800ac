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
    process,
};

/// How much of the output a failure shows.
const SHOWN: usize = 1500;

/// A PD without a parent, or the kernel, has failed: nothing good can come after it.
const FATAL: &[&str] =
    &["MON|ERROR: faulting PD", "KERNEL DATA ABORT", "KERNEL INSTRUCTION ABORT", "seL4 failed assertion"];
/// After it, time for the rest of the message.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A running machine and what it has printed.
pub struct Session {
    child: Child,
    input: ChildStdin,
    output: Receiver<Vec<u8>>,
    /// Everything printed and not yet consumed by an `expect`.
    pending: String,
    log: File,
    commands: u32,
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
        let (send, output) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stdout.read(&mut buffer) {
                if send.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, input, output, pending: String::new(), log, commands: 0 })
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
        let mut end = Instant::now() + within;
        let mut fatal = false;
        loop {
            let found = texts
                .iter()
                .enumerate()
                .filter_map(|(n, text)| Some((self.pending.find(text)?, n, text.len())));
            if let Some((at, n, length)) = found.min() {
                let rest = self.pending.split_off(at + length);
                let mut before = std::mem::replace(&mut self.pending, rest);
                before.truncate(at);
                return Ok((n, before));
            }
            let left = end.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(bytes) => {
                    // The log is a convenience; a full disk shows elsewhere.
                    let _ = self.log.write_all(&bytes);
                    self.pending.push_str(&String::from_utf8_lossy(&bytes).replace('\r', ""));
                    if !fatal && FATAL.iter().any(|sign| self.pending.contains(sign)) {
                        fatal = true;
                        end = end.min(Instant::now() + LAST_WORDS);
                    }
                }
                Err(RecvTimeoutError::Timeout) if fatal => {
                    self.show();
                    fail!("a protection domain or the kernel failed (the last output is above)");
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.show();
                    fail!("waited {} s for {texts:?} in vain (the last output is above)", within.as_secs());
                }
                Err(RecvTimeoutError::Disconnected) => {
                    self.show();
                    fail!("the machine ended while {texts:?} was awaited (its last output is above)");
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
