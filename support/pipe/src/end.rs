//! One end of a pipe. Nothing here blocks; [`crate::Pipe`] adds that.

#[cfg(not(loom))]
use core::ptr::NonNull;

use partita_protocol::layout::size::PAGE;
use partita_ring::{Duplex, Mine, Yours};

use crate::session::{Pair, Session, Sight};

/// Why an operation did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Nothing to read, or no room to write, now (EAGAIN).
    WouldBlock,
    /// The other end talks to somebody else, or somebody else has this one (EBUSY).
    Busy,
    /// The other end was restarted or is gone: the stream is broken off (ECONNRESET).
    Reset,
    /// The other end reads no more, or this one has finished writing (EPIPE).
    Closed,
    /// The other end has written nonsense into its section (EPROTO).
    Broken,
    /// The sections are too small, or not pages (EINVAL).
    Invalid,
}

/// What can be done without waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// A read would not block: there are bytes, the end of the stream, or an error.
    pub read: bool,
    /// A write would not block: there is room, or an error.
    pub write: bool,
    /// The other end is closed or gone.
    pub hang_up: bool,
}

/// What a caller waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The other end.
    Connected,
    /// Something to read.
    Read,
    /// Room for this many bytes, or for half of what the section holds if that is less.
    Write(usize),
}

/// Bytes in front of a section's data.
pub const HEADER: usize = PAGE;
/// Where the session's words are in that page; the ring's are before them.
#[cfg(not(loom))]
const SESSION: usize = 0x800;

/// The two sections of a pipe: what this end writes and what the other writes.
#[derive(Clone, Copy)]
pub struct Sections<'a> {
    pub(crate) mine: (&'a Session, Mine<'a>),
    pub(crate) yours: (&'a Session, Yours<'a>),
}

impl<'a> Sections<'a> {
    /// From parts: for tests.
    pub fn new(mine: (&'a Session, Mine<'a>), yours: (&'a Session, Yours<'a>)) -> Self {
        Self { mine, yours }
    }

    /// Two output sections of a link, `size` bytes each.
    ///
    /// # Errors
    /// [`Error::Invalid`]: `size` is less than two pages or no whole number of them.
    ///
    /// # Safety
    /// `size` bytes at `mine` and `yours` are page aligned and mapped for `'a`, `mine` to be written and `yours` to be
    /// read, both as normal cached memory. Nothing else in this cell uses `mine`.
    #[cfg(not(loom))]
    pub unsafe fn at(mine: NonNull<u8>, yours: NonNull<u8>, size: usize) -> Result<Self, Error> {
        if size < HEADER + PAGE || !size.is_multiple_of(PAGE) {
            return Err(Error::Invalid);
        }
        // SAFETY: by the caller's promise, and as the header page has room for both: the ring's words take 128 bytes at its
        // start. All are atomics, for which any contents and any change by the peer are valid.
        unsafe {
            let session = |at: NonNull<u8>| at.add(SESSION).cast::<Session>().as_ref();
            Ok(Self::new((session(mine), Mine::at(mine, size)), (session(yours), Yours::at(yours, size))))
        }
    }
}

/// One end. Dropping it leaves the section as a crash would; [`End::close`] ends it in good order.
pub struct End<'a> {
    sections: Sections<'a>,
    pair: Pair<'a>,
    /// The other end's life that mine has answered; 0: none.
    met: u32,
    /// The stream, once both have answered.
    duplex: Option<Duplex<'a>>,
    finished: bool,
    error: Option<Error>,
    bell: bool,
}

impl<'a> End<'a> {
    /// Opens this end (peer `me` of the link), to talk to peer `partner`. An earlier life of this end is over with it.
    ///
    /// # Errors
    /// [`Error::Busy`]: `partner` talks to another peer.
    pub fn open(sections: Sections<'a>, me: u32, partner: u32) -> Result<Self, Error> {
        let (mine, yours) = (sections.mine, sections.yours);
        let reset = || mine.1.reset();
        let pair = Pair::begin(mine.0, yours.0, (me, partner), reset).ok_or(Error::Busy)?;
        let mut end = Self { sections, pair, met: 0, duplex: None, finished: false, error: None, bell: true };
        // Whether somebody is there already shows later.
        let _ = end.connect();
        Ok(end)
    }

    /// This end's life: a number that no earlier one had.
    pub fn life(&self) -> u32 {
        self.pair.life
    }

    /// Takes the next step towards the other end.
    ///
    /// # Errors
    /// [`Error::WouldBlock`]: it is not there yet. [`Error::Busy`]: it talks to somebody else. What [`End::read`] has.
    pub fn connect(&mut self) -> Result<(), Error> {
        if let Some(error) = self.error {
            return Err(error);
        }
        if self.duplex.is_some() {
            return self.check();
        }
        match self.pair.look() {
            Sight::Nobody => Err(Error::WouldBlock),
            Sight::Busy => Err(Error::Busy),
            Sight::Life(life, met) => {
                if self.met == life && met == self.pair.life {
                    self.duplex = Some(Duplex::new(self.sections.mine.1, self.sections.yours.1));
                    return Ok(());
                }
                if self.pair.closed(life) {
                    return Err(Error::WouldBlock);
                }
                if self.met != life {
                    self.met = life;
                    self.pair.meet(life);
                    self.bell = true;
                    // It may have met us before.
                    return self.connect_once_more(life, met);
                }
                Err(Error::WouldBlock)
            }
        }
    }

