//! --capdl-json: the system for machines, in the shape of the official file.
//!
//! Frames with the contents of a file name the region instead of repeating its bytes.

use serde_json::{Value, json};

use crate::listing::{Entry as Listed, Listing, What};
use crate::paging::{Entry, Table};
use crate::spec::{Cap, Contents, Id, Mapping, MemoryId, Object, Spec, Tcb};

/// Makes the JSON value.
pub fn write(spec: &Spec, listing: &Listing, elfs: &[Vec<u64>]) -> Value {
    let objects: Vec<_> = listing
        .entries
        .iter()
        .map(|entry| json!({ "name": entry.name, "object": object(spec, listing, elfs, entry) }))
        .collect();
    let mut irqs: Vec<_> = spec
        .objects
        .iter()
        .enumerate()
        .filter_map(|(id, named)| match named.object {
            Object::Irq(irq, ..) => Some((irq, listing.object(id))),
            _ => None,
        })
        .collect();
    irqs.sort();
    let irqs: Vec<_> = irqs.iter().map(|(irq, handler)| json!({ "irq": irq, "handler": handler })).collect();
    json!({
        "root_objects": { "start": 0, "end": objects.len() },
        "objects": objects,
        "irqs": irqs,
        "domain_schedule": null,
        "domain_set_start": null,
        "domain_idx_shift": null,
        "asid_slots": [],
        "untyped_covers": [],
        "cached_orig_cap_slots": null,
        "log_level": null,
    })
}

fn object(spec: &Spec, listing: &Listing, elfs: &[Vec<u64>], entry: &Listed) -> Value {
    match entry.what {
        What::Frame(id, number) => json!({ "Frame": {
            "size_bits": entry.bits,
            "paddr": entry.fixed,
            "init": { "entries": init(spec, elfs, id, number) },
        }}),
        What::Table(space, number) => {
            match listing.tables.get(&space).and_then(|tables| tables.get(number)) {
                Some(table) => page_table(listing, space, table, false),
                None => Value::Null,
            }
        }
        What::Object(id) => match &spec.objects[id].object {
            Object::Endpoint => json!("Endpoint"),
            Object::Notification => json!("Notification"),
            Object::Reply => json!("Reply"),
            Object::Vcpu(_) => json!("VCpu"),
            Object::Smc => json!("ArmSmc"),
            Object::CNode(bits, slots) => {
                let slots: Vec<_> =
                    slots.iter().map(|(slot, cap)| filled(*slot, cap_json(listing, *cap))).collect();
                json!({ "CNode": { "size_bits": bits, "slots": slots } })
            }
            Object::SchedContext { budget, period, badge } => json!({ "SchedContext": {
                "size_bits": 8,
                "extra": { "period": period, "budget": budget, "badge": badge },
            }}),
            Object::Irq(_, edge, notification, badge) => json!({ "ArmIrq": {
                "slots": [filled(0, cap_json(listing, Cap::Notification(*notification, *badge)))],
                "extra": { "trigger": u8::from(*edge), "target": 0 },
            }}),
            Object::Tcb(record) => tcb(listing, record),
            Object::VSpace(_) => match listing.tables.get(&id).and_then(|tables| tables.first()) {
                Some(table) => page_table(listing, id, table, true),
                None => Value::Null,
            },
        },
    }
}

fn filled(slot: u32, cap: Value) -> Value {
    json!({ "slot": slot, "cap": cap })
}

fn rights(read: bool, write: bool, grant: bool) -> Value {
    json!({ "read": read, "write": write, "grant": grant, "grant_reply": false })
}

fn cap_json(listing: &Listing, cap: Cap) -> Value {
    let object = listing.object(cap.object());
    let rights = cap.rights().map_or(Value::Null, |r| rights(r.read, r.write, r.grant));
    match cap {
        Cap::Endpoint(_, badge) => {
            json!({ "Endpoint": { "object": object, "badge": badge, "rights": rights } })
        }
        Cap::Notification(_, badge) => {
            json!({ "Notification": { "object": object, "badge": badge, "rights": rights } })
        }
        Cap::Reply(_) => json!({ "Reply": { "object": object } }),
        Cap::Tcb(_) => json!({ "Tcb": { "object": object } }),
        Cap::CNode(_, guard) => json!({ "CNode": { "object": object, "guard": 0, "guard_size": guard } }),
        Cap::VSpace(_) => json!({ "PageTable": { "object": object } }),
        Cap::SchedContext(_) => json!({ "SchedContext": { "object": object } }),
        Cap::Irq(_) => json!({ "ArmIrqHandler": { "object": object } }),
        Cap::Vcpu(_) => json!({ "VCpu": { "object": object } }),
        Cap::Smc(_) => json!({ "ArmSmc": { "object": object } }),
    }
}

