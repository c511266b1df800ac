//! The state of every cell, what somebody wants of it, and what follows when it changes.
//!
//! The supervisor says what it wants ([`Wish`], a page for each VMM) and hears what became of it. Three kinds of events come
//! in here: orders from the shell, what a VMM says of its guest, and what the watchdog found. Each answers with a
//! [`Reaction`], so that nothing here touches a page or a channel.

use core::fmt;

use partita_config::{Config, OnHang, Policy};
use partita_protocol::MAX_CELLS;
use partita_protocol::lifecycle::CellState;
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
    /// Stopped where it was by the shell.
    Paused,
    /// Its VMM was told to stop it and has not said that it did.
    Stopping,
    /// Stopped by the shell.
    Stopped,
    /// Switched off by its guest.
    Off,
    /// Stopped by what its guest did wrong.
    Crashed,
    /// Stopped by the watchdog.
    Hung,
    /// Its VMM is dead.
    Dead,
}

impl Cell {
    /// One word for people.
    pub const fn name(self) -> &'static str {
        match self {
            Cell::Absent => "absent",
            Cell::Waiting => "waiting",
            Cell::Running => "running",
            Cell::Paused => "paused",
            Cell::Stopping => "stopping",
            Cell::Stopped => "stopped",
            Cell::Off => "off",
            Cell::Crashed => "crashed",
            Cell::Hung => "hung",
            Cell::Dead => "dead",
        }
    }
}

/// What the supervisor wants of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Counts starts.
    pub epoch: u32,
    /// Running, paused or stopped.
    pub state: CellState,
}

/// What somebody at the shell can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Start it, with fresh RAM.
    Start,
    /// Stop it at once.
    Stop,
    /// Stop its vCPUs where they are.
    Pause,
    /// Let them go on.
    Resume,
    /// Start it afresh, whatever it does now.
    Restart,
}

impl Order {
    /// What happens now, to say after the cell's name.
    pub const fn answer(self) -> &'static str {
        match self {
            Order::Start => "starts",
            Order::Stop => "stops",
            Order::Pause => "pauses",
            Order::Resume => "goes on",
            Order::Restart => "restarts",
        }
    }
}

/// Who wants something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Who sits at the serial line.
    Shell,
    /// A cell that is `manager`, over the management service.
    Cell(usize),
}

/// Why an order makes no sense now. Displays as what is to be said after the cell's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    order: Order,
    cell: Cell,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.order, self.cell) {
            (_, Cell::Dead) => f.write_str("cannot do that: its VMM has faulted"),
            (Order::Start, Cell::Running) => f.write_str("runs already; `restart` starts it afresh"),
            (Order::Start, Cell::Paused) => f.write_str("is paused; `resume` lets it go on"),
            (Order::Resume, Cell::Running) => f.write_str("runs already"),
            (Order::Pause, Cell::Paused) => f.write_str("is paused already; `resume` lets it go on"),
            (_, Cell::Stopping) => f.write_str("is being stopped; ask again when it is"),
            (_, Cell::Absent) => f.write_str("does not exist"),
            (_, cell) => write!(f, "does not run, it is {}; `start` starts it", cell.name()),
        }
    }
}

/// Who brought a VMM down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It faulted or hung.
    Itself,
    /// The shell.
    Order,
    /// Fault injection: the cell's policy applies, the limit to its restarts does not.
    Test,
}

/// What the caller is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// Nothing.
    None,
    /// Publish the cell's [`Lifecycle::wish`] and notify its VMM.
    Publish,
    /// Nothing runs any more: switch the machine off.
    PowerOff,
}

/// Restarts after a crash or a hang in quick succession, before the cell is left alone.
const RESTARTS: u32 = 5;
/// Seconds after which one more restart is allowed.
const RESTART_EVERY: u64 = 60;

#[derive(Clone, Copy)]
struct Slot {
    cell: Cell,
    wish: Wish,
    on_crash: Policy,
    on_reset: Policy,
    on_hang: OnHang,
    restarts: Limiter,
    /// It is being stopped by the watchdog.
    hung: bool,
}

impl Slot {
    fn start(&mut self) {
        self.cell = Cell::Running;
        self.hung = false;
        self.wish = Wish { epoch: self.wish.epoch.wrapping_add(1), state: CellState::Running };
    }

