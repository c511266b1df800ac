//! Who is told first of clients whose answers come together: who has had least.
//!
//! [`Turns`](crate::turns) shares the disk among clients that have requests waiting. A guest that makes one at a time never has:
//! what it waits for is the processor, and its share of that is its share of the disk. Guests of one priority have slices of
//! it, and that would be enough. But on seL4 who is woken comes before the others of its priority, and of two that are woken
//! together one comes before the other, whoever's slice it was. The guest of the client that is told first runs first, so an
//! order of telling that is always the same, or that goes by turns, gives one of them the rest of the other's slices
//! (docs/performance.md, "Guests at one disk").

use partita_protocol::MAX_CELLS;

use crate::turns::Turns;

/// Most that somebody may be behind, in bytes as [`Turns`](crate::turns) charges them: about a thousand requests of 4 KiB, which
/// is what a guest makes in a slice. Who comes after a while does not win for longer.
const MOST: i64 = 12 << 20;

impl Turns {
    /// Who of `clients`, of which there is at least one, is told first.
    #[inline]
    pub fn first(&mut self, clients: u16) -> usize {
        match clients.is_power_of_two() {
            true => clients.trailing_zeros() as usize,
            false => self.least_charged(clients),
        }
    }

    fn least_charged(&mut self, clients: u16) -> usize {
        let members = || (0..MAX_CELLS).filter(move |client| clients & 1 << client != 0);
        let most = members().map(|client| self.charged(client)).max().unwrap_or(0);
        for client in members() {
            self.forget(client, most.saturating_sub(MOST));
        }
        // One of them in any case: the caller takes away whom this names until nobody is left.
        let first = clients.trailing_zeros() as usize;
        members().min_by_key(|client| self.charged(*client)).unwrap_or(first)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::turns::REQUEST;

    /// Bytes of a request.
    const ONE: u64 = 4096;

    /// A client makes a request.
    fn serve(turns: &mut Turns, client: usize, bytes: u64) {
        assert_eq!(turns.next(1 << client, 1 << client), Some(client));
        turns.charge(client, bytes);
    }

    #[test]
    fn who_has_had_least_is_told_first() {
        let mut turns = Turns::new();
        for (client, requests) in [(0, 300), (3, 1), (5, 200)] {
            (0..requests).for_each(|_| serve(&mut turns, client, ONE));
        }
        let order = |turns: &mut Turns, mut clients: u16| {
            let mut order = Vec::new();
            while clients != 0 {
                order.push(turns.first(clients));
                clients &= !(1 << order[order.len() - 1]);
            }
            order
        };
        assert_eq!(order(&mut turns, 0b101001), [3, 5, 0]);
        assert_eq!(order(&mut turns, 0b100001), [5, 0]);
        serve(&mut turns, 3, 1000 * ONE);
        assert_eq!(order(&mut turns, 0b101011), [1, 5, 0, 3]);
    }

    /// Or the caller would go round for ever.
    #[test]
    fn the_first_of_some_is_one_of_them() {
        for charged in [i64::MIN, i64::MAX] {
            let mut turns = Turns::new();
            [3, 5].into_iter().for_each(|client| turns.forget(client, charged));
            assert_eq!([0b10_1000, 0b10_0000, 0b1000].map(|clients| turns.first(clients)), [3, 5, 3]);
        }
    }

    #[test]
    fn who_comes_after_a_while_does_not_win_for_long() {
        let mut turns = Turns::new();
        (0..1000).for_each(|_| serve(&mut turns, 0, 1 << 20));
        let mut won = 0;
        while turns.first(0b11) == 1 {
            serve(&mut turns, 1, ONE);
            won += ONE as i64 + REQUEST;
        }
        assert!((MOST..MOST + 20_000).contains(&won), "{won}");
    }

    /// One processor as seL4 gives it to threads of one priority: who is woken comes first, and goes on until it sleeps or its
    /// slice ends, then it comes last. Guests make one request after the other, of a device that is watched for [`WATCHED`]
    /// and mostly done by then.
    struct Model {
        /// Without it clients are told in ascending order.
        turns: Option<Turns>,
        now: u64,
        /// Guests that can run; the last one does.
        ready: Vec<usize>,
        /// What each has to do before its next request.
        work: Vec<u64>,
        /// And what is left of its slice.
        slice: Vec<u64>,
        /// When what is answered.
        flying: Vec<(u64, usize)>,
        answered: Vec<u64>,
    }

    const WORK: u64 = 10;
    const WATCHED: u64 = 2;
    /// 10 ms of what a request takes a guest.
    const SLICE: u64 = 1000 * WORK;

    impl Model {
        /// The least guest's requests against the greatest one's. `device`: how long each request takes.
        fn fairness(guests: usize, device: impl Iterator<Item = u64>, turns: Option<Turns>) -> f64 {
            let none = vec![0; guests];
            let mut model = Self {
                turns,
                now: 0,
                ready: (0..guests).collect(),
                work: none.clone(),
                slice: vec![SLICE; guests],
                flying: Vec::new(),
                answered: none,
            };
            for takes in device {
                while !model.runs() {}
                if let Some(guest) = model.ready.pop() {
                    model.flying.push((model.now + takes, guest));
                    if let Some(turns) = &mut model.turns {
                        serve(turns, guest, ONE);
                    }
                    model.now += takes.min(WATCHED);
                }
                model.interrupt();
            }
            let (least, most) = (model.answered.iter().min().unwrap(), model.answered.iter().max().unwrap());
            *least as f64 / *most as f64
        }

        /// Until the next event. True if it is the running guest's request.
        fn runs(&mut self) -> bool {
            let next = self.flying.iter().map(|(at, _)| *at).min();
            let Some(guest) = self.ready.last().copied() else {
                self.now = next.expect("all of them sleep for something");
                self.interrupt();
                return false;
            };
            let (work, slice) = (&mut self.work[guest], &mut self.slice[guest]);
            let time = next.map_or(u64::MAX, |at| at - self.now).min(*work).min(*slice);
            self.now += time;
            *work -= time;
            *slice -= time;
            let (request, over) = (*work == 0, *slice == 0);
            if over {
                *slice = SLICE;
                self.ready.rotate_right(1);
            }
            self.interrupt();
            request && !over && self.ready.last() == Some(&guest)
        }

        /// All that is done is told; the guest of who is told first runs first.
        fn interrupt(&mut self) {
            let mut done = 0u16;
            self.flying.retain(|(at, guest)| {
                done |= u16::from(*at <= self.now) << guest;
                *at > self.now
            });
            let mut told = Vec::new();
            while done != 0 {
                let ascending = done.trailing_zeros() as usize;
                let first = self.turns.as_mut().map_or(ascending, |turns| turns.first(done));
                done &= !(1 << first);
                told.push(first);
                self.work[first] = WORK;
                self.answered[first] += 1;
            }
            self.ready.extend(told.iter().rev());
        }
    }

    /// A second's requests, of which one in `rare` takes longer than the device is watched.
    fn device(rare: u64, seed: u64) -> impl Iterator<Item = u64> + Clone {
        let random = move |state: &mut u64| {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            Some(*state >> 33)
        };
        let takes = move |random: u64| if random.is_multiple_of(rare) { 3 + random / rare % 27 } else { 1 };
        core::iter::repeat_n((), 40_000).scan(seed, move |state, ()| random(state)).map(takes)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn guests_have_nearly_equal_shares_of_the_processor(rare in 1u64..40, seed: u64, guests in 2usize..5) {
            let fair = Model::fairness(guests, device(rare, seed), Some(Turns::new()));
            prop_assert!(fair > 0.75, "{fair}");
        }
    }

    #[test]
    fn which_they_have_not_if_one_is_always_told_first() {
        let unfair = Model::fairness(2, device(9, 0), None);
        let fair = Model::fairness(2, device(9, 0), Some(Turns::new()));
        assert!(unfair < 0.7 && fair > 0.9, "{unfair} {fair}");
    }
}
