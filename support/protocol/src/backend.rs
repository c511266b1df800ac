//! The border between a VMM (virtio transport) and a backend PD (blk, later ivc and net).
//!
//! Config plane: protected calls from the VMM. Data plane: a notification VMM → backend says "look at your avail rings",
//! a notification backend → VMM says "look at the [`BackendStatus`] page". The rings themselves are in guest RAM, which
//! the backend maps. It is vhost-user in spirit, with Microkit's means.

use core::sync::atomic::AtomicU32;

use crate::{MAX_DEVICES, MAX_QUEUES};

/// Labels of the protected calls. `MR0` of each call is the backend's device number for this client (for blk: the disk's
/// index in the cell's `disks` of this controller). `MR0` of each reply is a [`Status`].
pub mod label {
    /// Reply: MR1 device features, MR2 number of queues, MR3 greatest queue size, MR4 bytes of config space, MR5.. config
    /// space, 8 bytes a register, little endian.
    pub const INFO: u64 = 1;
    /// MR1 queue, MR2 size, MR3 descriptor area, MR4 driver area (avail), MR5 device area (used); guest physical.
    pub const QUEUE: u64 = 2;
    /// MR1 driver features. After it the device runs (DRIVER_OK).
    pub const START: u64 = 3;
    /// Forget queues and features. [`super::Status::Pending`] while requests of the old queues are in flight: the VMM keeps
    /// the vCPU stopped and asks again when notified.
    pub const RESET: u64 = 4;
}

/// First message register of the config space in an INFO reply.
pub const INFO_CONFIG_MR: usize = 5;

/// Result of a protected call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// Not yet: the backend notifies when it is worth asking again.
    Pending = 1,
    /// No such device for this client.
    NoDevice = 2,
    /// A parameter is out of range (queue, size, address outside RAM, feature not offered).
    Invalid = 3,
    /// The device below is gone or broken.
    Failed = 4,
}

impl Status {
    /// From a message register; anything unknown counts as [`Status::Failed`].
    pub const fn from_word(word: u64) -> Self {
        match word {
            0 => Status::Ok,
            1 => Status::Pending,
            2 => Status::NoDevice,
            3 => Status::Invalid,
            _ => Status::Failed,
        }
    }
}

/// One device's part of [`BackendStatus`].
#[repr(C)]
pub struct DeviceStatus {
    /// Counts used-buffer notifications that the guest is owed, per queue. Wraps.
    pub used: [AtomicU32; MAX_QUEUES],
    /// Counts configuration changes. Wraps.
    pub config: AtomicU32,
    /// Not 0: the guest broke the rules; the VMM sets DEVICE_NEEDS_RESET. Cleared by RESET.
    pub needs_reset: AtomicU32,
    /// Counts the moments at which a pending RESET is worth asking again. Wraps.
    pub reset: AtomicU32,
    /// Keeps devices 32 bytes apart and may be used later.
    pub reserved: AtomicU32,
}

/// The page a backend writes and one VMM reads. Index: the backend's device number for this client.
#[repr(C)]
pub struct BackendStatus {
    /// Devices of this client at this backend.
    pub devices: [DeviceStatus; MAX_DEVICES],
    /// Counts starts of the backend: a change tells the VMM that it was restarted.
    pub generation: AtomicU32,
}

const _: () = assert!(size_of::<DeviceStatus>() == 32);
const _: () = assert!(size_of::<BackendStatus>() <= 4096);
