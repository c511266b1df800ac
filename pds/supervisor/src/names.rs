//! Names of children.

use core::fmt;
use partita_config::Config;
use partita_protocol::MAX_CELLS;
use partita_protocol::layout::{Service, supervisor_vmm};

/// A child of the supervisor, which is also the other end of the channel of the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// A service PD.
    Service(Service),
    /// The VMM of a cell.
    Vmm(usize),
}

impl Who {
    /// By child id or channel.
    pub fn from_id(id: usize) -> Option<Self> {
        match id.checked_sub(supervisor_vmm(0)) {
            Some(cell) => (cell < MAX_CELLS).then_some(Who::Vmm(cell)),
            None => {
                Service::from_index(id).filter(|service| *service != Service::Supervisor).map(Who::Service)
            }
        }
    }
}

/// Displays as the PD's name.
pub struct Name<'a>(pub Who, pub Option<&'a Config<'a>>);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Name(who, config) = *self;
        match who {
            Who::Service(Service::Timer) => f.write_str("timer"),
            Who::Service(Service::Console) => f.write_str("console"),
            Who::Service(Service::Ivc) => f.write_str("ivc"),
            Who::Service(Service::Net) => f.write_str("net"),
            Who::Service(Service::Supervisor) => f.write_str("supervisor"),
            Who::Service(Service::Blk(n)) => match config.and_then(|c| c.controllers.get(usize::from(n))) {
                Some(controller) => write!(f, "blk_{}", controller.name),
                None => write!(f, "blk{n}"),
            },
            Who::Vmm(n) => match config.and_then(|c| c.cells.get(n)) {
                Some(cell) => write!(f, "vmm_{}", cell.name),
                None => write!(f, "vmm_cell{}", n + 1),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_is_somebody_or_nobody() {
        for id in 0..100 {
            let back = Who::from_id(id).map(|who| match who {
                Who::Service(service) => service.index(),
                Who::Vmm(cell) => supervisor_vmm(cell),
            });
            assert!(back.is_none_or(|back| back == id));
        }
        assert_eq!(Who::from_id(Service::Supervisor.index()), None);
        assert_eq!(Who::from_id(supervisor_vmm(0)), Some(Who::Vmm(0)));
        assert_eq!(Who::from_id(supervisor_vmm(MAX_CELLS)), None);
        assert_eq!(Name(Who::Service(Service::Blk(2)), None).to_string(), "blk2");
        assert_eq!(Name(Who::Vmm(0), None).to_string(), "vmm_cell1");
    }
}
