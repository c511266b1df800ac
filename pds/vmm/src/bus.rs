//! The guest's physical address map below RAM, as far as accesses to it exit (docs/guest-abi.md).

use partita_protocol::layout::guest;
use partita_protocol::{MAX_CELL_LINKS, MAX_DEVICES};

/// Stride and size of a virtio register page and of a link's control table.
const PAGE: u64 = 0x1000;
/// Bytes that the distributor's register block takes.
const GICD_SIZE: u64 = 0x1_0000;

/// What is at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Interrupt distributor, offset.
    Distributor(u64),
    /// PL011, offset.
    Uart(u64),
    /// virtio device, offset in its page.
    Virtio(usize, u64),
    /// Control table of a link, offset in its page.
    Link(usize, u64),
    /// Nothing.
    Hole,
}

/// Looks up a guest physical address.
pub const fn target(ipa: u64) -> Target {
    const VIRTIO_END: u64 = guest::VIRTIO + MAX_DEVICES as u64 * PAGE;
    const GICD_END: u64 = guest::GICD + GICD_SIZE;
    const LINK_END: u64 = guest::LINK_CONTROL + MAX_CELL_LINKS as u64 * PAGE;
    const UART_END: u64 = guest::UART + PAGE;
    match ipa {
        guest::VIRTIO..VIRTIO_END => {
            let offset = ipa - guest::VIRTIO;
            Target::Virtio((offset / PAGE) as usize, offset % PAGE)
        }
        guest::LINK_CONTROL..LINK_END => {
            let offset = ipa - guest::LINK_CONTROL;
            Target::Link((offset / PAGE) as usize, offset % PAGE)
        }
        guest::GICD..GICD_END => Target::Distributor(ipa - guest::GICD),
        guest::UART..UART_END => Target::Uart(ipa - guest::UART),
        _ => Target::Hole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borders() {
        assert_eq!(target(0x0a00_0050), Target::Virtio(0, 0x50));
        assert_eq!(target(0x0a00_7fff), Target::Virtio(7, 0xfff));
        assert_eq!(target(0x0a00_8000), Target::Hole);
        assert_eq!(target(0x0b00_1014), Target::Link(1, 0x14));
        assert_eq!(target(0x0b00_2000), Target::Hole);
        assert_eq!(target(0x0800_0f00), Target::Distributor(0xf00));
        assert_eq!(target(0x0801_0000), Target::Hole);
        assert_eq!(target(0x0900_0018), Target::Uart(0x18));
        assert_eq!(target(0x0900_1000), Target::Hole);
        assert_eq!(target(0), Target::Hole);
        assert_eq!(target(u64::MAX), Target::Hole);
    }
}
