//! virtio-console, port 0 only (section 5.3): a byte stream each way over two queues.
//!
//! No byte is lost on the way out: a transmit buffer is returned to the driver only when the sink has taken all of it. A
//! full sink therefore holds the guest's buffers, the guest's tty blocks, and nobody needs to drop anything. On the way
//! in, bytes are taken from the source only once there is a place for them in guest memory.

use crate::features;
use crate::memory::GuestRam;
use crate::queue::{Chain, Descriptor, Fault, Queue, QueueLayout};

/// Device id (5.3.1).
pub const DEVICE_ID: u32 = 3;
/// Queue of buffers that the device fills (5.3.2).
pub const RECEIVEQ: u16 = 0;
/// Queue of buffers that the device sends.
pub const TRANSMITQ: u16 = 1;
/// What this device offers beside VERSION_1. Neither SIZE nor MULTIPORT: configuration space is empty.
pub const FEATURES: u64 = features::INDIRECT_DESC | features::EVENT_IDX;
/// Greatest queue sizes.
pub const QUEUE_MAX: [u16; 2] = [128, 128];

/// Chains handled in one call, so that a guest cannot keep us in it.
const BUDGET: usize = 64;

/// Where the guest's output goes.
pub trait Sink {
    /// Takes bytes from the front of `bytes` and says how many. 0 if it is full.
    fn put(&mut self, bytes: &[u8]) -> usize;
}

/// Where the guest's input comes from.
pub trait Source {
    /// Is there something to read?
    fn is_empty(&mut self) -> bool;
    /// Moves bytes to the front of `into` and says how many.
    fn take(&mut self, into: &mut [u8]) -> usize;
}

/// What a call left to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Progress {
    /// The driver wants an interrupt ([`crate::mmio::Transport::raise_used`]).
    pub interrupt: bool,
    /// The sink is full: call [`Console::transmit`] again when it has room.
    pub blocked: bool,
    /// The budget is spent: call again soon.
    pub more: bool,
}

/// A transmit buffer that is partly sent.
#[derive(Clone, Copy, Debug)]
struct Sending {
    chain: Chain,
    /// Descriptor and bytes of it that are sent.
    at: Option<(Descriptor, u32)>,
}

/// A live console: exists from DRIVER_OK to reset.
#[derive(Debug, Default)]
pub struct Console {
    receive: Option<Queue>,
    transmit: Option<Queue>,
    sending: Option<Sending>,
}

impl Console {
    /// Takes the driver's queues into use. A queue that the driver has not set up stays unused.
    pub fn start(
        ram: GuestRam,
        features: u64,
        queues: impl Iterator<Item = (u16, QueueLayout)>,
    ) -> Result<Self, Fault> {
        let mut console = Self::default();
        for (index, layout) in queues {
            match index {
                RECEIVEQ => console.receive = Some(Queue::new(ram, layout, QUEUE_MAX[0], features)?),
                TRANSMITQ => console.transmit = Some(Queue::new(ram, layout, QUEUE_MAX[1], features)?),
                _ => {}
            }
        }
        Ok(console)
    }

    /// Moves the guest's output to `sink`: after a notification of [`TRANSMITQ`], and when the sink has room again.
    pub fn transmit(&mut self, sink: &mut impl Sink) -> Result<Progress, Fault> {
        let Some(queue) = self.transmit.as_mut() else { return Ok(Progress::default()) };
        let mut progress = Progress::default();
        queue.disable_kicks()?;
        for _ in 0..BUDGET {
            let sending = match self.sending.take() {
                Some(sending) => sending,
                None => match queue.pop()? {
                    Some(chain) => Sending { chain, at: None },
                    None if queue.enable_kicks()? => continue,
                    None => {
                        progress.interrupt |= queue.publish()?;
                        return Ok(progress);
                    }
                },
            };
            match send(queue.ram(), sending, sink)? {
                None => queue.push(sending.chain.head(), 0)?,
                Some(rest) => {
                    self.sending = Some(rest);
                    progress.blocked = true;
                    break;
                }
            }
        }
        progress.more = !progress.blocked;
        progress.interrupt |= queue.publish()?;
        Ok(progress)
    }

    /// Moves input from `source` to the guest: when the source has bytes, and after a notification of [`RECEIVEQ`].
    pub fn receive(&mut self, source: &mut impl Source) -> Result<Progress, Fault> {
        let Some(queue) = self.receive.as_mut() else { return Ok(Progress::default()) };
        let mut progress = Progress::default();
        // Kicks are of use only while bytes wait for buffers.
        queue.disable_kicks()?;
        for _ in 0..BUDGET {
            if source.is_empty() {
                progress.interrupt |= queue.publish()?;
                return Ok(progress);
            }
            match queue.pop()? {
                Some(chain) => {
                    let written = fill(chain, source)?;
                    queue.push(chain.head(), written)?;
                }
                None if queue.enable_kicks()? => {}
                None => {
                    progress.interrupt |= queue.publish()?;
                    return Ok(progress);
                }
            }
        }
        progress.more = true;
        progress.interrupt |= queue.publish()?;
        Ok(progress)
    }
}

