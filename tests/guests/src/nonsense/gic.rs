//! The interrupt controller: every register of the emulated distributor, and tricks with the virtual CPU interface, which
//! is hardware.

use core::fmt;

use partita_protocol::layout::guest;

use super::{Cases, Expect, Subject, VALUES};
use crate::blk;
use crate::machine::{self, acknowledge, end, read, read_width, set_timer, wait, write, write_width};

/// Every block of distributor registers.
pub const DISTRIBUTOR: Subject =
    Subject { name: "distributor", expect: Expect::Lives, cases: Cases::Product { count, name, run } };

const BLOCKS: [(u64, &str); 22] = [
    (0x000, "CTLR"),
    (0x004, "TYPER"),
    (0x008, "IIDR"),
    (0x00c, "0x00c"),
    (0x080, "IGROUPR"),
    (0x100, "ISENABLER"),
    (0x180, "ICENABLER"),
    (0x200, "ISPENDR"),
    (0x280, "ICPENDR"),
    (0x300, "ISACTIVER"),
    (0x380, "ICACTIVER"),
    (0x400, "IPRIORITYR"),
    (0x7f8, "the last of IPRIORITYR"),
    (0x800, "ITARGETSR"),
    (0xbf8, "the last of ITARGETSR"),
    (0xc00, "ICFGR"),
    (0xd00, "NSACR"),
    (0xf00, "SGIR"),
    (0xf10, "CPENDSGIR"),
    (0xf20, "SPENDSGIR"),
    (0xfd0, "identification"),
    (0x1000, "beyond the first page"),
];

fn count() -> usize {
    BLOCKS.len()
}

fn name(index: usize, f: &mut dyn fmt::Write) -> fmt::Result {
    f.write_str(BLOCKS[index].1)
}

fn run(index: usize) -> bool {
    let typer = read(guest::GICD + 4);
    let block = guest::GICD + BLOCKS[index].0;
    for word in 0..9 {
        for width in [1u8, 2, 4, 8] {
            for offset in (0..4).step_by(usize::from(width).min(4)) {
                let at = block + 4 * word + offset as u64;
                if !at.is_multiple_of(width.into()) {
                    continue;
                }
                for value in VALUES {
                    write_width(at, width, value);
                    let _ = read_width(at, width);
                }
                drain();
            }
        }
    }
    read(guest::GICD + 4) == typer
}

/// Ends whatever is pending now.
fn drain() {
    for _ in 0..64 {
        match acknowledge() {
            intid @ 0..=1019 => end(intid),
            _ => break,
        }
    }
}

/// As at the start of the guest, whatever was done to it.
pub fn mend() {
    write(guest::GICC, 1);
    write(guest::GICC + 4, 0xf0);
    write(guest::GICD, 1);
    for device in &super::device::DEVICES {
        // A device that still interrupts would do so for ever.
        device.reset();
    }
    for word in 0..8 {
        write(guest::GICD + 0x180 + 4 * word, u32::MAX);
        write(guest::GICD + 0x280 + 4 * word, u32::MAX);
        if word > 0 {
            write(guest::GICD + 0xc00 + 8 * word, 0);
            write(guest::GICD + 0xc04 + 8 * word, 0);
        }
    }
    drain();
    // What was acknowledged and never ended.
    for intid in 0..64 {
        write(guest::GICC + 0x10, intid);
    }
    drain();
    machine::enable_interrupts(&[27, blk::INTID]);
}

/// Tricks.
pub const TRICKS: Subject = Subject {
    name: "interrupts",
    expect: Expect::Lives,
    cases: Cases::Named(&[
        ("ends of interrupts that were never acknowledged", || {
            for intid in 0..1024 {
                end(intid);
            }
            true
        }),
        ("acknowledged and never ended", || {
            for _ in 0..20 {
                set_timer(Some(0));
                wait();
                let _ = acknowledge();
            }
            true
        }),
        ("ended twice", || {
            for _ in 0..20 {
                set_timer(Some(0));
                wait();
                let intid = acknowledge();
                end(intid);
                end(intid);
            }
            true
        }),
        ("priority mask 0", || {
            write(guest::GICC + 4, 0);
            set_timer(Some(0));
            machine::pause(5);
            true
        }),
        ("CPU interface off with interrupts pending", || {
            set_timer(Some(0));
            write(guest::GICC, 0);
            machine::pause(5);
            true
        }),
        ("EOImode without deactivation", || {
            write(guest::GICC, 0x201);
            for _ in 0..10 {
                set_timer(Some(0));
                wait();
                end(acknowledge());
            }
            write(guest::GICC, 1);
            true
        }),
        ("rubbish in the CPU interface", || {
            for offset in (0..0x100).step_by(4) {
                for value in VALUES {
                    write(guest::GICC + offset, value as u32);
                    let _ = read(guest::GICC + offset);
                }
            }
            write(guest::GICC + 0x1000, u32::MAX);
            // The ways to lower active priorities behind the back of everybody.
            for offset in [0xd0, 0xd4, 0xd8, 0xdc, 0xe0, 0xe4, 0xe8, 0xec] {
                write(guest::GICC + offset, 0);
            }
            true
        }),
        ("all software interrupts to all", || {
            for intid in 0..16 {
                for filter in 0..4 {
                    write(guest::GICD + 0xf00, filter << 24 | 0xff << 16 | intid);
                }
            }
            drain();
            true
        }),
        ("2000 software interrupts to itself", || {
            for n in 0..2000 {
                write(guest::GICD + 0xf00, (2 << 24) | (n % 16));
            }
            drain();
            true
        }),
        ("all interrupts pending, enabled and of one priority", || {
            for word in 0..8 {
                write(guest::GICD + 0x100 + 4 * word, u32::MAX);
                write(guest::GICD + 0x200 + 4 * word, u32::MAX);
            }
            for _ in 0..20 {
                drain();
            }
            true
        }),
        ("distributor off and on 1000 times with interrupts pending", || {
            set_timer(Some(0));
            for n in 0..2000 {
                write(guest::GICD, n % 2);
            }
            true
        }),
        ("interrupts enabled and disabled while they wait in a list register", || {
            for _ in 0..200 {
                set_timer(Some(0));
                write(guest::GICD + 0x180, 1 << 27);
                write(guest::GICD + 0x280, 1 << 27);
                write(guest::GICD + 0x100, 1 << 27);
            }
            true
        }),
    ]),
};
