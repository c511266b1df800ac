//! The embedded SDK: kernel and monitor built by cargo, laid out as an official SDK.
//!
//! The description files come first, because the monitor is compiled against them, as PDs are. Files are replaced only
//! if their contents change, each in one step, and `VERSION` is absent while anything is incomplete: whoever finds it
//! finds a whole SDK. A lock keeps two builds apart.

mod files;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use partita_kernel::abi::Config;

use crate::sdk::Board;

/// The official release whose interface this SDK has.
pub const VERSION: &str = "2.3.0";
/// The only board of the embedded kernel.
pub const BOARD: &str = "qemu_virt_aarch64";
/// Names of the configurations.
pub const CONFIGS: [(&str, Config); 2] = [("debug", Config::Debug), ("release", Config::Release)];
/// File that tells an embedded SDK from an official one.
pub const MARKER: &str = "EMBEDDED";

const TARGET: &str = "aarch64-unknown-none-softfloat";
const USAGE: &str = "usage: build-sdk --out DIR [--target-dir DIR] [--source DIR] [--config debug|release]";

const MARKER_TEXT: &str = "This is Partita's embedded SDK: its kernel implements the part of seL4's interface that\n\
                           protection domains can reach, for development and tests. It is not seL4 and not verified.\n\
                           For production use an official Microkit SDK of the same version.\n";

/// What to build.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Options {
    out: PathBuf,
    target_dir: Option<PathBuf>,
    source: PathBuf,
    config: Option<String>,
}

/// Runs with this process's arguments.
pub fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "-h" || arg == "--help") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let done = parse(&args).and_then(|options| build(&options));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("build-sdk: error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(args: &[String]) -> Result<Options, String> {
    let mut options =
        Options { source: Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."), ..Options::default() };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let value = args.next().ok_or_else(|| format!("{arg} needs a value\n{USAGE}"))?;
        match arg.as_str() {
            "--out" => options.out = value.into(),
            "--target-dir" => options.target_dir = Some(value.into()),
            "--source" => options.source = value.into(),
            "--config" if CONFIGS.iter().any(|(name, _)| name == value) => {
                options.config = Some(value.clone())
            }
            "--config" => return Err(format!("there is no configuration '{value}': write debug or release")),
            _ => return Err(format!("unknown argument '{arg}'\n{USAGE}")),
        }
    }
    if options.out.as_os_str().is_empty() {
        return Err(format!("--out is missing\n{USAGE}"));
    }
    Ok(options)
}

/// Where the SDK is being put together.
struct Sdk {
    out: PathBuf,
    /// `VERSION` has been taken away.
    opened: bool,
}

impl Sdk {
    /// Writes a file if it is new or has changed.
    fn put(&mut self, path: &str, bytes: &[u8], mode: u32) -> Result<(), String> {
        let target = self.out.join(path);
        if fs::read(&target).is_ok_and(|old| old == bytes) {
            return Ok(());
        }
        self.open()?;
        replace(&target, bytes, mode)
            .map_err(|error| format!("could not write '{}': {error}", target.display()))
    }

