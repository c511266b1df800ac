//! Every register of every device, in every state of it: loads and stores of every width at every offset in it.

use core::fmt;

use super::device::{DEVICES, STATES};
use super::{Cases, Expect, Subject, VALUES};
use crate::machine::{read, read_width, write_width};

/// The catalogue's entry.
pub const SUBJECT: Subject =
    Subject { name: "registers", expect: Expect::Lives, cases: Cases::Product { count, name, run } };

/// All that the specification names (4.2.2), and some of what it does not.
const REGISTERS: [(u64, &str); 31] = [
    (0x000, "MagicValue"),
    (0x004, "Version"),
    (0x008, "DeviceID"),
    (0x00c, "VendorID"),
    (0x010, "DeviceFeatures"),
    (0x014, "DeviceFeaturesSel"),
    (0x018, "0x018"),
    (0x020, "DriverFeatures"),
    (0x024, "DriverFeaturesSel"),
    (0x028, "GuestPageSize (legacy)"),
    (0x030, "QueueSel"),
    (0x034, "QueueNumMax"),
    (0x038, "QueueNum"),
    (0x03c, "QueueAlign (legacy)"),
    (0x040, "QueuePFN (legacy)"),
    (0x044, "QueueReady"),
    (0x050, "QueueNotify"),
    (0x060, "InterruptStatus"),
    (0x064, "InterruptACK"),
    (0x070, "Status"),
    (0x080, "QueueDescLow"),
    (0x084, "QueueDescHigh"),
    (0x090, "QueueDriverLow"),
    (0x0a0, "QueueDeviceLow"),
    (0x0ac, "SHMSel"),
    (0x0b0, "SHMLenLow"),
    (0x0c0, "QueueReset"),
    (0x0fc, "ConfigGeneration"),
    (0x100, "Config"),
    (0x13c, "Config + 0x3c"),
    (0xff8, "0xff8"),
];

fn count() -> usize {
    DEVICES.len() * STATES.len() * REGISTERS.len()
}

fn split(index: usize) -> (usize, usize, usize) {
    let (rest, register) = (index / REGISTERS.len(), index % REGISTERS.len());
    (rest / STATES.len() % DEVICES.len(), rest % STATES.len(), register)
}

fn name(index: usize, f: &mut dyn fmt::Write) -> fmt::Result {
    let (device, state, register) = split(index);
    write!(f, "{} of {}, {}", REGISTERS[register].1, DEVICES[device].name, STATES[state].1)
}

fn run(index: usize) -> bool {
    let (device, state, register) = split(index);
    let (device, (state, _), (register, _)) = (&DEVICES[device], STATES[state], REGISTERS[register]);
    let mut ok = device.enter(state);
    for width in [1, 2, 4, 8] {
        for offset in (register..register + 4).step_by(usize::from(width).min(4)) {
            if !offset.is_multiple_of(width.into()) {
                continue;
            }
            for value in VALUES {
                let _ = read_width(device.base + offset, width);
                write_width(device.base + offset, width, value);
            }
            ok &= device.is_itself();
        }
    }
    // A store across two registers is refused by the guest's own core, which wants such addresses aligned.
    let _ = read(device.base + (register & !7));
    ok && device.is_itself()
}
