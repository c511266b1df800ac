//! The link of a Linux guest: `/dev/hivc<id>`, by our driver or hvisor's.
//!
//! One process at a time has a link's pipe: it holds a lock of the device file, which the kernel gives back when the process
//! ends, however that happens. Who comes second is told EBUSY.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use partita_protocol::MAX_PEERS;
use partita_protocol::layout::size::PAGE;
use partita_protocol::links::{
    IPI_INVOKE, IVC_ID, MAX_PEERS_WORD, OUT_SEC_SIZE, PEER_ID, PEER_LIVES, RW_SEC_SIZE,
};

use crate::{Bell, Error, Pipe, Sections};

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        io::Error::from_raw_os_error(match error {
            Error::WouldBlock => libc::EAGAIN,
            Error::Busy => libc::EBUSY,
            Error::Reset => libc::ECONNRESET,
            Error::Closed => libc::EPIPE,
            Error::Broken => libc::EPROTO,
            Error::Invalid => libc::EINVAL,
        })
    }
}

/// A mapping of the device.
struct Map {
    at: NonNull<u8>,
    size: usize,
}

// SAFETY: the mapping belongs to the process, and its contents are reached by volatile and atomic accesses only.
unsafe impl Send for Map {}

impl Map {
    fn new(file: &File, offset: u64, size: usize, write: bool) -> io::Result<Self> {
        let protection = libc::PROT_READ | if write { libc::PROT_WRITE } else { 0 };
        let offset = offset.try_into().map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
        // SAFETY: a new mapping at a place that the kernel chooses touches nothing that is there.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), size, protection, libc::MAP_SHARED, file.as_raw_fd(), offset)
        };
        match NonNull::new(at.cast::<u8>()) {
            Some(at) if at.as_ptr().cast() != libc::MAP_FAILED => Ok(Self { at, size }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: this mapping is ours, and whoever borrowed from it is gone.
        unsafe { libc::munmap(self.at.as_ptr().cast(), self.size) };
    }
}

/// A link, open.
pub struct Link {
    file: File,
    control: Map,
}

impl Link {
    /// Opens the device.
    ///
    /// # Errors
    /// As opening and mapping a file.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let control = Map::new(&file, 0, PAGE, true)?;
        Ok(Self { file, control })
    }

    fn word(&self, offset: usize) -> u32 {
        // SAFETY: the control table is one page, mapped for as long as `self` is, and `offset` is one of its words.
        unsafe { self.control.at.add(offset).cast::<u32>().read_volatile() }
    }

    /// The link's id.
    pub fn id(&self) -> u32 {
        self.word(IVC_ID)
    }

    /// Number of peers.
    pub fn peers(&self) -> u32 {
        self.word(MAX_PEERS_WORD)
    }

    /// This cell's number among them.
    pub fn me(&self) -> u32 {
        self.word(PEER_ID)
    }

    /// The life of a peer's guest: odd while it runs. 0: it never did, or the hypervisor does not tell.
    pub fn life(&self, peer: u32) -> u32 {
        if (peer as usize) < MAX_PEERS { self.word(PEER_LIVES + 4 * peer as usize) } else { 0 }
    }

    /// Bytes of the section that all write, and of each peer's output section.
    pub fn sizes(&self) -> (u64, u64) {
        (self.word(RW_SEC_SIZE).into(), self.word(OUT_SEC_SIZE).into())
    }

    /// Rings a peer's doorbell.
    pub fn ring(&self, peer: u32) {
        // What was written before is seen by whoever the bell wakes.
        fence(Ordering::SeqCst);
        // SAFETY: as in `word`; the table is the hypervisor's, and a store to this word rings.
        unsafe { self.control.at.add(IPI_INVOKE).cast::<u32>().write_volatile(peer) };
    }

