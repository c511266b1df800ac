//! The types of partita.json. docs/configuration.md describes each key for users; [`crate::table`] does for machines.

use heapless::Vec;
use partita_protocol::{
    MAX_CELL_LINKS, MAX_CELLS, MAX_CONTROLLERS, MAX_DISKS, MAX_LINKS, MAX_PEERS, MAX_PORTS, MAX_QUEUES,
    MAX_SOCKETS, layout,
};
use serde::{Deserialize, Serialize};

use crate::{Address, Partition, Passthrough, Size, passthrough::MAX_PASSTHROUGH};

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Config<'a> {
    /// For editors; ignored.
    #[serde(rename = "$schema", skip_serializing_if = "Option::is_none")]
    pub schema: Option<&'a str>,
    /// Where the boot loader puts `guests.img`, which then holds the guests' kernels and initramfs; without it the image does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_files: Option<Address>,
    /// Disk controllers, one `blk` PD each. The position is the `n` of [`layout::Service::Blk`].
    pub controllers: Vec<Controller<'a>, MAX_CONTROLLERS>,
    /// Guests. The position is the cell's number everywhere: channels, addresses, console keys.
    pub cells: Vec<Cell<'a>, MAX_CELLS>,
    /// Memory that cells share. The position is the link's number at `ivc`.
    pub links: Vec<Link<'a>, MAX_LINKS>,
    /// Who may connect to whom by virtio-vsock.
    pub sockets: Vec<Socket<'a>, MAX_SOCKETS>,
}

/// Shared memory between some cells, with doorbells.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Link<'a> {
    /// Unique.
    #[serde(borrow)]
    pub name: &'a str,
    /// What guests call it (`/dev/hivc<id>`); without it the place in `links`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u8>,
    /// Names of cells; the place is the peer's number.
    #[serde(borrow)]
    pub peers: Vec<&'a str, MAX_PEERS>,
    /// The section that all peers write.
    #[serde(default)]
    pub shared: Size,
    /// Each peer's output section.
    #[serde(default = "output")]
    pub output: Size,
}

impl Link<'_> {
    /// Bytes of its memory: the shared section, then the output sections in the order of the peers.
    pub fn bytes(&self) -> u64 {
        self.shared.0.saturating_add(self.output.0.saturating_mul(self.peers.len() as u64))
    }
}

/// A cell's part in a link.
#[derive(Clone, Copy, Debug)]
pub struct CellLink<'c, 'a> {
    /// Place in `links`.
    pub number: usize,
    /// The link.
    pub link: &'c Link<'a>,
    /// The cell's number among its peers.
    pub peer: usize,
}

impl CellLink<'_, '_> {
    /// What guests call it.
    pub fn id(&self) -> u8 {
        // At most MAX_LINKS.
        self.link.id.unwrap_or(self.number as u8)
    }
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
    /// Physical address of the RAM; without it anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_address: Option<Address>,
    /// Virtual CPUs.
    #[serde(default = "one")]
    pub vcpus: u8,
    /// Priority of the vCPUs, 1..=99.
    #[serde(default = "guest_priority")]
    pub priority: u8,
    /// Processor time a vCPU may use in each period, microseconds; 0: see [`Cell::budget_us`].
    #[serde(default, rename = "budget_us", skip_serializing_if = "is_zero")]
    pub own_budget_us: u32,
    /// Its period, microseconds; 0: see [`Cell::period_us`].
    #[serde(default, rename = "period_us", skip_serializing_if = "is_zero")]
    pub own_period_us: u32,
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
    /// Devices that the guest gets whole.
    #[serde(default, borrow)]
    pub passthrough: Vec<Passthrough<'a>, MAX_PASSTHROUGH>,
    /// Context id of the cell's virtio-vsock device; without one it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cid: Option<u32>,
    /// Whether it may use the management service at CID 2.
    #[serde(default)]
    pub manager: bool,
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
    /// Queues, at most [`MAX_QUEUES`]. Without it: see [`Cell::queues`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<u8>,
    /// What the guest gets for GET_ID, at most 20 bytes. Without it: `<cell>-<number>`.
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    pub serial: Option<&'a str>,
    /// Most requests per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iops: Option<u32>,
    /// Most bytes per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<Size>,
}

