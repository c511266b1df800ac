//! Channel numbers, child numbers, priorities and virtual addresses.
//!
//! Channel and IRQ ids share one space of 0..=61 per PD; child and vCPU ids share another. Addresses are the same in every
//! PD that maps the thing, so a reader of a fault address knows what it was.

use crate::{MAX_CELLS, MAX_CONTROLLERS};

/// Priorities, high to low. Protected calls only go up.
pub mod priority {
    /// `supervisor`
    pub const SUPERVISOR: u8 = 250;
    /// `pulse`
    pub const PULSE: u8 = 245;
    /// `timer`
    pub const TIMER: u8 = 240;
    /// `blk*`
    pub const BLK: u8 = 200;
    /// `console`, `ivc`, `net`
    pub const SERVICE: u8 = 150;
    /// `vmm_*`
    pub const VMM: u8 = 100;
    /// vCPUs, unless the cell says otherwise (1..=99)
    pub const GUEST: u8 = 50;
}

/// Channel ids every PD uses for the common services.
pub mod channel {
    /// To `console` (log ring; for a VMM also the guest's console ring).
    pub const CONSOLE: usize = 40;
    /// To `supervisor`: notifications both ways; protected calls from the PD up.
    pub const SUPERVISOR: usize = 41;
    /// To `timer`.
    pub const TIMER: usize = 42;
    /// From `supervisor`: "are you alive?", once a second (see [`crate::alive`]).
    pub const PING: usize = 43;

    /// In the supervisor: from `pulse`, once in [`super::PULSE_PERIOD`].
    pub const PULSE: usize = 61;

    /// In a VMM: to `blk` number `n`.
    pub const fn vmm_blk(n: usize) -> usize {
        n
    }
    /// In a VMM: to `ivc`.
    pub const VMM_IVC: usize = 8;
    /// In a VMM: to `net`.
    pub const VMM_NET: usize = 9;
    /// In a VMM: first IRQ id of passed-through devices (up to 39).
    pub const VMM_PASSTHROUGH: usize = 16;

    /// In a device PD (`blk`, `console`, `timer`): its device's IRQ.
    pub const DEVICE_IRQ: usize = 0;
    /// In a service PD (`blk`, `console`, `timer`, `ivc`, `net`): the VMM of cell `n`.
    pub const fn client(n: usize) -> usize {
        8 + n
    }
    /// In `console` and `timer`: service PD `s` (see [`super::Service::index`]).
    pub const fn service(s: usize) -> usize {
        24 + s
    }
}

/// Budget of `pulse`, microseconds: more than it ever uses.
pub const PULSE_BUDGET: u32 = 1000;
/// Microseconds between its notifications.
pub const PULSE_PERIOD: u32 = 1_000_000;

/// Every PD that is not a VMM, numbered once. `supervisor`'s channel and child id for a service is its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Timer driver.
    Timer,
    /// UART driver and console multiplexer.
    Console,
    /// Inter-VM communication broker.
    Ivc,
    /// Layer-2 switch.
    Net,
    /// virtio-blk backend of controller `n`.
    Blk(u8),
    /// The supervisor itself (as a log source).
    Supervisor,
}

impl Service {
    /// Count of indices that [`Service::index`] returns.
    pub const COUNT: usize = 5 + MAX_CONTROLLERS;
    /// 0..COUNT.
    pub const fn index(self) -> usize {
        match self {
            Service::Timer => 0,
            Service::Console => 1,
            Service::Ivc => 2,
            Service::Net => 3,
            Service::Blk(n) => 4 + n as usize,
            Service::Supervisor => 4 + MAX_CONTROLLERS,
        }
    }
    /// Whether it has a life that answers everything with an error, for when it has died too often, and so a page of orders
    /// ([`crate::alive::Orders`]).
    pub const fn can_refuse(self) -> bool {
        matches!(self, Service::Blk(_) | Service::Ivc)
    }
    /// The reverse of [`Service::index`].
    pub const fn from_index(index: usize) -> Option<Self> {
        match index {
            0 => Some(Service::Timer),
            1 => Some(Service::Console),
            2 => Some(Service::Ivc),
            3 => Some(Service::Net),
            n if n < 4 + MAX_CONTROLLERS => Some(Service::Blk((n - 4) as u8)),
            n if n == 4 + MAX_CONTROLLERS => Some(Service::Supervisor),
            _ => None,
        }
    }
}

