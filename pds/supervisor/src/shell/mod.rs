//! The management shell: `Ctrl-] 0` on the serial line.
//!
//! The console PD treats it as one more console; here is its other end. `embedded-cli` edits the line and keeps the history,
//! one typed byte at a time; [`completion`] is ours, for that crate completes names of commands only. A command's output goes to a queue of its own, from where it
//! goes to the console as that takes it; until then no typed byte is taken, so one who types ahead of a slow line fills
//! the console's ring and not our time. Control characters beyond those of a line editor and bytes that are not ASCII are
//! dropped: no name or command has any.

pub mod command;
pub mod completion;
pub mod log;
mod services;
pub mod table;
pub mod text;
pub mod view;

use core::cell::RefCell;
use core::convert::Infallible;

use embedded_cli::arguments::Arg;
use embedded_cli::cli::{Cli, CliBuilder, CliHandle};
use embedded_cli::command::RawCommand;
use embedded_cli::service::{Autocomplete, CommandProcessor, Help, ProcessError};
use embedded_io::{ErrorType, Write};
use heapless::{Deque, Vec};
use partita_ring::Duplex;

use command::{WORDS, execute};
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
/// Bytes of a line that is shown again: the prompt, what clears the line before, the line.
const SHOWN: usize = 32 + LINE;
const ESCAPE: u8 = 0x1b;
/// The arrow key to the right.
const FORWARD: &[u8] = b"\x1b[C";
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

    fn len(&self) -> usize {
        self.0.borrow().len()
    }

    /// Takes back what was written last, down to `len` bytes.
    fn take_back<const N: usize>(&self, len: usize) -> Vec<u8, N> {
        let mut bytes = self.0.borrow_mut();
        let taken = bytes.iter().skip(len).copied().take(N).collect();
        while bytes.len() > len {
            bytes.pop_back();
        }
        taken
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

/// What `embedded-cli` asks for and is not used: its own completion and help.
struct Names;

impl Autocomplete for Names {}

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
    /// The byte before.
    last: u8,
    /// In the middle of an escape sequence, as `embedded-cli` sees it.
    escaped: bool,
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
            Ok(cli) => Shell { output, cli, last: 0, escaped: false },
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
        if byte == b'\t' && !self.escaped {
            return self.complete(system);
        }
        self.escaped = match self.escaped {
            true => !(0x40..=0x7e).contains(&byte),
            false => self.last == ESCAPE && byte == b'[',
        };
        self.last = byte;
        self.edit(&[byte], system);
    }

    /// Keys for the line editor.
    fn edit(&mut self, keys: &[u8], system: &mut impl System) {
        for key in keys {
            match self.cli.process_byte::<Names, _>(*key, &mut Runner(system)) {
                Ok(()) => {}
                Err(never) => match never {},
            }
        }
    }

    /// The line as it is now.
    fn line(&mut self) -> Vec<u8, SHOWN> {
        // It cannot be asked for, but it can be had shown again; that ends with the prompt and the line.
        let before = self.output.len();
        match self.cli.set_prompt(PROMPT) {
            Ok(()) => {}
            Err(never) => match never {},
        }
        let shown = self.output.take_back::<SHOWN>(before);
        let prompt = shown.windows(PROMPT.len()).position(|bytes| bytes == PROMPT.as_bytes());
        prompt.and_then(|at| Vec::from_slice(shown.get(at + PROMPT.len()..)?).ok()).unwrap_or_default()
    }

    /// Tab: adds what is sure, or shows what there is to choose from.
    fn complete(&mut self, system: &mut impl System) {
        self.last = b'\t';
        for _ in 0..LINE {
            self.edit(FORWARD, system);
        }
        let line = self.line();
        let Ok(line) = core::str::from_utf8(&line) else { return };
        let found = completion::find(line, system);
        self.edit(found.rest.as_bytes(), system);
        match found.names {
            1 => self.edit(b" ", system),
            2.. if found.rest.is_empty() => {
                let shown = self.cli.write(|out| {
                    let mut result = Ok(());
                    completion::each(line, system, |name, _| {
                        result = out.write_str(name).and_then(|()| out.write_str("  "));
                    });
                    result
                });
                match shown {
                    Ok(()) => {}
                    Err(never) => match never {},
                }
            }
            _ => {}
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
