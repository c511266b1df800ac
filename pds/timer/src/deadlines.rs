//! Who waits for what.
//!
//! A client's deadline is read when it notifies, and once more when it is due: a client that has moved its deadline to
//! later in the meantime (a guest does that all the time) needs no wake-up at the old one. A deadline fires once. What has
//! fired is remembered in the client's state page, so that it is not fired again by a timer PD that was restarted.

use partita_protocol::MAX_CELLS;
use partita_protocol::layout::Service;
use partita_protocol::timer::{NEVER, TimerRequest, TimerState};

use core::sync::atomic::Ordering;

/// Greatest number of clients: cells, then services.
pub const CLIENTS: usize = MAX_CELLS + Service::COUNT;

/// The pages of a client.
#[derive(Clone, Copy)]
pub struct Client<'a> {
    /// Written by the client.
    pub request: &'a TimerRequest,
    /// Written by us.
    pub state: &'a TimerState,
}

impl Client<'_> {
    /// What it wants now; what has fired already counts as nothing.
    fn wanted(&self) -> u64 {
        let deadline = self.request.deadline.load(Ordering::Acquire);
        // Our own word, that no one else writes.
        if deadline <= self.state.fired.load(Ordering::Relaxed) { NEVER } else { deadline }
    }
}

/// A set of clients, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clients(pub u32);

const _: () = assert!(CLIENTS <= u32::BITS as usize);

impl Clients {
    /// The clients in the set.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..CLIENTS).filter(move |n| self.0 >> n & 1 == 1)
    }
}

/// The deadlines of all clients.
pub struct Deadlines<'a> {
    clients: [Option<Client<'a>>; CLIENTS],
    armed: [u64; CLIENTS],
}

