//! `guests.img`: the guests' kernels and initramfs for a boot loader that puts them beside the image (`boot_files` in
//! partita.json, docs/boot-files.md). Each different file is there once, behind its header
//! ([`partita_guest::boot_file`]), in a region of its own, so that a VMM can be given what its guest boots and no more.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use partita_config::{Cell, Config, Size};
use partita_guest::{
    boot_file::{ALIGN, Header, LEAD, room},
    crc32c::Crc32c,
};

use crate::{
    board::Board,
    build,
    context::Context,
    fail,
    failure::{Failure, Result},
};

/// Name of the file.
pub const IMAGE: &str = "guests.img";

/// A file in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootFile {
    /// What the description calls it: the same file may have several names.
    pub names: BTreeSet<String>,
    /// Where it is.
    pub place: PathBuf,
    /// Its length.
    pub length: u64,
    /// Physical address of its region.
    pub address: u64,
    /// Bytes of its region.
    pub room: u64,
}

/// What is where in memory. Empty without `boot_files`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootFiles(pub Vec<BootFile>);

impl BootFiles {
    /// Lays out the files of a description.
    ///
    /// # Errors
    /// A file is missing: where the others are depends on its length.
    pub fn lay_out(context: &Context, config: &Config<'_>) -> Result<Self> {
        Self::with(config, |name| {
            let place = context.file(name);
            let length = match fs::metadata(&place) {
                Ok(metadata) if metadata.is_file() => metadata.len(),
                Ok(_) => fail!("boot_files: {} is not a file", place.display()),
                Err(error) => return Err(Failure::file("read for boot_files", &place, &error)),
            };
            Ok((place.canonicalize().unwrap_or(place), length))
        })
    }

    /// The same with the places and lengths that `look_up` tells.
    pub(crate) fn with(
        config: &Config<'_>,
        look_up: impl Fn(&str) -> Result<(PathBuf, u64)>,
    ) -> Result<Self> {
        let Some(first) = config.boot_files else { return Ok(Self::default()) };
        let mut files: Vec<BootFile> = Vec::new();
        let mut address = first.0;
        for name in config.cells.iter().flat_map(|cell| [Some(cell.kernel), cell.initrd]).flatten() {
            let (place, length) = look_up(name)?;
            if let Some(known) = files.iter_mut().find(|file| file.place == place) {
                known.names.insert(name.to_owned());
                continue;
            }
            let Some((room, end)) = room(length).and_then(|room| Some((room, address.checked_add(room)?)))
            else {
                fail!("boot_files: {} does not fit into any memory from {address:#x}", place.display());
            };
            files.push(BootFile { names: BTreeSet::from([name.to_owned()]), place, length, address, room });
            address = end;
        }
        Ok(Self(files))
    }

    /// By a name of the description.
    pub fn find(&self, name: &str) -> Option<&BootFile> {
        self.0.iter().find(|file| file.names.contains(name))
    }

    /// First byte and the first behind all of them.
    pub fn range(&self) -> Option<(u64, u64)> {
        Some((self.0.first()?.address, self.0.last().map(|last| last.address + last.room)?))
    }

    /// Refuses places that the board does not have, or somebody else has.
    ///
    /// # Errors
    /// One sentence.
    pub fn check(&self, config: &Config<'_>, board: &Board) -> Result {
        let Some((first, end)) = self.range() else { return Ok(()) };
        let what = format!("boot_files: {IMAGE} has {} from {first:#x}", Size(end - first));
        if !board.spares(first, end) {
            fail!(
                "{what}, which is not in the memory that {} keeps from the kernel, {}; choose an address there, or leave \
                 boot_files out",
                board.name,
                board.spare_words()
            );
        }
        let (tree, behind) = board.firmware;
        if first < behind && tree < end {
            fail!("{what}, where the firmware leaves its device tree; choose {behind:#x} or another address");
        }
        for (n, cell) in config.cells.iter().enumerate() {
            if let Some(memory) = cell.fixed_memory()
                && first < memory.end
                && memory.start < end
            {
                fail!(
                    "{what}, and overlaps the memory of cells[{n}], {} from {:#x}; choose another address for either",
                    cell.memory,
                    memory.start
                );
            }
        }
        Ok(())
    }

