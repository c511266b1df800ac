//! Counters that a VMM publishes: one page, written by the VMM only, read by whoever maps it.
//!
//! Plain atomics without a sequence lock: each counter is right by itself, and a reader that wants a ratio takes the
//! difference of two readings.

use core::sync::atomic::{AtomicU64, Ordering};

/// What a VMM counts. The numbers are the positions in the page: append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Counter {
    /// Exit: WFI.
    Wfi,
    /// Exit: WFE.
    Wfe,
    /// Exit: SMC (PSCI).
    Smc,
    /// Exit: HVC and other system calls.
    Hypercall,
    /// Exit: trapped system register.
    SystemRegister,
    /// Exit: virtio QueueNotify.
    VirtioNotify,
    /// Exit: virtio InterruptACK.
    VirtioAck,
    /// Exit: other virtio registers.
    VirtioOther,
    /// Exit: interrupt distributor.
    Distributor,
    /// Exit: PL011.
    Uart,
    /// Exit: end of interrupt.
    EndOfInterrupt,
    /// Exit: virtual timer.
    Timer,
    /// Exit: doorbell of a link.
    Doorbell,
    /// Exit: anything else.
    Other,
    /// Interrupts written to list registers.
    Injections,
    /// Times a vCPU was put to sleep.
    Sleeps,
    /// Times the timer PD was asked for a wake-up.
    Alarms,
    /// Notifications received.
    Notifications,
    /// Reads of a vCPU's general-purpose registers.
    RegisterReads,
    /// Milliseconds in which a vCPU ran or waited for its turn; brought up to date once a second.
    BusyMs,
}

impl Counter {
    /// All of them, in order.
    pub const ALL: [Counter; 20] = [
        Counter::Wfi,
        Counter::Wfe,
        Counter::Smc,
        Counter::Hypercall,
        Counter::SystemRegister,
        Counter::VirtioNotify,
        Counter::VirtioAck,
        Counter::VirtioOther,
        Counter::Distributor,
        Counter::Uart,
        Counter::EndOfInterrupt,
        Counter::Timer,
        Counter::Doorbell,
        Counter::Other,
        Counter::Injections,
        Counter::Sleeps,
        Counter::Alarms,
        Counter::Notifications,
        Counter::RegisterReads,
        Counter::BusyMs,
    ];
    /// The first this many of [`Counter::ALL`] are exits: their sum is the number of VM exits.
    pub const EXITS: usize = 14;

    /// Short name for people and scripts.
    pub const fn name(self) -> &'static str {
        match self {
            Counter::Wfi => "wfi",
            Counter::Wfe => "wfe",
            Counter::Smc => "smc",
            Counter::Hypercall => "hvc",
            Counter::SystemRegister => "sysreg",
            Counter::VirtioNotify => "notify",
            Counter::VirtioAck => "ack",
            Counter::VirtioOther => "virtio",
            Counter::Distributor => "gicd",
            Counter::Uart => "uart",
            Counter::EndOfInterrupt => "eoi",
            Counter::Timer => "vtimer",
            Counter::Doorbell => "bells",
            Counter::Other => "other",
            Counter::Injections => "injected",
            Counter::Sleeps => "slept",
            Counter::Alarms => "alarms",
            Counter::Notifications => "notified",
            Counter::RegisterReads => "regreads",
            Counter::BusyMs => "busy_ms",
        }
    }
}

/// The page.
#[repr(C)]
#[derive(Debug)]
pub struct VmmStats {
    counters: [AtomicU64; Counter::ALL.len()],
}

impl VmmStats {
    /// All zero.
    pub const fn new() -> Self {
        Self { counters: [const { AtomicU64::new(0) }; Counter::ALL.len()] }
    }

    /// Adds one. Only the page's writer calls this, so a plain load and store will do.
    pub fn count(&self, counter: Counter) {
        if let Some(cell) = self.counters.get(counter as usize) {
            cell.store(cell.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        }
    }

    /// Writes one that is not counted one by one.
    pub fn set(&self, counter: Counter, value: u64) {
        if let Some(cell) = self.counters.get(counter as usize) {
            cell.store(value, Ordering::Relaxed);
        }
    }

    /// Reads one.
    pub fn get(&self, counter: Counter) -> u64 {
        self.counters.get(counter as usize).map_or(0, |cell| cell.load(Ordering::Relaxed))
    }

    /// VM exits of all kinds.
    pub fn exits(&self) -> u64 {
        Counter::ALL.iter().take(Counter::EXITS).fold(0, |sum, c| sum.wrapping_add(self.get(*c)))
    }
}

impl Default for VmmStats {
    fn default() -> Self {
        Self::new()
    }
}

const _: () = assert!(size_of::<VmmStats>() <= 4096);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_and_sum() {
        let stats = VmmStats::new();
        for (position, counter) in Counter::ALL.into_iter().enumerate() {
            assert_eq!(counter as usize, position);
            stats.count(counter);
            assert_eq!(stats.get(counter), 1);
        }
        assert_eq!(stats.exits(), Counter::EXITS as u64);
        assert!(Counter::ALL[Counter::EXITS] == Counter::Injections);
    }
}
