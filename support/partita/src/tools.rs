//! The programs that Partita needs beside itself: found, or installed where that can be done.
//!
//! On Debian-like systems a missing program is installed with apt-get from the system's own sources. QEMU has to be newer
//! than Debian 12's; there the suite `bookworm-backports` of the same sources is added in a private list under `build/`,
//! so that the system's own configuration stays as it is. Elsewhere the tool names what is missing.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    context::Context,
    fail,
    failure::{Failure, Result},
    process,
};

/// Target of the PDs and the kernel.
pub const TARGET: &str = "aarch64-unknown-none-softfloat";

/// Target of the programs for Linux guests: static, so that they run in any.
pub const GUEST_TARGET: &str = "aarch64-unknown-linux-musl";

/// A program and Debian's package for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tool {
    /// Name of the program.
    pub program: &'static str,
    /// Debian's package.
    pub package: &'static str,
}

const fn tool(program: &'static str, package: &'static str) -> Tool {
    Tool { program, package }
}

/// Runs the system.
pub const QEMU: Tool = tool("qemu-system-aarch64", "qemu-system-arm");
/// Linked into every Rust program of the host.
pub const CC: Tool = tool("cc", "build-essential");
/// What the recipe of the Linux guest uses.
pub const GUEST: &[Tool] = &[
    tool("cpio", "cpio"),
    tool("modinfo", "kmod"),
    tool("depmod", "kmod"),
    tool("mke2fs", "e2fsprogs"),
    tool("sgdisk", "gdisk"),
    tool("gzip", "gzip"),
    tool("xz", "xz-utils"),
    tool("dpkg-deb", "dpkg"),
    tool("make", "make"),
    tool("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
];
/// What looks into the guest's disk after the smoke test.
pub const DISK: &[Tool] = &[tool("e2fsck", "e2fsprogs"), tool("debugfs", "e2fsprogs")];

/// MiB that must be free before a build.
const ROOM: u64 = 512;

/// Oldest QEMU that is known to work; Debian 12 ships 7.2, its backports a newer one.
const QEMU_MAJOR: u32 = 8;

/// The cargo that runs us, else the one of the path.
pub fn cargo() -> PathBuf {
    std::env::var_os("CARGO").map_or_else(|| "cargo".into(), Into::into)
}

/// Finds a program as a shell would, also in the directories that only root has in its path.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// Sees to it that every tool is there.
///
/// # Errors
/// One is missing and cannot be installed; all missing ones are named.
pub fn require(context: &Context, tools: &[Tool]) -> Result {
    let missing: Vec<Tool> = tools.iter().copied().filter(|tool| find(tool.program).is_none()).collect();
    let old_qemu =
        tools.contains(&QEMU) && !missing.contains(&QEMU) && qemu_major().is_some_and(|v| v < QEMU_MAJOR);
    if missing.is_empty() && !old_qemu {
        return Ok(());
    }
    let mut packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    if old_qemu {
        packages.push(QEMU.package);
    }
    packages.sort_unstable();
    packages.dedup();
    let programs: Vec<&str> = missing.iter().map(|tool| tool.program).collect();
    if find("apt-get").is_none() {
        if missing.is_empty() {
            fail!("QEMU is older than {QEMU_MAJOR}.0; install a newer one and run the command again");
        }
        fail!("missing: {} (Debian calls the packages {})", programs.join(", "), packages.join(", "));
    }
    install(context, &packages)?;
    match tools.iter().find(|tool| find(tool.program).is_none()) {
        Some(tool) => fail!("the package {} was installed but {} is not there", tool.package, tool.program),
        None => Ok(()),
    }
}

/// Sees to it that there is room to build; a linker that runs out of it does not say so.
///
/// # Errors
/// There is less than [`ROOM`].
pub fn room(dir: &Path) -> Result {
    // Without df there is no telling, and the build may as well be tried.
    let Ok(text) = process::output(Command::new("df").arg("-Pk").arg(dir)) else { return Ok(()) };
    match free_mib(&text) {
        Some(free) if free < ROOM => {
            fail!(
                "{} has {free} MiB free and building needs {ROOM}: free some space and run the command again",
                dir.display()
            )
        }
        _ => Ok(()),
    }
}

/// The column of `df -Pk`.
fn free_mib(text: &str) -> Option<u64> {
    let kib: u64 = text.lines().nth(1)?.split_whitespace().rev().nth(2)?.parse().ok()?;
    Some(kib >> 10)
}

/// Sees to it that rustc can build for a target.
///
/// # Errors
/// It cannot, and rustup cannot change that.
pub fn rust_target(target: &str) -> Result {
    let rustc = std::env::var_os("RUSTC").map_or_else(|| PathBuf::from("rustc"), Into::into);
    let libdir = process::output(Command::new(rustc).args(["--print", "target-libdir", "--target", target]))?;
    if Path::new(libdir.trim()).is_dir() {
        return Ok(());
    }
    if find("rustup").is_none() {
        fail!(
            "rustc has no libraries for {target} and there is no rustup to add them; install them and run again"
        );
    }
    let mut command = Command::new("rustup");
    process::run(&format!("Adding the Rust target {target}"), command.args(["target", "add", target]))
}

fn qemu_major() -> Option<u32> {
    let text = process::output(Command::new(QEMU.program).arg("--version")).ok()?;
    parse_qemu_major(&text)
}

fn parse_qemu_major(text: &str) -> Option<u32> {
    text.split("version ").nth(1)?.split('.').next()?.parse().ok()
}

fn install(context: &Context, packages: &[&str]) -> Result {
    let list = packages.join(" ");
    let sudo = find("sudo");
    let root = process::output(Command::new("id").arg("-u"))?.trim() == "0";
    if !root && sudo.is_none() {
        fail!(
            "missing packages: {list}; install them as root (there is no sudo here) and run the command again"
        );
    }
    eprintln!("Installing with apt-get from this system's own sources: {list}");
    let options = if packages.contains(&QEMU.package) { backports(context)? } else { Vec::new() };
    let apt = |arguments: &[&str]| {
        let mut command = Command::new(if root { Path::new("apt-get") } else { Path::new("sudo") });
        if !root {
            command.arg("apt-get");
        }
        command.env("DEBIAN_FRONTEND", "noninteractive").args(&options).args(arguments);
        command
    };
    process::run("Reading the package lists", &mut apt(&["update", "-q"]))?;
    let mut arguments = vec!["install", "-q", "-y", "--no-install-recommends"];
    if !options.is_empty() {
        arguments.extend(["-t", "bookworm-backports"]);
    }
    arguments.extend(packages);
    process::run(&format!("Installing {list}"), &mut apt(&arguments))
}

/// On Debian 12: options that make apt-get see its backports too, by a copy of the system's sources with one more suite.
/// Elsewhere none: the system's QEMU is new enough.
fn backports(context: &Context) -> Result<Vec<String>> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    if !release.lines().any(|line| line == "VERSION_CODENAME=bookworm") {
        return Ok(Vec::new());
    }
    let mut sources: Vec<(String, String)> = Vec::new();
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    for file in files {
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if (name.ends_with(".list") || name.ends_with(".sources"))
            && let Ok(text) = fs::read_to_string(&file)
        {
            sources.push((name, text));
        }
    }
    if sources.iter().any(|(_, text)| text.contains("bookworm-backports")) {
        return Ok(Vec::new());
    }
    let Some((name, text)) = sources.iter().find_map(|(name, text)| derive(name, text)) else {
        fail!(
            "found no source of Debian 12 in /etc/apt to take its backports from; install QEMU 8 or newer by hand"
        );
    };
    let dir = context.build_dir().join("apt");
    let parts = dir.join("sources.list.d");
    let lists = dir.join("lists/partial");
    for path in [&parts, &lists] {
        fs::create_dir_all(path).map_err(|error| Failure::file("create", path, &error))?;
    }
    sources.push((name, text));
    for (name, text) in sources {
        let path = parts.join(name);
        fs::write(&path, text).map_err(|error| Failure::file("write", &path, &error))?;
    }
    Ok(vec![
        "-o".into(),
        "Dir::Etc::sourcelist=/dev/null".into(),
        "-o".into(),
        format!("Dir::Etc::sourceparts={}", parts.display()),
        "-o".into(),
        format!("Dir::State::lists={}", dir.join("lists").display()),
    ])
}

