//! Passed-through devices must not overlap: not each other in any cell, not the machine that their guest has besides.
//!
//! What of the board is somebody else's already depends on the board; the host tool checks that.

use std::{string::String, vec::Vec};

use partita_protocol::{MAX_DEVICES, MAX_LINKS, layout::guest};

use super::Problems;
use crate::{
    Cell, Config, Passthrough,
    passthrough::{PassthroughIrq, Trigger},
};

const PAGE: u64 = 0x1000;
/// Guests have 40 bits of physical address.
const END: u64 = 1 << 40;

/// A range of addresses: first, and first behind.
type Range = (u64, u64);

fn overlap(a: Range, b: Range) -> bool {
    a.0 < b.1 && b.0 < a.1
}

struct Seen<'a> {
    path: String,
    cell: usize,
    device: &'a Passthrough<'a>,
}

struct SeenIrq<'a> {
    path: String,
    cell: usize,
    device: usize,
    irq: &'a PassthroughIrq,
    guest_irq: u32,
}

pub(super) fn check(config: &Config<'_>, problems: &mut Problems<'_>) {
    let mut seen: Vec<Seen<'_>> = Vec::new();
    let mut irqs: Vec<SeenIrq<'_>> = Vec::new();
    for (n, cell) in config.cells.iter().enumerate() {
        for (d, device) in cell.passthrough.iter().enumerate() {
            let path = format!("cells[{n}].passthrough[{d}]");
            shape(&path, device, problems);
            in_the_guest(&path, cell, device, problems);
            for other in &seen {
                if overlap(registers(device), registers(other.device)) {
                    let wrong = format!("overlaps {}", other.path);
                    problems.add(format!("{path}.address"), wrong, "a device has one user");
                }
                if other.cell == n && overlap(in_guest(device), in_guest(other.device)) {
                    let key = if device.guest_address.is_some() { "guest_address" } else { "address" };
                    let wrong = format!("the guest would find it where {} is", other.path);
                    problems.add(format!("{path}.{key}"), wrong, "write another guest_address");
                }
                if other.cell == n && other.device.name == device.name {
                    let wrong = format!("\"{}\" is the name of {} already", device.name, other.path);
                    problems.add(format!("{path}.name"), wrong, "choose another name");
                }
            }
            for (i, irq) in device.irqs.iter().enumerate() {
                let line = cell.lines().find(|line| line.irq == irq.irq);
                let guest_irq = irq.guest_irq.or(line.map(|line| line.guest_irq)).unwrap_or_default();
                let path = format!("{path}.irqs[{i}]");
                irqs.push(SeenIrq { path, cell: n, device: d, irq, guest_irq });
            }
            seen.push(Seen { path, cell: n, device });
        }
    }
    interrupts(&irqs, problems);
}

fn registers(device: &Passthrough<'_>) -> Range {
    (device.address.0, device.address.0.saturating_add(device.size.0))
}

fn in_guest(device: &Passthrough<'_>) -> Range {
    let first = device.guest_address.unwrap_or(device.address).0;
    (first, first.saturating_add(device.size.0))
}

/// Whole pages, and a device tree that can be written.
fn shape(path: &str, device: &Passthrough<'_>, problems: &mut Problems<'_>) {
    for (key, address) in [("address", Some(device.address)), ("guest_address", device.guest_address)] {
        let Some(address) = address else { continue };
        if !address.0.is_multiple_of(PAGE) {
            let right =
                "it must be a multiple of 4K: whole pages are mapped, and everything in them is the guest's";
            problems.add(format!("{path}.{key}"), format!("is {address}"), right);
        }
    }
    if device.size.0 == 0 || !device.size.0.is_multiple_of(PAGE) || registers(device).1 > END {
        let right = "it must be a multiple of 4K, and end below 2^40";
        problems.add(format!("{path}.size"), format!("is {}", device.size), right);
    }
    let properties = device.device_tree.get().map_or(&[][..], |tree| &tree.properties);
    for (p, property) in properties.iter().enumerate() {
        let path = format!("{path}.device_tree.properties[{p}]");
        if property.cell.is_some() && property.text.is_some() {
            problems.add(
                path.clone(),
                "has a cell and a text",
                "a property has one value: leave one of them",
            );
        }
        let ours = ["compatible", "reg", "interrupts", "clocks", "clock-names"];
        if ours.contains(&property.name) || properties.iter().take(p).any(|other| other.name == property.name)
        {
            let wrong = format!("\"{}\" is there already", property.name);
            problems.add(format!("{path}.name"), wrong, "leave it out: a property is there once");
        }
    }
}

