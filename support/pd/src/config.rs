//! partita.json, as the host tool put it beside the program.

use partita_config::{Config, Store};
use partita_protocol::layout::vaddr;
use sel4_microkit::var;

use crate::memory::region;

static CONFIG: Store = Store::new();

/// The configuration; `None` if the region is not there or is not what the host tool puts there, or at a second call.
#[inline(never)]
pub fn config() -> Option<&'static Config<'static>> {
    // SAFETY: the symbol is set together with the map, which is read-only in every PD, so nobody writes it.
    CONFIG.parse(unsafe { region(vaddr::CONFIG, *var!(config_size: usize = 0)) })
}
