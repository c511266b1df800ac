//! Who talks to whom, and since when: the part of a pipe that outlives programs and guests.
//!
//! Each end writes only its own section, so there is no word that both could lock. An end says instead which peer it
//! talks to and which of that peer's lives it has met, and the two are connected exactly when each has met the other's
//! present life:
//!
//! | mine | yours | |
//! |---|---|---|
//! | (g, 0) | closed | I wait |
//! | (g, 0) | (p, -) | I have to answer: (g, p) |
//! | (g, p) | (p, g) | connected |
//! | (g, p) | (p+1, -) | the peer was restarted: my session is over |
//!
//! A life's indices start at zero, set while the word says "closed" and before it says "open". So whoever sees an index of
//! the new life also sees that the old one is over, and nobody writes bytes before the other has met it.

use crate::sync::{AtomicU64, Ordering, fence};

/// First word of a section that is used as a pipe: name and version.
pub const MAGIC: u64 = u64::from_le_bytes(*b"ptpipe\0\x01");

/// What an end says about itself. Every word is its owner's; the peer only reads.
#[cfg_attr(not(loom), repr(C, align(64)))]
pub struct Session {
    magic: AtomicU64,
    /// This life in the upper half (0: none), the peer's life that it has met in the lower one.
    lives: AtomicU64,
    /// Number of the peer that it talks to.
    partner: AtomicU64,
    /// The life that will write no more.
    finished: AtomicU64,
    /// The life that is over in good order.
    closed: AtomicU64,
    /// The last life.
    last: AtomicU64,
}

impl Session {
    /// A section that was never used. On target that is what zeroed memory holds; tests build it.
    pub fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self { magic: zero(), lives: zero(), partner: zero(), finished: zero(), closed: zero(), last: zero() }
    }
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

/// What an end sees of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// Nobody is there.
    Nobody,
    /// Somebody is there and talks to another peer.
    Busy,
    /// Its life, and which of ours it has met.
    Life(u32, u32),
}

/// This end's word, and its view of the other's.
#[derive(Clone, Copy)]
pub struct Pair<'a> {
    pub mine: &'a Session,
    pub yours: &'a Session,
    /// My number.
    pub me: u32,
    /// My present life.
    pub life: u32,
}

fn join(life: u32, met: u32) -> u64 {
    u64::from(life) << 32 | u64::from(met)
}

impl<'a> Pair<'a> {
    /// Begins a life. `reset` zeroes this end's indices. `None`: the other end talks to somebody else.
    pub fn begin(
        mine: &'a Session,
        yours: &'a Session,
        (me, partner): (u32, u32),
        reset: impl FnOnce(),
    ) -> Option<Self> {
        let mut pair = Self { mine, yours, me, life: 0 };
        let met = match pair.look() {
            Sight::Busy => return None,
            Sight::Life(_, met) => met,
            // It may be one that has met us and is closed: do not take its number again.
            Sight::Nobody => yours.lives.load(Ordering::Relaxed) as u32,
        };
        // Whatever the section holds: a number that the peer does not take for one of before.
        let last = mine.last.load(Ordering::Relaxed) as u32;
        let newer = if (met.wrapping_sub(last) as i32) > 0 { met } else { last };
        pair.life = newer.wrapping_add(1).max(1);
        mine.last.store(pair.life.into(), Ordering::Relaxed);
        // From here on an earlier session is over, for everybody who sees an index of this one.
        mine.lives.store(0, Ordering::Release);
        fence(Ordering::SeqCst);
        reset();
        mine.partner.store(partner.into(), Ordering::Relaxed);
        mine.finished.store(0, Ordering::Relaxed);
        mine.closed.store(0, Ordering::Relaxed);
        mine.magic.store(MAGIC, Ordering::Relaxed);
        mine.lives.store(join(pair.life, 0), Ordering::Release);
        Some(pair)
    }

    /// Who is at the other end.
    pub fn look(&self) -> Sight {
        let lives = self.yours.lives.load(Ordering::Acquire);
        let (life, met) = ((lives >> 32) as u32, lives as u32);
        if self.yours.magic.load(Ordering::Relaxed) != MAGIC || life == 0 {
            Sight::Nobody
        } else if self.yours.partner.load(Ordering::Relaxed) != u64::from(self.me) {
            let closed = self.yours.closed.load(Ordering::Relaxed) == u64::from(life);
            if closed { Sight::Nobody } else { Sight::Busy }
        } else {
            Sight::Life(life, met)
        }
    }

    /// Answers the other's life.
    pub fn meet(&self, life: u32) {
        self.mine.lives.store(join(self.life, life), Ordering::Release);
    }

    /// Whether the other end still is in the session with this life of its.
    pub fn holds(&self, life: u32) -> bool {
        self.yours.lives.load(Ordering::Acquire) == join(life, self.life)
    }

    /// Whether the other end's life has written its last byte. What it wrote before is seen by whoever looks afterwards.
    pub fn finished(&self, life: u32) -> bool {
        self.yours.finished.load(Ordering::Acquire) == u64::from(life)
    }

    /// Whether the other end's life is over in good order.
    pub fn closed(&self, life: u32) -> bool {
        self.yours.closed.load(Ordering::Acquire) == u64::from(life)
    }

    /// This life writes no more.
    pub fn finish(&self) {
        self.mine.finished.store(self.life.into(), Ordering::Release);
    }

    /// This life is over.
    pub fn close(&self) {
        self.finish();
        self.mine.closed.store(self.life.into(), Ordering::Release);
    }
}
