//! Typed bytes that their console has no room for yet.
//!
//! All consoles share one keyboard. To let it wait for a slow reader would also hold `Ctrl-]` back, and a serial line of three
//! wires cannot be made to wait at all, so what is typed is always taken at once. Each console has its ring; what is beyond
//! it waits here, as much as [`BYTES`], for one console at a time: the user types to one. When another one needs the
//! place, what waits is given up, so that a guest that never reads takes nothing from the others.

use heapless::deque::DequeView;
use partita_ring::Tx;

/// Bytes that can wait.
pub const BYTES: usize = 64 * 1024;
/// Room in the ring that is worth a wake-up.
const ROOM: usize = 1024;

/// The bytes and whose they are. Without memory: none can wait.
pub struct Ahead<'a> {
    bytes: Option<&'a mut DequeView<u8>>,
    owner: usize,
}

impl<'a> Ahead<'a> {
    /// Nothing waits.
    pub const fn new(bytes: Option<&'a mut DequeView<u8>>) -> Self {
        Ahead { bytes, owner: 0 }
    }

    fn len(&self) -> usize {
        self.bytes.as_ref().map_or(0, |bytes| {
            let (first, second) = bytes.as_slices();
            first.len() + second.len()
        })
    }

    /// The console whose bytes wait.
    pub fn owner(&self) -> Option<usize> {
        (self.len() > 0).then_some(self.owner)
    }

    /// Appends a byte for `console`, which is [`Ahead::owner`] if there is one. False: there is no room.
    pub fn push(&mut self, console: usize, byte: u8) -> bool {
        self.owner = console;
        self.bytes.as_mut().is_some_and(|bytes| bytes.push_back(byte).is_ok())
    }

    /// Gives up what waits, and says how many bytes that was.
    pub fn give_up(&mut self) -> usize {
        let count = self.len();
        if let Some(bytes) = &mut self.bytes {
            bytes.clear();
        }
        count
    }

    /// Moves what fits into the ring of the [`Ahead::owner`]; its peer will notify when more may fit.
    pub fn feed(&mut self, tx: &mut Tx<'_>) {
        let rounds = self.len() / ROOM.min(tx.capacity()).max(1);
        let Some(bytes) = &mut self.bytes else { return };
        // Each round but the last moves as much as is worth a wake-up.
        for _ in 0..=rounds {
            // Two slices at most, as the queue wraps.
            for _ in 0..2 {
                for _ in 0..tx.write(bytes.as_slices().0) {
                    bytes.pop_front();
                }
            }
            if bytes.is_empty() || !tx.arm(ROOM) {
                return;
            }
        }
    }
}
