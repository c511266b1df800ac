//! The connections: a fixed table with both ends of each, found by the two addresses.
//!
//! Each cell may have opened [`PER_CELL`] of them, and the table has room for all, so that no cell can use up another's. A
//! connection that is over stays until each end that has to hear of it has been sent its RST: that needs no more memory.

use partita_protocol::MAX_CELLS;

/// Connections that a cell may have opened.
pub const PER_CELL: usize = 256;
/// Size of the table.
pub const CONNECTIONS: usize = PER_CELL * MAX_CELLS;
/// Stands for CID 2 where cells have their number.
pub const HOST: usize = MAX_CELLS;

const BUCKETS: usize = 1024;
/// No entry: entry 0 stays unused, so that an empty table is zeroes throughout and takes no room in the program's file.
const NONE: u16 = 0;
const _: () = assert!(CONNECTIONS < u16::MAX as usize && BUCKETS.is_power_of_two());

/// An end's address: a cell's number, or [`HOST`], and a port.
pub type Address = (usize, u32);

/// One end of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct End {
    cell: u8,
    /// Its port.
    pub port: u32,
    /// Bytes that it has sent and that were delivered. Wraps.
    pub sent: u32,
    /// Greatest value that its peer's `sent` may reach: `fwd_cnt + buf_alloc`, which never goes back. Wraps.
    pub limit: u32,
    /// It is to be sent a RST.
    owed: bool,
    /// Next in the list of those that are owed to its cell.
    next_owed: u16,
}

impl End {
    /// Number of its cell, or [`HOST`].
    pub fn cell(&self) -> usize {
        self.cell.into()
    }
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing is here.
    Free,
    /// REQUEST was delivered.
    Requested,
    /// RESPONSE was delivered.
    Open,
    /// It is over; RSTs are owed.
    Over,
}

/// A connection. End 0 has opened it.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    /// Both ends.
    pub ends: [End; 2],
    /// Socket type.
    pub kind: u16,
    /// How far it is.
    pub stage: Stage,
    /// Index of the stream at CID 2, if end 1 is there.
    pub stream: u8,
    next: u16,
}

const FREE: Connection = Connection {
    ends: [End { cell: 0, port: 0, sent: 0, limit: 0, owed: false, next_owed: NONE }; 2],
    kind: 0,
    stage: Stage::Free,
    stream: 0,
    next: NONE,
};

/// Ends that wait for their RST, of one cell.
#[derive(Clone, Copy, Debug)]
struct Owed {
    first: u16,
    last: u16,
}

/// All connections.
pub struct Connections {
    entries: [Connection; CONNECTIONS + 1],
    buckets: [u16; BUCKETS],
    free: u16,
    /// Entries behind this one were never used.
    fresh: u16,
    opened: [u16; MAX_CELLS],
    owed: [Owed; MAX_CELLS],
}

impl Default for Connections {
    fn default() -> Self {
        Self::new()
    }
}

impl Connections {
    /// None.
    pub const fn new() -> Self {
        Self {
            entries: [FREE; CONNECTIONS + 1],
            buckets: [NONE; BUCKETS],
            free: NONE,
            fresh: 0,
            opened: [0; MAX_CELLS],
            owed: [Owed { first: NONE, last: NONE }; MAX_CELLS],
        }
    }

    /// An entry.
    pub fn get(&mut self, index: usize) -> Option<&mut Connection> {
        self.entries.get_mut(index).filter(|entry| entry.stage != Stage::Free)
    }

    /// Finds the connection between two addresses: its index, and which end `from` is.
    pub fn find(&self, from: Address, to: Address) -> Option<(usize, usize)> {
        let mut at = *self.buckets.get(bucket(from, to))?;
        while at != NONE
            && let Some(entry) = self.entries.get(usize::from(at))
        {
            let is = |end: &End, address: Address| (end.cell(), end.port) == address;
            let [a, b] = &entry.ends;
            if is(a, from) && is(b, to) {
                return Some((at.into(), 0));
            }
            if is(b, from) && is(a, to) {
                return Some((at.into(), 1));
            }
            at = entry.next;
        }
        None
    }

