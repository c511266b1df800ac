//! What a fuzz target covers: lines of each source file that its corpus reaches.
//!
//! libFuzzer's own count of edges says whether it still finds something, not what. So each target is built once more with
//! rustc's coverage instrumentation (stable), is run once on everything in its corpus, and LLVM's tools (rustup's component
//! `llvm-tools`) tell which lines ran. Files of this repository count, less the targets themselves; a file of which no line
//! ran is linked in but not what the target is about.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

/// Flags of rustc for a build that notes what runs.
pub const FLAGS: &[&str] = &["--cfg=fuzzing", "-Cinstrument-coverage", "-Ccodegen-units=1"];

/// Lines of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Path in the repository.
    pub path: String,
    /// Lines that ran.
    pub covered: u64,
    /// Lines with code in them that was compiled into the target.
    pub lines: u64,
}

impl File {
    fn percent(&self) -> u64 {
        100 * self.covered / self.lines.max(1)
    }
}

/// All files that a target reaches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage(pub Vec<File>);

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for file in &self.0 {
            writeln!(
                f,
                "    {:3}% {:4} of {:4} lines  {}",
                file.percent(),
                file.covered,
                file.lines,
                file.path
            )?;
        }
        let sum = |of: fn(&File) -> u64| self.0.iter().map(of).sum::<u64>();
        let all = File { path: String::new(), covered: sum(|f| f.covered), lines: sum(|f| f.lines) };
        let files = self.0.len();
        write!(f, "    {:3}% {:4} of {:4} lines in {files} files", all.percent(), all.covered, all.lines)
    }
}

impl Coverage {
    /// From what `llvm-cov export -summary-only` says, which is JSON; `root` is the repository.
    pub fn parse(json: &str, root: &Path) -> Option<Self> {
        let json: Value = serde_json::from_str(json).ok()?;
        let mut files = Vec::new();
        for file in json["data"][0]["files"].as_array()? {
            let Ok(path) = Path::new(file["filename"].as_str()?).strip_prefix(root) else { continue };
            if path.starts_with("fuzz") {
                continue;
            }
            let lines = &file["summary"]["lines"];
            let (covered, lines) = (lines["covered"].as_u64()?, lines["count"].as_u64()?);
            if covered > 0 {
                files.push(File { path: path.display().to_string(), covered, lines });
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Some(Coverage(files))
    }
}

/// LLVM's tools.
#[derive(Clone, Debug)]
pub struct Tools(PathBuf);

impl Tools {
    /// Those of the toolchain, if the component is there or can be had; `triple` is the host's.
    pub fn find(triple: &str) -> Option<Self> {
        let there = || {
            let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().ok()?;
            let sysroot = PathBuf::from(String::from_utf8(sysroot.stdout).ok()?.trim());
            let dir = sysroot.join("lib/rustlib").join(triple).join("bin");
            dir.join("llvm-cov").is_file().then_some(Tools(dir))
        };
        there().or_else(|| {
            let mut rustup = Command::new("rustup");
            let _ = rustup.args(["component", "add", "llvm-tools"]).stderr(Stdio::null()).status();
            there()
        })
    }

    /// Runs an instrumented target on its corpus.
    ///
    /// # Errors
    /// The program fails on something in its corpus; a tool does not do what it should.
    pub fn measure(&self, root: &Path, program: &Path, corpus: &[PathBuf]) -> io::Result<Coverage> {
        let (raw, merged) = (program.with_extension("profraw"), program.with_extension("profdata"));
        let _ = fs::remove_file(&raw);
        let run = Command::new(program)
            .current_dir(root)
            .env("LLVM_PROFILE_FILE", &raw)
            .arg("-runs=0")
            .args(corpus)
            .stdin(Stdio::null())
            .output()?;
        if !run.status.success() {
            return Err(io::Error::other(format!(
                "{} fails on its corpus: {}",
                program.display(),
                run.status
            )));
        }
        let tool = |name: &str, arguments: &[&Path], more: &[&str]| {
            let output = Command::new(self.0.join(name)).args(more).args(arguments).output()?;
            match output.status.success() {
                true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
                false => {
                    let said = String::from_utf8_lossy(&output.stderr);
                    Err(io::Error::other(format!("{name}: {}", said.trim())))
                }
            }
        };
        tool("llvm-profdata", &[&raw, Path::new("-o"), &merged], &["merge", "-sparse"])?;
        let _ = fs::remove_file(&raw);
        let profile = format!("-instr-profile={}", merged.display());
        let json = tool("llvm-cov", &[program], &["export", "-summary-only", &profile])?;
        Coverage::parse(&json, root).ok_or_else(|| io::Error::other("llvm-cov says something unknown"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_repository_that_were_reached() {
        let file = |name: &str, count: u32, covered: u32| {
            format!(
                r#"{{"filename":"{name}","summary":{{"lines":{{"count":{count},"covered":{covered},"percent":0}}}}}}"#
            )
        };
        let files = [
            file("/repo/support/virtio/src/queue.rs", 200, 150),
            file("/repo/support/virtio/src/console.rs", 100, 0),
            file("/repo/fuzz/fuzz_targets/virtqueue.rs", 50, 50),
            file("/root/registry/arbitrary/lib.rs", 10, 10),
            file("/repo/pds/vmm/src/bus.rs", 20, 20),
        ];
        let json = format!(r#"{{"data":[{{"files":[{}],"totals":{{}}}}],"type":"x"}}"#, files.join(","));
        let coverage = Coverage::parse(&json, Path::new("/repo")).expect("this is what llvm-cov says");
        let paths: Vec<&str> = coverage.0.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["pds/vmm/src/bus.rs", "support/virtio/src/queue.rs"]);
        let text = coverage.to_string();
        assert!(text.contains(" 75%  150 of  200 lines  support/virtio/src/queue.rs"), "{text}");
        assert!(text.ends_with(" 77%  170 of  220 lines in 2 files"), "{text}");
        assert_eq!(Coverage::parse("no", Path::new("/")), None);
    }
}
