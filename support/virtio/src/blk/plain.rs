//! Reads and writes of one segment, framed as drivers usually do: what most requests are, in a tenth of the time.
//!
//! [`plain`] accepts a part of what [`super::parse`] does, and what it does not accept goes there. Neither uses anything
//! that the other has read.

use super::{Operation, Parsed, SECTOR, Segment, kind};
use crate::queue::Queue;

/// Bytes of a request's header.
const HEADER: u32 = 16;

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
    let triple = queue.peek_triple()?;
    let ram = queue.ram();
    let [header, data, status] = triple.parts;
    if header.writable || header.len != HEADER || !status.writable || status.len != 1 {
        return None;
    }
    let [words, sector] = ram.read_words(header.addr).ok()?;
    let write = match u64::from_le(words) as u32 {
        kind::IN if data.writable => false,
        kind::OUT if !data.writable => true,
        _ => return None,
    };
    if !u64::from(data.len).is_multiple_of(SECTOR) {
        return None;
    }
    let paddr = ram.translate(data.addr, data.len.into())?;
    ram.offset(status.addr, 1)?;
    let segment = Segment { paddr, len: data.len };
    Some(Plain { head: triple.head, write, sector: u64::from_le(sector), segment, status: status.addr })
}
