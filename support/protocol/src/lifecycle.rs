//! What the supervisor wants of a cell, and what its VMM has made of it.
//!
//! States, not commands: the supervisor writes the wanted state and notifies, the VMM works towards it and publishes how
//! far it is. Notifications may coalesce and either side may be restarted; both just look at the pages again.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::MAX_VCPUS;

/// State of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum CellState {
    /// Not running; its devices are reset. RAM keeps its contents until the next start, which loads the images again.
    Stopped = 0,
    /// Running.
    Running = 1,
    /// Its vCPUs are stopped where they were; its devices finish what they had begun.
    Paused = 2,
    /// Only published, never wanted: the guest has stopped itself ([`super::supervisor::StopReason`]).
    Ended = 3,
}

impl CellState {
    /// From a word of a page; anything unknown counts as stopped.
    pub const fn from_word(word: u32) -> Self {
        match word {
            1 => CellState::Running,
            2 => CellState::Paused,
            3 => CellState::Ended,
            _ => CellState::Stopped,
        }
    }
}

/// Written by the supervisor, read by the VMM.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Wanted {
    /// Counts starts. A VMM whose guest was started in an earlier epoch stops it, resets its devices and starts it afresh
    /// if the state is Running. Epoch 0 is the start at boot, for cells with `autostart`.
    pub epoch: AtomicU32,
    /// A [`CellState`].
    pub state: AtomicU32,
    /// Not 0: the supervisor has written the page. Until then the VMM follows `autostart`.
    pub valid: AtomicU32,
}

/// Written by the VMM, read by the supervisor. The supervisor is notified of each change.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Actual {
    /// Epoch of the last start.
    pub epoch: AtomicU32,
    /// A [`CellState`].
    pub state: AtomicU32,
    /// Why it ended ([`super::supervisor::StopReason`]), 0 if it did not.
    pub reason: AtomicU32,
    /// vCPUs that are on.
    pub vcpus_on: AtomicU32,
    /// Counts signs of life for the watchdog: any exit that a dead guest does not make (timer, device and PSCI calls).
    pub heartbeat: AtomicU64,
    /// INTID plus one that was last written to each list register of each vCPU, for the VMM itself: the kernel cannot be
    /// asked, and a VMM that was restarted has to end what is active in them (0: nothing).
    pub held: [[AtomicU32; LIST_REGISTERS]; MAX_VCPUS],
}

/// List registers that are kept track of.
pub const LIST_REGISTERS: usize = 4;

impl Wanted {
    /// Publishes a wish: the state before the epoch, so that a reader of a new epoch sees its state.
    pub fn publish(&self, epoch: u32, state: CellState) {
        self.state.store(state as u32, Ordering::Release);
        self.epoch.store(epoch, Ordering::Release);
        self.valid.store(1, Ordering::Release);
    }

    /// The wish, if there is one.
    pub fn get(&self) -> Option<(u32, CellState)> {
        (self.valid.load(Ordering::Acquire) != 0).then(|| {
            let epoch = self.epoch.load(Ordering::Acquire);
            (epoch, CellState::from_word(self.state.load(Ordering::Acquire)))
        })
    }
}

const _: () = assert!(size_of::<Wanted>() <= 4096 && size_of::<Actual>() <= 4096);
