//! The guest's shared-memory links, as far as the VMM has a part in them: control tables and doorbells.
//!
//! The memory itself is mapped into the guests alone. A control table is a page that the guest reads without an exit and
//! stores to with one; the only store that means something rings a doorbell. Doorbells are counters in two pages
//! ([`partita_protocol::links`]), so one that comes while `ivc` or this VMM is busy is never lost, only merged.
//!
//! The control table also says which peers' guests run ([`links::PEER_LIVES`]); when that changes, the doorbell rings. The
//! page is written before the interrupt is raised, so whoever it wakes sees why.
//!
//! A guest that rings faster than [`BELLS_PER_SECOND`] is not refused: its counter goes up at once, `ivc` hears of it when
//! the timer says so. The exits it causes are its own time; what its peers spend on interrupts is bounded.

use core::sync::atomic::{AtomicU32, Ordering};

use heapless::Vec;
use partita_protocol::layout::guest;
use partita_protocol::links::{self, BELL_BURST, BELLS_PER_SECOND, DoorbellRx, DoorbellTx, PEER_LIVES, info};
use partita_protocol::{MAX_CELL_LINKS, MAX_PEERS};
use partita_ring::log::Limiter;

use crate::machine::Page;

/// One link, as partita.json describes it for this cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description {
    /// What guests call it.
    pub id: u32,
    /// Number of peers.
    pub peers: usize,
    /// Which of them this cell is.
    pub peer: usize,
    /// Bytes of the shared section.
    pub shared: u32,
    /// Bytes of an output section.
    pub output: u32,
}

/// What a store to `ipi_invoke` leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ring {
    /// Notify `ivc`.
    Now,
    /// Notify `ivc` at this count of the architected counter, by [`Links::due`].
    At(u64),
    /// There is no such peer.
    Refused,
}

/// The links of a cell.
pub struct Links<'a, P> {
    list: Vec<Description, MAX_CELL_LINKS>,
    /// The control tables.
    pages: Vec<P, MAX_CELL_LINKS>,
    tx: &'a DoorbellTx,
    rx: &'a DoorbellRx,
    /// Deliveries that were seen last.
    seen: [u32; MAX_CELL_LINKS],
    limiter: Limiter,
    interval: u64,
    /// `ivc` has to be notified later.
    owed: bool,
}

fn add(counter: &AtomicU32) {
    // One writer: this VMM.
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
}

impl<'a, P: Page> Links<'a, P> {
    /// Fills in the control tables. `second` is the architected counter's frequency.
    pub fn new(
        list: Vec<Description, MAX_CELL_LINKS>,
        pages: impl Iterator<Item = P>,
        (tx, rx): (&'a DoorbellTx, &'a DoorbellRx),
        second: u64,
    ) -> Self {
        let mut pages: Vec<P, MAX_CELL_LINKS> = pages.take(MAX_CELL_LINKS).collect();
        for (link, page) in list.iter().zip(&mut pages) {
            page.store(links::IVC_ID, link.id);
            page.store(links::MAX_PEERS_WORD, link.peers as u32);
            page.store(links::RW_SEC_SIZE, link.shared);
            page.store(links::OUT_SEC_SIZE, link.output);
            page.store(links::PEER_ID, link.peer as u32);
            page.store(links::IPI_INVOKE, 0);
        }
        let interval = (second / BELLS_PER_SECOND).max(1);
        let limiter = Limiter::new(BELL_BURST as u32, interval);
        let mut links =
            Self { list, pages, tx, rx, seen: [0; MAX_CELL_LINKS], limiter, interval, owed: false };
        // An earlier life of this VMM may have left its guest running.
        links.live(false);
        links
    }

    /// Number of links.
    pub fn count(&self) -> usize {
        self.list.len()
    }

    /// A guest starts: what was delivered before is not for it.
    pub fn start(&mut self) {
        for (seen, delivered) in self.seen.iter_mut().zip(&self.rx.delivered) {
            *seen = delivered.load(Ordering::Acquire);
        }
        self.live(true);
        for link in 0..self.list.len() {
            self.show_lives(link);
        }
    }

    /// The guest has stopped: doorbells for it are dropped.
    pub fn stop(&mut self) {
        self.live(false);
    }

    /// Begins or ends the guest's life. `ivc` has to be notified.
    fn live(&mut self, runs: bool) {
        let life = self.tx.life.load(Ordering::Relaxed);
        if links::runs(life) != runs {
            // One writer: this VMM.
            self.tx.life.store(life.wrapping_add(1), Ordering::Release);
        }
    }

