//! Signs of life: one page of each PD, written by it, read by the supervisor. It survives a restart of its writer.
//!
//! The supervisor notifies every PD once a second on [`crate::layout::channel::PING`], and the PD counts. A PD that has
//! missed several is hung. The page also tells a PD whether this is its first start, and the supervisor when a start is over.
//!
//! The other way there is [`Orders`], for a PD whose clients must not wait for ever.

use core::sync::atomic::{AtomicU32, Ordering};

/// The page.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Alive {
    /// Starts that have begun. Wraps.
    begun: AtomicU32,
    /// The value of `begun` when the PD was last ready for events.
    ready: AtomicU32,
    /// Pings answered. Wraps.
    beats: AtomicU32,
    /// For the PD's own use: what it wants to find again after a restart. 0 at first.
    kept: AtomicU32,
}

const _: () = assert!(size_of::<Alive>() <= 4096);

impl Alive {
    /// The PD begins; true if it is not the first time. Call once, before anything that depends on it.
    pub fn begin(&self) -> bool {
        let before = self.begun.load(Ordering::Relaxed);
        // 0 only ever means "never": wrapping skips it.
        self.begun.store(before.wrapping_add(1).max(1), Ordering::Release);
        before != 0
    }

    /// The PD is ready for events. It then notifies the supervisor.
    pub fn ready(&self) {
        self.ready.store(self.begun.load(Ordering::Relaxed), Ordering::Release);
    }

    /// As at boot, for tests that use a page again.
    pub fn clear(&self) {
        for word in [&self.begun, &self.ready, &self.beats, &self.kept] {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// Answers a ping.
    pub fn beat(&self) {
        self.beats.store(self.beats.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// Pings answered.
    pub fn beats(&self) -> u32 {
        self.beats.load(Ordering::Relaxed)
    }

    /// Starts that have begun.
    pub fn starts(&self) -> u32 {
        self.begun.load(Ordering::Acquire)
    }

    /// Whether the last start that has begun is over. The supervisor asks when notified.
    pub fn is_ready(&self) -> bool {
        let begun = self.begun.load(Ordering::Acquire);
        begun != 0 && self.ready.load(Ordering::Acquire) == begun
    }

    /// What an earlier life kept.
    pub fn kept(&self) -> u32 {
        self.kept.load(Ordering::Relaxed)
    }

    /// Keeps a word for the next life.
    pub fn keep(&self, word: u32) {
        self.kept.store(word, Ordering::Relaxed);
    }
}

/// What a PD is to do: one page, written by the supervisor, read by the PD when it begins.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Orders {
    refuse: AtomicU32,
}

impl Orders {
    /// It has died too often: it shall not do what killed it, but answer its clients with errors.
    pub fn refuse(&self) -> bool {
        self.refuse.load(Ordering::Acquire) != 0
    }

    /// Before a start.
    pub fn set_refuse(&self, refuse: bool) {
        self.refuse.store(refuse.into(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_over_when_its_own_end_is_told() {
        let page = Alive::default();
        assert!(!page.is_ready());
        assert!(!page.begin());
        assert!(!page.is_ready());
        page.ready();
        assert!(page.is_ready());
        page.keep(7);
        assert!(page.begin());
        assert!(!page.is_ready(), "the first start's end says nothing of the second");
        page.ready();
        assert!(page.is_ready());
        assert_eq!((page.starts(), page.kept()), (2, 7));
        page.begun.store(u32::MAX, Ordering::Relaxed);
        assert!(page.begin() && page.begin(), "a wrapped count is not a first start");
    }
}
