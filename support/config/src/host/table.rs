//! All keys of partita.json: what the walk checks, what editors are told, what docs/configuration.md lists.
//!
//! The types in `schema.rs` say the same to serde; the tests hold the two together.

use crate::passthrough::{MAX_PASSTHROUGH, MAX_PASSTHROUGH_IRQS};
use partita_protocol::{
    MAX_CELLS, MAX_CONTROLLERS, MAX_DISKS, MAX_LINKS, MAX_PEERS, MAX_PORTS, MAX_QUEUES, MAX_SOCKETS,
    MAX_VCPUS,
};

/// A key of an object.
#[derive(Debug)]
pub struct Key {
    /// As in the file.
    pub name: &'static str,
    /// What its value may be.
    pub kind: Kind,
    /// What holds without it, in the file's words; `None`: it must be there. Empty: nothing.
    pub default: Option<&'static str>,
    /// What it means.
    pub about: &'static str,
}

/// What a value may be.
#[derive(Debug)]
pub enum Kind {
    /// A string.
    Text(Text),
    /// A size such as `"512M"`.
    Size,
    /// An address such as `"0x9040000"`.
    Address,
    /// A list of strings.
    Texts {
        /// Their form.
        form: Text,
        /// Fewest entries.
        min: usize,
        /// Most entries.
        max: usize,
    },
    /// A whole number.
    Number {
        /// Least.
        min: u64,
        /// Greatest.
        max: u64,
    },
    /// `true` or `false`.
    Flag,
    /// One of some words.
    Word(&'static [&'static str]),
    /// A list of objects.
    List {
        /// Fewest entries.
        min: usize,
        /// Most entries.
        max: usize,
        /// The objects' keys.
        keys: &'static [Key],
    },
    /// A list of names.
    Names {
        /// Fewest.
        min: usize,
        /// Most.
        max: usize,
    },
    /// A list of whole numbers, at least one.
    Numbers {
        /// Most entries.
        count: usize,
        /// Greatest; the least is 1.
        max: u64,
    },
    /// An object.
    Table(&'static [Key]),
    /// A string, or an object with exactly one of these keys.
    TextOr(Text, &'static [Key]),
}

/// Forms of a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text {
    /// Lower-case letters, digits, `-` and `_`, a letter first, at most [`NAME_MAX`].
    Name,
    /// A file, relative to partita.json.
    File,
    /// A GPT label, at most 36 characters.
    Label,
    /// A kernel command line.
    Line,
    /// At most 20 printable characters.
    Serial,
    /// A name in a device tree: at most [`NODE_MAX`] characters of those that the specification allows.
    Node,
}

/// Longest name: a PD's name (64 bytes) has a prefix before it.
pub const NAME_MAX: usize = 32;
/// Longest command line that arm64 Linux takes.
pub const LINE_MAX: usize = 2047;
/// Longest label in a GPT entry.
pub const LABEL_MAX: usize = 36;
/// Longest name of a property in a device tree (specification, 2.2.4); strings that drivers look for are not longer.
pub const NODE_MAX: usize = 31;
/// Longest answer to virtio-blk's GET_ID.
pub const SERIAL_MAX: usize = 20;

const fn key(name: &'static str, kind: Kind, default: Option<&'static str>, about: &'static str) -> Key {
    Key { name, kind, default, about }
}

const fn number(max: u64) -> Kind {
    Kind::Number { min: 1, max }
}

/// The whole file.
pub const CONFIG: &[Key] = &[
    key("$schema", Kind::Text(Text::File), Some(""), "For editors; not used."),
    key(
        "boot_files",
        Kind::Address,
        Some("in the image"),
        "Where the boot loader puts `guests.img`, which then holds the guests' kernels and initramfs instead of the image: a \
         physical address, a multiple of 2M, in memory that the board keeps from the kernel.",
    ),
    key(
        "controllers",
        Kind::List { min: 0, max: MAX_CONTROLLERS, keys: CONTROLLER },
        Some("[]"),
        "Disk controllers that Partita drives, each in a protection domain of its own.",
    ),
    key(
        "cells",
        Kind::List { min: 1, max: MAX_CELLS, keys: CELL },
        None,
        "The guests, in the order of their consoles.",
    ),
    key(
        "links",
        Kind::List { min: 0, max: MAX_LINKS, keys: LINK },
        Some("[]"),
        "Memory that cells share, with doorbells; guests see it as hvisor's (docs/links.md).",
    ),
    key(
        "sockets",
        Kind::List { min: 0, max: MAX_SOCKETS, keys: SOCKET },
        Some("[]"),
        "Which cells may open virtio-vsock connections to whom. Everything else is refused.",
    ),
];