fn frame(listing: &Listing, id: MemoryId, number: u64, access: [bool; 4]) -> Value {
    let [read, write, execute, cached] = access;
    json!({ "Frame": {
        "object": listing.number.get(&What::Frame(id, number)),
        "rights": rights(read, write, false),
        "cached": cached,
        "executable": execute,
    }})
}

fn page_table(listing: &Listing, space: Id, table: &Table, is_root: bool) -> Value {
    let entry = |entry: &Entry| match entry {
        Entry::Table(number) => {
            json!({ "PageTable": { "object": listing.number.get(&What::Table(space, *number)) } })
        }
        Entry::Frame(id, number, map) => {
            let Mapping { read, write, execute, cached, .. } = *map;
            frame(listing, *id, *number, [read, write, execute, cached])
        }
    };
    let slots: Vec<_> = table.slots.iter().map(|(slot, value)| filled(*slot, entry(value))).collect();
    json!({ "PageTable": { "x86_ept": false, "is_root": is_root, "level": table.level, "slots": slots } })
}

fn tcb(listing: &Listing, tcb: &Tcb) -> Value {
    let mut slots = vec![
        filled(0, cap_json(listing, Cap::CNode(tcb.cspace.0, tcb.cspace.1))),
        filled(1, cap_json(listing, Cap::VSpace(tcb.vspace))),
        filled(4, frame(listing, tcb.ipc_frame, 0, [true, true, false, true])),
    ];
    slots.extend(tcb.fault.map(|(id, badge)| filled(5, cap_json(listing, Cap::Endpoint(id, badge)))));
    slots.push(filled(6, cap_json(listing, Cap::SchedContext(tcb.sched_context))));
    slots.extend(tcb.notification.map(|id| filled(8, cap_json(listing, Cap::Notification(id, 0)))));
    slots.extend(tcb.vcpu.map(|id| filled(9, cap_json(listing, Cap::Vcpu(id)))));
    let gprs: Vec<u64> = if tcb.x0 == 0 { Vec::new() } else { vec![tcb.x0] };
    json!({ "Tcb": { "slots": slots, "extra": {
        "ipc_buffer_addr": tcb.ipc_vaddr,
        "affinity": 0,
        "prio": tcb.priority,
        "max_prio": tcb.priority,
        "resume": tcb.resume,
        "fpu_disabled": !tcb.fpu,
        "ip": tcb.pc,
        "sp": tcb.sp,
        "gprs": gprs,
        "master_fault_ep": null,
        "domain": null,
    }}})
}

/// What is written into a frame before it is used.
fn init(spec: &Spec, elfs: &[Vec<u64>], id: MemoryId, number: u64) -> Value {
    let memory = &spec.memories[id];
    let page = number * memory.page_size;
    let (first, length) = match &memory.contents {
        Contents::Zero | Contents::Untouched => return json!([]),
        Contents::Segment(elf, segment, offset) => {
            let length = elfs.get(*elf).and_then(|segments| segments.get(*segment)).copied();
            (*offset, length.unwrap_or_default())
        }
        Contents::File(bytes) => (0, bytes.len() as u64),
        Contents::Bytes(bytes) => (0, bytes.len() as u64),
    };
    let start = first.max(page);
    let end = (first + length).min(page + memory.page_size);
    if start >= end {
        return json!([]);
    }
    let (from, to) = (start - first, end - first);
    let content = match &memory.contents {
        Contents::Segment(elf, segment, _) => json!({ "ElfContent": {
            "elf_id": elf, "elf_seg_idx": segment, "elf_seg_data_range": { "start": from, "end": to },
        }}),
        Contents::File(_) => {
            json!({ "FileContent": { "memory": memory.name, "range": { "start": from, "end": to } } })
        }
        Contents::Bytes(bytes) => json!({ "BytesContent": { "bytes": bytes } }),
        Contents::Zero | Contents::Untouched => Value::Null,
    };
    json!([{ "range": { "start": start - page, "end": end - page }, "content": { "Data": content } }])
}
