//! Reads and writes of one segment, framed as drivers usually do: what most requests are, in a tenth of the time.
//!
//! [`plain`] accepts a part of what [`super::parse`] does, and what it does not accept goes there. Neither uses anything
//! that the other has read.

use super::{Operation, Parsed, SECTOR, Segment, kind};
use crate::queue::{DESC_F_NEXT, DESC_F_WRITE, Queue, Table, descriptor};

/// The header's descriptor: 16 readable bytes, the data next.
const HEADER: u64 = descriptor(16, DESC_F_NEXT, 1);
/// The data's, less its length, for a read and a write; the status next.
const READ: u64 = descriptor(0, DESC_F_NEXT | DESC_F_WRITE, 2);
const WRITE: u64 = descriptor(0, DESC_F_NEXT, 2);
/// The status byte's: the last.
const STATUS: u64 = descriptor(1, DESC_F_WRITE, 0);

/// Such a request.
#[derive(Clone, Copy, Debug)]
pub struct Plain {
    /// Index of the head descriptor.
    pub head: u16,
    write: bool,
    sector: u64,
    segment: Segment,
    status: u64,
}

impl Plain {
    /// As [`super::parse`] returns it.
    #[inline]
    pub const fn parsed(&self) -> Parsed {
        let (operation, writable) = match self.write {
            true => (Operation::Write { sector: self.sector }, 0),
            false => (Operation::Read { sector: self.sector }, self.segment.len),
        };
        Parsed { operation: Ok(operation), status: self.status, writable }
    }

    /// It is a write.
    #[inline]
    pub const fn write(&self) -> bool {
        self.write
    }

    /// First sector.
    #[inline]
    pub const fn sector(&self) -> u64 {
        self.sector
    }

    /// Its data.
    #[inline]
    pub const fn segment(&self) -> Segment {
        self.segment
    }
}

/// The next available chain if it is a plain request: [`Queue::skip`] takes it. `None` says nothing.
#[inline]
pub fn plain(queue: &mut Queue) -> Option<Plain> {
    let Table { head, words: [header, of_header, data, of_data, status, of_status] } = queue.peek_table()?;
    // `next` means nothing in the last one.
    if of_header != HEADER || of_status << 16 != STATUS << 16 {
        return None;
    }
    let ram = queue.ram();
    let [words, sector] = ram.read_words(header).ok()?;
    let write = match (u64::from_le(words) as u32, of_data >> 32 << 32) {
        (kind::IN, READ) => false,
        (kind::OUT, WRITE) => true,
        _ => return None,
    };
    let len = of_data as u32;
    if len == 0 || !u64::from(len).is_multiple_of(SECTOR) {
        return None;
    }
    let paddr = ram.translate(data, len.into())?;
    ram.offset(status, 1)?;
    Some(Plain { head, write, sector: u64::from_le(sector), segment: Segment { paddr, len }, status })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::blk::{Header, Limits, Segments, parse};
    use crate::fake::{Buffer, DriverQueue, FakeRam};
    use crate::features;

    const BASE: u64 = 0x4000_0000;
    const SIZE: u64 = 0x1_0000;
    const TABLE: u64 = BASE + 0x2000;
    const HEADER: u64 = BASE + 0x3000;

    struct Disk {
        ram: FakeRam,
        driver: DriverQueue,
        queue: Queue,
    }

    fn disk(features: u64) -> Disk {
        let ram = FakeRam::new(BASE, SIZE, 0x8000_0000);
        let driver = DriverQueue::new(ram.ram(), BASE, 16, true);
        let queue = Queue::new(ram.ram(), driver.layout, 16, features).unwrap();
        Disk { ram, driver, queue }
    }

    fn read() -> [Buffer; 3] {
        [Buffer::out(HEADER, 16), Buffer::into(BASE + 0x4000, 4096), Buffer::into(BASE + 0x3010, 1)]
    }

    #[test]
    fn what_linux_sends_is_plain() {
        let mut d = disk(features::INDIRECT_DESC);
        for (kind, data) in [(kind::IN, read()[1]), (kind::OUT, Buffer::out(BASE + 0x4000, 4096))] {
            d.ram.ram().write_obj(HEADER, &Header { kind, reserved: 0, sector: 9 }).unwrap();
            let head = d.driver.add_indirect(TABLE, &[read()[0], data, read()[2]]).unwrap();
            let found = plain(&mut d.queue).unwrap();
            assert_eq!((found.head, found.sector(), found.write()), (head, 9, kind == kind::OUT));
            assert_eq!(found.segment(), Segment { paddr: 0x8000_4000, len: 4096 });
            // It stays until it is taken.
            assert!(plain(&mut d.queue).is_some());
            d.queue.skip();
            assert!(plain(&mut d.queue).is_none() && matches!(d.queue.pop(), Ok(None)));
        }
    }

    #[test]
    fn without_the_feature_nothing_is() {
        let mut d = disk(0);
        d.driver.add_indirect(TABLE, &read()).unwrap();
        assert!(plain(&mut d.queue).is_none());
    }

    fn buffer() -> impl Strategy<Value = Buffer> {
        let addr = prop_oneof![
            4 => (0u64..16).prop_map(|n| BASE + 0x3000 + 8 * n),
            4 => (0u64..8).prop_map(|n| BASE + 0x4000 + 512 * n),
            1 => Just(BASE + SIZE - 1),
            1 => Just(BASE - 1),
        ];
        let len =
            prop_oneof![Just(0u32), Just(1), Just(16), Just(511), Just(512), Just(4096), Just(u32::MAX)];
        (addr, len, any::<bool>()).prop_map(|(addr, len, writable)| Buffer { addr, len, writable })
    }

    proptest! {
        /// What is plain, `parse` reads the same; and what breaks a rule is never plain.
        #[test]
        fn parse_agrees(
            mutations in prop::collection::vec((0usize..3, buffer()), 0..3),
            kind in prop_oneof![Just(kind::IN), Just(kind::OUT), Just(kind::FLUSH), any::<u32>()],
            sector: u64,
            words in prop::collection::vec((0u64..6, any::<u64>()), 0..2),
        ) {
            let mut d = disk(features::INDIRECT_DESC);
            let mut buffers = read();
            if kind == kind::OUT {
                buffers[1].writable = false;
            }
            for (at, buffer) in mutations {
                buffers[at] = buffer;
            }
            d.ram.ram().write_obj(HEADER, &Header { kind, reserved: 0, sector }).unwrap();
            d.driver.add_indirect(TABLE, &buffers).unwrap();
            for (at, word) in words {
                d.ram.ram().write_obj(TABLE + 8 * at, &word).unwrap();
            }
            let found = plain(&mut d.queue);
            let mut segments = Segments::<16>::new();
            let limits = Limits { seg_max: 16, size_max: u32::MAX };
            let parsed = d.queue.pop().unwrap().map(|chain| parse(chain, &limits, &mut segments));
            if let Some(found) = found {
                prop_assert_eq!(Some(Ok(found.parsed())), parsed);
                prop_assert_eq!(segments.as_slice(), [found.segment()]);
            }
        }
    }
}