    /// Brings the lives in a control table up to date. True: one of them was another.
    fn show_lives(&mut self, link: usize) -> bool {
        let (Some(description), Some(page)) = (self.list.get(link), self.pages.get_mut(link)) else {
            return false;
        };
        let Some(lives) = self.rx.lives.get(link) else { return false };
        let mut changed = false;
        for (peer, life) in lives.iter().enumerate().take(description.peers) {
            let own = peer == description.peer;
            let life = if own { &self.tx.life } else { life }.load(Ordering::Acquire);
            let word = PEER_LIVES + 4 * peer;
            if page.load(word) != life {
                page.store(word, life);
                changed = true;
            }
        }
        changed
    }

    /// The guest rings the doorbell of `peer` of its link `link`.
    pub fn ring(&mut self, link: usize, peer: u64, now: u64) -> Ring {
        let Some(description) = self.list.get(link) else { return Ring::Refused };
        let target = usize::try_from(peer).unwrap_or(usize::MAX);
        let known = target < description.peers.min(MAX_PEERS) && target != description.peer;
        match self.tx.rung.get(link).and_then(|peers| peers.get(target)).filter(|_| known) {
            Some(counter) => add(counter),
            None => {
                if let Some(refused) = self.tx.refused.get(link) {
                    add(refused);
                }
                return Ring::Refused;
            }
        }
        if self.limiter.allow(now).is_some() {
            self.owed = false;
            return Ring::Now;
        }
        self.owed = true;
        Ring::At(now.saturating_add(self.interval))
    }

    /// Whether `ivc` is to be notified of what was put off; `Some(later)`: not before then.
    pub fn due(&mut self, now: u64) -> Option<Ring> {
        if !self.owed {
            return None;
        }
        if self.limiter.allow(now).is_some() {
            self.owed = false;
            return Some(Ring::Now);
        }
        Some(Ring::At(now.saturating_add(self.interval)))
    }

    /// INTIDs of the links whose doorbell was rung, or whose peers started or stopped, since the last time.
    pub fn rung(&mut self) -> impl Iterator<Item = u16> + use<P> {
        let mut intids: Vec<u16, MAX_CELL_LINKS> = Vec::new();
        for link in 0..self.list.len() {
            let changed = self.show_lives(link);
            let (Some(seen), Some(delivered)) = (self.seen.get_mut(link), self.rx.delivered.get(link)) else {
                continue;
            };
            let now = delivered.load(Ordering::Acquire);
            if core::mem::replace(seen, now) != now || changed {
                // Same capacity as `list`.
                let _ = intids.push(interrupt_of(link));
            }
        }
        intids.into_iter()
    }

    /// Whether the guest has memory of a link at this address.
    pub fn holds(&self, ipa: u64) -> bool {
        self.list.iter().zip(0u64..).any(|(link, n)| {
            let bytes = u64::from(link.shared) + u64::from(link.output) * link.peers as u64;
            ipa.checked_sub(guest::LINK_MEMORY + n * guest::LINK_STRIDE).is_some_and(|offset| offset < bytes)
        })
    }

    /// The structure that hypercall 5 fills in.
    pub fn describe(&self) -> [u8; info::SIZE] {
        let place = |(n, link): (usize, &Description)| info::Link {
            control: guest::LINK_CONTROL + n as u64 * links::CONTROL_SIZE,
            memory: guest::LINK_MEMORY + n as u64 * guest::LINK_STRIDE,
            id: link.id,
            irq: interrupt_of(n).into(),
        };
        let links: Vec<info::Link, MAX_CELL_LINKS> = self.list.iter().enumerate().map(place).collect();
        info::encode(&links)
    }
}

