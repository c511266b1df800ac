//! What table and picture both say of a system.

use super::read::{Domain, Map, Region, System};

/// How a region is used: rule 1 is about the second one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Registers of a device.
    Device,
    /// Shared, and more than one may write.
    ManyWriters,
    /// Shared, one writes.
    OneWriter,
    /// Shared, nobody writes.
    NoWriter,
    /// One domain has it.
    Alone,
}

impl Class {
    /// In the order of the picture.
    pub const ALL: [Class; 5] =
        [Class::ManyWriters, Class::Device, Class::OneWriter, Class::NoWriter, Class::Alone];

    /// A heading.
    pub fn title(self, count: usize) -> String {
        match self {
            Class::Device => "Device registers, one driver each".into(),
            Class::ManyWriters => format!("Exceptions to rule 1: {count} regions with more than one writer"),
            Class::OneWriter => "Shared: one writes, others read (rule 1)".into(),
            Class::NoWriter => "Shared: nobody writes".into(),
            Class::Alone => "Not shared".into(),
        }
    }
}

/// The class of a region.
pub fn class(system: &System, region: &Region) -> Class {
    let users =
        system.domains.iter().filter(|domain| domain.maps.iter().any(|map| map.region == region.name));
    match (writers(system, &region.name).len(), users.count()) {
        (2.., _) => Class::ManyWriters,
        (1, _) if region.paddr.is_some() => Class::Device,
        (_, 0 | 1) => Class::Alone,
        (0, _) => Class::NoWriter,
        _ => Class::OneWriter,
    }
}

/// Who may write a region.
pub fn writers<'a>(system: &'a System, region: &str) -> Vec<&'a str> {
    let writes =
        |domain: &&Domain| domain.maps.iter().any(|map| map.region == region && map.perms.contains('w'));
    system.domains.iter().filter(writes).map(|domain| domain.name.as_str()).collect()
}

/// Whoever drives a device and knows a physical address can have the device write anywhere: there is no IOMMU.
pub fn has_dma(system: &System, domain: &Domain) -> bool {
    let is_device =
        |map: &Map| !map.cached && system.regions.iter().any(|r| r.name == map.region && r.paddr.is_some());
    !domain.physical.is_empty() && domain.maps.iter().any(is_device)
}

/// A region's size in words.
pub fn size(region: &Region) -> String {
    match (region.size, &region.prefill) {
        (Some(size), _) if size % (1 << 20) == 0 => format!("{} MiB", size >> 20),
        (Some(size), _) => format!("{} KiB", size >> 10),
        (None, Some(_)) => "file".into(),
        (None, None) => String::new(),
    }
}
