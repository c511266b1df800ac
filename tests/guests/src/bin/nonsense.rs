//! Breaks the rules of every device it has. Only this guest may notice: DEVICE_NEEDS_RESET or an error, and after a reset
//! everything works again.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {}

#[cfg(target_os = "none")]
mod guest {
    use partita_protocol::layout::guest;
    use partita_test_guests::blk::{
        self, BASE, Descriptor, Disk, IN, INDIRECT, NEXT, SIZE, WRITE, areas, get, memory, reg, set,
    };
    use partita_test_guests::check::{check, equal, summary};
    use partita_test_guests::machine::{self, hvc, read, smc, write, write_width};
    use partita_test_guests::println;

    /// Numbers that repeat from run to run.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }
    }

    #[unsafe(no_mangle)]
    extern "C" fn guest_main(_: u64) {
        println!("nonsense: a guest that breaks the rules");
        machine::enable_interrupts(&[27, blk::INTID]);
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        protocol();
        queues();
        descriptors();
        rubbish(&mut random);
        recovered("after everything");
        summary("nonsense", false);
    }

    /// The device works after a reset.
    fn recovered(what: &str) {
        let status = match Disk::start() {
            None => 0xfd,
            Some(mut disk) => disk.request(IN, 0, 512),
        };
        equal(what, status.into(), 0);
    }

    fn broken(what: &str) {
        check(what, blk::needs_reset());
        recovered("     works after a reset");
    }

    /// The device protocol of section 3.1.
    fn protocol() {
        check("reset of a fresh device", blk::reset());
        write(BASE + reg::QUEUE_NOTIFY, 0);
        equal("kick before anything is ignored", read(BASE + reg::STATUS).into(), 0);
        write(BASE + reg::STATUS, 7);
        broken("DRIVER_OK without FEATURES_OK");

        blk::reset();
        write(BASE + reg::STATUS, 3);
        write(BASE + reg::DRIVER_FEATURES_SEL, 1);
        write(BASE + reg::DRIVER_FEATURES, 0xffff_ffff);
        write(BASE + reg::STATUS, 11);
        equal("features that were not offered", read(BASE + reg::STATUS).into(), 3);

        blk::reset();
        check("features", blk::negotiate(0));
        blk::set_queue(SIZE as u32, areas());
        write(BASE + reg::QUEUE_NOTIFY, 0);
        equal("kick before DRIVER_OK is ignored", read(BASE + reg::STATUS).into(), 11);
        recovered("     works after that");

        for size in [0, 3, 0x8000, 0x1_0010] {
            blk::reset();
            blk::negotiate(0);
            blk::set_queue(size, areas());
            check("queue size that is none", blk::needs_reset());
        }
        recovered("     works after a reset");
    }

    /// Rings where there is no RAM.
    fn queues() {
        let good = areas();
        for (what, bad) in [
            ("rings at 0", 0),
            ("rings in the device's own registers", BASE),
            ("rings behind the end of RAM", 0x40_0000_0000),
            ("rings at the end of the address space", u64::MAX - 0xfff),
        ] {
            for area in 0..3 {
                let mut areas = good;
                areas[area] = bad;
                blk::reset();
                blk::negotiate(0);
                blk::set_queue(SIZE as u32, areas);
                write(BASE + reg::STATUS, 15);
                write(BASE + reg::QUEUE_NOTIFY, 0);
                check(what, blk::needs_reset());
            }
        }
        recovered("     works after a reset");
    }

    /// Starts the device, lets `spoil` change a prepared read, and offers it.
    fn spoiled(spoil: impl FnOnce(&mut [Descriptor; SIZE])) {
        let Some(mut disk) = Disk::start() else { return check("disk starts", false) };
        Disk::prepare(0, IN, 0, 512);
        // SAFETY: our memory; the device looks at it after the kick.
        unsafe {
            let place = &raw mut (*memory()).descriptors;
            let mut descriptors = get(place);
            spoil(&mut descriptors);
            set(place, descriptors);
        }
        disk.offer(0);
        disk.kick();
    }

    fn descriptors() {
        type Spoil = fn(&mut [Descriptor; SIZE]);
        let cases: [(&str, Spoil); 9] = [
            ("header outside RAM", |d| d[0].addr = 0),
            ("data outside RAM", |d| d[1].addr = 0x3fff_ff00),
            ("data across the end of the address space", |d| d[1].addr = u64::MAX - 10),
            ("status in the registers", |d| d[2].addr = BASE),
            ("next beyond the table", |d| d[1].next = SIZE as u16),
            ("a loop", |d| {
                d[1].next = 1;
                d[1].flags = NEXT | WRITE;
            }),
            ("no place for the status", |d| d[1].flags = 0),
            ("indirect without the feature", |d| d[0].flags |= INDIRECT),
            ("readable after writable", |d| {
                d[0].flags = NEXT | WRITE;
                d[1].flags = NEXT;
            }),
        ];
        for (what, spoil) in cases {
            spoiled(spoil);
            broken(what);
        }

        if let Some(mut disk) = Disk::start() {
            disk.set_avail(SIZE as u16 + 1);
            disk.kick();
        }
        broken("available index too far ahead");

        if let Some(mut disk) = Disk::start() {
            disk.offer(0xffff);
            disk.kick();
        }
        broken("head beyond the table");

        // The rules can be broken while requests are in flight.
        if let Some(mut disk) = Disk::start() {
            for slot in 0..4 {
                Disk::prepare(slot, IN, 0, 4096);
                disk.offer(3 * slot as u16);
            }
            disk.kick();
            disk.offer(0x1000);
            disk.kick();
        }
        broken("broken with requests in flight");

        if let Some(mut disk) = Disk::start() {
            for slot in 0..5 {
                Disk::prepare(slot, IN, 0, 4096);
                disk.offer(3 * slot as u16);
            }
            disk.kick();
        }
        check("reset with requests in flight", blk::reset());
        recovered("     works after a reset");
    }

    /// Rubbish in every register.
    fn rubbish(random: &mut Random) {
        for _ in 0..2000 {
            let width = 1 << (random.next() % 4);
            let offset = random.next() % 0x200 / width * width;
            write_width(BASE + offset, width as u8, random.next());
        }
        recovered("2000 rubbish stores to the disk's registers");

        for _ in 0..1000 {
            let width = 1 << (random.next() % 3);
            // PL011: all but CR, so that this goes on to be printed, and not DR.
            let offset = 0x34 + random.next() % 0xf00 / width * width;
            write_width(guest::UART + offset / width * width, width as u8, random.next());
        }
        write(guest::UART + 0x38, 0);
        check("1000 rubbish stores to the PL011", read(guest::UART + 0xfe0) == 0x11);

        // A device that still interrupts would do so for ever.
        blk::reset();
        for _ in 0..2000 {
            let width = 1 << (random.next() % 4);
            let offset = random.next() % 0x1000 / width * width;
            write_width(guest::GICD + offset, width as u8, random.next());
            // Whatever that has let through is ended.
            while let intid @ 0..=1019 = machine::acknowledge() {
                machine::end(intid);
            }
        }
        write(guest::GICD, 1);
        check("2000 rubbish stores to the distributor", read(guest::GICD + 4) & 0x1f == 7);
        for word in 0..8 {
            write(guest::GICD + 0x180 + 4 * word, 0xffff_ffff);
            write(guest::GICD + 0x280 + 4 * word, 0xffff_ffff);
            if word > 0 {
                write(guest::GICD + 0xc00 + 8 * word, 0);
                write(guest::GICD + 0xc04 + 8 * word, 0);
            }
        }
        while let intid @ 0..=1019 = machine::acknowledge() {
            machine::end(intid);
        }
        machine::enable_interrupts(&[27, blk::INTID]);

        let mut refused = true;
        for _ in 0..200 {
            // Not the functions that end the guest or suspend it.
            let function = 0x8400_0100 | random.next() & 0xffff_00ff;
            refused &= smc([function, random.next(), random.next(), random.next()]) == -1i64 as u64;
            refused &= hvc(random.next()) == -1i64 as u64;
        }
        check("400 rubbish calls", refused);
    }
}
