//! A panic ends in a fault that says what happened.
//!
//! A PD in a release system has no console of its own when it panics, and its parent cannot read its memory. But the parent
//! learns of faults and can read registers. So the last act of a PD is a store to [`FAULT_ADDRESS`], an address that no
//! system maps, with the report in its registers:
//!
//! | register | what |
//! |---|---|
//! | x0 | [`PANICKED`], [`MAIN_FAILED`] or [`DAMAGED_IMAGE`] |
//! | x1, x2 | line, column |
//! | x3–x8 | end of the file name, 48 bytes, NUL-padded |
//! | x9–x18, x20–x28 | beginning of the message, 152 bytes, NUL-padded |
//!
//! `sel4_vm::PanicReport` reads it. On a kernel that prints, the default hook also prints the panic.

use core::fmt::{self, Write};
use core::panic::PanicInfo;

/// Where the last store goes. Above every mapping of Partita's and below the stack, within 40 bits.
pub const FAULT_ADDRESS: u64 = 0xff_dead_0000;

/// x0 of a panic.
pub const PANICKED: u64 = 1;
/// x0 of an event loop that ended with an error.
pub const MAIN_FAILED: u64 = 2;
/// x0 of a start that found its saved data damaged.
pub const DAMAGED_IMAGE: u64 = 3;

/// Called with every panic.
pub type PanicHook = &'static (dyn Fn(&PanicInfo<'_>) + Send + Sync);

/// Sets what is called when this PD panics, before the fault. The first call counts.
pub fn set_hook(hook: PanicHook) {
    hook::set(hook);
}

/// Runs `f`. Panics abort, so it always succeeds if it returns; it exists as it does upstream.
#[allow(clippy::result_unit_err)] // upstream's signature
pub fn catch_unwind<R, F: FnOnce() -> R + core::panic::UnwindSafe>(f: F) -> Result<R, ()> {
    Ok(f())
}

#[cfg(target_os = "none")]
mod hook {
    use core::cell::Cell;

    use super::PanicHook;

    struct Slot(Cell<Option<PanicHook>>);
    // SAFETY: a PD is one thread.
    unsafe impl Sync for Slot {}
    static SLOT: Slot = Slot(Cell::new(None));

    pub fn set(hook: PanicHook) {
        if SLOT.0.get().is_none() {
            SLOT.0.set(Some(hook));
        }
    }

    pub fn get() -> Option<PanicHook> {
        SLOT.0.get()
    }
}

#[cfg(not(target_os = "none"))]
mod hook {
    use std::sync::OnceLock;

    use super::PanicHook;

    static SLOT: OnceLock<PanicHook> = OnceLock::new();

    pub fn set(hook: PanicHook) {
        let _ = SLOT.set(hook);
    }
}

const FILE_BYTES: usize = 48;
const MESSAGE_BYTES: usize = 152;

/// x0–x28 without x19, which the compiler keeps for itself.
#[cfg_attr(not(target_os = "none"), allow(dead_code))]
struct Report {
    words: [u64; 3],
    file: [u8; FILE_BYTES],
    message: Text,
}

struct Text {
    bytes: [u8; MESSAGE_BYTES],
    length: usize,
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (to, from) in self.bytes[self.length..].iter_mut().zip(text.bytes()) {
            *to = from;
            self.length += 1;
        }
        Ok(())
    }
}

impl Report {
    fn new(code: u64, place: Option<(&str, u32, u32)>, message: fmt::Arguments<'_>) -> Self {
        let (name, line, column) = place.unwrap_or_default();
        let mut report = Self {
            words: [code, line.into(), column.into()],
            file: [0; FILE_BYTES],
            message: Text { bytes: [0; MESSAGE_BYTES], length: 0 },
        };
        let skip = name.len().saturating_sub(FILE_BYTES);
        report.file.iter_mut().zip(name.bytes().skip(skip)).for_each(|(to, from)| *to = from);
        // `Text` cuts but never fails; a `Display` that fails has written what it could.
        let _ = report.message.write_fmt(message);
        report
    }

