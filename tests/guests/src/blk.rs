//! A driver for one virtio-blk device, as small as it can be, with its inside open for those who want to break the rules.

use core::cell::UnsafeCell;
use core::ptr;

use partita_protocol::layout::guest;

use crate::machine::{frequency, now, read, wait_for, write};

/// The cell's first virtio device.
pub const BASE: u64 = guest::VIRTIO;
/// Its interrupt.
pub const INTID: u32 = guest::VIRTIO_IRQ;
/// Descriptors.
pub const SIZE: usize = 16;

/// Register offsets (virtio 1.2, 4.2.2).
pub mod reg {
    #![allow(missing_docs)] // The names are the specification's.
    pub const MAGIC: u64 = 0x00;
    pub const VERSION: u64 = 0x04;
    pub const DEVICE_ID: u64 = 0x08;
    pub const DEVICE_FEATURES: u64 = 0x10;
    pub const DEVICE_FEATURES_SEL: u64 = 0x14;
    pub const DRIVER_FEATURES: u64 = 0x20;
    pub const DRIVER_FEATURES_SEL: u64 = 0x24;
    pub const QUEUE_SEL: u64 = 0x30;
    pub const QUEUE_NUM_MAX: u64 = 0x34;
    pub const QUEUE_NUM: u64 = 0x38;
    pub const QUEUE_READY: u64 = 0x44;
    pub const QUEUE_NOTIFY: u64 = 0x50;
    pub const INTERRUPT_STATUS: u64 = 0x60;
    pub const INTERRUPT_ACK: u64 = 0x64;
    pub const STATUS: u64 = 0x70;
    pub const QUEUE_DESC: u64 = 0x80;
    pub const QUEUE_DRIVER: u64 = 0x90;
    pub const QUEUE_DEVICE: u64 = 0xa0;
    pub const CONFIG: u64 = 0x100;
}

/// DEVICE_NEEDS_RESET.
pub const NEEDS_RESET: u32 = 64;
/// Descriptor flags.
pub const NEXT: u16 = 1;
/// The device writes it.
pub const WRITE: u16 = 2;
/// It names a table.
pub const INDIRECT: u16 = 4;

/// One descriptor.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Descriptor {
    /// Guest physical address.
    pub addr: u64,
    /// Bytes.
    pub len: u32,
    /// [`NEXT`], [`WRITE`], [`INDIRECT`].
    pub flags: u16,
    /// Index of the next one.
    pub next: u16,
}

/// What the device sees of us.
#[repr(C, align(4096))]
pub struct Memory {
    /// Descriptor table.
    pub descriptors: [Descriptor; SIZE],
    /// flags, idx, ring.
    pub avail: [u16; 2 + SIZE + 1],
    /// flags and idx; then id and length of each element.
    pub used: [u32; 1 + 2 * SIZE + 1],
    /// Request headers: type, reserved, sector.
    pub headers: [[u64; 2]; SIZE],
    /// Status bytes.
    pub status: [u8; SIZE],
    /// Data.
    pub data: [[u8; 4096]; SIZE],
}

struct Shared(UnsafeCell<Memory>);

// SAFETY: the guest has one thread.
unsafe impl Sync for Shared {}

// SAFETY: integers only.
static MEMORY: Shared = Shared(UnsafeCell::new(unsafe { core::mem::zeroed() }));

/// The memory, for volatile accesses.
pub fn memory() -> *mut Memory {
    MEMORY.0.get()
}

/// A store that the device sees.
///
/// # Safety
///
/// `place` must be in [`memory`].
pub unsafe fn set<T>(place: *mut T, value: T) {
    // SAFETY: by contract; the guest has one thread.
    unsafe { place.write_volatile(value) };
}

/// A load of what the device wrote.
///
/// # Safety
///
/// As [`set`].
pub unsafe fn get<T: Copy>(place: *const T) -> T {
    // SAFETY: by contract.
    unsafe { place.read_volatile() }
}

