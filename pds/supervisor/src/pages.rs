//! The pages that the supervisor shares with others, by the addresses of `partita_protocol::layout`.

use core::sync::atomic::Ordering;

use partita_config::Config;
use partita_config::pd::Pd;
use partita_pd::memory::{self, at};
use partita_protocol::alive::{Alive, Orders};
use partita_protocol::disk_stats::{BlkStats, DiskCounters};
use partita_protocol::ivc_stats::IvcStats;
use partita_protocol::layout::{Service, size, supervisor_ping, vaddr};
use partita_protocol::lifecycle::{Actual, CellState, Wanted};
use partita_protocol::links::LinkStats;
use partita_protocol::manage;
use partita_protocol::stats::VmmStats;
use partita_protocol::supervisor::StopReason;
use partita_protocol::timer::TimerRequest;
use partita_ring::history::Reader;
use partita_ring::{Duplex, Mine, Yours};

static NOTHING: Config<'static> = Config::new();

/// The configuration; an empty one if the region is not there or is not what the host tool puts there.
pub fn config() -> &'static Config<'static> {
    partita_pd::config().unwrap_or(&NOTHING)
}

/// Our request to the timer PD.
pub fn timer_request() -> &'static TimerRequest {
    // SAFETY: we are a client of timer.
    unsafe { memory::timer_request() }
}

/// The management shell's line to console. To be taken once.
///
/// # Safety
/// There is no other one.
pub unsafe fn shell_link() -> Duplex<'static> {
    let size = size::GUEST_CONSOLE_RING;
    // SAFETY: the host tool maps both rings there; the caller makes no second one.
    unsafe {
        Duplex::new(Mine::at(at(vaddr::GUEST_CONSOLE_TX), size), Yours::at(at(vaddr::GUEST_CONSOLE_RX), size))
    }
}

/// The lines to and from `ivc`, if there is one. To be taken once.
///
/// # Safety
/// There is no other one.
pub unsafe fn manage_link(config: &Config<'_>) -> Option<Duplex<'static>> {
    let far = |own| at(vaddr::service_link(Service::Ivc.index(), own));
    let (mine, yours) = (far(vaddr::MANAGE_RX), far(vaddr::MANAGE_TX));
    // SAFETY: the host tool maps both rings there if the configuration needs `ivc`; the caller makes no second one.
    config
        .has_ivc()
        .then(|| unsafe { Duplex::new(Mine::at(mine, manage::RING), Yours::at(yours, manage::RING)) })
}

/// The counters of `ivc`, if there is one.
pub fn ivc_stats(config: &Config<'_>) -> Option<&'static IvcStats> {
    let page = at(vaddr::service_link(Service::Ivc.index(), vaddr::IVC_STATS));
    // SAFETY: the host tool maps the page there if the configuration needs `ivc`, for us to read; atomics only.
    if config.has_ivc() { Some(unsafe { page.as_ref() }) } else { None }
}

/// The counters of links, if there is one.
pub fn link_stats(config: &Config<'_>) -> Option<&'static LinkStats> {
    let page = at(vaddr::service_link(Service::Ivc.index(), vaddr::LINK_STATS));
    // SAFETY: the host tool maps the page there if the configuration has links, for us to read; atomics only.
    if config.links.is_empty() { None } else { Some(unsafe { page.as_ref() }) }
}

/// Channels that the system description gives to this PD, as bits.
pub fn channels() -> u64 {
    unsafe extern "C" {
        /// Patched by Microkit's tool; `sel4-microkit` defines it.
        static microkit_notifications: u64;
    }
    // SAFETY: the symbol is one word that is never written while the PD runs; volatile, as its value is not the linked one.
    unsafe { (&raw const microkit_notifications).read_volatile() }
}

/// A child's signs of life, if the system description gives us its pings.
pub fn health(who: Pd) -> Option<&'static Alive> {
    let id = who.id().filter(|id| channels() >> supervisor_ping(*id) & 1 == 1)?;
    let address = match who {
        Pd::Service(_) => vaddr::service_link(id, vaddr::HEALTH),
        Pd::Vmm(n) => vaddr::cell_link(n, vaddr::HEALTH),
    };
    // SAFETY: the host tool maps the page when it gives the channel, for the child to write and us to read; atomics only.
    Some(unsafe { at(address).as_ref() })
}

/// Our orders to a child, if it is one that takes some.
pub fn orders(who: Pd) -> Option<&'static Orders> {
    let id = who.id().filter(|id| channels() >> supervisor_ping(*id) & 1 == 1)?;
    let Pd::Service(service) = who else { return None };
    if !service.can_refuse() {
        return None;
    }
    // SAFETY: the host tool maps the page for each service that can refuse, for us to write; it holds an atomic only.
    Some(unsafe { memory::page(vaddr::service_link(id, vaddr::ORDERS)) })
}

/// The last log lines, as console keeps them.
pub fn history() -> Reader<'static> {
    let at = at(vaddr::service_link(Service::Console.index(), vaddr::LOG_HISTORY));
    // SAFETY: the host tool maps the region there, for console to write and us to read.
    Reader::new(unsafe { Yours::at(at, size::LOG_HISTORY) })
}

