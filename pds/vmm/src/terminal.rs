//! The guest's terminal: an emulated PL011 and a virtio-console in front of one ring to the console PD.
//!
//! Output of both goes to the ring in order of arrival. Input goes to the virtio-console while a driver runs it, else to
//! the PL011. A full ring stops the guest's output, it never drops any.

use partita_guest::pl011::{Effect, Pl011};
use partita_ring::{Duplex, Rx, Tx};
use partita_virtio::console::{self, Console, Sink, Source};
use partita_virtio::memory::GuestRam;
use partita_virtio::mmio::{RegisterPage, Transport};
use partita_virtio::queue::Fault;

/// Rounds of [`console::Console`]'s budget in one event. Its queues hold twice that many chains.
const ROUNDS: usize = 4;
/// Room in the ring that is worth a wake-up when output is stuck.
const ROOM: usize = 1024;
/// A guest that reads the PL011 this often after a byte waits for an answer (to write a byte takes two or three).
const POLLS: u32 = 8;

struct Out<'t, 'a>(&'t mut Tx<'a>);

impl Sink for Out<'_, '_> {
    fn put(&mut self, bytes: &[u8]) -> usize {
        self.0.write(bytes)
    }
}

struct In<'t, 'a>(&'t mut Rx<'a>);

impl Source for In<'_, '_> {
    fn is_empty(&mut self) -> bool {
        self.0.available() == 0
    }

    fn take(&mut self, into: &mut [u8]) -> usize {
        self.0.read(into)
    }
}

/// The virtio-console device.
pub struct Port<P> {
    /// Its registers.
    pub transport: Transport<P>,
    live: Option<Console>,
}

impl<P: RegisterPage> Port<P> {
    /// After power-on.
    pub fn new(page: P) -> Self {
        let transport = Transport::new(page, console::DEVICE_ID, console::FEATURES, &[], &console::QUEUE_MAX);
        Self { transport, live: None }
    }

    /// The driver is ready.
    pub fn start(&mut self, ram: GuestRam, features: u64) -> Result<(), Fault> {
        self.live = Some(Console::start(ram, features, self.transport.ready_queues())?);
        Ok(())
    }

    /// Nothing is ever in flight, so a reset is complete at once.
    pub fn reset(&mut self) {
        self.live = None;
        self.transport.complete_reset();
    }

    /// The driver broke the rules: the device stands still until it is reset.
    pub fn broken(&mut self) {
        self.live = None;
        self.transport.needs_reset();
    }
}

/// Both devices and the ring.
pub struct Terminal<'a, P> {
    /// The PL011.
    pub uart: Pl011,
    /// The virtio-console, if the cell has one, and its device number.
    pub port: Option<(usize, Port<P>)>,
    ring: Duplex<'a>,
    unsent: bool,
    /// Reads of PL011 registers since it last sent a byte.
    polls: u32,
}

impl<'a, P: RegisterPage> Terminal<'a, P> {
    /// Over the ring to the console PD.
    pub fn new(ring: Duplex<'a>, port: Option<(usize, Port<P>)>) -> Self {
        Self { uart: Pl011::new(), port, ring, unsent: false, polls: 0 }
    }

    /// Puts the PL011 into its reset state, for a restart of the guest.
    pub fn reset(&mut self) {
        self.uart = Pl011::new();
        if let Some((_, port)) = &mut self.port {
            port.reset();
        }
    }

    /// The guest writes a PL011 register. True if what it has sent so far should go to the console PD at once.
    pub fn write_uart(&mut self, offset: u64, value: u32) -> bool {
        let mut flush = false;
        if let Effect::Send(byte) = self.uart.write(offset, value) {
            self.polls = 0;
            self.unsent = true;
            self.ring.tx.write(&[byte]);
            let free = self.ring.tx.free();
            if free == 0 {
                self.hold_uart();
            }
            flush = byte == b'\n' || free <= ROOM;
        }
        if !self.has_driver() {
            self.feed_uart();
        }
        flush
    }

    /// The guest reads a PL011 register. The flag is as for [`Terminal::write_uart`].
    pub fn read_uart(&mut self, offset: u64) -> (u32, bool) {
        let value = self.uart.read(offset);
        if !self.has_driver() {
            self.feed_uart();
        }
        self.polls = self.polls.saturating_add(1);
        (value, self.unsent && self.polls > POLLS)
    }

    /// Bytes of the PL011 wait in the ring without the console PD knowing. A notification for each would cost the guest
    /// far more than the byte; they go at the end of a line, when the guest rests, and with the next tick.
    pub fn take_unsent(&mut self) -> bool {
        core::mem::take(&mut self.unsent)
    }

    /// A driver runs the virtio-console, so input is for that.
    fn has_driver(&self) -> bool {
        self.port.as_ref().is_some_and(|(_, port)| port.live.is_some())
    }

    /// Moves what can be moved in both directions: after a notification of the console PD, a kick, or whatever else may
    /// have made room.
    pub fn pump(&mut self) -> Result<(), Fault> {
        self.hold_uart();
        let Some((_, port)) = &mut self.port else {
            self.feed_uart();
            return Ok(());
        };
        let Some(live) = port.live.as_mut() else {
            self.feed_uart();
            return Ok(());
        };
        let mut interrupt = false;
        for _ in 0..ROUNDS {
            let progress = live.transmit(&mut Out(&mut self.ring.tx))?;
            interrupt |= progress.interrupt;
            let again = progress.more || progress.blocked && self.ring.tx.arm(ROOM);
            if !again {
                break;
            }
        }
        // The ring is one: what the virtio-console has filled is full for the PL011.
        hold(&mut self.uart, &mut self.ring.tx);
        for _ in 0..ROUNDS {
            let progress = live.receive(&mut In(&mut self.ring.rx))?;
            interrupt |= progress.interrupt;
            // Bytes that stay in the ring for want of buffers are taken after the guest's next kick.
            let again = progress.more || self.ring.rx.available() == 0 && self.ring.rx.arm();
            if !again {
                break;
            }
        }
        if interrupt {
            port.transport.raise_used();
        }
        Ok(())
    }

    /// True if the console PD is to be notified. Ask once after an event.
    pub fn owes_notification(&mut self) -> bool {
        // Both have memory: ask both.
        let sent = self.ring.tx.should_notify();
        self.ring.rx.should_notify() | sent
    }

    fn hold_uart(&mut self) {
        hold(&mut self.uart, &mut self.ring.tx);
    }

    fn feed_uart(&mut self) {
        loop {
            let room = self.uart.room();
            let mut byte = [0];
            if room > 0 && self.ring.rx.read(&mut byte) == 1 {
                self.uart.receive(byte[0]);
            } else if room == 0 || !self.ring.rx.arm() {
                // Without room the guest's next read of DR brings us back here.
                return;
            }
        }
    }
}

/// Makes the PL011 wait while the ring is full. Its guest goes on with the notification that is asked for here.
fn hold(uart: &mut Pl011, ring: &mut Tx<'_>) {
    let full = ring.free() == 0 && !ring.arm(ROOM);
    uart.block(full);
}