/// `supervisor`'s channel and child id for the VMM of cell `n`.
pub const fn supervisor_vmm(cell: usize) -> usize {
    16 + cell
}

/// `supervisor`'s channel id for the pings to its child with this id ([`Service::index`] or [`supervisor_vmm`]).
pub const fn supervisor_ping(child: usize) -> usize {
    let cells = supervisor_vmm(0);
    channel::PING + if child < cells { child } else { Service::COUNT + child - cells }
}

/// Virtual addresses. A VMM or a service maps its own end of a link at the fixed address; a service that has one link per
/// client maps them at a stride.
pub mod vaddr {
    /// partita.json, read-only, in every PD that reads it. Its byte count is the symbol `config_size`.
    pub const CONFIG: usize = 0x1000_0000;
    /// Device registers of a driver PD (UART, disk controller), uncached.
    pub const DEVICE: usize = 0x1080_0000;
    /// DMA memory of a driver PD (its queues); physical address in the symbol `dma_paddr`, size [`super::size::DMA`].
    pub const DMA: usize = 0x10c0_0000;

    /// Log ring of a PD: its own page set (written by the PD, read by console).
    pub const LOG_TX: usize = 0x1100_0000;
    /// Log ring of a PD: the peer's page set (written by console, read by the PD).
    pub const LOG_RX: usize = 0x1104_0000;
    /// Guest console ring: written by the VMM. In the supervisor: ring of the management shell, which console treats as one
    /// more console (there at `service_link(Supervisor, ..)`).
    pub const GUEST_CONSOLE_TX: usize = 0x1108_0000;
    /// Guest console ring: written by console.
    pub const GUEST_CONSOLE_RX: usize = 0x110c_0000;
    /// Timer request page: written by the client.
    pub const TIMER_REQUEST: usize = 0x1110_0000;
    /// Timer state page: written by timer.
    pub const TIMER_STATE: usize = 0x1114_0000;

    /// Distance between the links of neighbouring clients in a service that maps many.
    pub const LINK_STRIDE: usize = 0x100_0000;
    /// In console: log rings of service `s` at `SERVICE_LINKS + s * LINK_STRIDE`; within it the offsets from
    /// `0x1100_0000` as above (LOG_TX is what the PD writes). Likewise timer's pages for services.
    pub const SERVICE_LINKS: usize = 0x2000_0000;
    /// In console, timer, blk: links of cell `n` at `CELL_LINKS + n * LINK_STRIDE`, offsets as above.
    pub const CELL_LINKS: usize = 0x4000_0000;
    /// Base that the offsets above are taken from.
    pub const LINK_BASE: usize = 0x1100_0000;

    /// Link pages of service `s` as the service on the other side sees them; `own` is one of the addresses above.
    pub const fn service_link(s: usize, own: usize) -> usize {
        SERVICE_LINKS + s * LINK_STRIDE + (own - LINK_BASE)
    }
    /// Link pages of cell `n` as a service sees them; `own` is one of the addresses above.
    pub const fn cell_link(n: usize, own: usize) -> usize {
        CELL_LINKS + n * LINK_STRIDE + (own - LINK_BASE)
    }

    /// In a VMM: [`crate::backend::BackendStatus`] page of `blk` number `n` (written by blk); stride 0x1000.
    /// In blk: the one of cell `c` is at `cell_link(c, BACKEND_STATUS)`.
    pub const BACKEND_STATUS: usize = 0x1120_0000;
    /// In a VMM: register pages of its virtio devices, stride 0x1000, uncached.
    pub const VIRTIO_REGISTERS: usize = 0x1130_0000;
    /// Counters of a VMM ([`crate::stats::VmmStats`]): written by it. Byte count: symbol `vmm_stats_size` (0: not mapped).
    pub const VMM_STATS: usize = 0x1150_0000;
    /// In blk: one page that survives its restart (in-flight table), and nobody else maps.
    pub const BLK_INFLIGHT: usize = 0x1140_0000;

