//! The start: memory by the addresses of `partita_protocol::layout`, the device, each client's windows.

use partita_blk_backend::inflight::InflightPage;
use partita_blk_backend::{Backend, Counting, DiskConfig, Rate, Tables};
use partita_config::{Cell, Disk, Partition};
use partita_pd::config;
use partita_pd::memory::{self, at};
use partita_protocol::MAX_CELLS;
use partita_protocol::alive::{Alive, Orders};
use partita_protocol::backend::BackendStatus;
use partita_protocol::disk_stats::BlkStats;
use partita_protocol::layout::{size, vaddr};
use partita_ring::log::Logger;
use partita_ring::log_line;
use partita_storage::device::{BlockDevice, Health};
use partita_storage::partition::{Selector, TableError, resolve};
use partita_storage::poll::PollReader;
use partita_storage::virtio_blk::{PAGE, VirtioBlk};
use partita_storage::window::Window;
use partita_virtio::blk::ID_BYTES;
use partita_virtio::memory::GuestRam;
use sel4_microkit::{pd_name, var};
use sel4_vm::{cntfrq, cntpct};
use virtio_drivers::transport::mmio::{MmioTransport, VirtIOHeader};

use crate::report::LogReport;

pub type Device = VirtioBlk<MmioTransport<'static>>;
pub type BlkBackend = Backend<Device, LogReport>;

/// virtio-mmio transports are this far apart, so a page holds several.
const TRANSPORT: usize = 0x200;
/// DMA memory that partition tables are read through; the rest is the driver's.
const SCRATCH: u64 = 4 * PAGE;
/// Seconds that reading the partition tables may take in all.
const PATIENCE: u64 = 5;

/// Our signs of life.
pub fn alive() -> &'static Alive {
    // SAFETY: we are a child of the supervisor.
    unsafe { memory::alive() }
}

/// Physical address and size of each cell's RAM, as the system description sets them.
fn guest_rams() -> [(usize, usize); MAX_CELLS] {
    macro_rules! cells {
        ($(($paddr:ident, $size:ident)),*) => {
            [$((*var!($paddr: usize = 0), *var!($size: usize = 0))),*]
        };
    }
    cells![
        (guest_ram_paddr_0, guest_ram_size_0),
        (guest_ram_paddr_1, guest_ram_size_1),
        (guest_ram_paddr_2, guest_ram_size_2),
        (guest_ram_paddr_3, guest_ram_size_3),
        (guest_ram_paddr_4, guest_ram_size_4),
        (guest_ram_paddr_5, guest_ram_size_5),
        (guest_ram_paddr_6, guest_ram_size_6),
        (guest_ram_paddr_7, guest_ram_size_7),
        (guest_ram_paddr_8, guest_ram_size_8)
    ]
}

/// RAM of cell `n`, if it is a client.
fn guest_ram(n: usize, paddr: usize, size: usize) -> Option<GuestRam> {
    // SAFETY: the symbols are set together with the map of `size` bytes at `cell_ram(n)`, which nothing in this PD uses
    // otherwise. An unset size is 0 and refused.
    unsafe {
        GuestRam::new(partita_protocol::layout::guest::RAM, at(vaddr::cell_ram(n)), size as u64, paddr as u64)
    }
}

/// The driver's part of DMA memory, and the scratch.
fn dma() -> Option<(GuestRam, GuestRam)> {
    let paddr = *var!(dma_paddr: usize = 0) as u64;
    if paddr == 0 {
        return None;
    }
    // SAFETY: the host tool maps `size::DMA` bytes there, and nothing in this PD uses them otherwise.
    let all = unsafe { GuestRam::new(paddr, at(vaddr::DMA), size::DMA as u64, paddr) }?;
    let cut = all.size() - SCRATCH;
    Some((all.part(paddr, cut)?, all.part(paddr + cut, SCRATCH)?))
}

/// The supervisor wants us to answer with errors only.
fn refuse() -> bool {
    // SAFETY: the host tool maps the page there, for the supervisor to write and us to read; it holds an atomic only.
    unsafe { memory::page::<Orders>(vaddr::ORDERS) }.refuse()
}

/// Finds a disk's window. Apart, because its buffers are large and not needed later.
#[inline(never)]
fn find_window(
    device: &mut Device,
    scratch: GuestRam,
    deadline: u64,
    disk: &Disk<'_>,
) -> Result<Window, TableError> {
    resolve(&mut PollReader::new(device, scratch, || cntpct() < deadline), selector(disk))
}

/// The device; one that refuses everything if that is wanted, or if it worked in an earlier life (`again`) and does not now:
/// guests have requests in flight that must be answered.
fn device(slot: usize, memory: GuestRam, logger: &Logger<'_>, again: bool) -> Option<Device> {
    let header = at::<VirtIOHeader>(vaddr::DEVICE + slot % (size::PAGE / TRANSPORT) * TRANSPORT);
    // SAFETY: the page with the controller's transport is mapped there, for this PD alone, for good, and the transports that
    // this makes are used one after the other.
    let transport = || unsafe { MmioTransport::new(header, TRANSPORT) };
    if !refuse() {
        match transport() {
            Err(error) => log_line!(logger, "no virtio-mmio device in slot {slot}: {error}"),
            Ok(transport) => match VirtioBlk::new(transport, memory) {
                Ok(device) => return Some(device),
                Err(error) => log_line!(logger, "the device in slot {slot} cannot be driven: {error:?}"),
            },
        }
    }
    if again { VirtioBlk::refusing(transport().ok()?, memory).ok() } else { None }
}