/// What the guest has at fixed addresses: docs/guest-abi.md.
fn in_the_guest(path: &str, cell: &Cell<'_>, device: &Passthrough<'_>, problems: &mut Problems<'_>) {
    let fixed = [
        ("the interrupt controller", (guest::GICD, guest::GICC + guest::GICC_SIZE)),
        ("the emulated PL011", (guest::UART, guest::UART + PAGE)),
        ("the virtio devices", (guest::VIRTIO, guest::VIRTIO + MAX_DEVICES as u64 * PAGE)),
        ("the control pages of links", (guest::LINK_CONTROL, guest::LINK_CONTROL + MAX_LINKS as u64 * PAGE)),
        ("the memory of links", (guest::LINK_MEMORY, guest::RAM)),
        ("its RAM", (guest::RAM, guest::RAM.saturating_add(cell.memory.0))),
        ("the end of its addresses", (END, u64::MAX)),
    ];
    let place = in_guest(device);
    if let Some((what, _)) = fixed.iter().find(|(_, range)| overlap(place, *range)) {
        let key = if device.guest_address.is_some() { "guest_address" } else { "address" };
        let wrong = format!("the guest would find it at {:#x}, where {what} is", place.0);
        problems.add(
            format!("{path}.{key}"),
            wrong,
            "write another guest_address, for example \"0xc000000\"",
        );
    }
}

fn interrupts(irqs: &[SeenIrq<'_>], problems: &mut Problems<'_>) {
    for (n, this) in irqs.iter().enumerate() {
        let fixed = [
            ("the PL011's", guest::UART_IRQ..guest::UART_IRQ + 1),
            ("a virtio device's", guest::VIRTIO_IRQ..guest::VIRTIO_IRQ + MAX_DEVICES as u32),
            ("a link's", guest::LINK_IRQ..guest::LINK_IRQ + MAX_LINKS as u32),
        ];
        if let Some((whose, _)) = fixed.iter().find(|(_, range)| range.contains(&this.guest_irq)) {
            let wrong = format!("{} is {whose} interrupt in the guest", this.guest_irq);
            problems.add(
                format!("{}.guest_irq", this.path),
                wrong,
                "leave it out, or write one from 80 to 255",
            );
        }
        let mut partner = irqs.iter().enumerate().any(|(o, other)| {
            o != n && other.irq.irq == this.irq.irq && other.cell == this.cell && other.irq.shared
        });
        for other in irqs.iter().take(n) {
            if other.irq.irq == this.irq.irq {
                let together = other.cell == this.cell && other.device != this.device;
                if !together || !this.irq.shared || !other.irq.shared {
                    let wrong = format!("{} is the interrupt of {} already", this.irq.irq, other.path);
                    let right = if together {
                        "if the devices share the line, write \"shared\": true in both"
                    } else {
                        "a line can be shared by devices of one cell only"
                    };
                    problems.add(format!("{}.irq", this.path), wrong, right);
                    partner = true;
                } else if same_line(this) != same_line(other) {
                    let wrong = format!("is another than that of {}", other.path);
                    let key = if this.irq.trigger == other.irq.trigger { "guest_irq" } else { "trigger" };
                    problems.add(
                        format!("{}.{key}", this.path),
                        wrong,
                        "devices that share a line agree on it",
                    );
                }
            } else if other.cell == this.cell && other.guest_irq == this.guest_irq {
                let wrong = format!("{} is the guest's interrupt for {} already", this.guest_irq, other.path);
                problems.add(format!("{}.guest_irq", this.path), wrong, "each line needs one of its own");
            }
        }
        if this.irq.shared && !partner {
            let wrong = format!("no other device of this cell has interrupt {}", this.irq.irq);
            problems.add(format!("{}.shared", this.path), wrong, "leave it out");
        }
    }
}

fn same_line(irq: &SeenIrq<'_>) -> (Trigger, u32) {
    (irq.irq.trigger, irq.guest_irq)
}
