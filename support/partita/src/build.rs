//! From sources and partita.json to loader.img.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    process::Command,
};

use partita_config::{Boot, Cell, Config};
use partita_guest::boot;

use crate::{
    boot_files::{self, BootFiles},
    context::Context,
    dtb, fail,
    failure::{Failure, Result},
    process,
    sdk::{self, Sdk},
    system, tools,
};

/// Crates of the PDs; each makes the program of its last word.
pub(crate) const PDS: &[&str] = &["supervisor", "pulse", "timer", "console", "blk", "ivc", "vmm"];

/// Programs for the Linux guest, linked statically; the guest's recipe puts them into the initramfs.
const GUEST_PROGRAMS: &[&str] = &["partitactl", "partita-pipe"];

/// What was built.
#[derive(Clone, Debug)]
pub struct Built {
    /// The SDK it was built with.
    pub sdk: Sdk,
    /// Directory of everything below.
    pub out: PathBuf,
    /// The image.
    pub loader: PathBuf,
    /// system.xml.
    pub system: PathBuf,
    /// guests.img and where it has to be, if there is one.
    pub boot_files: Option<(PathBuf, u64)>,
    /// First address behind the memory that the system uses of what the board keeps from the kernel.
    pub spare_end: u64,
}

/// Builds everything; the guest's files are made by their recipe if the description names its output.
///
/// # Errors
/// One sentence about the step that failed.
pub fn build(context: &Context) -> Result<Built> {
    let text = context.read_description()?;
    let config = context.parse(&text)?;
    tools::require(context, &[tools::CC])?;
    create(&context.build_dir())?;
    tools::room(&context.build_dir())?;
    let sdk = sdk::find(context)?;
    tools::rust_target(tools::TARGET)?;
    let out = context.out();
    create(&out)?;
    let _one = lock(&out)?;
    pds(context, &sdk, &out)?;
    guests(context, &config)?;
    let (system, files) = generate(context, &text, &config, &out)?;
    let loader = pack(context, &sdk, &out, &system)?;
    let boot_files = files.range().map(|(first, _)| (out.join(boot_files::IMAGE), first));
    let ends = config.cells.iter().filter_map(|cell| Some(cell.fixed_memory()?.end));
    let spare_end = ends.chain(files.range().map(|(_, end)| end)).max().unwrap_or(0);
    Ok(Built { sdk, out, loader, system, boot_files, spare_end })
}

/// Writes system.xml, the copy of partita.json, the device trees and, if it is wanted, guests.img into `out`.
///
/// # Errors
/// The system is too large; a guest file is missing; a file cannot be written.
pub fn generate(
    context: &Context,
    text: &str,
    config: &Config<'_>,
    out: &Path,
) -> Result<(PathBuf, BootFiles)> {
    for cell in &config.cells {
        let dtb = guest_dtb(context, config, cell)?;
        write(&out.join(system::compose::dtb_name(cell.name)), &dtb)?;
    }
    write(&out.join(system::compose::CONFIG), text.as_bytes())?;
    let path = out.join("system.xml");
    let files = BootFiles::lay_out(context, config)?;
    write(&path, system::generate(config, context.board, &files)?.as_bytes())?;
    files.write(config, out)?;
    Ok((path, files))
}

