//! Which bytes go out next, and where typed bytes go.
//!
//! Output is made of items that are never mixed: a notice of the console itself, a log line, a piece of the output of the
//! guest in front. [`Mux::pump`] stages items while there is room, and moves them to the UART while it takes them. It never
//! takes from a ring what it cannot stage, so a slow UART slows the guest in front down instead of losing its output.
//!
//! A log line starts at the beginning of a line. If the guest is in the middle of one and has more to say, it may go on to
//! the end of that line first (for [`GRACE`] bytes at most); then its line is broken.

use crate::ahead::Ahead;
use crate::keys::{Key, Keys};
use crate::lines;
use crate::scrollback::Scrollback;
use crate::stage::Stage;
use crate::uart::Uart;
use core::fmt::Write;
use heapless::deque::DequeView;
use heapless::{Deque, String};
use partita_protocol::MAX_CELLS;
use partita_protocol::layout::Service;
use partita_ring::history::Writer;
use partita_ring::{Duplex, Rx};

/// Sources of log lines: the VMMs, then the services.
pub const LOGS: usize = MAX_CELLS + Service::COUNT;
/// Bytes of guest output in one item.
const PIECE: usize = 256;
/// Bytes of the greatest item: a newline, a log line with its prefix and its end.
const ITEM: usize = 2 + 64 + 3 + lines::LINE + 2;
/// Bytes of its line that a guest may finish while log lines wait.
const GRACE: usize = 512;
/// Bytes to the UART in one [`Mux::pump`], so that the others get their turn.
const BUDGET: usize = 8192;
/// Rounds in one [`Mux::pump`]: the bound on what background guests alone can cause.
const ROUNDS: usize = 64;
/// Bytes that one background guest can have in its ring, more or less, and so all that is moved for it in one go.
const BACKGROUND: usize = 8192;
/// Bytes shown again of a console that comes to the front and has said less since.
const CONTEXT: usize = 1024;
/// Consoles: of the guests, and the management shell.
pub const CONSOLES: usize = MAX_CELLS + 1;
/// Number of the management shell among them.
pub const SHELL: usize = MAX_CELLS;

/// A name that is shown: of a PD (Microkit allows 64 bytes) or of a cell.
pub type Name = String<64>;

/// A console: a guest's, or the management shell.
struct Guest<'a> {
    name: Name,
    link: Duplex<'a>,
    /// What it said lately.
    said: Scrollback<'a>,
    /// Typed bytes that did not fit anywhere since the last notice.
    dropped: u32,
}

/// A source of log lines.
struct Log<'a> {
    name: Name,
    rx: Rx<'a>,
}

/// What the console itself has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Notice {
    Front { cell: u8, lost: u64 },
    NoCell(u8),
    NoShell,
    Help(u8),
    Unknown,
    Full(u8),
    Dropped(u8, u32),
    Overrun(u32),
}

/// What the caller of [`Mux::pump`] has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pumped {
    /// Nothing is left, and every source will notify when it has something.
    Idle,
    /// The UART's transmit interrupt will come; pump again then.
    Waiting,
}

