//! Answers of the management service: one JSON object each, of at most [`ANSWER_MAX`] bytes.
//!
//! A list that does not fit ends early and the answer says in `more` where it goes on: the request again with that as its
//! `from` brings the rest. docs/management.md lists every field.

use core::fmt::{self, Write};

use heapless::String;
use partita_config::Partition;
use partita_protocol::disk_stats::{BUCKETS, LATENCY_SHIFT};
use partita_protocol::ivc_stats;
use partita_protocol::manage::ANSWER_MAX;
use partita_protocol::stats::Counter;
use partita_protocol::supervisor::StopReason;
use partita_protocol::{MAX_CELLS, MAX_DISKS, MAX_LINKS, MAX_PEERS};

use super::PROTOCOL;
use super::mail::{Message, Welcome};
use super::request::Request;
use crate::restarts::CHILDREN;
use crate::shell::command::{COMMANDS, Run};
use crate::shell::log::{Lines, names};
use crate::shell::view::{CellView, DiskView, LinkView, SocketsView, System};

/// Bytes kept free behind a list, for `],"more":N,"next":N,"lost":N}`.
const TAIL: usize = 96;

/// A JSON object that is being written.
pub struct Answer {
    text: String<ANSWER_MAX>,
    /// The next key or element follows another one.
    comma: bool,
    /// Something did not fit.
    full: bool,
}

impl Default for Answer {
    fn default() -> Self {
        Self::new()
    }
}

/// Writes text into a JSON string.
struct Escaped<'a>(&'a mut Answer);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                '"' => self.0.raw("\\\""),
                '\\' => self.0.raw("\\\\"),
                c if c.is_control() => {
                    // Four digits: control characters are below U+00A0.
                    let _ = write!(self.0, "\\u{:04x}", u32::from(c));
                }
                c => self.0.raw(c.encode_utf8(&mut [0; 4])),
            }
        }
        Ok(())
    }
}

/// As it is: for numbers.
impl Write for Answer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.raw(text);
        Ok(())
    }
}

impl Answer {
    /// Empty.
    pub const fn new() -> Self {
        Answer { text: String::new(), comma: false, full: false }
    }

    /// The object.
    pub fn text(&self) -> &str {
        &self.text
    }

    fn raw(&mut self, text: &str) {
        self.full |= self.text.push_str(text).is_err();
    }

    fn open(&mut self, bracket: &str) {
        if self.comma {
            self.raw(",");
        }
        self.raw(bracket);
        self.comma = false;
    }

    fn close(&mut self, bracket: &str) {
        self.raw(bracket);
        self.comma = true;
    }

    fn key(&mut self, key: &str) {
        if self.comma {
            self.raw(",");
        }
        self.raw("\"");
        self.raw(key);
        self.raw("\":");
        self.comma = false;
    }

    fn string(&mut self, key: &str, write: impl FnOnce(&mut dyn Write) -> fmt::Result) {
        self.key(key);
        self.value(write);
    }

    fn value(&mut self, write: impl FnOnce(&mut dyn Write) -> fmt::Result) {
        if self.comma {
            self.raw(",");
        }
        self.raw("\"");
        // A `Display` that fails has written what it could.
        let _ = write(&mut Escaped(self));
        self.raw("\"");
        self.comma = true;
    }

    fn text_of(&mut self, key: &str, text: &str) {
        self.string(key, |out| out.write_str(text));
    }

    fn number(&mut self, key: &str, number: u64) {
        self.key(key);
        let _ = write!(self, "{number}");
        self.comma = true;
    }

    fn flag(&mut self, key: &str, flag: bool) {
        self.key(key);
        self.raw(if flag { "true" } else { "false" });
        self.comma = true;
    }

    fn begin(&mut self, id: Option<u64>) {
        (self.comma, self.full) = (false, false);
        self.text.clear();
        self.open("{");
        if let Some(id) = id {
            self.number("id", id);
        }
    }

    fn ok(&mut self, id: Option<u64>) {
        self.begin(id);
        self.flag("ok", true);
    }

    /// What went wrong.
    pub fn failed(&mut self, id: Option<u64>, write: impl FnOnce(&mut dyn Write) -> fmt::Result) {
        self.begin(id);
        self.flag("ok", false);
        self.string("error", write);
        self.close("}");
    }

    /// It is done, or will be.
    pub fn done(&mut self, id: Option<u64>) {
        self.ok(id);
        self.close("}");
    }

    /// A message went to so many cells.
    pub fn sent(&mut self, id: Option<u64>, cells: usize) {
        self.ok(id);
        self.number("cells", cells as u64);
        self.close("}");
    }

