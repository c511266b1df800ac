//! virtio over MMIO (section 4.2) where the register page is memory.
//!
//! The guest reads registers without an exit: the page is mapped read-only into it and always holds what a load must
//! return. A store faults to the VMM, which passes it to [`Transport::write`]; that updates the words which depend on it
//! and answers with the [`Action`] that is left to do. Registers that answer for a selector (DeviceFeatures, QueueNumMax,
//! QueueReady) are refreshed when the selector is written.
//!
//! Reset may take time, because the backend must first finish the requests whose buffers are in the guest's RAM. Between
//! [`Action::Reset`] and [`Transport::complete_reset`] the guest is held and everything written is ignored; Status still
//! reads as before, as 4.2.2.2 wants until the reset is complete.

pub mod registers;

use crate::features;
use crate::queue::QueueLayout;
use registers::{InterruptStatus, Status, reg};

/// Most queues of one device.
pub const MAX_QUEUES: usize = 4;
/// Most bytes of configuration space.
pub const MAX_CONFIG: usize = 128;

/// The page that the guest reads. Implementations store 32-bit words, aligned, little endian, in the order of the calls.
pub trait RegisterPage {
    /// Stores `value` at byte `offset`, a multiple of 4 below 4096.
    fn store(&mut self, offset: usize, value: u32);
}

/// What a store by the guest asks of the VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Action {
    /// Nothing: the page is up to date.
    None,
    /// The driver made buffers available in this queue, which is in use.
    Notify(u16),
    /// The device goes live with these features: hand the ready queues ([`Transport::ready_queues`]) to the backend. If it
    /// refuses, call [`Transport::needs_reset`].
    DriverOk {
        /// Negotiated.
        features: u64,
    },
    /// A live device is reset: stop the backend, then call [`Transport::complete_reset`]. Hold the guest until then.
    Reset,
    /// Interrupt bits were acknowledged. `pending`: others are still set.
    InterruptAck {
        /// The interrupt line stays up.
        pending: bool,
    },
    /// The driver wrote to configuration space (offset within it; in range and aligned). The page is not changed.
    ConfigWrite {
        /// From the start of configuration space.
        offset: u16,
        /// 1, 2, 4 bytes.
        width: u8,
        /// Low `width` bytes.
        value: u32,
    },
    /// The store had no effect.
    Ignored(Ignored),
    /// The driver broke the protocol: DEVICE_NEEDS_RESET is set. Raise the interrupt if [`Transport::interrupt_pending`].
    Broken(Violation),
}

/// Why a store had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// Control registers are 32 bits wide and aligned (4.2.2.2).
    Access,
    /// Read-only, reserved, or after the end of configuration space.
    NotWritable,
    /// A reset is pending.
    Resetting,
    /// Not allowed in this state of the device, or for a queue that is in use.
    State,
    /// No such queue, or not in use.
    Queue,
}

/// What a driver did that only a reset mends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// DRIVER_OK without FEATURES_OK (3.1.1).
    NoFeaturesOk,
    /// A queue was made ready with a size or alignment that section 2.7 forbids.
    QueueLayout,
}

#[derive(Clone, Copy, Debug, Default)]
struct QueueState {
    max: u16,
    ready: bool,
    /// QueueNum as written; checked when the queue becomes ready.
    size: u32,
    desc: u64,
    avail: u64,
    used: u64,
}

/// One device's registers.
#[derive(Debug)]
pub struct Transport<P> {
    page: P,
    device_features: u64,
    driver_features: u64,
    device_features_sel: u32,
    driver_features_sel: u32,
    queue_sel: u32,
    queues: [QueueState; MAX_QUEUES],
    queue_count: usize,
    status: Status,
    interrupt: InterruptStatus,
    resetting: bool,
    config_len: usize,
    generation: u32,
}

/// Vendor that VendorID names: "PRTA".
pub const VENDOR: u32 = u32::from_le_bytes(*b"PRTA");

