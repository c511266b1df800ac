//! Whose turn it is: round robin over clients, weighed by bytes.
//!
//! Deficit round robin with the deficit paid afterwards: a client may begin a request while its credit is positive and is
//! charged for what it was, so requests need not be looked at before their turn. Debt is kept when a client goes idle,
//! credit is not saved beyond one round: nobody gains by pausing after a large request.
//!
//! A client that has its full share of the device's places may be ready, in credit, and still have to wait. Then others
//! are served in its stead, on debt.

use partita_protocol::MAX_CELLS;

/// Credit per round in bytes: a common large request, so that a turn usually is one to a few requests.
pub const QUANTUM: i64 = 256 * 1024;
/// Charged for a request beside its bytes: what the smallest ones cost in device and processor time.
pub const REQUEST: i64 = 8 * 1024;

/// Most debt that is remembered.
const DEBT: i64 = 64 * QUANTUM;

/// Credits and place in the round.
#[derive(Debug)]
pub struct Turns {
    credit: [i64; MAX_CELLS],
    /// All credit that each was ever given, less that of pauses (see `precedence`).
    given: [i64; MAX_CELLS],
    at: usize,
}

impl Turns {
    pub const fn new() -> Self {
        Self { credit: [QUANTUM; MAX_CELLS], given: [QUANTUM; MAX_CELLS], at: 0 }
    }

    /// The client whose turn it is among `eligible`, a subset of `ready` (bit sets).
    pub fn next(&mut self, eligible: u16, ready: u16) -> Option<usize> {
        if eligible == 0 {
            return None;
        }
        if ready.is_power_of_two() {
            return Some(self.alone(ready.trailing_zeros() as usize));
        }
        if self.in_credit(ready).is_none() {
            // As many rounds at once as the least indebted needs.
            let least = self.members(ready).filter_map(|c| self.credit.get(c)).max().copied().unwrap_or(0);
            let rounds = least.saturating_neg() / QUANTUM + 1;
            for client in self.members(ready) {
                self.refill(client, rounds);
            }
        }
        let client = self.in_credit(eligible).or_else(|| self.members(eligible).next())?;
        self.at = client;
        Some(client)
    }

    /// [`Turns::next`] for a client that is ready as the only one.
    #[inline]
    fn alone(&mut self, client: usize) -> usize {
        if let Some(credit) = self.credit.get(client).filter(|credit| **credit <= 0) {
            self.refill(client, credit.saturating_neg() / QUANTUM + 1);
        }
        self.at = client;
        client
    }

    fn refill(&mut self, client: usize, rounds: i64) {
        if let (Some(credit), Some(given)) = (self.credit.get_mut(client), self.given.get_mut(client)) {
            let before = *credit;
            *credit = before.saturating_add(rounds.saturating_mul(QUANTUM)).min(QUANTUM);
            *given = given.saturating_add(*credit - before);
        }
    }

    /// What each has been charged so far, less the debt that was not remembered.
    pub fn charged(&self, client: usize) -> i64 {
        let of = |list: &[i64]| list.get(client).copied().unwrap_or(0);
        of(&self.given).saturating_sub(of(&self.credit))
    }

    /// As if the client had been charged at least this much.
    pub fn forget(&mut self, client: usize, least: i64) {
        let missing = least.saturating_sub(self.charged(client)).max(0);
        if let Some(given) = self.given.get_mut(client) {
            *given = given.saturating_add(missing);
        }
    }

    /// The members of `clients`, from the current place on.
    fn members(&self, clients: u16) -> impl Iterator<Item = usize> + use<> {
        let before = clients & ((1 << self.at) - 1);
        let mut parts = [clients & !before, before];
        core::iter::from_fn(move || {
            let part = parts.iter_mut().find(|part| **part != 0)?;
            let client = part.trailing_zeros() as usize;
            *part &= *part - 1;
            Some(client)
        })
    }

    fn in_credit(&self, clients: u16) -> Option<usize> {
        self.members(clients).find(|c| self.credit.get(*c).is_some_and(|credit| *credit > 0))
    }

    /// A request of `bytes` was begun. The turn passes on when the credit is used up; true if it is not.
    #[inline]
    pub fn charge(&mut self, client: usize, bytes: u64) -> bool {
        let Some(credit) = self.credit.get_mut(client) else { return false };
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX / 2);
        *credit = credit.saturating_sub(bytes.saturating_add(REQUEST)).max(-DEBT);
        let in_credit = *credit > 0;
        if !in_credit && self.at == client {
            self.at = (client + 1) % MAX_CELLS;
        }
        in_credit
    }

    /// The client may begin another request in this turn.
    pub fn goes_on(&self, client: usize) -> bool {
        self.credit.get(client).is_some_and(|credit| *credit > 0)
    }

    /// Nothing more to fetch from this client now.
    pub fn idle(&mut self, client: usize) {
        if self.at == client {
            self.at = (client + 1) % MAX_CELLS;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equal_shares_of_unequal_requests() {
        let mut turns = Turns::new();
        let sizes = [4096u64, 1 << 20, 65536];
        let mut served = [0u64; 3];
        for _ in 0..20_000 {
            let client = turns.next(0b111, 0b111).unwrap();
            turns.charge(client, sizes[client]);
            served[client] += sizes[client] + REQUEST as u64;
        }
        let most = *served.iter().max().unwrap();
        for bytes in served {
            assert!(most - bytes <= 2 * (QUANTUM as u64 + (1 << 20)), "{served:?}");
        }
    }

    #[test]
    fn alone_means_all() {
        let mut turns = Turns::new();
        turns.charge(4, u64::MAX);
        for _ in 0..100 {
            assert_eq!(turns.next(1 << 4, 1 << 4), Some(4));
            turns.charge(4, 1 << 30);
        }
        assert_eq!(turns.next(0, 0), None);
    }

    proptest! {
        /// The short way for a client that is alone does what the long one does.
        #[test]
        fn alone_is_no_exception(credit in -DEBT..=QUANTUM, client in 0..MAX_CELLS, at in 0..MAX_CELLS) {
            let mut turns = Turns { at, ..Turns::new() };
            turns.credit[client] = credit;
            let mut long = Turns { credit: turns.credit, at, ..Turns::new() };
            // Another one that is ready, but so deep in debt that it changes nothing.
            let other = (client + 1) % MAX_CELLS;
            long.credit[other] = -DEBT - 1;
            let ready = 1 << client | 1 << other;
            prop_assert_eq!(turns.next(1 << client, 1 << client), Some(client));
            prop_assert_eq!(long.next(ready, ready), Some(client));
            prop_assert_eq!((turns.credit[client], turns.at), (long.credit[client], long.at));
        }

        /// Between clients that always have requests, shares differ by no more than a turn and the largest request.
        #[test]
        fn fair(requests in prop::collection::vec(0u64..4_000_000, 3), steps in 1usize..3000, members in 1u16..8) {
            let mut turns = Turns::new();
            let mut served = [0i64; 3];
            for _ in 0..steps {
                let client = turns.next(members, members).unwrap();
                prop_assert!(members & 1 << client != 0);
                turns.charge(client, requests[client]);
                served[client] += requests[client] as i64 + REQUEST;
            }
            let of = |c: usize| (members & 1 << c != 0).then(|| served[c]);
            let shares: Vec<_> = (0..3).filter_map(of).collect();
            let spread = shares.iter().max().unwrap() - shares.iter().min().unwrap();
            prop_assert!(spread <= 2 * QUANTUM + 2 * (4_000_000 + REQUEST));
        }
    }
}