    /// Adds a connection that `from` opens. `None`: it has as many as it may have.
    pub fn add(&mut self, from: Address, to: Address, kind: u16) -> Option<usize> {
        let opened = self.opened.get_mut(from.0)?;
        if usize::from(*opened) >= PER_CELL {
            return None;
        }
        let at = match self.entries.get(usize::from(self.free)) {
            Some(entry) if self.free != NONE => core::mem::replace(&mut self.free, entry.next),
            _ => {
                self.fresh += 1;
                self.fresh
            }
        };
        let head = self.buckets.get_mut(bucket(from, to))?;
        let entry = self.entries.get_mut(usize::from(at))?;
        let end = |(cell, port): Address| End { cell: cell as u8, port, next_owed: NONE, ..End::default() };
        *entry = Connection {
            ends: [end(from), end(to)],
            kind,
            stage: Stage::Requested,
            stream: 0,
            next: core::mem::replace(head, at),
        };
        *opened += 1;
        Some(at.into())
    }

    /// Ends a connection. The ends named by `tell` are owed a RST; with none of them the entry is free again.
    pub fn end(&mut self, index: usize, tell: [bool; 2]) {
        let Some(entry) = self.get(index) else { return };
        entry.stage = Stage::Over;
        for (end, tell) in tell.into_iter().enumerate() {
            if tell {
                self.owe(index, end);
            }
        }
        self.collect(index);
    }

    fn owe(&mut self, index: usize, end: usize) {
        let Some(place) = self.get(index).and_then(|entry| entry.ends.get_mut(end)) else { return };
        if place.owed {
            return;
        }
        let cell = place.cell();
        // CID 2 is told by its caller.
        let Some(list) = self.owed.get_mut(cell) else { return };
        let last = core::mem::replace(&mut list.last, index as u16);
        if last == NONE {
            list.first = index as u16;
        }
        if let Some(place) = self.end_of(index, cell) {
            (place.owed, place.next_owed) = (true, NONE);
        }
        if last != NONE
            && let Some(before) = self.end_of(last.into(), cell)
        {
            before.next_owed = index as u16;
        }
    }

    /// A cell is at most one end of a connection.
    fn end_of(&mut self, index: usize, cell: usize) -> Option<&mut End> {
        self.entries.get_mut(index)?.ends.iter_mut().find(|end| end.cell() == cell)
    }

    /// The first RST that is owed to a cell: connection and which end the cell is.
    pub fn first_owed(&self, cell: usize) -> Option<(usize, usize)> {
        let index = usize::from(Some(self.owed.get(cell)?.first).filter(|first| *first != NONE)?);
        let end = self.entries.get(index)?.ends.iter().position(|end| end.cell() == cell)?;
        Some((index, end))
    }

    /// That one has been sent, or there is nobody to send it to.
    pub fn pay_owed(&mut self, cell: usize) {
        let Some((index, _)) = self.first_owed(cell) else { return };
        let Some(place) = self.end_of(index, cell) else { return };
        place.owed = false;
        let next = core::mem::replace(&mut place.next_owed, NONE);
        if let Some(list) = self.owed.get_mut(cell) {
            list.first = next;
            if next == NONE {
                list.last = NONE;
            }
        }
        self.collect(index);
    }

    /// Frees an entry that is over and of which nobody has to hear any more.
    fn collect(&mut self, index: usize) {
        let Some(entry) = self.get(index) else { return };
        if entry.stage != Stage::Over || entry.ends.iter().any(|end| end.owed) {
            return;
        }
        let [from, to] = entry.ends.map(|end| (end.cell(), end.port));
        let next = entry.next;
        let mut at = bucket(from, to);
        // The list's head, or the entry that points here.
        if self.buckets.get(at) == Some(&(index as u16)) {
            if let Some(head) = self.buckets.get_mut(at) {
                *head = next;
            }
        } else {
            at = self.buckets.get(at).copied().unwrap_or(NONE).into();
            while at != usize::from(NONE)
                && let Some(before) = self.entries.get_mut(at)
            {
                if usize::from(before.next) == index {
                    before.next = next;
                    break;
                }
                at = before.next.into();
            }
        }
        if let Some(opened) = self.opened.get_mut(from.0) {
            *opened = opened.saturating_sub(1);
        }
        let free = core::mem::replace(&mut self.free, index as u16);
        if let Some(entry) = self.entries.get_mut(index) {
            *entry = Connection { next: free, ..FREE };
        }
    }

    /// Indices of the connections that are not over and have an end in `cell`.
    pub fn of_cell(&self, cell: usize, from: usize) -> Option<usize> {
        let used = self.entries.get(from..=usize::from(self.fresh))?;
        let of = |entry: &Connection| {
            matches!(entry.stage, Stage::Requested | Stage::Open)
                && entry.ends.iter().any(|end| end.cell() == cell)
        };
        used.iter().position(of).map(|at| from + at)
    }

