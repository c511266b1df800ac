//! The boot description: a [`Spec`] with addresses, as the tables of [`partita_kernel::image`].

use std::ops::Range;

use partita_kernel::image::{self, NONE, Table, cap, mapping, rights, tcb};

use crate::memory::{Piece, has_bytes, in_place};
use crate::spec::{Cap, Contents, Id, MemoryId, Object, Spec, Tcb};

/// The tables.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// Memory to be written at boot.
    pub fills: Vec<image::Fill>,
    /// Mapped ranges.
    pub mappings: Vec<image::Mapping>,
    /// Capability nodes.
    pub cnodes: Vec<image::CNode>,
    /// Filled slots.
    pub slots: Vec<image::Slot>,
    /// Scheduling contexts.
    pub sched_contexts: Vec<image::SchedContext>,
    /// Interrupts.
    pub irqs: Vec<image::Irq>,
    /// Virtual CPUs.
    pub vcpus: Vec<image::Vcpu>,
    /// Threads.
    pub tcbs: Vec<image::Tcb>,
}

/// Numbers of objects within their kind.
struct Numbers {
    of: Vec<u32>,
}

impl Numbers {
    fn new(spec: &Spec) -> Self {
        let mut next = [0_u32; 10];
        let mut of: Vec<u32> = spec
            .objects
            .iter()
            .map(|named| {
                let counter = &mut next[kind(&named.object) as usize - 1];
                *counter += 1;
                *counter - 1
            })
            .collect();
        // Threads are numbered in the order they start.
        for (number, id) in spec.start_order.iter().enumerate() {
            of[*id] = number as u32;
        }
        Self { of }
    }

    fn get(&self, id: Id) -> u32 {
        self.of.get(id).copied().unwrap_or(NONE)
    }

    fn option(&self, id: Option<Id>) -> u32 {
        id.map_or(NONE, |id| self.get(id))
    }
}

fn kind(object: &Object) -> u32 {
    match object {
        Object::Endpoint => cap::ENDPOINT,
        Object::Notification => cap::NOTIFICATION,
        Object::Reply => cap::REPLY,
        Object::CNode(..) => cap::CNODE,
        Object::Tcb(_) => cap::TCB,
        Object::Vcpu(_) => cap::VCPU,
        Object::SchedContext { .. } => cap::SCHED_CONTEXT,
        Object::Irq(..) => cap::IRQ,
        Object::Smc => cap::SMC,
        Object::VSpace(_) => cap::VSPACE,
    }
}

/// Number of objects of a kind.
fn count(spec: &Spec, wanted: u32) -> u32 {
    spec.objects.iter().filter(|named| kind(&named.object) == wanted).count() as u32
}

/// Makes the tables. `contents` says where the contents of each memory are in the image.
pub fn tables(
    spec: &Spec,
    pieces: &[Vec<Piece>],
    contents: &[(MemoryId, u64)],
    ram: &[Range<u64>],
) -> Result<Tables, String> {
    let numbers = Numbers::new(spec);
    let mut tables = Tables { fills: fills(spec, pieces, contents, ram), ..Tables::default() };
    for (id, named) in spec.objects.iter().enumerate() {
        let number = numbers.get(id);
        match &named.object {
            Object::CNode(bits, slots) => {
                tables.cnodes.push(image::CNode { size_bits: u32::from(*bits), reserved: 0 });
                tables.slots.extend(slots.iter().map(|(index, cap)| slot(&numbers, number, *index, *cap)));
            }
            Object::SchedContext { budget, period, badge } => {
                let (budget, period, badge) = (*budget, *period, *badge);
                let record = image::SchedContext { budget, period, badge, extra_refills: 0, reserved: 0 };
                tables.sched_contexts.push(record);
            }
            Object::Irq(irq, edge, notification, badge) => tables.irqs.push(image::Irq {
                irq: *irq,
                edge: u32::from(*edge),
                notification: numbers.get(*notification),
                reserved: 0,
                badge: *badge,
            }),
            Object::Vcpu(tcb) => {
                tables.vcpus.push(image::Vcpu { tcb: numbers.get(*tcb), reserved: 0 });
            }
            Object::VSpace(maps) => {
                for map in maps {
                    let flag = |set: bool, bit: u32| if set { bit } else { 0 };
                    let large = spec.memories[map.memory].page_size > 0x1000;
                    let flags = flag(map.read, mapping::READ)
                        | flag(map.write, mapping::WRITE)
                        | flag(map.execute, mapping::EXECUTE)
                        | flag(map.cached, mapping::CACHED)
                        | flag(large, mapping::LARGE);
                    for piece in &pieces[map.memory] {
                        let (vaddr, paddr, size) = (map.vaddr + piece.offset, piece.paddr, piece.size);
                        tables.mappings.push(image::Mapping { vspace: number, flags, vaddr, paddr, size });
                    }
                }
            }
            _ => {}
        }
    }
    for id in &spec.start_order {
        let Object::Tcb(record) = &spec.objects[*id].object else { continue };
        let frame = pieces[record.ipc_frame].first().map_or(0, |piece| piece.paddr);
        tables.tcbs.push(thread(&numbers, record, frame));
    }
    if tables.tcbs.len() as u32 != count(spec, cap::TCB) {
        return Err("internal error: threads without a place in the start order".to_owned());
    }
    Ok(tables)
}

