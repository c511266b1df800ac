//! The log: one line for what happens once, limited lines for what a guest can provoke.

use partita_blk_backend::Report;
use partita_protocol::MAX_CELLS;
use partita_ring::log::{Limiter, Logger};
use partita_ring::log_line;
use partita_virtio::queue::Fault;
use sel4_vm::{cntfrq, cntpct};

/// Lines that a guest may cause at once; one more comes free each second.
const BURST: u32 = 3;

/// Reports to the log.
pub struct LogReport {
    logger: &'static Logger<'static>,
    limits: [Limiter; MAX_CELLS],
}

impl LogReport {
    pub fn new(logger: &'static Logger<'static>) -> Self {
        Self { logger, limits: [Limiter::new(BURST, cntfrq()); MAX_CELLS] }
    }

    fn guest(&mut self, client: usize, text: core::fmt::Arguments<'_>) {
        let Some(limit) = self.limits.get_mut(client) else { return };
        match limit.allow(cntpct()) {
            Some(0) => log_line!(self.logger, "{text}"),
            Some(more) => log_line!(self.logger, "{text} (and {more} like it before)"),
            None => {}
        }
    }
}

impl Report for LogReport {
    fn guest_fault(&mut self, client: usize, disk: usize, fault: Fault) {
        self.guest(
            client,
            format_args!("cell {client} disk {disk}: its driver broke a rule: {fault:?}; it needs a reset"),
        );
    }

    fn out_of_window(&mut self, client: usize, disk: usize, sector: u64) {
        self.guest(
            client,
            format_args!("cell {client} disk {disk}: sector {sector} is outside the disk; I/O error"),
        );
    }

    fn device_failed(&mut self) {
        log_line!(
            self.logger,
            "the device broke the rules or asked for a reset; it is stopped, all requests fail"
        );
    }
}
