//! The socket device (section 5.10): its numbers and its packet header.
//!
//! What a packet means for a connection is the switch's business (`partita-ivc`); here is what it looks like.

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
