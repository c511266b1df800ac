//! The border between a client (VMM or service) and the timer PD.
//!
//! No call and no reply: a client writes its deadline to its own page and notifies; timer notifies when it has passed. A
//! client that finds an equal or earlier deadline armed already may skip the notification and take the early wake-up.

use core::sync::atomic::{AtomicU32, AtomicU64};

/// Written by the client, read by timer.
#[repr(C)]
pub struct TimerRequest {
    /// Count of the architected counter (CNTPCT) at which to be notified; [`NEVER`] for none. One-shot: once it has fired,
    /// it is armed again only by a notification.
    pub deadline: AtomicU64,
}

/// Written by timer, read by the client.
#[repr(C)]
pub struct TimerState {
    /// Deadline that has last fired for this client. A stored deadline at or before it will not fire again.
    pub fired: AtomicU64,
    /// Notifications sent to this client. Wraps.
    pub count: AtomicU32,
}

/// No deadline.
pub const NEVER: u64 = u64::MAX;