/// Request types.
pub const IN: u32 = 0;
/// Write.
pub const OUT: u32 = 1;
/// Flush.
pub const FLUSH: u32 = 4;
/// Serial number.
pub const GET_ID: u32 = 8;

/// The driver.
pub struct Disk {
    avail: u16,
    used: u16,
}

/// Resets the device; true if it reads back 0 within a second.
pub fn reset() -> bool {
    write(BASE + reg::STATUS, 0);
    let until = now() + frequency();
    while now() < until {
        if read(BASE + reg::STATUS) == 0 {
            return true;
        }
    }
    false
}

/// Waits at most a second for DEVICE_NEEDS_RESET.
pub fn needs_reset() -> bool {
    let until = now() + frequency();
    while now() < until {
        if read(BASE + reg::STATUS) & NEEDS_RESET != 0 {
            return true;
        }
    }
    false
}

/// Up to FEATURES_OK, with VERSION_1 and what `features` adds. True if the device agrees.
pub fn negotiate(features: u32) -> bool {
    for status in [1, 3] {
        write(BASE + reg::STATUS, status);
    }
    write(BASE + reg::DRIVER_FEATURES_SEL, 0);
    write(BASE + reg::DRIVER_FEATURES, features);
    write(BASE + reg::DRIVER_FEATURES_SEL, 1);
    write(BASE + reg::DRIVER_FEATURES, 1);
    write(BASE + reg::STATUS, 11);
    read(BASE + reg::STATUS) == 11
}

/// Sets up queue 0 with these areas.
pub fn set_queue(size: u32, areas: [u64; 3]) {
    write(BASE + reg::QUEUE_SEL, 0);
    write(BASE + reg::QUEUE_NUM, size);
    for (register, area) in [reg::QUEUE_DESC, reg::QUEUE_DRIVER, reg::QUEUE_DEVICE].into_iter().zip(areas) {
        write(BASE + register, area as u32);
        write(BASE + register + 4, (area >> 32) as u32);
    }
    write(BASE + reg::QUEUE_READY, 1);
}

/// Where our queue is.
pub fn areas() -> [u64; 3] {
    let memory = memory();
    // SAFETY: addresses only.
    unsafe {
        [
            (&raw const (*memory).descriptors).addr() as u64,
            (&raw const (*memory).avail).addr() as u64,
            (&raw const (*memory).used).addr() as u64,
        ]
    }
}

impl Disk {
    /// Resets and starts the device.
    pub fn start() -> Option<Self> {
        Self::start_with(0)
    }

    /// The same with more features than VERSION_1.
    pub fn start_with(features: u32) -> Option<Self> {
        if !reset() || !negotiate(features) {
            return None;
        }
        // SAFETY: our memory, which no running device looks at.
        unsafe { ptr::write_bytes(memory(), 0, 1) };
        set_queue(SIZE as u32, areas());
        write(BASE + reg::STATUS, 15);
        (read(BASE + reg::STATUS) == 15).then_some(Self { avail: 0, used: 0 })
    }

    /// Sectors.
    pub fn capacity(&self) -> u64 {
        read(BASE + reg::CONFIG) as u64 | (read(BASE + reg::CONFIG + 4) as u64) << 32
    }

