//! The socket device (section 5.10): its numbers and its packet header.
//!
//! What a packet means for a connection is the switch's business (`partita-ivc`); here is what it looks like.

use crate::memory::GuestRam;
use crate::queue::{Chain, Fault};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// virtio device id.
pub const DEVICE_ID: u32 = 19;
/// Receive, transmit, event (5.10.2).
pub const QUEUES: usize = 3;
/// Index of the receive queue.
pub const RX: usize = 0;
/// Index of the transmit queue.
pub const TX: usize = 1;
/// Index of the event queue.
pub const EVENT: usize = 2;

/// Feature bits (5.10.3).
pub mod feature {
    /// Stream sockets. Implied where a driver accepts no feature at all, and by all drivers that there are.
    pub const STREAM: u64 = 1 << 0;
    /// SEQPACKET sockets.
    pub const SEQPACKET: u64 = 1 << 1;
}

/// virtio_vsock_config (5.10.4).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct VsockConfig {
    /// Context id of the guest.
    pub guest_cid: U64,
}

/// Socket types (5.10.6).
pub mod kind {
    /// Stream.
    pub const STREAM: u16 = 1;
    /// Packets with borders.
    pub const SEQPACKET: u16 = 2;
}

/// Operations (5.10.6).
pub mod op {
    /// Asks for a connection.
    pub const REQUEST: u16 = 1;
    /// Accepts it.
    pub const RESPONSE: u16 = 2;
    /// Refuses or ends it.
    pub const RST: u16 = 3;
    /// Will send or receive no more: [`super::shutdown`].
    pub const SHUTDOWN: u16 = 4;
    /// Payload.
    pub const RW: u16 = 5;
    /// Tells the credit fields.
    pub const CREDIT_UPDATE: u16 = 6;
    /// Asks for them.
    pub const CREDIT_REQUEST: u16 = 7;
}

/// Flags of SHUTDOWN (5.10.6.5).
pub mod shutdown {
    /// Will not receive any more.
    pub const RECEIVE: u32 = 1;
    /// Will not send any more.
    pub const SEND: u32 = 2;
    /// Both.
    pub const BOTH: u32 = RECEIVE | SEND;
}

/// Flags of RW on SEQPACKET (5.10.6.6.2): end of message and end of record. They belong to the last byte.
pub const SEQ_FLAGS: u32 = 3;

/// virtio_vsock_hdr (5.10.6).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Header {
    /// Context id of the sender.
    pub src_cid: U64,
    /// Context id of the receiver.
    pub dst_cid: U64,
    /// Port of the sender.
    pub src_port: U32,
    /// Port of the receiver.
    pub dst_port: U32,
    /// Bytes of payload.
    pub len: U32,
    /// One of [`kind`].
    pub kind: U16,
    /// One of [`op`].
    pub op: U16,
    /// Of SHUTDOWN and RW.
    pub flags: U32,
    /// Bytes that the sender can buffer for this connection.
    pub buf_alloc: U32,
    /// Bytes that have left this buffer since the connection began. Wraps.
    pub fwd_cnt: U32,
}

/// Its size.
pub const HEADER: usize = size_of::<Header>();
const _: () = assert!(HEADER == 44);

/// virtio_vsock_event (5.10.6.7): all connections are gone, listening sockets stay.
pub const EVENT_TRANSPORT_RESET: u32 = 0;

/// Descriptors of one transmit chain that are looked at. Linux takes at most 19: the header and the fragments of a buffer.
pub const SEGMENTS: usize = 128;

/// Where the payload of a packet is: checked ranges of the sender's RAM.
#[derive(Debug)]
pub struct Payload {
    segments: [(u64, u32); SEGMENTS],
    count: usize,
    bytes: u64,
}

impl Payload {
    /// None.
    pub const fn new() -> Self {
        Self { segments: [(0, 0); SEGMENTS], count: 0, bytes: 0 }
    }

    /// Bytes that the chain has behind its header. The header may name fewer.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Calls `f(address, offset in the range asked for, bytes)` for each piece of `len` bytes from `offset`.
    pub fn pieces<E>(
        &self,
        offset: u32,
        len: u32,
        mut f: impl FnMut(u64, u32, u32) -> Result<(), E>,
    ) -> Result<(), E> {
        let (mut skip, mut done) = (offset, 0);
        for (address, bytes) in self.segments.iter().take(self.count) {
            if done == len {
                break;
            }
            if skip >= *bytes {
                skip -= bytes;
                continue;
            }
            let take = (bytes - skip).min(len - done);
            f(address + u64::from(skip), done, take)?;
            done += take;
            skip = 0;
        }
        Ok(())
    }

