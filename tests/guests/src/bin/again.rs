//! Resets itself from inside an interrupt handler, for as long as it is started again: each time it must find RAM zero and
//! its interrupt working, although the last run left it active.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {}

#[cfg(target_os = "none")]
mod guest {
    use partita_protocol::layout::guest;
    use partita_test_guests::machine::{self, acknowledge, frequency, now, smc};
    use partita_test_guests::println;

    /// A place in RAM where nothing is loaded.
    const MARK: *mut u64 = (guest::RAM + (4 << 20)) as *mut u64;

    #[unsafe(no_mangle)]
    extern "C" fn guest_main(_: u64) {
        // SAFETY: in RAM, used by nothing else.
        let old = unsafe { MARK.replace(0x5a5a) };
        machine::enable_interrupts(&[27]);
        machine::set_timer(Some(frequency() / 1000));
        let until = now() + 2 * frequency();
        let mut seen = 1023;
        while seen != 27 && now() < until {
            machine::wait();
            seen = acknowledge();
        }
        if old == 0 && seen == 27 {
            println!("again: ok");
            // The timer's interrupt is active, and so it stays.
            smc([0x8400_0009, 0, 0, 0]);
        }
        println!("again: FAIL: ram {old:#x}, interrupt {seen}");
    }
}