    /// Wanted state of a cell ([`crate::lifecycle::Wanted`]): written by the supervisor at `cell_link(n, CELL_WANTED)`,
    /// read by the VMM.
    pub const CELL_WANTED: usize = 0x1160_0000;
    /// Actual state ([`crate::lifecycle::Actual`]): written by the VMM, read by the supervisor at `cell_link(n, ..)`.
    pub const CELL_ACTUAL: usize = 0x1164_0000;
    /// Counters of blk ([`crate::disk_stats::BlkStats`]): written by blk, read by the supervisor at `service_link(s, ..)`.
    pub const BLK_STATS: usize = 0x1170_0000;

    /// Management ring ([`crate::manage`]): written by `ivc`; in the supervisor at `service_link(Ivc, ..)`.
    pub const MANAGE_TX: usize = 0x1178_0000;
    /// Management ring: written by the supervisor.
    pub const MANAGE_RX: usize = 0x117c_0000;
    /// In a VMM: the [`crate::backend::BackendStatus`] page that `ivc` writes for it; in `ivc` at `cell_link(n, ..)`.
    pub const IVC_STATUS: usize = 0x1124_0000;
    /// Doorbells of a cell's links: written by its VMM, read by `ivc` at `cell_link(n, ..)`.
    pub const DOORBELL_TX: usize = 0x1128_0000;
    /// Doorbells for a cell: written by `ivc`, read by its VMM.
    pub const DOORBELL_RX: usize = 0x112c_0000;
    /// In a VMM: control tables of its guest's links ([`crate::links`]), stride 0x1000, uncached.
    pub const LINK_CONTROL: usize = 0x1134_0000;
    /// Counters of links ([`crate::links::LinkStats`]): written by `ivc`, read by the supervisor at `service_link(Ivc, ..)`.
    pub const LINK_STATS: usize = 0x1176_0000;
    /// The last log lines of all PDs, as printed (`partita_ring::history`): written by console, read by the supervisor at
    /// `service_link(Console, ..)`.
    pub const LOG_HISTORY: usize = 0x1154_0000;
    /// Signs of life of a PD ([`crate::alive::Alive`]): written by it, read by the supervisor at its `service_link` or
    /// `cell_link`.
    pub const HEALTH: usize = 0x1168_0000;
    /// What the supervisor wants of blk and ivc ([`crate::alive::Orders`]): written by it at `service_link(s, ..)`, read by
    /// them.
    pub const ORDERS: usize = 0x116c_0000;
    /// In ivc: pages that survive its restart (chains of the guests that it holds), and nobody else maps.
    pub const IVC_INFLIGHT: usize = 0x1140_0000;
    /// Counters of `ivc` ([`crate::ivc_stats::IvcStats`]): written by it, read by the supervisor.
    pub const IVC_STATS: usize = 0x1174_0000;

    /// In a VMM: device tree blob of the guest, read-only. Byte count: symbol `guest_dtb_size`.
    pub const GUEST_DTB: usize = 0x1200_0000;
    /// In a VMM: headers that its boot files must have, kernel first, read-only. Byte count: symbol `guest_boot_size` (0: its
    /// files are in the image).
    pub const GUEST_BOOT: usize = 0x1240_0000;
    /// In a VMM: guest kernel image, read-only. Byte count: symbol `guest_kernel_size`. Or a boot file behind its header
    /// (docs/boot-files.md); byte count of the region: symbol `guest_kernel_room`.
    pub const GUEST_KERNEL: usize = 0x6000_0000;
    /// In a VMM: guest initramfs, read-only. Byte count: symbol `guest_initrd_size` (0: none). Or likewise a boot file:
    /// `guest_initrd_room`.
    pub const GUEST_INITRD: usize = 0x8000_0000;

    /// In a VMM: its guest's RAM. Byte count: symbol `guest_ram_size`.
    pub const GUEST_RAM: usize = 0x10_0000_0000;
    /// In a service (blk, ivc): RAM of cell `n`. Physical address: symbol `guest_ram_paddr_<n>`, byte count: symbol
    /// `guest_ram_size_<n>` (0: not a client).
    pub const fn cell_ram(n: usize) -> usize {
        0x10_0000_0000 * (n + 1)
    }
}

