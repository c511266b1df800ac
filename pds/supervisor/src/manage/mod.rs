//! The management service: what the shell does, for guests.
//!
//! `ivc` hands over lines from guests' streams at CID 2 and takes the answers (`partita_protocol::manage` is that border,
//! docs/management.md what a guest sees). A line is a JSON object. One with a `command` is for managers only, and which cell
//! is one is looked up here, by the number that `ivc` puts before the line: `ivc` refuses the others' connections already,
//! and this does not rely on it. One with a `type` is a keep-alive message ([`mail`]), which every cell may send.
//!
//! What a guest says is parsed by [`request`] without recursion and without allocation; an answer is at most
//! [`ANSWER_MAX`] bytes, longer lists come in parts ([`json`]). Work is bounded: [`BATCH`] requests in one event.

pub mod json;
pub mod line;
pub mod mail;
pub mod request;

use core::fmt::Write;

use partita_protocol::MAX_CELLS;
use partita_protocol::manage::{ANSWER_MAX, REQUEST_MAX};
use partita_ring::Duplex;

use crate::lifecycle::By;
use crate::shell::command::{Mistake, Run, resolve};
use crate::shell::view::System;
use json::Answer;
use line::{Line, PREFIX};
use mail::Mail;
use request::{Request, Type};

/// Version of the protocol: counts changes that a client could not ignore.
pub const PROTOCOL: u32 = 1;
/// Requests answered in one event.
pub const BATCH: usize = 16;
/// Bytes of the longest line to `ivc`: session and newline beside the answer.
const LINE: usize = PREFIX + ANSWER_MAX;
/// Bytes that are looked at for the end of a line.
const RAW: usize = PREFIX + REQUEST_MAX + 1;

/// What the service needs beside what the shell needs.
pub trait Service: System {
    /// Whether a cell is manager.
    fn is_manager(&self, cell: usize) -> bool;
    /// The messages to and from the cells.
    fn mail(&mut self) -> &mut Mail;
    /// A cell that is not manager wanted something.
    fn refused(&mut self, cell: usize, command: &str);
    /// A cell's keep-alive messages `from` to `to` have not arrived.
    fn missed(&mut self, cell: usize, from: u64, to: u64);
    /// `ivc` wrote a line that is none.
    fn nonsense(&mut self);
}

/// What is to be done after [`serve`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// `ivc` notifies when there is more to do.
    Idle,
    /// There is more to do, and nobody will notify.
    More,
}

/// Answers requests and pushes messages, as far as the batch and the ring go.
pub fn serve(link: &mut Duplex<'_>, system: &mut impl Service) -> Served {
    for _ in 0..BATCH {
        push(link, system);
        // An answer is made only when there is room for it, so none is lost.
        if link.tx.free() < LINE && !link.tx.arm(LINE) {
            return Served::Idle;
        }
        let mut raw = [0; RAW];
        let seen = link.rx.peek(&mut raw);
        let raw = raw.get(..seen).unwrap_or(&[]);
        let Some(end) = raw.iter().position(|byte| *byte == b'\n') else {
            if seen == RAW {
                // No honest `ivc` writes a line of this length.
                link.rx.consume(seen);
                system.nonsense();
            } else if !link.rx.arm() || link.rx.available() == seen {
                return Served::Idle;
            }
            continue;
        };
        let line = raw.get(..end).and_then(Line::parse).filter(|line| line.cell < MAX_CELLS);
        match line {
            None => system.nonsense(),
            Some(line) => {
                let mut answer = Answer::new();
                answer_to(&line, system, &mut answer);
                let mut number = heapless::String::<PREFIX>::new();
                // Ten digits and a space.
                let _ = write!(number, "{} ", line.session);
                for part in [number.as_bytes(), answer.text().as_bytes(), b"\n"] {
                    link.tx.write(part);
                }
            }
        }
        link.rx.consume(end + 1);
    }
    Served::More
}

/// Pushes messages that wait, to the streams that asked for them.
fn push(link: &mut Duplex<'_>, system: &mut impl Service) {
    let mail = system.mail();
    for cell in 0..MAX_CELLS {
        while let Some((session, message)) = mail.next_push(cell) {
            if link.tx.free() < LINE {
                return;
            }
            let mut answer = Answer::new();
            answer.message(message);
            let mut number = heapless::String::<PREFIX>::new();
            let _ = write!(number, "+{session} ");
            for part in [number.as_bytes(), answer.text().as_bytes(), b"\n"] {
                link.tx.write(part);
            }
            mail.pushed(cell);
        }
    }
}