    /// Marks the SDK as incomplete.
    fn open(&mut self) -> Result<(), String> {
        if !std::mem::replace(&mut self.opened, true) {
            let version = self.out.join("VERSION");
            match fs::remove_file(&version) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(format!("could not remove '{}': {error}", version.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn replace(target: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut name = target.file_name().unwrap_or(OsStr::new("file")).to_owned();
    name.push(".new");
    let new = target.with_file_name(name);
    let _ = fs::remove_file(&new);
    let mut file = File::options().write(true).create_new(true).mode(mode).open(&new)?;
    file.write_all(bytes)?;
    drop(file);
    fs::rename(new, target)
}

fn build(options: &Options) -> Result<(), String> {
    let out = &options.out;
    fs::create_dir_all(out).map_err(|error| format!("could not make '{}': {error}", out.display()))?;
    let out = out.canonicalize().map_err(|error| format!("'{}': {error}", out.display()))?;
    let source = &options.source;
    if !source.join("support/kernel/Cargo.toml").is_file() {
        return Err(format!("'{}' is not Partita's source tree: give it with --source", source.display()));
    }
    let lock = File::create(out.join(".lock")).and_then(|file| file.lock().map(|()| file));
    let _lock = lock.map_err(|error| format!("could not lock '{}': {error}", out.display()))?;

    let mut sdk = Sdk { out: out.clone(), opened: false };
    let target_dir = options.target_dir.clone().unwrap_or_else(|| out.join("../target"));
    fs::create_dir_all(&target_dir)
        .map_err(|error| format!("could not make '{}': {error}", target_dir.display()))?;
    let target_dir =
        target_dir.canonicalize().map_err(|error| format!("'{}': {error}", target_dir.display()))?;

    let exe = std::env::current_exe().and_then(fs::read);
    let exe = exe.map_err(|error| format!("could not read this program: {error}"))?;
    sdk.put("bin/microkit", &exe, 0o755)?;
    sdk.put(MARKER, MARKER_TEXT.as_bytes(), 0o644)?;
    let board = Board::qemu_virt();
    for (name, config) in CONFIGS {
        for (path, text) in files::describe(config, &board) {
            sdk.put(&format!("board/{BOARD}/{name}/{path}"), text.as_bytes(), 0o644)?;
        }
    }
    for (name, config) in CONFIGS {
        if options.config.as_deref().is_none_or(|wanted| wanted == name) {
            compile(&mut sdk, source, &target_dir, name, config)?;
        }
    }
    sdk.put("VERSION", format!("{VERSION}\n").as_bytes(), 0o644)
}

fn compile(
    sdk: &mut Sdk,
    source: &Path,
    target_dir: &Path,
    name: &str,
    config: Config,
) -> Result<(), String> {
    // One directory per configuration: the monitor depends on the description files through the environment, and
    // alternating it in one directory would rebuild it each time.
    let target_dir = target_dir.join(format!("sdk-{name}"));
    let include = sdk.out.join("board").join(BOARD).join(name).join("include");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(source);
    cargo.args([
        "build",
        "--quiet",
        "--release",
        "--target",
        TARGET,
        "-p",
        "partita-kernel",
        "--bin",
        "sel4",
    ]);
    cargo.args(["-p", "partita-monitor", "--bin", "monitor", "--target-dir"]).arg(&target_dir);
    if config == Config::Debug {
        cargo.args(["--features", "partita-kernel/debug"]);
    }
    cargo.env("SEL4_INCLUDE_DIRS", &include);
    let status = cargo.status().map_err(|error| format!("could not run cargo: {error}"))?;
    if !status.success() {
        return Err(format!(
            "kernel and monitor did not build for {TARGET} (a missing target is added by: rustup target add {TARGET})"
        ));
    }
    for (built, installed) in [("sel4", "sel4.elf"), ("monitor", "monitor.elf")] {
        let path = target_dir.join(TARGET).join("release").join(built);
        let bytes =
            fs::read(&path).map_err(|error| format!("could not read '{}': {error}", path.display()))?;
        sdk.put(&format!("board/{BOARD}/{name}/elf/{installed}"), &bytes, 0o644)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn arguments() {
        let options = parse(&args("--out a --target-dir b --config debug")).unwrap();
        assert_eq!(options.out, Path::new("a"));
        assert_eq!(options.target_dir.as_deref(), Some(Path::new("b")));
        assert_eq!(options.config.as_deref(), Some("debug"));
        assert!(parse(&args("")).unwrap_err().contains("--out is missing"));
        assert!(parse(&args("--out")).unwrap_err().contains("needs a value"));
        assert!(parse(&args("--out a --config fast")).unwrap_err().contains("'fast'"));
        assert!(parse(&args("--what 1")).unwrap_err().contains("unknown argument"));
    }

    #[test]
    fn version_is_absent_while_something_changes_and_unchanged_files_stay() {
        let out = std::env::temp_dir().join(format!("partita-build-sdk-{}", std::process::id()));
        fs::create_dir_all(&out).unwrap();
        fs::write(out.join("VERSION"), "old").unwrap();
        fs::write(out.join("same"), "1").unwrap();
        let before = fs::metadata(out.join("same")).unwrap().modified().unwrap();
        let mut sdk = Sdk { out: out.clone(), opened: false };
        sdk.put("same", b"1", 0o644).unwrap();
        assert!(out.join("VERSION").exists());
        sdk.put("deep/er/new", b"2", 0o755).unwrap();
        assert!(!out.join("VERSION").exists());
        assert_eq!(fs::read(out.join("deep/er/new")).unwrap(), b"2");
        assert_eq!(fs::metadata(out.join("same")).unwrap().modified().unwrap(), before);
        assert!(sdk.put("same/below", b"", 0o644).unwrap_err().contains("could not write"));
        fs::remove_dir_all(out).unwrap();
    }
}