impl<P: RegisterPage> Transport<P> {
    /// A device after power-on. VERSION_1 is always offered. Queues beyond [`MAX_QUEUES`] and configuration bytes beyond
    /// [`MAX_CONFIG`] do not exist.
    pub fn new(page: P, device_id: u32, device_features: u64, config: &[u8], queue_max: &[u16]) -> Self {
        let mut transport = Self {
            page,
            device_features: device_features | features::VERSION_1,
            driver_features: 0,
            device_features_sel: 0,
            driver_features_sel: 0,
            queue_sel: 0,
            queues: [QueueState::default(); MAX_QUEUES],
            queue_count: queue_max.len().min(MAX_QUEUES),
            status: Status::empty(),
            interrupt: InterruptStatus::empty(),
            resetting: false,
            config_len: config.len().min(MAX_CONFIG),
            generation: 0,
        };
        for (queue, max) in transport.queues.iter_mut().zip(queue_max) {
            queue.max = *max;
        }
        for offset in (0..0x1000).step_by(4) {
            transport.page.store(offset, 0);
        }
        transport.page.store(reg::MAGIC, reg::MAGIC_VALUE);
        transport.page.store(reg::VERSION, 2);
        transport.page.store(reg::DEVICE_ID, device_id);
        transport.page.store(reg::VENDOR_ID, VENDOR);
        // No shared memory regions: length and base read as -1 (4.2.2.1).
        for offset in (reg::SHM_LEN_LOW..reg::SHM_LEN_LOW + 16).step_by(4) {
            transport.page.store(offset, u32::MAX);
        }
        transport.store_config(config);
        transport.refresh();
        transport
    }

    /// A store of `width` bytes by the guest at `offset` in the page.
    pub fn write(&mut self, offset: usize, width: u8, value: u64) -> Action {
        if self.resetting {
            return Action::Ignored(Ignored::Resetting);
        }
        if offset >= reg::CONFIG {
            return self.write_config(offset - reg::CONFIG, width, value);
        }
        if width != 4 || !offset.is_multiple_of(4) {
            return Action::Ignored(Ignored::Access);
        }
        let value = value as u32;
        match offset {
            reg::DEVICE_FEATURES_SEL => {
                self.device_features_sel = value;
                self.page.store(reg::DEVICE_FEATURES, half(self.device_features, value));
                Action::None
            }
            reg::DRIVER_FEATURES_SEL => {
                self.driver_features_sel = value;
                Action::None
            }
            reg::DRIVER_FEATURES => self.write_driver_features(value),
            reg::QUEUE_SEL => {
                self.queue_sel = value;
                self.refresh_queue();
                Action::None
            }
            reg::QUEUE_NOTIFY => self.notify(value),
            reg::INTERRUPT_ACK => {
                self.interrupt.remove(InterruptStatus::from_bits_retain(value));
                self.page.store(reg::INTERRUPT_STATUS, self.interrupt.bits());
                Action::InterruptAck { pending: self.interrupt_pending() }
            }
            reg::STATUS => self.write_status(value),
            reg::QUEUE_READY => self.write_queue_ready(value),
            reg::QUEUE_NUM => self.set_queue(|queue| queue.size = value),
            reg::QUEUE_DESC_LOW => self.set_queue(|queue| set_low(&mut queue.desc, value)),
            reg::QUEUE_DESC_HIGH => self.set_queue(|queue| set_high(&mut queue.desc, value)),
            reg::QUEUE_DRIVER_LOW => self.set_queue(|queue| set_low(&mut queue.avail, value)),
            reg::QUEUE_DRIVER_HIGH => self.set_queue(|queue| set_high(&mut queue.avail, value)),
            reg::QUEUE_DEVICE_LOW => self.set_queue(|queue| set_low(&mut queue.used, value)),
            reg::QUEUE_DEVICE_HIGH => self.set_queue(|queue| set_high(&mut queue.used, value)),
            // There is no region to select, and no offered feature gives QueueReset a meaning.
            reg::SHM_SEL => Action::None,
            _ => Action::Ignored(Ignored::NotWritable),
        }
    }

    /// The backend used buffers. True if the interrupt must be raised.
    pub fn raise_used(&mut self) -> bool {
        self.raise(InterruptStatus::USED_BUFFER)
    }

    /// Replaces configuration space (at most as long as it was) and tells the driver. True if the interrupt must be raised.
    pub fn raise_config(&mut self, config: &[u8]) -> bool {
        // A driver that reads while we store sees a new generation before or after (2.5.1); what it may have read torn it
        // reads again because of the interrupt.
        self.bump_generation();
        self.store_config(config);
        self.bump_generation();
        self.raise(InterruptStatus::CONFIGURATION)
    }

    /// Sets DEVICE_NEEDS_RESET (2.1.2). True if the interrupt must be raised.
    pub fn needs_reset(&mut self) -> bool {
        if self.resetting {
            return false;
        }
        self.set_status(self.status | Status::DEVICE_NEEDS_RESET);
        self.bump_generation();
        self.raise(InterruptStatus::CONFIGURATION)
    }