    /// Writes `guests.img` and, for each cell, the headers that its VMM expects.
    ///
    /// # Errors
    /// A file cannot be read or written, or has changed its length meanwhile.
    pub fn write(&self, config: &Config<'_>, out: &Path) -> Result<Option<PathBuf>> {
        let Some((first, _)) = self.range() else { return Ok(None) };
        let path = out.join(IMAGE);
        // A machine that was started from the last one may still be reading it.
        let new = out.join(format!("{IMAGE}.new"));
        let mut image = File::create(&new).map_err(|error| Failure::file("create", &new, &error))?;
        let mut headers = Vec::new();
        for file in &self.0 {
            headers.push((file, append(&mut image, file.address - first, file, &new)?));
        }
        drop(image);
        fs::rename(&new, &path).map_err(|error| Failure::file("write", &path, &error))?;
        for cell in &config.cells {
            let of = |name: &str| headers.iter().find(|(file, _)| file.names.contains(name));
            let mut expected = Vec::new();
            for (_, header) in [Some(cell.kernel), cell.initrd].into_iter().flatten().filter_map(of) {
                expected.extend(header.to_bytes());
            }
            build::write(&out.join(expected_name(cell)), &expected)?;
        }
        Ok(Some(path))
    }
}

/// Name of the file with the headers that a cell's VMM expects.
pub fn expected_name(cell: &Cell<'_>) -> String {
    format!("{}.boot", cell.name)
}

/// Writes a file behind its header at `offset` of the image, and zeros up to the end of the last page, so that a loader
/// that takes whole blocks does not matter.
fn append(image: &mut File, offset: u64, file: &BootFile, to: &Path) -> Result<Header> {
    let unreadable = |error: std::io::Error| Failure::file("read", &file.place, &error);
    let mut from = File::open(&file.place).map_err(unreadable)?;
    let mut crc = Crc32c::new();
    let mut length = 0;
    let mut buffer = vec![0; 1 << 20];
    let mut write = |at: u64, bytes: &[u8]| {
        let done = image.seek(SeekFrom::Start(at)).and_then(|_| image.write_all(bytes));
        done.map_err(|error| Failure::file("write", to, &error))
    };
    loop {
        let read = from.read(&mut buffer).map_err(unreadable)?;
        let Some(bytes @ [_, ..]) = buffer.get(..read) else { break };
        if length + read as u64 > file.length {
            fail!("{} has become longer while it was read; build again", file.place.display());
        }
        crc.add(bytes);
        write(offset + LEAD as u64 + length, bytes)?;
        length += read as u64;
    }
    if length != file.length {
        fail!("{} has become shorter while it was read; build again", file.place.display());
    }
    let header = Header { length, crc: crc.value() };
    write(offset, &header.to_bytes())?;
    let end = (LEAD as u64 + length).next_multiple_of(0x1000);
    write(offset + end - 1, if end > LEAD as u64 + length { &[0] } else { &[] })?;
    Ok(header)
}

const _: () = assert!(ALIGN.is_multiple_of(LEAD as u64));

#[cfg(test)]
mod tests {
    use partita_guest::boot_file::{self, HEADER};

    use super::*;

