//! Any accesses to the PL011 while bytes arrive: order is kept, and the interrupt line agrees with the registers.
#![no_main]

use std::collections::VecDeque;

use libfuzzer_sys::fuzz_target;
use partita_guest::pl011::Pl011;

fuzz_target!(|steps: Vec<(u16, u32, u8)>| {
    let mut uart = Pl011::new();
    let mut queue = VecDeque::new();
    let mut depth = 0;
    for (offset, value, what) in steps {
        match what % 4 {
            0 if uart.room() > 0 => {
                uart.receive(value as u8);
                queue.push_back(value as u8);
            }
            0 => uart.receive(value as u8),
            1 => assert_eq!(uart.read(0) as u8, queue.pop_front().unwrap_or(0)),
            2 => {
                uart.write(u64::from(offset), value);
                if offset & !3 == 0x2c && (value ^ depth) & 0x10 != 0 {
                    depth = value;
                    queue.clear();
                }
            }
            _ => uart.block(value & 1 != 0),
        }
        assert_eq!(uart.read(0x18) & 0x10 != 0, queue.is_empty());
        assert_eq!(uart.line(), uart.read(0x40) != 0);
    }
});
