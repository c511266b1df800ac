//! The guest's shared-memory links, as far as the VMM has a part in them: control tables and doorbells.
//!
//! The memory itself is mapped into the guests alone. A control table is a page that the guest reads without an exit and
//! stores to with one; the only store that means something rings a doorbell. Doorbells are counters in two pages
//! ([`partita_protocol::links`]), so one that comes while `ivc` or this VMM is busy is never lost, only merged.
//!
//! A guest that rings faster than [`BELLS_PER_SECOND`] is not refused: its counter goes up at once, `ivc` hears of it when
//! the timer says so. The exits it causes are its own time; what its peers spend on interrupts is bounded.

use core::sync::atomic::{AtomicU32, Ordering};

use heapless::Vec;
use partita_protocol::layout::guest;
use partita_protocol::links::{self, BELL_BURST, BELLS_PER_SECOND, DoorbellRx, DoorbellTx, info};
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
pub struct Links<'a> {
    list: Vec<Description, MAX_CELL_LINKS>,
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

impl<'a> Links<'a> {
    /// Fills in the control tables. `second` is the architected counter's frequency.
    pub fn new<P: Page>(
        list: Vec<Description, MAX_CELL_LINKS>,
        pages: impl Iterator<Item = P>,
        (tx, rx): (&'a DoorbellTx, &'a DoorbellRx),
        second: u64,
    ) -> Self {
        for (link, mut page) in list.iter().zip(pages) {
            page.store(links::IVC_ID, link.id);
            page.store(links::MAX_PEERS_WORD, link.peers as u32);
            page.store(links::RW_SEC_SIZE, link.shared);
            page.store(links::OUT_SEC_SIZE, link.output);
            page.store(links::PEER_ID, link.peer as u32);
            page.store(links::IPI_INVOKE, 0);
        }
        tx.running.store(0, Ordering::Release);
        let interval = (second / BELLS_PER_SECOND).max(1);
        let limiter = Limiter::new(BELL_BURST as u32, interval);
        Self { list, tx, rx, seen: [0; MAX_CELL_LINKS], limiter, interval, owed: false }
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
        self.tx.running.store(1, Ordering::Release);
    }

    /// The guest has stopped: doorbells for it are dropped.
    pub fn stop(&mut self) {
        self.tx.running.store(0, Ordering::Release);
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

    /// INTIDs of the links whose doorbell was rung since the last time.
    pub fn rung(&mut self) -> impl Iterator<Item = u16> + use<> {
        let mut intids: Vec<u16, MAX_CELL_LINKS> = Vec::new();
        let counters = self.seen.iter_mut().zip(&self.rx.delivered).take(self.list.len());
        for (link, (seen, delivered)) in counters.enumerate() {
            let now = delivered.load(Ordering::Acquire);
            if core::mem::replace(seen, now) != now {
                // Same capacity as `list`.
                let _ = intids.push(interrupt_of(link));
            }
        }
        intids.into_iter()
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
    use proptest::prelude::*;

    const SECOND: u64 = 62_500_000;

    fn links<'a>(pages: (&'a DoorbellTx, &'a DoorbellRx), peers: usize) -> Links<'a> {
        let one = Description { id: 7, peers, peer: 0, shared: 0, output: 0x1_0000 };
        let list = [one, Description { id: 9, peer: 1, ..one }].into_iter().collect();
        Links::new(list, core::iter::empty::<crate::fake::FakePage>(), pages, SECOND)
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
        assert_eq!(tx.running.load(Ordering::Relaxed), 1);
        assert_eq!(links.rung().count(), 0);
        rx.delivered[0].store(8, Ordering::Relaxed);
        rx.delivered[1].store(1, Ordering::Relaxed);
        assert_eq!(links.rung().collect::<std::vec::Vec<_>>(), [64, 65]);
        assert_eq!(links.rung().count(), 0);
        links.stop();
        assert_eq!(tx.running.load(Ordering::Relaxed), 0);
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
