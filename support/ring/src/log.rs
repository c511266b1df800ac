//! Log lines over a ring, and the limits that keep them harmless.
//!
//! A line is for people. So it never blocks its writer and never breaks: it goes into the ring whole or not at all, is cut
//! at [`LINE`] bytes, and lines that did not fit are counted and reported by the next one that does. What a guest can
//! provoke goes through a [`Limiter`].
//!
//! ```no_run
//! # use partita_ring::{log::Logger, log_line};
//! # let (disk, error) = (0, "no such partition");
//! // In a PD, with `|| Channel::new(channel::CONSOLE).notify()` for the closure.
//! // SAFETY: the host tool maps the log ring at layout::vaddr::LOG_TX and LOG_RX in every PD.
//! let logger = unsafe { Logger::at_layout(|| ()) };
//! log_line!(logger, "disk {disk}: {error}");
//! ```
//!
//! All state of a link is in its pages, so a panic hook may make a logger of its own and use it.

use crate::duplex::{Duplex, Tx};
use crate::page::{Mine, Yours};
use core::cell::{Cell, RefCell};
use core::fmt::{self, Write};
#[cfg(not(loom))]
use core::{num::NonZeroUsize, ptr::NonNull};
#[cfg(not(loom))]
use partita_protocol::layout::{size, vaddr};

/// Longest line in bytes, its newline included.
pub const LINE: usize = 512;

/// What stands for the rest of a line that was too long.
const CUT: &str = "...";

/// Writes a line: `log_line!(logger, "format", arguments...)`. No newline at the end of the format.
#[macro_export]
macro_rules! log_line {
    ($logger:expr, $($arguments:tt)*) => {
        $logger.line(::core::format_args!($($arguments)*))
    };
}

/// The writing end of a PD's log.
///
/// Methods take `&self`, so that all parts of a (single-threaded) PD may share one.
pub struct Logger<'a> {
    tx: RefCell<Tx<'a>>,
    notify: fn(),
    dropped: Cell<u32>,
}

impl<'a> Logger<'a> {
    /// A log on a link whose consumer is console; `notify` signals it.
    pub fn new(mine: Mine<'a>, yours: Yours<'a>, notify: fn()) -> Self {
        Logger { tx: RefCell::new(Duplex::new(mine, yours).tx), notify, dropped: Cell::new(0) }
    }

    /// The PD's log at the address that is the same in every PD.
    ///
    /// # Safety
    /// `LOG_TX` is mapped readable and writable, `LOG_RX` readable, both [`size::LOG_RING`] bytes, as
    /// `partita_protocol::layout` says and the host tool does.
    #[cfg(not(loom))]
    pub unsafe fn at_layout(notify: fn()) -> Logger<'static> {
        let at = |address| {
            NonNull::with_exposed_provenance(NonZeroUsize::new(address).unwrap_or(NonZeroUsize::MIN))
        };
        // SAFETY: the caller's promise; regions are page aligned and of the size given.
        let (mine, yours) = unsafe {
            (Mine::at(at(vaddr::LOG_TX), size::LOG_RING), Yours::at(at(vaddr::LOG_RX), size::LOG_RING))
        };
        Logger::new(mine, yours, notify)
    }

    /// Writes one line. See [`log_line!`].
    pub fn line(&self, arguments: fmt::Arguments<'_>) {
        // Formatting runs other people's `Display`: it must not find the ring borrowed, so format first.
        let mut line = Line::new();
        let _ = line.write_fmt(arguments);
        self.finish(line);
    }

    /// A writer of lines in pieces.
    pub fn writer(&self) -> LineWriter<'_, 'a> {
        LineWriter { logger: self, line: Line::new() }
    }

    fn finish(&self, line: Line) {
        if !self.push(line) {
            self.dropped.set(self.dropped.get().saturating_add(1));
        }
    }

    fn push(&self, mut line: Line) -> bool {
        let Ok(mut tx) = self.tx.try_borrow_mut() else { return false };
        let dropped = self.dropped.get();
        if dropped > 0 {
            let mut note = Line::new();
            let _ = write!(note, "[{dropped} lines lost here]");
            if !tx.write_all(note.finish()) {
                return false;
            }
            self.dropped.set(0);
        }
        let done = tx.write_all(line.finish());
        if tx.should_notify() {
            (self.notify)();
        }
        done
    }

    /// Lines lost and not yet reported.
    pub fn dropped(&self) -> u32 {
        self.dropped.get()
    }
}

