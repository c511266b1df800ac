//! What a guest may find on its disk.
//!
//! A sector may hold what the last acknowledged write to it wrote, or what any write wrote that was sent since and has not
//! been answered with success: in flight, failed, or forgotten by a reset of the device. Nothing else, ever: a request that
//! is done twice, or long after its answer, shows as soon as something newer was acknowledged. A sector is written with one
//! byte all over, so its content is a byte here.

/// Sectors of each guest's disk.
pub const SECTORS: usize = 64;

/// The values that a sector may have, as a set.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Values([u64; 4]);

impl Values {
    const fn only(value: u8) -> Self {
        let mut values = Values([0; 4]);
        values.0[value as usize / 64] = 1 << (value % 64);
        values
    }

    const fn add(&mut self, value: u8) {
        self.0[value as usize / 64] |= 1 << (value % 64);
    }

    const fn contains(&self, value: u8) -> bool {
        self.0[value as usize / 64] >> (value % 64) & 1 != 0
    }
}

/// A flush that was sent and not answered: what must be durable when it is.
#[derive(Clone, Debug)]
struct Flush {
    key: u16,
    sectors: Vec<Values>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Model {
    sectors: Vec<Values>,
    flushes: Vec<Flush>,
}

impl Default for Model {
    fn default() -> Self {
        Self::new()
    }
}

/// What the byte of sector `i` of a write is: neighbours differ, so that a mixed up order shows.
pub const fn byte(value: u8, i: usize) -> u8 {
    value.wrapping_add(i as u8)
}

impl Model {
    /// A disk of zeroes.
    pub fn new() -> Self {
        Self { sectors: vec![Values::only(0); SECTORS], flushes: Vec::new() }
    }

    /// A write was sent. `bytes` are those of its sectors.
    pub fn write_sent(&mut self, first: usize, bytes: &[u8]) {
        for (i, byte) in bytes.iter().enumerate() {
            self.sectors[first + i].add(*byte);
            for flush in &mut self.flushes {
                flush.sectors[first + i].add(*byte);
            }
        }
    }

    /// It was answered with success. Nothing else is in flight for its sectors.
    pub fn write_done(&mut self, first: usize, bytes: &[u8]) {
        for (i, byte) in bytes.iter().enumerate() {
            self.sectors[first + i] = Values::only(*byte);
        }
    }

    /// A read was answered with success.
    ///
    /// # Panics
    /// It cannot have read that.
    pub fn read_done(&mut self, first: usize, bytes: &[u8]) {
        for (i, byte) in bytes.iter().enumerate() {
            let sector = &mut self.sectors[first + i];
            assert!(sector.contains(*byte), "sector {} reads as {byte:#x}", first + i);
        }
    }

    /// A flush was sent.
    pub fn flush_sent(&mut self, key: u16) {
        self.flushes.push(Flush { key, sectors: self.sectors.clone() });
    }

    /// It was answered; with success if `durable` is what would be left after a power cut.
    ///
    /// # Panics
    /// Something that was acknowledged before it was sent would not be left.
    pub fn flush_done(&mut self, key: u16, durable: Option<&[u8]>) {
        let Some(at) = self.flushes.iter().position(|flush| flush.key == key) else { return };
        let flush = self.flushes.swap_remove(at);
        let Some(durable) = durable else { return };
        for (n, (values, content)) in flush.sectors.iter().zip(durable.chunks(512)).enumerate() {
            assert!(one(content).is_some_and(|byte| values.contains(byte)), "sector {n} is not durable");
        }
    }

    /// The device was reset: what was in flight may have been done or not.
    pub fn forget(&mut self) {
        self.flushes.clear();
    }

    /// Nothing is in flight: the disk is this.
    ///
    /// # Panics
    /// It cannot be.
    pub fn check(&self, disk: &[u8]) {
        for (n, (values, content)) in self.sectors.iter().zip(disk.chunks(512)).enumerate() {
            assert!(
                one(content).is_some_and(|byte| values.contains(byte)),
                "sector {n} is not what was written"
            );
        }
    }
}

/// The byte of which all of them are.
pub fn one(bytes: &[u8]) -> Option<u8> {
    let first = *bytes.first()?;
    bytes.iter().all(|byte| *byte == first).then_some(first)
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    fn disk(values: &[(usize, u8)]) -> Vec<u8> {
        let mut disk = vec![0; SECTORS * 512];
        for (sector, value) in values {
            disk[sector * 512..][..512].fill(*value);
        }
        disk
    }

    #[test]
    fn only_what_was_acknowledged_or_may_have_happened() {
        let mut model = Model::new();
        model.write_sent(3, &[7, 8]);
        model.check(&disk(&[]));
        model.check(&disk(&[(3, 7)]));
        model.write_done(3, &[7, 8]);
        model.check(&disk(&[(3, 7), (4, 8)]));
        assert!(catch_unwind(|| model.check(&disk(&[(3, 7)]))).is_err(), "lost");
        model.write_sent(3, &[9]);
        model.forget();
        model.check(&disk(&[(3, 9), (4, 8)]));
        model.write_sent(3, &[10]);
        model.write_done(3, &[10]);
        assert!(catch_unwind(|| model.check(&disk(&[(3, 9), (4, 8)]))).is_err(), "done long after");
        let mut torn = disk(&[(3, 10), (4, 8)]);
        torn[3 * 512 + 100] = 7;
        assert!(catch_unwind(|| model.check(&torn)).is_err(), "mixed");
    }

    #[test]
    fn a_flush_covers_what_was_acknowledged_before_it_was_sent() {
        let mut model = Model::new();
        model.write_sent(0, &[1]);
        model.write_done(0, &[1]);
        model.write_sent(1, &[2]);
        model.flush_sent(5);
        model.write_done(1, &[2]);
        let early = |durable: &[(usize, u8)]| {
            let (mut model, durable) = (model.clone(), disk(durable));
            catch_unwind(move || model.flush_done(5, Some(&durable))).is_err()
        };
        assert!(early(&[]) && early(&[(1, 2)]));
        assert!(!early(&[(0, 1)]) && !early(&[(0, 1), (1, 2)]));
        model.flush_done(5, None);
    }
}
