//! Where bits may flip in a guest: its RAM and its register pages, found by what they hold.
//!
//! Tools' reports say where guest RAM lies (a disk's DMA depends on it), and a guest's kernel at its beginning proves it.
//! Where seL4 puts other memory they need not know. A register page begins as virtio-mmio says (4.2.2), the socket device's
//! has its guest's CID, and the pages of a cell are one region, in the order of its devices.

use partita::{fail, failure::Result};

use crate::memory::{self, PAGE, Still};

/// Bytes of a page of guest RAM.
const LARGE: u64 = 2 << 20;
/// virtio's ids of a cell's devices in the order of their pages: a disk, the console, a socket device.
const DEVICES: [u32; 3] = [2, 3, 19];
const VSOCK: usize = 2;

/// Physical addresses and lengths of what is a guest's, registers as often as they shall count: a quarter of all.
///
/// # Errors
/// It is not there.
pub fn places(report: &str, guest: &str, cid: u32, machine: &mut Still<'_>) -> Result<Vec<(u64, u64)>> {
    let ram = memory::frames(report, &format!("mr_guest_ram.{guest}"));
    let Some(first) = ram.first() else { fail!("report.txt does not say where {guest}'s memory is") };
    if machine.read(first + 56, 4)? != b"ARM\x64" {
        fail!("{guest}'s kernel is not at {first:#x}, where its memory should begin");
    }
    let mut pages = Vec::new();
    machine.pages(|paddr, page| {
        if word(page, 0) == u32::from_le_bytes(*b"virt") && word(page, 4) == 2 {
            pages.push((paddr, word(page, 8), word(page, 0x100)));
        }
    })?;
    let Some(registers) = registers(&pages, cid) else {
        fail!("the register pages of {guest} are not found; those that are one: {pages:x?}");
    };
    let share = (ram.len() / registers.len() / 3).max(1);
    let places = ram.into_iter().map(|at| (at, LARGE));
    Ok(places.chain(registers.map(|at| (at, PAGE)).repeat(share)).collect())
}

/// Of all register pages (address, device, first word of its configuration) those of the cell with this CID. The region may
/// lie in memory from its end to its beginning. `None`: not exactly one is it.
fn registers(pages: &[(u64, u32, u32)], cid: u32) -> Option<[u64; DEVICES.len()]> {
    let mut found = None;
    for (socket, ..) in pages.iter().filter(|(_, id, config)| *id == DEVICES[VSOCK] && *config == cid) {
        for step in [PAGE, PAGE.wrapping_neg()] {
            let begin = socket.wrapping_sub(step.wrapping_mul(VSOCK as u64));
            let cell: [u64; DEVICES.len()] =
                std::array::from_fn(|n| begin.wrapping_add(step.wrapping_mul(n as u64)));
            let is =
                |(at, device): (&u64, &u32)| pages.iter().any(|(page, id, _)| page == at && id == device);
            if cell.iter().zip(&DEVICES).all(is) && found.replace(cell).is_some() {
                return None;
            }
        }
    }
    found
}

fn word(page: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn register_pages_are_found_by_their_devices_and_the_cid() {
        let page = |n: u64, id: u32, config: u32| (0x6000_0000 + n * PAGE, id, config);
        let mut pages =
            vec![page(1, 2, 4), page(2, 3, 0), page(3, 19, 3), page(4, 2, 4), page(5, 3, 0), page(6, 19, 4)];
        let at = |n: [u64; 3]| Some(n.map(|n| 0x6000_0000 + n * PAGE));
        assert_eq!((registers(&pages, 3), registers(&pages, 4)), (at([1, 2, 3]), at([4, 5, 6])));
        assert_eq!(registers(&pages, 5), None);
        // The other way round, as some allocators do.
        pages.iter_mut().for_each(|page| page.0 = 0xc000_0000 - page.0);
        assert_eq!(registers(&pages, 3), at([1, 2, 3]).map(|all| all.map(|at| 0xc000_0000 - at)));
        // A second copy, or a page that is not where it should be.
        pages.extend([page(11, 2, 4), page(12, 3, 0), page(13, 19, 3)]);
        assert_eq!(registers(&pages, 3), None);
        pages.remove(4);
        assert_eq!(registers(&pages, 4), None);
    }
}