/// Sends until the chain is done (`None`) or the sink is full.
fn send(ram: &GuestRam, mut sending: Sending, sink: &mut impl Sink) -> Result<Option<Sending>, Fault> {
    let mut bytes = [0; 256];
    // A chain may not be longer than 2^32 bytes (2.7.4.2), which also bounds this loop.
    let mut budget = u64::from(u32::MAX);
    loop {
        let (descriptor, done) = match sending.at {
            Some(at) => at,
            None => match sending.chain.next_descriptor()? {
                None => return Ok(None),
                // Nothing is ever written to a transmit buffer: a writable part is skipped.
                Some(descriptor) if descriptor.writable => continue,
                Some(descriptor) => {
                    ram.offset(descriptor.addr, u64::from(descriptor.len)).ok_or(Fault::OutOfRam)?;
                    budget = budget.checked_sub(u64::from(descriptor.len)).ok_or(Fault::Framing)?;
                    (descriptor, 0)
                }
            },
        };
        sending.at = Some((descriptor, done));
        let rest = descriptor.len.saturating_sub(done);
        let part = bytes.get_mut(..(rest as usize).min(256)).unwrap_or_default();
        ram.read(descriptor.addr + u64::from(done), part)?;
        let taken = sink.put(part).min(part.len()) as u32;
        if taken == 0 {
            return Ok(Some(sending));
        }
        sending.at = if taken == rest { None } else { Some((descriptor, done + taken)) };
    }
}