    /// Connections that are not over.
    #[cfg(test)]
    pub fn live(&self) -> usize {
        self.entries.iter().filter(|e| matches!(e.stage, Stage::Requested | Stage::Open)).count()
    }

    /// Entries in use.
    #[cfg(test)]
    pub fn used(&self) -> usize {
        self.entries.iter().filter(|entry| entry.stage != Stage::Free).count()
    }
}

/// The same for both directions.
fn bucket(a: Address, b: Address) -> usize {
    let mix = |(cell, port): Address| (port ^ (cell as u32) << 27).wrapping_mul(0x9e37_79b1);
    let both = mix(a).wrapping_add(mix(b));
    (both ^ both >> 15) as usize & (BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::boxed::Box;
    use std::collections::BTreeMap;

    #[test]
    fn an_empty_table_is_zeroes() {
        let table = Box::new(Connections::new());
        let zeroes = table.entries.iter().all(|entry| {
            let ends = entry.ends.iter().all(|end| {
                (end.cell, end.port, end.sent, end.limit, end.owed, end.next_owed) == (0, 0, 0, 0, false, 0)
            });
            ends && (entry.kind, entry.stage as u8, entry.stream, entry.next) == (0, 0, 0, 0)
        });
        assert!(zeroes && table.buckets.iter().chain(&table.opened).all(|number| *number == 0));
        assert!(
            (table.free, table.fresh) == (0, 0) && table.owed.iter().all(|l| (l.first, l.last) == (0, 0))
        );
    }

    #[test]
    fn a_cell_has_its_own_limit_and_nothing_leaks() {
        let mut table = Box::new(Connections::new());
        for _ in 0..20 {
            let mut all: Vec<_> =
                (0..PER_CELL as u32).map(|p| table.add((0, p), (1, 5), 1).unwrap()).collect();
            assert_eq!(table.add((0, 9999), (1, 5), 1), None);
            assert!(table.add((1, 9999), (0, 5), 1).is_some());
            let other = table.find((0, 5), (1, 9999)).unwrap();
            assert_eq!(other.1, 1);
            table.end(other.0, [false, false]);
            all.reverse();
            for index in all {
                table.end(index, [true, true]);
            }
            for cell in [0, 1] {
                while let Some((index, end)) = table.first_owed(cell) {
                    assert_eq!(table.get(index).unwrap().ends[end].cell(), cell);
                    table.pay_owed(cell);
                }
            }
            assert_eq!(table.used(), 0);
        }
        assert!(usize::from(table.fresh) <= PER_CELL + 1, "{} entries were used", table.fresh);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 200 }) })]
        /// Against a map.
        #[test]
        fn finds_what_a_map_finds(steps in prop::collection::vec((0..3usize, 0..4u32, 0..3usize, 0..4u32, 0..6u8), 0..200)) {
            let mut table = Box::new(Connections::new());
            let mut model = BTreeMap::new();
            let mut owed = [0usize; 3];
            for (a, p, b, q, what) in steps {
                if a == b { continue; }
                let (from, to) = ((a, p), (b, q));
                let found = table.find(from, to);
                let known = model.get(&(from, to)).map(|i| (*i, 0)).or(model.get(&(to, from)).map(|i| (*i, 1)));
                prop_assert_eq!(found, known);
                match (what, found) {
                    (0..=2, None) => { model.insert((from, to), table.add(from, to, 1).unwrap()); }
                    (3, Some((index, end))) => {
                        let over = table.get(index).unwrap().stage == Stage::Over;
                        let ends = table.get(index).unwrap().ends;
                        let tell = [true, end == 0];
                        for (e, tell) in ends.iter().zip(tell) {
                            if tell && !e.owed { owed[e.cell()] += 1; }
                        }
                        let _ = over;
                        table.end(index, tell);
                    }
                    (4, Some((index, _))) if table.get(index).unwrap().ends.iter().all(|e| !e.owed) => {
                        table.end(index, [false; 2]);
                        model.retain(|_, i| *i != index);
                    }
                    (5, _) => {
                        if let Some((index, _)) = table.first_owed(a) {
                            owed[a] -= 1;
                            table.pay_owed(a);
                            if table.get(index).is_none() { model.retain(|_, i| *i != index); }
                        } else {
                            prop_assert_eq!(owed[a], 0);
                        }
                    }
                    _ => {}
                }
                prop_assert_eq!(table.used(), model.len());
            }
        }
    }
}
