//! Which PD is started again, when, and when no more.
//!
//! A PD that dies is started again: at once the first time, later after a pause that doubles, so that one which dies at each
//! start does not eat the machine. [`LIMIT`] deaths within [`WINDOW`] seconds, and it is held: it stays stopped until
//! somebody at the shell restarts it. What the shell ordered (a restart, a killing for a test) is no death of its own and
//! counts for nothing.
//!
//! A PD that answers requests is held in another way, as its clients' guests would wait for ever: it is started once more
//! and *refuses*: it does nothing but answer with errors. If it dies even so, it stays stopped.
//!
//! The pauses are measured by the timer PD. It is itself started again without any.
//!
//! The supervisor is not restarted: nobody is above it, and what it knows (who is held, what is wanted of each cell) is
//! nowhere else.

use core::fmt;

use partita_protocol::MAX_CELLS;
use partita_protocol::layout::{Service, supervisor_vmm};
use partita_protocol::timer::NEVER;

/// Greatest number of child ids.
pub const CHILDREN: usize = supervisor_vmm(MAX_CELLS - 1) + 1;
/// Deaths in [`WINDOW`] that make the supervisor give up.
pub const LIMIT: usize = 5;
/// Seconds.
pub const WINDOW: u64 = 60;
/// Milliseconds of the shortest pause but none.
const PAUSE: u64 = 25;
/// Pings that a PD may leave unanswered before it counts as hung.
pub const PATIENCE: u32 = 5;
/// Unanswered pings that make a PD suspect when one of lower rank is hung.
const SUSPECT: u32 = 2;

/// Why a PD stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It faulted or panicked.
    Fault,
    /// It did not answer.
    Hang,
    /// The timer let deadlines pass.
    Late,
    /// Somebody at the shell wanted it.
    Order,
    /// Killed for a test, at this program counter and with so many requests in flight.
    Killed {
        /// Where it was.
        pc: u64,
        /// Requests that its device had.
        in_flight: u64,
    },
}

impl Why {
    const fn is_its_own(self) -> bool {
        matches!(self, Why::Fault | Why::Hang | Why::Late)
    }

    /// One word.
    pub const fn word(self) -> &'static str {
        match self {
            Why::Fault => "fault",
            Why::Hang | Why::Late => "hang",
            Why::Order => "order",
            Why::Killed { .. } => "killed",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Fault => f.write_str("it faulted"),
            Why::Hang => write!(f, "it hung, {PATIENCE} pings unanswered"),
            Why::Late => f.write_str("it hung, deadlines have passed"),
            Why::Order => f.write_str("as ordered"),
            Why::Killed { pc, in_flight: 0 } => write!(f, "killed at {pc:#x}"),
            Why::Killed { pc, in_flight } => {
                write!(f, "killed at {pc:#x} with {in_flight} requests in flight")
            }
        }
    }
}

/// What a PD does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// There is none of this number.
    Absent,
    /// It begins; at boot or again.
    Starting,
    /// It answers.
    Up,
    /// It is stopped until this time.
    Waiting(u64),
    /// It answers everything with an error, until somebody starts it again.
    Refusing,
    /// It is stopped for good.
    Held,
}

impl State {
    /// One word.
    pub const fn word(self) -> &'static str {
        match self {
            State::Absent => "absent",
            State::Starting => "starting",
            State::Up => "up",
            State::Waiting(_) => "waiting",
            State::Refusing => "refusing",
            State::Held => "held",
        }
    }
}

/// What is to be done about a death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sentence {
    /// Start it again now.
    Restart,
    /// Start it again when [`Restarts::due`] says so.
    Wait,
    /// Start it again, to refuse.
    Refuse,
    /// Leave it.
    Hold,
}

/// A start that is over, to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Healed {
    /// Why it was started again.
    pub why: Why,
    /// Which restart this was.
    pub time: u32,
    /// Ticks from its death to its readiness.
    pub ticks: u64,
}

#[derive(Clone, Copy)]
struct Child {
    state: State,
    restarts: u32,
    /// Times of its last deaths, `NEVER` for none.
    deaths: [u64; LIMIT],
    died: u64,
    why: Option<Why>,
    may_refuse: bool,
    beats: u32,
    missed: u32,
}

