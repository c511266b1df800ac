//! Wakes the supervisor once a second, without a timer driver.
//!
//! The supervisor learns from `timer` that time passes. A timer that spins or has lost its interrupt tells it nothing, and as it
//! runs above all others but the supervisor, there may be no other event either: nobody would notice. This PD is the event. It
//! has no device; its clock is the kernel's scheduler: its budget comes back once in a period (seL4 manual, "MCS"), and giving
//! the rest of it away (`seL4_Yield`) waits for that. It runs above `timer`, for the microseconds that a notification takes.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod pd {
    use partita_protocol::layout::channel;
    use sel4_microkit::{Channel, NullHandler, protection_domain};

    const SUPERVISOR: Channel = Channel::new(channel::SUPERVISOR);

    #[protection_domain]
    fn init() -> NullHandler {
        loop {
            SUPERVISOR.notify();
            sel4::r#yield();
        }
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
