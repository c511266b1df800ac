//! Any bytes as a guest kernel: what is accepted fits RAM, and its parts do not overlap. Any bytes where a boot file should
//! be: what is accepted is what was expected.
#![no_main]

use libfuzzer_sys::fuzz_target;
use partita_guest::boot::{Kernel, plan};
use partita_guest::boot_file::{self, HEADER, Header, LEAD};
use partita_protocol::layout::guest::RAM;

fuzz_target!(|input: (&[u8], u32, u32, u32, u32)| {
    let (head, length, initrd, dtb, ram) = input;
    boot_file(head, length, initrd, dtb);
    let [length, initrd, dtb, ram] = [length, initrd, dtb, ram].map(u64::from);
    let Ok(kernel) = Kernel::identify(head, length) else { return };
    let Ok(plan) = plan(kernel, length, initrd, dtb, ram) else { return };
    assert!(plan.kernel >= RAM && plan.kernel + length <= plan.dtb);
    assert!(plan.dtb + dtb <= plan.initrd && plan.initrd + initrd <= RAM + ram);
});

/// As it is, and behind a good header of which one byte is changed.
fn boot_file(bytes: &[u8], length: u32, crc: u32, change: u32) {
    if let Ok(header) = Header::parse(bytes) {
        assert_eq!(header.to_bytes()[..], bytes[..HEADER]);
    }
    let expected = Header { length: length.into(), crc };
    let mut region = vec![0; LEAD];
    region[..HEADER].copy_from_slice(&expected.to_bytes());
    region.extend(bytes);
    let [at, xor, ..] = change.to_le_bytes();
    region[usize::from(at)] ^= xor;
    match boot_file::open(&region, &expected.to_bytes()) {
        Ok((file, found)) => {
            assert!(usize::from(at) >= HEADER || xor == 0);
            assert_eq!((file.len() as u64, found), (expected.length, crc));
        }
        Err(_) => assert!(xor != 0 && usize::from(at) < HEADER || bytes.len() < length as usize),
    }
    let _ = boot_file::open(bytes, bytes);
}