/// Text that is written in pieces, for instance by a function that wants a [`fmt::Write`]. Each newline ends a line, and so
/// does dropping the writer.
pub struct LineWriter<'l, 'a> {
    logger: &'l Logger<'a>,
    line: Line,
}

impl Write for LineWriter<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.split_inclusive('\n') {
            // A line that is too long is cut; what follows its newline is a new one.
            let _ = self.line.write_str(piece.trim_end_matches('\n'));
            if piece.ends_with('\n') {
                self.logger.finish(core::mem::replace(&mut self.line, Line::new()));
            }
        }
        Ok(())
    }
}

impl Drop for LineWriter<'_, '_> {
    fn drop(&mut self) {
        if self.line.len > 0 {
            self.logger.finish(core::mem::replace(&mut self.line, Line::new()));
        }
    }
}

/// A line that is being put together.
struct Line {
    bytes: [u8; LINE],
    len: usize,
}

impl Line {
    const fn new() -> Self {
        Line { bytes: [0; LINE], len: 0 }
    }

    /// The bytes with a newline at the end. The newline's place is kept free by `write_str`.
    fn finish(&mut self) -> &[u8] {
        if let Some(end) = self.bytes.get_mut(self.len) {
            *end = b'\n';
            self.len += 1;
        }
        self.bytes.get(..self.len).unwrap_or(&[])
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        const ROOM: usize = LINE - 1 - CUT.len();
        let cut = text.len() > ROOM.saturating_sub(self.len);
        let end = if cut { text.floor_char_boundary(ROOM.saturating_sub(self.len)) } else { text.len() };
        for part in [text.get(..end).unwrap_or(""), if cut { CUT } else { "" }] {
            for byte in part.bytes() {
                if let Some(to) = self.bytes.get_mut(self.len).filter(|_| self.len < LINE - 1) {
                    // One call is one line for the reader, too.
                    *to = if byte == b'\n' { b' ' } else { byte };
                    self.len += 1;
                }
            }
        }
        if cut { Err(fmt::Error) } else { Ok(()) }
    }
}

/// A token bucket: `burst` events at once, then one more per `interval` of whatever count the caller goes by (ticks of the
/// architected counter, wake-ups, requests).
#[derive(Clone, Copy, Debug)]
pub struct Limiter {
    burst: u32,
    interval: u64,
    tokens: u32,
    /// Count at which the last token was added.
    last: u64,
    refused: u32,
}

impl Limiter {
    /// A full bucket. An `interval` of 0 counts as 1.
    pub const fn new(burst: u32, interval: u64) -> Self {
        let interval = if interval == 0 { 1 } else { interval };
        Limiter { burst, interval, tokens: burst, last: 0, refused: 0 }
    }

