//! Blocking on top of [`End`].

use crate::end::{End, Error, Ready, Wait};

/// The doorbells of a link, as one end has them.
pub trait Bell {
    /// Rings the other end's.
    fn ring(&mut self);
    /// Waits until this end's has rung since the last call, or may have.
    ///
    /// # Errors
    /// [`Error::WouldBlock`]: it did not ring in the time that the caller is ready to wait.
    fn wait(&mut self) -> Result<(), Error>;
    /// Whether the other end's cell runs, as far as the link tells.
    fn peer_runs(&mut self) -> bool {
        true
    }
}

/// An end that can wait.
pub struct Pipe<'a, B: Bell> {
    end: End<'a>,
    bell: B,
}

impl<'a, B: Bell> Pipe<'a, B> {
    /// An end that has just been opened.
    pub fn new(end: End<'a>, bell: B) -> Self {
        let mut pipe = Self { end, bell };
        pipe.tell();
        pipe
    }

    /// The doorbell.
    pub fn bell(&mut self) -> &mut B {
        &mut self.bell
    }

    /// The doorbell, to look at.
    pub fn bell_ref(&self) -> &B {
        &self.bell
    }

    fn tell(&mut self) {
        if self.end.take_bell() {
            self.bell.ring();
        }
    }

    /// Does `action`, and again after each doorbell as long as it would block.
    fn block<R>(
        &mut self,
        wait: Wait,
        mut action: impl FnMut(&mut End<'a>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        loop {
            let result = action(&mut self.end);
            self.tell();
            if !matches!(result, Err(Error::WouldBlock)) {
                return result;
            }
            if !self.bell.peer_runs() {
                self.end.peer_is_down();
            }
            let ready = self.end.arm(wait);
            self.tell();
            if !ready {
                self.bell.wait()?;
            }
        }
    }

    /// Waits for the other end.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn connect(&mut self) -> Result<(), Error> {
        self.block(Wait::Connected, End::connect)
    }

    /// Waits for bytes; 0: the other end has finished.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn read(&mut self, into: &mut [u8]) -> Result<usize, Error> {
        self.block(Wait::Read, |end| end.read(into))
    }

    /// Waits until `into` is full or the other end has finished; returns how many bytes there are.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn read_full(&mut self, into: &mut [u8]) -> Result<usize, Error> {
        let mut done = 0;
        while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.read(rest)? {
                0 => break,
                count => done += count,
            }
        }
        Ok(done)
    }

    /// Waits for room and puts in what fits.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        self.block(Wait::Write(bytes.len()), |end| end.write(bytes))
    }

    /// Puts in all of it.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn write_all(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let count = self.write(rest)?;
            rest = rest.get(count..).unwrap_or_default();
        }
        Ok(())
    }

    /// As [`End::read_vectored`], and waits.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn read_vectored(&mut self, into: &mut [&mut [u8]]) -> Result<usize, Error> {
        self.block(Wait::Read, |end| end.read_vectored(into))
    }

    /// As [`End::write_vectored`], and waits.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn write_vectored(&mut self, bytes: &[&[u8]]) -> Result<usize, Error> {
        let all = bytes.iter().fold(0, |sum: usize, part| sum.saturating_add(part.len()));
        self.block(Wait::Write(all), |end| end.write_vectored(bytes))
    }

    /// Without waiting: what [`End`] offers, with the doorbell rung if it has to be.
    pub fn now<R>(&mut self, action: impl FnOnce(&mut End<'a>) -> R) -> R {
        let result = action(&mut self.end);
        self.tell();
        result
    }

    /// What can be done without waiting.
    pub fn poll(&mut self) -> Ready {
        self.now(End::poll)
    }

    /// Writes no more.
    pub fn finish(&mut self) {
        self.now(End::finish);
    }

    /// Ends it in good order. What the other end has not read yet stays readable.
    pub fn close(mut self) {
        self.now(End::close);
    }
}