/// The multiplexer.
pub struct Mux<'a> {
    guests: [Option<Guest<'a>>; CONSOLES],
    logs: [Option<Log<'a>>; LOGS],
    /// Log lines are kept there, too.
    history: Option<Writer<'a>>,
    /// Whose turn it is among `logs`.
    next_log: usize,
    front: usize,
    keys: Keys,
    ahead: Ahead<'a>,
    notices: Deque<Notice, 8>,
    stage: Stage,
    grace: usize,
}

impl Default for Mux<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> Mux<'a> {
    /// No guests and no logs.
    pub const fn new() -> Self {
        Mux {
            guests: [const { None }; CONSOLES],
            logs: [const { None }; LOGS],
            history: None,
            next_log: 0,
            front: 0,
            keys: Keys::new(),
            ahead: Ahead::new(None),
            notices: Deque::new(),
            stage: Stage::new(),
            grace: GRACE,
        }
    }

    /// Adds the console of cell `n`. The first one is in front.
    pub fn add_guest(&mut self, n: usize, name: Name, link: Duplex<'a>, scrollback: &'a mut [u8]) {
        if self.guests.iter().all(Option::is_none) {
            self.front = n;
        }
        if let Some(slot) = self.guests.get_mut(n) {
            *slot = Some(Guest { name, link, said: Scrollback::new(scrollback), dropped: 0 });
        }
    }

    /// Adds the management shell. It is in front if there are no guests.
    pub fn add_shell(&mut self, name: Name, link: Duplex<'a>, scrollback: &'a mut [u8]) {
        self.add_guest(SHELL, name, link, scrollback);
    }

    /// Log lines are also to go there.
    pub fn keep_logs(&mut self, history: Writer<'a>) {
        self.history = Some(history);
    }

    /// Gives memory for typed bytes that a console has no room for.
    pub fn add_ahead(&mut self, bytes: &'a mut DequeView<u8>) {
        self.ahead = Ahead::new(Some(bytes));
    }

    /// Adds the log lines of the VMM of cell `n`.
    pub fn add_vmm_log(&mut self, n: usize, name: Name, link: Duplex<'a>) {
        self.add_log(n, name, link);
    }

    /// Adds the log lines of a service.
    pub fn add_service_log(&mut self, service: Service, name: Name, link: Duplex<'a>) {
        self.add_log(MAX_CELLS + service.index(), name, link);
    }

    fn add_log(&mut self, at: usize, name: Name, link: Duplex<'a>) {
        if let Some(slot) = self.logs.get_mut(at) {
            *slot = Some(Log { name, rx: link.rx });
        }
    }

    /// Number of the console in front.
    pub fn front(&self) -> usize {
        self.front
    }

    /// Brings a console to the front without a word, as after a restart. A number without a console changes nothing.
    pub fn set_front(&mut self, console: usize) {
        if let Some(Some(_)) = self.guests.get(console) {
            self.front = console;
        }
    }

    /// A byte was typed.
    pub fn typed(&mut self, byte: u8) {
        match self.keys.feed(byte) {
            None => {}
            Some(Key::Byte(byte)) => self.type_to_front(byte),
            Some(Key::Cell(n)) => self.bring_to_front(n),
            Some(Key::Shell) => self.bring_to_front(SHELL as u8),
            Some(Key::Help) => self.notice(Notice::Help(0)),
            Some(Key::Unknown(_)) => self.notice(Notice::Unknown),
        }
    }

    /// The UART has lost typed bytes, so many times.
    pub fn overrun(&mut self, times: u32) {
        if times > 0 {
            self.notice(Notice::Overrun(times));
        }
    }

    /// More notices than fit are the user hammering keys: later ones say nothing new.
    fn notice(&mut self, notice: Notice) {
        let _ = self.notices.push_back(notice);
    }

    fn type_to_front(&mut self, byte: u8) {
        let front = self.front;
        if self.ahead.owner() == Some(front) {
            self.feed();
        }
        let Some(Some(guest)) = self.guests.get_mut(front) else { return };
        let first = self.ahead.owner() != Some(front);
        let kept = if first && guest.link.tx.write(&[byte]) == 1 {
            true
        } else {
            if first {
                self.give_up_ahead();
            }
            let kept = self.ahead.push(front, byte);
            if first {
                self.feed();
            }
            kept
        };
        let Some(Some(guest)) = self.guests.get_mut(front) else { return };
        if !kept {
            guest.dropped = guest.dropped.saturating_add(1);
            if guest.dropped == 1 {
                self.notice(Notice::Full(front as u8));
            }
        } else if guest.dropped > 0 {
            let dropped = core::mem::take(&mut guest.dropped);
            self.notice(Notice::Dropped(front as u8, dropped));
        }
    }

    /// Hands typed bytes that wait to their console.
    fn feed(&mut self) {
        if let Some(owner) = self.ahead.owner()
            && let Some(Some(guest)) = self.guests.get_mut(owner)
        {
            self.ahead.feed(&mut guest.link.tx);
        }
    }

    /// Makes the place free for another console.
    fn give_up_ahead(&mut self) {
        if let Some(owner) = self.ahead.owner()
            && let Some(Some(guest)) = self.guests.get_mut(owner)
        {
            let dropped = guest.dropped.saturating_add(self.ahead.give_up() as u32);
            guest.dropped = 0;
            self.notice(Notice::Dropped(owner as u8, dropped));
        }
    }

    fn bring_to_front(&mut self, cell: u8) {
        match self.guests.get_mut(usize::from(cell)) {
            Some(Some(guest)) => {
                // Who is in front already has nothing to come back to.
                let context = if self.front == usize::from(cell) { 0 } else { CONTEXT };
                let lost = guest.said.rewind(context);
                self.front = usize::from(cell);
                self.notice(Notice::Front { cell, lost });
            }
            _ if usize::from(cell) == SHELL => self.notice(Notice::NoShell),
            _ => self.notice(Notice::NoCell(cell)),
        }
    }

    /// Moves output until the UART takes no more, nothing is left, or the budget is spent.
    pub fn pump(&mut self, uart: &mut impl Uart) -> Pumped {
        let mut sent = 0;
        self.feed();
        for _ in 0..ROUNDS {
            self.absorb();
            self.fill();
            let taken = self.stage.drain(uart);
            sent += taken;
            if !self.stage.is_empty() || sent >= BUDGET {
                break;
            }
            if taken == 0 && !self.arm() {
                uart.tx_interrupt(false);
                return Pumped::Idle;
            }
        }
        uart.tx_interrupt(true);
        Pumped::Waiting
    }

    /// Calls `f` with each console whose PD is owed a notification: the cell's number, or [`SHELL`].
    pub fn notify_cells(&mut self, mut f: impl FnMut(usize)) {
        for (n, guest) in self.guests.iter_mut().enumerate() {
            if let Some(guest) = guest {
                let (tx, rx) = (guest.link.tx.should_notify(), guest.link.rx.should_notify());
                if tx || rx {
                    f(n);
                }
            }
        }
    }

    /// Whether everything that the guest in front and all logs have said went to the UART.
    pub fn drained(&mut self) -> bool {
        let front = match self.guests.get_mut(self.front) {
            Some(Some(guest)) => guest.said.is_shown() && guest.link.rx.available() == 0,
            _ => true,
        };
        let logs = self.logs.iter_mut().flatten().all(|log| lines::peek(&mut log.rx).is_none());
        front && logs && self.notices.is_empty() && self.stage.is_empty()
    }

    /// Takes in what consoles in the background say.
    fn absorb(&mut self) {
        let front = self.front;
        for guest in
            self.guests.iter_mut().enumerate().filter_map(|(n, guest)| guest.as_mut().filter(|_| n != front))
        {
            let mut moved = 0;
            while moved < BACKGROUND {
                let mut bytes = [0; PIECE];
                let taken = guest.link.rx.read(&mut bytes);
                guest.said.push(bytes.get(..taken).unwrap_or(&[]));
                if taken == 0 {
                    break;
                }
                moved += taken;
            }
        }
    }

    /// Makes items while there is room for the greatest one.
    fn fill(&mut self) {
        while self.stage.room() >= ITEM {
            if !(self.stage_notice() || self.stage_log() || self.stage_guest(PIECE, false)) {
                break;
            }
        }
    }

    /// Asks for notifications. `true`: something has arrived meanwhile.
    fn arm(&mut self) -> bool {
        let mut more = false;
        for guest in self.guests.iter_mut().flatten() {
            more |= guest.link.rx.arm();
        }
        for log in self.logs.iter_mut().flatten() {
            // A piece of a line is not something to work on: its end will notify.
            more |= log.rx.arm() && lines::peek(&mut log.rx).is_some();
        }
        more
    }

    /// A line at the start of a line.
    fn stage_line(&mut self, name: &str, text: &[u8]) -> String<ITEM> {
        let mut line = String::<ITEM>::new();
        // What does not fit is cut; `ITEM` is made so that it does.
        let _ = write!(line, "[{name}] ");
        let _ = lines::write_clean(&mut line, text);
        if !self.stage.at_line_start() {
            self.stage.push(b"\r\n");
        }
        self.stage.push(line.as_bytes());
        self.stage.push(b"\r\n");
        line
    }

    fn stage_notice(&mut self) -> bool {
        let Some(notice) = self.notices.pop_front() else { return false };
        let name = |mux: &Self, cell: u8| match mux.guests.get(usize::from(cell)) {
            Some(Some(guest)) => guest.name.clone(),
            _ => Name::new(),
        };
        let mut text = String::<{ lines::LINE }>::new();
        let _ = match notice {
            Notice::Front { cell, lost } => {
                let lost = Lost(lost);
                match usize::from(cell) {
                    SHELL => write!(text, "management shell{lost}"),
                    _ => write!(text, "guest {}: {}{lost}", cell + 1, name(self, cell)),
                }
            }
            Notice::NoCell(cell) => write!(text, "there is no guest {}", cell + 1),
            Notice::NoShell => write!(text, "this system has no management shell"),
            Notice::Unknown => write!(text, "Ctrl-] ? for help"),
            Notice::Full(cell) => {
                write!(text, "{} does not read what is typed: it is dropped", name(self, cell))
            }
            Notice::Dropped(cell, count) => {
                write!(text, "{}: {count} typed bytes were dropped", name(self, cell))
            }
            Notice::Overrun(times) => {
                write!(text, "typed bytes came too fast and were lost, {times} times")
            }
            Notice::Help(line) => self.help(line, &mut text),
        };
        self.stage_line("console", text.as_bytes());
        true
    }

    /// Line `n` of the help, and a notice for the one after it.
    fn help(&mut self, n: u8, text: &mut String<{ lines::LINE }>) -> core::fmt::Result {
        const FIXED: [&str; 3] = [
            "Ctrl-] 1..9    guest to the front",
            "Ctrl-] 0       management shell",
            "Ctrl-] Ctrl-]  a Ctrl-] for the guest",
        ];
        let guests = (0..)
            .zip(self.guests.iter().take(MAX_CELLS))
            .filter_map(|(cell, guest)| guest.as_ref().map(|guest| (cell, guest)));
        let (next, result) = match FIXED.get(usize::from(n)) {
            Some(line) => (n + 1, text.write_str(line)),
            None => {
                let cell = n - FIXED.len() as u8;
                let mut rest = guests.filter(|(at, _)| *at >= cell);
                let Some((at, guest)) = rest.next() else { return text.write_str("end of help") };
                let front = if usize::from(at) == self.front { " (in front)" } else { "" };
                let next = rest.next().map_or(u8::MAX, |(at, _)| FIXED.len() as u8 + at);
                (next, write!(text, "  {}  {}{front}", at + 1, guest.name))
            }
        };
        if next != u8::MAX {
            let _ = self.notices.push_front(Notice::Help(next));
        }
        result
    }

    fn stage_log(&mut self) -> bool {
        for turn in 0..LOGS {
            let at = (self.next_log + turn) % LOGS;
            let Some(Some(log)) = self.logs.get_mut(at) else { continue };
            let Some((line, used)) = lines::peek(&mut log.rx) else { continue };
            if !self.stage.at_line_start() && self.grace > 0 {
                // The guest may finish its line first, if it is about to.
                let before = self.stage.room();
                if self.stage_guest(PIECE.min(self.grace), true) {
                    self.grace = self.grace.saturating_sub(before - self.stage.room());
                    return true;
                }
            }
            let Some(Some(log)) = self.logs.get_mut(at) else { continue };
            log.rx.consume(used);
            let name = log.name.clone();
            let mut line = self.stage_line(&name, &line);
            if let Some(history) = &mut self.history {
                // `ITEM` has room for the line's end.
                let _ = line.push('\n');
                history.push(line.as_bytes());
            }
            self.grace = GRACE;
            self.next_log = at + 1;
            return true;
        }
        false
    }

    /// A piece of what the guest in front says, up to `most` bytes, up to the end of a line if `one_line`.
    fn stage_guest(&mut self, most: usize, one_line: bool) -> bool {
        let Some(Some(guest)) = self.guests.get_mut(self.front) else { return false };
        if guest.said.is_shown() {
            let mut live = [0; PIECE];
            let wanted = live.len().min(guest.said.room());
            let taken = live.get_mut(..wanted).map_or(0, |live| guest.link.rx.read(live));
            guest.said.push(live.get(..taken).unwrap_or(&[]));
        }
        let bytes = guest.said.pending();
        let mut bytes = bytes.get(..most).unwrap_or(bytes);
        if one_line && let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            bytes = bytes.get(..=end).unwrap_or(bytes);
        }
        let count = bytes.len();
        self.stage.push(bytes);
        guest.said.show(count);
        count > 0
    }
}

/// What to say of bytes that were never shown.
struct Lost(u64);

impl core::fmt::Display for Lost {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            0 => Ok(()),
            lost => write!(f, " ({lost} bytes too old to be kept)"),
        }
    }
}

#[cfg(test)]
mod tests;
