//! Properties of the whole description, and the page size of regions that leave it open.

use std::collections::BTreeSet;

use super::error::Result;
use super::model::{Map, Paddr, Region, System, Value};
use crate::sdk::{Board, PAGE_SIZES};

/// 16 GiB of small pages.
const MAX_FRAMES: u64 = 1 << 22;

/// Checks everything that needs more than one element.
pub fn check(system: &mut System, board: &Board) -> Result<()> {
    names(system)?;
    interrupts(system, board)?;
    channels(system)?;
    user_caps(system)?;
    maps(system, board)?;
    physical(system, board)?;
    unused(system);
    page_sizes(system);
    frames(system)?;
    setvars(system)
}

fn names(system: &System) -> Result<()> {
    if system.pds.is_empty() {
        return Err(system
            .place
            .error("there is no protection domain", "write at least one <protection_domain>"));
    }
    let mut seen = BTreeSet::new();
    for pd in &system.pds {
        if pd.name == "monitor" {
            return Err(pd.place.error(
                "the name 'monitor' is the system monitor's",
                "give the protection domain another name",
            ));
        }
        if !seen.insert(pd.name.as_str()) {
            return Err(pd.place.error(
                format!("a second protection domain '{}'", pd.name),
                "names of protection domains are unique",
            ));
        }
    }
    let mut vms = BTreeSet::new();
    for vm in system.pds.iter().filter_map(|pd| pd.vm.as_ref()) {
        if !vms.insert(vm.name.as_str()) {
            return Err(vm.place.error(
                format!("a second virtual machine '{}'", vm.name),
                "names of virtual machines are unique",
            ));
        }
    }
    let mut regions = BTreeSet::new();
    for region in &system.regions {
        if !regions.insert(region.name.as_str()) {
            return Err(region.place.error(
                format!("a second memory region '{}'", region.name),
                "names of memory regions are unique",
            ));
        }
    }
    Ok(())
}

fn interrupts(system: &System, board: &Board) -> Result<()> {
    let mut seen = BTreeSet::new();
    for irq in system.pds.iter().flat_map(|pd| &pd.irqs) {
        let place = &irq.irq_place;
        if !seen.insert(irq.irq) {
            return Err(place.error(
                format!("interrupt {} is used twice", irq.irq),
                "an interrupt belongs to one protection domain",
            ));
        }
        if let Some((_, who)) = board.reserved_irqs.iter().find(|(number, _)| *number == irq.irq) {
            return Err(place
                .error(format!("interrupt {} is the kernel's ({who})", irq.irq), "use another interrupt"));
        }
        if irq.irq > board.max_irq {
            return Err(place.error(
                format!("there is no interrupt {}", irq.irq),
                format!("write 0 to {} (a shared peripheral interrupt's number plus 32)", board.max_irq),
            ));
        }
    }
    Ok(())
}

fn channels(system: &System) -> Result<()> {
    let mut ids = vec![BTreeSet::new(); system.pds.len()];
    let right = "interrupts and channels of a protection domain share ids 0 to 61; choose a free one";
    for (pd, taken) in system.pds.iter().zip(&mut ids) {
        for irq in &pd.irqs {
            if !taken.insert(irq.id) {
                let wrong = format!("id {} is used twice in protection domain '{}'", irq.id, pd.name);
                return Err(irq.id_place.error(wrong, right));
            }
        }
    }
    for channel in &system.channels {
        let [a, b] = &channel.ends;
        for end in [a, b] {
            if !ids[end.pd].insert(end.id) {
                let wrong =
                    format!("id {} is used twice in protection domain '{}'", end.id, system.pds[end.pd].name);
                return Err(end.id_place.error(wrong, right));
            }
        }
        for (from, to) in channel.directions() {
            let (caller, callee) = (&system.pds[from.pd], &system.pds[to.pd]);
            if from.pp && caller.scheduling.priority >= callee.scheduling.priority {
                return Err(from.pp_place.error(
                    format!(
                        "'{}' (priority {}) calls '{}' (priority {})",
                        caller.name, caller.scheduling.priority, callee.name, callee.scheduling.priority
                    ),
                    "a protected call goes to a strictly higher priority",
                ));
            }
        }
    }
    Ok(())
}

fn user_caps(system: &mut System) -> Result<()> {
    let names: Vec<_> = system.pds.iter().map(|pd| pd.name.clone()).collect();
    for cap in system.pds.iter_mut().flat_map(|pd| &mut pd.caps) {
        match names.iter().position(|name| *name == cap.pd_name) {
            Some(index) => cap.pd = index,
            None => {
                return Err(cap.place.error(
                    format!("there is no protection domain '{}'", cap.pd_name),
                    "name one that this file declares",
                ));
            }
        }
    }
    Ok(())
}

fn maps(system: &System, board: &Board) -> Result<()> {
    for pd in &system.pds {
        let what = format!("protection domain '{}'", pd.name);
        check_space(&system.regions, &pd.maps, &what, board.stack_top() - pd.stack_size)?;
        if let Some(vm) = &pd.vm {
            let what = format!("virtual machine '{}'", vm.name);
            check_space(&system.regions, &vm.maps, &what, board.user_top + 1)?;
        }
    }
    Ok(())
}

