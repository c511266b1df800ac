//! Puts scripts and the marking program onto a copy of the guests' disk.

use std::{
    fs::File,
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    build, fail,
    failure::{Failure, Result},
    process, tools,
};

const SECTOR: u64 = 512;

/// A part of the disk image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// First byte.
    pub offset: u64,
    /// Length.
    pub bytes: u64,
}

/// Copies the disk, adds the scripts of `debian1` and `debian2`, and returns where the two partitions are.
pub fn prepare(
    original: &Path,
    copy: &Path,
    out: &Path,
    [first, second]: [Option<&str>; 2],
) -> Result<(Place, Place)> {
    let mut cp = Command::new("cp");
    cp.args(["--sparse=always", "--reflink=auto"]).arg(original).arg(copy);
    process::run("Copying the disk", &mut cp)?;
    let places = (find(copy, "debian1")?, find(copy, "debian2")?);
    for (place, script) in [(places.0, first), (places.1, second)] {
        if let Some(script) = script {
            install(copy, out, place, script)?;
        }
    }
    Ok(places)
}

/// Writes a script, as `/root/bench.sh`, and the marking program into a root file system.
fn install(copy: &Path, out: &Path, root: Place, script: &str) -> Result {
    let (script_file, mark_file) = (out.join("bench.sh"), out.join("mark"));
    build::write(&script_file, script.as_bytes())?;
    build::write(&mark_file, &mark())?;
    let requests = out.join("debugfs");
    let write = |from: &Path, to: &str| {
        let from = from.display();
        format!("write \"{from}\" {to}\nsif {to} mode 0100755\nsif {to} uid 0\nsif {to} gid 0\n")
    };
    let text = format!("cd /root\n{}{}", write(&script_file, "bench.sh"), write(&mark_file, "mark"));
    build::write(&requests, text.as_bytes())?;
    let program = tools::find("debugfs").unwrap_or_else(|| "debugfs".into());
    let mut debugfs = Command::new(program);
    debugfs.arg("-w").arg("-f").arg(&requests).arg(format!("{}?offset={}", copy.display(), root.offset));
    let output =
        debugfs.stdin(Stdio::null()).output().map_err(|error| process::cannot_start("debugfs", &error))?;
    // debugfs ends with success whatever happens.
    let said = String::from_utf8_lossy(&output.stderr);
    if said.lines().any(|line| !line.starts_with("debugfs 1.")) {
        fail!("debugfs cannot write to the guest's disk: {}", said.trim());
    }
    Ok(())
}

fn find(disk: &Path, label: &str) -> Result<Place> {
    let mut file = File::open(disk).map_err(|error| Failure::file("open", disk, &error))?;
    let Ok(gpt) = gptman::GPT::read_from(&mut file, SECTOR) else {
        fail!("{} has no GPT", disk.display());
    };
    match gpt.iter().find(|(_, entry)| entry.is_used() && entry.partition_name.as_str() == label) {
        Some((_, entry)) => Ok(Place {
            offset: entry.starting_lba * SECTOR,
            bytes: (entry.ending_lba + 1 - entry.starting_lba) * SECTOR,
        }),
        None => fail!("{} has no partition {label}", disk.display()),
    }
}

/// A program for AArch64 Linux that executes the plugin's mark and ends. Made by hand, so that no cross toolchain is needed;
/// its address tells the plugin that it is a guest's program, not a PD.
fn mark() -> Vec<u8> {
    const BASE: u64 = 0x5000_0000_0000;
    const HEADERS: u64 = 64 + 56;
    let code = [
        0xd503_2fff_u32, // hint #127
        0xd280_0000,     // mov x0, #0
        0xd280_0ba8,     // mov x8, #93 (exit)
        0xd400_0001,     // svc #0
    ];
    let size = HEADERS + 4 * code.len() as u64;
    let mut file = Vec::new();
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    // ET_EXEC, EM_AARCH64
    for half in [2_u16, 183] {
        file.extend(half.to_le_bytes());
    }
    file.extend(1_u32.to_le_bytes());
    for word in [BASE + HEADERS, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend(0_u32.to_le_bytes());
    // Sizes and numbers of headers: itself, one program header, no section header.
    for half in [64_u16, 56, 1, 64, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    // PT_LOAD, readable and executable.
    for word in [1_u32, 5] {
        file.extend(word.to_le_bytes());
    }
    for word in [0, BASE, BASE, size, size, 0x1000] {
        file.extend(word.to_le_bytes());
    }
    file.extend(code.iter().flat_map(|word| word.to_le_bytes()));
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marking_program_is_an_elf_file_that_holds_its_code() {
        let file = mark();
        assert_eq!(file.len(), 64 + 56 + 16);
        let word = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().unwrap());
        let (entry, address, bytes) = (word(24), word(64 + 16), word(64 + 32));
        assert_eq!(bytes, file.len() as u64);
        let code = usize::try_from(entry - address).unwrap();
        assert_eq!(file[code..code + 4], 0xd503_2fff_u32.to_le_bytes());
    }
}
