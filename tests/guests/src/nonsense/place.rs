//! Which case is being tried, kept on the guest's disk.

use core::fmt;

use crate::blk::{self, Disk, IN, OUT};
use crate::println;

/// A sector of the guest's disk that nobody else uses.
const SECTOR: u64 = 4;
const MAGIC: u64 = u64::from_le_bytes(*b"nonsense");

/// Where the guest is in the catalogue.
pub struct Place {
    /// The case that was being tried when the guest ended.
    pub trying: Option<usize>,
    /// Cases that went as they must.
    pub passed: u64,
    /// Others.
    pub failed: u64,
}

fn load(word: usize) -> u64 {
    let data = blk::load(0);
    data.as_chunks().0.get(word).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

impl Place {
    /// Reads it. A disk that holds none is that of a guest which has just begun.
    pub fn read() -> Option<Self> {
        let mut disk = Disk::start()?;
        if disk.request(IN, SECTOR, 512) != 0 {
            return None;
        }
        if load(0) != MAGIC {
            return Some(Self { trying: None, passed: 0, failed: 0 });
        }
        let (passed, failed) = (load(1), load(2));
        Some(Self { trying: Some((passed + failed) as usize), passed, failed })
    }

    /// The next case.
    pub fn next(&self) -> usize {
        (self.passed + self.failed) as usize
    }

    fn write(&self, magic: u64) -> bool {
        let Some(mut disk) = Disk::start() else { return false };
        let mut data = [0; 4096];
        for (to, from) in data.as_chunks_mut().0.iter_mut().zip([magic, self.passed, self.failed]) {
            *to = from.to_le_bytes();
        }
        blk::store(0, data);
        disk.request(OUT, SECTOR, 512) == 0
    }

    /// Notes that the next case is tried now.
    pub fn begin(&self) -> bool {
        self.write(MAGIC)
    }

    /// Notes what became of it.
    pub fn judge(&mut self, name: &dyn fmt::Display, ok: bool, why: &str) {
        if ok {
            self.passed += 1;
            println!("ok   {name}");
        } else {
            self.failed += 1;
            println!("FAIL {name}: {why}");
        }
    }

    /// The catalogue is through.
    pub fn end(&self) {
        self.write(0);
    }
}
