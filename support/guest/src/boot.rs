//! What a guest starts from: the arm64 Linux boot protocol (Documentation/arch/arm64/booting.rst in Linux), or a plain
//! binary.
//!
//! [`plan`] says where kernel, initramfs and device tree go in guest RAM, by the addresses of
//! [`partita_protocol::layout::guest`] that the host tool has written into the device tree, and refuses what does not fit.

use core::fmt;

use partita_protocol::layout::guest;

/// Bytes of the header that are looked at.
pub const HEADER: usize = 64;
/// Greatest device tree: the boot protocol's limit.
pub const DTB_MAX: u64 = 2 << 20;
/// The kernel's load address is counted from such a boundary.
const ALIGN: u64 = 2 << 20;

/// Kind of kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// An arm64 Linux Image.
    Linux {
        /// Offset of the load address from a 2 MiB boundary.
        text_offset: u64,
        /// Bytes from the load address that the kernel takes, its bss included.
        memory: u64,
    },
    /// A plain binary: loaded at the start of RAM and entered at its first byte.
    Plain,
}

/// Where a guest's parts are, as guest physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Kernel: load address and entry.
    pub kernel: u64,
    /// Initramfs; where it would be if it is empty.
    pub initrd: u64,
    /// Device tree.
    pub dtb: u64,
}

/// Why a guest cannot be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No kernel, or one shorter than its header.
    Empty,
    /// A compressed file.
    Compressed,
    /// An ELF file.
    Elf,
    /// An EFI application without a Linux header (such as a compressed EFI zboot image).
    Efi,
    /// A big-endian Linux.
    BigEndian,
    /// The device tree is longer than the boot protocol allows.
    DeviceTreeTooLong,
    /// Guest RAM is too small for all parts.
    TooSmall {
        /// Bytes needed.
        needed: u64,
    },
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Empty => f.write_str("the guest kernel is empty"),
            Refused::Compressed => f.write_str("the guest kernel is compressed: give the unpacked Image"),
            Refused::Elf => {
                f.write_str("the guest kernel is an ELF file: give the Image, or a binary by objcopy")
            }
            Refused::Efi => {
                f.write_str("the guest kernel is an EFI file without a Linux header: give the Image")
            }
            Refused::BigEndian => f.write_str("the guest kernel is big-endian"),
            Refused::DeviceTreeTooLong => f.write_str("the device tree is longer than 2 MiB"),
            Refused::TooSmall { needed } => {
                write!(f, "guest RAM is too small: {} MiB needed", needed.div_ceil(1 << 20))
            }
        }
    }
}

impl Kernel {
    /// Looks at the first [`HEADER`] bytes (fewer if the file is shorter) of a kernel of `length` bytes.
    pub fn identify(head: &[u8], length: u64) -> Result<Self, Refused> {
        if head.is_empty() || length == 0 {
            return Err(Refused::Empty);
        }
        let word = |at: usize| {
            let bytes = head.get(at..at + 8)?;
            Some(u64::from_le_bytes(bytes.try_into().ok()?))
        };
        if head.get(56..60) == Some(b"ARM\x64")
            && let (Some(offset), Some(size), Some(flags)) = (word(8), word(16), word(24))
        {
            if flags & 1 != 0 {
                return Err(Refused::BigEndian);
            }
            // Before Linux 3.17 the size was 0 and the offset, of either endianness, was always this.
            let (offset, size) = if size == 0 { (0x80000, length) } else { (offset, size) };
            return Ok(Kernel::Linux { text_offset: offset % ALIGN, memory: size.max(length) });
        }
        match head {
            [0x1f, 0x8b, ..]
            | [0x28, 0xb5, 0x2f, 0xfd, ..]
            | [0xfd, b'7', b'z', ..]
            | [b'B', b'Z', b'h', ..] => Err(Refused::Compressed),
            [0x7f, b'E', b'L', b'F', ..] => Err(Refused::Elf),
            [b'M', b'Z', ..] => Err(Refused::Efi),
            _ => Ok(Kernel::Plain),
        }
    }
}

