//! The management shell: `Ctrl-] 0` on the serial line.
//!
//! The console PD treats it as one more console; here is its other end. `embedded-cli` edits the line, keeps the history and
//! completes the names of commands, one typed byte at a time. A command's output goes to a queue of its own, from where it
//! goes to the console as that takes it; until then no typed byte is taken, so one who types ahead of a slow line fills
//! the console's ring and not our time. Control characters beyond those of a line editor and bytes that are not ASCII are
//! dropped: no name or command has any.

pub mod command;
pub mod log;
pub mod text;
pub mod table;
pub mod view;

use core::cell::RefCell;
use core::convert::Infallible;

use embedded_cli::arguments::Arg;
use embedded_cli::autocomplete::{Autocompletion, Request};
use embedded_cli::cli::{Cli, CliBuilder, CliHandle};
use embedded_cli::command::RawCommand;
use embedded_cli::service::{Autocomplete, CommandProcessor, Help, ProcessError};
use embedded_io::{ErrorType, Write};
use heapless::{Deque, Vec};
use partita_ring::Duplex;

use command::{COMMANDS, WORDS, execute};
use view::System;

/// Bytes of the longest line that can be typed.
const LINE: usize = 128;
/// Bytes of history.
const HISTORY: usize = 1024;
/// Bytes of output that may wait: more than the longest answer (the tables of all disks).
const OUTPUT: usize = 16 * 1024;
/// Typed bytes taken in one go.
const TYPED: usize = 256;
/// Room in the console's ring that is worth a wake-up.
const ROOM: usize = 1024;
/// What the user is asked with.
pub const PROMPT: &str = "partita> ";

/// Output that waits for the console. What does not fit is cut.
pub struct Output(RefCell<Deque<u8, OUTPUT>>);

impl Output {
    /// Empty.
    pub const fn new() -> Self {
        Output(RefCell::new(Deque::new()))
    }

    fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Hands the oldest bytes to `take`, which says how many it took, until it takes no more.
    fn drain(&self, mut take: impl FnMut(&[u8]) -> usize) {
        let mut bytes = self.0.borrow_mut();
        // Two slices at most, as the queue wraps.
        for _ in 0..2 {
            let front = bytes.as_slices().0;
            let (len, taken) = (front.len(), take(front));
            for _ in 0..taken.min(len) {
                bytes.pop_front();
            }
            if taken < len {
                return;
            }
        }
    }
}

impl Default for Output {
    fn default() -> Self {
        Self::new()
    }
}

struct Writer<'a>(&'a Output);

impl ErrorType for Writer<'_> {
    type Error = Infallible;
}

impl Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        let mut queue = self.0.0.borrow_mut();
        for byte in bytes {
            if queue.push_back(*byte).is_err() {
                break;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// Completes the names of commands. `help` is the library's own.
struct Names;

impl Autocomplete for Names {
    fn autocomplete(request: Request<'_>, completion: &mut Autocompletion<'_>) {
        let Request::CommandName(typed) = request else { return };
        for command in COMMANDS.iter().filter(|command| command.name != "help") {
            if let Some(rest) = command.name.strip_prefix(typed) {
                completion.merge_autocompletion(rest);
            }
        }
    }
}

impl Help for Names {}

/// Runs the commands of one line on the system.
struct Runner<'s, S>(&'s mut S);

impl<'w, S: System> CommandProcessor<Writer<'w>, Infallible> for Runner<'_, S> {
    fn process<'a>(
        &mut self,
        cli: &mut CliHandle<'_, Writer<'w>, Infallible>,
        raw: RawCommand<'a>,
    ) -> Result<(), ProcessError<'a, Infallible>> {
        let mut words = Vec::<&str, WORDS>::new();
        for argument in raw.args().args() {
            let word = match argument {
                Ok(Arg::Value(value)) => value,
                _ => "-",
            };
            if words.push(word).is_err() {
                break;
            }
        }
        // The queue takes everything.
        let _ = execute(raw.name(), &words, self.0, cli.writer());
        Ok(())
    }
}

/// The shell.
pub struct Shell<'a> {
    output: &'a Output,
    cli: Cli<Writer<'a>, Infallible, [u8; LINE], [u8; HISTORY]>,
}

impl<'a> Shell<'a> {
    /// With its prompt waiting in `output`.
    pub fn new(output: &'a Output) -> Self {
        let cli = CliBuilder::default()
            .writer(Writer(output))
            .command_buffer([0; LINE])
            .history_buffer([0; HISTORY])
            .prompt(PROMPT)
            .build();
        match cli {
            Ok(cli) => Shell { output, cli },
            Err(never) => match never {},
        }
    }

    /// A byte was typed.
    fn typed(&mut self, byte: u8, system: &mut impl System) {
        let byte = match byte {
            // What the backspace key of most terminals sends.
            0x7f => 0x08,
            0x08 | b'\t' | b'\r' | b'\n' | 0x1b | b' '..=b'~' => byte,
            _ => return,
        };
        match self.cli.process_byte::<Names, _>(byte, &mut Runner(system)) {
            Ok(()) => {}
            Err(never) => match never {},
        }
    }

    /// Moves what can be moved in both directions, and runs what was typed. True: call again, there is more to do and
    /// nobody will notify.
    #[must_use]
    pub fn pump(&mut self, link: &mut Duplex<'_>, system: &mut impl System) -> bool {
        for _ in 0..TYPED {
            self.output.drain(|bytes| link.tx.write(bytes));
            if !self.output.is_empty() {
                if link.tx.arm(ROOM) {
                    continue;
                }
                return false;
            }
            let mut byte = [0];
            if link.rx.read(&mut byte) == 1 {
                self.typed(byte[0], system);
            } else if !link.rx.arm() {
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests;