/// The device tree of a cell, after the check that the VMM will make too: all parts fit into the guest's memory.
fn guest_dtb(context: &Context, config: &Config<'_>, cell: &Cell<'_>) -> Result<Vec<u8>> {
    let refused = |error: &dyn std::fmt::Display| Failure::new(format!("cell {}: {error}", cell.name));
    let initrd = match cell.initrd {
        Some(initrd) => guest_file(context, cell.name, "initrd", initrd)?.1,
        None => 0,
    };
    let (path, length) = guest_file(context, cell.name, "kernel", cell.kernel)?;
    let mut head = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(boot::HEADER as u64).read_to_end(&mut head));
    read.map_err(|error| Failure::file("read", &path, &error))?;
    let kernel = boot::Kernel::identify(&head, length).map_err(|error| refused(&error))?;
    match (cell.boot, kernel) {
        (Boot::Linux, boot::Kernel::Plain) => fail!(
            "cell {}: its kernel {} is not an arm64 Linux Image; for a plain binary say \"boot\": \"binary\"",
            cell.name,
            path.display()
        ),
        (Boot::Linux, boot::Kernel::Linux { .. }) | (Boot::Binary, _) => {}
    }
    let dtb = dtb::write(config, cell, context.board, initrd)?;
    boot::plan(kernel, length, initrd, dtb.len() as u64, cell.memory.0).map_err(|error| refused(&error))?;
    Ok(dtb)
}

/// Builds the PDs and copies them to `out`.
fn pds(context: &Context, sdk: &Sdk, out: &Path) -> Result {
    let target = context.programs().join("target");
    let mut command = Command::new(tools::cargo());
    command
        .current_dir(&context.root)
        .args(["build", "--release", "--target", tools::TARGET, "--target-dir"])
        .arg(&target)
        .env("SEL4_INCLUDE_DIRS", sdk.include(context))
        .env_remove("SEL4_PREFIX");
    for pd in PDS {
        command.args(["-p", &format!("partita-pd-{pd}")]);
    }
    process::run("Building the protection domains", &mut command)?;
    for pd in PDS {
        let built = target.join(tools::TARGET).join("release").join(pd);
        copy(&built, &out.join(format!("{pd}.elf")))?;
    }
    Ok(())
}

/// Runs the recipe of the Linux guest if one of its files is named.
fn guests(context: &Context, config: &Config<'_>) -> Result {
    if names_recipe(context, config) { guest_recipe(context, "boot") } else { Ok(()) }
}

fn names_recipe(context: &Context, config: &Config<'_>) -> bool {
    let dir = context.guest_dir();
    let files = config.cells.iter().flat_map(|cell| [Some(cell.kernel), cell.initrd]).flatten();
    files.into_iter().any(|file| context.description_dir().join(file).starts_with(&dir))
}

/// Runs the recipe of the Linux guest: `boot` makes kernel and initramfs, `disk` the disk.
///
/// # Errors
/// A tool is missing or the recipe failed.
pub fn guest_recipe(context: &Context, part: &str) -> Result {
    tools::require(context, tools::GUEST)?;
    if part != "disk" {
        guest_programs(context)?;
    }
    let mut command = Command::new(context.root.join("images/guests/linux/build"));
    command.current_dir(&context.root).arg(context.guest_dir()).arg(part);
    process::run(&format!("Preparing the Debian guest ({part})"), &mut command)
}

/// Builds the guest's programs into the place where its recipe finds them. rustc brings a C library and a linker for this
/// target, so no cross compiler is needed.
fn guest_programs(context: &Context) -> Result {
    tools::rust_target(tools::GUEST_TARGET)?;
    let target = context.build_dir().join("target");
    let mut command = Command::new(tools::cargo());
    let variable =
        |what: &str| format!("CARGO_TARGET_{}_{what}", tools::GUEST_TARGET.to_uppercase().replace('-', "_"));
    command
        .current_dir(&context.root)
        .args(["build", "--release", "--target", tools::GUEST_TARGET, "--target-dir"])
        .arg(&target)
        .env(variable("LINKER"), "rust-lld")
        .env(variable("RUSTFLAGS"), "-Clinker-flavor=ld.lld -Clink-self-contained=yes -Cstrip=symbols")
        .env_remove("RUSTFLAGS");
    for program in GUEST_PROGRAMS {
        command.args(["-p", program]);
    }
    process::run("Building the guest's programs", &mut command)?;
    let programs = context.guest_dir().join("programs");
    create(&programs)?;
    // The recipe's own lock.
    let _one = lock(&context.guest_dir())?;
    for program in GUEST_PROGRAMS {
        copy(&target.join(tools::GUEST_TARGET).join("release").join(program), &programs.join(program))?;
    }
    Ok(())
}

