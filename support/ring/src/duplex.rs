//! A byte ring each way between two PDs.
//!
//! Notifications follow virtio's event index idea (virtio 1.2, 2.7.10): the side that waits writes down the index at which
//! it wants to hear, the side that moves an index compares. One wait costs one signal, however many bytes follow before
//! the waiter runs. The order that makes it safe: the mover stores its index, then (after a full fence) loads the event; the
//! waiter stores the event, then (after a full fence) loads the index. One of them sees the other.
//!
//! The peer's indices are data from outside. An index that no honest peer could have written makes the ring look empty
//! (to the reader) or full (to the writer) and is counted in `faults`; nothing ever leaves the ring's memory.

use crate::bytes::{capacity, copy_in, copy_out};
use crate::page::{Mine, Yours};
use crate::sync::{Ordering, fence};

/// Both ends' view of a link: I write `mine`, the peer writes `yours`.
pub struct Duplex<'a> {
    /// Bytes to the peer.
    pub tx: Tx<'a>,
    /// Bytes from the peer.
    pub rx: Rx<'a>,
}

impl<'a> Duplex<'a> {
    /// Attaches to a link, new or used. Indices of `mine` are taken from the pages, as only this PD (perhaps an earlier life
    /// of it) wrote them.
    ///
    /// There must be one `Duplex` on a `mine` at a time; making another one is how a link is attached again.
    pub fn new(mine: Mine<'a>, yours: Yours<'a>) -> Self {
        Duplex { tx: Tx::new(mine, yours), rx: Rx::new(mine, yours) }
    }
}

/// `event` is in `old..new`: the index went beyond it.
fn passed(event: u64, old: u64, new: u64) -> bool {
    event.wrapping_sub(old) < new.wrapping_sub(old)
}

/// The producing half.
pub struct Tx<'a> {
    mine: Mine<'a>,
    yours: Yours<'a>,
    produced: u64,
    /// `produced` when [`Tx::should_notify`] was last asked.
    told: u64,
    faults: u32,
}

impl<'a> Tx<'a> {
    fn new(mine: Mine<'a>, yours: Yours<'a>) -> Self {
        let produced = mine.header.produced.load(Ordering::Relaxed);
        let mut tx = Tx { mine, yours, produced, told: produced, faults: 0 };
        match tx.used() {
            // An earlier life may have died between producing and telling: whatever the peer has not taken is told again.
            Some(used) => tx.told = produced.wrapping_sub(used),
            // One of the two wrote nonsense in its last moments: begin anew with an empty ring where the peer is.
            None => {
                tx.produced = yours.header.consumed.load(Ordering::Acquire);
                tx.told = tx.produced;
                mine.header.produced.store(tx.produced, Ordering::Release);
            }
        }
        tx.disarm();
        tx
    }

    /// Bytes that the ring can hold.
    pub fn capacity(&self) -> usize {
        capacity(self.mine.data) as usize
    }

    /// Bytes that the peer has not taken yet; `None` if its index is nonsense.
    fn used(&mut self) -> Option<u64> {
        // Acquire: the peer's reads of the bytes up to `consumed` happened before our next stores there.
        let consumed = self.yours.header.consumed.load(Ordering::Acquire);
        let used = self.produced.wrapping_sub(consumed);
        if used > capacity(self.mine.data) {
            self.faults = self.faults.saturating_add(1);
            return None;
        }
        Some(used)
    }

    /// Bytes that [`Tx::write`] would take now.
    pub fn free(&mut self) -> usize {
        let capacity = capacity(self.mine.data);
        (capacity - self.used().unwrap_or(capacity)) as usize
    }