/// Who may open connections to whom.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Socket<'a> {
    /// Name of the cell that connects.
    #[serde(borrow)]
    pub from: &'a str,
    /// Name of the cell that listens, or [`HOST`].
    #[serde(borrow)]
    pub to: &'a str,
    /// At which of its ports.
    pub ports: Vec<u32, MAX_PORTS>,
}

/// Name of CID 2 in [`Socket::to`].
pub const HOST: &str = "host";
/// Its number.
pub const HOST_CID: u32 = 2;

/// A virtio-mmio device of a cell. Its number is its place in [`Cell::devices`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// Entry of `disks`.
    Disk(usize),
    /// virtio-console.
    Console,
    /// virtio-vsock.
    Vsock,
}

impl<'a> Config<'a> {
    /// Nothing at all.
    pub const fn new() -> Self {
        Self {
            schema: None,
            boot_files: None,
            controllers: Vec::new(),
            cells: Vec::new(),
            links: Vec::new(),
            sockets: Vec::new(),
        }
    }

    /// Number and entry of a cell.
    pub fn cell(&self, name: &str) -> Option<(usize, &Cell<'a>)> {
        self.cells.iter().enumerate().find(|(_, cell)| cell.name == name)
    }

    /// The links of a cell, in the order of its control tables; at most [`MAX_CELL_LINKS`].
    pub fn links_of(&self, cell: &str) -> impl Iterator<Item = CellLink<'_, 'a>> {
        let part = move |(number, link): (usize, &'_ Link<'a>)| {
            link.peers.iter().position(|peer| *peer == cell).map(|peer| (number, peer))
        };
        let found: Vec<(usize, usize), MAX_LINKS> = self.links.iter().enumerate().filter_map(part).collect();
        found
            .into_iter()
            .take(MAX_CELL_LINKS)
            .filter_map(|(number, peer)| Some(CellLink { number, link: self.links.get(number)?, peer }))
    }

    /// Number and entry of a controller.
    pub fn controller(&self, name: &str) -> Option<(usize, &Controller<'a>)> {
        self.controllers.iter().enumerate().find(|(_, controller)| controller.name == name)
    }

    /// Whether the system has the PD `ivc`.
    pub fn has_ivc(&self) -> bool {
        self.cells.iter().any(|cell| cell.cid.is_some()) || !self.links.is_empty()
    }
}

impl<'a> Cell<'a> {
    /// Physical addresses of its RAM if the description says where it is.
    pub fn fixed_memory(&self) -> Option<core::ops::Range<u64>> {
        self.memory_address.map(|address| address.0..address.0.saturating_add(self.memory.0))
    }

    /// Processor time a vCPU may use in each period, microseconds.
    pub fn budget_us(&self) -> u32 {
        if self.own_budget_us == 0 { self.slice_us().min(self.period_us()) } else { self.own_budget_us }
    }

    /// That period, microseconds.
    pub fn period_us(&self) -> u32 {
        if self.own_period_us == 0 { self.slice_us().max(self.own_budget_us) } else { self.own_period_us }
    }

    const fn slice_us(&self) -> u32 {
        if self.vcpus > 1 { SHORT_SLICE_US } else { SLICE_US }
    }

    /// Request queues of one of its disks: one for each vCPU, so that none waits for another's lock.
    pub fn queues(&self, disk: &Disk<'_>) -> usize {
        usize::from(disk.queues.unwrap_or(self.vcpus)).clamp(1, MAX_QUEUES)
    }

    /// The cell's virtio devices in the order of their register pages: disks, then the console, then vsock.
    pub fn devices(&self) -> impl Iterator<Item = Device> + '_ {
        let console = (self.console == ConsoleKind::Virtio).then_some(Device::Console);
        let vsock = self.cid.map(|_| Device::Vsock);
        (0..self.disks.len()).map(Device::Disk).chain(console).chain(vsock)
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

/// Time slice of a vCPU that is alone.
const SLICE_US: u32 = 10_000;
/// Of one among several: a vCPU that waits for a lock whose holder is not running spins until its slice ends.
const SHORT_SLICE_US: u32 = 1000;

#[allow(clippy::trivially_copy_pass_by_ref)] // serde wants it so
fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn timeout_ms() -> u32 {
    10_000
}

fn output() -> Size {
    Size(64 << 10)
}

fn yes() -> bool {
    true
}

fn restart() -> Policy {
    Policy::Restart
}