/// Runs the SDK's packer.
fn pack(context: &Context, sdk: &Sdk, out: &Path, system: &Path) -> Result<PathBuf> {
    let loader = out.join("loader.img");
    // Somebody may still be reading the last ones: a machine that was started from it, a test.
    let (new, new_report) = (out.join("loader.img.new"), out.join("report.txt.new"));
    let mut command = Command::new(sdk.tool());
    command
        .current_dir(out)
        .arg(system)
        .arg("--search-path")
        .arg(out)
        .arg(context.description_dir().canonicalize().unwrap_or_default())
        .args(["--board", context.board.name, "--config", &context.config.to_string()])
        .arg("-o")
        .arg(&new)
        .arg("-r")
        .arg(&new_report);
    if sdk.embedded {
        // `make MICROKIT_SDK=` leaves an empty one.
        command.env_remove("MICROKIT_SDK");
    } else {
        command.env("MICROKIT_SDK", &sdk.dir);
    }
    process::run("Packing the image", &mut command)?;
    for (new, last) in [(&new_report, &out.join("report.txt")), (&new, &loader)] {
        fs::rename(new, last).map_err(|error| Failure::file("write", last, &error))?;
    }
    Ok(loader)
}

/// A file of a cell and its length.
fn guest_file(context: &Context, cell: &str, key: &str, file: &str) -> Result<(PathBuf, u64)> {
    let path = context.file(file);
    match fs::metadata(&path) {
        Ok(metadata) if metadata.is_file() && metadata.len() != 0 => Ok((path, metadata.len())),
        Ok(_) => fail!("cell {cell}: its {key} {} is empty or not a file", path.display()),
        Err(error) => Err(Failure::file(&format!("read cell {cell}'s {key}"), &path, &error)),
    }
}

/// Creates a directory.
///
/// # Errors
/// One sentence.
pub fn create(dir: &Path) -> Result {
    fs::create_dir_all(dir).map_err(|error| Failure::file("create", dir, &error))
}

/// Builds into one directory are made one after another, whoever makes them. Let go when the value is dropped.
fn lock(dir: &Path) -> Result<File> {
    let path = dir.join(".lock");
    let lock = File::create(&path).and_then(|file| file.lock().map(|()| file));
    lock.map_err(|error| Failure::file("lock", &path, &error))
}

/// Writes a file, unless it has the contents already. Who reads it meanwhile sees the old one or the new one, whole.
///
/// # Errors
/// One sentence.
pub fn write(path: &Path, contents: &[u8]) -> Result {
    if fs::read(path).is_ok_and(|old| old == contents) {
        return Ok(());
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!(".{name}.{}", std::process::id()));
    fs::write(&new, contents).and_then(|()| fs::rename(&new, path)).map_err(|error| {
        let _ = fs::remove_file(&new);
        Failure::file("write", path, &error)
    })
}

fn copy(from: &Path, to: &Path) -> Result {
    let contents = fs::read(from).map_err(|error| Failure::file("read", from, &error))?;
    write(to, &contents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Options;

    /// A fresh clone has no build/guest: whether the recipe has to run must not depend on the files being there, nor on
    /// how the description was named.
    #[test]
    fn the_default_description_asks_for_the_recipe() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for (description, asks) in [(root.join("partita.json"), true), (PathBuf::from("partita.json"), true)]
        {
            let context = Context::new(Options {
                board: String::new(),
                config: String::new(),
                microkit_sdk: None,
                description,
                guest_kernel: None,
                guest_initrd: None,
                guest_cmdline: None,
                disk: None,
                qemu_args: None,
                build_dir: "build".into(),
            })
            .unwrap();
            let text = context.read_description().unwrap();
            let config = context.parse(&text).unwrap();
            assert_eq!(names_recipe(&context, &config), asks);
        }
    }
}