/// Answers one line.
pub fn answer_to(line: &Line<'_>, system: &mut impl Service, out: &mut Answer) {
    let request = match Request::parse(line.request) {
        Ok(request) => request,
        Err(wrong) => return out.failed(None, |out| write!(out, "{wrong}")),
    };
    match (&request.command, request.kind) {
        (Some(_), Some(_)) => {
            out.failed(request.id, |out| out.write_str("\"command\" and \"type\" exclude each other"));
        }
        (None, None) => out.failed(request.id, |out| {
            out.write_str(
                "\"command\" is missing: the name of a command, such as \"cells\"; \"help\" lists them",
            )
        }),
        (Some(command), None) if !system.is_manager(line.cell) => {
            system.refused(line.cell, command);
            out.failed(request.id, |out| {
                let name = system.cell(line.cell).map_or("", |cell| cell.name);
                write!(out, "{name} may not manage: its cell in partita.json does not say \"manager\": true")
            });
        }
        (Some(command), None) => run(line.cell, command, &request, system, out),
        (None, Some(kind)) => talk(line, kind, &request, system, out),
    }
}

/// Runs a command for the manager `by`.
fn run(by: usize, command: &str, request: &Request, system: &mut impl Service, out: &mut Answer) {
    let (id, text) = (request.id, request.text.as_deref());
    let name = request.cell.as_deref();
    // As many words as a line of the shell would have.
    let count = usize::from(name.is_some()) + usize::from(text.is_some());
    let call = match resolve(command, name, count, system) {
        Ok(call) => call,
        Err(mistake) => return out.failed(id, |out| mistake.explain(system, true, out)),
    };
    let misplaced = match (call.run, call.cell) {
        // What the count cannot tell.
        (Run::Send, Some(_)) => text.is_none() || name.is_none(),
        (Run::Send, None) => text.is_none() || name.is_some(),
        _ => text.is_some(),
    };
    if misplaced
        && let Some(entry) = crate::shell::command::COMMANDS.iter().find(|entry| entry.name == command)
    {
        return out.failed(id, |out| Mistake::Argument(entry).explain(system, true, out));
    }
    match (call.run, call.cell) {
        (Run::Order(order), Some(cell)) => match system.order(cell, order, By::Cell(by)) {
            Ok(()) => out.done(id),
            Err(refused) => {
                let name = system.cell(cell).map_or("", |cell| cell.name);
                out.failed(id, |out| write!(out, "{name} {refused}"));
            }
        },
        (Run::Send, cell) => {
            let cells = system.send(cell, By::Cell(by), text.unwrap_or(""));
            out.sent(id, cells);
        }
        (Run::ShutDown, _) => {
            system.shut_down(By::Cell(by));
            out.done(id);
        }
        (run, cell) => out.report(run, cell, call.name, request, system),
    }
}

/// Keep-alive messages.
fn talk(line: &Line<'_>, kind: Type, request: &Request, system: &mut impl Service, out: &mut Answer) {
    let cell = line.cell;
    if let Some(got) = request.got {
        system.mail().got(cell, got);
    }
    match kind {
        Type::Hello => {
            let welcome = system.mail().hello(cell, line.session, request.after);
            let name = system.cell(cell).map_or("", |cell| cell.name);
            out.welcome(request.id, name, welcome);
        }
        Type::Alive => {
            let Some(seq) = request.seq else {
                return out.failed(request.id, |out| {
                    out.write_str("\"seq\" is missing: 1 in the first \"alive\" of a stream, one more in each that follows")
                });
            };
            let missed = system.mail().alive(cell, line.session, seq);
            if missed > 0 {
                system.missed(cell, seq.saturating_sub(missed), seq.saturating_sub(1));
            }
            let next = system.mail().next(cell);
            out.alive(request.id, seq, next, missed);
        }
        Type::Got => out.done(request.id),
        Type::Bye => {
            system.mail().bye(cell);
            out.done(request.id);
        }
    }
}

#[cfg(test)]
mod tests;