    const TEXT: &str = r#"{ "boot_files": "0xc0000000", "cells": [
        { "name": "a", "memory": "16M", "kernel": "k", "initrd": "i" },
        { "name": "b", "memory": "16M", "kernel": "./k", "boot": "binary" },
        { "name": "c", "memory": "16M", "kernel": "l", "initrd": "i" }] }"#;

    fn parsed(text: &str) -> Config<'_> {
        partita_config::host::parse("x", text).unwrap()
    }

    fn lay_out(config: &Config<'_>, lengths: impl Fn(&str) -> u64) -> BootFiles {
        let look = |name: &str| Ok((PathBuf::from(name.trim_start_matches("./")), lengths(name)));
        BootFiles::with(config, look).unwrap()
    }

    fn board() -> &'static Board {
        Board::named("qemu_virt_aarch64").unwrap()
    }

    #[test]
    fn each_different_file_is_there_once_in_whole_regions() {
        let config = parsed(TEXT);
        let files = lay_out(&config, |name| if name == "i" { (2 << 20) - 4096 } else { (2 << 20) - 4095 });
        let places: Vec<_> = files.0.iter().map(|file| (file.address, file.room)).collect();
        assert_eq!(places, [(0xc000_0000, 4 << 20), (0xc040_0000, 2 << 20), (0xc060_0000, 4 << 20)]);
        assert_eq!(files.find("./k"), files.find("k"));
        assert_eq!(files.range(), Some((0xc000_0000, 0xc0a0_0000)));
        assert_eq!(files.check(&config, board()), Ok(()));
        let without = TEXT.replace(r#""boot_files": "0xc0000000","#, "");
        assert_eq!(lay_out(&parsed(&without), |_| 5), BootFiles::default());
        let far = TEXT.replace("0xc0000000", "0xffffffffffe00000");
        assert!(BootFiles::with(&parsed(&far), |_| Ok(("k".into(), 1 << 30))).is_err());
    }

    #[test]
    fn a_place_that_is_not_free_is_refused() {
        let refused = |address: &str, cell: &str| {
            let text =
                TEXT.replace("0xc0000000", address).replacen(r#""memory""#, &format!("{cell}\"memory\""), 1);
            let config = parsed(&text);
            lay_out(&config, |_| 1000).check(&config, board()).unwrap_err().to_string()
        };
        assert_eq!(
            refused("0x80000000", ""),
            "boot_files: guests.img has 6M from 0x80000000, which is not in the memory that qemu_virt_aarch64 keeps from \
             the kernel, 0x40000000 to 0x60000000 and 0xc0000000 to 0x240000000; choose an address there, or leave \
             boot_files out"
        );
        assert!(refused("0x5fe00000", "").contains("which is not in the memory"));
        assert!(refused("0x23fc00000", "").contains("which is not in the memory"));
        assert_eq!(
            refused("0x40000000", ""),
            "boot_files: guests.img has 6M from 0x40000000, where the firmware leaves its device tree; choose \
             0x40200000 or another address"
        );
        assert_eq!(
            refused("0x50000000", r#""memory_address": "0x50400000", "#),
            "boot_files: guests.img has 6M from 0x50000000, and overlaps the memory of cells[0], 16M from 0x50400000; \
             choose another address for either"
        );
    }

    #[test]
    fn a_vmm_finds_what_was_written() {
        let dir = std::env::temp_dir().join(format!("partita-boot-files-{}", std::process::id()));
        build::create(&dir).unwrap();
        let contents = [("k", vec![1; (2 << 20) + 5]), ("i", vec![2; 4096]), ("l", vec![3; 1])];
        for (name, bytes) in &contents {
            fs::write(dir.join(name), bytes).unwrap();
        }
        let config = parsed(TEXT);
        let look = |name: &str| {
            let place = dir.join(name).canonicalize().unwrap();
            let length = fs::metadata(&place).unwrap().len();
            Ok((place, length))
        };
        let files = BootFiles::with(&config, look).unwrap();
        let image = fs::read(files.write(&config, &dir).unwrap().unwrap()).unwrap();
        let expect = |cell: &str, entry: usize, bytes: &[u8], name: &str| {
            let expected = fs::read(dir.join(format!("{cell}.boot"))).unwrap();
            let file = files.find(name).unwrap();
            let region = &image[usize::try_from(file.address - 0xc000_0000).unwrap()..];
            let (found, crc) = boot_file::open(region, &expected[entry * HEADER..]).unwrap();
            assert!(found == bytes && crc == partita_guest::crc32c::crc32c(bytes), "{cell} {name}");
            expected.len() / HEADER
        };
        assert_eq!(expect("a", 0, &contents[0].1, "k"), 2);
        assert_eq!(expect("a", 1, &contents[1].1, "i"), 2);
        assert_eq!(expect("b", 0, &contents[0].1, "./k"), 1);
        assert_eq!(expect("c", 0, &contents[2].1, "l"), 2);
        assert!(image.len().is_multiple_of(4096));
        let mut longer = files.clone();
        longer.0[0].length -= 1;
        assert!(longer.write(&config, &dir).unwrap_err().to_string().contains("has become longer"));
        longer.0[0].length += 2;
        assert!(longer.write(&config, &dir).unwrap_err().to_string().contains("has become shorter"));
        fs::remove_dir_all(dir).unwrap();
    }
}
