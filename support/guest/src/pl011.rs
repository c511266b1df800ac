//! An emulated PL011 UART (Arm DDI 0183), enough for Linux' earlycon and ttyAMA0 and for bare-metal guests.
//!
//! What the guest sends leaves at once, so its transmit FIFO is empty unless the ring behind it is full; then FR.TXFF
//! makes the guest wait, and the transmit interrupt tells it when to go on. There are no line errors, no modem lines and no
//! DMA; baud rate and line control are stored and have no effect but FEN (FIFO depth).

const DR: u64 = 0x00;
const RSR: u64 = 0x04;
const FR: u64 = 0x18;
const ILPR: u64 = 0x20;
const IBRD: u64 = 0x24;
const FBRD: u64 = 0x28;
const LCR_H: u64 = 0x2c;
const CR: u64 = 0x30;
const IFLS: u64 = 0x34;
const IMSC: u64 = 0x38;
const RIS: u64 = 0x3c;
const MIS: u64 = 0x40;
const ICR: u64 = 0x44;
const DMACR: u64 = 0x48;
const IDENTIFICATION: u64 = 0xfe0;

const FR_RXFE: u32 = 1 << 4;
const FR_TXFF: u32 = 1 << 5;
const FR_RXFF: u32 = 1 << 6;
const FR_TXFE: u32 = 1 << 7;
const LCR_FEN: u32 = 1 << 4;
const CR_UARTEN: u32 = 1 << 0;
const CR_TXE: u32 = 1 << 8;
const CR_RXE: u32 = 1 << 9;
const INT_RX: u32 = 1 << 4;
const INT_TX: u32 = 1 << 5;
const INT_RT: u32 = 1 << 6;
const INT_ALL: u32 = 0x7ff;

/// UARTPeriphID0–3 (revision r1p5: 32-byte FIFOs) and UARTPCellID0–3.
const IDENTITY: [u8; 8] = [0x11, 0x10, 0x34, 0x00, 0x0d, 0xf0, 0x05, 0xb1];

/// Receive FIFO bytes.
pub const FIFO: usize = 32;

/// The device.
#[derive(Clone, Copy)]
pub struct Pl011 {
    fifo: [u8; FIFO],
    head: usize,
    len: usize,
    /// The ring behind the transmitter has no room.
    blocked: bool,
    ris: u32,
    imsc: u32,
    cr: u32,
    lcr: u32,
    ifls: u32,
    ibrd: u32,
    fbrd: u32,
    ilpr: u32,
    dmacr: u32,
}

/// What a write asks of the VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing but perhaps the interrupt line.
    None,
    /// Send this byte. If it does not fit, tell the device so with [`Pl011::block`].
    Send(u8),
}

impl Pl011 {
    /// After reset.
    pub const fn new() -> Self {
        Self {
            fifo: [0; FIFO],
            head: 0,
            len: 0,
            blocked: false,
            ris: 0,
            imsc: 0,
            cr: CR_TXE | CR_RXE,
            lcr: 0,
            ifls: 0x12,
            ibrd: 0,
            fbrd: 0,
            ilpr: 0,
            dmacr: 0,
        }
    }

    /// Level of the combined interrupt (UARTINTR).
    pub const fn line(&self) -> bool {
        self.ris & self.imsc != 0
    }

    /// Reads a register. A read of DR takes a byte out of the FIFO.
    pub fn read(&mut self, offset: u64) -> u32 {
        match offset & !3 {
            DR => self.take().into(),
            FR => self.flags(),
            ILPR => self.ilpr,
            IBRD => self.ibrd,
            FBRD => self.fbrd,
            LCR_H => self.lcr,
            CR => self.cr,
            IFLS => self.ifls,
            IMSC => self.imsc,
            RIS => self.ris,
            MIS => self.ris & self.imsc,
            DMACR => self.dmacr,
            offset @ IDENTIFICATION..0x1000 => {
                IDENTITY.get(((offset - IDENTIFICATION) / 4) as usize).copied().unwrap_or(0).into()
            }
            _ => 0,
        }
    }

    /// Writes a register.
    pub fn write(&mut self, offset: u64, value: u32) -> Effect {
        match offset & !3 {
            DR => {
                // Guests' early consoles write without enabling the UART; so does firmware's leave it on hardware.
                self.ris &= !INT_TX;
                if self.blocked {
                    return Effect::None; // overrun: the guest did not look at TXFF
                }
                self.ris |= INT_TX;
                return Effect::Send(value as u8);
            }
            RSR => {} // no errors to clear
            ILPR => self.ilpr = value & 0xff,
            IBRD => self.ibrd = value & 0xffff,
            FBRD => self.fbrd = value & 0x3f,
            LCR_H => {
                if (self.lcr ^ value) & LCR_FEN != 0 {
                    self.len = 0; // changing the depth flushes
                }
                self.lcr = value & 0xff;
                self.settle();
            }
            CR => self.cr = value & 0xff87,
            IFLS => {
                self.ifls = value & 0x3f;
                self.settle();
            }
            IMSC => self.imsc = value & INT_ALL,
            ICR => self.ris &= !value,
            DMACR => self.dmacr = value & 7,
            _ => {}
        }
        Effect::None
    }

    /// Says whether the ring behind the transmitter is full. Becoming free raises the transmit interrupt.
    pub fn block(&mut self, full: bool) {
        if self.blocked && !full {
            self.ris |= INT_TX;
        }
        if full {
            self.ris &= !INT_TX;
        }
        self.blocked = full;
    }

    /// Bytes that [`Pl011::receive`] takes now: none while the guest has not enabled the receiver.
    pub fn room(&self) -> usize {
        if self.cr & (CR_UARTEN | CR_RXE) == CR_UARTEN | CR_RXE {
            self.depth().saturating_sub(self.len)
        } else {
            0
        }
    }