    /// Puts as much of `bytes` into the ring as fits, and returns how much that was.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.free());
        let Some(bytes) = bytes.get(..taken) else { return 0 };
        if taken > 0 {
            copy_in(self.mine.data, self.produced, bytes);
            self.produced = self.produced.wrapping_add(taken as u64);
            self.mine.header.produced.store(self.produced, Ordering::Release);
        }
        taken
    }

    /// Puts all of `bytes` into the ring or nothing.
    pub fn write_all(&mut self, bytes: &[u8]) -> bool {
        bytes.len() <= self.free() && self.write(bytes) == bytes.len()
    }

    /// Whether the peer waits for what was written since the last call. Ask once after a batch of writes.
    pub fn should_notify(&mut self) -> bool {
        fence(Ordering::SeqCst);
        let event = self.yours.header.data_event.load(Ordering::Relaxed);
        let told = core::mem::replace(&mut self.told, self.produced);
        passed(event, told, self.produced)
    }

    /// Asks the peer for one notification when at least `bytes` are free. `true`: they are free already, go on writing.
    pub fn arm(&mut self, bytes: usize) -> bool {
        let capacity = capacity(self.mine.data);
        let bytes = (bytes as u64).clamp(1, capacity.max(1));
        // free >= bytes  <=>  consumed > produced + bytes - 1 - capacity
        let event = self.produced.wrapping_add(bytes - 1).wrapping_sub(capacity);
        self.mine.header.space_event.store(event, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.free() as u64 >= bytes
    }

    /// Takes [`Tx::arm`] back.
    pub fn disarm(&mut self) {
        // No honest `consumed` starts at or below this.
        let past = self.produced.wrapping_sub(capacity(self.mine.data)).wrapping_sub(1);
        self.mine.header.space_event.store(past, Ordering::Relaxed);
    }

    /// How often the peer's index was nonsense.
    pub fn faults(&self) -> u32 {
        self.faults
    }
}

/// The consuming half.
pub struct Rx<'a> {
    mine: Mine<'a>,
    yours: Yours<'a>,
    consumed: u64,
    /// `consumed` when [`Rx::should_notify`] was last asked.
    told: u64,
    faults: u32,
}

impl<'a> Rx<'a> {
    fn new(mine: Mine<'a>, yours: Yours<'a>) -> Self {
        let consumed = mine.header.consumed.load(Ordering::Relaxed);
        // As in `Tx::new`: the peer may have waited for space that an earlier life made and did not tell.
        let told = consumed.wrapping_sub(capacity(yours.data));
        Rx { mine, yours, consumed, told, faults: 0 }
    }

    /// Bytes that [`Rx::read`] could return now.
    pub fn available(&mut self) -> usize {
        // Acquire: the bytes up to `produced` are in the ring.
        let produced = self.yours.header.produced.load(Ordering::Acquire);
        let available = produced.wrapping_sub(self.consumed);
        if available > capacity(self.yours.data) {
            // Meet the peer where it claims to be; what was between is lost.
            self.faults = self.faults.saturating_add(1);
            self.set_consumed(produced);
            return 0;
        }
        available as usize
    }

    fn set_consumed(&mut self, consumed: u64) {
        self.consumed = consumed;
        // Release: our reads of the bytes before `consumed` are over.
        self.mine.header.consumed.store(consumed, Ordering::Release);
    }

    /// Takes bytes out of the ring and returns how many.
    pub fn read(&mut self, out: &mut [u8]) -> usize {
        let taken = self.peek(out);
        self.consume(taken);
        taken
    }

    /// Copies bytes without taking them out; [`Rx::consume`] takes them out.
    pub fn peek(&mut self, out: &mut [u8]) -> usize {
        let len = out.len().min(self.available());
        if let Some(out) = out.get_mut(..len) {
            copy_out(self.yours.data, self.consumed, out);
        }
        len
    }

    /// Takes out `bytes` bytes (no more than there are) that were seen by [`Rx::peek`].
    pub fn consume(&mut self, bytes: usize) {
        let bytes = bytes.min(self.available());
        if bytes > 0 {
            self.set_consumed(self.consumed.wrapping_add(bytes as u64));
        }
    }

    /// Whether the peer waits for the space made since the last call. Ask once after a batch of reads.
    pub fn should_notify(&mut self) -> bool {
        fence(Ordering::SeqCst);
        let event = self.yours.header.space_event.load(Ordering::Relaxed);
        let told = core::mem::replace(&mut self.told, self.consumed);
        passed(event, told, self.consumed)
    }

    /// Asks the peer for one notification when there is more to read than now. `true`: there is something already, read on.
    pub fn arm(&mut self) -> bool {
        self.mine.header.data_event.store(self.consumed, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.available() > 0
    }

    /// How often the peer's index was nonsense.
    pub fn faults(&self) -> u32 {
        self.faults
    }
}