/// Pages of one cell.
#[derive(Clone, Copy)]
pub struct CellPages(usize);

/// What a VMM says of its guest, read once.
#[derive(Clone, Copy)]
pub struct Said {
    /// Its last start.
    pub epoch: u32,
    /// What it does.
    pub state: CellState,
    /// Why it stopped by itself, if it did.
    pub reason: Option<StopReason>,
    /// vCPUs that are on.
    pub vcpus_on: u32,
    /// Signs of life.
    pub heartbeat: u64,
}

impl CellPages {
    /// Those of cell `n`, if the configuration has it.
    pub fn new(config: &Config<'_>, n: usize) -> Option<Self> {
        (n < config.cells.len()).then_some(CellPages(n))
    }

    /// What we want of it.
    pub fn wanted(self) -> &'static Wanted {
        // SAFETY: the host tool maps the page for each cell of the configuration, ours to write; atomics only.
        unsafe { at(vaddr::cell_link(self.0, vaddr::CELL_WANTED)).as_ref() }
    }

    /// What its VMM says.
    pub fn said(self) -> Said {
        // SAFETY: likewise, for the VMM to write and us to read.
        let actual: &Actual = unsafe { at(vaddr::cell_link(self.0, vaddr::CELL_ACTUAL)).as_ref() };
        // The VMM writes the state after what belongs to it.
        let state = CellState::from_word(actual.state.load(Ordering::Acquire));
        let reason = actual.reason.load(Ordering::Relaxed);
        Said {
            epoch: actual.epoch.load(Ordering::Relaxed),
            state,
            reason: (reason != 0).then(|| StopReason::from_word(reason.into())),
            vcpus_on: actual.vcpus_on.load(Ordering::Relaxed),
            heartbeat: actual.heartbeat.load(Ordering::Relaxed),
        }
    }

    /// Its VMM's counters.
    pub fn stats(self) -> &'static VmmStats {
        // SAFETY: the host tool maps the page for each cell of the configuration, for us to read; atomics only.
        unsafe { at(vaddr::cell_link(self.0, vaddr::VMM_STATS)).as_ref() }
    }

    /// The counters of its disk `device` at `controller`.
    pub fn disk(
        self,
        config: &Config<'_>,
        controller: usize,
        device: usize,
    ) -> Option<&'static DiskCounters> {
        if controller >= config.controllers.len() {
            return None;
        }
        let service = Service::Blk(u8::try_from(controller).ok()?).index();
        // SAFETY: the host tool maps the region for each controller of the configuration, for us to read; atomics only.
        let page: &BlkStats = unsafe { at(vaddr::service_link(service, vaddr::BLK_STATS)).as_ref() };
        page.disks.get(self.0)?.get(device)
    }
}
