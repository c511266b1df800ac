//! What a Microkit system consists of: the part of its description language that Partita uses, as plain data.

use crate::{board::Irq, fail, failure::Result};

/// Most protection domains of a system.
pub const MAX_PDS: usize = 63;
/// Channel and interrupt ids of one PD are below this; so are ids of children and vCPUs.
pub const MAX_IDS: usize = 62;

/// A memory region.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// Unique.
    pub name: String,
    /// Bytes; 0 if the prefill says it.
    pub size: u64,
    /// 2 MiB pages.
    pub large: bool,
    /// Fixed physical address.
    pub paddr: Option<u64>,
    /// File whose contents it starts with.
    pub prefill: Option<String>,
}

/// A mapping of a region.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Map {
    /// Name of the region.
    pub region: String,
    /// Virtual, for a guest intermediate physical, address.
    pub vaddr: u64,
    /// Of `rwx`.
    pub perms: &'static str,
    /// Otherwise device memory.
    pub cached: bool,
    /// Symbol that receives the region's size.
    pub setvar_size: Option<String>,
    /// Symbol that receives the prefilled file's size.
    pub setvar_prefill_size: Option<String>,
}

/// A virtual machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VirtualMachine {
    /// Unique.
    pub name: String,
    /// Priority of the vCPUs.
    pub priority: u8,
    /// Microseconds.
    pub budget: u32,
    /// Microseconds.
    pub period: u32,
    /// Number of vCPUs.
    pub vcpus: u8,
    /// Its address space.
    pub maps: Vec<Map>,
}

/// A protection domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pd {
    /// Unique.
    pub name: String,
    /// Program.
    pub elf: &'static str,
    /// 0 to 254.
    pub priority: u8,
    /// Microseconds of budget and period, if not Microkit's own.
    pub budget: Option<(u32, u32)>,
    /// Bytes.
    pub stack: u64,
    /// May call the secure monitor.
    pub smc: bool,
    /// Child number at its parent.
    pub id: Option<usize>,
    /// Its address space.
    pub maps: Vec<Map>,
    /// Its interrupts and their ids.
    pub irqs: Vec<(usize, Irq)>,
    /// Symbol and region whose physical address it receives.
    pub paddrs: Vec<(String, String)>,
    /// Its guest.
    pub vm: Option<VirtualMachine>,
    /// PDs that it is the parent of.
    pub children: Vec<Pd>,
}

/// One end of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Name of the PD.
    pub pd: String,
    /// Channel id there.
    pub id: usize,
    /// May make protected calls to the other end.
    pub calls: bool,
}

/// A channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel(pub End, pub End);

/// A system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct System {
    /// Memory.
    pub regions: Vec<Region>,
    /// PDs without a parent.
    pub pds: Vec<Pd>,
    /// Channels.
    pub channels: Vec<Channel>,
}

impl System {
    /// All PDs, parents before their children.
    pub fn all_pds(&self) -> Vec<&Pd> {
        fn walk<'a>(pds: &'a [Pd], all: &mut Vec<&'a Pd>) {
            for pd in pds {
                all.push(pd);
                walk(&pd.children, all);
            }
        }
        let mut all = Vec::new();
        walk(&self.pds, &mut all);
        all
    }

    /// Microkit's limits; beyond them its tool would accept what fails at boot.
    ///
    /// # Errors
    /// Which limit, where.
    pub fn check_limits(&self) -> Result {
        let pds = self.all_pds();
        if pds.len() > MAX_PDS {
            fail!("the system needs {} protection domains; Microkit has room for {MAX_PDS}", pds.len());
        }
        for (place, region) in self.regions.iter().enumerate() {
            if self.regions.iter().take(place).any(|other| other.name == region.name) {
                fail!("the system would have two regions {}", region.name);
            }
        }
        for pd in pds {
            let ends = self.channels.iter().flat_map(|Channel(a, b)| [a, b]).filter(|end| end.pd == pd.name);
            let ids: Vec<usize> = ends.map(|end| end.id).chain(pd.irqs.iter().map(|(id, _)| *id)).collect();
            check_ids(&pd.name, "channel or interrupt", &ids)?;
            let vcpus = 0..pd.vm.as_ref().map_or(0, |vm| usize::from(vm.vcpus));
            let ids: Vec<usize> = pd.children.iter().filter_map(|child| child.id).chain(vcpus).collect();
            check_ids(&pd.name, "child or vCPU", &ids)?;
        }
        Ok(())
    }
}

fn check_ids(pd: &str, kind: &str, ids: &[usize]) -> Result {
    if let Some(id) = ids.iter().find(|id| **id >= MAX_IDS) {
        fail!("{pd} would need {kind} id {id}; Microkit has 0 to {}", MAX_IDS - 1);
    }
    for (place, id) in ids.iter().enumerate() {
        if ids.iter().take(place).any(|other| other == id) {
            fail!("{pd} would have {kind} id {id} twice");
        }
    }
    Ok(())
}
