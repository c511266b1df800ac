//! Register offsets (4.2.2, table 4.1) and the bits of Status (2.1) and InterruptStatus (4.2.2).

use bitflags::bitflags;

/// Offsets of the registers in the page.
pub mod reg {
    #![allow(missing_docs)] // The names are the specification's.
    pub const MAGIC: usize = 0x000;
    pub const VERSION: usize = 0x004;
    pub const DEVICE_ID: usize = 0x008;
    pub const VENDOR_ID: usize = 0x00c;
    pub const DEVICE_FEATURES: usize = 0x010;
    pub const DEVICE_FEATURES_SEL: usize = 0x014;
    pub const DRIVER_FEATURES: usize = 0x020;
    pub const DRIVER_FEATURES_SEL: usize = 0x024;
    pub const QUEUE_SEL: usize = 0x030;
    pub const QUEUE_NUM_MAX: usize = 0x034;
    pub const QUEUE_NUM: usize = 0x038;
    pub const QUEUE_READY: usize = 0x044;
    pub const QUEUE_NOTIFY: usize = 0x050;
    pub const INTERRUPT_STATUS: usize = 0x060;
    pub const INTERRUPT_ACK: usize = 0x064;
    pub const STATUS: usize = 0x070;
    pub const QUEUE_DESC_LOW: usize = 0x080;
    pub const QUEUE_DESC_HIGH: usize = 0x084;
    pub const QUEUE_DRIVER_LOW: usize = 0x090;
    pub const QUEUE_DRIVER_HIGH: usize = 0x094;
    pub const QUEUE_DEVICE_LOW: usize = 0x0a0;
    pub const QUEUE_DEVICE_HIGH: usize = 0x0a4;
    pub const SHM_SEL: usize = 0x0ac;
    pub const SHM_LEN_LOW: usize = 0x0b0;
    pub const CONFIG_GENERATION: usize = 0x0fc;
    pub const CONFIG: usize = 0x100;

    /// "virt".
    pub const MAGIC_VALUE: u32 = u32::from_le_bytes(*b"virt");
}

bitflags! {
    /// Device status (2.1).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Status: u32 {
        /// The guest has found the device.
        const ACKNOWLEDGE = 1;
        /// It has a driver for it.
        const DRIVER = 2;
        /// The driver is ready: the device runs.
        const DRIVER_OK = 4;
        /// Feature negotiation is complete.
        const FEATURES_OK = 8;
        /// The device has met an error it cannot recover from.
        const DEVICE_NEEDS_RESET = 64;
        /// The driver has given up.
        const FAILED = 128;
    }

    /// Why the device interrupts.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct InterruptStatus: u32 {
        /// The device used a buffer in some queue.
        const USED_BUFFER = 1;
        /// The configuration, or DEVICE_NEEDS_RESET, changed.
        const CONFIGURATION = 2;
    }
}
