//! Guest kernel and initramfs beside the image, and RAM that is not the kernel's (docs/boot-files.md).

use std::{
    fs,
    io::{Seek, SeekFrom, Write},
    path::PathBuf,
};

use partita::{
    build::{self, Built},
    context::Context,
    fail,
    failure::Result,
    qemu::Machine,
    session::Session,
};
use partita_system_tests::fixture::{self, BOOT, SOON, no_trouble, with_system};

const ADDRESS: u64 = 0xc000_0000;

/// Debian boots from them, and boots again from the same copy, which nobody has written.
#[test]
fn debian_boots_from_files_beside_the_image_and_boots_again() {
    let mut context = fixture::one_guest().unwrap();
    let text = context.read_description().unwrap();
    let text = text.replacen('{', &format!("{{ \"boot_files\": \"{ADDRESS:#x}\", "), 1).replacen(
        r#""memory""#,
        r#""memory_address": "0x40000000", "memory""#,
        1,
    );
    context.options.description = context.build_dir().join("test/boot-files.json");
    build::write(&context.options.description, text.as_bytes()).unwrap();
    with_system("boot-files", Some(&context.options.description), |system| {
        system.shell()?;
        system.session.shell_ok("touch /run/before && grep -q '^Linux' /proc/version", SOON)?;
        system.session.send("reboot\n")?;
        // The old shell shows its prompt once more; the new kernel's line is behind that, on the same console.
        system.session.expect("EXT4-fs (vda): mounted filesystem", BOOT)?;
        system.shell()?;
        system.session.shell_ok("test ! -e /run/before && grep -q '^Linux' /proc/version", SOON)?;
        no_trouble(system)?;
        system.power_off()
    });
}

/// What the VMM says of `guests.img` on a machine where `spoil` has changed how it is loaded.
fn said(
    name: &str,
    context: &Context,
    built: &Built,
    spoil: impl FnOnce(&mut Machine) -> Result,
) -> Result<String> {
    let mut machine = Machine::new(context, built, None)?;
    spoil(&mut machine)?;
    let log = context.build_dir().join(format!("test/boot-files-{name}.log"));
    let mut session = Session::start(&mut machine.command(), &log)?;
    session.expect("[vmm_alone] cannot start: guests.img is not at 0xc0000000: found ", BOOT)?;
    session.expect("; load it there beside loader.img", SOON)
}

/// The built guests.img with other bytes at `offset`.
fn changed(built: &Built, name: &str, offset: u64, bytes: &[u8]) -> PathBuf {
    let (image, _) = built.boot_files.clone().unwrap();
    let copy = image.with_file_name(name);
    fs::copy(image, &copy).unwrap();
    let mut file = fs::OpenOptions::new().write(true).open(&copy).unwrap();
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.write_all(bytes).unwrap();
    copy
}

#[test]
fn a_missing_an_old_and_a_damaged_file_are_named() {
    let mut context = fixture::one_guest().unwrap();
    let kernel = context.guest_dir().join("Image");
    let text = format!(
        r#"{{ "boot_files": "{ADDRESS:#x}", "cells": [{{ "name": "alone", "memory": "64M", "kernel": "{}" }}] }}"#,
        kernel.display()
    );
    context.options.description = context.build_dir().join("test/boot-files-wrong.json");
    build::write(&context.options.description, text.as_bytes()).unwrap();
    let built = build::build(&context).unwrap();
    let length = fs::metadata(&kernel).unwrap().len();
    let run = || -> Result {
        let missing = said("missing", &context, &built, |machine| {
            machine.boot_files = None;
            Ok(())
        })?;
        if missing != "no header (the first bytes are 0000000000000000)" {
            fail!("without a file: {missing}");
        }
        let header = partita_guest::boot_file::Header { length: 4096, crc: 1 };
        let old = changed(&built, "old.img", 0, &header.to_bytes());
        let other = said("old", &context, &built, |machine| {
            machine.boot_files = Some((old, ADDRESS));
            Ok(())
        })?;
        if !other.starts_with("that of another build (4096 bytes with CRC 00000001 instead of ") {
            fail!("with another file: {other}");
        }
        // The last byte of the kernel, of which the boot loader had no room for.
        let short = changed(&built, "short.img", 4096 + length - 1, &[0xa5]);
        let damaged = said("damaged", &context, &built, |machine| {
            machine.boot_files = Some((short, ADDRESS));
            Ok(())
        })?;
        if !damaged.starts_with("a damaged file or a part of it (CRC ") {
            fail!("with a damaged file: {damaged}");
        }
        Ok(())
    };
    run().unwrap_or_else(|failure| panic!("{failure}"));
}