/// Sets everything up: the backend and the milliseconds that a request may take. What was said at the first start is not said
/// `again`. `None`: there is nothing to serve; the log says why.
#[inline(never)]
pub fn start(
    logger: &'static Logger<'static>,
    tables: &'static mut Tables,
    again: bool,
) -> Option<(BlkBackend, u32)> {
    let Some(config) = config() else {
        log_line!(logger, "no readable configuration");
        return None;
    };
    let Some((_, controller)) = config.controller_of_pd(pd_name().unwrap_or_default()) else {
        log_line!(logger, "the configuration has no controller of this name");
        return None;
    };
    let Some((memory, scratch)) = dma() else {
        log_line!(logger, "no DMA memory");
        return None;
    };
    let device = device(controller.slot as usize, memory, logger, again)?;
    let failed = device.health() == Health::Failed;
    let p = *device.properties();
    if !again {
        log_line!(
            logger,
            "{} sectors, blocks of {}, {} requests of {} segments{}{}",
            p.sectors,
            p.block_size,
            p.depth,
            p.seg_max,
            if p.flush { ", flush" } else { "" },
            if p.read_only { ", read-only" } else { "" }
        );
    }
    // SAFETY: the host tool maps a page there that only this PD has; it is zero at first, and any bytes are valid.
    let inflight = unsafe { at::<InflightPage>(vaddr::BLK_INFLIGHT).as_ref() };
    let report = LogReport::new(logger, config, controller.timeout_ms);
    let mut backend = Backend::new(device, report, tables, inflight);
    // SAFETY: the host tool maps the region there; only we write it, through its atomics.
    let page = unsafe { at::<BlkStats>(vaddr::BLK_STATS).as_ref() };
    backend.count(Counting { page, clock: cntpct });
    backend.set_clock(cntpct, cntfrq());
    let deadline = cntpct().saturating_add(cntfrq().saturating_mul(PATIENCE));
    for (n, (paddr, size)) in guest_rams().into_iter().enumerate() {
        let Some(ram) = guest_ram(n, paddr, size) else { continue };
        let Some(cell) = config.cells.get(n) else { continue };
        // SAFETY: the host tool maps a page of ours there for each client; only we write it, through its atomics.
        let status = unsafe { at::<BackendStatus>(vaddr::cell_link(n, vaddr::BACKEND_STATUS)).as_ref() };
        backend.add_client(n, ram, status);
        for (i, (_, disk)) in cell.disks_at(controller.name).enumerate() {
            let found = match failed {
                // Every request is answered with an error before it gets there.
                true => Ok(Window::NONE),
                false => find_window(backend.device_mut(), scratch, deadline, disk),
            };
            let window = match found {
                Ok(window) => window,
                Err(error) => {
                    log_line!(logger, "{} disk {i} ({:?}): {error}", cell.name, disk.partition);
                    continue;
                }
            };
            let read_only = disk.read_only;
            match backend.add_disk(
                n,
                i,
                DiskConfig {
                    window,
                    read_only,
                    serial: serial(cell, i, disk),
                    rate: rate(disk),
                    queues: cell.queues(disk),
                },
            ) {
                Ok(()) if again => {}
                Ok(()) => log_line!(
                    logger,
                    "{} disk {i}: sectors {}..{}{}",
                    cell.name,
                    window.first(),
                    window.first() + window.count(),
                    if read_only { ", read-only" } else { "" }
                ),
                Err(other) => {
                    log_line!(
                        logger,
                        "{} disk {i} has sectors of a disk of cell {other}: refused",
                        cell.name
                    );
                }
            }
        }
    }
    backend.open();
    Some((backend, controller.timeout_ms))
}

fn selector<'a>(disk: &Disk<'a>) -> Selector<'a> {
    match disk.partition {
        Partition::Label(label) => Selector::Label(label),
        Partition::Gpt(number) => Selector::Gpt(number),
        Partition::Mbr(number) => Selector::Mbr(number),
        Partition::Range { first, count } => Selector::Range { first, count },
    }
}

/// Most that the disk may ask for, as configured.
fn rate(disk: &Disk<'_>) -> Rate {
    Rate {
        iops: disk.iops.unwrap_or_default(),
        bytes_per_second: disk.bytes_per_second.map_or(0, |size| size.0),
    }
}

/// What GET_ID returns: as configured, or `<cell>-<number>`.
fn serial(cell: &Cell<'_>, number: usize, disk: &Disk<'_>) -> [u8; ID_BYTES] {
    let mut serial = [0; ID_BYTES];
    let digit = [b'-', b'0' + (number % 10) as u8];
    let text: (&[u8], &[u8]) = match disk.serial {
        Some(serial) => (serial.as_bytes(), &[]),
        None => (cell.name.as_bytes().get(..ID_BYTES - 2).unwrap_or(cell.name.as_bytes()), &digit),
    };
    for (to, from) in serial.iter_mut().zip(text.0.iter().chain(text.1)) {
        *to = *from;
    }
    serial
}
