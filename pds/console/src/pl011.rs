//! Driver of the Arm PrimeCell UART PL011 (Arm DDI 0183, chapter 3).
//!
//! Two properties decide how it is written. The transmit interrupt is raised when the FIFO *falls through* its trigger level
//! (3.3.9), so it comes only after the FIFO was filled: [`Uart::write`] fills it and the multiplexer never stops earlier
//! without being out of bytes. The receive interrupts are level-like and go away by reading; writing them to ICR could lose
//! the wake-up for bytes that are still there, so that is done only when there is none and before the next look: an interrupt
//! of an empty FIFO (a byte typed before the FIFO was switched on leaves one) would come for ever.

use crate::uart::Uart;
use core::ptr::NonNull;
use safe_mmio::fields::{ReadOnly, ReadPure, ReadPureWrite, ReadWrite, WriteOnly};
use safe_mmio::{UniqueMmioPointer, field, field_shared};

/// The registers that are used (table 3-1).
#[repr(C)]
pub struct Registers {
    /// UARTDR: data; reading takes a byte out of the receive FIFO, with its error bits.
    dr: ReadWrite<u32>,
    /// UARTRSR/UARTECR.
    rsr: ReadPureWrite<u32>,
    _reserved0: [u32; 4],
    /// UARTFR: flags.
    fr: ReadPure<u32>,
    _reserved1: u32,
    /// UARTILPR.
    ilpr: ReadPureWrite<u32>,
    /// UARTIBRD, UARTFBRD: divisors, left as the firmware set them.
    ibrd: ReadPureWrite<u32>,
    fbrd: ReadPureWrite<u32>,
    /// UARTLCR_H: line control.
    lcr_h: ReadPureWrite<u32>,
    /// UARTCR: control.
    cr: ReadPureWrite<u32>,
    /// UARTIFLS: trigger levels.
    ifls: ReadPureWrite<u32>,
    /// UARTIMSC: interrupt mask, 1 is enabled.
    imsc: ReadPureWrite<u32>,
    ris: ReadPure<u32>,
    mis: ReadPure<u32>,
    /// UARTICR: interrupt clear.
    icr: WriteOnly<u32>,
    _dmacr: ReadOnly<u32>,
}

const _: () = assert!(core::mem::offset_of!(Registers, fr) == 0x18);
const _: () = assert!(core::mem::offset_of!(Registers, icr) == 0x44);

/// Error bits beside a received byte: framing, parity, break.
const DR_BAD: u32 = 0b111 << 8;
/// Overrun: bytes *after* this one were lost.
const DR_OVERRUN: u32 = 1 << 11;
const FR_BUSY: u32 = 1 << 3;
const FR_RXFE: u32 = 1 << 4;
const FR_TXFF: u32 = 1 << 5;
const FR_TXFE: u32 = 1 << 7;
const LCR_H_FEN: u32 = 1 << 4;
const LCR_H_8BIT: u32 = 0b11 << 5;
const CR_ENABLE: u32 = 1 | 1 << 8 | 1 << 9;
/// Receive at 1/8 full (the timeout interrupt covers the rest), transmit at 1/8 full.
const IFLS_EIGHTH: u32 = 0;
const INT_RX: u32 = 1 << 4;
const INT_TX: u32 = 1 << 5;
const INT_RT: u32 = 1 << 6;
const INT_ALL: u32 = 0x7ff;
/// All but the receive interrupts.
const INT_CLEARABLE: u32 = INT_ALL & !(INT_RX | INT_RT);
/// The smallest FIFO of all revisions.
const FIFO: usize = 16;

/// The device.
pub struct Pl011<'a> {
    registers: UniqueMmioPointer<'a, Registers>,
    mask: u32,
    overruns: u32,
}

impl Pl011<'static> {
    /// Takes the device over from whoever used it before (firmware, the kernel's debug prints).
    ///
    /// # Safety
    /// `base` is a PL011, mapped as device memory, and no other driver in this PD uses it.
    pub unsafe fn new(base: NonNull<Registers>) -> Self {
        // SAFETY: the caller's promise.
        Self::over(unsafe { UniqueMmioPointer::new(base) })
    }
}

impl<'a> Pl011<'a> {
    fn over(mut regs: UniqueMmioPointer<'a, Registers>) -> Self {
        field!(regs, imsc).write(0);
        // LCR_H may only change while the UART is disabled (3.3.7). What is in the transmit FIFO goes out first.
        for _ in 0..100_000 {
            if field_shared!(regs, fr).read() & FR_BUSY == 0 {
                break;
            }
        }
        field!(regs, cr).write(0);
        field!(regs, lcr_h).write(LCR_H_FEN | LCR_H_8BIT);
        field!(regs, ifls).write(IFLS_EIGHTH);
        field!(regs, cr).write(CR_ENABLE);
        let mut uart = Pl011 { registers: regs, mask: INT_RX | INT_RT, overruns: 0 };
        // What was typed before is for nobody.
        uart.acknowledge();
        for _ in 0..2 * FIFO {
            if uart.read().is_none() {
                break;
            }
        }
        uart.acknowledge();
        uart.overruns = 0;
        field!(uart.registers, imsc).write(INT_RX | INT_RT);
        uart
    }

