//! Any accesses to the distributor, mixed with interrupt lines, injections and ends.
//!
//! No INTID may be in two list registers, nothing disabled may be injected, and when everything is enabled in the end and
//! the guest ends what it gets, every line that is up must be delivered.
#![no_main]

use libfuzzer_sys::{
    arbitrary::{self, Arbitrary},
    fuzz_target,
};
use partita_guest::{fault::Width, gic::Vgic};

#[derive(Arbitrary, Debug)]
enum Step {
    Access { vcpu: u8, offset: u16, width: u8, write: Option<u64> },
    Line { vcpu: u8, intid: u8, high: bool },
    Inject { vcpu: u8 },
    End { vcpu: u8, index: u8 },
}

fn width(n: u8) -> Width {
    [Width::Byte, Width::Half, Width::Word, Width::Double][usize::from(n % 4)]
}

fuzz_target!(|steps: Vec<Step>| {
    let mut gic = Vgic::new(2);
    let mut lists = [[None; 4]; 2];
    for step in steps {
        match step {
            Step::Access { vcpu, offset, width: n, write } => {
                let (vcpu, offset) = (usize::from(vcpu % 2), u64::from(offset % 0x1200));
                let _ = match write {
                    Some(value) => gic.write(vcpu, offset, width(n), value).map(|()| 0),
                    None => gic.read(vcpu, offset, width(n)),
                };
            }
            Step::Line { vcpu, intid, high } => gic.set_line(usize::from(vcpu % 2), intid.into(), high),
            Step::Inject { vcpu } => {
                let vcpu = usize::from(vcpu % 2);
                if let Some(injection) = gic.next_injection(vcpu) {
                    assert!(gic.is_enabled(vcpu, injection.intid) && injection.priority < 32);
                    let other = injection.intid >= 32 && lists[1 - vcpu].contains(&Some(injection.intid));
                    assert!(!other && !lists[vcpu].contains(&Some(injection.intid)));
                    assert!(lists[vcpu][usize::from(injection.index)].replace(injection.intid).is_none());
                }
            }
            Step::End { vcpu, index } => {
                let (vcpu, index) = (usize::from(vcpu % 2), usize::from(index % 5));
                let held = lists[vcpu].get_mut(index).and_then(Option::take);
                assert_eq!(gic.ended(vcpu, index), held);
            }
        }
    }
    // Everything on, every SPI to vCPU 0: a line that is up arrives.
    gic.write(0, 0, Width::Word, 1).expect("aligned");
    for word in 0..8 {
        gic.write(0, 0x100 + 4 * word, Width::Word, !0).expect("aligned");
    }
    for spi in 32..256 {
        gic.write(0, 0x800 + spi, Width::Byte, 1).expect("aligned");
    }
    gic.set_line(0, 100, false);
    gic.set_line(0, 100, true);
    let mut seen = false;
    for _ in 0..2048 {
        if seen && gic.is_quiet(0) {
            break;
        }
        while let Some(injection) = gic.next_injection(0) {
            seen |= injection.intid == 100;
        }
        for vcpu in 0..2 {
            for index in 0..4 {
                if let Some(intid) = gic.ended(vcpu, index) {
                    seen |= intid == 100;
                    gic.set_line(0, intid, false);
                }
            }
        }
    }
    assert!(seen && gic.is_quiet(0));
});
