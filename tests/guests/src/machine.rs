//! Registers, calls and interrupts of the virtual machine.

use core::arch::asm;

use partita_protocol::layout::guest;

/// 32-bit load from a device.
pub fn read(address: u64) -> u32 {
    let value;
    // SAFETY: a guest may load from any address; it is its own memory that suffers. One plain LDR, which is what can be
    // emulated.
    unsafe { asm!("ldr {:w}, [{}]", out(reg) value, in(reg) address, options(nostack)) };
    value
}

/// 32-bit store to a device.
pub fn write(address: u64, value: u32) {
    // SAFETY: as in `read`. The barrier orders stores to RAM before it.
    unsafe { asm!("dsb sy", "str {:w}, [{}]", in(reg) value, in(reg) address, options(nostack)) };
}

/// Store of 1, 2, 4 or 8 bytes to a device.
pub fn write_width(address: u64, width: u8, value: u64) {
    // SAFETY: as in `write`.
    unsafe {
        match width {
            1 => asm!("strb {:w}, [{}]", in(reg) value, in(reg) address, options(nostack)),
            2 => asm!("strh {:w}, [{}]", in(reg) value, in(reg) address, options(nostack)),
            4 => asm!("str {:w}, [{}]", in(reg) value, in(reg) address, options(nostack)),
            _ => asm!("str {}, [{}]", in(reg) value, in(reg) address, options(nostack)),
        }
    }
}

/// Secure monitor call.
pub fn smc(x: [u64; 4]) -> u64 {
    let result;
    // SAFETY: PSCI calls preserve x4 and up (SMCCC 1.1).
    unsafe {
        asm!("smc #0", inout("x0") x[0] => result, inout("x1") x[1] => _, inout("x2") x[2] => _, inout("x3") x[3] => _,
             options(nostack));
    }
    result
}

/// Hypervisor call.
pub fn hvc(x0: u64) -> u64 {
    let result;
    // SAFETY: as `smc`. x7 is no system call number of seL4.
    unsafe { asm!("hvc #0", inout("x0") x0 => result, in("x7") 0, options(nostack)) };
    result
}

/// PSCI SYSTEM_OFF.
pub fn power_off() -> ! {
    smc([0x8400_0008, 0, 0, 0]);
    loop {
        wait();
    }
}

/// WFI.
pub fn wait() {
    // SAFETY: waits, no more.
    unsafe { asm!("dsb sy", "wfi", options(nostack)) };
}

/// CNTVCT.
pub fn now() -> u64 {
    let count;
    // SAFETY: reads a counter.
    unsafe { asm!("isb", "mrs {}, cntvct_el0", out(reg) count, options(nostack)) };
    count
}

/// Counts per second.
pub fn frequency() -> u64 {
    let value;
    // SAFETY: reads a constant.
    unsafe { asm!("mrs {}, cntfrq_el0", out(reg) value, options(nostack)) };
    value
}

/// Sets the virtual timer `ticks` ahead and lets it interrupt; `None` switches it off.
pub fn set_timer(ticks: Option<u64>) {
    // SAFETY: the guest's own timer.
    unsafe {
        match ticks {
            Some(ticks) => {
                asm!("msr cntv_cval_el0, {}", "msr cntv_ctl_el0, {}", "isb", in(reg) now().wrapping_add(ticks), in(reg) 1u64)
            }
            None => asm!("msr cntv_ctl_el0, xzr", "isb"),
        }
    }
}

/// Runs instructions and says with which syndrome the first that was refused was (what follows goes on); 0 if none was.
#[macro_export]
macro_rules! refused {
    ($($instruction:literal),+) => {{
        unsafe extern "C" {
            static mut expected: [u64; 2];
        }
        let esr: u64;
        // SAFETY: the exception vector looks at `expected`, notes the syndrome there and goes on behind the instruction.
        unsafe {
            let place = &raw mut expected;
            place.write_volatile([1, 0]);
            core::arch::asm!($($instruction),+, out("x0") _, out("x1") _, out("x2") _, out("x3") _, out("x4") _);
            esr = place.read_volatile()[1];
            place.write_volatile([0, 0]);
        }
        esr
    }};
}

