//! What the system description gives this VMM: regions, channels, symbols, and its cell in partita.json.

use heapless::Vec;
use partita_config::{Boot, Cell, Config, Device, Trigger};
use partita_guest::lines::Lines;
use partita_pd::config;
use partita_pd::memory::{at, page, region};
use partita_pd_vmm::devices::Slot;
use partita_pd_vmm::files::Files;
use partita_pd_vmm::links::{Description, Links};
use partita_pd_vmm::load::Images;
use partita_pd_vmm::machine::Machine;
use partita_pd_vmm::remote::{Backend, device_id};
use partita_pd_vmm::terminal::{Port, Terminal};
use partita_pd_vmm::vmm::{CellLink, Parts, TimerLink, Vmm};
use partita_protocol::MAX_DEVICES;
use partita_protocol::backend::BackendStatus;
use partita_protocol::layout::{channel, guest, size, vaddr};
use partita_protocol::stats::VmmStats;
use partita_ring::log::Logger;
use partita_ring::{Duplex, Mine, Yours};
use partita_virtio::memory::GuestRam;
use sel4_microkit::{Channel, pd_name, protection_domain, var};

use crate::kernel::{Kernel, Pd, Registers};

/// Counters, as long as no page is mapped for them.
static OWN_STATS: VmmStats = VmmStats::new();

#[protection_domain]
fn init() -> Pd {
    // SAFETY: the host tool maps the region in every VMM and sets the symbol to its size; it is prefilled and read-only for
    // everybody.
    let dtb = unsafe { region(vaddr::GUEST_DTB, *var!(guest_dtb_size: usize = 0)) };
    let ram_size = *var!(guest_ram_size: u64 = 0);
    // SAFETY: guest RAM is mapped here for as long as this PD runs, and nothing makes references into it. The VMM does no
    // DMA, so it is not told the physical address.
    let ram = unsafe { GuestRam::new(guest::RAM, at(vaddr::GUEST_RAM), ram_size, 0) };
    // The host tool has checked all this; without it there is no guest to run, and the supervisor reports the panic.
    let ram = ram.expect("guest RAM");
    let config = config().expect("partita.json");
    let name = pd_name().unwrap_or("");
    let (_, cell) = config.cell_of_pd(name).expect("a cell for this PD in partita.json");
    let ([kernel, initrd], files) = files(config);

    // SAFETY: the log ring is mapped at its fixed addresses, as every PD's.
    let logger = unsafe { Logger::at_layout(|| Channel::new(channel::CONSOLE).notify()) };
    // SAFETY: the guest console ring is mapped at its fixed addresses in every VMM.
    let ring = unsafe {
        Duplex::new(
            Mine::at(at(vaddr::GUEST_CONSOLE_TX), size::GUEST_CONSOLE_RING),
            Yours::at(at(vaddr::GUEST_CONSOLE_RX), size::GUEST_CONSOLE_RING),
        )
    };
    // SAFETY: both timer pages are mapped in every VMM, the counters' page if its size is set.
    let (request, state, stats) = unsafe {
        let stats = match *var!(vmm_stats_size: usize = 0) {
            0 => &OWN_STATS,
            _ => page(vaddr::VMM_STATS),
        };
        (page(vaddr::TIMER_REQUEST), page(vaddr::TIMER_STATE), stats)
    };
    // SAFETY: the host tool maps both pages of the supervisor's link in every VMM.
    let cell_link =
        unsafe { CellLink { wanted: page(vaddr::CELL_WANTED), actual: page(vaddr::CELL_ACTUAL) } };
    Pd(Vmm::new(Parts {
        machine: Kernel,
        logger,
        ram,
        stale: cell.memory_address.is_some(),
        files,
        images: Images { kernel, initrd, dtb, plain: cell.boot == Boot::Binary },
        vcpus: cell.vcpus.into(),
        devices: devices(config, cell),
        terminal: Terminal::new(ring, console(cell)),
        lines: lines(cell),
        links: links(config, cell),
        timer: TimerLink { request, state },
        cell: cell_link,
        stats,
        autostart: cell.autostart,
        // SAFETY: likewise for the page with our signs of life.
        alive: unsafe { page(vaddr::HEALTH) },
    }))
}

