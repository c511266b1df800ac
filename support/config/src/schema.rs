//! The types of partita.json. docs/configuration.md describes each key for users; [`crate::table`] does for machines.

use heapless::Vec;
use partita_protocol::{MAX_CELLS, MAX_CONTROLLERS, MAX_DISKS, layout};
use serde::{Deserialize, Serialize};

use crate::{Partition, Size};

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config<'a> {
    /// For editors; ignored.
    #[serde(rename = "$schema", default, borrow, skip_serializing_if = "Option::is_none")]
    pub schema: Option<&'a str>,
    /// Disk controllers, one `blk` PD each. The position is the `n` of [`layout::Service::Blk`].
    #[serde(default, borrow)]
    pub controllers: Vec<Controller<'a>, MAX_CONTROLLERS>,
    /// Guests. The position is the cell's number everywhere: channels, addresses, console keys.
    #[serde(borrow)]
    pub cells: Vec<Cell<'a>, MAX_CELLS>,
}

/// A disk controller that Partita drives.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Controller<'a> {
    /// Unique; the PD is `blk_<name>`.
    #[serde(borrow)]
    pub name: &'a str,
    /// Which driver.
    pub kind: ControllerKind,
    /// Which of the board's devices of that kind: for `virtio-mmio` the transport's number.
    #[serde(default)]
    pub slot: u8,
    /// Milliseconds that the device may take for a request; after them (and at most an eighth more) the device is restarted
    /// and the request fails.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u32,
}

/// Drivers of `blk`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum ControllerKind {
    /// A virtio-blk device behind virtio-mmio (QEMU virt).
    #[serde(rename = "virtio-mmio")]
    VirtioMmio,
}

/// A guest.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Cell<'a> {
    /// Unique; the PD is `vmm_<name>`.
    #[serde(borrow)]
    pub name: &'a str,
    /// RAM.
    pub memory: Size,
    /// Virtual CPUs.
    #[serde(default = "one")]
    pub vcpus: u8,
    /// Priority of the vCPUs, 1..=99.
    #[serde(default = "guest_priority")]
    pub priority: u8,
    /// Processor time a vCPU may use in each period, microseconds.
    #[serde(default = "default_us")]
    pub budget_us: u32,
    /// Its period, microseconds.
    #[serde(default = "default_us")]
    pub period_us: u32,
    /// What `kernel` is.
    #[serde(default)]
    pub boot: Boot,
    /// Kernel file, relative to partita.json.
    #[serde(borrow)]
    pub kernel: &'a str,
    /// Initramfs file.
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    pub initrd: Option<&'a str>,
    /// Kernel command line.
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    pub cmdline: Option<&'a str>,
    /// The guest's console.
    #[serde(default)]
    pub console: ConsoleKind,
    /// Whether it starts with the system.
    #[serde(default = "yes")]
    pub autostart: bool,
    /// What follows a crash of the guest.
    #[serde(default)]
    pub on_crash: Policy,
    /// What follows PSCI SYSTEM_RESET.
    #[serde(default = "restart")]
    pub on_reset: Policy,
    /// Seconds without a sign of life after which the guest counts as hung; 0: nobody watches.
    #[serde(default)]
    pub watchdog_seconds: u32,
    /// What follows then.
    #[serde(default)]
    pub on_hang: OnHang,
    /// virtio-blk devices, in the guest's order (`/dev/vda` first).
    #[serde(default, borrow)]
    pub disks: Vec<Disk<'a>, MAX_DISKS>,
}

/// How a guest starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Boot {
    /// Linux arm64 boot protocol: Image, device tree in x0.
    #[default]
    Linux,
    /// Copied to the start of RAM and entered at its first byte, device tree in x0.
    Binary,
}

/// What the guest's device tree names as its console.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ConsoleKind {
    /// virtio-console (`hvc0`); the emulated PL011 stays for early output.
    #[default]
    Virtio,
    /// The emulated PL011 (`ttyAMA0`) only.
    Pl011,
}

/// What follows when a guest stops by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// It stays stopped until somebody starts it.
    #[default]
    Stop,
    /// It starts again.
    Restart,
}

/// What follows when a guest shows no sign of life; in any case the log says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnHang {
    /// Nothing more.
    #[default]
    Report,
    /// It is stopped.
    Stop,
    /// It starts again.
    Restart,
}

/// A window of a controller's disk.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Disk<'a> {
    /// Name of the controller.
    #[serde(borrow)]
    pub controller: &'a str,
    /// Which part of the disk.
    #[serde(borrow)]
    pub partition: Partition<'a>,
    /// Refuse writes.
    #[serde(default)]
    pub read_only: bool,
    /// What the guest gets for GET_ID, at most 20 bytes. Without it: `<cell>-<number>`.
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    pub serial: Option<&'a str>,
}

/// A virtio-mmio device of a cell. Its number is its place in [`Cell::devices`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// Entry of `disks`.
    Disk(usize),
    /// virtio-console.
    Console,
}

impl<'a> Config<'a> {
    /// Number and entry of a cell.
    pub fn cell(&self, name: &str) -> Option<(usize, &Cell<'a>)> {
        self.cells.iter().enumerate().find(|(_, cell)| cell.name == name)
    }

    /// Number and entry of a controller.
    pub fn controller(&self, name: &str) -> Option<(usize, &Controller<'a>)> {
        self.controllers.iter().enumerate().find(|(_, controller)| controller.name == name)
    }
}

impl<'a> Cell<'a> {
    /// The cell's virtio devices in the order of their register pages: disks, then the console.
    pub fn devices(&self) -> impl Iterator<Item = Device> + '_ {
        let console = (self.console == ConsoleKind::Virtio).then_some(Device::Console);
        (0..self.disks.len()).map(Device::Disk).chain(console)
    }

    /// The cell's disks at one controller. The place in this order is the backend's device number (`MR0` of
    /// [`partita_protocol::backend`]); the item is the place in `disks` and the entry.
    pub fn disks_at(&self, controller: &'a str) -> impl Iterator<Item = (usize, &Disk<'a>)> + '_ {
        self.disks.iter().enumerate().filter(move |(_, disk)| disk.controller == controller)
    }
}

fn one() -> u8 {
    1
}

fn guest_priority() -> u8 {
    layout::priority::GUEST
}

fn timeout_ms() -> u32 {
    10_000
}

fn default_us() -> u32 {
    10_000
}

fn yes() -> bool {
    true
}

fn restart() -> Policy {
    Policy::Restart
}