/// All children.
pub struct Restarts {
    children: [Child; CHILDREN],
    /// Ticks of a second.
    second: u64,
}

impl Restarts {
    /// `exists` says which child ids there are; `second` is in ticks.
    pub fn new(exists: impl Fn(usize) -> bool, second: u64) -> Self {
        let child = |id| Child {
            state: if exists(id) { State::Starting } else { State::Absent },
            restarts: 0,
            deaths: [NEVER; LIMIT],
            died: 0,
            why: None,
            may_refuse: Service::from_index(id).is_some_and(Service::can_refuse),
            beats: 0,
            missed: 0,
        };
        Restarts { children: core::array::from_fn(child), second }
    }

    fn child(&mut self, id: usize) -> Option<&mut Child> {
        self.children.get_mut(id).filter(|child| child.state != State::Absent)
    }

    /// What a child does.
    pub fn state(&self, id: usize) -> State {
        self.children.get(id).map_or(State::Absent, |child| child.state)
    }

    /// How often it was started again.
    pub fn restarts(&self, id: usize) -> u32 {
        self.children.get(id).map_or(0, |child| child.restarts)
    }

    /// Why it last stopped.
    pub fn why(&self, id: usize) -> Option<Why> {
        self.children.get(id).and_then(|child| child.why)
    }

    /// It runs or soon will: a resume does it no harm.
    pub fn is_alive(&self, id: usize) -> bool {
        matches!(self.state(id), State::Up | State::Starting | State::Refusing)
    }

    /// A child has stopped, or is to be.
    pub fn died(&mut self, id: usize, why: Why, now: u64) -> Sentence {
        let (second, is_timer) = (self.second, id == Service::Timer.index());
        let Some(child) = self.child(id) else { return Sentence::Hold };
        if child.state != State::Starting || child.why.is_none() {
            // A death during a restart makes the same absence longer.
            child.died = now;
        }
        child.why = Some(why);
        if child.state == State::Refusing && why != Why::Order {
            child.state = if why.is_its_own() { State::Held } else { State::Refusing };
            return if why.is_its_own() { Sentence::Hold } else { child.refuse() };
        }
        if !why.is_its_own() {
            if why == Why::Order {
                child.deaths = [NEVER; LIMIT];
            }
            return child.begin();
        }
        child.deaths.rotate_right(1);
        if let Some(last) = child.deaths.first_mut() {
            *last = now;
        }
        let window = second.saturating_mul(WINDOW);
        let recent =
            child.deaths.iter().filter(|at| now.saturating_sub(**at) < window && **at != NEVER).count();
        if recent >= LIMIT {
            if child.may_refuse {
                return child.refuse();
            }
            child.state = State::Held;
            return Sentence::Hold;
        }
        if recent <= 1 || is_timer {
            return child.begin();
        }
        let pause = second.saturating_mul(PAUSE << (recent - 2)) / 1000;
        child.state = State::Waiting(now.saturating_add(pause));
        Sentence::Wait
    }

    /// A child whose pause is over, if there is one. It is taken as started.
    pub fn due(&mut self, now: u64) -> Option<usize> {
        let over = |child: &Child| matches!(child.state, State::Waiting(until) if until <= now);
        let id = self.children.iter().position(over)?;
        self.child(id)?.begin();
        Some(id)
    }

    /// When [`Restarts::due`] is worth asking.
    pub fn deadline(&self) -> u64 {
        let until = |child: &Child| match child.state {
            State::Waiting(until) => until,
            _ => NEVER,
        };
        self.children.iter().map(until).min().unwrap_or(NEVER)
    }

    /// It says that its start is over.
    pub fn ready(&mut self, id: usize, now: u64) -> Option<Healed> {
        let child = self.child(id).filter(|child| child.state == State::Starting)?;
        child.state = State::Up;
        child.missed = 0;
        let why = child.why?;
        Some(Healed { why, time: child.restarts, ticks: now.saturating_sub(child.died) })
    }

