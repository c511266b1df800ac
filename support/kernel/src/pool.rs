//! How much memory the kernel carves for its objects: the packer reserves [`required`] bytes at `Header.pool_paddr`.
//!
//! The figures per object are bounds; the object modules assert at compile time that they stay below them.

use crate::image::{CNode, Header, Mapping, mapping};

/// Bytes per object.
pub mod bytes {
    /// Thread, with its FPU registers.
    pub const TCB: u64 = 1536;
    /// Endpoint.
    pub const ENDPOINT: u64 = 64;
    /// Notification.
    pub const NOTIFICATION: u64 = 64;
    /// Reply object.
    pub const REPLY: u64 = 64;
    /// Scheduling context, without its refills beyond the first two.
    pub const SCHED_CONTEXT: u64 = 256;
    /// A further refill.
    pub const REFILL: u64 = 16;
    /// IRQ handler.
    pub const IRQ: u64 = 64;
    /// Virtual CPU.
    pub const VCPU: u64 = 1024;
    /// Capability slot.
    pub const SLOT: u64 = 32;
    /// Capability node, without its slots.
    pub const CNODE: u64 = 64;
    /// Address space, without its tables.
    pub const VSPACE: u64 = 64;
    /// Translation table, root excluded.
    pub const TABLE: u64 = 4096;
    /// Root translation table, and what its alignment may cost.
    pub const ROOT: u64 = 16384;
    /// Alignment of the arrays.
    pub const SLACK: u64 = 65536;
}

/// Bytes that are enough for the objects and translation tables of a description. Page-aligned.
pub fn required(header: &Header, mappings: &[Mapping], cnodes: &[CNode], extra_refills: u64) -> u64 {
    let tables: u64 = mappings.iter().map(tables).sum();
    let slots: u64 = cnodes.iter().map(|c| 1u64 << c.size_bits.min(31)).sum();
    let total = u64::from(header.tcbs.count) * bytes::TCB
        + u64::from(header.endpoints) * bytes::ENDPOINT
        + u64::from(header.notifications) * bytes::NOTIFICATION
        + u64::from(header.replies) * bytes::REPLY
        + u64::from(header.sched_contexts.count) * bytes::SCHED_CONTEXT
        + extra_refills * bytes::REFILL
        + u64::from(header.irqs.count) * bytes::IRQ
        + u64::from(header.vcpus.count) * bytes::VCPU
        + u64::from(header.vspaces) * (bytes::VSPACE + bytes::ROOT)
        + cnodes.len() as u64 * bytes::CNODE
        + slots * bytes::SLOT
        + tables * bytes::TABLE
        + bytes::SLACK;
    total.next_multiple_of(4096)
}

/// Translation tables below the root that a mapping can need at most.
pub(crate) fn tables(m: &Mapping) -> u64 {
    let Some(last) = m.size.checked_sub(1).and_then(|s| m.vaddr.checked_add(s)) else { return 0 };
    let spans = |bits: u32| (last >> bits) - (m.vaddr >> bits) + 1;
    spans(30) + if m.flags & mapping::LARGE == 0 { spans(21) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_a_mapping() {
        let m = |vaddr, size, flags| tables(&Mapping { vaddr, size, flags, ..Default::default() });
        assert_eq!(m(0, 0, 0), 0);
        assert_eq!(m(0x1000, 0x1000, 0), 2);
        assert_eq!(m(0x1f_f000, 0x2000, 0), 3);
        assert_eq!(m(0x3fff_f000, 0x2000, 0), 4);
        assert_eq!(m(0x4000_0000, 0x1000_0000, mapping::LARGE), 1);
    }
}