    /// A byte arrives. Beyond [`Pl011::room`] it is lost.
    pub fn receive(&mut self, byte: u8) {
        if self.room() == 0 {
            return;
        }
        if let Some(slot) = self.fifo.get_mut((self.head + self.len) % FIFO) {
            *slot = byte;
            self.len += 1;
        }
        // The receive timeout of real hardware (32 bit times without a new byte) has always passed already.
        self.ris |= INT_RT;
        if self.len >= self.trigger() {
            self.ris |= INT_RX;
        }
    }

    fn take(&mut self) -> u8 {
        if self.len == 0 {
            return 0;
        }
        let byte = self.fifo.get(self.head).copied().unwrap_or(0);
        self.head = (self.head + 1) % FIFO;
        self.len -= 1;
        self.settle();
        byte
    }

    /// Takes back the receive interrupts whose condition is over.
    fn settle(&mut self) {
        if self.len < self.trigger() {
            self.ris &= !INT_RX;
        }
        if self.len == 0 {
            self.ris &= !INT_RT;
        }
    }

    fn flags(&self) -> u32 {
        let when = |condition: bool, bit: u32| if condition { bit } else { 0 };
        when(self.len == 0, FR_RXFE)
            | when(self.len >= self.depth(), FR_RXFF)
            | if self.blocked { FR_TXFF } else { FR_TXFE }
    }

    const fn depth(&self) -> usize {
        if self.lcr & LCR_FEN != 0 { FIFO } else { 1 }
    }

    const fn trigger(&self) -> usize {
        if self.lcr & LCR_FEN == 0 {
            return 1;
        }
        match (self.ifls >> 3) & 7 {
            0 => FIFO / 8,
            1 => FIFO / 4,
            2 => FIFO / 2,
            3 => FIFO * 3 / 4,
            _ => FIFO * 7 / 8,
        }
    }
}

impl Default for Pl011 {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ready() -> Pl011 {
        let mut uart = Pl011::new();
        uart.write(LCR_H, 0x70);
        uart.write(CR, 0x301);
        uart
    }

    #[test]
    fn identity_of_a_primecell() {
        let mut uart = Pl011::new();
        let id: Vec<_> = (0..8).map(|n| uart.read(0xfe0 + 4 * n)).collect();
        assert_eq!(id, [0x11, 0x10, 0x34, 0x00, 0x0d, 0xf0, 0x05, 0xb1]);
    }

    #[test]
    fn early_console() {
        let mut uart = Pl011::new();
        assert_eq!(uart.read(FR) & (FR_TXFF | FR_TXFE), FR_TXFE);
        assert_eq!(uart.write(DR, b'x'.into()), Effect::Send(b'x'));
        assert!(!uart.line());
    }

    #[test]
    fn full_ring_holds_the_guest_back() {
        let mut uart = ready();
        uart.write(IMSC, INT_TX);
        uart.write(DR, 1);
        assert!(uart.line());
        uart.block(true);
        assert!(!uart.line());
        assert_eq!(uart.read(FR) & FR_TXFF, FR_TXFF);
        assert_eq!(uart.write(DR, 2), Effect::None);
        uart.block(false);
        assert!(uart.line());
        uart.write(ICR, INT_TX);
        assert!(!uart.line());
    }

    #[test]
    fn receive_interrupts_follow_the_fifo() {
        let mut uart = ready();
        uart.write(IMSC, INT_RX | INT_RT);
        assert!(!uart.line());
        uart.receive(b'a');
        assert_eq!(uart.read(MIS), INT_RT);
        for _ in 1..16 {
            uart.receive(b'b');
        }
        assert_eq!(uart.read(MIS), INT_RT | INT_RX);
        assert_eq!(uart.read(DR), b'a'.into());
        assert_eq!(uart.read(MIS), INT_RT);
        while uart.read(FR) & FR_RXFE == 0 {
            assert_eq!(uart.read(DR), b'b'.into());
        }
        assert!(!uart.line());
        assert_eq!(uart.read(DR), 0);
    }

    #[test]
    fn receiver_off_takes_nothing() {
        let mut uart = Pl011::new();
        assert_eq!(uart.room(), 0);
        uart.receive(1);
        assert_eq!(uart.read(FR) & FR_RXFE, FR_RXFE);
        uart.write(CR, 0x301);
        assert_eq!(uart.room(), 1); // FIFOs are off after reset
    }

    proptest! {
        #[test]
        fn fifo_keeps_order_and_bounds(steps in prop::collection::vec((0u64..0x1100, any::<u32>(), 0u8..4), 0..400)) {
            let mut uart = ready();
            let mut model = std::collections::VecDeque::new();
            for (offset, value, what) in steps {
                match what {
                    0 => {
                        let room = uart.room();
                        uart.receive(value as u8);
                        if room > 0 {
                            model.push_back(value as u8);
                        }
                    }
                    1 => prop_assert_eq!(uart.read(DR), model.pop_front().unwrap_or(0).into()),
                    2 => {
                        if offset & !3 == LCR_H && (uart.lcr ^ value) & LCR_FEN != 0 {
                            model.clear();
                        }
                        uart.write(offset, value);
                    }
                    _ => {
                        if offset & !3 != DR {
                            uart.read(offset);
                        }
                    }
                }
                prop_assert_eq!(model.len(), uart.len);
                prop_assert_eq!(uart.read(FR) & FR_RXFE != 0, model.is_empty());
                if model.is_empty() {
                    prop_assert_eq!(uart.read(RIS) & (INT_RX | INT_RT), 0);
                }
            }
        }
    }
}
