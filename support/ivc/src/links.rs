//! Doorbells of shared-memory links: who may ring whom, and that none is lost.
//!
//! A VMM counts its guest's doorbells in a page of its own; the broker copies the count into the target's page and
//! notifies the target's VMM ([`partita_protocol::links`]). The copy is the broker's whole memory: a doorbell is passed on
//! exactly when the two counts differ. So a broker that was restarted compares them ([`Links::recover`]) and is where
//! it was; doorbells that were rung meanwhile arrive as one.
//!
//! The lives of guests travel the same way: a VMM counts its guest's starts and stops, the broker copies the count to every
//! peer, and whose copy has changed is told. So a peer that stops without a word is noticed as soon as a doorbell is.
//!
//! A broker that has died too often passes nothing on: doorbells are dropped and counted, and every peer is told that the
//! others have stopped ([`Links::refuse`]), so that nobody waits for one. The next life that works tells how it is.
//!
//! What a VMM writes is data from outside. Any count is a count: the worst that a wrong one does is one doorbell too many
//! on a link that this cell is part of.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use heapless::Vec;
use partita_config::Config;
use partita_protocol::links::{DoorbellRx, DoorbellTx, LinkCounters, LinkStats, runs};
use partita_protocol::{MAX_CELL_LINKS, MAX_CELLS, MAX_PEERS};

/// A cell as another peer of a link.
#[derive(Clone, Copy, Debug)]
struct Peer {
    cell: usize,
    /// The link's place among that cell's.
    place: usize,
}

/// A cell's part in a link.
#[derive(Clone, Copy, Debug)]
struct Part {
    /// The link's place in partita.json.
    number: usize,
    /// The cell's number among the peers.
    me: usize,
    /// All peers, this one too.
    peers: [Option<Peer>; MAX_PEERS],
}

/// A cell with links.
struct Member<'a> {
    parts: Vec<Part, MAX_CELL_LINKS>,
    tx: &'a DoorbellTx,
    rx: &'a DoorbellRx,
}

/// All links.
pub struct Links<'a> {
    members: [Option<Member<'a>>; MAX_CELLS],
    stats: &'a LinkStats,
    /// Nothing is passed on, and all peers count as stopped.
    refusing: bool,
}

fn add(counter: &AtomicU64, count: u64) {
    // One writer: this PD.
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
}

/// How far `to` is behind `from`, as doorbells; 0: not at all.
fn behind(from: &AtomicU32, to: &AtomicU32) -> (u32, u32) {
    let now = from.load(Ordering::Acquire);
    (now, now.wrapping_sub(to.load(Ordering::Relaxed)))
}

impl<'a> Links<'a> {
    /// The links of a description; `pages` are those of a cell, by its number.
    pub fn new(
        config: &Config<'_>,
        mut pages: impl FnMut(usize) -> (&'a DoorbellTx, &'a DoorbellRx),
        stats: &'a LinkStats,
    ) -> Self {
        let peer = |name: &str, number: usize| {
            let (cell, _) = config.cell(name)?;
            let place = config.links_of(name).position(|part| part.number == number)?;
            Some(Peer { cell, place })
        };
        let mut members = [const { None }; MAX_CELLS];
        for (cell, member) in members.iter_mut().enumerate() {
            let Some(name) = config.cells.get(cell).map(|cell| cell.name) else { break };
            let part = |part: partita_config::CellLink<'_, '_>| Part {
                number: part.number,
                me: part.peer,
                peers: core::array::from_fn(|n| peer(part.link.peers.get(n)?, part.number)),
            };
            let parts: Vec<Part, MAX_CELL_LINKS> = config.links_of(name).map(part).collect();
            if !parts.is_empty() {
                let (tx, rx) = pages(cell);
                *member = Some(Member { parts, tx, rx });
            }
        }
        Self { members, stats, refusing: false }
    }

    /// From the first event on, passes no doorbell on, and tells all peers that the others have stopped.
    pub const fn refuse(&mut self) {
        self.refusing = true;
    }

