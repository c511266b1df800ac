//! One step of the runner: a program with a time limit whose output goes to a file, and the end of it to the screen when
//! it went wrong.

use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use partita::process::Leash;

use super::counts::Counts;

/// How many of the last lines of a failed step are shown.
const TAIL: usize = 60;

/// How many lines after a sign of failure are shown with it.
const AFTER: usize = 2;

/// Signs of failure: lines with one of them are shown, too.
const SIGNS: &[&str] = &["... FAILED", " panicked at ", "error: ", "error[", "minimal failing input"];

/// How a step's success is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counting {
    /// The program prints counts of tests.
    Printed,
    /// The program as a whole is one test.
    Whole,
}

/// A program to run.
#[derive(Debug)]
pub struct Step {
    /// Shown, and the name of the log.
    pub name: String,
    /// The program, its directory and environment.
    pub command: Command,
    /// Longest time that it may take.
    pub limit: Duration,
    /// How to count it.
    pub counting: Counting,
}

impl Step {
    /// Runs the program to its end or its limit. The log is `logs/<name>.log`.
    ///
    /// # Errors
    /// The log cannot be written. That the program fails, or cannot be started, is a result.
    pub fn run(mut self, logs: &Path) -> io::Result<Counts> {
        let path = self.log(logs);
        let mut log = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
        let begin = Instant::now();
        self.command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?).process_group(0);
        let problem = match self.command.spawn() {
            Err(error) => Some(format!("cannot start {}: {error}", self.command.get_program().display())),
            Ok(mut child) => {
                // The child leads its own process group, which Ctrl-C at our terminal does not reach.
                let _leash = Leash::on(&format!("-{}", child.id()));
                match wait(&mut child, self.limit)? {
                    None => Some(format!("stopped after its limit of {} s", self.limit.as_secs())),
                    Some(status) if !status.success() => Some(status.to_string()),
                    Some(_) => None,
                }
            }
        };
        log.rewind()?;
        let mut printed = Vec::new();
        log.read_to_end(&mut printed)?;
        let printed = String::from_utf8_lossy(&printed);
        let counts = match self.counting {
            Counting::Printed => Counts::of_suite(&printed, problem.is_none()),
            Counting::Whole => Counts::one(problem.is_none()),
        };
        // Steps may run beside each other: what one has to say stays together.
        let mut out = io::stdout().lock();
        writeln!(out, "{}: {counts} ({:.0} s)", self.name, begin.elapsed().as_secs_f32())?;
        if problem.is_some() || counts.failed > 0 {
            for line in telling(&printed) {
                writeln!(out, "    {line}")?;
            }
            let problem = problem.unwrap_or_default();
            writeln!(out, "{}: FAILED, {problem}; all of it is in {}", self.name, path.display())?;
        }
        Ok(counts)
    }

    fn log(&self, logs: &Path) -> PathBuf {
        let name: String =
            self.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        logs.join(format!("{name}.log"))
    }
}

/// The lines of a failed step that say what went wrong: those with a sign of it, each with the lines after it (a panic's
/// message is on the next one), which may be far from the end, and then the end.
fn telling(printed: &str) -> Vec<&str> {
    let lines: Vec<&str> = printed.lines().collect();
    let (early, end) = lines.split_at(lines.len().saturating_sub(TAIL));
    let mut chosen = Vec::new();
    let mut after = 0;
    for line in early {
        if SIGNS.iter().any(|sign| line.contains(sign)) {
            after = AFTER + 1;
        }
        if after > 0 && chosen.len() < TAIL {
            chosen.push(*line);
            after -= 1;
        }
    }
    chosen.extend(end);
    chosen
}

/// `None`: the limit was reached, and the program and all that it started were killed.
fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= end {
            // The shell's own kill: a bare system has no other.
            Command::new("sh").args(["-c", &format!("kill -KILL -{}", child.id())]).status()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str, script: &str, counting: Counting, limit: Duration) -> Counts {
        let logs = std::env::temp_dir();
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let name = format!("partita-step-{}-{name}", std::process::id());
        let step = Step { name, command, limit, counting };
        let log = step.log(&logs);
        let counts = step.run(&logs).unwrap();
        std::fs::remove_file(log).unwrap();
        counts
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_failure_far_from_the_end_is_shown_with_its_message() {
        let mut text = String::from("fine\nthread 'x' panicked at a.rs:1:2:\nthe reason\nmore\nnoise\n");
        text.extend((0..TAIL).map(|n| format!("{n}\n")));
        let lines = telling(&text);
        assert_eq!(&lines[..4], ["thread 'x' panicked at a.rs:1:2:", "the reason", "more", "0"]);
        assert_eq!(lines.len(), 3 + TAIL);
    }

    #[test]
    fn counts_come_from_the_output_or_the_exit_status() {
        let ok =
            run("printed", "echo 2 passed, 0 failed; echo 1 passed, 0 failed >&2", Counting::Printed, LONG);
        assert_eq!(ok, Counts { passed: 3, failed: 0, skipped: 0 });
        assert_eq!(run("whole", "exit 0", Counting::Whole, LONG), Counts::one(true));
        assert_eq!(run("bad", "exit 3", Counting::Whole, LONG), Counts::one(false));
        assert_eq!(run("dies", "echo 2 passed, 0 failed; kill -9 $$", Counting::Printed, LONG).failed, 1);
    }

    #[test]
    fn a_step_that_hangs_is_stopped_with_its_children() {
        let begin = Instant::now();
        let counts = run("hangs", "sleep 1000 & sleep 1000", Counting::Whole, Duration::from_millis(200));
        assert_eq!(counts, Counts::one(false));
        assert!(begin.elapsed() < Duration::from_secs(30));
    }

    /// What runs the steps is killed: the step does not run on. (A step in a group of its own hears of no Ctrl-C.)
    #[test]
    fn a_step_does_not_outlive_its_runner() {
        let path = std::env::temp_dir().join(format!("partita-step-{}-outlives", std::process::id()));
        // The same shell that the runner leaves behind; its input ends without a word.
        let mut step = Command::new("sh");
        step.args(["-c", "sleep 1000 & echo $!; wait"]).process_group(0).stdout(File::create(&path).unwrap());
        let mut step = step.spawn().unwrap();
        Leash::on(&format!("-{}", step.id())).lose();
        assert!(!step.wait().unwrap().success());
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_program_that_is_missing_is_a_failure() {
        let logs = std::env::temp_dir();
        let step = Step {
            name: format!("partita-step-{}-missing", std::process::id()),
            command: Command::new("/nonexistent/program"),
            limit: LONG,
            counting: Counting::Whole,
        };
        let log = step.log(&logs);
        assert_eq!(step.run(&logs).unwrap(), Counts::one(false));
        std::fs::remove_file(log).unwrap();
    }
}