    /// A message to a cell.
    pub fn message(&mut self, message: &Message) {
        self.begin(None);
        self.text_of("type", "message");
        self.number("seq", message.seq);
        self.text_of("from", message.from);
        self.text_of("text", &message.text);
        self.close("}");
    }

    /// To a `hello`.
    pub fn welcome(&mut self, id: Option<u64>, cell: &str, welcome: Welcome) {
        self.ok(id);
        self.text_of("type", "welcome");
        self.text_of("cell", cell);
        self.number("next", welcome.next);
        self.number("lost", welcome.lost);
        self.close("}");
    }

    /// To an `alive`.
    pub fn alive(&mut self, id: Option<u64>, seq: u64, next: u64, missed: u64) {
        self.ok(id);
        self.text_of("type", "alive");
        self.number("seq", seq);
        self.number("next", next);
        self.number("missed", missed);
        self.close("}");
    }

    /// What a command that changes nothing answers.
    pub fn report(
        &mut self,
        run: Run,
        cell: Option<usize>,
        name: Option<&str>,
        request: &Request,
        system: &impl System,
    ) {
        self.ok(request.id);
        let from = request.from.unwrap_or(0);
        let first = usize::try_from(from).unwrap_or(usize::MAX);
        match run {
            Run::Stats => {
                let one = |n: usize| cell.is_none_or(|cell| cell == n);
                let cells = (0..MAX_CELLS).filter(|n| one(*n)).filter_map(|n| Some((n, system.cell(n)?)));
                self.list("cells", first, cells, |out, (n, view)| out.counters(&view, &system.counters(n)));
            }
            Run::Disks => {
                self.latencies(system);
                let all = (0..MAX_CELLS)
                    .flat_map(|n| (0..MAX_DISKS).map_while(move |number| system.disk(n, number)));
                self.list("disks", first, all, |out, disk| out.disk(&disk));
            }
            Run::Links => {
                let all =
                    (0..MAX_LINKS).flat_map(|n| (0..MAX_PEERS).map_while(move |peer| system.link(n, peer)));
                self.list("links", first, all, |out, view| out.link(&view));
            }
            Run::Sockets => {
                let all = (0..MAX_CELLS).map_while(|n| system.sockets(n)).filter(|view| view.cid.is_some());
                self.list("sockets", first, all, |out, view| out.sockets(&view));
            }
            Run::Services => {
                let all = (0..CHILDREN).filter_map(|n| system.pd(n));
                self.list("services", first, all, |out, pd| {
                    out.open("{");
                    out.text_of("service", &pd.name);
                    out.text_of("state", pd.state.word());
                    out.number("restarts", pd.restarts.into());
                    out.number("pings", pd.beats.into());
                    if let Some(why) = pd.why {
                        out.string("stopped_by", |to| write!(to, "{why}"));
                    }
                    out.close("}");
                });
            }
            Run::Log => self.log(from, name, system),
            Run::Version => {
                self.text_of("version", env!("CARGO_PKG_VERSION"));
                self.number("protocol", PROTOCOL.into());
            }
            Run::Help => self.list("commands", first, COMMANDS.iter(), |out, command| {
                out.open("{");
                out.text_of("command", command.name);
                out.text_of("argument", command.argument.shown());
                out.text_of("help", command.help);
                out.close("}");
            }),
            Run::Cells | Run::Order(_) | Run::Send | Run::ShutDown | Run::Kill => {
                let cells = (0..MAX_CELLS).map_while(|n| Some((n, system.cell(n)?)));
                self.list("cells", first, cells, |out, (n, view)| out.cell(n, &view));
            }
        }
        self.close("}");
    }

    /// A list from its element `first` on, as far as it fits.
    fn list<T>(
        &mut self,
        key: &str,
        first: usize,
        elements: impl Iterator<Item = T>,
        mut write: impl FnMut(&mut Self, T),
    ) {
        self.key(key);
        self.open("[");
        let mut more = None;
        for (n, element) in elements.enumerate().skip(first) {
            if !self.fits(|out| write(out, element)) {
                more = Some(n as u64);
                break;
            }
        }
        self.close("]");
        if let Some(more) = more {
            self.number("more", more);
        }
    }

    /// Writes an element, and takes it back if it does not fit. One that would not even fit alone is left out.
    fn fits(&mut self, write: impl FnOnce(&mut Self)) -> bool {
        let (mark, comma) = (self.text.len(), self.comma);
        write(self);
        if !self.full && self.text.len() + TAIL <= ANSWER_MAX {
            return true;
        }
        self.text.truncate(mark);
        (self.comma, self.full) = (comma, false);
        false
    }

