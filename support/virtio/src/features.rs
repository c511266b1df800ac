//! Feature bits that do not depend on the device (section 6).

/// The driver can use descriptors with the INDIRECT flag (2.7.5.3).
pub const INDIRECT_DESC: u64 = 1 << 28;
/// `used_event` and `avail_event` replace the notification flags (2.7.7.1, 2.7.10).
pub const EVENT_IDX: u64 = 1 << 29;
/// The device is not a legacy device. Offered always, and a driver that does not accept it is refused.
pub const VERSION_1: u64 = 1 << 32;
