//! A system under test: built once per program, started in QEMU with its own copy of the disk for every test.
//!
//! What is tested follows the same variables as `make run`: `CONFIG=debug|release`, `MICROKIT_SDK=`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use clap::Parser;
use partita::{
    build::{self, Built},
    context::{Context, Options},
    fail,
    failure::{Failure, Result},
    process,
    qemu::Machine,
    session::Session,
    tools,
};

use crate::disk;

/// From QEMU's start to the prompt. Seconds on an idle machine; the limit is for a loaded one.
pub const BOOT: Duration = Duration::from_secs(300);
/// For a command that does little.
pub const SOON: Duration = Duration::from_secs(120);
/// Option of socat's VSOCK-CONNECT: SO_VM_SOCKETS_CONNECT_TIMEOUT (level AF_VSOCK, a timeval) of 100 s, set before connect(2).
/// Linux gives up after 2 s, in which the other guest has to be scheduled: too little for a busy machine.
pub const PATIENT: &str = "setsockopt-listen=40:6:x64000000000000000000000000000000";
/// What the supervisor says last.
pub const POWERED_OFF: &str = "[supervisor] power off: ok";

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    options: Options,
}

/// The choices of the environment, with another description if one is given.
///
/// # Errors
/// As [`Context::new`].
pub fn context(description: Option<&Path>) -> Result<Context> {
    let mut options = Cli::parse_from(["system-test"]).options;
    if let Some(description) = description {
        options.description = description.to_path_buf();
    }
    Context::new(options)
}

/// The first guest of the default system alone: the other's output and power-off have no place in most tests.
///
/// # Errors
/// As [`Context::new`]; the description cannot be written.
pub fn one_guest() -> Result<Context> {
    let mut context = context(None)?;
    context.options.description = describe("one-guest", &[debian(1, "")?])?;
    Ok(context)
}

/// A cell like those of the default system; `more` is more keys, each with its comma behind it.
///
/// # Errors
/// As [`Context::new`].
pub fn debian(n: usize, more: &str) -> Result<String> {
    let context = context(None)?;
    let file = |name: &str| context.guest_dir().join(name).display().to_string();
    let (kernel, initrd) = (file("Image"), file("initrd.gz"));
    Ok(format!(
        r#"{{ "name": "debian{n}", "memory": "512M", "kernel": "{kernel}", "initrd": "{initrd}", {more}
      "cmdline": "console=hvc0 root=/dev/vda rw", "disks": [{{ "controller": "disk0", "partition": "debian{n}" }}] }}"#
    ))
}

/// A cell that runs one of the bare-metal guests, called as that; `more` as for [`debian`].
///
/// # Errors
/// They do not compile.
pub fn bare(guest: &str, more: &str) -> Result<String> {
    build_guests()?;
    let kernel = context(None)?.build_dir().join("target").join(tools::TARGET).join("release").join(guest);
    let kernel = kernel.display();
    Ok(format!(
        r#"{{ "name": "{guest}", "memory": "16M", {more} "boot": "binary", "kernel": "{kernel}", "console": "pl011" }}"#
    ))
}

/// Writes the description of a system of these cells and one disk controller into `build/test`.
///
/// # Errors
/// It cannot be written.
pub fn describe(name: &str, cells: &[String]) -> Result<PathBuf> {
    describe_with(name, "", cells)
}

