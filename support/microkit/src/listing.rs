//! All objects in the official order: those with an address first, then by size, then by name.

use std::collections::BTreeMap;

use crate::memory::Piece;
use crate::paging::{self, Table};
use crate::sdf::model::Paddr;
use crate::sdk::Board;
use crate::spec::{Id, MemoryId, Object, Spec};

/// What an entry of the listing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// An object of the spec.
    Object(Id),
    /// A frame: memory and number.
    Frame(MemoryId, u64),
    /// A translation table below the root: address space and number.
    Table(Id, usize),
}

/// An entry of the listing.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Name.
    pub name: String,
    /// What it is.
    pub what: What,
    /// Type as reports call it.
    pub kind: &'static str,
    /// log2 of its bytes; 0 if it has none.
    pub bits: u8,
    /// Physical address that the description or the packer has fixed.
    pub fixed: Option<u64>,
    /// Physical address, if it is not the kernel's choice.
    pub paddr: Option<u64>,
}

/// All objects of a system.
pub struct Listing {
    /// In order.
    pub entries: Vec<Entry>,
    /// Position of each.
    pub number: BTreeMap<What, usize>,
    /// Translation tables of each address space.
    pub tables: BTreeMap<Id, Vec<Table>>,
}

impl Listing {
    /// Lists everything.
    pub fn new(spec: &Spec, pieces: &[Vec<Piece>], board: &Board) -> Self {
        let mut entries = Vec::new();
        let mut all_tables = BTreeMap::new();
        for (id, named) in spec.objects.iter().enumerate() {
            let (kind, bits) = kind(&named.object, board);
            let what = What::Object(id);
            entries.push(Entry { name: named.name.clone(), what, kind, bits, fixed: None, paddr: None });
            if matches!(named.object, Object::VSpace(_)) {
                let tables = paging::tables(spec, id, board.user_top);
                for (number, table) in tables.iter().enumerate().skip(1) {
                    entries.push(Entry {
                        name: table.name.clone(),
                        what: What::Table(id, number),
                        kind: "PageTable",
                        bits: board.sizes.page_table,
                        fixed: None,
                        paddr: None,
                    });
                }
                all_tables.insert(id, tables);
            }
        }
        for (id, memory) in spec.memories.iter().enumerate() {
            for number in 0..memory.size / memory.page_size {
                let paddr = address(pieces, id, number * memory.page_size);
                let large = memory.page_size > 0x1000;
                entries.push(Entry {
                    name: memory.frame_name(number),
                    what: What::Frame(id, number),
                    kind: if large { "Page(2 MiB)" } else { "Page(4 KiB)" },
                    bits: if large { 21 } else { 12 },
                    fixed: if memory.paddr == Paddr::Any { None } else { paddr },
                    paddr,
                });
            }
        }
        entries.sort_by(|a, b| {
            let key = |entry: &Entry| (entry.fixed.is_none(), entry.fixed, std::cmp::Reverse(entry.bits));
            key(a).cmp(&key(b)).then_with(|| a.name.cmp(&b.name))
        });
        let number = entries.iter().enumerate().map(|(number, entry)| (entry.what, number)).collect();
        Self { entries, number, tables: all_tables }
    }

    /// Position of an object of the spec.
    pub fn object(&self, id: Id) -> usize {
        self.number.get(&What::Object(id)).copied().unwrap_or_default()
    }
}

/// Physical address of a byte of a memory.
pub fn address(pieces: &[Vec<Piece>], id: MemoryId, offset: u64) -> Option<u64> {
    let inside = |piece: &&Piece| piece.offset <= offset && offset - piece.offset < piece.size;
    pieces.get(id)?.iter().find(inside).map(|piece| piece.paddr + (offset - piece.offset))
}

fn kind(object: &Object, board: &Board) -> (&'static str, u8) {
    let sizes = &board.sizes;
    match object {
        Object::Endpoint => ("Endpoint", sizes.endpoint),
        Object::Notification => ("Notification", sizes.notification),
        Object::Reply => ("Reply", sizes.reply),
        Object::CNode(bits, _) => ("CNode", bits + 5),
        Object::Tcb(_) => ("TCB", sizes.tcb),
        Object::Vcpu(_) => ("VCPU", sizes.vcpu),
        Object::SchedContext { .. } => ("SchedContext", 8),
        Object::Irq(..) => ("ARM IRQ", 0),
        Object::Smc => ("ARM SMC", 0),
        Object::VSpace(_) => ("PageTable", sizes.vspace),
    }
}
