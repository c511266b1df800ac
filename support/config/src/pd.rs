//! Names of protection domains: one rule for the host tool, which gives them, and for the PDs that print or parse them.

use core::fmt;

use partita_protocol::{
    MAX_CELLS,
    layout::{Service, supervisor_vmm},
};

use crate::{Cell, Config, Controller};

/// A PD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pd {
    /// A service.
    Service(Service),
    /// The VMM of a cell.
    Vmm(usize),
}

impl Pd {
    /// By its child number at the supervisor, which is also the supervisor's channel to it.
    pub fn from_id(id: usize) -> Option<Self> {
        match id.checked_sub(supervisor_vmm(0)) {
            Some(cell) => (cell < MAX_CELLS).then_some(Pd::Vmm(cell)),
            None => {
                Service::from_index(id).filter(|service| *service != Service::Supervisor).map(Pd::Service)
            }
        }
    }

    /// The reverse of [`Pd::from_id`]; the supervisor has no number.
    pub const fn id(self) -> Option<usize> {
        match self {
            Pd::Service(Service::Supervisor) => None,
            Pd::Service(service) => Some(service.index()),
            Pd::Vmm(cell) => Some(supervisor_vmm(cell)),
        }
    }

    /// Displays as the PD's name; as a number where the description has no name for it.
    pub const fn name<'a>(self, config: Option<&'a Config<'a>>) -> Name<'a> {
        Name(self, config)
    }
}

/// See [`Pd::name`].
#[derive(Clone, Copy, Debug)]
pub struct Name<'a>(Pd, Option<&'a Config<'a>>);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Name(pd, config) = *self;
        match pd {
            Pd::Service(Service::Timer) => f.write_str("timer"),
            Pd::Service(Service::Console) => f.write_str("console"),
            Pd::Service(Service::Ivc) => f.write_str("ivc"),
            Pd::Service(Service::Net) => f.write_str("net"),
            Pd::Service(Service::Supervisor) => f.write_str("supervisor"),
            Pd::Service(Service::Blk(n)) => match config.and_then(|c| c.controllers.get(usize::from(n))) {
                Some(controller) => write!(f, "blk_{}", controller.name),
                None => write!(f, "blk{n}"),
            },
            Pd::Vmm(n) => match config.and_then(|c| c.cells.get(n)) {
                Some(cell) => write!(f, "vmm_{}", cell.name),
                None => write!(f, "vmm_cell{}", n + 1),
            },
        }
    }
}

impl<'a> Config<'a> {
    /// The cell whose VMM is the PD of this name.
    pub fn cell_of_pd(&self, pd: &str) -> Option<(usize, &Cell<'a>)> {
        self.cell(pd.strip_prefix("vmm_")?)
    }

    /// The controller whose driver is the PD of this name.
    pub fn controller_of_pd(&self, pd: &str) -> Option<(usize, &Controller<'a>)> {
        self.controller(pd.strip_prefix("blk_")?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_pds_correspond() {
        for id in 0..100 {
            if let Some(pd) = Pd::from_id(id) {
                assert_eq!(pd.id(), Some(id));
            }
        }
        assert_eq!(Pd::from_id(supervisor_vmm(MAX_CELLS)), None);
        assert_eq!(Pd::Service(Service::Supervisor).id(), None);
    }

    #[test]
    fn a_name_leads_back_to_its_owner() {
        let text = br#"{"controllers":[{"name":"c","kind":"virtio-mmio"}],
                        "cells":[{"name":"a","memory":"16M","kernel":"k"},{"name":"b","memory":"16M","kernel":"k"}]}"#;
        let config = crate::parse(text).unwrap();
        let name = |pd: Pd| pd.name(Some(&config)).to_string();
        assert_eq!(config.cell_of_pd(&name(Pd::Vmm(1))).unwrap().0, 1);
        assert_eq!(config.controller_of_pd(&name(Pd::Service(Service::Blk(0)))).unwrap().0, 0);
        assert_eq!(name(Pd::Vmm(2)), "vmm_cell3");
        assert_eq!(Pd::Vmm(0).name(None).to_string(), "vmm_cell1");
        assert_eq!(config.cell_of_pd("vmm_cell3"), None);
    }
}