/// Places `kernel` of `kernel_length` bytes, an initramfs of `initrd_length` bytes and a device tree of `dtb_length` bytes
/// in `ram_size` bytes of RAM.
pub fn plan(
    kernel: Kernel,
    kernel_length: u64,
    initrd_length: u64,
    dtb_length: u64,
    ram_size: u64,
) -> Result<Plan, Refused> {
    if dtb_length > DTB_MAX {
        return Err(Refused::DeviceTreeTooLong);
    }
    let (offset, memory) = match kernel {
        Kernel::Linux { text_offset, memory } => (text_offset, memory.max(kernel_length)),
        Kernel::Plain => (0, kernel_length),
    };
    let place = || {
        let initrd = guest::initrd_address(ram_size, initrd_length)?;
        let dtb = guest::dtb_address(ram_size, initrd_length)?;
        let kernel = guest::RAM.checked_add(offset)?;
        (kernel.checked_add(memory)? <= dtb).then_some(Plan { kernel, initrd, dtb })
    };
    let needed =
        offset.saturating_add(memory).saturating_add(initrd_length).saturating_add(DTB_MAX + 2 * ALIGN);
    place().ok_or(Refused::TooSmall { needed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use partita_protocol::layout::guest::RAM;

    fn image(text_offset: u64, size: u64, flags: u64) -> [u8; HEADER] {
        let mut head = [0; HEADER];
        head[0..2].copy_from_slice(b"MZ"); // Images are EFI applications too
        head[8..16].copy_from_slice(&text_offset.to_le_bytes());
        head[16..24].copy_from_slice(&size.to_le_bytes());
        head[24..32].copy_from_slice(&flags.to_le_bytes());
        head[56..60].copy_from_slice(b"ARM\x64");
        head
    }

    #[test]
    fn linux_is_recognised() {
        let kernel = Kernel::identify(&image(0, 0x1d0_0000, 0xa), 0x1c0_0000).unwrap();
        assert_eq!(kernel, Kernel::Linux { text_offset: 0, memory: 0x1d0_0000 });
        let old = Kernel::identify(&image(0, 0, 0), 100).unwrap();
        assert_eq!(old, Kernel::Linux { text_offset: 0x80000, memory: 100 });
    }

    #[test]
    fn wrong_files_are_named() {
        let refused = |head: &[u8]| Kernel::identify(head, 4096).unwrap_err();
        assert_eq!(refused(&[]), Refused::Empty);
        assert_eq!(refused(&[0x1f, 0x8b, 8, 0]), Refused::Compressed);
        assert_eq!(refused(b"\x7fELF\x02"), Refused::Elf);
        assert_eq!(refused(b"MZ\0\0zimg"), Refused::Efi);
        assert_eq!(refused(&image(0, 1, 1)), Refused::BigEndian);
        assert_eq!(Kernel::identify(&[0x14, 0, 0, 0x14], 4), Ok(Kernel::Plain));
    }

    #[test]
    fn debian_in_512_mib() {
        let kernel = Kernel::Linux { text_offset: 0, memory: 0x1d0_0000 };
        let plan = plan(kernel, 0x1c0_0000, 2_700_001, DTB_MAX, 512 << 20).unwrap();
        assert_eq!(plan, Plan { kernel: RAM, initrd: 0x5fc0_0000, dtb: 0x5fa0_0000 });
    }

    #[test]
    fn too_small_says_how_much() {
        let Err(Refused::TooSmall { needed }) = plan(Kernel::Plain, 6 << 20, 1 << 20, 100, 8 << 20) else {
            panic!()
        };
        assert!(plan(Kernel::Plain, 6 << 20, 1 << 20, 100, needed).is_ok());
        assert_eq!(
            Refused::TooSmall { needed: (9 << 20) + 1 }.to_string(),
            "guest RAM is too small: 10 MiB needed"
        );
    }

    proptest! {
        #[test]
        fn parts_never_overlap(head in prop::collection::vec(any::<u8>(), 0..80), linux: bool, offset: u64, size: u64,
                               length in 0u64..1 << 34, initrd in 0u64..1 << 34, dtb in 0u64..3 << 20,
                               ram_size in 0u64..1 << 35) {
            let head = if linux { image(offset, size, 2).to_vec() } else { head };
            let Ok(kernel) = Kernel::identify(&head, length) else { return Ok(()) };
            let Ok(plan) = plan(kernel, length, initrd, dtb, ram_size) else { return Ok(()) };
            prop_assert!(plan.kernel >= RAM);
            prop_assert!(plan.kernel + length <= plan.dtb);
            prop_assert!(plan.dtb + dtb <= plan.initrd && plan.dtb % 8 == 0);
            prop_assert!(plan.initrd + initrd <= RAM + ram_size);
        }
    }
}
