//! Hangs: after a word on the console it spins with interrupts masked and reads of its disk in flight, so that it gives no
//! sign of life but does not sleep either.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {}

#[cfg(target_os = "none")]
mod guest {
    use partita_test_guests::blk::{self, Disk, IN};
    use partita_test_guests::{machine, println};

    #[unsafe(no_mangle)]
    extern "C" fn guest_main(_: u64) {
        machine::enable_interrupts(&[blk::INTID]);
        match Disk::start() {
            Some(mut disk) => {
                for slot in 0..5 {
                    Disk::prepare(slot, IN, 8 * slot as u64, 4096);
                    disk.offer(3 * slot as u16);
                }
                println!("hang: spins");
                disk.kick();
            }
            None => println!("hang: FAIL: no disk"),
        }
        loop {
            core::hint::spin_loop();
        }
    }
}