    /// The words in the order of the registers.
    fn registers(&self) -> [u64; 28] {
        let mut registers = [0; 28];
        registers[..3].copy_from_slice(&self.words);
        let bytes = self.file.chunks_exact(8).chain(self.message.bytes.chunks_exact(8));
        for (register, chunk) in registers[3..].iter_mut().zip(bytes) {
            *register = chunk.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        }
        registers
    }
}

/// The event loop ended.
pub(crate) fn main_failed(error: &dyn fmt::Display) -> ! {
    sel4::debug_println!("{}: {error}", crate::pd_name().unwrap_or("?"));
    end(&Report::new(MAIN_FAILED, None, format_args!("{error}")))
}

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

    static PANICKING: AtomicBool = AtomicBool::new(false);
    // A hook that panics itself is not called again.
    if !PANICKING.load(Relaxed) {
        PANICKING.store(true, Relaxed);
        match hook::get() {
            Some(hook) => hook(info),
            None => sel4::debug_println!("{}: {info}", crate::pd_name().unwrap_or("?")),
        }
    }
    let place = info.location().map(|place| (place.file(), place.line(), place.column()));
    end(&Report::new(PANICKED, place, format_args!("{}", info.message())))
}

#[cfg(target_os = "none")]
fn end(report: &Report) -> ! {
    unsafe extern "C" {
        fn __sel4_microkit__end(registers: *const [u64; 28]) -> !;
    }
    // SAFETY: it reads the 28 words and never returns.
    unsafe { __sel4_microkit__end(&report.registers()) }
}

#[cfg(not(target_os = "none"))]
fn end(report: &Report) -> ! {
    panic!("the PD would fault with {:x?}", report.registers())
}

#[cfg(target_os = "none")]
core::arch::global_asm!(
    r#"
    .section .text.__sel4_microkit__end, "ax"
    .global __sel4_microkit__end
__sel4_microkit__end:
    ldr     x30, ={fault_address}
    ldp     x1, x2, [x0, #8]
    ldp     x3, x4, [x0, #24]
    ldp     x5, x6, [x0, #40]
    ldp     x7, x8, [x0, #56]
    ldp     x9, x10, [x0, #72]
    ldp     x11, x12, [x0, #88]
    ldp     x13, x14, [x0, #104]
    ldp     x15, x16, [x0, #120]
    ldp     x17, x18, [x0, #136]
    ldp     x20, x21, [x0, #152]
    ldp     x22, x23, [x0, #168]
    ldp     x24, x25, [x0, #184]
    ldp     x26, x27, [x0, #200]
    ldr     x28, [x0, #216]
    ldr     x0, [x0]
1:  str     xzr, [x30]
    b       1b
    .ltorg
    "#,
    fault_address = const FAULT_ADDRESS,
);

#[cfg(test)]
mod tests {
    use super::{PANICKED, Report};

    #[test]
    fn a_report_fits_the_registers() {
        let file = "a/very/long/path/that/does/not/fit/in/forty/eight/bytes/pds/vmm/src/main.rs";
        let report = Report::new(PANICKED, Some((file, 42, 7)), format_args!("index {} of {}", 9, 3));
        let registers = report.registers();
        assert_eq!(registers[..3], [PANICKED, 42, 7]);
        let bytes: Vec<u8> = registers[3..].iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(&bytes[..48], &file.as_bytes()[file.len() - 48..]);
        assert_eq!(&bytes[48..][..13], b"index 9 of 3\0");
    }

    #[test]
    fn a_long_message_is_cut() {
        let long = "x".repeat(1000);
        let registers = Report::new(PANICKED, None, format_args!("{long}")).registers();
        assert_eq!(registers[27], u64::from_le_bytes(*b"xxxxxxxx"));
        assert_eq!(registers[3], 0);
    }
}