    /// Reads a chain of the transmit queue: copies the header, which may lie in several descriptors, and notes where the
    /// payload is. An error is the driver's fault: the chain cannot be a packet.
    pub fn parse(&mut self, chain: &mut Chain) -> Result<Header, Fault> {
        let mut header = Header::default();
        let (mut have, ram) = (0, *chain.ram());
        (self.count, self.bytes) = (0, 0);
        while let Some(descriptor) = chain.next_descriptor()? {
            if descriptor.writable {
                return Err(Fault::Framing);
            }
            ram.offset(descriptor.addr, descriptor.len.into()).ok_or(Fault::OutOfRam)?;
            let rest = header.as_mut_bytes().get_mut(have..).unwrap_or_default();
            let take = rest.len().min(descriptor.len as usize);
            if let Some(rest) = rest.get_mut(..take) {
                ram.read(descriptor.addr, rest)?;
            }
            have += take;
            let len = descriptor.len - take as u32;
            if len > 0 {
                let place = self.segments.get_mut(self.count).ok_or(Fault::ChainLength)?;
                *place = (descriptor.addr + take as u64, len);
                self.count += 1;
                self.bytes += u64::from(len);
            }
        }
        if have < HEADER { Err(Fault::Framing) } else { Ok(header) }
    }
}

impl Default for Payload {
    fn default() -> Self {
        Self::new()
    }
}

/// Descriptors of one receive chain that are filled. Linux gives one or two.
const RX_SEGMENTS: usize = 8;

/// A buffer of the receive queue, big enough for a header.
#[derive(Debug)]
pub struct RxBuffer {
    head: u16,
    segments: [(u64, u32); RX_SEGMENTS],
    count: usize,
    room: u32,
}

impl Default for RxBuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl RxBuffer {
    /// None.
    pub const fn new() -> Self {
        Self { head: 0, segments: [(0, 0); RX_SEGMENTS], count: 0, room: 0 }
    }

    /// Takes a chain of the receive queue. What lies outside RAM is found when it is written. In place, as this happens for
    /// every buffer and the structures are large.
    #[inline]
    pub fn take(&mut self, chain: &mut Chain) -> Result<(), Fault> {
        let mut bytes = 0u32;
        (self.head, self.count) = (chain.head(), 0);
        while let Some(descriptor) = chain.next_descriptor()? {
            if !descriptor.writable {
                return Err(Fault::Framing);
            }
            let Some(place) = self.segments.get_mut(self.count) else { break };
            *place = (descriptor.addr, descriptor.len);
            self.count += 1;
            bytes = bytes.saturating_add(descriptor.len);
        }
        self.room = bytes.checked_sub(HEADER as u32).ok_or(Fault::Framing)?;
        Ok(())
    }

    /// Index of its first descriptor.
    pub const fn head(&self) -> u16 {
        self.head
    }

    /// Bytes of payload that fit.
    pub const fn room(&self) -> u32 {
        self.room
    }

    /// Writes the header.
    pub fn write_header(&self, ram: &GuestRam, header: &Header) -> Result<(), Fault> {
        let bytes = header.as_bytes();
        self.pieces(0, HEADER as u32, |address, done, len| {
            let part = bytes.get(done as usize..(done + len) as usize).unwrap_or_default();
            Ok(ram.write(address, part)?)
        })
    }

    /// Calls `f(address, offset in the range asked for, bytes)` for each piece of `len` bytes of payload from `offset`.
    pub fn payload(
        &self,
        offset: u32,
        len: u32,
        f: impl FnMut(u64, u32, u32) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.pieces(offset.saturating_add(HEADER as u32), len, f)
    }

    fn pieces(
        &self,
        from: u32,
        len: u32,
        mut f: impl FnMut(u64, u32, u32) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let (mut skip, mut done) = (from, 0);
        for (address, bytes) in self.segments.iter().take(self.count) {
            if done == len {
                break;
            }
            if skip >= *bytes {
                skip -= bytes;
                continue;
            }
            let take = (bytes - skip).min(len - done);
            let address = address.checked_add(skip.into()).ok_or(Fault::OutOfRam)?;
            f(address, done, take)?;
            done += take;
            skip = 0;
        }
        Ok(())
    }
}
