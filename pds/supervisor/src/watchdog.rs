//! Guests that show no sign of life.
//!
//! A VMM counts what only a living guest does (its heartbeat: timer, devices, PSCI). An idle guest does that too, as it
//! wakes for its timer; one that spins with interrupts masked does not. The watchdog looks at the count four times in the
//! time that the configuration gives, so silence is noticed within a quarter more than that.

use partita_config::Config;
use partita_protocol::MAX_CELLS;
use partita_protocol::timer::NEVER;

/// Looks in the time after which a guest counts as hung.
const LOOKS: u64 = 4;

#[derive(Clone, Copy, Default)]
struct Watch {
    /// Ticks of silence after which it is told; 0: nobody watches.
    limit: u64,
    heartbeat: u64,
    /// When the heartbeat was seen to move.
    moved: u64,
    silent: bool,
}

/// What a look found out that was not known before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Nothing.
    None,
    /// It has been silent for too long.
    Silent,
    /// It was silent, and lives after all.
    Alive,
}

/// All cells' heartbeats.
pub struct Watchdog {
    cells: [Watch; MAX_CELLS],
    next: u64,
}

impl Watchdog {
    /// As configured; `ticks` is a second of the clock whose count is `now`.
    pub fn new(config: &Config<'_>, ticks: u64, now: u64) -> Self {
        let mut cells = [Watch::default(); MAX_CELLS];
        for (watch, cell) in cells.iter_mut().zip(&config.cells) {
            watch.limit = u64::from(cell.watchdog_seconds).saturating_mul(ticks);
            watch.moved = now;
        }
        let mut watchdog = Watchdog { cells, next: NEVER };
        watchdog.looked(now);
        watchdog
    }

    /// When to look at all cells; [`NEVER`] if none is watched.
    pub fn deadline(&self) -> u64 {
        self.next
    }

    /// All cells were looked at.
    pub fn looked(&mut self, now: u64) {
        let period = self.cells.iter().filter(|watch| watch.limit > 0).map(|watch| watch.limit / LOOKS).min();
        self.next = period.map_or(NEVER, |period| now.saturating_add(period.max(1)).min(NEVER - 1));
    }

    /// A look at cell `n`: its heartbeat, or `None` if it does not run, which is not its fault.
    pub fn look(&mut self, n: usize, heartbeat: Option<u64>, now: u64) -> Finding {
        let Some(watch) = self.cells.get_mut(n).filter(|watch| watch.limit > 0) else { return Finding::None };
        let Some(heartbeat) = heartbeat else {
            watch.moved = now;
            watch.silent = false;
            return Finding::None;
        };
        if watch.heartbeat != heartbeat {
            watch.heartbeat = heartbeat;
            watch.moved = now;
            return if core::mem::take(&mut watch.silent) { Finding::Alive } else { Finding::None };
        }
        if watch.silent || now.saturating_sub(watch.moved) < watch.limit {
            return Finding::None;
        }
        watch.silent = true;
        Finding::Silent
    }

    /// The cell starts afresh: its silence so far does not count.
    pub fn forgive(&mut self, n: usize, now: u64) {
        self.look(n, None, now);
    }

    /// Whether the cell is known to be silent.
    pub fn is_silent(&self, n: usize) -> bool {
        self.cells.get(n).is_some_and(|watch| watch.silent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = r#"{"cells":[
        {"name":"a","memory":"64M","kernel":"k","watchdog_seconds":10},
        {"name":"b","memory":"64M","kernel":"k"}]}"#;

    #[test]
    fn silence_is_told_once_and_its_end_too() {
        let config = partita_config::parse(TWO.as_bytes()).unwrap();
        let mut dog = Watchdog::new(&config, 100, 5000);
        assert_eq!(dog.deadline(), 5250);
        dog.looked(5250);
        assert_eq!(dog.deadline(), 5500);
        assert_eq!(dog.look(0, Some(1), 5250), Finding::None);
        assert_eq!(dog.look(0, Some(1), 6249), Finding::None);
        assert_eq!((dog.look(0, Some(1), 6250), dog.is_silent(0)), (Finding::Silent, true));
        assert_eq!(dog.look(0, Some(1), 9999), Finding::None);
        assert_eq!((dog.look(0, Some(2), 9999), dog.is_silent(0)), (Finding::Alive, false));
        // Paused for long, then resumed.
        assert_eq!(dog.look(0, None, 20_000), Finding::None);
        assert_eq!(dog.look(0, Some(2), 20_999), Finding::None);
        assert_eq!(dog.look(0, Some(2), 21_000), Finding::Silent);
        dog.forgive(0, 21_000);
        assert_eq!(dog.look(0, Some(2), 21_999), Finding::None);
        // Not watched, not there.
        for n in [1, MAX_CELLS, usize::MAX] {
            assert_eq!(dog.look(n, Some(0), u64::MAX), Finding::None);
        }
        assert_eq!(Watchdog::new(&Config::default(), 100, 0).deadline(), NEVER);
    }
}