fn check_space(regions: &[Region], maps: &[Map], what: &str, limit: u64) -> Result<()> {
    let mut seen: Vec<(u64, u64, &str)> = Vec::new();
    for map in maps {
        let Some(region) = regions.iter().find(|region| region.name == map.region) else {
            return Err(map.region_place.error(
                format!("there is no memory region '{}'", map.region),
                "name one that this file declares",
            ));
        };
        let place = &map.vaddr_place;
        if region.size == 0 {
            return Err(place.error(
                format!("memory region '{}' has no bytes", region.name),
                "give the region a size above 0",
            ));
        }
        if map.vaddr % region.page_size != 0 {
            return Err(place.error(
                format!("{:#x} is not aligned to the pages of '{}'", map.vaddr, region.name),
                format!("write a multiple of {:#x}", region.page_size),
            ));
        }
        let end = map.vaddr.checked_add(region.size).filter(|end| *end <= limit);
        let Some(end) = end else {
            return Err(place.error(
                format!(
                    "'{}' ({:#x} bytes at {:#x}) exceeds the address space of {what}",
                    region.name, region.size, map.vaddr
                ),
                format!("it must end at or below {limit:#x}"),
            ));
        };
        if let Some((start, end, other)) =
            seen.iter().find(|(start, other_end, _)| map.vaddr < *other_end && *start < end)
        {
            return Err(place.error(
                format!("'{}' overlaps '{other}' at {start:#x}..{end:#x} in {what}", region.name),
                "map it at an address that is free for its whole size",
            ));
        }
        seen.push((map.vaddr, end, &map.region));
    }
    Ok(())
}

fn physical(system: &System, board: &Board) -> Result<()> {
    let mut seen: Vec<(u64, u64, &str)> = Vec::new();
    for region in &system.regions {
        let Paddr::Fixed(start) = region.paddr else { continue };
        // region::in_memory has checked that this does not overflow.
        let end = start.saturating_add(region.size);
        let place = &region.paddr_place;
        if let Some((_, _, other)) =
            seen.iter().find(|(other_start, other_end, _)| start < *other_end && *other_start < end)
        {
            return Err(place.error(
                format!("'{}' overlaps memory region '{other}' in physical memory", region.name),
                "physical addresses belong to one memory region; map that one twice instead",
            ));
        }
        if let Some((range, who)) = board.reserved.iter().find(|(r, _)| start < r.end && r.start < end) {
            return Err(place.error(
                format!("{:#x}..{:#x} is the kernel's ({who})", range.start, range.end),
                "choose an address that the kernel does not use",
            ));
        }
        seen.push((start, end, &region.name));
    }
    Ok(())
}

fn all_maps(system: &System) -> impl Iterator<Item = &Map> {
    system.pds.iter().flat_map(|pd| pd.maps.iter().chain(pd.vm.iter().flat_map(|vm| &vm.maps)))
}

fn unused(system: &mut System) {
    let used: BTreeSet<_> = all_maps(system).map(|map| map.region.clone()).collect();
    for region in system.regions.iter().filter(|region| !used.contains(&region.name)) {
        system.warnings.push(format!("{} memory region '{}' is mapped nowhere", region.place, region.name));
    }
}

/// A region without `page_size` gets 2 MiB pages if its size and all its addresses allow.
fn page_sizes(system: &mut System) {
    let large = PAGE_SIZES[1];
    let fits: Vec<_> = system
        .regions
        .iter()
        .map(|region| {
            let paddr = if let Paddr::Fixed(paddr) = region.paddr { paddr } else { 0 };
            !region.page_size_given
                && region.size > 0
                && region.size % large == 0
                && paddr % large == 0
                && all_maps(system).all(|map| map.region != region.name || map.vaddr % large == 0)
        })
        .collect();
    for (region, _) in system.regions.iter_mut().zip(fits).filter(|(_, fits)| *fits) {
        region.page_size = large;
    }
}

/// Every frame is listed in the report, so a region of device memory must not be as great as an address allows.
fn frames(system: &System) -> Result<()> {
    match system.regions.iter().find(|region| region.size / region.page_size > MAX_FRAMES) {
        None => Ok(()),
        Some(region) => Err(region.place.error(
            format!(
                "'{}' has {} pages of {:#x} bytes",
                region.name,
                region.size / region.page_size,
                region.page_size
            ),
            format!(
                "write a smaller size, or page_size=\"{:#x}\"; at most {MAX_FRAMES} are allowed",
                PAGE_SIZES[1]
            ),
        )),
    }
}

fn setvars(system: &mut System) -> Result<()> {
    for setvar in system.pds.iter().flat_map(|pd| &pd.setvars) {
        let (Value::Paddr(name) | Value::PrefillSize(name)) = &setvar.value else { continue };
        let Some(region) = system.regions.iter_mut().find(|region| region.name == *name) else {
            return Err(setvar
                .place
                .error(format!("there is no memory region '{name}'"), "name one that this file declares"));
        };
        match setvar.value {
            Value::PrefillSize(_) if region.prefill.is_none() => {
                return Err(setvar.place.error(
                    format!("memory region '{name}' has no prefill_path"),
                    "use setvar_size, or give the region a prefill_path",
                ));
            }
            Value::Paddr(_) if region.paddr == Paddr::Any => region.paddr = Paddr::Chosen,
            _ => {}
        }
    }
    Ok(())
}
