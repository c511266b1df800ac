//! The devices of the catalogue: what is the same for every virtio-mmio device.

use core::cell::UnsafeCell;

use crate::blk::{self, Descriptor, Disk, IN, NEEDS_RESET, get, reg, set};
use crate::machine::{frequency, now, read, write};

/// A device.
pub struct Device {
    /// What it is called.
    pub name: &'static str,
    /// Its registers.
    pub base: u64,
    /// DeviceID.
    pub id: u32,
    /// Queues.
    pub queues: u32,
    /// The one of which the device takes what the driver has for it.
    pub kicked: u32,
    /// Resets it, starts it and has it do something. False if anything of it fails.
    pub works: fn() -> bool,
}

/// The socket device's registers.
pub const VSOCK: u64 = blk::BASE + 0x2000;

/// All of them. A cell whose description gives it other devices than a disk, a console and sockets needs another table.
pub static DEVICES: [Device; 3] = [
    Device { name: "disk", base: blk::BASE, id: 2, queues: 1, kicked: 0, works: disk_works },
    Device { name: "console", base: blk::BASE + 0x1000, id: 3, queues: 2, kicked: 1, works: console_works },
    Device { name: "sockets", base: VSOCK, id: 19, queues: 3, kicked: 1, works: super::sockets::works_again },
];

/// Descriptors of a [`Ring`].
pub const SIZE: usize = 8;
/// Rings, one for each queue of any device.
pub const RINGS: usize = 4;

/// A queue and some data.
#[repr(C, align(4096))]
pub struct Ring {
    /// Descriptor table.
    pub descriptors: [Descriptor; SIZE],
    /// flags, idx, ring.
    pub avail: [u16; 2 + SIZE + 1],
    /// flags and idx; then id and length of each element.
    pub used: [u32; 1 + 2 * SIZE + 1],
    /// Data.
    pub data: [u8; 64],
}

struct Shared(UnsafeCell<[Ring; RINGS]>);

// SAFETY: the guest has one thread.
unsafe impl Sync for Shared {}

// SAFETY: integers only.
static MEMORY: Shared = Shared(UnsafeCell::new(unsafe { core::mem::zeroed() }));

/// A ring, for volatile accesses.
pub fn ring(queue: usize) -> *mut Ring {
    MEMORY.0.get().cast::<Ring>().wrapping_add(queue % RINGS)
}

/// Where the three parts of a ring are.
pub fn areas(queue: usize) -> [u64; 3] {
    let ring = ring(queue);
    // SAFETY: addresses only.
    unsafe {
        [
            (&raw const (*ring).descriptors).addr() as u64,
            (&raw const (*ring).avail).addr() as u64,
            (&raw const (*ring).used).addr() as u64,
        ]
    }
}

/// How far a driver has come with a device.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing was done since its reset.
    Reset,
    /// ACKNOWLEDGE and DRIVER.
    Found,
    /// FEATURES_OK, and the queues are set up.
    Ready,
    /// DRIVER_OK.
    Live,
    /// DEVICE_NEEDS_RESET.
    Broken,
}

/// All states, with their names.
pub const STATES: [(State, &str); 5] = [
    (State::Reset, "reset"),
    (State::Found, "found"),
    (State::Ready, "ready"),
    (State::Live, "live"),
    (State::Broken, "broken"),
];

impl Device {
    /// Reads a register.
    pub fn read(&self, register: u64) -> u32 {
        read(self.base + register)
    }

    /// Writes a register.
    pub fn write(&self, register: u64, value: u32) {
        write(self.base + register, value);
    }

    /// Resets it. False if that takes more than a second.
    pub fn reset(&self) -> bool {
        self.write(reg::STATUS, 0);
        let until = now() + frequency();
        while now() < until {
            if self.read(reg::STATUS) == 0 {
                return true;
            }
        }
        false
    }

    /// From reset to FEATURES_OK with VERSION_1.
    pub fn negotiate(&self) -> bool {
        for status in [1, 3] {
            self.write(reg::STATUS, status);
        }
        self.write(reg::DRIVER_FEATURES_SEL, 1);
        self.write(reg::DRIVER_FEATURES, 1);
        self.write(reg::STATUS, 11);
        self.read(reg::STATUS) == 11
    }

    /// Sets up a queue with these areas. True if the device says that it is ready.
    pub fn set_queue(&self, queue: u32, size: u32, areas: [u64; 3]) -> bool {
        self.write(reg::QUEUE_SEL, queue);
        self.write(reg::QUEUE_NUM, size);
        let registers = [reg::QUEUE_DESC, reg::QUEUE_DRIVER, reg::QUEUE_DEVICE];
        for (register, area) in registers.into_iter().zip(areas) {
            self.write(register, area as u32);
            self.write(register + 4, (area >> 32) as u32);
        }
        self.write(reg::QUEUE_READY, 1);
        self.read(reg::QUEUE_READY) == 1
    }

    /// From anywhere to `state`, with empty rings.
    pub fn enter(&self, state: State) -> bool {
        if !self.reset() {
            return false;
        }
        for queue in 0..RINGS {
            // SAFETY: the device is reset, so it does not look at its rings.
            unsafe { ring(queue).write_bytes(0, 1) };
        }
        match state {
            State::Reset => true,
            State::Found => {
                self.write(reg::STATUS, 3);
                self.read(reg::STATUS) == 3
            }
            State::Broken => {
                self.write(reg::STATUS, 7);
                self.needs_reset()
            }
            State::Ready | State::Live => {
                let mut ok = self.negotiate();
                for queue in 0..self.queues {
                    ok &= self.set_queue(queue, SIZE as u32, areas(queue as usize));
                }
                if state == State::Live {
                    self.write(reg::STATUS, 15);
                    ok &= self.read(reg::STATUS) == 15;
                }
                ok
            }
        }
    }

    /// Waits at most a second for DEVICE_NEEDS_RESET.
    pub fn needs_reset(&self) -> bool {
        let until = now() + frequency();
        while now() < until {
            if self.read(reg::STATUS) & NEEDS_RESET != 0 {
                return true;
            }
        }
        false
    }

    /// What no store can change.
    pub fn is_itself(&self) -> bool {
        self.read(reg::MAGIC) == u32::from_le_bytes(*b"virt")
            && self.read(reg::VERSION) == 2
            && self.read(reg::DEVICE_ID) == self.id
    }
}

fn disk_works() -> bool {
    Disk::start().is_some_and(|mut disk| disk.request(IN, 0, 512) == 0)
}

/// A carriage return is transmitted.
fn console_works() -> bool {
    let [_, console, ..] = &DEVICES;
    if !console.enter(State::Live) {
        return false;
    }
    let ring = ring(1);
    // SAFETY: our memory; indices are constants in bounds.
    unsafe {
        set(&raw mut (*ring).data[0], b'\r');
        let addr = (&raw const (*ring).data).addr() as u64;
        set(&raw mut (*ring).descriptors[0], Descriptor { addr, len: 1, flags: 0, next: 0 });
        set(&raw mut (*ring).avail[1], 1);
    }
    console.write(reg::QUEUE_NOTIFY, 1);
    let until = now() + 5 * frequency();
    while now() < until {
        // SAFETY: as above.
        if unsafe { get(&raw const (*ring).used[0]) } >> 16 == 1 {
            return true;
        }
    }
    false
}
