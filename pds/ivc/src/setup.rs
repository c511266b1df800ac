//! The start: memory by the addresses of `partita_protocol::layout`, the clients of partita.json.

use partita_config::Config;
use partita_ivc::links::Links;
use partita_ivc::vsock::inflight::InflightPages;
use partita_ivc::vsock::{Broker, Connections, Rules, Tables};
use partita_pd::config;
use partita_pd::memory::{self, at};
use partita_protocol::MAX_CELLS;
use partita_protocol::alive::{Alive, Orders};
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

/// Our signs of life.
pub fn alive() -> &'static Alive {
    // SAFETY: we are a child of the supervisor.
    unsafe { memory::alive() }
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

/// What this PD writes for timer.
pub fn timer_request() -> &'static TimerRequest {
    // SAFETY: we are a client of timer.
    unsafe { memory::timer_request() }
}

/// The supervisor wants us to refuse everything.
fn refuse() -> bool {
    // SAFETY: the host tool maps the page there, for the supervisor to write and us to read; it holds an atomic only.
    unsafe { memory::page::<Orders>(vaddr::ORDERS) }.refuse()
}

/// Sets everything up. `None`: there is nothing to serve; the log says why.
#[inline(never)]
pub fn start(
    logger: &'static Logger<'static>,
    tables: &'static mut Tables,
    connections: &'static mut Connections,
) -> Option<(Broker<LogReport>, Option<Links<'static>>)> {
    let Some(config) = config() else {
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
    if refuse() {
        broker.refuse_all();
    } else {
        broker.manage_over(ring);
    }
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
    let mut links = Links::new(config, pages, stats);
    if refuse() {
        links.refuse();
    }
    Some(links)
}