    /// Looks at all children's answers to the pings so far; `beats` is the count of each, `rank` its priority. Those that
    /// live are to be pinged next. Returns a child that is hung: of all that are silent the one of highest rank, since it may
    /// be what keeps the others from answering, even if it has answered a ping more than they (one that hangs again soon after
    /// its start has). They get their patience anew.
    pub fn look(&mut self, beats: impl Fn(usize) -> u32, rank: impl Fn(usize) -> u8) -> Option<usize> {
        let mut hung = false;
        let mut culprit: Option<usize> = None;
        for (id, child) in self.children.iter_mut().enumerate() {
            if !matches!(child.state, State::Up | State::Starting | State::Refusing) {
                continue;
            }
            let now = beats(id);
            child.missed =
                if now == core::mem::replace(&mut child.beats, now) { child.missed + 1 } else { 0 };
            // The first look is before the first ping.
            hung |= child.missed > PATIENCE;
            if child.missed >= SUSPECT && culprit.is_none_or(|other| rank(other) < rank(id)) {
                culprit = Some(id);
            }
        }
        if !hung {
            return None;
        }
        for child in &mut self.children {
            child.missed = 0;
        }
        culprit
    }

    /// A child that others wait for is away: their silence is not theirs.
    pub fn forgive(&mut self, id: usize) {
        if let Some(child) = self.child(id) {
            child.missed = 0;
        }
    }
}

impl Child {
    fn begin(&mut self) -> Sentence {
        self.state = State::Starting;
        self.restarts = self.restarts.wrapping_add(1);
        self.missed = 0;
        Sentence::Restart
    }

