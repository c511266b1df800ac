//! Blocking on top of [`End`].

use crate::end::{End, Error, Ready, Sections, Wait};

/// The doorbells of a link, as one end has them.
pub trait Bell {
    /// Rings the other end's.
    fn ring(&mut self);
    /// Waits until this end's has rung since the last call, or may have.
    ///
    /// # Errors
    /// [`Error::WouldBlock`]: it did not ring in the time that the caller is ready to wait.
    fn wait(&mut self) -> Result<(), Error>;
    /// The life of the other end's guest (`protocol::links::PEER_LIVES`); 0: the link does not tell. The doorbell rings when
    /// it changes, and the change is seen here before that.
    fn peer_life(&mut self) -> u32 {
        0
    }
}

/// An end that can wait.
pub struct Pipe<'a, B: Bell> {
    end: End<'a>,
    bell: B,
    /// The life of the other end's guest, as it was seen before the stream began.
    life: u32,
}

impl<'a, B: Bell> Pipe<'a, B> {
    /// Opens this end (peer `me` of the link), to talk to peer `partner`. An earlier life of this end is over with it.
    ///
    /// # Errors
    /// [`Error::Busy`]: `partner` talks to another peer.
    pub fn open(sections: Sections<'a>, me: u32, partner: u32, mut bell: B) -> Result<Self, Error> {
        // Before the other end can meet this one.
        let life = bell.peer_life();
        let mut pipe = Self { end: End::open(sections, me, partner)?, bell, life };
        pipe.tell();
        Ok(pipe)
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

    /// A guest that was stopped does not say so in its section: the link does. A life is noted only as long as there is no
    /// stream, so that a guest which stops and starts while a stream comes to be ends it, rather than being missed.
    fn look(&mut self) {
        let life = self.bell.peer_life();
        if !self.end.is_connected() {
            self.life = life;
        } else if life != self.life {
            self.end.peer_is_down();
        }
    }

    /// Does `action`, and again after each doorbell as long as it would block.
    fn block<R>(
        &mut self,
        wait: Wait,
        mut action: impl FnMut(&mut End<'a>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        loop {
            self.look();
            let result = action(&mut self.end);
            self.tell();
            if !matches!(result, Err(Error::WouldBlock)) {
                return result;
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
        self.look();
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
