//! Puts a guest's parts into its RAM.

use partita_guest::boot::{self, Kernel, Plan, Refused};
use partita_virtio::memory::GuestRam;

use crate::machine::Machine;

/// What a guest starts from: prefilled regions that nobody writes.
#[derive(Clone, Copy)]
pub struct Images<'a> {
    /// Linux Image or plain binary.
    pub kernel: &'a [u8],
    /// Initramfs; may be empty.
    pub initrd: &'a [u8],
    /// Device tree.
    pub dtb: &'a [u8],
    /// `boot` of the cell: take the kernel as it is, whatever its first bytes look like.
    pub plain: bool,
}

/// Copies everything into place.
pub fn load<M: Machine>(machine: &mut M, ram: &GuestRam, images: Images<'_>) -> Result<Plan, Refused> {
    let length = images.kernel.len() as u64;
    let head = images.kernel.get(..boot::HEADER).unwrap_or(images.kernel);
    let kernel = match Kernel::identify(head, length) {
        Err(Refused::Empty) => return Err(Refused::Empty),
        _ if images.plain => Kernel::Plain,
        other => other?,
    };
    let plan = boot::plan(kernel, length, images.initrd.len() as u64, images.dtb.len() as u64, ram.size())?;
    for (at, bytes) in [(plan.kernel, images.kernel), (plan.initrd, images.initrd), (plan.dtb, images.dtb)] {
        // `plan` has checked that all of it is in RAM.
        if ram.write(at, bytes).is_err() {
            return Err(Refused::TooSmall { needed: at.saturating_sub(ram.ipa()) + bytes.len() as u64 });
        }
        machine.publish(at.saturating_sub(ram.ipa()), bytes.len() as u64);
    }
    Ok(plan)
}