/// Fills the chain's writable part as far as the source reaches. Returns the bytes written.
fn fill(mut chain: Chain, source: &mut impl Source) -> Result<u32, Fault> {
    let ram = *chain.ram();
    let mut bytes = [0; 256];
    let mut written = 0u32;
    while let Some(descriptor) = chain.next_descriptor()? {
        if !descriptor.writable {
            continue;
        }
        ram.offset(descriptor.addr, u64::from(descriptor.len)).ok_or(Fault::OutOfRam)?;
        let mut done = 0;
        while done < descriptor.len {
            let room = ((descriptor.len - done) as usize).min(256);
            let part = bytes.get_mut(..room).unwrap_or_default();
            let taken = source.take(part).min(room);
            if taken == 0 {
                return Ok(written);
            }
            ram.write(descriptor.addr + u64::from(done), part.get(..taken).unwrap_or_default())?;
            done += taken as u32;
            written = written.checked_add(taken as u32).ok_or(Fault::Framing)?;
        }
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Buffer, DriverQueue, FakeRam};
    use proptest::prelude::*;
    use std::collections::VecDeque;

    const BASE: u64 = 0x4000_0000;

    /// Takes at most `room` bytes before it is emptied.
    #[derive(Default)]
    struct Pipe {
        bytes: VecDeque<u8>,
        room: usize,
        moved: Vec<u8>,
    }
    impl Sink for Pipe {
        fn put(&mut self, bytes: &[u8]) -> usize {
            let n = bytes.len().min(self.room);
            self.room -= n;
            self.moved.extend(&bytes[..n]);
            n
        }
    }
    impl Source for Pipe {
        fn is_empty(&mut self) -> bool {
            self.bytes.is_empty()
        }
        fn take(&mut self, into: &mut [u8]) -> usize {
            let n = into.len().min(self.bytes.len());
            for (to, from) in into.iter_mut().zip(self.bytes.drain(..n)) {
                *to = from;
            }
            n
        }
    }

    struct Guest {
        ram: FakeRam,
        rx: DriverQueue,
        tx: DriverQueue,
        console: Console,
    }

    fn guest(features: u64) -> Guest {
        let ram = FakeRam::new(BASE, 0x10000, 0);
        let event_idx = features & features::EVENT_IDX != 0;
        let rx = DriverQueue::new(ram.ram(), BASE, 8, event_idx);
        let tx = DriverQueue::new(ram.ram(), BASE + 0x1000, 8, event_idx);
        let queues = [(RECEIVEQ, rx.layout), (TRANSMITQ, tx.layout)];
        let console = Console::start(ram.ram(), features, queues.into_iter()).unwrap();
        Guest { ram, rx, tx, console }
    }

    #[test]
    fn output_waits_for_the_sink() {
        let mut g = guest(FEATURES);
        g.ram.ram().write(BASE + 0x2000, b"hello, world").unwrap();
        let head = g.tx.add(&[Buffer::out(BASE + 0x2000, 5), Buffer::out(BASE + 0x2005, 7)]).unwrap();
        assert!(g.tx.needs_kick());
        let mut pipe = Pipe { room: 3, ..Pipe::default() };
        assert_eq!(
            g.console.transmit(&mut pipe).unwrap(),
            Progress { interrupt: false, blocked: true, more: false }
        );
        assert_eq!(g.tx.take_used(), None, "not sent, not used");
        pipe.room = 5;
        assert!(g.console.transmit(&mut pipe).unwrap().blocked);
        assert_eq!(g.tx.take_used(), None);
        pipe.room = 100;
        assert_eq!(
            g.console.transmit(&mut pipe).unwrap(),
            Progress { interrupt: true, blocked: false, more: false }
        );
        assert_eq!(pipe.moved, b"hello, world");
        assert_eq!(g.tx.take_used(), Some((head, 0)));
    }

    #[test]
    fn input_needs_buffers() {
        let mut g = guest(FEATURES);
        let mut pipe = Pipe { bytes: b"0123456789".iter().copied().collect(), ..Pipe::default() };
        assert_eq!(g.console.receive(&mut pipe).unwrap(), Progress::default());
        assert_eq!(pipe.bytes.len(), 10);
        let head = g.rx.add(&[Buffer::into(BASE + 0x2000, 4)]).unwrap();
        assert!(g.rx.needs_kick(), "bytes are waiting");
        assert!(g.console.receive(&mut pipe).unwrap().interrupt);
        assert_eq!(g.rx.take_used(), Some((head, 4)));
        let head = g.rx.add(&[Buffer::into(BASE + 0x2004, 2), Buffer::into(BASE + 0x2006, 100)]).unwrap();
        assert!(g.rx.needs_kick(), "bytes are still waiting");
        g.rx.want_interrupt(true);
        assert!(g.console.receive(&mut pipe).unwrap().interrupt);
        assert_eq!(g.rx.take_used(), Some((head, 6)));
        assert_eq!(g.ram.bytes(BASE + 0x2000, 10), b"0123456789");
        assert!(g.rx.add(&[Buffer::into(BASE + 0x2000, 4)]).is_some());
        assert!(!g.rx.needs_kick(), "nobody waits for it");
    }

    #[test]
    fn out_of_ram_is_the_guests_fault() {
        let mut g = guest(0);
        g.tx.add(&[Buffer::out(BASE + 0xffff, 2)]).unwrap();
        assert_eq!(g.console.transmit(&mut Pipe { room: 9, ..Pipe::default() }), Err(Fault::OutOfRam));
        g.rx.add(&[Buffer::into(BASE - 1, 2)]).unwrap();
        let mut pipe = Pipe { bytes: [1].into(), ..Pipe::default() };
        assert_eq!(g.console.receive(&mut pipe), Err(Fault::OutOfRam));
        assert_eq!(pipe.bytes.len(), 1, "not taken");
    }

    proptest! {
        /// Output arrives whole and in order, whatever the chains and however the sink blocks.
        #[test]
        fn transmits_everything(
            writes in prop::collection::vec((1u32..600, 1usize..4, any::<bool>()), 1..40),
            rooms in prop::collection::vec(0usize..900, 1..20),
            features in prop_oneof![Just(FEATURES), Just(features::INDIRECT_DESC)],
        ) {
            let mut g = guest(features);
            let mut pipe = Pipe::default();
            let mut sent = Vec::new();
            let mut rooms = rooms.into_iter().cycle();
            let mut kicked = false;
            for (i, (len, parts, indirect)) in writes.iter().enumerate() {
                let slot = BASE + 0x2000 + 0x800 * (i as u64 % 8);
                let bytes: Vec<u8> = (0..*len).map(|n| (n as usize * 7 + i) as u8).collect();
                g.ram.ram().write(slot, &bytes).unwrap();
                let cut = len.div_ceil(*parts as u32);
                let buffers: Vec<_> = (0..*len)
                    .step_by(cut as usize)
                    .map(|at| Buffer::out(slot + u64::from(at), cut.min(len - at)))
                    .collect();
                let added = if *indirect {
                    g.tx.add_indirect(slot + 0x700, &buffers)
                } else {
                    g.tx.add(&buffers)
                };
                prop_assert!(added.is_some());
                sent.extend(bytes);
                kicked |= g.tx.needs_kick();
                // Drain this write, so that its memory can be used again.
                let mut done = false;
                for _ in 0..2000 {
                    pipe.room += rooms.next().unwrap() + 1;
                    if !kicked && !done {
                        prop_assert!(false, "the device sleeps although there is output");
                    }
                    let progress = g.console.transmit(&mut pipe).unwrap();
                    while g.tx.take_used().is_some() { done = true; }
                    if !progress.blocked && !progress.more { kicked = false; }
                    if done { break; }
                }
                prop_assert!(done);
                if kicked { while g.console.transmit(&mut pipe).unwrap().more {} kicked = false; }
            }
            prop_assert_eq!(pipe.moved, sent);
        }
    }
}
