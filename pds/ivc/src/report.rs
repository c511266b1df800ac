//! The log: limited lines for what a guest can provoke.

use partita_config::Config;
use partita_ivc::vsock::{PATIENCE, Refusal, Report, Violation};
use partita_protocol::MAX_CELLS;
use partita_protocol::manage::port;
use partita_ring::log::{Limiter, Logger};
use partita_ring::log_line;
use partita_virtio::queue::Fault;
use sel4_vm::{cntfrq, cntpct};

/// Lines that a guest may cause at once; one more comes free each second.
const BURST: u32 = 3;
/// Lines that a guest may write at once by port 514.
const LINES: u32 = 64;

/// Reports to the log.
pub struct LogReport {
    logger: &'static Logger<'static>,
    config: &'static Config<'static>,
    limits: [Limiter; MAX_CELLS],
    lines: [Limiter; MAX_CELLS],
}

impl LogReport {
    pub fn new(logger: &'static Logger<'static>, config: &'static Config<'static>) -> Self {
        Self {
            logger,
            config,
            limits: [Limiter::new(BURST, cntfrq()); MAX_CELLS],
            lines: [Limiter::new(LINES, cntfrq() / 16); MAX_CELLS],
        }
    }

    fn name(&self, cell: usize) -> &'static str {
        self.config.cells.get(cell).map_or("?", |cell| cell.name)
    }

    fn say(&mut self, cell: usize, text: core::fmt::Arguments<'_>) {
        let Some(limit) = self.limits.get_mut(cell) else { return };
        match limit.allow(cntpct()) {
            Some(0) => log_line!(self.logger, "{text}"),
            Some(more) => log_line!(self.logger, "{text} (and {more} like it before)"),
            None => {}
        }
    }
}

impl Report for LogReport {
    fn fault(&mut self, cell: usize, fault: Fault) {
        let name = self.name(cell);
        self.say(cell, format_args!("{name} vsock: its driver broke a rule: {fault:?}; it needs a reset"));
    }

    fn violation(&mut self, cell: usize, violation: Violation) {
        let name = self.name(cell);
        self.say(cell, format_args!("{name} vsock: a packet broke a rule: {violation:?}"));
    }

    fn refused(&mut self, cell: usize, to: u64, port: u32, why: Refusal) {
        let name = self.name(cell);
        match (to, port, why) {
            (2, port::MANAGE, Refusal::NotAllowed) => {
                self.say(cell, format_args!("{name} may not manage: connection refused"));
            }
            _ => self
                .say(cell, format_args!("{name} vsock: connection to cid {to} port {port} refused: {why:?}")),
        }
    }

    fn gave_up(&mut self, cell: usize, to: usize) {
        let (name, peer) = (self.name(cell), self.name(to));
        self.say(
            cell,
            format_args!(
                "{name} vsock: {peer} took nothing for {PATIENCE} s: their waiting connections are reset"
            ),
        );
    }

    fn line(&mut self, cell: usize, line: &[u8]) {
        let name = self.name(cell);
        let Some(limit) = self.lines.get_mut(cell) else { return };
        let Some(missed) = limit.allow(cntpct()) else { return };
        if missed > 0 {
            log_line!(self.logger, "[{name}] {missed} lines lost here");
        }
        log_line!(self.logger, "[{name}] {}", Text(line));
    }
}

/// What a guest wrote: one line, nothing that a terminal would act on.
struct Text<'a>(&'a [u8]);

impl core::fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        use core::fmt::Write;
        for chunk in self.0.utf8_chunks() {
            for char in chunk.valid().chars() {
                f.write_char(if char.is_control() { '.' } else { char })?;
            }
            if !chunk.invalid().is_empty() {
                f.write_char('.')?;
            }
        }
        Ok(())
    }
}
