//! Build, pack, boot.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::options::Options;
use crate::transcript::END;

const TARGET: &str = "aarch64-unknown-none-softfloat";

/// Builds the program; the directory it is in.
pub fn build(options: &Options) -> Result<PathBuf, String> {
    let include = options.board().join("include");
    if !include.is_dir() {
        return Err(format!("{}: no such directory; is this a Microkit SDK?", include.display()));
    }
    let target = options.work().join("target");
    let mut cargo = Command::new("cargo");
    cargo
        .current_dir(Options::workspace())
        .args(["build", "--quiet", "--release", "-p", "partita-conformance", "--target", TARGET])
        .env("CARGO_TARGET_DIR", &target)
        .env("SEL4_INCLUDE_DIRS", &include);
    finish(&mut cargo, "cargo")?;
    Ok(target.join(TARGET).join("release"))
}

/// Makes the bootable image.
pub fn pack(options: &Options, program: &Path) -> Result<PathBuf, String> {
    let image = options.work().join("loader.img");
    let mut tool = Command::new(options.sdk.join("bin/microkit"));
    tool.arg(Options::home().join("conformance.system"))
        .args(["--board", "qemu_virt_aarch64", "--config", &options.config, "--search-path"])
        .arg(program)
        .arg("-o")
        .arg(&image)
        .arg("-r")
        .arg(options.work().join("report.txt"))
        .env("MICROKIT_SDK", &options.sdk)
        .stdout(Stdio::null());
    finish(&mut tool, "microkit")?;
    Ok(image)
}

fn finish(command: &mut Command, name: &str) -> Result<(), String> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{name} failed ({status})")),
        Err(e) => Err(format!("{}: {e}", command.get_program().to_string_lossy())),
    }
}

/// Runs the image until its transcript ends or time is up; the serial output.
pub fn boot(options: &Options, image: &Path) -> Result<String, String> {
    let device = format!("loader,file={},addr=0x70000000,cpu-num=0", image.display());
    let mut machine = Command::new("qemu-system-aarch64")
        .args([
            "-machine",
            "virt,virtualization=on",
            "-cpu",
            "cortex-a53",
            "-m",
            "2G",
            "-icount",
            "shift=3,sleep=off",
        ])
        .args(["-nographic", "-nic", "none", "-device", &device])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("qemu-system-aarch64: {e}"))?;
    let mut serial = machine.stdout.take().ok_or("qemu-system-aarch64: no output")?;
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count) = serial.read(&mut bytes) {
            if count == 0 || send.send(bytes[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    let deadline = Instant::now() + Duration::from_secs(options.seconds);
    let mut output = Vec::new();
    while let Some(left) = deadline.checked_duration_since(Instant::now()) {
        let Ok(bytes) = receive.recv_timeout(left) else { break };
        output.extend(bytes);
        if String::from_utf8_lossy(&output).contains(END) {
            break;
        }
    }
    // Fails only if the machine has ended by itself.
    let _ = machine.kill();
    machine.wait().map_err(|e| format!("qemu-system-aarch64: {e}"))?;
    let log = options.serial_log();
    let written = fs::create_dir_all(options.work()).and_then(|()| File::create(&log)?.write_all(&output));
    written.map_err(|e| format!("{}: {e}", log.display()))?;
    Ok(String::from_utf8_lossy(&output).into_owned())
}