    fn stop(&mut self) {
        self.cell = Cell::Stopping;
        self.wish.state = CellState::Stopped;
    }

    /// Whether it may begin again by itself now.
    fn may_restart(&mut self, now: u64) -> bool {
        self.restarts.allow(now).is_some()
    }
}

/// All cells.
pub struct Lifecycle {
    slots: [Slot; MAX_CELLS],
    /// The machine is being switched off.
    ending: bool,
}

impl Lifecycle {
    /// The cells of the configuration. `ticks` is a second of the clock that [`Lifecycle::stopped`] is given.
    pub fn new(config: &Config<'_>, ticks: u64) -> Self {
        let absent = Slot {
            cell: Cell::Absent,
            wish: Wish { epoch: 0, state: CellState::Stopped },
            on_crash: Policy::Stop,
            on_reset: Policy::Stop,
            on_hang: OnHang::Report,
            restarts: Limiter::new(RESTARTS, ticks.saturating_mul(RESTART_EVERY)),
            hung: false,
        };
        let mut slots = [absent; MAX_CELLS];
        for (slot, given) in slots.iter_mut().zip(&config.cells) {
            (slot.cell, slot.wish.state) = match given.autostart {
                true => (Cell::Running, CellState::Running),
                false => (Cell::Waiting, CellState::Stopped),
            };
            slot.on_crash = given.on_crash;
            slot.on_reset = given.on_reset;
            slot.on_hang = given.on_hang;
        }
        Lifecycle { slots, ending: false }
    }

    fn slot(&mut self, n: usize) -> Option<&mut Slot> {
        self.slots.get_mut(n).filter(|slot| slot.cell != Cell::Absent)
    }

    /// State of a cell.
    pub fn cell(&self, n: usize) -> Cell {
        self.slots.get(n).map_or(Cell::Absent, |slot| slot.cell)
    }

    /// What is wanted of a cell; `None` if there is none of this number.
    pub fn wish(&self, n: usize) -> Option<Wish> {
        self.slots.get(n).filter(|slot| slot.cell != Cell::Absent).map(|slot| slot.wish)
    }

    /// Somebody at the shell wants something. `Ok`: publish the wish.
    pub fn order(&mut self, n: usize, order: Order) -> Result<(), Refused> {
        let refused = |cell| Refused { order, cell };
        let Some(slot) = self.slot(n) else { return Err(refused(Cell::Absent)) };
        match (order, slot.cell) {
            (_, Cell::Dead) => return Err(refused(slot.cell)),
            (Order::Start, Cell::Running | Cell::Paused | Cell::Stopping) => return Err(refused(slot.cell)),
            (Order::Start | Order::Restart, _) => slot.start(),
            (Order::Stop, Cell::Running | Cell::Paused) => slot.stop(),
            (Order::Pause, Cell::Running) => {
                slot.cell = Cell::Paused;
                slot.wish.state = CellState::Paused;
            }
            (Order::Resume, Cell::Paused) => {
                slot.cell = Cell::Running;
                slot.wish.state = CellState::Running;
            }
            (Order::Stop | Order::Pause | Order::Resume, cell) => return Err(refused(cell)),
        }
        Ok(())
    }

    /// All are to stop, then the machine is switched off: now if [`Lifecycle::idle`] says so, else with a later reaction. The
    /// result is the cells whose wish is to be published, as a bit set.
    pub fn end(&mut self) -> u16 {
        self.ending = true;
        let mut cells = 0;
        for (n, slot) in self.slots.iter_mut().enumerate() {
            if matches!(slot.cell, Cell::Running | Cell::Paused) {
                slot.stop();
                cells |= 1 << n;
            }
        }
        cells
    }

    /// Whether [`Lifecycle::end`] was called.
    pub fn is_ending(&self) -> bool {
        self.ending
    }

    /// The VMM says that its guest runs.
    pub fn running(&mut self, n: usize) {
        if let Some(slot) = self.slot(n)
            && slot.wish.state == CellState::Running
            && slot.cell != Cell::Dead
        {
            slot.cell = Cell::Running;
        }
    }

