//! Devices that fail: a request has a time limit, and a device that breaks the rules or does not answer is restarted.
//!
//! Time comes in ticks, [`TICKS`] of them in the time that a request may take. A request notes the number of the tick in
//! which it began, so no clock is read for it, and is overdue when [`TICKS`] whole ticks have passed: after the limit, and
//! at most one tick later. Nobody ticks while nothing is with the device.
//!
//! An overdue request cannot be answered while the device may still reach its memory. So the device is reset first; then
//! those that are overdue fail, and those that are not are submitted again (block requests may be repeated, and a flush
//! counts when the repeated one completes). A device that breaks the rules is restarted at once, but only once per tick: one
//! that always does would keep everybody else from working. A device that does not come back in [`TRIES`] ticks is given
//! up: all that it has fails, and all that comes.

use partita_storage::device::{BlockDevice, Breach, Health, RestartError};

use crate::{Backend, Flight, MAX_FLIGHTS, Report, State};

/// Ticks in the time that a request may take.
pub const TICKS: u32 = 8;
/// Restarts that may fail in a row, a tick apart.
pub const TRIES: u32 = 3;

/// What was wrong with the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It did not answer in time.
    Overdue,
    /// It broke a rule.
    Breach(Breach),
}

/// What was done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// It was reset and works.
    Restarted {
        /// Requests that failed.
        failed: u32,
        /// Requests that were submitted again.
        again: u32,
    },
    /// It does not come back: this many requests failed, and all later ones will.
    GivenUp {
        /// Requests that failed.
        failed: u32,
        /// What the last restart met.
        error: RestartError,
    },
}

/// Where the care for a failing device stands.
#[derive(Debug, Default)]
pub(crate) struct Recovery {
    /// Ticks so far.
    tick: u32,
    /// The tick of the last restart.
    last: Option<u32>,
    /// What is being remedied.
    cause: Option<Cause>,
    /// Restarts that failed since.
    tries: u32,
}

impl Recovery {
    /// The tick in which a request begins.
    pub(crate) const fn now(&self) -> u32 {
        self.tick
    }
}

impl<D: BlockDevice, R: Report> Backend<D, R> {
    /// [`Backend::tick`] is to be called after an eighth of the time that a request may take.
    pub fn wants_tick(&self) -> bool {
        self.flying != 0
            || self.recovery.cause.is_some()
            || matches!(self.device.health(), Health::Stopped(_))
    }

    /// A tick has passed. What it finds to do may let [`Backend::run`] go on.
    pub fn tick(&mut self) {
        self.recovery.tick = self.recovery.tick.wrapping_add(1);
        // What is finished is not overdue, even if its interrupt was lost.
        self.interrupt();
        let overdue =
            self.flights_where(|backend, flight| backend.recovery.tick.wrapping_sub(flight.tick) > TICKS);
        match (self.device.health(), self.recovery.cause) {
            (Health::Failed, _) => {}
            (Health::Stopped(breach), None) => self.restart(Cause::Breach(breach), overdue),
            (_, Some(cause)) => self.restart(cause, overdue),
            (Health::Working, None) if overdue != 0 => self.restart(Cause::Overdue, overdue),
            (Health::Working, None) => {}
        }
    }

    /// The device is found stopped.
    pub(crate) fn stopped(&mut self, breach: Breach) {
        if self.recovery.cause.is_none() {
            if self.recovery.last == Some(self.recovery.tick) {
                self.recovery.cause = Some(Cause::Breach(breach));
            } else {
                self.restart(Cause::Breach(breach), 0);
            }
        }
    }

    fn restart(&mut self, cause: Cause, overdue: u64) {
        // Nobody waits for what a disk has in flight that was reset or needs it.
        let orphans = self.flights_where(|backend, flight| {
            let (client, disk) = (usize::from(flight.owner.client), usize::from(flight.owner.disk));
            let disk = backend.tables.clients.get(client).and_then(|client| client.as_ref()?.disks.get(disk));
            !disk.is_some_and(|disk| disk.as_ref().is_some_and(|disk| matches!(disk.state, State::Live)))
        });
        self.recovery.last = Some(self.recovery.tick);
        let in_flight = u32::from(self.flying);
        let remedy = match self.device.restart(overdue | orphans) {
            Ok(()) => {
                let failed = (overdue | orphans).count_ones();
                Remedy::Restarted { failed, again: in_flight.saturating_sub(failed) }
            }
            Err(error) => {
                self.recovery.tries += 1;
                if self.recovery.tries < TRIES {
                    self.recovery.cause = Some(cause);
                    return;
                }
                self.device.give_up();
                Remedy::GivenUp { failed: in_flight, error }
            }
        };
        self.recovery = Recovery { cause: None, tries: 0, ..self.recovery };
        self.report.device(cause, remedy);
        self.collect();
    }

    /// Bits of the requests in flight of which `which` says so.
    fn flights_where(&self, which: impl Fn(&Self, &Flight) -> bool) -> u64 {
        let mut bits = 0;
        for (id, flight) in self.tables.flights.iter().enumerate().take(MAX_FLIGHTS) {
            if flight.as_ref().is_some_and(|flight| which(self, flight)) {
                bits |= 1 << id;
            }
        }
        bits
    }
}
