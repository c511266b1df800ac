//! Output over the emulated PL011.

use core::fmt;

use partita_protocol::layout::guest;

use crate::machine::{read, write};

/// Writes to the PL011, as an early console does.
pub struct Uart;

impl fmt::Write for Uart {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            while read(guest::UART + 0x18) & (1 << 5) != 0 {}
            write(guest::UART, byte.into());
        }
        Ok(())
    }
}

/// Prints a line.
#[macro_export]
macro_rules! println {
    ($($arguments:tt)*) => {{
        use core::fmt::Write;
        let _ = $crate::uart::Uart.write_fmt(format_args!($($arguments)*));
        let _ = $crate::uart::Uart.write_str("\r\n");
    }};
}
