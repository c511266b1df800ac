//! Takes all processor time that it gets, one second out of three: `phase=` on its command line says which. The clock is
//! the machine's, so all guests agree on the seconds.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {}

#[cfg(target_os = "none")]
mod guest {
    use partita_test_guests::machine::{self, digit_after, eighths, frequency, now};
    use partita_test_guests::println;

    #[unsafe(no_mangle)]
    extern "C" fn guest_main(dtb: u64) {
        let Some(mine) = digit_after(dtb, b"phase=") else {
            println!("spin: FAIL: no phase");
            return;
        };
        machine::enable_interrupts(&[27]);
        println!("spin: phase {mine}");
        loop {
            if eighths() / 8 % 3 == mine {
                continue;
            }
            let next = (now() / frequency() + 1) * frequency();
            machine::set_timer(Some(next.saturating_sub(now())));
            machine::wait();
            machine::set_timer(None);
            if machine::acknowledge() == 27 {
                machine::end(27);
            }
        }
    }
}
