//! `partita check`: everything that can be known to be wrong before anything is built.
//!
//! What the description alone tells is said by [`partita_config::host`]; here the files that it names and the board are
//! looked at too.

use std::{fs::File, io::Read, path::Path};

use partita_config::{Boot, Config, Size, host::Problem};
use partita_guest::boot::Kernel;

use crate::{boot_files::BootFiles, context::Context, dtb, failure::Result, system};

/// Checks the description; prints what it amounts to.
///
/// # Errors
/// All that is wrong, one line each.
pub fn run(context: &Context) -> Result {
    let text = context.read_description()?;
    let config = context.parse(&text)?;
    let mut problems = Vec::new();
    files(context, &config, &mut problems);
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    if !lines.is_empty() {
        return Err(crate::failure::Failure::new(lines.join("\n")));
    }
    // Without all of them, where they would be is not known yet.
    let files = if is_complete(context, &config) {
        BootFiles::lay_out(context, &config)?
    } else {
        BootFiles::default()
    };
    system::generate(&config, context.board, &files)?;
    let memory = config.cells.iter().map(|cell| cell.memory.0).sum();
    println!(
        "{}: ok: {} of {} with {} of memory, {}",
        context.description().display(),
        plural(config.cells.len(), "cell"),
        context.board.name,
        Size(memory),
        plural(config.controllers.len(), "disk controller")
    );
    Ok(())
}

/// Whether all files are there.
fn is_complete(context: &Context, config: &Config<'_>) -> bool {
    let mut names = config.cells.iter().flat_map(|cell| [Some(cell.kernel), cell.initrd]).flatten();
    names.all(|name| context.file(name).exists())
}

fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Kernels and initramfs. What the guest recipe makes may not be there yet.
fn files(context: &Context, config: &Config<'_>, problems: &mut Vec<Problem>) {
    let name = context.description_name();
    let mut add = |path: String, wrong: String, right: &str| {
        problems.push(Problem { file: name.clone(), path, wrong, right: right.into() });
    };
    for (n, cell) in config.cells.iter().enumerate() {
        let mut sizes = Vec::new();
        for (key, file) in [("kernel", Some(cell.kernel)), ("initrd", cell.initrd)] {
            let Some(file) = file else { continue };
            let path = format!("cells[{n}].{key}");
            let place = context.file(file);
            if !place.exists() && context.description_dir().join(file).starts_with(context.guest_dir()) {
                continue;
            }
            match head(&place) {
                Ok((_, 0)) => add(path, format!("{} is empty", place.display()), "name another file"),
                Ok((head, size)) => {
                    let linux = matches!(Kernel::identify(&head, size), Ok(Kernel::Linux { .. }));
                    if key == "kernel" && cell.boot == Boot::Linux && !linux {
                        let wrong = format!("{} is not an arm64 Linux Image", place.display());
                        add(path, wrong, "name an uncompressed Image, or write \"boot\": \"binary\"");
                    }
                    sizes.push((key, size));
                }
                Err(error) => {
                    let right = "file names are relative to the description";
                    add(path, format!("{} cannot be read: {error}", place.display()), right);
                }
            }
        }
        let size = |key| sizes.iter().find(|(other, _)| *other == key).map_or(0, |(_, size)| *size);
        if dtb::write(config, cell, context.board, size("initrd")).is_err()
            || size("kernel") + size("initrd") > cell.memory.0
        {
            let wrong = format!(
                "is {}; kernel and initramfs have {} KiB together",
                cell.memory,
                (size("kernel") + size("initrd")).div_ceil(1024)
            );
            add(format!("cells[{n}].memory"), wrong, "give the cell more");
        }
    }
}

/// The first bytes of a file, and its length.
fn head(path: &Path) -> std::io::Result<(Vec<u8>, u64)> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut head = Vec::new();
    file.take(partita_guest::boot::HEADER as u64).read_to_end(&mut head)?;
    Ok((head, length))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use clap::Parser;

    use crate::context::{Context, Options};

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    fn check_text(dir: &Path, text: &str) -> String {
        let file = dir.join("x.json");
        fs::write(&file, text).unwrap();
        let mut options = Cli::parse_from(["test"]).options;
        options.description = file;
        match super::run(&Context::new(options).unwrap()) {
            Ok(()) => "ok".to_owned(),
            Err(failure) => failure.to_string().replace(&format!("{}/", dir.display()), ""),
        }
    }

    #[test]
    fn the_place_of_boot_files_is_checked() {
        let dir = std::env::temp_dir().join(format!("partita-check-boot-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("big"), vec![0; 17 << 20]).unwrap();
        let check = |address: &str, cell: &str| {
            let cells =
                format!(r#"{{ "name": "a", "memory": "32M", {cell} "boot": "binary", "kernel": "big" }}"#);
            check_text(&dir, &format!(r#"{{ "boot_files": "{address}", "cells": [{cells}] }}"#))
        };
        assert_eq!(check("0xc0000000", ""), "ok");
        assert_eq!(check("0x50000000", r#""memory_address": "0x40000000","#), "ok");
        assert_eq!(check("0xc0001000", ""), "x.json: boot_files: is 0xc0001000; it must be a multiple of 2M");
        assert!(
            check("0x60000000", "")
                .starts_with("boot_files: guests.img has 18M from 0x60000000, which is not in")
        );
        assert!(check("0x5f000000", "").contains("which is not in the memory"));
        assert!(
            check("0x40000000", "").contains("where the firmware leaves its device tree; choose 0x40200000")
        );
        assert!(check("0xc0000000", r#""memory_address": "0xc1000000","#).ends_with(
            "overlaps the memory of cells[0], 32M from 0xc1000000; choose another address for either"
        ));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn files_and_board_are_checked() {
        let dir = std::env::temp_dir().join(format!("partita-check-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("empty"), "").unwrap();
        fs::write(dir.join("text"), "not a kernel").unwrap();
        fs::write(dir.join("big"), vec![0; 17 << 20]).unwrap();
        let check = |cell: &str| check_text(&dir, &format!(r#"{{ "cells": [{{ "name": "a", {cell} }}] }}"#));
        assert_eq!(check(r#""memory": "16M", "boot": "binary", "kernel": "text""#), "ok");
        assert_eq!(
            check(r#""memory": "16M", "kernel": "empty""#),
            "x.json: cells[0].kernel: empty is empty; name another file"
        );
        assert_eq!(
            check(r#""memory": "16M", "kernel": "text""#),
            "x.json: cells[0].kernel: text is not an arm64 Linux Image; name an uncompressed Image, or write \"boot\": \"binary\""
        );
        assert!(
            check(r#""memory": "16M", "boot": "binary", "kernel": "none""#)
                .starts_with("x.json: cells[0].kernel: none cannot be read: No such file")
        );
        assert_eq!(
            check(r#""memory": "16M", "boot": "binary", "kernel": "text", "initrd": "big""#),
            "x.json: cells[0].memory: is 16M; kernel and initramfs have 17409 KiB together; give the cell more"
        );
        assert_eq!(
            check(r#""memory": "2G", "boot": "binary", "kernel": "text""#),
            "cells: they have 2G of memory together; qemu_virt_aarch64 has 1408M for them"
        );
        fs::remove_dir_all(dir).unwrap();
    }
}