/// The backports of the source that has the suite `bookworm`, in the form of that file.
fn derive(name: &str, text: &str) -> Option<(String, String)> {
    if name.ends_with(".sources") {
        let is_main = |stanza: &&str| {
            let suites = stanza.lines().find_map(|line| line.strip_prefix("Suites:"));
            suites.is_some_and(|suites| suites.split_whitespace().any(|suite| suite == "bookworm"))
        };
        let stanza = text.split("\n\n").find(is_main)?;
        let lines = stanza.lines().map(|line| match line.strip_prefix("Suites:") {
            Some(_) => "Suites: bookworm-backports",
            None => line,
        });
        let text = lines.collect::<Vec<_>>().join("\n") + "\n";
        return Some(("partita-backports.sources".into(), text));
    }
    let is_main =
        |line: &&str| line.starts_with("deb ") && line.split_whitespace().any(|word| word == "bookworm");
    let line = text.lines().find(is_main)?;
    let words: Vec<&str> = line
        .split_whitespace()
        .map(|word| if word == "bookworm" { "bookworm-backports" } else { word })
        .collect();
    Some(("partita-backports.list".into(), words.join(" ") + "\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backports_come_from_the_stanza_of_the_main_suite() {
        let text = "Types: deb\nURIs: http://mirror.example/security\nSuites: bookworm-security\nComponents: main\n\n\
                    Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\n";
        let (name, derived) = derive("debian.sources", text).unwrap();
        assert_eq!(name, "partita-backports.sources");
        assert_eq!(
            derived,
            "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm-backports\nComponents: main\n"
        );
    }

    #[test]
    fn backports_come_from_a_one_line_source() {
        let text = "# a comment\ndeb [signed-by=/k.gpg] http://mirror.example/debian bookworm main\n";
        let (name, derived) = derive("sources.list", text).unwrap();
        assert_eq!(name, "partita-backports.list");
        assert_eq!(derived, "deb [signed-by=/k.gpg] http://mirror.example/debian bookworm-backports main\n");
        assert_eq!(derive("sources.list", "deb http://mirror.example/debian trixie main\n"), None);
    }

    #[test]
    fn the_free_space() {
        let text =
            "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/a b 10 5 2048000 2% /mnt\n";
        assert_eq!(free_mib(text), Some(2000));
        assert_eq!(free_mib("nonsense"), None);
    }

    #[test]
    fn the_version_of_qemu() {
        assert_eq!(parse_qemu_major("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2~bpo12+1)"), Some(10));
        assert_eq!(parse_qemu_major("nonsense"), None);
    }
}