/// As [`describe`]; `controller` is more keys of the controller, each with a comma before it.
///
/// # Errors
/// It cannot be written.
pub fn describe_with(name: &str, controller: &str, cells: &[String]) -> Result<PathBuf> {
    let dir = context(None)?.build_dir().join("test");
    build::create(&dir)?;
    let path = dir.join(format!("{name}.json"));
    let controllers = format!(r#"[{{ "name": "disk0", "kind": "virtio-mmio", "slot": 0{controller} }}]"#);
    let text = format!("{{ \"controllers\": {controllers}, \"cells\": [\n{}\n] }}\n", cells.join(",\n"));
    build::write(&path, text.as_bytes())?;
    Ok(path)
}

/// A running system.
pub struct System {
    /// Its serial line.
    pub session: Session,
    /// Its disk.
    pub disk: PathBuf,
    /// The disk that it was copied from.
    pub original: PathBuf,
    log: PathBuf,
    trace: PathBuf,
    /// How many numbers were used to tell answers apart.
    pub(crate) numbers: u32,
}

impl System {
    /// Builds the system that `description` says (without: one Debian guest), and starts it. `name` names the files left
    /// in `build/test`.
    ///
    /// # Errors
    /// The build's; QEMU's.
    pub fn start(name: &str, description: Option<&Path>, qemu_arguments: &[&str]) -> Result<Self> {
        let context = match description {
            Some(_) => context(description)?,
            None => one_guest()?,
        };
        let built = build::build(&context)?;
        build::guest_recipe(&context, "disk")?;
        Self::start_built(name, &context, &built, qemu_arguments)
    }

    fn start_built(name: &str, context: &Context, built: &Built, qemu_arguments: &[&str]) -> Result<Self> {
        let kind = if context.options.microkit_sdk.is_some() { "official" } else { "embedded" };
        let dir = context.root.join(format!("build/test/{}-{kind}", context.options.config));
        build::create(&dir)?;
        let file = |ending: &str| dir.join(format!("{name}.{ending}"));
        let original = context.guest_dir().join("disk.img");
        let disk = file("img");
        disk::copy_sparse(&original, &disk)?;
        let trace = file("trace");
        let mut machine = Machine::new(context, built, Some(disk.clone()))?;
        machine.throwaway = true;
        machine.arguments.extend(["-trace", "virtio_blk_handle_*", "-D"].map(Into::into));
        machine.arguments.push(trace.display().to_string());
        machine.arguments.extend(qemu_arguments.iter().map(ToString::to_string));
        let log = file("log");
        let session = Session::start(&mut machine.command(), &log)?;
        Ok(Self { session, disk, original, log, trace, numbers: 0 })
    }

    /// Waits for the shell of the guest in front. From then on the guest's kernel keeps quiet.
    ///
    /// # Errors
    /// It does not answer.
    pub fn shell(&mut self) -> Result {
        self.session.answers(BOOT).map(drop)
    }

    /// Powers the guest off and waits for the end of the machine.
    ///
    /// # Errors
    /// It does not end as it should.
    pub fn power_off(&mut self) -> Result {
        self.session.send("poweroff\n")?;
        self.session.expect(POWERED_OFF, SOON)?;
        self.session.wait(SOON)
    }

    /// All that was printed so far and taken by an `expect`.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn printed(&self) -> Result<String> {
        let bytes = fs::read(&self.log).map_err(|error| Failure::file("read", &self.log, &error))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Every request that reached QEMU's disk: (write, first sector, sectors). To be asked after the machine has ended.
    ///
    /// # Errors
    /// The trace cannot be read, or has none.
    pub fn requests(&self) -> Result<Vec<(bool, u64, u64)>> {
        let text =
            fs::read_to_string(&self.trace).map_err(|error| Failure::file("read", &self.trace, &error))?;
        let requests: Vec<_> = text.lines().filter_map(request).collect();
        if requests.is_empty() {
            return Err(Failure::new("QEMU traced no request"));
        }
        Ok(requests)
    }
}

/// `virtio_blk_handle_write vdev 0x.. req 0x.. sector 8 nsectors 16`
fn request(line: &str) -> Option<(bool, u64, u64)> {
    let at = line.find("virtio_blk_handle_")?;
    let mut words = line[at..].split_whitespace();
    let write = match words.next()? {
        "virtio_blk_handle_write" => true,
        "virtio_blk_handle_read" => false,
        _ => return None,
    };
    let mut number = |name: &str| words.by_ref().skip_while(|word| *word != name).nth(1)?.parse().ok();
    Some((write, number("sector")?, number("nsectors")?))
}

/// Nothing but guest output and good news so far: no panic or fault of a PD, as the monitor, the supervisor or the kernel
/// reports it.
///
/// # Errors
/// The line that says otherwise.
pub fn no_trouble(system: &System) -> Result {
    const TROUBLE: &[&str] = &["panic", "fault", "FAILED", "needs reset", "dropped"];
    /// What seL4 says in a debug configuration when all is well.
    const BOOTED: &str = "dropped to user space";
    let printed = system.printed()?;
    // Log lines of PDs, and what comes before the first one (the kernel's and the monitor's).
    let ours = printed.lines().filter(|line| line.starts_with('[') && !line.starts_with("[ "));
    for line in ours.chain(printed.lines().take_while(|line| !line.starts_with('['))) {
        if TROUBLE.iter().any(|word| line.contains(word)) && !line.ends_with(BOOTED) {
            fail!("the system reports trouble: {line}");
        }
    }
    Ok(())
}

/// Builds the bare-metal guests of `tests/guests`.
///
/// # Errors
/// They do not compile.
pub fn build_guests() -> Result {
    let context = context(None)?;
    let mut command = Command::new(tools::cargo());
    command
        .current_dir(&context.root)
        .args(["build", "--release", "-p", "partita-test-guests", "--target", tools::TARGET, "--target-dir"])
        .arg(context.build_dir().join("target"));
    process::run("Building the bare-metal guests", &mut command)
}

/// Runs a test; on failure the end of the serial log is shown.
///
/// # Panics
/// If the system cannot be started or the test fails.
pub fn with_system(name: &str, description: Option<&Path>, test: impl FnOnce(&mut System) -> Result) {
    with_machine(name, description, &[], test);
}

/// As [`with_system`], for the system that `make run` starts: two Debian guests.
///
/// # Panics
/// As [`with_system`].
pub fn default_system(name: &str, test: impl FnOnce(&mut System) -> Result) {
    let context = context(None).unwrap_or_else(|failure| panic!("{name}: {failure}"));
    with_machine(name, Some(&context.options.description), &[], |system| {
        // From the first log line on, console takes what is typed.
        system.session.expect("[blk_", BOOT)?;
        test(system)
    });
}

/// As [`with_system`], with more arguments for QEMU.
///
/// # Panics
/// If the system cannot be started or the test fails.
pub fn with_machine(
    name: &str,
    description: Option<&Path>,
    qemu_arguments: &[&str],
    test: impl FnOnce(&mut System) -> Result,
) {
    let mut system = match System::start(name, description, qemu_arguments) {
        Ok(system) => system,
        Err(failure) => panic!("{name}: {failure}"),
    };
    let result = test(&mut system);
    let System { session, disk, log, .. } = system;
    drop(session);
    // The disk is large; a failed test's is kept, to be looked at.
    if result.is_ok() {
        let _ = fs::remove_file(disk);
    }
    if let Err(failure) = result {
        let text = fs::read(&log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).replace('\r', "");
        let lines: Vec<&str> = text.lines().collect();
        for line in &lines[lines.len().saturating_sub(40)..] {
            eprintln!("    | {line}");
        }
        panic!("{name}: {failure} (the serial log is {})", log.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trace_lines_are_read() {
        let line = "12:virtio_blk_handle_write vdev 0x5639 req 0x56 sector 2048 nsectors 16";
        assert_eq!(request(line), Some((true, 2048, 16)));
        let line = "virtio_blk_handle_read vdev 0x1 req 0x2 sector 0 nsectors 8";
        assert_eq!(request(line), Some((false, 0, 8)));
        assert_eq!(request("virtio_blk_rw_complete vdev 0x1 req 0x2 ret 0"), None);
        assert_eq!(request(""), None);
    }
}