/// Byte counts of shared regions.
pub mod size {
    /// Each direction of a log ring: one header page and one page of data.
    pub const LOG_RING: usize = 0x2000;
    /// Each direction of a guest console ring: one header page and 8 KiB of data.
    pub const GUEST_CONSOLE_RING: usize = 0x3000;
    /// Log history: one header page and 16 KiB of data.
    pub const LOG_HISTORY: usize = 0x5000;
    /// Timer request and state pages.
    pub const TIMER_PAGE: usize = 0x1000;
    /// The broker's record of chains that it holds.
    pub const IVC_INFLIGHT: usize = 0x3000;
    /// DMA memory of a driver PD.
    pub const DMA: usize = 0x40000;
    /// Granule of all of them.
    pub const PAGE: usize = 0x1000;
}

/// The guest's physical address map (IPA). The same for every guest; docs/guest-abi.md describes it.
pub mod guest {
    /// GICv2 distributor, emulated (64 KiB).
    pub const GICD: u64 = 0x0800_0000;
    /// GICv2 CPU interface: the physical GICV pages.
    pub const GICC: u64 = 0x0801_0000;
    /// Its bytes: GICC_DIR, which ends interrupts for good, is in the second page.
    pub const GICC_SIZE: u64 = 0x2000;
    /// Emulated PL011.
    pub const UART: u64 = 0x0900_0000;
    /// SPI of the PL011, as an INTID.
    pub const UART_IRQ: u32 = 33;
    /// virtio-mmio register pages, stride 0x1000.
    pub const VIRTIO: u64 = 0x0a00_0000;
    /// INTID of virtio device 0; device `n` has this plus `n`.
    pub const VIRTIO_IRQ: u32 = 48;
    /// Control tables of shared-memory links, stride 0x1000; stores exit.
    pub const LINK_CONTROL: u64 = 0x0b00_0000;
    /// INTID of a cell's link 0; link `n` of the cell has this plus `n`.
    pub const LINK_IRQ: u32 = 64;
    /// First INTID that the tool gives to passed-through devices which do not ask for one.
    pub const PASSTHROUGH_IRQ: u32 = 80;
    /// Memory of a cell's links, below RAM: link `n` of the cell has this plus `n` times [`LINK_STRIDE`].
    pub const LINK_MEMORY: u64 = 0x1000_0000;
    /// Distance between the memories of a cell's links, and the most that one may have.
    pub const LINK_STRIDE: u64 = 0x1000_0000;
    /// RAM.
    pub const RAM: u64 = 0x4000_0000;
    /// Alignment of what is loaded into guest RAM, and the space kept for the device tree.
    pub const LOAD_ALIGN: u64 = 0x20_0000;

    /// Where the initramfs is loaded: it ends near the top of RAM. `None` if it does not fit. With no initramfs
    /// (`initrd_size` 0) it is the top of RAM.
    pub const fn initrd_address(ram_size: u64, initrd_size: u64) -> Option<u64> {
        match ram_size.checked_sub(initrd_size) {
            Some(offset) => Some(RAM + offset / LOAD_ALIGN * LOAD_ALIGN),
            None => None,
        }
    }

    /// Where the device tree is loaded: directly below the initramfs.
    pub const fn dtb_address(ram_size: u64, initrd_size: u64) -> Option<u64> {
        match initrd_address(ram_size, initrd_size) {
            Some(initrd) if initrd >= RAM + LOAD_ALIGN => Some(initrd - LOAD_ALIGN),
            _ => None,
        }
    }
}

const _: () = assert!(channel::service(Service::COUNT - 1) < channel::CONSOLE);
const _: () = assert!(channel::client(MAX_CELLS - 1) < channel::service(0));
const _: () = assert!(supervisor_vmm(MAX_CELLS - 1) < 40);
const _: () =
    assert!(supervisor_ping(supervisor_vmm(MAX_CELLS - 1)) < channel::PULSE && channel::PULSE <= 61);
const _: () = assert!(vaddr::cell_link(MAX_CELLS - 1, vaddr::BACKEND_STATUS) < vaddr::GUEST_KERNEL);
const _: () = assert!(guest::LINK_MEMORY + crate::MAX_CELL_LINKS as u64 * guest::LINK_STRIDE <= guest::RAM);