    /// What peers are told of a guest's life.
    const fn told(&self, life: u32) -> u32 {
        if self.refusing && runs(life) { life.wrapping_add(1) } else { life }
    }

    /// A cell's VMM has notified: passes its doorbells and its guest's life on. Answers which cells' VMMs are to be notified, one bit each. Takes
    /// the same few steps whatever the counters say.
    #[must_use]
    pub fn ring(&mut self, cell: usize) -> u16 {
        let Some(Some(source)) = self.members.get(cell) else { return 0 };
        let mut notify = 0;
        for (place, part) in source.parts.iter().enumerate() {
            let Some(stats) = self.stats.links.get(part.number) else { continue };
            self.count_refused(cell, place, part, source, stats);
            for (target, peer) in part.peers.iter().enumerate().filter(|(target, _)| *target != part.me) {
                let Some(peer) = peer else { continue };
                let Some(Some(other)) = self.members.get(peer.cell) else { continue };
                if let Some(known) = other.rx.lives.get(peer.place).and_then(|peers| peers.get(part.me)) {
                    let life = self.told(source.tx.life.load(Ordering::Acquire));
                    if known.load(Ordering::Relaxed) != life {
                        known.store(life, Ordering::Release);
                        notify |= 1 << peer.cell;
                    }
                }
                let rung = source.tx.rung.get(place).and_then(|peers| peers.get(target));
                let taken = other.rx.taken.get(peer.place).and_then(|peers| peers.get(part.me));
                let (Some(rung), Some(taken)) = (rung, taken) else { continue };
                let (now, count) = behind(rung, taken);
                if count == 0 {
                    continue;
                }
                if let Some(counter) = stats.rung.get(part.me) {
                    add(counter, count.into());
                }
                if !self.refusing && runs(other.tx.life.load(Ordering::Acquire)) {
                    if let Some(delivered) = other.rx.delivered.get(peer.place) {
                        let next = delivered.load(Ordering::Relaxed).wrapping_add(1);
                        delivered.store(next, Ordering::Release);
                    }
                    if let Some(counter) = stats.delivered.get(target) {
                        add(counter, 1);
                    }
                    notify |= 1 << peer.cell;
                } else if let Some(counter) = stats.dropped.get(target) {
                    add(counter, count.into());
                }
                // Last: a life that ends before it leaves a doorbell to repeat, not one that is lost.
                taken.store(now, Ordering::Release);
            }
        }
        notify
    }

    /// The first event of a life: doorbells that an earlier one did not get to, and all cells that it may not have told.
    #[must_use]
    pub fn recover(&mut self) -> u16 {
        let members = (0..MAX_CELLS).filter(|cell| matches!(self.members.get(*cell), Some(Some(_))));
        let all = members.fold(0, |all, cell| all | 1 << cell);
        let rung = (0..MAX_CELLS).fold(0, |notify, cell| notify | self.ring(cell));
        all | rung
    }