fn slot(numbers: &Numbers, cnode: u32, index: u32, value: Cap) -> image::Slot {
    let (kind, guard_bits) = match value {
        Cap::Endpoint(..) => (cap::ENDPOINT, 0),
        Cap::Notification(..) => (cap::NOTIFICATION, 0),
        Cap::Reply(_) => (cap::REPLY, 0),
        Cap::Tcb(_) => (cap::TCB, 0),
        Cap::CNode(_, guard) => (cap::CNODE, u32::from(guard)),
        Cap::VSpace(_) => (cap::VSPACE, 0),
        Cap::SchedContext(_) => (cap::SCHED_CONTEXT, 0),
        Cap::Irq(_) => (cap::IRQ, 0),
        Cap::Vcpu(_) => (cap::VCPU, 0),
        Cap::Smc(_) => (cap::SMC, 0),
    };
    image::Slot {
        cnode,
        index,
        kind,
        object: if kind == cap::SMC { 0 } else { numbers.get(value.object()) },
        badge: value.badge().unwrap_or(0),
        rights: value.rights().map_or(0, bits),
        guard_bits,
    }
}

fn bits(value: crate::spec::Rights) -> u32 {
    let flag = |set: bool, bit: u32| if set { bit } else { 0 };
    flag(value.read, rights::READ) | flag(value.write, rights::WRITE) | flag(value.grant, rights::GRANT)
}

fn thread(numbers: &Numbers, record: &Tcb, frame: u64) -> image::Tcb {
    let mut name = [0; 64];
    let length = record.thread.len().min(63);
    name[..length].copy_from_slice(&record.thread.as_bytes()[..length]);
    image::Tcb {
        name,
        pc: record.pc,
        sp: record.sp,
        x0: record.x0,
        ipc_buffer: record.ipc_vaddr,
        ipc_buffer_paddr: frame,
        fault_badge: record.fault.map_or(0, |(_, badge)| badge),
        vspace: numbers.get(record.vspace),
        cspace: numbers.get(record.cspace.0),
        cspace_guard_bits: u32::from(record.cspace.1),
        fault_endpoint: numbers.option(record.fault.map(|(id, _)| id)),
        fault_rights: record.fault.map_or(0, |_| bits(crate::spec::Rights::ENDPOINT)),
        sched_context: numbers.get(record.sched_context),
        notification: numbers.option(record.notification),
        priority: u32::from(record.priority),
        mcp: u32::from(record.priority),
        flags: if record.resume { tcb::RESUME } else { 0 } | if record.fpu { 0 } else { tcb::FPU_DISABLED },
    }
}

fn fills(
    spec: &Spec,
    pieces: &[Vec<Piece>],
    contents: &[(MemoryId, u64)],
    ram: &[Range<u64>],
) -> Vec<image::Fill> {
    let mut fills = Vec::new();
    for (id, (memory, pieces)) in spec.memories.iter().zip(pieces).enumerate() {
        if in_place(memory) || matches!(memory.contents, Contents::Untouched) {
            continue;
        }
        if !has_bytes(memory) {
            let zero =
                |piece: &Piece| image::Fill { paddr: piece.paddr, size: piece.size, source: 0, copy_size: 0 };
            fills.extend(pieces.iter().map(zero));
            continue;
        }
        // Contents with a fixed address: one piece.
        let source = contents.iter().find(|(memory, _)| *memory == id).map_or(0, |(_, at)| *at);
        let copy_size = match &memory.contents {
            Contents::File(bytes) => bytes.len() as u64,
            Contents::Bytes(bytes) => bytes.len() as u64,
            _ => memory.size,
        };
        for piece in pieces {
            // The rest of device memory stays as it is, as officially.
            let is_ram = ram.iter().any(|range| range.contains(&piece.paddr));
            let size = if is_ram { piece.size } else { copy_size };
            fills.push(image::Fill { paddr: piece.paddr, size, source, copy_size });
        }
    }
    fills
}

/// Bytes of header and tables.
pub fn size(tables: &Tables) -> u64 {
    let header = layout(tables);
    u64::from(header.tcbs.offset) + (tables.tcbs.len() * size_of::<image::Tcb>()) as u64
}

/// Puts the tables one behind the other.
fn layout(tables: &Tables) -> image::Header {
    let mut at = size_of::<image::Header>().next_multiple_of(16);
    let mut put = |count: usize, size: usize| {
        let table = Table { offset: at as u32, count: count as u32 };
        at = (at + count * size).next_multiple_of(16);
        table
    };
    image::Header {
        fills: put(tables.fills.len(), size_of::<image::Fill>()),
        mappings: put(tables.mappings.len(), size_of::<image::Mapping>()),
        cnodes: put(tables.cnodes.len(), size_of::<image::CNode>()),
        slots: put(tables.slots.len(), size_of::<image::Slot>()),
        sched_contexts: put(tables.sched_contexts.len(), size_of::<image::SchedContext>()),
        irqs: put(tables.irqs.len(), size_of::<image::Irq>()),
        vcpus: put(tables.vcpus.len(), size_of::<image::Vcpu>()),
        tcbs: put(tables.tcbs.len(), size_of::<image::Tcb>()),
        ..image::Header::default()
    }
}

/// The header.
pub fn header(
    spec: &Spec,
    tables: &Tables,
    image: &Range<u64>,
    pool: &Range<u64>,
    user_top: u64,
) -> image::Header {
    image::Header {
        magic: image::MAGIC,
        version: image::VERSION,
        size: size_of::<image::Header>() as u32,
        image_paddr: image.start,
        image_size: image.end - image.start,
        pool_paddr: pool.start,
        pool_size: pool.end - pool.start,
        user_top,
        endpoints: count(spec, cap::ENDPOINT),
        notifications: count(spec, cap::NOTIFICATION),
        replies: count(spec, cap::REPLY),
        vspaces: count(spec, cap::VSPACE),
        ..layout(tables)
    }
}