/// INTID of a cell's link.
const fn interrupt_of(link: usize) -> u16 {
    guest::LINK_IRQ as u16 + link as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakePage;
    use proptest::prelude::*;

    const SECOND: u64 = 62_500_000;

    fn links<'a>(bells: (&'a DoorbellTx, &'a DoorbellRx), peers: usize) -> Links<'a, FakePage> {
        let one = Description { id: 7, peers, peer: 0, shared: 0, output: 0x1_0000 };
        let list = [one, Description { id: 9, peer: 1, ..one }].into_iter().collect();
        Links::new(list, core::iter::repeat_with(FakePage::default), bells, SECOND)
    }

    fn lives(links: &Links<'_, FakePage>, link: usize) -> [u32; MAX_PEERS] {
        core::array::from_fn(|n| links.pages[link].load(PEER_LIVES + 4 * n))
    }

    #[test]
    fn the_table_says_which_peers_run_and_a_change_rings() {
        let (tx, rx) = (DoorbellTx::default(), DoorbellRx::default());
        let mut links = links((&tx, &rx), 3);
        rx.lives[0][1].store(5, Ordering::Relaxed);
        links.start();
        assert_eq!((lives(&links, 0), lives(&links, 1)), ([1, 5, 0, 0], [0, 1, 0, 0]));
        assert_eq!(links.rung().count(), 0, "not news for a guest that starts");
        rx.lives[0][1].store(6, Ordering::Relaxed);
        rx.lives[1][3].store(1, Ordering::Relaxed); // a peer that the link does not have
        assert_eq!(links.rung().collect::<std::vec::Vec<_>>(), [64]);
        assert_eq!((lives(&links, 0), lives(&links, 1)), ([1, 6, 0, 0], [0, 1, 0, 0]));
        assert_eq!(links.rung().count(), 0);
    }

    #[test]
    fn a_life_goes_on_where_an_earlier_vmm_left_it() {
        let (tx, rx) = (DoorbellTx::default(), DoorbellRx::default());
        tx.life.store(7, Ordering::Relaxed);
        let mut links = links((&tx, &rx), 2);
        let life = || tx.life.load(Ordering::Relaxed);
        assert_eq!(life(), 8, "its guest ended with it");
        links.start();
        assert_eq!(life(), 9);
        links.stop();
        links.stop();
        assert_eq!(life(), 10);
    }

    #[test]
    fn memory_of_links_ends_with_the_last_section() {
        let (tx, rx) = (DoorbellTx::default(), DoorbellRx::default());
        let links = links((&tx, &rx), 3);
        let (base, next) = (guest::LINK_MEMORY, guest::LINK_MEMORY + guest::LINK_STRIDE);
        for (ipa, held) in [
            (base - 1, false),
            (base, true),
            (base + 0x2_ffff, true),
            (base + 0x3_0000, false),
            (next, true),
            (next + 0x3_0000, false),
            (next + guest::LINK_STRIDE, false),
            (u64::MAX, false),
        ] {
            assert_eq!(links.holds(ipa), held, "{ipa:#x}");
        }
    }

    #[test]
    fn only_other_peers_have_a_doorbell() {
        let (tx, rx) = (DoorbellTx::default(), DoorbellRx::default());
        let mut links = links((&tx, &rx), 3);
        for (link, peer, wanted) in [
            (0, 1, Ring::Now),
            (0, 2, Ring::Now),
            (1, 0, Ring::Now),
            (0, 0, Ring::Refused),
            (1, 1, Ring::Refused),
            (0, 3, Ring::Refused),
            (0, u64::from(u32::MAX), Ring::Refused),
            (0, u64::MAX, Ring::Refused),
            (2, 1, Ring::Refused),
        ] {
            assert_eq!(links.ring(link, peer, 0), wanted, "{link} {peer}");
        }
        let count = |counter: &AtomicU32| counter.load(Ordering::Relaxed);
        assert_eq!(tx.rung[0].each_ref().map(count), [0, 1, 1, 0]);
        assert_eq!(tx.rung[1].each_ref().map(count), [1, 0, 0, 0]);
        assert_eq!(tx.refused.each_ref().map(count), [4, 1]);
    }

    #[test]
    fn what_was_delivered_before_a_start_is_not_for_this_guest() {
        let (tx, rx) = (DoorbellTx::default(), DoorbellRx::default());
        let mut links = links((&tx, &rx), 2);
        rx.delivered[0].store(5, Ordering::Relaxed);
        links.start();
        assert_eq!(tx.life.load(Ordering::Relaxed), 1);
        assert_eq!(links.rung().count(), 0);
        rx.delivered[0].store(8, Ordering::Relaxed);
        rx.delivered[1].store(1, Ordering::Relaxed);
        assert_eq!(links.rung().collect::<std::vec::Vec<_>>(), [64, 65]);
        assert_eq!(links.rung().count(), 0);
        links.stop();
        assert_eq!(tx.life.load(Ordering::Relaxed), 2);
    }

    proptest! {
        /// However fast a guest rings: what `ivc` hears of is bounded, and the last doorbell is always passed on.
        #[test]
        fn fast_doorbells_are_put_off_and_never_forgotten(
            steps in prop::collection::vec(0u64..2 * SECOND / BELLS_PER_SECOND, 1..2000)
        ) {
            let (tx, rx) = (DoorbellTx::default(), DoorbellRx::default());
            let mut links = links((&tx, &rx), 2);
            let (mut now, mut told, mut heard) = (0, 0, 0u32);
            let mut alarm = None;
            let rung = || tx.rung[0][1].load(Ordering::Relaxed);
            for step in steps {
                now += step;
                let ring = links.ring(0, 1, now);
                for answer in [Some(ring), alarm.filter(|at| *at <= now).and_then(|_| links.due(now))] {
                    match answer {
                        Some(Ring::Now) => (told, heard) = (told + 1, rung()),
                        Some(Ring::At(at)) => alarm = Some(at),
                        _ => {}
                    }
                }
                prop_assert!(told <= BELL_BURST + now * BELLS_PER_SECOND / SECOND + 1);
            }
            while let Some(at) = alarm.take() {
                match links.due(at) {
                    Some(Ring::Now) => heard = rung(),
                    Some(Ring::At(later)) => alarm = Some(later),
                    _ => {}
                }
            }
            prop_assert_eq!(heard, rung());
        }
    }
}
