//! PL011, for the debug configuration and for last words.

use super::regs::Block;

// SAFETY: the PL011 of QEMU's virt board. In the debug configuration a driver PD may use it too; both only write
// characters, as on the real kernel.
const UART: Block = unsafe { Block::new(0x0900_0000) };
const DATA: usize = 0x00;
const FLAGS: usize = 0x18;
const TX_FULL: u32 = 1 << 5;

/// Prints a byte.
pub fn put(byte: u8) {
    // Bounded: a stuck UART must not stop the kernel.
    for _ in 0..1_000_000 {
        if UART.read(FLAGS) & TX_FULL == 0 {
            break;
        }
    }
    UART.write(DATA, u32::from(byte));
}