    /// The backend holds nothing of the old queues any more: back to power-on.
    pub fn complete_reset(&mut self) {
        self.resetting = false;
        self.driver_features = 0;
        self.device_features_sel = 0;
        self.driver_features_sel = 0;
        self.queue_sel = 0;
        for queue in &mut self.queues {
            *queue = QueueState { max: queue.max, ..QueueState::default() };
        }
        self.interrupt = InterruptStatus::empty();
        self.status = Status::empty();
        self.refresh();
    }

    /// Starts a reset that the guest did not ask for by a register (its restart). True if the backend must be stopped
    /// before [`Transport::complete_reset`].
    pub fn begin_reset(&mut self) -> bool {
        self.resetting = true;
        self.is_live()
    }

    /// Some interrupt bit is set: the level of the device's line.
    pub const fn interrupt_pending(&self) -> bool {
        !self.interrupt.is_empty()
    }

    /// The interrupt bits that the guest reads.
    pub const fn interrupt_status(&self) -> InterruptStatus {
        self.interrupt
    }

    /// DRIVER_OK was accepted and no reset has completed since.
    pub const fn is_live(&self) -> bool {
        self.status.contains(Status::DRIVER_OK)
    }

    /// Between [`Action::Reset`] and [`Transport::complete_reset`].
    pub const fn is_resetting(&self) -> bool {
        self.resetting
    }

    /// Device status.
    pub const fn status(&self) -> Status {
        self.status
    }

    /// Negotiated features.
    pub const fn driver_features(&self) -> u64 {
        self.driver_features
    }

