//! Who talks to whom and how: the one place that fixes channel numbers, virtual addresses, message labels and the layout
//! of shared pages between protection domains (PDs).
//!
//! Both sides of every border use this crate: the host tool when it writes system.xml, the PDs when they run. Nothing here
//! runs; it is numbers and plain structures. See docs/architecture.md, "Borders".
#![cfg_attr(not(test), no_std)]

pub mod alive;
pub mod backend;
pub mod disk_stats;
pub mod ivc_stats;
pub mod layout;
pub mod lifecycle;
pub mod links;
pub mod manage;
pub mod stats;
pub mod supervisor;
pub mod timer;

/// Cells (guests) in one system. Consoles are reached by `Ctrl-] 1..9`, so more would have no key.
pub const MAX_CELLS: usize = 9;
/// Disk controllers in one system, one `blk` PD each.
pub const MAX_CONTROLLERS: usize = 4;
/// Disks of one cell.
pub const MAX_DISKS: usize = 4;
/// virtio devices of one cell: disks, console, vsock, net, with room to grow.
pub const MAX_DEVICES: usize = 8;
/// Virtqueues of one device.
pub const MAX_QUEUES: usize = 4;
/// Entries of the list of who may connect to whom.
pub const MAX_SOCKETS: usize = 16;
/// Ports of one such entry.
pub const MAX_PORTS: usize = 8;
/// Shared-memory links in one system.
pub const MAX_LINKS: usize = 4;
/// Links of one cell: what hvisor's hypercall can tell a guest.
pub const MAX_CELL_LINKS: usize = 2;
/// Peers of one link.
pub const MAX_PEERS: usize = 4;
/// vCPUs of one cell.
pub const MAX_VCPUS: usize = 4;