    /// Waits for a doorbell; `false`: it did not ring in time.
    ///
    /// # Errors
    /// As poll(2).
    pub fn wait(&self, limit: Option<Duration>) -> io::Result<bool> {
        let mut poll = libc::pollfd { fd: self.file.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let limit = limit.map_or(-1, |limit| limit.as_millis().try_into().unwrap_or(i32::MAX));
        loop {
            // SAFETY: one pollfd, which lives until the call returns.
            match unsafe { libc::poll(&mut poll, 1, limit) } {
                0 => return Ok(false),
                1.. => return Ok(true),
                _ => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Bytes of a peer's output section, copied.
    ///
    /// # Errors
    /// As mapping a file; EINVAL: there is no such peer.
    pub fn read_output(&self, peer: u32, into: &mut [u8]) -> io::Result<()> {
        let map = self.output(peer)?;
        for (n, byte) in into.iter_mut().enumerate().take(map.size) {
            // SAFETY: `n` is below the mapping's size.
            *byte = unsafe { map.at.add(n).read_volatile() };
        }
        Ok(())
    }

    /// Puts bytes into this cell's output section, from its start.
    ///
    /// # Errors
    /// As mapping a file.
    pub fn write_output(&self, bytes: &[u8]) -> io::Result<()> {
        let map = self.output(self.me())?;
        for (n, byte) in bytes.iter().enumerate().take(map.size) {
            // SAFETY: `n` is below the mapping's size, and the section is mapped for writing.
            unsafe { map.at.add(n).write_volatile(*byte) };
        }
        Ok(())
    }

    fn output(&self, peer: u32) -> io::Result<Map> {
        let (shared, output) = self.sizes();
        if peer >= self.peers() || output == 0 {
            return Err(Error::Invalid.into());
        }
        let offset = PAGE as u64 + shared + output * u64::from(peer);
        Map::new(&self.file, offset, output as usize, peer == self.me())
    }

    /// The pipe between this cell and peer `partner`, with the time that its operations wait at most. Does not wait for the
    /// other end: [`Pipe::connect`] does.
    ///
    /// # Errors
    /// EBUSY: another process has it, or `partner` talks to another peer. EINVAL: there is no such peer, or the sections
    /// are too small. Others as opening and mapping a file.
    pub fn pipe(self, partner: u32, limit: Option<Duration>) -> io::Result<LinuxPipe> {
        let me = self.me();
        if partner == me {
            return Err(Error::Invalid.into());
        }
        // SAFETY: the descriptor is open.
        if unsafe { libc::flock(self.file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
            let error = io::Error::last_os_error();
            let busy = error.kind() == io::ErrorKind::WouldBlock;
            return Err(if busy { Error::Busy.into() } else { error });
        }
        let (mine, yours) = (self.output(me)?, self.output(partner)?);
        // SAFETY: both mappings stay until the pipe is gone: `LinuxPipe` drops the end before them. The lock keeps every
        // other process that goes by it from writing to our section.
        let sections = unsafe { Sections::at(mine.at, yours.at, mine.size) }?;
        let bell = DeviceBell { link: self, partner, limit };
        Ok(LinuxPipe { pipe: Pipe::open(sections, me, partner, bell)?, _maps: [mine, yours] })
    }
}

/// Doorbells by the device.
pub struct DeviceBell {
    link: Link,
    partner: u32,
    limit: Option<Duration>,
}

impl Bell for DeviceBell {
    fn ring(&mut self) {
        self.link.ring(self.partner);
    }

    fn wait(&mut self) -> Result<(), Error> {
        match self.link.wait(self.limit) {
            Ok(true) => Ok(()),
            // No descriptor of ours makes poll(2) fail.
            Ok(false) | Err(_) => Err(Error::WouldBlock),
        }
    }

    fn peer_life(&mut self) -> u32 {
        self.link.life(self.partner)
    }
}

/// A pipe over `/dev/hivc<id>`.
pub struct LinuxPipe {
    /// Declared, and so dropped, before the mappings that it uses.
    pipe: Pipe<'static, DeviceBell>,
    _maps: [Map; 2],
}

impl LinuxPipe {
    /// Waits for the other end.
    ///
    /// # Errors
    /// EBUSY: it talks to somebody else. EAGAIN: it did not come in time.
    pub fn connect(&mut self) -> io::Result<()> {
        Ok(self.pipe.connect()?)
    }

    /// Writes no more.
    pub fn finish(&mut self) {
        self.pipe.finish();
    }

    /// Ends it in good order.
    pub fn close(self) {
        self.pipe.close();
    }

    /// Everything else.
    pub fn pipe(&mut self) -> &mut Pipe<'static, DeviceBell> {
        &mut self.pipe
    }
}

impl AsRawFd for LinuxPipe {
    /// Readable once a doorbell has rung: for poll(2) and what is built on it.
    fn as_raw_fd(&self) -> i32 {
        self.pipe.bell_ref().link.file.as_raw_fd()
    }
}

impl io::Read for LinuxPipe {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        Ok(self.pipe.read(into)?)
    }
}

impl io::Write for LinuxPipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(self.pipe.write(bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
