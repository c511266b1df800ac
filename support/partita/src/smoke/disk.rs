//! The guest's disk, looked at from the host.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
    process::Command,
};

use crate::{
    fail,
    failure::{Failure, Result},
    process, tools,
};

const SECTOR: u64 = 512;
const CHUNK: usize = 1 << 20;

/// A partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First sector.
    pub first: u64,
    /// Number of sectors.
    pub sectors: u64,
}

impl Window {
    fn bytes(&self) -> std::ops::Range<u64> {
        self.first * SECTOR..(self.first + self.sectors) * SECTOR
    }

    /// The name by which e2fsprogs find a file system inside an image.
    fn within(&self, disk: &Path) -> String {
        format!("{}?offset={}", disk.display(), self.bytes().start)
    }
}

/// The GPT partition of a label.
pub fn find(disk: &Path, label: &str) -> Result<Window> {
    let mut file = File::open(disk).map_err(|error| Failure::file("open", disk, &error))?;
    let Ok(gpt) = gptman::GPT::read_from(&mut file, SECTOR) else {
        fail!("{} has no GPT; the smoke test needs the partition \"{label}\" on it", disk.display());
    };
    let found = gpt.iter().find(|(_, entry)| entry.is_used() && entry.partition_name.as_str() == label);
    match found {
        Some((_, entry)) => {
            let first = entry.starting_lba;
            Ok(Window { first, sectors: entry.ending_lba + 1 - first })
        }
        None => fail!("{} has no partition \"{label}\"", disk.display()),
    }
}

/// e2fsck finds nothing to repair.
pub fn check_file_system(disk: &Path, window: &Window) -> Result {
    let program = tools::find("e2fsck").unwrap_or_else(|| "e2fsck".into());
    let mut command = Command::new(program);
    process::output(command.arg("-fn").arg(window.within(disk)))
        .map(drop)
        .map_err(|failure| Failure::new(format!("the guest's file system is damaged: {failure}")))
}

/// A file of the guest, read from the image, has a hash.
pub fn check_file(disk: &Path, window: &Window, file: &str, to: &Path, hash: &str) -> Result {
    let program = tools::find("debugfs").unwrap_or_else(|| "debugfs".into());
    let mut command = Command::new(program);
    // debugfs succeeds whatever happens; the hash tells. Its words may not contain quotes.
    process::output(
        command.arg("-R").arg(format!("dump {file} \"{}\"", to.display())).arg(window.within(disk)),
    )?;
    let sum = process::output(Command::new("sha256sum").arg(to))?;
    fs::remove_file(to).map_err(|error| Failure::file("remove", to, &error))?;
    match sum.split_whitespace().next() {
        Some(sum) if sum == hash => Ok(()),
        other => {
            fail!("{file} has the hash {hash} in the guest and {} in the image", other.unwrap_or("none"))
        }
    }
}

/// Nothing outside the windows differs between two images.
pub fn check_outside(original: &Path, copy: &Path, windows: &[Window]) -> Result {
    let open = |path: &Path| File::open(path).map_err(|error| Failure::file("open", path, &error));
    let (mut a, mut b) = (open(original)?, open(copy)?);
    let different = first_difference(&mut a, &mut b, windows).map_err(|error| {
        Failure::new(format!("cannot compare {} with its copy: {error}", original.display()))
    })?;
    match different {
        None => Ok(()),
        Some(at) => fail!(
            "byte {at:#x} of the disk (sector {}), outside the guests' windows, has changed",
            at / SECTOR
        ),
    }
}

/// Place of the first difference outside the windows; a difference in length is one.
fn first_difference(a: &mut impl Read, b: &mut impl Read, windows: &[Window]) -> io::Result<Option<u64>> {
    let skipped = |place: &u64| windows.iter().any(|window| window.bytes().contains(place));
    let (mut x, mut y) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut at = 0;
    loop {
        let (n, m) = (fill(a, &mut x)?, fill(b, &mut y)?);
        // Most chunks are equal, and that is quickly seen.
        let differs = x[..n] != y[..m];
        for (place, (left, right)) in (at..).zip(x[..n].iter().zip(&y[..m])).take_while(|_| differs) {
            if left != right && !skipped(&place) {
                return Ok(Some(place));
            }
        }
        if n != m {
            return Ok(Some(at + n.min(m) as u64));
        }
        if n == 0 {
            return Ok(None);
        }
        at += n as u64;
    }
}

fn fill(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bytes_outside_the_window_count() {
        let windows = [Window { first: 2, sectors: 2 }, Window { first: 6, sectors: 1 }];
        let original = vec![7; 8 * 512];
        let differs = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut copy = original.clone();
            change(&mut copy);
            first_difference(&mut original.as_slice(), &mut copy.as_slice(), &windows).unwrap()
        };
        assert_eq!(differs(&|_| ()), None);
        assert_eq!(differs(&|copy| copy[1024..2048].fill(0)), None);
        assert_eq!(differs(&|copy| copy[3072..3584].fill(0)), None);
        assert_eq!(differs(&|copy| copy[3584] = 0), Some(3584));
        assert_eq!(differs(&|copy| copy[1023] = 0), Some(1023));
        assert_eq!(differs(&|copy| copy[2048] = 0), Some(2048));
        assert_eq!(differs(&|copy| copy.truncate(4095)), Some(4095));
        assert_eq!(differs(&|copy| copy.push(0)), Some(4096));
    }
}
