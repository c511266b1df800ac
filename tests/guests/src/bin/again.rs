//! Resets itself from inside an interrupt handler while the disk is busy, for as long as it is started again.
//!
//! Each time it must find RAM zero and its interrupt working, although the last run left RAM full of a pattern, reads of the
//! disk on their way into it, and the interrupt active. On the disk it counts its runs. Each sector of an area there says
//! where it is and in which run it was written: the writes that are in flight at a reset may be done or not, sector by
//! sector, but a device that still read our RAM after it was cleared would leave a sector that says something else.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {}

#[cfg(target_os = "none")]
mod guest {
    use partita_protocol::layout::guest;
    use partita_test_guests::blk::{self, BASE, Disk, FLUSH, IN, OUT, get, load, memory, reg, set, store};
    use partita_test_guests::machine::{self, acknowledge, frequency, now, smc};
    use partita_test_guests::println;

    /// RAM where nothing is loaded: below is the program, above the device tree.
    const FREE: u64 = guest::RAM + (4 << 20);
    const FREE_END: u64 = guest::RAM + (14 << 20);
    /// What the disk is written from, read into, and read into while we reset.
    const WRITTEN: u64 = FREE;
    const READ: u64 = FREE + (2 << 20);
    const LATE: u64 = FREE + (4 << 20);
    /// The area on the disk, in sectors, and how many one request moves.
    const AREA: u64 = 1024;
    const SECTORS: u64 = 2048;
    const REQUEST: u64 = 512;
    const MAGIC: u64 = 0x6167_6169_6e21;
    const PATTERN: u64 = 0x5a5a_a5a5_0f0f_f0f0;

    fn words(from: u64, to: u64) -> impl Iterator<Item = *mut u64> {
        (from..to).step_by(8).map(|address| address as *mut u64)
    }

    /// Writes words to RAM that nothing else uses.
    fn fill(from: u64, to: u64, mut value: impl FnMut(u64) -> u64) {
        for word in words(from, to) {
            // SAFETY: in free RAM.
            unsafe { word.write_volatile(value(word as u64 - from)) };
        }
    }

    /// The first word that is not what it must be: its offset and the value.
    fn differs(from: u64, to: u64, good: impl Fn(u64, u64) -> bool) -> Option<(u64, u64)> {
        words(from, to).find_map(|word| {
            // SAFETY: in RAM.
            let value = unsafe { word.read_volatile() };
            let offset = word as u64 - from;
            (!good(offset, value)).then_some((offset, value))
        })
    }

    /// A request for the disk between sector `AREA + sector` and RAM at `address`; to be offered by its slot.
    fn prepare(slot: usize, kind: u32, sector: u64, address: u64) {
        Disk::prepare(slot, kind, AREA + sector, (REQUEST * 512) as u32);
        // SAFETY: a slot's second descriptor is the data's; `slot` is below 5.
        unsafe { set(&raw mut (*memory()).descriptors[3 * slot + 1].addr, address) };
    }

    fn offer(disk: &mut Disk, slots: core::ops::Range<usize>) {
        slots.for_each(|slot| disk.offer(3 * slot as u16));
        disk.kick();
    }

    /// Moves the whole area and waits for it.
    fn move_area(disk: &mut Disk, kind: u32, address: u64) -> bool {
        for n in 0..4 {
            prepare(n, kind, n as u64 * REQUEST, address + n as u64 * REQUEST * 512);
        }
        offer(disk, 0..4);
        // SAFETY: in bounds.
        disk.wait(4) && (0..4).all(|slot| unsafe { get(&raw const (*memory()).status[slot]) } == 0)
    }

    /// What each word of the area says after a write in `run`.
    fn said(run: u64, offset: u64) -> u64 {
        (run << 32) | (offset / 512)
    }

    fn attempt() -> Result<u64, &'static str> {
        if let Some((offset, value)) = differs(FREE, FREE_END, |_, value| value == 0) {
            println!("again: RAM at {:#x} is {value:#x}", FREE + offset);
            return Err("RAM is not clear");
        }
        fill(FREE, FREE_END, |_| PATTERN);
        machine::enable_interrupts(&[27, blk::INTID]);
        let mut disk = Disk::start().ok_or("the disk does not start")?;
        if disk.request(IN, 0, 512) != 0 {
            return Err("the count is not read");
        }
        let word = |n: usize| u64::from_le_bytes(load(0)[8 * n..8 * n + 8].try_into().unwrap_or_default());
        let before = if word(0) == MAGIC { word(1) } else { 0 };
        let run = before + 1;
        if before == 0 {
            fill(WRITTEN, WRITTEN + SECTORS * 512, |offset| said(0, offset));
            if !move_area(&mut disk, OUT, WRITTEN) {
                return Err("the area is not written");
            }
        }
        if !move_area(&mut disk, IN, READ) {
            return Err("the area is not read");
        }
        let good = |offset, value| value & 0xffff_ffff == offset / 512 && value >> 32 <= before;
        if let Some((offset, value)) = differs(READ, READ + SECTORS * 512, good) {
            println!("again: word {offset:#x} of the area is {value:#x} before run {run}");
            return Err("the disk holds what nobody wrote");
        }
        let mut page = [0; 4096];
        page[..8].copy_from_slice(&MAGIC.to_le_bytes());
        page[8..16].copy_from_slice(&run.to_le_bytes());
        store(0, page);
        if disk.request(OUT, 0, 512) != 0 || disk.request(FLUSH, 0, 0) != 0 {
            return Err("the count is not written");
        }
        fill(WRITTEN, WRITTEN + SECTORS * 512, |offset| said(run, offset));

        machine::set_timer(Some(frequency() / 1000));
        let until = now() + 30 * frequency();
        let mut seen = acknowledge();
        while seen != 27 && now() < until {
            if seen < 1020 {
                // A request that was done before anybody waited has left its interrupt behind.
                machine::write(BASE + reg::INTERRUPT_ACK, machine::read(BASE + reg::INTERRUPT_STATUS));
                machine::end(seen);
            }
            machine::wait();
            seen = acknowledge();
        }
        if seen != 27 {
            return Err("no timer interrupt");
        }
        for n in 0..4 {
            prepare(n, OUT, n as u64 * REQUEST, WRITTEN + n as u64 * REQUEST * 512);
        }
        prepare(4, IN, 0, LATE);
        println!("again: run {run} ok");
        offer(&mut disk, 0..5);
        Ok(run)
    }

    #[unsafe(no_mangle)]
    extern "C" fn guest_main(_: u64) {
        match attempt() {
            // The timer's interrupt is active, requests are in flight, and so they stay.
            Ok(_) => smc([0x8400_0009, 0, 0, 0]),
            Err(what) => {
                println!("again: FAIL: {what}");
                return;
            }
        };
        println!("again: FAIL: a reset returns");
    }
}