    fn cell(&mut self, n: usize, cell: &CellView<'_>) {
        self.open("{");
        self.text_of("cell", cell.name);
        self.number("console", n as u64 + 1);
        self.text_of("state", cell.state);
        self.number("vcpus", cell.vcpus.into());
        self.number("vcpus_on", cell.vcpus_on.into());
        self.number("memory", cell.memory);
        self.number("epoch", cell.epoch.into());
        self.number("exits", cell.exits);
        if let Some(reason) = cell.reason {
            let word = match reason {
                StopReason::PowerOff => "power-off",
                StopReason::Reset => "reset",
                StopReason::Crash => "crash",
            };
            self.text_of("ended_by", word);
        }
        self.close("}");
    }

    fn counters(&mut self, cell: &CellView<'_>, counters: &[u64; Counter::ALL.len()]) {
        self.open("{");
        self.text_of("cell", cell.name);
        self.number("exits", counters.iter().take(Counter::EXITS).fold(0, |sum, n| sum.wrapping_add(*n)));
        self.key("counters");
        self.open("{");
        for (counter, value) in Counter::ALL.iter().zip(counters) {
            self.number(counter.name(), *value);
        }
        self.close("}");
        self.close("}");
    }

    fn link(&mut self, view: &LinkView<'_>) {
        self.open("{");
        self.text_of("link", view.link);
        self.number("id", view.id.into());
        self.number("peer", view.peer as u64);
        self.text_of("cell", view.cell);
        self.number("shared", view.shared);
        self.number("output", view.output);
        self.number("rung", view.rung);
        self.number("refused", view.refused);
        self.number("delivered", view.delivered);
        self.number("dropped", view.dropped);
        self.close("}");
    }

    fn sockets(&mut self, view: &SocketsView<'_>) {
        self.open("{");
        self.text_of("cell", view.cell);
        self.number("cid", view.cid.unwrap_or(0).into());
        for counter in ivc_stats::Counter::ALL {
            self.number(counter.name(), view.get(counter));
        }
        self.close("}");
    }

    /// The upper bounds of the latencies' buckets; the last bucket has none.
    fn latencies(&mut self, system: &impl System) {
        self.key("latency_ns");
        self.open("[");
        for bucket in 0..BUCKETS - 1 {
            let counts = 1u128 << (bucket + LATENCY_SHIFT);
            if bucket > 0 {
                self.raw(",");
            }
            let _ = write!(self, "{}", counts * 1_000_000_000 / u128::from(system.frequency().max(1)));
        }
        self.close("]");
    }

    fn disk(&mut self, disk: &DiskView<'_>) {
        self.open("{");
        self.text_of("cell", disk.cell);
        self.number("disk", disk.number as u64);
        self.text_of("controller", disk.controller);
        self.string("partition", |out| match disk.partition {
            Partition::Label(label) => out.write_str(label),
            Partition::Gpt(number) => write!(out, "gpt {number}"),
            Partition::Mbr(number) => write!(out, "mbr {number}"),
            Partition::Range { .. } => out.write_str("range"),
        });
        self.number("first", disk.first);
        self.number("sectors", disk.sectors);
        self.flag("read_only", disk.read_only);
        self.number("reads", disk.reads);
        self.number("writes", disk.writes);
        self.number("others", disk.others);
        self.number("read_bytes", disk.read_bytes);
        self.number("written_bytes", disk.written_bytes);
        self.number("errors", disk.errors);
        self.number("in_flight", disk.in_flight);
        self.key("latency");
        self.open("[");
        for (n, count) in disk.latency.iter().enumerate() {
            let comma = if n > 0 { "," } else { "" };
            let _ = write!(self, "{comma}{count}");
        }
        self.close("]");
        self.close("}");
    }

    /// Log lines from a position on.
    fn log(&mut self, from: u64, name: Option<&str>, system: &impl System) {
        let mut lines = Lines::new(system, from);
        let mut next = from;
        self.key("lines");
        self.open("[");
        while let Some(line) = lines.next() {
            if name.is_none_or(|name| names(&line, name))
                && !self.fits(|out| out.value(|to| to.write_str(&line.text)))
            {
                break;
            }
            next = line.next;
        }
        self.close("]");
        self.number("next", next);
        // Of the first read, from 0, nothing was promised.
        self.number("lost", if from == 0 { 0 } else { lines.lost() });
    }
}