    /// Queues that the driver made ready, with their index. Sizes and alignments are checked, addresses are not.
    pub fn ready_queues(&self) -> impl Iterator<Item = (u16, QueueLayout)> + '_ {
        (0u16..)
            .zip(self.queues.iter())
            .filter(|(_, queue)| queue.ready)
            .map(|(i, queue)| (i, queue.layout()))
    }

    fn raise(&mut self, bit: InterruptStatus) -> bool {
        if self.resetting || !self.is_live() {
            return false;
        }
        self.interrupt |= bit;
        self.page.store(reg::INTERRUPT_STATUS, self.interrupt.bits());
        true
    }

    fn notify(&mut self, value: u32) -> Action {
        let ready = |queue: &QueueState| queue.ready;
        match u16::try_from(value) {
            Ok(queue) if self.queues.get(usize::from(queue)).is_some_and(ready) => {
                // Before DRIVER_OK the device consumes nothing (3.1.2); it looks at its queues when it goes live.
                if self.is_live() { Action::Notify(queue) } else { Action::Ignored(Ignored::State) }
            }
            _ => Action::Ignored(Ignored::Queue),
        }
    }

    fn write_driver_features(&mut self, value: u32) -> Action {
        if self.status.contains(Status::FEATURES_OK) {
            return Action::Ignored(Ignored::State);
        }
        match self.driver_features_sel {
            0 => set_low(&mut self.driver_features, value),
            1 => set_high(&mut self.driver_features, value),
            // Words that we do not offer anything in: a driver may write 0 there.
            _ => {}
        }
        Action::None
    }

    fn write_status(&mut self, value: u32) -> Action {
        if value == 0 {
            if self.begin_reset() {
                return Action::Reset;
            }
            self.complete_reset();
            return Action::None;
        }
        // A driver must not clear bits (2.1.1) and cannot: DEVICE_NEEDS_RESET stays although drivers do not write it.
        let mut wanted =
            Status::from_bits_truncate(value).difference(Status::DEVICE_NEEDS_RESET) | self.status;
        let was_live = self.is_live();
        if wanted.contains(Status::FEATURES_OK) && !self.status.contains(Status::FEATURES_OK) {
            let understood = self.driver_features & !self.device_features == 0;
            if !understood || self.driver_features & features::VERSION_1 == 0 {
                // Left clear, the driver reads it back and gives up (3.1.1 step 6).
                wanted.remove(Status::FEATURES_OK);
            }
        }
        if wanted.contains(Status::DRIVER_OK) && !wanted.contains(Status::FEATURES_OK) {
            wanted.remove(Status::DRIVER_OK);
            self.set_status(wanted);
            return self.broken(Violation::NoFeaturesOk);
        }
        self.set_status(wanted);
        if wanted.contains(Status::DRIVER_OK) && !was_live {
            return Action::DriverOk { features: self.driver_features };
        }
        Action::None
    }

    fn write_queue_ready(&mut self, value: u32) -> Action {
        let live = self.is_live();
        let negotiated = self.status.contains(Status::FEATURES_OK);
        let Some(queue) = self.selected() else { return Action::Ignored(Ignored::Queue) };
        let ready = value & 1 != 0;
        if ready == queue.ready {
            return Action::None;
        }
        // Queues are set up between FEATURES_OK and DRIVER_OK (3.1.1 step 7), and one queue of a live device cannot be
        // stopped alone (that is VIRTIO_F_RING_RESET, not offered): QueueReady keeps reading as it was.
        if live || (ready && !negotiated) {
            return Action::Ignored(Ignored::State);
        }
        if ready && (queue.size > u32::from(queue.max) || queue.layout().check(queue.max).is_err()) {
            return self.broken(Violation::QueueLayout);
        }
        queue.ready = ready;
        self.page.store(reg::QUEUE_READY, ready.into());
        Action::None
    }

    fn write_config(&mut self, offset: usize, width: u8, value: u64) -> Action {
        if !matches!(width, 1 | 2 | 4) || !offset.is_multiple_of(usize::from(width)) {
            return Action::Ignored(Ignored::Access);
        }
        match u16::try_from(offset) {
            Ok(at) if offset.saturating_add(usize::from(width)) <= self.config_len => {
                let mask = u32::MAX >> (32 - 8 * u32::from(width));
                Action::ConfigWrite { offset: at, width, value: value as u32 & mask }
            }
            _ => Action::Ignored(Ignored::NotWritable),
        }
    }

    fn broken(&mut self, violation: Violation) -> Action {
        self.needs_reset();
        Action::Broken(violation)
    }

    fn selected(&mut self) -> Option<&mut QueueState> {
        let count = self.queue_count;
        self.queues.get_mut(..count)?.get_mut(usize::try_from(self.queue_sel).ok()?)
    }

    fn set_queue(&mut self, set: impl FnOnce(&mut QueueState)) -> Action {
        if self.is_live() {
            return Action::Ignored(Ignored::State);
        }
        match self.selected() {
            None => Action::Ignored(Ignored::Queue),
            Some(queue) if queue.ready => Action::Ignored(Ignored::State),
            Some(queue) => {
                set(queue);
                Action::None
            }
        }
    }

    fn set_status(&mut self, status: Status) {
        self.status = status;
        self.page.store(reg::STATUS, status.bits());
    }

    fn bump_generation(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        self.page.store(reg::CONFIG_GENERATION, self.generation);
    }

    fn store_config(&mut self, config: &[u8]) {
        let config = config.get(..config.len().min(self.config_len)).unwrap_or_default();
        for (offset, chunk) in (reg::CONFIG..).step_by(4).zip(config.chunks(4)) {
            let mut word = [0; 4];
            word.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
            self.page.store(offset, u32::from_le_bytes(word));
        }
    }

    fn refresh_queue(&mut self) {
        let (max, ready) = self.selected().map_or((0, false), |queue| (queue.max, queue.ready));
        self.page.store(reg::QUEUE_NUM_MAX, max.into());
        self.page.store(reg::QUEUE_READY, ready.into());
    }

    fn refresh(&mut self) {
        self.page.store(reg::DEVICE_FEATURES, half(self.device_features, self.device_features_sel));
        self.page.store(reg::INTERRUPT_STATUS, self.interrupt.bits());
        self.refresh_queue();
        // Last: a driver that polls for the end of a reset polls this one.
        self.page.store(reg::STATUS, self.status.bits());
    }
}

impl QueueState {
    fn layout(&self) -> QueueLayout {
        // A size above u16 is above every maximum; 0 is refused by `check`.
        let size = u16::try_from(self.size).unwrap_or(0);
        QueueLayout { size, desc: self.desc, avail: self.avail, used: self.used }
    }
}

const fn half(word: u64, select: u32) -> u32 {
    match select {
        0 => word as u32,
        1 => (word >> 32) as u32,
        _ => 0,
    }
}

fn set_low(word: &mut u64, value: u32) {
    *word = *word & !0xffff_ffff | u64::from(value);
}

fn set_high(word: &mut u64, value: u32) {
    *word = *word & 0xffff_ffff | u64::from(value) << 32;
}

#[cfg(test)]
mod tests;