    /// Puts a request into descriptors `3 * slot` and on: header, `length` bytes of data of `slot`, status.
    pub fn prepare(slot: usize, kind: u32, sector: u64, length: u32) {
        let memory = memory();
        let at = 3 * slot;
        // SAFETY: `slot` is below 5 here, so all indices are in bounds; volatile, as the device reads and writes it.
        unsafe {
            set(&raw mut (*memory).headers[slot], [kind.into(), sector]);
            set(&raw mut (*memory).status[slot], 0xff);
            let chain = [
                ((&raw const (*memory).headers[slot]).addr(), 16, 0),
                ((&raw const (*memory).data[slot]).addr(), length, if kind == OUT { 0 } else { WRITE }),
                ((&raw const (*memory).status[slot]).addr(), 1, WRITE),
            ];
            let skip_data = length == 0;
            for (i, (addr, len, flags)) in chain.into_iter().enumerate() {
                let next = if i == 0 && skip_data { at + 2 } else { at + i + 1 };
                let flags = if i == 2 { flags } else { flags | NEXT };
                let descriptor = Descriptor { addr: addr as u64, len, flags, next: next as u16 };
                set(&raw mut (*memory).descriptors[at + i], descriptor);
            }
        }
    }

    /// Makes a chain available, without a kick.
    pub fn offer(&mut self, head: u16) {
        let memory = memory();
        // SAFETY: in bounds by the remainder.
        unsafe { set(&raw mut (*memory).avail[2 + self.avail as usize % SIZE], head) };
        self.avail = self.avail.wrapping_add(1);
        self.set_avail(self.avail);
    }

    /// Writes the available index.
    pub fn set_avail(&mut self, index: u16) {
        self.avail = index;
        // SAFETY: in bounds.
        unsafe {
            core::arch::asm!("dsb sy");
            set(&raw mut (*memory()).avail[1], index);
        }
    }

    /// Kicks.
    pub fn kick(&self) {
        write(BASE + reg::QUEUE_NOTIFY, 0);
    }

    fn used_index() -> u16 {
        // SAFETY: in bounds.
        let word = unsafe { get(&raw const (*memory()).used[0]) };
        (word >> 16) as u16
    }

    /// Waits, asleep, until `count` more requests are used. False after thirty seconds, or if the device needs a reset.
    pub fn wait(&mut self, count: u16) -> bool {
        let wanted = self.used.wrapping_add(count);
        let until = now() + 30 * frequency();
        while Self::used_index() != wanted {
            if now() > until || read(BASE + reg::STATUS) & NEEDS_RESET != 0 {
                return false;
            }
            wait_for(INTID, 1, || {
                let pending = read(BASE + reg::INTERRUPT_STATUS);
                write(BASE + reg::INTERRUPT_ACK, pending);
            });
        }
        self.used = wanted;
        true
    }

    /// As [`Disk::wait`], awake and deaf to interrupts.
    pub fn spin(&mut self, count: u16) -> bool {
        let wanted = self.used.wrapping_add(count);
        let until = now() + 30 * frequency();
        while Self::used_index() != wanted {
            if now() > until {
                return false;
            }
        }
        self.used = wanted;
        true
    }

    /// One request with slot 0. The device's status byte; 0xfe if it never answered.
    pub fn request(&mut self, kind: u32, sector: u64, length: u32) -> u8 {
        Self::prepare(0, kind, sector, length);
        self.offer(0);
        self.kick();
        // SAFETY: in bounds.
        if self.wait(1) { unsafe { get(&raw const (*memory()).status[0]) } } else { 0xfe }
    }

    /// Length field of the used element before the last [`Disk::wait`] returned.
    pub fn used_length(&self) -> u32 {
        let last = self.used.wrapping_sub(1) as usize % SIZE;
        // SAFETY: in bounds.
        unsafe { get(&raw const (*memory()).used[1 + 2 * last + 1]) }
    }
}

/// What is in a slot's data now.
pub fn load(slot: usize) -> [u8; 4096] {
    // SAFETY: `data` is in our memory.
    unsafe { get(data(slot)) }
}

/// Puts data into a slot.
pub fn store(slot: usize, value: [u8; 4096]) {
    // SAFETY: `data` is in our memory.
    unsafe { set(data(slot), value) };
}

/// Data of a slot.
pub fn data(slot: usize) -> *mut [u8; 4096] {
    // SAFETY: an address; callers name slots below SIZE.
    unsafe { &raw mut (*memory()).data[slot % SIZE] }
}