    fn connect_once_more(&mut self, life: u32, met: u32) -> Result<(), Error> {
        if met != self.pair.life || !self.pair.holds(life) {
            return Err(Error::WouldBlock);
        }
        self.duplex = Some(Duplex::new(self.sections.mine.1, self.sections.yours.1));
        Ok(())
    }

    /// The stream has broken off.
    fn fail(&mut self, error: Error) -> Error {
        self.error = Some(error);
        error
    }

    /// Whether the session still holds. To be asked after an index of the other end was used, not before.
    fn check(&mut self) -> Result<(), Error> {
        if !self.pair.holds(self.met) {
            return Err(self.fail(Error::Reset));
        }
        let faults = self.duplex.as_ref().map_or(0, |duplex| duplex.tx.faults() + duplex.rx.faults());
        if faults != 0 { Err(self.fail(Error::Broken)) } else { Ok(()) }
    }

    /// Takes bytes out; 0: the other end has finished.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::WouldBlock`] also as long as the other end is not there.
    pub fn read(&mut self, into: &mut [u8]) -> Result<usize, Error> {
        self.read_vectored(&mut [into])
    }

    /// The same into several places, one after the other.
    ///
    /// # Errors
    /// As [`End::read`].
    pub fn read_vectored(&mut self, into: &mut [&mut [u8]]) -> Result<usize, Error> {
        self.connect()?;
        let finished = self.pair.finished(self.met);
        let Some(duplex) = &mut self.duplex else { return Err(Error::WouldBlock) };
        let mut taken = 0;
        for part in into.iter_mut() {
            let count = duplex.rx.read(part);
            taken += count;
            if count < part.len() {
                break;
            }
        }
        self.bell |= taken != 0 && duplex.rx.should_notify();
        self.check()?;
        if taken == 0 && !finished && into.iter().any(|part| !part.is_empty()) {
            return Err(Error::WouldBlock);
        }
        Ok(taken)
    }

    /// Puts bytes in, as many as there is room for.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        self.write_vectored(&[bytes])
    }

    /// The same from several places, one after the other.
    ///
    /// # Errors
    /// As [`End::write`].
    pub fn write_vectored(&mut self, bytes: &[&[u8]]) -> Result<usize, Error> {
        if self.finished {
            return Err(Error::Closed);
        }
        self.connect()?;
        if self.pair.closed(self.met) {
            return Err(Error::Closed);
        }
        let Some(duplex) = &mut self.duplex else { return Err(Error::WouldBlock) };
        let mut put = 0;
        for part in bytes {
            let count = duplex.tx.write(part);
            put += count;
            if count < part.len() {
                break;
            }
        }
        self.bell |= put != 0 && duplex.tx.should_notify();
        self.check()?;
        if put == 0 && bytes.iter().any(|part| !part.is_empty()) {
            return Err(Error::WouldBlock);
        }
        Ok(put)
    }

    /// What can be done without waiting.
    pub fn poll(&mut self) -> Ready {
        match self.connect() {
            Err(Error::WouldBlock) => return Ready::default(),
            Err(_) => return Ready { read: true, write: true, hang_up: true },
            Ok(()) => {}
        }
        let (finished, closed) = (self.pair.finished(self.met), self.pair.closed(self.met));
        let Some(duplex) = &mut self.duplex else { return Ready::default() };
        let read = finished || duplex.rx.available() != 0;
        let write = closed || self.finished || duplex.tx.free() != 0;
        match self.check() {
            Ok(()) => Ready { read, write, hang_up: closed },
            Err(_) => Ready { read: true, write: true, hang_up: true },
        }
    }

    /// Asks the other end to ring when it changes what is waited for. `true`: it has changed already, do not wait.
    ///
    /// The other end rings without being asked when it comes, finishes or goes.
    pub fn arm(&mut self, wait: Wait) -> bool {
        let Some(duplex) = &mut self.duplex else {
            // The other end rings when it comes. Once it has, the caller tries again.
            let ready = self.poll();
            return self.duplex.is_some() || ready.hang_up;
        };
        let ready = match wait {
            Wait::Connected => true,
            Wait::Read => duplex.rx.arm(),
            // Half of the ring: one bell for many bytes.
            Wait::Write(bytes) => {
                let half = duplex.tx.capacity() / 2;
                duplex.tx.arm(bytes.min(half))
            }
        };
        if ready {
            return true;
        }
        let now = self.poll();
        match wait {
            Wait::Connected | Wait::Read => now.read,
            // Less room than was asked for is no reason to go on, but that there will never be more is.
            Wait::Write(_) => now.hang_up || self.finished,
        }
    }

    /// Whether the other end has to be told of something: ring its doorbell.
    #[must_use]
    pub fn take_bell(&mut self) -> bool {
        core::mem::take(&mut self.bell)
    }

    /// Writes no more; the other end reads what there is and then the end.
    pub fn finish(&mut self) {
        self.finished = true;
        self.pair.finish();
        self.bell = true;
    }

    /// Whether a stream has begun.
    pub const fn is_connected(&self) -> bool {
        self.duplex.is_some()
    }

    /// Whether the other end has closed in good order.
    pub fn is_closed(&self) -> bool {
        self.met != 0 && self.pair.closed(self.met)
    }

    /// The link says that the other end's guest was stopped: the stream breaks off, unless it ended in good order.
    pub fn peer_is_down(&mut self) {
        if self.duplex.is_some() && !self.is_closed() && self.error.is_none() {
            self.fail(Error::Reset);
        }
    }

    /// Ends it in good order: the other end reads what there is and then the end, and writes no more.
    pub fn close(&mut self) {
        self.finished = true;
        self.pair.close();
        self.bell = true;
    }
}
