//! A device that does DMA in the hands of a guest: its RAM is where it sees it, so the device finds what the guest means.
//!
//! QEMU's virtio-mmio transports 24 to 31 have a page of their own; in 24 there is a second disk, which Linux drives itself.
//! That memory is not the kernel's, so nobody has cleared it before: what QEMU put there must not reach the guest.

use std::fs;

use partita::{build, fail, failure::Failure};
use partita_system_tests::{
    fixture::{self, SOON, with_machine},
    memory::{self, Memory},
};

const KEYS: &str = r#""memory_address": "0x40000000",
      "passthrough": [{
        "name": "virtio",
        "address": "0xa003000",
        "guest_address": "0xc000000",
        "irqs": [{ "irq": 72, "trigger": "edge" }],
        "device_tree": { "compatible": ["virtio,mmio"], "properties": [{ "name": "dma-coherent" }] }
      }],
      "memory""#;
/// In the guest's RAM, where it has loaded nothing: what is there before the system starts.
const PLACE: u64 = 0x5000_0000;
const SECRET: &[u8; 16] = b"of somebody else";

/// What `sum -r` says.
fn bsd_sum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |sum, byte| ((sum >> 1) + ((sum & 1) << 15) + u32::from(*byte)) & 0xffff)
}

#[test]
fn a_guest_with_its_own_addresses_drives_a_disk_by_dma() {
    let mut context = fixture::one_guest().unwrap();
    let text = context.read_description().unwrap().replacen(r#""memory""#, KEYS, 1);
    context.options.description = context.build_dir().join("test/dma.json");
    build::write(&context.options.description, text.as_bytes()).unwrap();
    let own = context.build_dir().join("test/dma.own.img");
    let contents: Vec<u8> = (0..4u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(&own, &contents).unwrap();
    let secret = own.with_extension("secret");
    fs::write(&secret, SECRET.repeat(4096)).unwrap();
    let before = format!("loader,file={},addr={PLACE:#x},force-raw=on", secret.display());
    let socket = memory::socket("dma");
    let gdb = memory::arguments(&socket);
    let drive = format!("file={},if=none,format=raw,id=own", own.display());
    let device = "virtio-blk-device,drive=own,bus=virtio-mmio-bus.24";
    let arguments = ["-device", &before, "-drive", &drive, "-device", device, &gdb[0], &gdb[1]];
    with_machine("dma", Some(&context.options.description), &arguments, |system| {
        system.shell()?;
        let session = &mut system.session;
        // Its RAM begins where the board's does, and /dev/vda is still blk's.
        session.shell_ok("grep -q '^40[0-9a-f]*-5fffffff : System RAM' /proc/iomem", SOON)?;
        let disk =
            session.shell_ok("basename $(ls -d /sys/devices/platform/*c000000*/virtio*/block/*)", SOON)?;
        let disk = disk.trim();
        let read = format!("dd if=/dev/{disk} bs=64k iflag=direct 2>/dev/null | sum -r");
        let sum = session.shell_ok(&read, SOON)?;
        if sum.split_whitespace().next().and_then(|sum| sum.parse().ok()) != Some(bsd_sum(&contents)) {
            fail!("the guest read a disk with the sum {sum} instead of {}", bsd_sum(&contents));
        }
        session.shell_ok(
            &format!("printf 'written by DMA' | dd of=/dev/{disk} bs=512 seek=9 conv=sync,fsync 2>/dev/null"),
            SOON,
        )?;
        let mut machine = Memory::connect(&socket)?;
        for page in 0..16 {
            let found = machine.still(|memory| memory.read(PLACE + 0x1000 * page, 1024))?;
            if found.chunks(16).any(|chunk| chunk == SECRET) {
                fail!("what was in RAM before is left for the guest");
            }
        }
        system.power_off()
    });
    let after = fs::read(&own).map_err(|error| Failure::file("read", &own, &error)).unwrap();
    fs::remove_file(&own).unwrap();
    fs::remove_file(&secret).unwrap();
    assert_eq!(&after[9 * 512..][..14], b"written by DMA");
    assert!(after[..9 * 512] == contents[..9 * 512] && after[10 * 512..] == contents[10 * 512..]);
}
