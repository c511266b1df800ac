//! Any bytes as a guest kernel: what is accepted fits RAM, and its parts do not overlap.
#![no_main]

use libfuzzer_sys::fuzz_target;
use partita_guest::boot::{Kernel, plan};
use partita_protocol::layout::guest::RAM;

fuzz_target!(|input: (&[u8], u32, u32, u32, u32)| {
    let (head, length, initrd, dtb, ram) = input;
    let [length, initrd, dtb, ram] = [length, initrd, dtb, ram].map(u64::from);
    let Ok(kernel) = Kernel::identify(head, length) else { return };
    let Ok(plan) = plan(kernel, length, initrd, dtb, ram) else { return };
    assert!(plan.kernel >= RAM && plan.kernel + length <= plan.dtb);
    assert!(plan.dtb + dtb <= plan.initrd && plan.initrd + initrd <= RAM + ram);
});
