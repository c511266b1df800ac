//! The state of every cell, and what follows when it changes.

use partita_config::{Config, Policy};
use partita_protocol::MAX_CELLS;
use partita_protocol::supervisor::StopReason;
use partita_ring::log::Limiter;

/// State of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// There is none of this number.
    Absent,
    /// Never started, and nobody asked for it.
    Waiting,
    /// Running, or about to.
    Running,
    /// Switched off by its guest.
    Off,
    /// Stopped by what its guest did wrong.
    Crashed,
    /// Its VMM is dead.
    Dead,
}

/// What the caller is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// Nothing.
    None,
    /// Tell the VMM to start its guest again.
    Start,
    /// Nothing runs any more: switch the machine off.
    PowerOff,
}

/// Restarts after a crash in quick succession, before the cell is left alone.
const RESTARTS: u32 = 5;
/// Seconds after which one more restart is allowed.
const RESTART_EVERY: u64 = 60;

/// All cells.
pub struct Lifecycle {
    cells: [Cell; MAX_CELLS],
    on_crash: [Policy; MAX_CELLS],
    on_reset: [Policy; MAX_CELLS],
    restarts: [Limiter; MAX_CELLS],
}

impl Lifecycle {
    /// The cells of the configuration. `ticks` is a second of the clock that [`Lifecycle::stopped`] is given.
    pub fn new(config: &Config<'_>, ticks: u64) -> Self {
        let limiter = Limiter::new(RESTARTS, ticks.saturating_mul(RESTART_EVERY));
        let mut all = Lifecycle {
            cells: [Cell::Absent; MAX_CELLS],
            on_crash: [Policy::Stop; MAX_CELLS],
            on_reset: [Policy::Stop; MAX_CELLS],
            restarts: [limiter; MAX_CELLS],
        };
        let slots = all.cells.iter_mut().zip(&mut all.on_crash).zip(&mut all.on_reset);
        for (((cell, on_crash), on_reset), given) in slots.zip(&config.cells) {
            *cell = if given.autostart { Cell::Running } else { Cell::Waiting };
            *on_crash = given.on_crash;
            *on_reset = given.on_reset;
        }
        all
    }

    /// State of a cell.
    pub fn cell(&self, n: usize) -> Cell {
        self.cells.get(n).copied().unwrap_or(Cell::Absent)
    }

    fn set(&mut self, n: usize, state: Cell) {
        if let Some(cell) = self.cells.get_mut(n).filter(|cell| **cell != Cell::Absent) {
            *cell = state;
        }
    }

    /// The VMM says that its guest runs.
    pub fn running(&mut self, n: usize) {
        self.set(n, Cell::Running);
    }

    /// The VMM says that its guest stopped.
    pub fn stopped(&mut self, n: usize, reason: StopReason, now: u64) -> Reaction {
        let policy = |policies: &[Policy; MAX_CELLS]| policies.get(n).copied().unwrap_or_default();
        let (state, again) = match reason {
            StopReason::PowerOff => (Cell::Off, false),
            StopReason::Reset => (Cell::Off, policy(&self.on_reset) == Policy::Restart),
            StopReason::Crash => {
                let allowed = self.restarts.get_mut(n).is_some_and(|limiter| limiter.allow(now).is_some());
                (Cell::Crashed, policy(&self.on_crash) == Policy::Restart && allowed)
            }
        };
        if self.cell(n) == Cell::Absent {
            return Reaction::None;
        }
        self.set(n, if again { Cell::Running } else { state });
        if again { Reaction::Start } else { self.idle() }
    }

    /// The cell's VMM has faulted.
    pub fn vmm_died(&mut self, n: usize) -> Reaction {
        if self.cell(n) == Cell::Absent {
            return Reaction::None;
        }
        self.set(n, Cell::Dead);
        self.idle()
    }

    fn idle(&self) -> Reaction {
        if self.cells.contains(&Cell::Running) { Reaction::None } else { Reaction::PowerOff }
    }

    /// Cells that did not end well.
    pub fn failures(&self) -> usize {
        self.cells.iter().filter(|cell| matches!(cell, Cell::Crashed | Cell::Dead)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config<'_> {
        partita_config::parse(text.as_bytes()).unwrap()
    }

    const THREE: &str = r#"{"cells":[
        {"name":"a","memory":"64M","kernel":"k"},
        {"name":"b","memory":"64M","kernel":"k","on_crash":"restart","on_reset":"stop"},
        {"name":"c","memory":"64M","kernel":"k","autostart":false}]}"#;

    #[test]
    fn the_machine_goes_off_with_its_last_guest() {
        let mut all = Lifecycle::new(&config(THREE), 100);
        assert_eq!(
            [0, 1, 2, 3].map(|n| all.cell(n)),
            [Cell::Running, Cell::Running, Cell::Waiting, Cell::Absent]
        );
        assert_eq!(all.stopped(0, StopReason::PowerOff, 0), Reaction::None);
        assert_eq!(all.stopped(1, StopReason::Reset, 0), Reaction::PowerOff);
        assert_eq!(all.failures(), 0);
        // Somebody starts the third.
        all.running(2);
        assert_eq!(all.stopped(2, StopReason::Crash, 0), Reaction::PowerOff);
        assert_eq!(all.failures(), 1);
    }

    #[test]
    fn a_reset_starts_again_by_default() {
        let mut all = Lifecycle::new(&config(THREE), 100);
        for _ in 0..100 {
            assert_eq!(all.stopped(0, StopReason::Reset, 0), Reaction::Start);
        }
        assert_eq!(all.cell(0), Cell::Running);
    }

    #[test]
    fn a_crash_loop_ends() {
        let mut all = Lifecycle::new(&config(THREE), 100);
        for _ in 0..RESTARTS {
            assert_eq!(all.stopped(1, StopReason::Crash, 1000), Reaction::Start);
        }
        assert_eq!(all.stopped(1, StopReason::Crash, 1001), Reaction::None);
        assert_eq!(all.cell(1), Cell::Crashed);
        // A minute later it may try again.
        assert_eq!(all.stopped(1, StopReason::Crash, 1000 + 6000), Reaction::Start);
        assert_eq!(all.vmm_died(0), Reaction::None);
        assert_eq!(all.vmm_died(1), Reaction::PowerOff);
        assert_eq!(all.failures(), 2);
    }

    #[test]
    fn cells_that_do_not_exist_decide_nothing() {
        let mut all = Lifecycle::new(&Config::default(), 0);
        for n in [0, MAX_CELLS, usize::MAX] {
            all.running(n);
            assert_eq!(all.stopped(n, StopReason::Crash, 5), Reaction::None);
            assert_eq!(all.vmm_died(n), Reaction::None);
        }
    }
}