/// Entries of `links`.
pub const LINK: &[Key] = &[
    key("name", Kind::Text(Text::Name), None, "Unique among the links."),
    key(
        "id",
        Kind::Number { min: 0, max: 255 },
        Some("the place in the list"),
        "What guests call it: `/dev/hivc<id>`. Unique.",
    ),
    key(
        "peers",
        Kind::Names { min: 2, max: MAX_PEERS },
        None,
        "The cells that it connects; the first is peer 0. A cell can be in two links.",
    ),
    key("shared", Kind::Size, Some("\"0K\""), "Memory that all peers write, whole pages of 4K."),
    key(
        "output",
        Kind::Size,
        Some("\"64K\""),
        "Memory of each peer that only it writes and the others read, whole pages of 4K.",
    ),
];

/// Entries of `controllers`.
pub const CONTROLLER: &[Key] = &[
    key("name", Kind::Text(Text::Name), None, "Unique. The protection domain is called `blk_<name>`."),
    key(
        "kind",
        Kind::Word(&["virtio-mmio"]),
        None,
        "The driver: `virtio-mmio` is a virtio-blk device of QEMU virt.",
    ),
    key("slot", Kind::Number { min: 0, max: 31 }, Some("0"), "Which of the board's devices of that kind."),
    key(
        "timeout_ms",
        Kind::Number { min: 100, max: 600_000 },
        Some("10000"),
        "Milliseconds that the device may take for a request. After them, and at most an eighth more, the device is reset; \
         the request fails, others in flight are submitted again.",
    ),
];

const POLICIES: Kind = Kind::Word(&["stop", "restart"]);

/// Entries of `cells`.
pub const CELL: &[Key] = &[
    key(
        "name",
        Kind::Text(Text::Name),
        None,
        "Unique. The protection domain of its VMM is called `vmm_<name>`.",
    ),
    key("memory", Kind::Size, None, "RAM, a multiple of 2M, at least 16M."),
    key(
        "memory_address",
        Kind::Address,
        Some("anywhere in the kernel's memory"),
        "Physical address of the RAM, a multiple of 2M, in memory that the board keeps from the kernel. `\"0x40000000\"` \
         is where the guest sees its RAM: then a device that does DMA finds what the guest means.",
    ),
    key("vcpus", number(MAX_VCPUS as u64), Some("1"), "Virtual CPUs."),
    key(
        "priority",
        number(99),
        Some("50"),
        "Priority of the virtual CPUs among the guests; higher runs first.",
    ),
    key(
        "budget_us",
        Kind::Number { min: 100, max: 10_000_000 },
        Some("`10000`; `1000` with several vCPUs"),
        "Processor time in microseconds that a virtual CPU may use in each period.",
    ),
    key(
        "period_us",
        Kind::Number { min: 100, max: 10_000_000 },
        Some("`10000`; `1000` with several vCPUs"),
        "That period. Equal to the budget: no limit, the budget is the time slice.",
    ),
    key(
        "boot",
        Kind::Word(&["linux", "binary"]),
        Some("\"linux\""),
        "What `kernel` is: an arm64 Linux Image, or a binary that is loaded at the start of RAM and entered there.",
    ),
    key("kernel", Kind::Text(Text::File), None, "Kernel file, relative to this one."),
    key("initrd", Kind::Text(Text::File), Some(""), "Initramfs file, relative to this one."),
    key("cmdline", Kind::Text(Text::Line), Some(""), "Kernel command line."),
    key(
        "console",
        Kind::Word(&["virtio", "pl011"]),
        Some("\"virtio\""),
        "`virtio` adds a virtio-console (`hvc0`) to the emulated PL011 (`ttyAMA0`).",
    ),
    key("autostart", Kind::Flag, Some("true"), "Whether it starts with the system."),
    key("on_crash", POLICIES, Some("\"stop\""), "What follows a crash."),
    key("on_reset", POLICIES, Some("\"restart\""), "What follows a reset that the guest asks for."),
    key(
        "watchdog_seconds",
        Kind::Number { min: 0, max: 86400 },
        Some("0"),
        "Seconds without a sign of life after which the guest counts as hung; 0: nobody watches.",
    ),
    key(
        "on_hang",
        Kind::Word(&["report", "stop", "restart"]),
        Some("\"report\""),
        "What follows then; the log says so in any case.",
    ),
    key(
        "disks",
        Kind::List { min: 0, max: MAX_DISKS, keys: DISK },
        Some("[]"),
        "virtio-blk devices, `/dev/vda` first.",
    ),
    key(
        "passthrough",
        Kind::List { min: 0, max: MAX_PASSTHROUGH, keys: PASSTHROUGH },
        Some("[]"),
        "Devices of the board that the guest gets whole. One that does DMA can reach all memory: docs/threat-model.md.",
    ),
    key(
        "cid",
        Kind::Number { min: 3, max: u32::MAX as u64 - 1 },
        Some(""),
        "Context id: gives the cell a virtio-vsock device. Unique.",
    ),
    key("manager", Kind::Flag, Some("false"), "Whether it may use the management service, port 1 of CID 2."),
];