    /// The VMM published the state that its cell is in now.
    pub fn reached(&mut self, n: usize, state: CellState) -> Reaction {
        match self.slot(n) {
            Some(slot)
                if slot.cell == Cell::Stopping && matches!(state, CellState::Stopped | CellState::Ended) =>
            {
                slot.cell = if slot.hung { Cell::Hung } else { Cell::Stopped };
                self.idle()
            }
            _ => Reaction::None,
        }
    }

    /// The VMM says that its guest stopped by itself. `epoch` is the start that ended, if the VMM says which.
    pub fn stopped(&mut self, n: usize, reason: StopReason, epoch: Option<u32>, now: u64) -> Reaction {
        let ending = self.ending;
        let Some(slot) = self.slot(n) else { return Reaction::None };
        if epoch.is_some_and(|epoch| epoch != slot.wish.epoch) {
            // It ended while somebody started it afresh: that is what will happen.
            return Reaction::None;
        }
        if slot.cell == Cell::Stopping {
            return self.reached(n, CellState::Ended);
        }
        let (state, again) = match reason {
            StopReason::PowerOff => (Cell::Off, false),
            StopReason::Reset => (Cell::Off, slot.on_reset == Policy::Restart),
            StopReason::Crash => (Cell::Crashed, slot.on_crash == Policy::Restart && slot.may_restart(now)),
        };
        if again && !ending {
            slot.start();
            return Reaction::Publish;
        }
        slot.cell = state;
        slot.wish.state = CellState::Stopped;
        self.idle()
    }

    /// The watchdog saw no sign of life of a running guest.
    pub fn hung(&mut self, n: usize, now: u64) -> Reaction {
        let Some(slot) = self.slot(n).filter(|slot| slot.cell == Cell::Running) else {
            return Reaction::None;
        };
        if slot.on_hang == OnHang::Report {
            return Reaction::None;
        }
        if slot.on_hang == OnHang::Restart && slot.may_restart(now) {
            slot.start();
        } else {
            slot.stop();
            slot.hung = true;
        }
        Reaction::Publish
    }

    /// The cell's VMM is started again, and its guest with it if that ran and the policy or an order says so. The wish has
    /// to be published before the VMM begins.
    pub fn vmm_restarts(&mut self, n: usize, cause: Cause, now: u64) -> Reaction {
        let ending = self.ending;
        let Some(slot) = self.slot(n) else { return Reaction::None };
        let again = match (slot.cell, cause) {
            (Cell::Running | Cell::Paused, Cause::Order) | (Cell::Dead, Cause::Order) => true,
            (Cell::Running | Cell::Paused, Cause::Test) => slot.on_crash == Policy::Restart,
            (Cell::Running | Cell::Paused, Cause::Itself) => {
                slot.on_crash == Policy::Restart && slot.may_restart(now)
            }
            // It comes back to what was wanted anyway.
            _ => return Reaction::None,
        };
        if again && !ending {
            slot.start();
            return Reaction::Publish;
        }
        slot.cell = Cell::Crashed;
        slot.wish.state = CellState::Stopped;
        match self.idle() {
            Reaction::None => Reaction::Publish,
            reaction => reaction,
        }
    }

    /// The cell's VMM has faulted and stays stopped.
    pub fn vmm_died(&mut self, n: usize) -> Reaction {
        let Some(slot) = self.slot(n) else { return Reaction::None };
        slot.cell = Cell::Dead;
        self.idle()
    }

    /// Whether the machine can go off. A cell that somebody stopped keeps it on, for somebody wants to do something with it.
    pub fn idle(&self) -> Reaction {
        let busy = |slot: &Slot| match slot.cell {
            Cell::Running | Cell::Paused | Cell::Stopping => true,
            Cell::Stopped => !self.ending,
            _ => false,
        };
        if self.slots.iter().any(busy) { Reaction::None } else { Reaction::PowerOff }
    }

    /// Cells that did not end well.
    pub fn failures(&self) -> usize {
        self.slots
            .iter()
            .filter(|slot| {
                matches!(slot.cell, Cell::Crashed | Cell::Hung | Cell::Dead) || slot.cell == Cell::Stopping
            })
            .count()
    }
}

#[cfg(test)]
mod tests;
