//! The log: one line for what happens once, limited lines for what a guest can provoke.

use partita_blk_backend::{Cause, Remedy, Report};
use partita_config::Config;
use partita_protocol::MAX_CELLS;
use partita_ring::log::{Limiter, Logger};
use partita_ring::log_line;
use partita_storage::device::{Breach, Outcome, RestartError};
use partita_virtio::blk::Operation;
use partita_virtio::queue::Fault;
use sel4_vm::{cntfrq, cntpct};

/// Lines that a guest may cause at once; one more comes free each second.
const BURST: u32 = 3;

/// Reports to the log.
pub struct LogReport {
    logger: &'static Logger<'static>,
    config: &'static Config<'static>,
    /// Of this controller.
    timeout_ms: u32,
    limits: [Limiter; MAX_CELLS],
    device: Limiter,
}

impl LogReport {
    pub fn new(logger: &'static Logger<'static>, config: &'static Config<'static>, timeout_ms: u32) -> Self {
        let limit = Limiter::new(BURST, cntfrq());
        Self { logger, config, timeout_ms, limits: [limit; MAX_CELLS], device: limit }
    }

    /// A line about a cell's disk.
    fn guest(&mut self, client: usize, disk: usize, text: core::fmt::Arguments<'_>) {
        let name = self.config.cells.get(client).map_or("?", |cell| cell.name);
        let Some(limit) = self.limits.get_mut(client) else { return };
        say(self.logger, limit, format_args!("{name} disk {disk}: {text}"));
    }
}

fn say(logger: &Logger<'_>, limit: &mut Limiter, text: core::fmt::Arguments<'_>) {
    match limit.allow(cntpct()) {
        Some(0) => log_line!(logger, "{text}"),
        Some(more) => log_line!(logger, "{text} (and {more} like it before)"),
        None => {}
    }
}

const fn verb(operation: Operation) -> (&'static str, Option<u64>) {
    match operation {
        Operation::Read { sector } => ("read", Some(sector)),
        Operation::Write { sector } => ("write", Some(sector)),
        Operation::Flush => ("flush", None),
        Operation::GetId => ("identification", None),
        Operation::Discard { sector, .. } => ("discard", Some(sector)),
        Operation::WriteZeroes { sector, .. } => ("write of zeroes", Some(sector)),
    }
}

impl Report for LogReport {
    fn guest_fault(&mut self, client: usize, disk: usize, fault: Fault) {
        self.guest(client, disk, format_args!("its driver broke a rule: {fault:?}; it needs a reset"));
    }

    fn out_of_window(&mut self, client: usize, disk: usize, sector: u64) {
        self.guest(client, disk, format_args!("sector {sector} is outside the disk; I/O error"));
    }

    fn request_failed(&mut self, client: usize, disk: usize, operation: Operation, problem: Outcome) {
        let how = match problem {
            Outcome::Incomplete => "did only a part of",
            _ => "reports an error for",
        };
        match verb(operation) {
            (verb, Some(sector)) => {
                self.guest(
                    client,
                    disk,
                    format_args!("the device {how} a {verb} at sector {sector}; I/O error"),
                );
            }
            (verb, None) => self.guest(client, disk, format_args!("the device {how} a {verb}; I/O error")),
        }
    }

    fn device(&mut self, cause: Cause, remedy: Remedy) {
        struct Why(Cause, u32);
        impl core::fmt::Display for Why {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match self.0 {
                    Cause::Overdue => write!(f, "the device did not answer within {} ms", self.1),
                    Cause::Breach(Breach::NotItsRequest(id)) => {
                        write!(f, "the device returned request {id}, which it does not have")
                    }
                    Cause::Breach(Breach::NeedsReset) => write!(f, "the device asked for a reset"),
                }
            }
        }
        let why = Why(cause, self.timeout_ms);
        match remedy {
            Remedy::Restarted { failed, again } => say(
                self.logger,
                &mut self.device,
                format_args!("{why}: it was reset; {failed} requests failed, {again} were sent again"),
            ),
            Remedy::GivenUp { failed, error } => {
                let error = match error {
                    RestartError::NoReset => "does not end its reset",
                    RestartError::Changed => "is another one after its reset",
                };
                log_line!(
                    self.logger,
                    "{why} and {error}: given up; {failed} requests failed, and all later ones will"
                );
            }
        }
    }
}