impl<'a> Deadlines<'a> {
    /// Takes in what every client wants: after a restart some may wait already.
    pub fn new(clients: [Option<Client<'a>>; CLIENTS]) -> Self {
        let armed = clients.map(|client| client.map_or(NEVER, |client| client.wanted()));
        Deadlines { clients, armed }
    }

    /// Whether there is a client of this number.
    pub fn has(&self, client: usize) -> bool {
        self.clients.get(client).is_some_and(Option::is_some)
    }

    /// The client has notified: its deadline is read again.
    pub fn update(&mut self, client: usize) {
        if let (Some(Some(client)), Some(armed)) = (self.clients.get(client), self.armed.get_mut(client)) {
            *armed = client.wanted();
        }
    }

    /// Fires what is due and returns whom to notify.
    pub fn expire(&mut self, now: u64) -> Clients {
        let mut due = Clients::default();
        for (n, (client, armed)) in self.clients.iter().zip(&mut self.armed).enumerate() {
            let Some(client) = client else { continue };
            if *armed > now {
                continue;
            }
            *armed = client.wanted();
            if *armed <= now {
                client
                    .state
                    .count
                    .store(client.state.count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
                // Release: who sees the deadline fired sees the count, too.
                client.state.fired.store(*armed, Ordering::Release);
                *armed = NEVER;
                due.0 |= 1 << n;
            }
        }
        due
    }

    /// The next deadline of all; [`NEVER`] if there is none.
    pub fn earliest(&self) -> u64 {
        self.armed.iter().copied().min().unwrap_or(NEVER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Alarm, Clock};
    use core::sync::atomic::{AtomicU32, AtomicU64};
    use proptest::prelude::*;

    struct Pages([(TimerRequest, TimerState); CLIENTS]);

    impl Pages {
        fn new() -> Self {
            Pages(core::array::from_fn(|_| {
                let request = TimerRequest { deadline: AtomicU64::new(0) };
                (request, TimerState { fired: AtomicU64::new(0), count: AtomicU32::new(0) })
            }))
        }
        fn clients(&self) -> [Option<Client<'_>>; CLIENTS] {
            core::array::from_fn(|n| Some(Client { request: &self.0[n].0, state: &self.0[n].1 }))
        }
        fn want(&self, n: usize, deadline: u64) {
            self.0[n].0.deadline.store(deadline, Ordering::Relaxed);
        }
        fn fired(&self, n: usize) -> (u64, u32) {
            (self.0[n].1.fired.load(Ordering::Relaxed), self.0[n].1.count.load(Ordering::Relaxed))
        }
    }

    #[derive(Default)]
    struct Fake {
        now: u64,
        compare: Option<u64>,
        sets: usize,
    }

    impl Clock for Fake {
        fn now(&mut self) -> u64 {
            self.now
        }
        fn set(&mut self, compare: Option<u64>) {
            (self.compare, self.sets) = (compare, self.sets + 1);
        }
    }

    #[test]
    fn fires_once_and_in_order() {
        let pages = Pages::new();
        let mut deadlines = Deadlines::new(pages.clients());
        assert_eq!(deadlines.earliest(), NEVER, "zeroed pages want nothing");
        for (n, deadline) in [(3, 30), (5, 20), (17, 20)] {
            pages.want(n, deadline);
            deadlines.update(n);
        }
        assert_eq!(deadlines.earliest(), 20);
        assert_eq!(deadlines.expire(19), Clients(0));
        assert_eq!(deadlines.expire(20), Clients(1 << 5 | 1 << 17));
        assert_eq!(deadlines.expire(29), Clients(0));
        assert_eq!(deadlines.expire(u64::MAX - 1), Clients(1 << 3));
        assert_eq!(deadlines.earliest(), NEVER);
        assert_eq!([pages.fired(3), pages.fired(5), pages.fired(4)], [(30, 1), (20, 1), (0, 0)]);
        // The same deadline again is nothing new; a later one is.
        deadlines.update(3);
        assert_eq!(deadlines.earliest(), NEVER);
        pages.want(3, 31);
        deadlines.update(3);
        assert_eq!(deadlines.earliest(), 31);
    }

    #[test]
    fn a_deadline_moved_to_later_without_a_word_is_kept_silently() {
        let pages = Pages::new();
        let mut deadlines = Deadlines::new(pages.clients());
        pages.want(0, 10);
        deadlines.update(0);
        pages.want(0, 50);
        assert_eq!(deadlines.expire(10), Clients(0));
        assert_eq!(deadlines.earliest(), 50);
        pages.want(0, NEVER);
        assert_eq!(deadlines.expire(50), Clients(0));
        assert_eq!((deadlines.earliest(), pages.fired(0)), (NEVER, (0, 0)));
    }

    #[test]
    fn a_restarted_timer_goes_on() {
        let pages = Pages::new();
        let mut first = Deadlines::new(pages.clients());
        for (n, deadline) in [(0, 10), (1, 100)] {
            pages.want(n, deadline);
            first.update(n);
        }
        assert_eq!(first.expire(10), Clients(1));
        pages.want(2, 5);
        let mut second = Deadlines::new(pages.clients());
        assert_eq!(second.earliest(), 5);
        assert_eq!(second.expire(100), Clients(1 << 1 | 1 << 2));
    }

    #[test]
    fn unknown_clients_and_absurd_deadlines_do_no_harm() {
        let mut nobody = Deadlines::new([None; CLIENTS]);
        nobody.update(usize::MAX);
        nobody.update(0);
        assert_eq!((nobody.expire(u64::MAX), nobody.earliest()), (Clients(0), NEVER));

        let (mut alarm, mut clock) = (Alarm::new(), Fake::default());
        clock.compare = Some(3);
        alarm.arm(&mut clock, 7, NEVER);
        assert_eq!((clock.sets, clock.compare), (1, None), "what an earlier life had set");
        alarm.arm(&mut clock, 7, NEVER);
        assert_eq!(clock.sets, 1);
        alarm.arm(&mut clock, 7, NEVER - 1);
        assert_eq!(clock.compare, Some(7 + (1 << 56)));
        alarm.arm(&mut clock, u64::MAX - 5, NEVER - 1);
        assert_eq!(clock.compare, Some(NEVER - 1));
        alarm.arm(&mut clock, 8, 9);
        alarm.arm(&mut clock, 8, 9);
        assert_eq!((clock.compare, clock.sets), (Some(9), 4));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Want { client: usize, after: u64, notify: bool },
        Pass(u64),
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        let after = prop_oneof![0u64..20, Just(NEVER), any::<u64>()];
        prop_oneof![
            4 => (0..CLIENTS, after, any::<bool>()).prop_map(|(client, after, notify)| Step::Want { client, after, notify }),
            4 => (0u64..15).prop_map(Step::Pass),
            1 => Just(Step::Restart),
        ]
    }

    /// A restarted timer without a deadline took the comparator for unset, which still had the old one.
    #[test]
    fn a_comparator_that_a_dead_timer_had_set() {
        let want = |after| Step::Want { client: 4, after, notify: false };
        against_the_model(0, vec![want(1), Step::Restart, want(NEVER), Step::Restart, Step::Pass(1)])
            .unwrap();
    }

    proptest! {
        #[test]
        fn as_the_model(start in prop_oneof![Just(0u64), any::<u64>()], steps in prop::collection::vec(step(), 1..60)) {
            against_the_model(start, steps)?;
        }
    }

    /// Against a model that looks at every client at every tick: a client that notified is notified back at its
    /// deadline, not earlier, not twice, and the comparator is always set for the next one.
    fn against_the_model(start: u64, steps: Vec<Step>) -> Result<(), TestCaseError> {
        let pages = Pages::new();
        let mut deadlines = Deadlines::new(pages.clients());
        let (mut clock, mut alarm) =
            (Fake { now: start.min(u64::MAX - 2000), ..Fake::default() }, Alarm::new());
        // What the client's page says, and from when on the timer knows that it must look.
        let (mut page, mut known) = ([0u64; CLIENTS], [NEVER; CLIENTS]);
        let mut fired = [0u64; CLIENTS];
        for step in steps {
            let end = match step {
                Step::Want { client, after, notify } => {
                    let deadline = clock.now.saturating_add(after);
                    page[client] = deadline;
                    pages.want(client, deadline);
                    if notify {
                        deadlines.update(client);
                        known[client] = if deadline > fired[client] { deadline } else { NEVER };
                    }
                    clock.now
                }
                Step::Pass(ticks) => clock.now + ticks,
                Step::Restart => {
                    (deadlines, alarm) = (Deadlines::new(pages.clients()), Alarm::new());
                    known = core::array::from_fn(|n| if page[n] > fired[n] { page[n] } else { NEVER });
                    clock.now
                }
            };
            loop {
                let due = deadlines.expire(clock.now);
                let mut expected = Clients::default();
                for n in 0..CLIENTS {
                    if known[n] <= clock.now {
                        known[n] = if page[n] > fired[n] { page[n] } else { NEVER };
                        if known[n] <= clock.now {
                            (fired[n], known[n]) = (page[n], NEVER);
                            expected.0 |= 1 << n;
                        }
                    }
                }
                prop_assert_eq!(due, expected);
                let now = clock.now;
                alarm.arm(&mut clock, now, deadlines.earliest());
                let next = known.iter().copied().min().unwrap();
                match clock.compare {
                    None => prop_assert_eq!(next, NEVER),
                    Some(compare) => prop_assert!(compare > clock.now && compare <= next),
                }
                if clock.now == end {
                    break;
                }
                clock.now += 1;
            }
            prop_assert_eq!(core::array::from_fn(|n| pages.fired(n).0), fired);
        }
        Ok(())
    }
}
