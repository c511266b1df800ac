//! Lines of the streams at CID 2: requests to the supervisor, its answers, and the log.
//!
//! One request of a session is with the supervisor at a time, and it is only sent when the session has room for the longest
//! answer. So an answer always fits, and a session that does not read holds up no other's (protocol::manage).

use heapless::Vec;
use partita_protocol::manage::{ANSWER_MAX, REQUEST_MAX};

use super::host::{STREAMS, Service, Stream};
use super::{Broker, Report};

/// Longest line from the supervisor: a sign, a session, a space, an answer, a newline.
const LINE: usize = ANSWER_MAX + 16;
/// Lines of the supervisor that are taken at once. The ring holds fewer bytes than these have.
const LINES: usize = 64;

/// What a request that is too long is answered with.
const TOO_LONG: &[u8] = b"{\"error\":\"the request is longer than 512 bytes\"}\n";
const _: () = assert!(REQUEST_MAX == 512);

impl<R: Report> Broker<R> {
    /// Whether the supervisor is to be notified. Ask once after an event.
    pub fn owes_supervisor(&mut self) -> bool {
        self.manage.as_mut().is_some_and(|ring| {
            // Both have memory: ask both.
            let sent = ring.tx.should_notify();
            ring.rx.should_notify() | sent
        })
    }

    /// Uses whole lines of a stream's input.
    pub(super) fn use_input(&mut self, number: usize) {
        // Each round takes a line, or ends.
        for _ in 0..super::host::INPUT {
            let Some(stream) = self.tables.streams.get(number) else { return };
            let newline = stream.input.iter().position(|byte| *byte == b'\n');
            let more = match stream.service {
                Service::Log => self.log_line(number, newline),
                Service::Lines => self.request_line(number, newline),
                Service::Echo | Service::Discard | Service::Chargen => false,
            };
            if !more {
                return;
            }
        }
    }

    /// A line for the log, or as much of one as there is room for. The guest's last words need no newline.
    fn log_line(&mut self, number: usize, newline: Option<usize>) -> bool {
        let Some(stream) = self.tables.streams.get(number) else { return false };
        let length = match newline {
            Some(length) => length,
            None if stream.input.is_full() || stream.has_ended() => stream.input.len(),
            None => return false,
        };
        if length > 0 {
            self.report.line(stream.cell, stream.input.get(..length).unwrap_or_default());
        }
        stream.consume(length + 1);
        newline.is_some()
    }

    /// A line for the supervisor, if it can take one.
    fn request_line(&mut self, number: usize, newline: Option<usize>) -> bool {
        let (Some(stream), Some(ring)) = (self.tables.streams.get(number), &mut self.manage) else {
            return false;
        };
        if newline.is_none() && stream.has_ended() {
            // It will never be a line.
            stream.consume(stream.input.len());
            return false;
        }
        if stream.skipping || newline.is_none_or(|length| length > REQUEST_MAX) {
            return too_long(stream, newline);
        }
        let length = newline.unwrap_or(0);
        if stream.asked || stream.free() <= ANSWER_MAX {
            return false;
        }
        // An empty line asks nothing.
        if length > 0 {
            let mut line = Vec::<u8, { REQUEST_MAX + 32 }>::new();
            let request = stream.input.get(..length).unwrap_or_default();
            let whole = core::fmt::write(&mut line, format_args!("{} {} ", stream.cell, stream.session))
                .is_ok()
                && line.extend_from_slice(request).is_ok()
                && line.push(b'\n').is_ok();
            // Without room it notifies when it has made some.
            if !whole || !(ring.tx.write_all(&line) || ring.tx.arm(line.len()) && ring.tx.write_all(&line)) {
                return false;
            }
            stream.asked = true;
        }
        stream.consume(length + 1);
        true
    }

    /// Takes the supervisor's lines to their streams.
    pub(super) fn read_manage(&mut self) {
        for _ in 0..LINES {
            let Some(ring) = &mut self.manage else { return };
            // This is asked with every event; the buffer costs more than most of them.
            if ring.rx.available() == 0 && !ring.rx.arm() {
                return;
            }
            let mut bytes = [0; LINE];
            let have = ring.rx.peek(&mut bytes);
            let bytes = bytes.get(..have).unwrap_or_default();
            let Some(length) = bytes.iter().position(|byte| *byte == b'\n') else {
                if have == LINE {
                    // Longer than anything it may say.
                    ring.rx.consume(have);
                } else if !ring.rx.arm() || ring.rx.available() == have {
                    return;
                }
                continue;
            };
            ring.rx.consume(length + 1);
            if let Some(line) = bytes.get(..length) {
                self.answer_line(line);
            }
        }
    }

    fn answer_line(&mut self, line: &[u8]) {
        let (push, line) = match line {
            [b'+', rest @ ..] => (true, rest),
            line => (false, line),
        };
        let Some(space) = line.iter().position(|byte| *byte == b' ') else { return };
        let (session, text) = line.split_at(space);
        let Some(session) = core::str::from_utf8(session).ok().and_then(|text| text.parse::<u32>().ok())
        else {
            return;
        };
        let text = text.get(1..).unwrap_or_default();
        for number in 0..STREAMS {
            let Some(stream) = self.tables.streams.get(number) else { continue };
            if stream.service != Service::Lines || stream.session != session {
                continue;
            }
            // What nobody asked for leaves room for the answer that is due. Without room it is dropped: messages have
            // numbers, so that the guest sees the gap.
            let kept = if push && stream.asked { ANSWER_MAX + 1 } else { 0 };
            if stream.free() > text.len() + kept {
                stream.put(text);
                stream.put(b"\n");
            }
            if !push {
                stream.asked = false;
            }
        }
    }
}

/// Answers a request that is too long, and skips it to its end. True if there is more to look at.
fn too_long(stream: &mut Stream, newline: Option<usize>) -> bool {
    let waits = newline.is_none() && !stream.skipping && stream.input.len() <= REQUEST_MAX;
    if waits || (!stream.skipping && stream.free() < TOO_LONG.len()) {
        return false;
    }
    if !stream.skipping {
        stream.put(TOO_LONG);
    }
    stream.skipping = newline.is_none();
    let length = newline.map_or(stream.input.len(), |length| length + 1);
    stream.consume(length);
    newline.is_some()
}