    fn count_refused(
        &self,
        cell: usize,
        place: usize,
        part: &Part,
        source: &Member<'_>,
        stats: &LinkCounters,
    ) {
        let seen = self.stats.refused_seen.get(cell).and_then(|links| links.get(place));
        if let (Some(refused), Some(seen)) = (source.tx.refused.get(place), seen) {
            let (now, count) = behind(refused, seen);
            if count != 0 {
                if let Some(counter) = stats.refused.get(part.me) {
                    add(counter, count.into());
                }
                seen.store(now, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CELLS: usize = 4;
    /// `l`: a, b, c. `m`: d, b. Cell d is in no link with a.
    const TEXT: &str = r#"{ "cells": [
        { "name": "a", "memory": "16M", "kernel": "k" }, { "name": "b", "memory": "16M", "kernel": "k" },
        { "name": "c", "memory": "16M", "kernel": "k" }, { "name": "d", "memory": "16M", "kernel": "k" }
    ], "links": [{ "name": "l", "peers": ["a", "b", "c"] }, { "name": "m", "peers": ["d", "b"] }] }"#;

    #[derive(Default)]
    struct World {
        tx: [DoorbellTx; CELLS],
        rx: [DoorbellRx; CELLS],
        stats: LinkStats,
    }

    impl World {
        fn running() -> Self {
            let world = Self::default();
            world.tx.iter().for_each(|tx| tx.life.store(1, Ordering::Relaxed));
            let config = partita_config::parse(TEXT.as_bytes()).unwrap();
            let _ = Links::new(&config, |cell| (&world.tx[cell], &world.rx[cell]), &world.stats).recover();
            world
        }
        fn links(&self) -> Links<'_> {
            let config = partita_config::parse(TEXT.as_bytes()).unwrap();
            Links::new(&config, |cell| (&self.tx[cell], &self.rx[cell]), &self.stats)
        }
        fn bell(&self, cell: usize, place: usize, peer: usize) {
            self.tx[cell].rung[place][peer].fetch_add(1, Ordering::Relaxed);
        }
        fn delivered(&self, cell: usize, place: usize) -> u32 {
            self.rx[cell].delivered[place].load(Ordering::Relaxed)
        }
    }

    fn count(counters: &[AtomicU64; MAX_PEERS]) -> [u64; MAX_PEERS] {
        counters.each_ref().map(|counter| counter.load(Ordering::Relaxed))
    }

    #[test]
    fn a_doorbell_goes_to_its_target_and_to_nobody_else() {
        let world = World::running();
        let mut links = world.links();
        world.bell(0, 0, 2); // a rings c
        assert_eq!(links.ring(0), 1 << 2);
        assert_eq!(links.ring(0), 0, "once");
        assert_eq!((world.delivered(2, 0), world.delivered(1, 0)), (1, 0));
        world.bell(1, 1, 0); // b rings d, on its second link
        assert_eq!(links.ring(1), 1 << 3);
        assert_eq!((world.delivered(3, 0), world.delivered(0, 0)), (1, 0));
        world.bell(3, 0, 1); // d rings b
        assert_eq!(links.ring(3), 1 << 1);
        assert_eq!((world.delivered(1, 1), world.delivered(1, 0)), (1, 0));
    }

    #[test]
    fn nobody_rings_itself_a_stranger_or_a_link_that_is_not_there() {
        let world = World::running();
        let mut links = world.links();
        // A VMM that writes what it likes.
        for (cell, place, peer) in [(0, 0, 0), (0, 0, 3), (0, 1, 1), (3, 0, 0), (3, 0, 2), (3, 1, 1)] {
            world.bell(cell, place, peer);
            assert_eq!(links.ring(cell), 0, "{cell} {place} {peer}");
        }
        assert_eq!(links.ring(4), 0);
        assert_eq!(links.ring(usize::MAX), 0);
        world.tx[0].refused[0].store(3, Ordering::Relaxed);
        assert_eq!(links.ring(0), 0);
        assert_eq!(links.ring(0), 0);
        assert_eq!(count(&world.stats.links[0].refused), [3, 0, 0, 0]);
    }

    #[test]
    fn doorbells_coalesce_and_those_for_nobody_are_dropped_and_counted() {
        let world = World::running();
        let mut links = world.links();
        (0..5).for_each(|_| world.bell(0, 0, 1));
        assert_eq!(links.ring(0), 2);
        world.tx[1].life.store(2, Ordering::Relaxed);
        (0..3).for_each(|_| world.bell(0, 0, 1));
        assert_eq!(links.ring(0), 0);
        world.tx[1].life.store(3, Ordering::Relaxed);
        assert_eq!(links.ring(0), 0, "not for the guest that runs now");
        let stats = &world.stats.links[0];
        assert_eq!(
            (count(&stats.rung), count(&stats.delivered), count(&stats.dropped)),
            ([8, 0, 0, 0], [0, 1, 0, 0], [0, 3, 0, 0])
        );
    }

    #[test]
    fn peers_hear_of_a_life_once_and_strangers_never() {
        let world = World::running();
        let mut links = world.links();
        let known = |cell: usize, place: usize| {
            world.rx[cell].lives[place].each_ref().map(|life| life.load(Ordering::Relaxed))
        };
        assert_eq!((known(0, 0), known(1, 1)), ([0, 1, 1, 0], [1, 0, 0, 0]), "its own is its VMM's");
        world.tx[2].life.store(2, Ordering::Relaxed);
        assert_eq!(links.ring(2), 0b011, "a and b; d is in no link with c");
        assert_eq!(links.ring(2), 0);
        assert_eq!((known(0, 0), known(1, 0), known(3, 0)), ([0, 1, 2, 0], [1, 0, 2, 0], [0, 1, 0, 0]));
        // Two changes are one piece of news, and a life that wraps is one as well.
        world.tx[2].life.store(4, Ordering::Relaxed);
        assert_eq!(links.ring(2), 0b011);
        world.tx[2].life.store(1, Ordering::Relaxed);
        assert_eq!((links.ring(2), known(0, 0)), (0b011, [0, 1, 1, 0]));
        let all: u32 = world.rx.iter().map(|rx| rx.delivered[0].load(Ordering::Relaxed)).sum();
        assert_eq!(all, 0, "a life is no doorbell");
    }

    #[test]
    fn a_broker_that_refuses_drops_all_doorbells_and_says_that_all_peers_have_stopped() {
        let world = World::running();
        let known = |cell: usize| world.rx[cell].lives[0].each_ref().map(|life| life.load(Ordering::Relaxed));
        world.bell(0, 0, 1);
        world.tx[2].life.store(2, Ordering::Relaxed);
        let mut links = world.links();
        links.refuse();
        assert_eq!(links.recover(), 0b1111, "everybody looks");
        assert_eq!((known(0), known(1), known(2)), ([0, 2, 2, 0], [2, 0, 2, 0], [2, 2, 0, 0]));
        world.bell(2, 0, 0);
        world.tx[1].life.store(3, Ordering::Relaxed);
        assert_eq!(
            (links.ring(2), links.ring(1)),
            (0, 0b1101),
            "one that starts again is news, but does not run"
        );
        assert_eq!(known(0), [0, 4, 2, 0]);
        assert_eq!((links.ring(0), links.ring(1), links.ring(2)), (0, 0, 0), "once");
        let stats = &world.stats.links[0];
        assert_eq!((count(&stats.delivered), count(&stats.dropped)), ([0; 4], [1, 1, 0, 0]));
        assert_eq!(count(&stats.rung), [1, 0, 1, 0]);
        // The broker works again: those that run are there at once, and no doorbell of then rings now.
        let mut links = world.links();
        assert_eq!(links.recover(), 0b1111);
        assert_eq!((known(0), known(1), known(2)), ([0, 3, 2, 0], [1, 0, 2, 0], [1, 3, 0, 0]));
        assert_eq!(world.delivered(0, 0) + world.delivered(1, 0) + world.delivered(2, 0), 0);
        world.bell(0, 0, 1);
        assert_eq!((links.ring(0), world.delivered(1, 0)), (1 << 1, 1));
    }

    proptest! {
        /// The broker dies after any event: whoever was rung since it last looked has a delivery it has not seen.
        #[test]
        fn no_doorbell_is_lost_over_restarts(steps in prop::collection::vec(0usize..5, 1..100)) {
            let world = World::running();
            let mut links = world.links();
            let (mut seen, mut owed) = (0, false);
            for step in steps {
                let mut notified = 0;
                match step {
                    0 => { world.bell(0, 0, 1); owed = true; }
                    1 => { world.bell(2, 0, 1); owed = true; }
                    2 => notified = links.ring(0) | links.ring(2),
                    3 => { links = world.links(); notified = links.recover(); }
                    // Its notification was lost with it.
                    _ => { let _ = links.ring(0); let _ = links.ring(2); links = world.links(); notified = links.recover(); }
                }
                if notified & 2 != 0 && core::mem::replace(&mut seen, world.delivered(1, 0)) != seen {
                    owed = false;
                }
            }
            if links.recover() & 2 != 0 && world.delivered(1, 0) != seen {
                owed = false;
            }
            prop_assert!(!owed);
        }
    }
}
