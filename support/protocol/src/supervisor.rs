//! The border between a VMM or service and the supervisor: protected calls up, notifications down.

/// Labels of protected calls to the supervisor. The caller is known by its channel.
pub mod label {
    /// From a VMM: the guest has stopped. MR0 is a [`super::StopReason`]. Devices are reset already. The reply is empty;
    /// the VMM keeps the guest stopped until it is notified.
    pub const GUEST_STOPPED: u64 = 1;
    /// From a VMM: the guest runs (after start or restart).
    pub const GUEST_RUNNING: u64 = 2;
    /// From console: all output handed to it before the last notification has left the UART.
    pub const DRAINED: u64 = 3;
}

/// Why a guest is not running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum StopReason {
    /// PSCI SYSTEM_OFF.
    PowerOff = 1,
    /// PSCI SYSTEM_RESET: the policy decides whether it starts again.
    Reset = 2,
    /// The guest did something the VMM cannot go on after.
    Crash = 3,
}

impl StopReason {
    /// From a message register; anything unknown counts as a crash.
    pub const fn from_word(word: u64) -> Self {
        match word {
            1 => StopReason::PowerOff,
            2 => StopReason::Reset,
            _ => StopReason::Crash,
        }
    }
}