/// Kernel and initramfs: in the image, or where the boot loader has put them, behind their headers.
fn files(config: &Config<'_>) -> ([&'static [u8]; 2], Files<'static>) {
    // SAFETY: for each symbol that is not 0 the host tool maps a region of that size; the first three are prefilled, the
    // last two the boot loader's. All are read-only for everybody.
    let (in_image, expected, rooms) = unsafe {
        (
            [
                region(vaddr::GUEST_KERNEL, *var!(guest_kernel_size: usize = 0)),
                region(vaddr::GUEST_INITRD, *var!(guest_initrd_size: usize = 0)),
            ],
            region(vaddr::GUEST_BOOT, *var!(guest_boot_size: usize = 0)),
            [
                region(vaddr::GUEST_KERNEL, *var!(guest_kernel_room: usize = 0)),
                region(vaddr::GUEST_INITRD, *var!(guest_initrd_room: usize = 0)),
            ],
        )
    };
    match config.boot_files {
        None => (in_image, Files::in_image()),
        Some(address) => {
            let [kernel, initrd] = rooms;
            let initrd = (!initrd.is_empty()).then_some(initrd);
            let (files, images) = Files::open(address.0, kernel, initrd, expected);
            (images, files)
        }
    }
}

/// The interrupts of passed-through devices, which the system description numbers in this order.
fn lines(cell: &Cell<'_>) -> Lines {
    let mut lines = Lines::new();
    for (channel, line) in (channel::VMM_PASSTHROUGH as u8..).zip(cell.lines()) {
        // There is room for all that a cell can have.
        let _ = lines.add(channel, line.guest_irq as u16, line.trigger == Trigger::Edge);
    }
    lines
}

/// The cell's devices with their backends, in the order of their register pages.
fn devices(config: &Config<'_>, cell: &Cell<'_>) -> Vec<Slot<'static, Registers>, MAX_DEVICES> {
    let slot = |(number, device)| match backend(config, cell, device) {
        // SAFETY: the host tool maps a register page per device.
        Some(backend) => Slot::Waiting(unsafe { Registers::new(number) }, backend),
        None => Slot::Absent,
    };
    // The host tool refuses a cell with more than that.
    cell.devices().take(MAX_DEVICES).enumerate().map(slot).collect()
}

/// Where a device's backend is, if it has one.
fn backend(config: &Config<'_>, cell: &Cell<'_>, device: Device) -> Option<Backend<'static>> {
    // SAFETY: the host tool maps a status page for each backend that the cell uses.
    let status = |address| unsafe { page::<BackendStatus>(address) };
    match device {
        Device::Console => None,
        Device::Vsock => Some(Backend {
            id: device_id::VSOCK,
            channel: channel::VMM_IVC,
            device: 0,
            status: status(vaddr::IVC_STATUS),
        }),
        Device::Disk(number) => {
            let controller = cell.disks.get(number)?.controller;
            let (place, _) = config.controller(controller)?;
            Some(Backend {
                id: device_id::BLK,
                channel: channel::vmm_blk(place),
                device: cell.disks_at(controller).position(|(other, _)| other == number)?,
                status: status(vaddr::BACKEND_STATUS + place * size::PAGE),
            })
        }
    }
}

/// The cell's links, if it has any.
fn links(config: &Config<'_>, cell: &Cell<'_>) -> Option<Links<'static, Registers>> {
    let describe = |part: partita_config::CellLink<'_, '_>| Description {
        id: part.id().into(),
        peers: part.link.peers.len(),
        peer: part.peer,
        // The host tool has checked that they fit into 256 MiB.
        shared: part.link.shared.0 as u32,
        output: part.link.output.0 as u32,
    };
    let list: Vec<Description, _> = config.links_of(cell.name).map(describe).collect();
    if list.is_empty() {
        return None;
    }
    // SAFETY: the host tool maps a control table for each of the cell's links.
    let tables = (0..list.len()).map(|link| unsafe { Registers::link(link) });
    // SAFETY: the host tool maps both pages of doorbells in the VMM of a cell with links.
    let pages = unsafe { (page(vaddr::DOORBELL_TX), page(vaddr::DOORBELL_RX)) };
    let mut kernel = Kernel;
    let links = Links::new(list, tables, pages, kernel.frequency());
    // A guest that ran under an earlier life of this VMM does so no more: the peers are to hear of it.
    kernel.signal(channel::VMM_IVC);
    Some(links)
}

/// The virtio-console, if the cell has one.
fn console(cell: &Cell<'_>) -> Option<(usize, Port<Registers>)> {
    let number = cell.devices().position(|device| device == Device::Console)?;
    // SAFETY: the host tool maps a register page per device.
    Some((number, Port::new(unsafe { Registers::new(number) })))
}
