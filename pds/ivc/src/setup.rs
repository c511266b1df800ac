//! The start: memory by the addresses of `partita_protocol::layout`, the clients of partita.json.

use core::num::NonZeroUsize;
use core::ptr::NonNull;

use partita_config::{Config, Store};
use partita_ivc::links::Links;
use partita_ivc::vsock::inflight::InflightPages;
use partita_ivc::vsock::{Broker, Connections, Rules, Tables};
use partita_protocol::MAX_CELLS;
use partita_protocol::alive::Alive;
use partita_protocol::backend::BackendStatus;
use partita_protocol::ivc_stats::IvcStats;
use partita_protocol::layout::{guest, vaddr};
use partita_protocol::links::{DoorbellRx, DoorbellTx, LinkStats};
use partita_protocol::manage;
use partita_protocol::timer::TimerRequest;
use partita_ring::log::Logger;
use partita_ring::{Duplex, Mine, Yours, log_line};
use partita_virtio::memory::GuestRam;
use sel4_microkit::var;
use sel4_vm::cntfrq;

use crate::report::LogReport;

/// An address that the system description maps.
fn at<T>(address: usize) -> NonNull<T> {
    NonNull::with_exposed_provenance(NonZeroUsize::new(address).unwrap_or(NonZeroUsize::MIN))
}

/// Our signs of life.
pub fn alive() -> &'static Alive {
    // SAFETY: the host tool maps the page in every child of the supervisor; only we write it, through its atomics.
    unsafe { at::<Alive>(vaddr::HEALTH).as_ref() }
}

/// Size of each cell's RAM, as the system description sets it; 0: not a client.
fn guest_rams() -> [usize; MAX_CELLS] {
    macro_rules! cells {
        ($($size:ident),*) => {
            [$(*var!($size: usize = 0)),*]
        };
    }
    cells![
        guest_ram_size_0,
        guest_ram_size_1,
        guest_ram_size_2,
        guest_ram_size_3,
        guest_ram_size_4,
        guest_ram_size_5,
        guest_ram_size_6,
        guest_ram_size_7,
        guest_ram_size_8
    ]
}

static CONFIG: Store = Store::new();

/// Reads the configuration; `None` if the region is not there or is not what the host tool puts there.
#[inline(never)]
fn read_config() -> Option<&'static Config<'static>> {
    let bytes = *var!(config_size: usize = 0);
    if bytes == 0 {
        return None;
    }
    // SAFETY: the symbol is set together with the map, which is read-only in every PD, so nobody writes it.
    let text = unsafe { core::slice::from_raw_parts(at(vaddr::CONFIG).as_ptr(), bytes) };
    CONFIG.parse(text)
}

/// What this PD writes for timer.
pub fn timer_request() -> &'static TimerRequest {
    // SAFETY: the host tool maps the page there in every PD; only we write it, through its atomics.
    unsafe { at::<TimerRequest>(vaddr::TIMER_REQUEST).as_ref() }
}

/// Sets everything up. `None`: there is nothing to serve; the log says why.
#[inline(never)]
pub fn start(
    logger: &'static Logger<'static>,
    tables: &'static mut Tables,
    connections: &'static mut Connections,
) -> Option<(Broker<LogReport>, Option<Links<'static>>)> {
    let Some(config) = read_config() else {
        log_line!(logger, "no readable configuration");
        return None;
    };
    // SAFETY: the host tool maps pages there that only this PD has; they are zero at first, and any bytes are valid.
    let pages = unsafe { at::<InflightPages>(vaddr::IVC_INFLIGHT).as_ref() };
    // SAFETY: the host tool maps the page there; only we write it, through its atomics.
    let stats = unsafe { at::<IvcStats>(vaddr::IVC_STATS).as_ref() };
    // SAFETY: the host tool maps both directions of the management ring there, and nothing else in this PD uses them.
    let ring = unsafe {
        Duplex::new(
            Mine::at(at(vaddr::MANAGE_TX), manage::RING),
            Yours::at(at(vaddr::MANAGE_RX), manage::RING),
        )
    };
    let report = LogReport::new(logger, config);
    let mut broker = Broker::new(tables, connections, pages, stats, Rules::of(config), report, cntfrq());
    broker.manage_over(ring);
    for (n, (cell, size)) in config.cells.iter().zip(guest_rams()).enumerate() {
        let Some(cid) = cell.cid else { continue };
        // SAFETY: the symbol is set together with the map of `size` bytes at `cell_ram(n)`, which nothing in this PD uses
        // otherwise. An unset size is 0 and refused. There is no device here that a physical address would be for.
        let ram = unsafe { GuestRam::new(guest::RAM, at(vaddr::cell_ram(n)), size as u64, 0) };
        let Some(ram) = ram else { continue };
        // SAFETY: the host tool maps a page of ours there for each client; only we write it, through its atomics.
        let status = unsafe { at::<BackendStatus>(vaddr::cell_link(n, vaddr::IVC_STATUS)).as_ref() };
        broker.add_client(n, cid, ram, status);
        log_line!(logger, "{} has cid {cid}", cell.name);
    }
    broker.open();
    Some((broker, links(config)))
}

/// The shared-memory links, if there are any.
fn links(config: &Config<'_>) -> Option<Links<'static>> {
    if config.links.is_empty() {
        return None;
    }
    // SAFETY: the host tool maps the page for links' counters if there is a link; all in it are atomics.
    let stats = unsafe { at::<LinkStats>(vaddr::LINK_STATS).as_ref() };
    // SAFETY: likewise both pages of each cell that is in a link, and no others are asked for; all in them are atomics.
    let pages = |cell| unsafe {
        let far = |own| vaddr::cell_link(cell, own);
        let (tx, rx) = (at::<DoorbellTx>(far(vaddr::DOORBELL_TX)), at::<DoorbellRx>(far(vaddr::DOORBELL_RX)));
        (tx.as_ref(), rx.as_ref())
    };
    Some(Links::new(config, pages, stats))
}
