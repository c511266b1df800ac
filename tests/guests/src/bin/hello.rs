//! Checks a well-behaved guest's view: UART, timer, PSCI, system registers, and the disk inside its window.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {}

#[cfg(target_os = "none")]
mod guest {
    use partita_test_guests::blk::{self, BASE, Disk, FLUSH, GET_ID, IN, OUT, get, load, memory, reg, store};
    use partita_test_guests::check::{check, equal, summary};
    use partita_test_guests::machine::{self, frequency, hvc, now, read, smc, wait_for};
    use partita_test_guests::{println, refused};

    #[unsafe(no_mangle)]
    extern "C" fn guest_main(dtb: u64) {
        println!("hello: a bare-metal guest");
        // SAFETY: the boot protocol: x0 is the device tree's address.
        let magic = unsafe { (dtb as *const u32).read_volatile() };
        equal("device tree at x0", magic.into(), 0xedfe_0dd0);
        machine::enable_interrupts(&[27, blk::INTID]);
        timer();
        firmware();
        let esr = refused!("mrs x0, S3_0_C12_C12_5"); // ICC_SRE_EL1: there is no GICv3
        equal("GICv3 register is undefined", esr >> 26, 0);
        match Disk::start() {
            None => check("disk starts", false),
            Some(mut disk) => exercise(&mut disk),
        }
        summary("hello", false);
    }

    fn timer() {
        let tenth = frequency() / 100;
        for round in 0..3 {
            let start = now();
            machine::set_timer(Some(tenth));
            let came = wait_for(27, 2, || machine::set_timer(None));
            let late = now() - start;
            println!("     timer round {round}: asked {tenth}, took {late} ticks");
            check("timer interrupt, asleep, not early", came && late >= tenth);
        }
        equal("no interrupt is left", machine::acknowledge().into(), 1023);
    }

    fn firmware() {
        equal("PSCI_VERSION", smc([0x8400_0000, 0, 0, 0]), 0x10001);
        equal("SMCCC_VERSION", smc([0x8000_0000, 0, 0, 0]), 0x10001);
        equal("CPU_ON of an absent CPU", smc([0xc400_0003, 7, 0x4000_0000, 0]), -2i64 as u64);
        equal("CPU_ON of the caller", smc([0xc400_0003, 0, 0x4000_0000, 0]), -4i64 as u64);
        equal("unknown function", smc([0x8400_00ff, 0, 0, 0]), -1i64 as u64);
        equal("HVC is not there", hvc(0x8400_0000), -1i64 as u64);
    }

    fn exercise(disk: &mut Disk) {
        let capacity = disk.capacity();
        println!("     disk: {capacity} sectors");
        check("disk has sectors", capacity > 64);
        equal("DeviceID", read(BASE + reg::DEVICE_ID).into(), 2);
        equal("read", disk.request(IN, 0, 512).into(), 0);
        equal("used.len of a read", disk.used_length().into(), 513);

        // The last page of the window: kept, overwritten, read back, put back.
        let place = capacity - 8;
        equal("read the last page", disk.request(IN, place, 4096).into(), 0);
        let saved = load(0);
        let pattern: [u8; 4096] = core::array::from_fn(|i| (i as u8).wrapping_mul(31) ^ (i >> 8) as u8);
        store(0, pattern);
        equal("write", disk.request(OUT, place, 4096).into(), 0);
        equal("used.len of a write", disk.used_length().into(), 1);
        equal("flush", disk.request(FLUSH, 0, 0).into(), 0);
        store(0, [0; 4096]);
        equal("read back", disk.request(IN, place, 4096).into(), 0);
        check("what was written is there", load(0) == pattern);
        store(0, saved);
        equal("put back", disk.request(OUT, place, 4096).into(), 0);

        // The neighbour begins behind the last sector.
        equal("read behind the window", disk.request(IN, capacity, 512).into(), 1);
        equal("write behind the window", disk.request(OUT, capacity, 512).into(), 1);
        equal("read across the end", disk.request(IN, capacity - 1, 1024).into(), 1);
        equal("write across the end", disk.request(OUT, capacity - 7, 4096).into(), 1);
        equal("sector that overflows", disk.request(IN, u64::MAX, 512).into(), 1);
        equal("sector that overflows in bytes", disk.request(OUT, 1 << 55, 512).into(), 1);
        equal("odd length", disk.request(IN, 0, 100).into(), 1);
        equal("unknown request", disk.request(77, 0, 512).into(), 2);
        equal("GET_ID", disk.request(GET_ID, 0, 20).into(), 0);
        check("serial is text", load(0)[0].is_ascii_graphic());
        equal("still reads", disk.request(IN, capacity - 1, 512).into(), 0);

        // Five at once.
        for slot in 0..5 {
            Disk::prepare(slot, IN, 8 * slot as u64, 4096);
            disk.offer(3 * slot as u16);
        }
        disk.kick();
        check("five at once", disk.wait(5));
        // SAFETY: in bounds.
        let good = (0..5).all(|slot| unsafe { get(&raw const (*memory()).status[slot]) } == 0);
        check("all five are good", good);
        check("reset", blk::reset());
    }
}