/// Switches the distributor and this CPU's interface on, and enables `intids`. Interrupts stay masked in PSTATE: WFI wakes
/// up for them all the same, and [`acknowledge`] takes them.
pub fn enable_interrupts(intids: &[u32]) {
    write(guest::GICD, 1);
    for intid in intids {
        write(guest::GICD + 0x100 + 4 * u64::from(intid / 32), 1 << (intid % 32));
        write_width(guest::GICD + 0x400 + u64::from(*intid), 1, 0xa0);
    }
    write(guest::GICC + 4, 0xf0);
    write(guest::GICC, 1);
}

/// Takes the pending interrupt of highest priority: 1023 if there is none.
pub fn acknowledge() -> u32 {
    read(guest::GICC + 0xc) & 0x3ff
}

/// Ends an interrupt.
pub fn end(intid: u32) {
    write(guest::GICC + 0x10, intid);
}

/// Waits for `intid` at most `seconds`, asleep, and ends it after `handle`. False if the time is over. Other interrupts are
/// ended too.
pub fn wait_for(intid: u32, seconds: u64, handle: impl FnOnce()) -> bool {
    let until = now() + seconds * frequency();
    while now() < until {
        match acknowledge() {
            1023 => {
                if intid != 27 {
                    set_timer(Some(until.saturating_sub(now())));
                }
                wait();
            }
            seen if seen == intid => {
                handle();
                end(seen);
                if intid != 27 {
                    set_timer(None);
                }
                return true;
            }
            27 => {
                set_timer(None);
                end(27);
            }
            other => end(other),
        }
    }
    false
}

/// The digit behind `key` in the device tree, where the command line is. `dtb` is what the guest was started with.
pub fn digit_after(dtb: u64, key: &[u8]) -> Option<u64> {
    // SAFETY: the boot protocol: a device tree, whose second word is its size, big-endian.
    let bytes = unsafe {
        let size = u32::from_be(((dtb + 4) as *const u32).read_volatile());
        core::slice::from_raw_parts(dtb as *const u8, size as usize)
    };
    let at = bytes.windows(key.len()).position(|window| window == key)?;
    let digit = bytes.get(at + key.len())?;
    digit.is_ascii_digit().then(|| u64::from(digit - b'0'))
}

/// Eighths of a second on the clock that all guests share.
pub fn eighths() -> u64 {
    now() / (frequency() / 8)
}

/// Load of 1, 2, 4 or 8 bytes from a device.
pub fn read_width(address: u64, width: u8) -> u64 {
    let value;
    // SAFETY: as in `read`.
    unsafe {
        match width {
            1 => asm!("ldrb {:w}, [{}]", out(reg) value, in(reg) address, options(nostack)),
            2 => asm!("ldrh {:w}, [{}]", out(reg) value, in(reg) address, options(nostack)),
            4 => asm!("ldr {:w}, [{}]", out(reg) value, in(reg) address, options(nostack)),
            _ => asm!("ldr {}, [{}]", out(reg) value, in(reg) address, options(nostack)),
        }
    }
    value
}

/// Spins for some milliseconds.
pub fn pause(milliseconds: u64) {
    let until = now() + milliseconds * frequency() / 1000;
    while now() < until {
        core::hint::spin_loop();
    }
}

/// Hypervisor call with x7, which seL4 takes for the number of a system call.
pub fn hvc_number(number: u64, x: [u64; 6]) -> u64 {
    let result;
    // SAFETY: whatever the call does, it does to this guest's registers, and all of those it may are given up.
    unsafe {
        asm!("hvc #0", inout("x0") x[0] => result, inout("x1") x[1] => _, inout("x2") x[2] => _, inout("x3") x[3] => _,
             inout("x4") x[4] => _, inout("x5") x[5] => _, inout("x6") 0u64 => _, inout("x7") number => _,
             options(nostack));
    }
    result
}
