//! Breaks the rules of every device it has, and of the machine. Only this guest may notice: DEVICE_NEEDS_RESET or an error,
//! and after a reset everything works again; or it is stopped, and goes on with the next case when it is started again.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {}

#[cfg(target_os = "none")]
#[unsafe(no_mangle)]
extern "C" fn guest_main(_: u64) {
    partita_test_guests::nonsense::run();
}
