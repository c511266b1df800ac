//! Text through the kernel's debug console, where the kernel has one.

use core::fmt::{self, Write};

use crate::sys::{self, syscall};
use crate::{Word, arch};

/// Prints a character; does nothing on a kernel that does not print.
pub fn debug_put_char(c: u8) {
    if sys::PRINTING {
        arch::debug(syscall::DEBUG_PUT_CHAR, Word::from(c));
    }
}

/// Writes to the debug console.
pub struct DebugWrite;

impl Write for DebugWrite {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(debug_put_char);
        Ok(())
    }
}

#[doc(hidden)]
pub fn debug_print_helper(args: fmt::Arguments<'_>) {
    // `DebugWrite` never fails, so an error could only be that of a `Display` of the caller: nothing to do about it.
    let _ = DebugWrite.write_fmt(args);
}

/// Prints to the debug console. Costs nothing on a kernel that does not print.
#[macro_export]
macro_rules! debug_print {
    ($($arg:tt)*) => {
        if $crate::sel4_cfg_bool!(PRINTING) {
            $crate::_private::debug_print_helper(format_args!($($arg)*))
        }
    };
}

/// Prints a line to the debug console. Costs nothing on a kernel that does not print.
#[macro_export]
macro_rules! debug_println {
    () => { $crate::debug_print!("\n") };
    ($($arg:tt)*) => { $crate::debug_print!("{}\n", format_args!($($arg)*)) };
}