    /// Whether an event at `now` may be reported; `Some(n)`: yes, and `n` were not since the last one.
    pub fn allow(&mut self, now: u64) -> Option<u32> {
        let earned = now.saturating_sub(self.last) / self.interval;
        if earned >= u64::from(self.burst - self.tokens.min(self.burst)) {
            self.tokens = self.burst;
            self.last = self.last.max(now);
        } else {
            self.tokens += earned as u32;
            self.last += earned * self.interval;
        }
        if self.tokens == 0 {
            self.refused = self.refused.saturating_add(1);
            return None;
        }
        self.tokens -= 1;
        Some(core::mem::take(&mut self.refused))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::{AtomicU64, Header, Rx};
    use std::sync::atomic::{AtomicUsize, Ordering};

    struct Link {
        headers: [Header; 2],
        data: [Vec<AtomicU64>; 2],
    }

    impl Link {
        fn new(bytes: usize) -> Self {
            let data = || (0..bytes / 8).map(|_| AtomicU64::new(0)).collect();
            Link { headers: [Header::new(), Header::new()], data: [data(), data()] }
        }
        fn logger(&self, notify: fn()) -> Logger<'_> {
            let [a, b] = &self.headers;
            Logger::new(Mine::new(a, &self.data[0]), Yours::new(b, &self.data[1]), notify)
        }
        fn reader(&self) -> Rx<'_> {
            let [a, b] = &self.headers;
            Duplex::new(Mine::new(b, &self.data[1]), Yours::new(a, &self.data[0])).rx
        }
    }

    fn text(rx: &mut Rx<'_>) -> String {
        let mut bytes = vec![0; 10000];
        let len = rx.read(&mut bytes);
        String::from_utf8(bytes[..len].to_vec()).unwrap()
    }

    #[test]
    fn lines_arrive_whole_and_one_wait_costs_one_signal() {
        static SIGNALS: AtomicUsize = AtomicUsize::new(0);
        let link = Link::new(4096);
        let logger = link.logger(|| _ = SIGNALS.fetch_add(1, Ordering::Relaxed));
        let mut rx = link.reader();
        assert!(!rx.arm());
        log_line!(logger, "one {}", 1);
        log_line!(logger, "two\nin one");
        assert_eq!(SIGNALS.load(Ordering::Relaxed), 1);
        assert_eq!(text(&mut rx), "one 1\ntwo in one\n");
        log_line!(logger, "nobody waits");
        assert_eq!(SIGNALS.load(Ordering::Relaxed), 1);
        assert!(rx.arm());
    }

    #[test]
    fn long_lines_are_cut_at_a_character() {
        let link = Link::new(4096);
        let logger = link.logger(|| ());
        let mut rx = link.reader();
        log_line!(logger, "{}", "ä".repeat(400));
        let line = text(&mut rx);
        assert!(line.len() <= LINE && line.len() > LINE - 4, "{}", line.len());
        assert_eq!(line, format!("{}...\n", "ä".repeat(254)));
        log_line!(logger, "{}", "x".repeat(LINE - 1 - CUT.len()));
        assert_eq!(text(&mut rx).len(), LINE - CUT.len());
    }

    #[test]
    fn lost_lines_are_counted_and_reported_when_there_is_room() {
        let link = Link::new(64);
        let logger = link.logger(|| ());
        let mut rx = link.reader();
        for i in 0..10 {
            log_line!(logger, "line number {i:08}");
        }
        assert_eq!(logger.dropped(), 7);
        assert_eq!(text(&mut rx), "line number 00000000\nline number 00000001\nline number 00000002\n");
        log_line!(logger, "after");
        assert_eq!(text(&mut rx), "[7 lines lost here]\nafter\n");
        assert_eq!(logger.dropped(), 0);
    }

    #[test]
    fn a_display_that_logs_does_not_break_the_line_around_it() {
        struct Chatty<'a>(&'a Logger<'a>);
        impl fmt::Display for Chatty<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                log_line!(self.0, "inner");
                f.write_str("outer")
            }
        }
        let link = Link::new(4096);
        let logger = link.logger(|| ());
        let mut rx = link.reader();
        log_line!(logger, "{}", Chatty(&logger));
        assert_eq!(text(&mut rx), "inner\nouter\n");
    }

    #[test]
    fn a_writer_makes_lines_of_pieces() {
        let link = Link::new(4096);
        let logger = link.logger(|| ());
        let mut rx = link.reader();
        let mut writer = logger.writer();
        write!(writer, "a{}\n\nc", 1).unwrap();
        drop(writer);
        assert_eq!(text(&mut rx), "a1\n\nc\n");
    }

    #[test]
    fn the_limiter_allows_a_burst_then_a_rate_and_counts_the_rest() {
        let mut limiter = Limiter::new(3, 10);
        let allowed: Vec<_> = (100..110).filter_map(|now| limiter.allow(now)).collect();
        assert_eq!(allowed, [0, 0, 0]);
        assert_eq!(limiter.allow(110), Some(7));
        assert_eq!(limiter.allow(111), None);
        // A clock that goes back does no harm.
        assert_eq!(limiter.allow(5), None);
        assert_eq!(limiter.allow(u64::MAX), Some(2));
        assert_eq!(Limiter::new(0, 0).allow(u64::MAX), None);
    }
}
