//! Writes the report.

use std::fmt::Write;

use super::{
    facts::{has_dma, size, writers},
    read::{Domain, Map, Region, System},
};

/// The whole report.
pub fn write(system: &System) -> String {
    let mut text = String::new();
    for domain in &system.domains {
        // Writing to a String cannot fail.
        let _ = write_domain(&mut text, system, domain);
    }
    let _ = write_exceptions(&mut text, system);
    text
}

fn write_domain(text: &mut String, system: &System, domain: &Domain) -> std::fmt::Result {
    writeln!(text, "{}  ({})", domain.name, powers(system, domain).join(", "))?;
    let width = domain.maps.iter().map(|map| map.region.len()).max().unwrap_or_default();
    for map in &domain.maps {
        let region = system.regions.iter().find(|region| region.name == map.region);
        let size = region.map_or_else(String::new, size);
        let kind = if map.cached { "cached" } else { "device" };
        let paddr =
            region.and_then(|region| region.paddr).map_or_else(String::new, |paddr| format!("{paddr:#x}"));
        let vaddr = format!("{:#x}", map.vaddr);
        let mut note = sharing(system, domain, map);
        if domain.physical.contains(&map.region) {
            note.push_str("; physical address known");
        }
        writeln!(
            text,
            "    {:<width$} {size:>8}  {:<3} {kind}  {vaddr:<12}  {paddr:<10}  {note}",
            map.region, map.perms
        )?;
    }
    for (irq, trigger, id) in &domain.irqs {
        writeln!(text, "    irq {irq} ({trigger}) as {id}")?;
    }
    for [a, b] in &system.channels {
        for (mine, other) in [(a, b), (b, a)] {
            if mine.pd != domain.name {
                continue;
            }
            let words = [
                (mine.calls, "calls"),
                (other.calls, "is called"),
                (mine.notifies, "notifies"),
                (other.notifies, "is notified"),
            ];
            let words: Vec<&str> =
                words.into_iter().filter(|(holds, _)| *holds).map(|(_, word)| word).collect();
            writeln!(text, "    channel {:<2} {}: {}", mine.id, other.pd, words.join(", "))?;
        }
    }
    writeln!(text)
}

fn powers(system: &System, domain: &Domain) -> Vec<String> {
    let mut powers = Vec::new();
    if let Some(vcpus) = domain.vcpus {
        powers.push(format!("virtual machine of {}", domain.parent.as_deref().unwrap_or("nobody")));
        powers.push(format!("priority {}", domain.priority));
        powers.push(format!("{vcpus} vCPU{}", if vcpus == 1 { "" } else { "s" }));
        return powers;
    }
    powers.push(format!("priority {}", domain.priority));
    if let Some(parent) = &domain.parent {
        powers.push(format!("child of {parent}"));
    }
    if has_dma(system, domain) {
        powers.push("DMA".into());
    }
    if domain.smc {
        powers.push("secure monitor calls".into());
    }
    let children: Vec<&str> = system
        .domains
        .iter()
        .filter(|other| other.vcpus.is_none() && other.parent.as_ref() == Some(&domain.name))
        .map(|child| child.name.as_str())
        .collect();
    if !children.is_empty() {
        powers.push(format!("parent of {}", children.join(", ")));
    }
    powers
}

/// Who else has the region.
fn sharing(system: &System, domain: &Domain, map: &Map) -> String {
    let others: Vec<String> = system
        .domains
        .iter()
        .filter(|other| other.name != domain.name)
        .flat_map(|other| other.maps.iter().map(move |map| (other, map)))
        .filter(|(_, other)| other.region == map.region)
        .map(|(other, map)| format!("{} {}", other.name, map.perms))
        .collect();
    let writers = writers(system, &map.region);
    let first = match writers.as_slice() {
        _ if others.is_empty() => return "alone".into(),
        [] => "no writer".into(),
        [_] => "one writer".into(),
        _ => format!("WRITERS: {}", writers.join(", ")),
    };
    format!("{first}; also: {}", others.join(", "))
}

fn write_exceptions(text: &mut String, system: &System) -> std::fmt::Result {
    let exceptions: Vec<(&Region, Vec<&str>)> = system
        .regions
        .iter()
        .map(|region| (region, writers(system, &region.name)))
        .filter(|(_, writers)| writers.len() > 1)
        .collect();
    writeln!(text, "Exceptions to rule 1 (one writer per page): {}", exceptions.len())?;
    for (region, writers) in exceptions {
        writeln!(text, "    {}: written by {}", region.name, writers.join(", "))?;
    }
    Ok(())
}
