//! Says how much work it gets done in each eighth of a second: what others leave it of the processor.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {}

#[cfg(target_os = "none")]
mod guest {
    use partita_test_guests::machine::eighths;
    use partita_test_guests::println;

    /// Work between two looks at the clock: far less than a scheduling period.
    fn work() {
        // SAFETY: counts a register down.
        unsafe {
            core::arch::asm!("mov {n}, #5000", "2:", "subs {n}, {n}, #1", "b.ne 2b", n = out(reg) _, options(nomem, nostack));
        }
    }

    #[unsafe(no_mangle)]
    extern "C" fn guest_main(_: u64) {
        let (mut eighth, mut done) = (eighths(), 0u64);
        loop {
            work();
            done += 1;
            let now = eighths();
            if now != eighth {
                println!("count: {eighth} {done}");
                (eighth, done) = (now, 0);
            }
        }
    }
}