    fn refuse(&mut self) -> Sentence {
        self.begin();
        self.state = State::Refusing;
        Sentence::Refuse
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BLK: usize = Service::Blk(0).index();
    const SECOND: u64 = 1000;

    fn all() -> Restarts {
        Restarts::new(|id| id != 9, SECOND)
    }

    #[test]
    fn pauses_grow_and_the_fifth_death_in_a_minute_is_the_last() {
        let mut restarts = all();
        assert_eq!(restarts.ready(BLK, 0), None, "the first start is no news");
        assert_eq!(restarts.died(BLK, Why::Fault, 100), Sentence::Restart);
        let healed = restarts.ready(BLK, 107).unwrap();
        assert_eq!(healed, Healed { why: Why::Fault, time: 1, ticks: 7 });
        let mut pauses = Vec::new();
        for n in 1..4 {
            assert_eq!(restarts.died(BLK, Why::Hang, 1000 * n), Sentence::Wait);
            pauses.push(restarts.deadline() - 1000 * n);
            assert_eq!(restarts.due(restarts.deadline() - 1), None);
            assert_eq!(restarts.due(restarts.deadline()), Some(BLK));
            assert_eq!(restarts.state(BLK), State::Starting);
        }
        assert_eq!(pauses, [25, 50, 100]);
        assert_eq!(restarts.died(BLK, Why::Fault, 60_099), Sentence::Refuse);
        assert_eq!((restarts.state(BLK), restarts.deadline()), (State::Refusing, NEVER));
        let killed = Why::Killed { pc: 0, in_flight: 0 };
        assert_eq!(restarts.died(BLK, killed, 60_099), Sentence::Refuse, "a test changes nothing");
        assert_eq!(restarts.died(BLK, Why::Hang, 60_099), Sentence::Hold, "not even that can it do");
        assert_eq!((restarts.state(BLK), restarts.deadline()), (State::Held, NEVER));
        assert_eq!(restarts.died(BLK, Why::Order, 60_100), Sentence::Restart, "somebody wants it");
        assert_eq!(restarts.died(BLK, Why::Fault, 60_100), Sentence::Restart, "with a clean slate");
    }

    #[test]
    fn who_has_no_requests_to_answer_is_held() {
        let mut restarts = all();
        let vmm = supervisor_vmm(1);
        let sentences: Vec<Sentence> = (0..6)
            .map(|n| {
                restarts.due(u64::MAX);
                restarts.died(vmm, Why::Fault, n)
            })
            .collect();
        use Sentence::{Hold, Restart, Wait};
        assert_eq!(sentences, [Restart, Wait, Wait, Wait, Hold, Hold]);
        assert!(!restarts.is_alive(vmm));
        let refuses = |id: usize| restarts.children[id].may_refuse;
        let ids: Vec<usize> = (0..CHILDREN).filter(|id| refuses(*id)).collect();
        let blks = (0..partita_protocol::MAX_CONTROLLERS).map(|n| Service::Blk(n as u8).index());
        assert_eq!(ids, [Service::Ivc.index()].into_iter().chain(blks).collect::<Vec<_>>());
    }

    #[test]
    fn rare_deaths_are_forgotten_and_ordered_ones_do_not_count() {
        let mut restarts = all();
        for n in 0..100 {
            assert_eq!(
                restarts.died(BLK, Why::Fault, n * 60_000 / 4 + n),
                if n == 0 { Sentence::Restart } else { Sentence::Wait }
            );
            restarts.due(u64::MAX);
        }
        for n in 0..10_000 {
            let killed = Why::Killed { pc: 0x20_0000, in_flight: n };
            assert_eq!(restarts.died(BLK, killed, 1_500_000 + n), Sentence::Restart);
            assert!(restarts.ready(BLK, 1_500_000 + n).is_some());
        }
    }

    #[test]
    fn the_timer_waits_for_nobody() {
        let mut restarts = all();
        for n in 0..4 {
            assert_eq!(restarts.died(Service::Timer.index(), Why::Fault, n), Sentence::Restart);
        }
        assert_eq!(restarts.died(Service::Timer.index(), Why::Fault, 5), Sentence::Hold);
    }

    #[test]
    fn of_many_silent_ones_the_highest_is_blamed() {
        let mut restarts = all();
        let vmm = supervisor_vmm(0);
        let rank = |id| if id == BLK { 200 } else { 100 };
        // BLK and what it keeps from running are silent, console answers.
        for n in 0..=PATIENCE {
            let beats = |id| if id == Service::Console.index() { n + 1 } else { 0 };
            let hung = restarts.look(beats, rank);
            assert_eq!(hung, (n == PATIENCE).then_some(BLK), "look {n}");
        }
        assert_eq!(restarts.died(BLK, Why::Hang, 0), Sentence::Restart);
        // The VMM has its patience anew, and then is hung itself.
        for n in 0..=PATIENCE {
            let beats = |id| if id == vmm { 0 } else { n + 100 };
            assert_eq!(restarts.look(beats, rank), (n == PATIENCE).then_some(vmm));
        }
        assert_eq!(restarts.look(|_| 5, rank), None);
        // BLK answers the first ping of its new life, spins again, and keeps all others from answering.
        for n in 0..=PATIENCE {
            let beats = |id| if id == BLK { 5 + n.min(1) } else { 5 };
            assert_eq!(restarts.look(beats, rank), (n == PATIENCE).then_some(BLK), "look {n}");
        }
        // A single missed ping is not suspect.
        for n in 0..=PATIENCE {
            let beats = |id| {
                if id == BLK {
                    10 + n.min(PATIENCE - 1)
                } else if id == vmm {
                    5
                } else {
                    10 + n
                }
            };
            assert_eq!(restarts.look(beats, rank), (n == PATIENCE).then_some(vmm), "look {n}");
        }
        assert_eq!((restarts.died(9, Why::Fault, 0), restarts.state(9)), (Sentence::Hold, State::Absent));
        assert_eq!(restarts.died(usize::MAX, Why::Fault, 0), Sentence::Hold);
    }

    proptest! {
        /// Whatever happens when: never more than LIMIT own deaths are healed in a window, and whoever is not held or absent
        /// is started again in the end.
        #[test]
        fn bounded(events in prop::collection::vec((0usize..CHILDREN, 0u64..20_000, any::<bool>()), 1..200)) {
            let mut restarts = all();
            let mut now = 0;
            let mut healed: Vec<(usize, u64)> = Vec::new();
            for (id, after, hang) in events {
                now += after;
                while let Some(id) = restarts.due(now) {
                    prop_assert_eq!(restarts.state(id), State::Starting);
                }
                if !restarts.is_alive(id) { continue; }
                let refusing = restarts.state(id) == State::Refusing;
                let sentence = restarts.died(id, if hang { Why::Hang } else { Why::Fault }, now);
                prop_assert!(!refusing || sentence == Sentence::Hold);
                if !matches!(sentence, Sentence::Hold | Sentence::Refuse) {
                    healed.push((id, now));
                    let recent = healed.iter().filter(|(who, at)| *who == id && now - at < WINDOW * SECOND).count();
                    prop_assert!(recent < LIMIT);
                }
            }
            while restarts.due(u64::MAX - 1).is_some() {}
            prop_assert_eq!(restarts.deadline(), NEVER);
        }
    }
}
