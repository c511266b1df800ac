//! What the tool must know of a board that the SDK does not tell.

use partita_config::{Controller, ControllerKind};

use crate::{fail, failure::Result};

/// An interrupt of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Irq {
    /// GIC INTID.
    pub number: u32,
    /// Edge-triggered; otherwise level.
    pub edge: bool,
}

/// A device that a PD drives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceAt {
    /// First page of its registers.
    pub paddr: u64,
    /// Bytes of whole pages.
    pub size: u64,
    /// Its interrupt.
    pub irq: Irq,
}

/// A board, with Microkit's name.
#[derive(Debug, PartialEq, Eq)]
pub struct Board {
    /// Microkit's name.
    pub name: &'static str,
    /// Physical GICV pages that a guest gets as its GICC.
    pub gicv: u64,
    /// The console's UART.
    pub uart: DeviceAt,
    /// Interrupt of the EL1 physical timer, which `timer` uses.
    pub timer: Irq,
    /// `compatible` of the guest's CPUs.
    pub cpu: &'static str,
    /// What of the board is the kernel's, and RAM, which a device cannot be: first, and first behind.
    pub not_devices: &'static [(&'static str, u64, u64)],
    /// Bytes of RAM that Microkit can give to PDs and guests, what it and the image use included.
    pub ram: u64,
    /// RAM that the kernel does not get: first, and first behind. The last may end where a machine of this kind can end;
    /// QEMU is started with as much as is used.
    pub spare: &'static [(u64, u64)],
    /// Part of it where the firmware leaves its device tree: a boot loader cannot put anything else there.
    pub firmware: (u64, u64),
    /// Where loader.img is loaded.
    pub load: u64,
}

/// QEMU virt with a Cortex-A53: docs/boards of the shared design, Microkit's board of that name.
const QEMU_VIRT: Board = Board {
    name: "qemu_virt_aarch64",
    gicv: 0x0804_0000,
    uart: DeviceAt { paddr: 0x0900_0000, size: 0x1000, irq: Irq { number: 33, edge: false } },
    timer: Irq { number: 30, edge: false },
    cpu: "arm,cortex-a53",
    not_devices: &[
        ("the interrupt controller, which is the kernel's", 0x0800_0000, 0x0805_0000),
        ("RAM", 0x4000_0000, 1 << 40),
    ],
    ram: 0x6000_0000,
    spare: &[(0x4000_0000, 0x6000_0000), (0xc000_0000, 0x2_4000_0000)],
    firmware: (0x4000_0000, 0x4020_0000),
    load: 0x7000_0000,
};

/// QEMU virt's virtio-mmio transports: 32 of 0x200 bytes from here, interrupts from INTID 48.
const VIRTIO_MMIO: u64 = 0x0a00_0000;
const VIRTIO_MMIO_STRIDE: u64 = 0x200;
const VIRTIO_MMIO_IRQ: u32 = 48;
/// Number of transports.
pub const VIRTIO_MMIO_SLOTS: u8 = 32;
/// Transports in one page: two PDs must not share a page.
pub const VIRTIO_MMIO_SLOTS_PER_PAGE: u8 = 8;

/// Boards that Microkit has and Partita will support.
const LATER: &[&str] = &["rpi4b_1gb", "rpi4b_2gb", "rpi4b_4gb", "rpi4b_8gb", "imx8mp_evk", "imx8mp_iotgate"];

impl Board {
    /// By Microkit's name.
    ///
    /// # Errors
    /// A board that is not supported, or not yet.
    pub fn named(name: &str) -> Result<&'static Self> {
        match name {
            "qemu_virt_aarch64" => Ok(&QEMU_VIRT),
            later if LATER.contains(&later) => {
                fail!("BOARD={later} is not supported yet, it comes later; use BOARD=qemu_virt_aarch64")
            }
            other => fail!("BOARD={other} is unknown; use BOARD=qemu_virt_aarch64"),
        }
    }

    /// Whether all from `first` to before `end` is memory that the kernel does not get.
    pub fn spares(&self, first: u64, end: u64) -> bool {
        self.spare.iter().any(|(start, behind)| *start <= first && end <= *behind)
    }

    /// That memory in words.
    pub fn spare_words(&self) -> String {
        let ranges: Vec<_> =
            self.spare.iter().map(|(first, behind)| format!("{first:#x} to {behind:#x}")).collect();
        ranges.join(" and ")
    }

    /// Registers and interrupt of a controller.
    pub fn controller(&self, controller: &Controller<'_>) -> DeviceAt {
        match controller.kind {
            ControllerKind::VirtioMmio => {
                let slot = u64::from(controller.slot);
                let page = (VIRTIO_MMIO + slot * VIRTIO_MMIO_STRIDE) & !0xfff;
                let irq = Irq { number: VIRTIO_MMIO_IRQ + u32::from(controller.slot), edge: true };
                DeviceAt { paddr: page, size: 0x1000, irq }
            }
        }
    }
}
