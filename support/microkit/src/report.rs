//! report.txt: the system for people, in the official report's form.

use std::fmt::Write;
use std::ops::Range;

use crate::listing::{Listing, What};
use crate::pack::Packed;
use crate::sdk::Board;
use crate::spec::{Cap, Object, Spec, Tcb};

/// Writes the report.
pub fn write(packed: &Packed, listing: &Listing, board: &Board) -> String {
    let mut out = String::new();
    let image = packed.base..packed.base + packed.image.len() as u64;
    // Writing to a String does not fail.
    let _ = memory(&mut out, &image, packed, board);
    let _ = irqs(&mut out, &packed.spec, listing);
    let _ = threads(&mut out, &packed.spec, listing);
    let _ = cnodes(&mut out, &packed.spec, listing);
    let _ = objects(&mut out, &packed.spec, listing);
    out
}

fn memory(out: &mut String, image: &Range<u64>, packed: &Packed, board: &Board) -> std::fmt::Result {
    writeln!(out, "# Memory Details (embedded SDK)")?;
    for ram in &board.memory {
        writeln!(out, "\t- RAM: 0x{:012x}..0x{:012x}", ram.start, ram.end)?;
    }
    writeln!(out, "\t- Image: 0x{:012x}..0x{:012x}", image.start, image.end)?;
    writeln!(
        out,
        "\t- Kernel pool: 0x{:012x}..0x{:012x}, of which at most {} KiB are used",
        packed.pool.start,
        packed.pool.end,
        packed.pool_needed >> 10
    )
}

/// Objects of the spec in the listing's order.
fn in_order<'a>(spec: &'a Spec, listing: &'a Listing) -> impl Iterator<Item = (&'a str, &'a Object)> {
    listing.entries.iter().filter_map(|entry| match entry.what {
        What::Object(id) => spec.objects.get(id).map(|named| (named.name.as_str(), &named.object)),
        _ => None,
    })
}

fn irqs(out: &mut String, spec: &Spec, listing: &Listing) -> std::fmt::Result {
    writeln!(out, "\n# IRQ Details")?;
    let mut irqs: Vec<_> = in_order(spec, listing)
        .filter_map(|(name, object)| match object {
            Object::Irq(irq, edge, ..) => Some((*irq, *edge, name)),
            _ => None,
        })
        .collect();
    irqs.sort();
    for (irq, edge, name) in irqs {
        let trigger = if edge { "edge" } else { "level" };
        writeln!(out, "\t- IRQ: '{name}'\n\t\t* Number: {irq}\n\t\t* Trigger: {trigger}\n\t\t* CPU: 0\n")?;
    }
    Ok(())
}

fn threads(out: &mut String, spec: &Spec, listing: &Listing) -> std::fmt::Result {
    writeln!(out, "\n# TCB Details")?;
    for (name, object) in in_order(spec, listing) {
        let Object::Tcb(tcb) = object else { continue };
        writeln!(out, "\t- TCB: '{name}'")?;
        writeln!(out, "\t\t* IP: 0x{:x}\n\t\t* SP: 0x{:x}", tcb.pc, tcb.sp)?;
        writeln!(out, "\t\t* IPC Buffer: 0x{:x}", tcb.ipc_vaddr)?;
        writeln!(out, "\t\t* Priority: {}\n\t\t* CPU Affinity: 0", tcb.priority)?;
        writeln!(out, "\t\t* Bound Objects:")?;
        for (what, bound) in bound(spec, tcb) {
            writeln!(out, "\t\t\t-> {what}: '{bound}'")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn bound(spec: &Spec, tcb: &Tcb) -> Vec<(&'static str, String)> {
    let name = |id| spec.name(id).to_owned();
    let mut bound = vec![
        ("CSpace", name(tcb.cspace.0)),
        ("VSpace", name(tcb.vspace)),
        ("IPC Buffer", spec.memories[tcb.ipc_frame].frame_name(0)),
    ];
    bound.extend(tcb.fault.map(|(id, _)| ("Fault Endpoint", name(id))));
    bound.push(("Scheduling Context", name(tcb.sched_context)));
    bound.extend(tcb.notification.map(|id| ("Notification", name(id))));
    bound.extend(tcb.vcpu.map(|id| ("VCpu", name(id))));
    bound
}

fn cnodes(out: &mut String, spec: &Spec, listing: &Listing) -> std::fmt::Result {
    writeln!(out, "\n# CNode Details")?;
    for (name, object) in in_order(spec, listing) {
        let Object::CNode(_, slots) = object else { continue };
        writeln!(out, "\t- CNode: '{name}'")?;
        for (slot, cap) in slots {
            write_cap(out, spec, *slot, *cap)?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn write_cap(out: &mut String, spec: &Spec, slot: u32, cap: Cap) -> std::fmt::Result {
    writeln!(out, "\t\t* Slot: {slot}\n\t\t\t-> Object: '{}'", spec.name(cap.object()))?;
    if let Some(rights) = cap.rights() {
        let words = [(rights.read, "Read"), (rights.write, "Write"), (rights.grant, "Grant")];
        let words: Vec<_> = words.iter().filter(|(set, _)| *set).map(|(_, word)| *word).collect();
        writeln!(out, "\t\t\t-> Rights: {}", words.join(", "))?;
    }
    if let Some(badge) = cap.badge() {
        writeln!(out, "\t\t\t-> Badge: 0x{badge:x}")?;
    }
    Ok(())
}

fn objects(out: &mut String, spec: &Spec, listing: &Listing) -> std::fmt::Result {
    writeln!(out, "\n# Architecture Specific Details")?;
    if spec.objects.iter().any(|named| matches!(named.object, Object::Smc)) {
        writeln!(out, "ARM SMC access is granted to userspace.")?;
    }
    writeln!(out, "\n# Kernel Objects Details: ID, Type, Name, Physical Address")?;
    for (id, entry) in listing.entries.iter().enumerate().filter(|(_, entry)| entry.bits > 0) {
        write!(out, "\t{id} - {}: '{}' @ ", entry.kind, entry.name)?;
        match entry.paddr {
            Some(paddr) => writeln!(out, "0x{paddr:012x}")?,
            None => writeln!(out, "<kernel pool>")?,
        }
    }
    Ok(())
}
