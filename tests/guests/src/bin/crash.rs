//! Does what no VMM can go on after: it must be stopped with a line that says where, and nobody else may notice.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {}

#[cfg(target_os = "none")]
mod guest {
    use partita_test_guests::machine::write;
    use partita_test_guests::println;

    #[unsafe(no_mangle)]
    extern "C" fn guest_main(_: u64) {
        println!("crash: stores to 0x10000000, where nothing is");
        write(0x1000_0000, 1);
        println!("crash: FAIL: went on");
    }
}
