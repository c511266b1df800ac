//! Runs other programs, quietly and with a progress display, and turns their failures into one sentence.

use std::{
    io::{BufRead, BufReader, IsTerminal, Read, Write},
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    fail,
    failure::{Failure, Result},
};

/// How many of the last lines of a failed program are shown.
const TAIL: usize = 30;

/// Signs of a full disk in a program's output.
const FULL: &[&str] = &["No space left on device", "Disk quota exceeded"];
/// Signs of a missing network.
const OFFLINE: &[&str] = &[
    "Could not resolve",
    "Couldn't resolve",
    "Temporary failure resolving",
    "Network is unreachable",
    "failed to download",
    "cannot download",
];

/// Runs `command`, showing `what` with a clock and the program's latest line. Its output is shown only if it fails.
///
/// # Errors
/// It is missing or ended with an error; the sentence begins with `what`.
pub fn run(what: &str, command: &mut Command) -> Result {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| cannot_start(&program, &error))?;
    let (send, lines) = std::sync::mpsc::channel();
    let streams: [Option<Box<dyn Read + Send>>; 2] =
        [child.stdout.take().map(|s| Box::new(s) as _), child.stderr.take().map(|s| Box::new(s) as _)];
    let readers: Vec<_> = streams
        .into_iter()
        .flatten()
        .map(|stream| {
            let send = send.clone();
            thread::spawn(move || {
                // Progress bars of other programs end their lines with CR.
                for chunk in BufReader::new(stream).split(b'\n').map_while(std::result::Result::ok) {
                    let line = String::from_utf8_lossy(&chunk);
                    let line = line.trim_end().rsplit('\r').next().unwrap_or_default().to_owned();
                    if send.send(line).is_err() {
                        return;
                    }
                }
            })
        })
        .collect();
    drop(send);
    let progress = Progress::new(what);
    let mut tail = std::collections::VecDeque::new();
    let (mut full, mut offline) = (false, false);
    for line in lines {
        full |= has(&line, FULL);
        offline |= has(&line, OFFLINE);
        progress.detail(&line);
        if tail.len() == TAIL {
            tail.pop_front();
        }
        tail.push_back(line);
    }
    for reader in readers {
        // A reader that panicked has nothing more to say.
        let _ = reader.join();
    }
    let status = child.wait().map_err(|error| Failure::new(format!("{what}: {error}")))?;
    progress.end(status.success());
    if status.success() {
        return Ok(());
    }
    for line in &tail {
        eprintln!("    {line}");
    }
    if full {
        fail!("{what} failed: the disk is full; free some space and run the command again");
    }
    let hint = if offline { "; is there a network connection?" } else { "" };
    fail!("{what} failed: {program} ended with {}{hint} (its last lines are above)", describe(status));
}

/// Runs `command` and returns what it printed.
///
/// # Errors
/// It is missing or ended with an error.
pub fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|error| cannot_start(&program, &error))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim().lines().last().unwrap_or("").to_owned();
        fail!("{program} ended with {}: {said}", describe(output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The sentence for a program that did not start.
pub fn cannot_start(program: &str, error: &std::io::Error) -> Failure {
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            Failure::new(format!("{program} is not installed; install it and run the command again"))
        }
        _ => Failure::new(format!("cannot start {program}: {error}")),
    }
}

fn has(line: &str, signs: &[&str]) -> bool {
    signs.iter().any(|sign| line.contains(sign))
}

fn describe(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("exit code {code}"),
        None => "a signal".into(),
    }
}

/// Sees to it that a process does not outlive this program, however this one ends: a small shell waits for a word from
/// here, and kills when its input ends without one.
pub struct Leash(Option<Child>);

impl Leash {
    /// `target` is a process id, or a process group's with `-` before it.
    pub fn on(target: &str) -> Self {
        let mut sh = Command::new("sh");
        sh.args(["-c", "read -r word || kill -KILL \"$0\"", target]);
        // In a group of its own it is not ended with this program's.
        sh.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(sh.spawn().ok())
    }

    /// As if this program had ended; for tests.
    #[doc(hidden)]
    pub fn lose(&mut self) {
        if let Some(mut sh) = self.0.take() {
            drop(sh.stdin.take());
            let _ = sh.wait();
        }
    }
}

impl Drop for Leash {
    /// The process has ended, or may go on.
    fn drop(&mut self) {
        if let Some(mut sh) = self.0.take() {
            let _ = sh.stdin.take().map(|mut input| input.write_all(b"done\n"));
            let _ = sh.wait();
        }
    }
}

/// A line with a clock on a terminal, plain lines elsewhere.
pub struct Progress {
    what: String,
    bar: Option<ProgressBar>,
    start: Instant,
}

impl Progress {
    /// Starts the display.
    pub fn new(what: &str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} ({elapsed}) {wide_msg:.dim}")
            {
                bar.set_style(style);
            }
            bar.set_prefix(what.to_owned());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        if bar.is_none() {
            eprintln!("{what} ...");
        }
        Self { what: what.to_owned(), bar, start: Instant::now() }
    }

    /// Shows what is being done now.
    pub fn detail(&self, line: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(line.trim().to_owned());
        }
    }

    /// The same for one of a few long steps: where there is no terminal, it is a line.
    pub fn step(&self, line: &str) {
        self.detail(line);
        if self.bar.is_none() {
            eprintln!("    {line} ({:.0} s)", self.start.elapsed().as_secs_f32());
        }
    }

    /// Ends the display; a success that took no time leaves no line.
    pub fn end(self, success: bool) {
        let seconds = self.start.elapsed().as_secs_f32();
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
            if success && seconds > 1.0 {
                eprintln!("{} ({seconds:.0} s)", self.what);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentence(script: &str) -> String {
        run("Trying", Command::new("sh").args(["-c", script])).unwrap_err().to_string()
    }

    #[test]
    fn failures_have_a_sentence() {
        assert_eq!(run("Trying", Command::new("sh").args(["-c", "echo fine"])), Ok(()));
        assert_eq!(sentence("exit 3"), "Trying failed: sh ended with exit code 3 (its last lines are above)");
        // Long before the end, and on either stream.
        let full = "echo 'ld: No space left on device' >&2; for i in $(seq 100); do echo $i; done; exit 1";
        assert!(sentence(full).contains("the disk is full"));
        assert!(
            sentence("echo \"E: Could not resolve 'host'\"; exit 100")
                .contains("is there a network connection?")
        );
        let missing = run("Trying", &mut Command::new("no-such-program")).unwrap_err().to_string();
        assert!(missing.starts_with("no-such-program is not installed"), "{missing}");
    }
}