/// Entries of `passthrough`.
pub const PASSTHROUGH: &[Key] = &[
    key(
        "name",
        Kind::Text(Text::Name),
        None,
        "Unique in the cell. The node in the guest's device tree is `<name>@<address>`.",
    ),
    key("address", Kind::Address, None, "Physical address of the registers, a multiple of 4K."),
    key("size", Kind::Size, Some("\"4K\""), "Their size, a multiple of 4K."),
    key(
        "guest_address",
        Kind::Address,
        Some("the value of `address`"),
        "Where the guest finds them: outside of its RAM and of what docs/guest-abi.md lists.",
    ),
    key(
        "irqs",
        Kind::List { min: 0, max: MAX_PASSTHROUGH_IRQS, keys: PASSTHROUGH_IRQ },
        Some("[]"),
        "Its interrupts, in the order of the guest's device tree.",
    ),
    key(
        "device_tree",
        Kind::Table(DEVICE_TREE),
        Some("no node"),
        "What the guest's device tree says about it beside `reg` and `interrupts`.",
    ),
];

/// Entries of `irqs`.
pub const PASSTHROUGH_IRQ: &[Key] = &[
    key(
        "irq",
        Kind::Number { min: 32, max: 1019 },
        None,
        "INTID of the board's GIC: 32 plus the SPI's number.",
    ),
    key(
        "trigger",
        Kind::Word(&["level", "edge"]),
        Some("\"level\""),
        "How the device signals it, on the board and in the guest.",
    ),
    key(
        "guest_irq",
        Kind::Number { min: 32, max: 255 },
        Some("80, 81, ... in the cell's order"),
        "INTID in the guest.",
    ),
    key(
        "shared",
        Kind::Flag,
        Some("false"),
        "Another device of this cell has the same line, and says so too.",
    ),
];

/// Keys of `device_tree`.
pub const DEVICE_TREE: &[Key] = &[
    key(
        "compatible",
        Kind::Texts { form: Text::Node, min: 1, max: 4 },
        None,
        "The most specific name first.",
    ),
    key(
        "clocks",
        Kind::Texts { form: Text::Node, min: 0, max: 4 },
        Some("[]"),
        "`clock-names`: each is a fixed clock that runs already.",
    ),
    key("clock_hz", Kind::Number { min: 1, max: u32::MAX as u64 }, Some("24000000"), "Their frequency."),
    key("properties", Kind::List { min: 0, max: 8, keys: PROPERTY }, Some("[]"), "More properties."),
];

/// Entries of `properties`.
pub const PROPERTY: &[Key] = &[
    key("name", Kind::Text(Text::Node), None, "The property's name. Without a value it is an empty one."),
    key("cell", Kind::Number { min: 0, max: u32::MAX as u64 }, Some(""), "Its value: a number of 32 bits."),
    key("text", Kind::Text(Text::Line), Some(""), "Its value: a string."),
];

/// Entries of `sockets`.
pub const SOCKET: &[Key] = &[
    key("from", Kind::Text(Text::Name), None, "Name of the cell that connects. It needs a `cid`."),
    key(
        "to",
        Kind::Text(Text::Name),
        None,
        "Name of the cell that listens, which needs a `cid`, or `host`: CID 2.",
    ),
    key(
        "ports",
        Kind::Numbers { count: MAX_PORTS, max: u32::MAX as u64 - 1 },
        None,
        "Ports of the listening side. Of `host`: 7 echo, 9 discard, 19 chargen, 514 log.",
    ),
];

/// Entries of `disks`.
pub const DISK: &[Key] = &[
    key("controller", Kind::Text(Text::Name), None, "Name of a controller."),
    key(
        "partition",
        Kind::TextOr(Text::Label, PARTITION),
        None,
        "What the guest sees of the disk: the label of a GPT partition, or an object with one of the keys below.",
    ),
    key("read_only", Kind::Flag, Some("false"), "Refuse writes."),
    key(
        "queues",
        number(MAX_QUEUES as u64),
        Some("as many as `vcpus`"),
        "Request queues; with more than one the guest is offered VIRTIO_BLK_F_MQ.",
    ),
    key("serial", Kind::Text(Text::Serial), Some("`<cell>-<number>`"), "The disk's identity in the guest."),
    key("iops", number(1_000_000), Some("no limit"), "Most requests per second."),
    key(
        "bytes_per_second",
        Kind::Size,
        Some("no limit"),
        "Most bytes per second. With either limit a disk that was idle may begin a twentieth of a second's worth at once.",
    ),
];

/// Keys of the object form of `partition`.
pub const PARTITION: &[Key] = &[
    key("gpt", number(128), Some(""), "Number of a GPT partition."),
    key("mbr", number(255), Some(""), "Number of an MBR partition; 1 to 4 are primary."),
    key("range", Kind::Table(RANGE), Some(""), "Sectors of 512 bytes."),
];

/// Keys of `range`.
pub const RANGE: &[Key] = &[
    key("first", Kind::Number { min: 0, max: (1 << 55) - 1 }, None, "First sector."),
    key("count", number((1 << 55) - 1), Some("up to the end of the disk"), "Number of sectors."),
];
