//! Looks into a guest disk from the host: where its partitions are, whether their contents are what they must be.

use std::{
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
    ops::Range,
    path::Path,
    process::Command,
};

use partita::{
    fail,
    failure::{Failure, Result},
};

/// Bytes of a sector.
pub const SECTOR: u64 = 512;

/// Sectors of the partition with this label.
///
/// # Errors
/// The disk cannot be read, has no GPT or no such partition.
pub fn partition(disk: &Path, label: &str) -> Result<Range<u64>> {
    let mut file = open(disk)?;
    let gpt = match gptman::GPT::read_from(&mut file, SECTOR) {
        Ok(gpt) => gpt,
        Err(error) => fail!("{} has no GPT: {error}", disk.display()),
    };
    match gpt.iter().find(|(_, entry)| entry.is_used() && entry.partition_name.as_str() == label) {
        Some((_, entry)) => Ok(entry.starting_lba..entry.ending_lba + 1),
        None => fail!("{} has no partition {label}", disk.display()),
    }
}

/// Checks that every 16 bytes of the `neighbour` hold their own place, as the recipe wrote them.
///
/// # Errors
/// The first place that differs.
pub fn check_pattern(disk: &Path, sectors: &Range<u64>) -> Result {
    let mut file = open(disk)?;
    seek(&mut file, sectors.start)?;
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut cell = [0; 16];
    for n in 0..(sectors.end - sectors.start) * SECTOR / 16 {
        reader.read_exact(&mut cell).map_err(|error| Failure::file("read", disk, &error))?;
        if cell != *format!("{n:015}\n").as_bytes() {
            fail!(
                "the neighbour partition was changed at byte {}: {:?}",
                n * 16,
                String::from_utf8_lossy(&cell)
            );
        }
    }
    Ok(())
}

/// Copies a disk image; holes stay holes.
///
/// # Errors
/// The copy cannot be written.
pub fn copy_sparse(from: &Path, to: &Path) -> Result {
    let mut cp = Command::new("cp");
    cp.args(["--sparse=always", "--reflink=auto"]).arg(from).arg(to);
    partita::process::output(&mut cp).map(|_| ())
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|error| Failure::file("open", path, &error))
}

fn seek(file: &mut File, sector: u64) -> Result {
    match file.seek(SeekFrom::Start(sector * SECTOR)) {
        Ok(_) => Ok(()),
        Err(error) => fail!("cannot seek to sector {sector}: {error}"),
    }
}