    fn set_mask(&mut self, mask: u32) {
        if self.mask != mask {
            self.mask = mask;
            field!(self.registers, imsc).write(mask);
        }
    }

    /// To be called at the start of each interrupt, before [`Uart::read`] and [`Uart::write`].
    pub fn acknowledge(&mut self) {
        let empty = self.flags() & FR_RXFE != 0;
        field!(self.registers, icr).write(if empty { INT_ALL } else { INT_CLEARABLE });
    }

    fn flags(&self) -> u32 {
        field_shared!(self.registers, fr).read()
    }
}

impl Uart for Pl011<'_> {
    fn write(&mut self, bytes: &[u8]) -> usize {
        let (mut written, mut room) = (0, 0);
        for byte in bytes {
            if room == 0 {
                // One look at the flags for a whole FIFO where possible.
                let flags = self.flags();
                room = if flags & FR_TXFE != 0 { FIFO } else { usize::from(flags & FR_TXFF == 0) };
            }
            let Some(left) = room.checked_sub(1) else { break };
            room = left;
            field!(self.registers, dr).write(u32::from(*byte));
            written += 1;
        }
        written
    }

    fn read(&mut self) -> Option<u8> {
        // A bad byte is as good as none, but the ones behind it are wanted; as many as a FIFO holds may be bad.
        for _ in 0..=2 * FIFO {
            if self.flags() & FR_RXFE != 0 {
                return None;
            }
            let data = field!(self.registers, dr).read();
            self.overruns = self.overruns.saturating_add(u32::from(data & DR_OVERRUN != 0));
            if data & DR_BAD == 0 {
                return Some(data as u8);
            }
        }
        None
    }

    fn overruns(&mut self) -> u32 {
        core::mem::take(&mut self.overruns)
    }

    fn tx_interrupt(&mut self, on: bool) {
        self.set_mask(INT_RX | INT_RT | if on { INT_TX } else { 0 });
    }

    fn is_idle(&self) -> bool {
        self.flags() & (FR_BUSY | FR_TXFE) == FR_TXFE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Registers that are plain memory: every access of the driver can be looked at afterwards, nothing reacts.
    fn memory(flags: u32) -> [u32; 19] {
        let mut words = [0; 19];
        words[6] = flags;
        words[14] = 0xffff;
        words
    }

    fn over(words: &mut [u32; 19]) -> Pl011<'_> {
        // SAFETY: the words are as big and as aligned as the registers, and borrowed for as long.
        Pl011::over(unsafe { UniqueMmioPointer::new(NonNull::from(words).cast()) })
    }

    #[test]
    fn takes_the_device_over() {
        let mut words = memory(FR_TXFE | FR_RXFE);
        let uart = over(&mut words);
        assert!(uart.is_idle());
        assert_eq!(words[11], 0x70, "8n1 with FIFOs");
        assert_eq!(words[12], 0x301, "enabled both ways");
        assert_eq!(words[14], INT_RX | INT_RT);
    }

    #[test]
    fn receive_interrupts_are_cleared_only_if_there_is_nothing_to_receive() {
        let mut words = memory(FR_TXFE | FR_RXFE);
        over(&mut words).acknowledge();
        assert_eq!(words[17], INT_ALL);
        words[6] = FR_TXFE;
        over(&mut words).acknowledge();
        assert_eq!(words[17], INT_CLEARABLE);
    }

    #[test]
    fn writes_while_the_fifo_has_room() {
        let mut words = memory(FR_TXFF);
        assert_eq!(over(&mut words).write(b"abc"), 0);
        words[6] = 0;
        assert_eq!(over(&mut words).write(b"abc"), 3);
        assert_eq!(words[0], u32::from(b'c'));
        words[6] = FR_TXFE;
        assert_eq!(over(&mut words).write(&[b'x'; 40]), 40);
    }

    #[test]
    fn reads_good_bytes_and_gives_up_on_a_stream_of_bad_ones() {
        let mut words = memory(FR_TXFE);
        words[0] = 0x41;
        assert_eq!(over(&mut words).read(), Some(0x41));
        words[0] = 0x841;
        let mut uart = over(&mut words);
        assert_eq!((uart.read(), uart.overruns(), uart.overruns()), (Some(0x41), 1, 0));
        words[0] = 0x441;
        assert_eq!(over(&mut words).read(), None);
        words[6] = FR_RXFE;
        words[0] = 0x42;
        assert_eq!(over(&mut words).read(), None);
    }

    #[test]
    fn the_transmit_interrupt_is_a_mask_bit() {
        let mut words = memory(FR_TXFE);
        let mut uart = over(&mut words);
        uart.tx_interrupt(true);
        assert_eq!(words[14], INT_RX | INT_RT | INT_TX);
        let mut uart = over(&mut words);
        uart.tx_interrupt(true);
        uart.tx_interrupt(false);
        assert_eq!(words[14], INT_RX | INT_RT);
    }
}
