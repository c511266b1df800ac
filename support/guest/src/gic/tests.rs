use super::*;
use crate::fault::Width;
use proptest::prelude::*;

const ISENABLER: u64 = 0x100;
const ICENABLER: u64 = 0x180;
const ISPENDR: u64 = 0x200;
const ICPENDR: u64 = 0x280;
const ISACTIVER: u64 = 0x300;
const IPRIORITYR: u64 = 0x400;
const ITARGETSR: u64 = 0x800;
const ICFGR: u64 = 0xc00;
const SGIR: u64 = 0xf00;

fn on(vcpus: usize) -> Vgic {
    let mut gic = Vgic::new(vcpus);
    gic.write(0, 0, Width::Word, 1).unwrap();
    gic
}

fn enable(gic: &mut Vgic, vcpu: usize, intid: u64) {
    gic.write(vcpu, ISENABLER + 4 * (intid / 32), Width::Word, 1 << (intid % 32)).unwrap();
}

fn word(gic: &Vgic, vcpu: usize, offset: u64) -> u64 {
    gic.read(vcpu, offset, Width::Word).unwrap()
}

#[test]
fn identity() {
    let gic = on(2);
    assert_eq!(word(&gic, 0, 4), 7 | 1 << 5);
    assert_eq!(word(&gic, 0, 0xfe8) >> 4 & 0xf, 2); // ArchRev: GICv2
    assert_eq!((0..4).map(|n| word(&gic, 0, 0xff0 + 4 * n)).collect::<Vec<_>>(), [0x0d, 0xf0, 0x05, 0xb1]);
}

#[test]
fn level_is_offered_again_while_high() {
    let mut gic = on(1);
    enable(&mut gic, 0, 48);
    gic.set_line(0, 48, true);
    let first = gic.next_injection(0).unwrap();
    assert_eq!((first.index, first.intid), (0, 48));
    assert_eq!(gic.next_injection(0), None, "never twice at a time");
    assert!(!gic.is_quiet(0));
    assert_eq!(gic.ended(0, 0), Some(48));
    assert_eq!(gic.next_injection(0).unwrap().intid, 48, "still high");
    gic.set_line(0, 48, false);
    assert_eq!(gic.ended(0, 0), Some(48));
    assert_eq!(gic.next_injection(0), None);
    assert!(gic.is_quiet(0));
}

#[test]
fn edge_during_handling_is_kept() {
    let mut gic = on(1);
    enable(&mut gic, 0, 50);
    gic.write(0, ICFGR + 4 * 3, Width::Word, 2 << (2 * 2)).unwrap();
    gic.set_line(0, 50, true);
    assert!(gic.next_injection(0).is_some());
    gic.set_line(0, 50, false);
    gic.set_line(0, 50, true); // a second edge while the first is being handled
    assert_eq!(gic.next_injection(0), None);
    gic.ended(0, 0);
    assert!(gic.next_injection(0).is_some());
    gic.ended(0, 0);
    assert_eq!(gic.next_injection(0), None, "a level that stays high is no edge");
}

#[test]
fn raised_while_disabled_is_not_lost() {
    let mut gic = Vgic::new(1);
    gic.set_line(0, 48, true);
    gic.set_line(0, 27, true);
    assert_eq!(gic.next_injection(0), None);
    enable(&mut gic, 0, 48);
    assert_eq!(gic.next_injection(0), None, "the distributor is off");
    gic.write(0, 0, Width::Word, 1).unwrap();
    assert_eq!(gic.next_injection(0).unwrap().intid, 48);
    assert_eq!(gic.next_injection(0), None);
    enable(&mut gic, 0, 27);
    assert_eq!(gic.waiting(), 1);
    assert_eq!(gic.next_injection(0).unwrap().intid, 27);
}

#[test]
fn five_pending_four_registers() {
    let mut gic = on(1);
    for (intid, priority) in [(48, 0xa0), (49, 0x80), (50, 0xa0), (51, 0x10), (52, 0xf0)] {
        enable(&mut gic, 0, intid);
        gic.write(0, IPRIORITYR + intid, Width::Byte, priority).unwrap();
        gic.set_line(0, intid as u16, true);
    }
    let order: Vec<_> = core::iter::from_fn(|| gic.next_injection(0)).collect();
    assert_eq!(order.iter().map(|i| i.intid).collect::<Vec<_>>(), [51, 49, 48, 50]);
    assert_eq!(order.iter().map(|i| i.priority).collect::<Vec<_>>(), [2, 16, 20, 20]);
    assert_eq!(order.iter().map(|i| i.index).collect::<Vec<_>>(), [0, 1, 2, 3]);
    gic.set_line(0, 49, false);
    assert_eq!(gic.ended(0, 1), Some(49));
    let last = gic.next_injection(0).unwrap();
    assert_eq!((last.index, last.intid), (1, 52));
}

#[test]
fn sgi_once_per_sender() {
    let mut gic = on(3);
    gic.write(0, SGIR, Width::Word, 0b100 << 16 | 5).unwrap();
    gic.write(1, SGIR, Width::Word, 1 << 24 | 5).unwrap(); // all but the sender
    gic.write(2, SGIR, Width::Word, 2 << 24 | 5).unwrap(); // itself
    gic.write(2, SGIR, Width::Word, 2 << 24 | 5).unwrap();
    assert_eq!(gic.waiting(), 0b101);
    assert_eq!(word(&gic, 2, 0xf14) >> 8 & 0xff, 0b111);
    for _ in 0..3 {
        assert_eq!(gic.next_injection(2).unwrap().intid, 5);
        assert_eq!(gic.next_injection(2), None);
        gic.ended(2, 0);
    }
    assert!(gic.is_quiet(2));
    gic.write(0, 0xf14, Width::Byte, 0xff).unwrap();
    assert!(!gic.is_quiet(0), "CPENDSGIR cleared SGI 4, not 5");
    gic.write(0, 0xf15, Width::Byte, 0xff).unwrap();
    assert!(gic.is_quiet(0));
    gic.write(0, 0xf23, Width::Byte, 0b10).unwrap();
    assert_eq!(gic.next_injection(0).unwrap().intid, 3);
}

#[test]
fn sgis_cannot_be_disabled_nor_pended_by_ispendr() {
    let mut gic = on(1);
    gic.write(0, ICENABLER, Width::Word, 0xffff_ffff).unwrap();
    assert_eq!(word(&gic, 0, ISENABLER), 0xffff);
    gic.write(0, ISPENDR, Width::Word, 0xffff_ffff).unwrap();
    assert_eq!(word(&gic, 0, ISPENDR), 0xffff_0000);
    gic.write(0, ICPENDR, Width::Word, 0xffff_ffff).unwrap();
    assert_eq!(word(&gic, 0, ISPENDR), 0);
}

#[test]
fn targets_choose_the_vcpu() {
    let mut gic = on(2);
    enable(&mut gic, 0, 60);
    gic.set_line(0, 60, true);
    gic.write(0, ITARGETSR + 60, Width::Byte, 0xfe).unwrap();
    assert_eq!(gic.read(0, ITARGETSR + 60, Width::Byte).unwrap(), 2);
    assert_eq!(word(&gic, 1, ITARGETSR), 0x0202_0202);
    assert_eq!(gic.waiting(), 0b10);
    gic.write(0, ITARGETSR + 60, Width::Byte, 0).unwrap();
    assert_eq!(gic.waiting(), 0);
    // With one vCPU there is no choice, and nothing is lost by writing 0.
    let mut gic = on(1);
    gic.write(0, ITARGETSR + 60, Width::Byte, 0).unwrap();
    enable(&mut gic, 0, 60);
    gic.set_line(0, 60, true);
    assert_eq!(gic.waiting(), 1);
}

#[test]
fn widths() {
    let mut gic = on(1);
    gic.write(0, IPRIORITYR + 40, Width::Word, 0xff18_a0f7).unwrap();
    assert_eq!(word(&gic, 0, IPRIORITYR + 40), 0xf818_a0f0);
    assert_eq!(gic.read(0, IPRIORITYR + 42, Width::Byte).unwrap(), 0x18);
    assert_eq!(gic.read(0, IPRIORITYR + 42, Width::Half).unwrap(), 0xf818);
    assert_eq!(gic.read(0, IPRIORITYR + 40, Width::Double).unwrap(), 0xf818_a0f0);
    gic.write(0, IPRIORITYR + 41, Width::Byte, 0x40).unwrap();
    assert_eq!(word(&gic, 0, IPRIORITYR + 40), 0xf818_40f0);
    assert_eq!(gic.read(0, IPRIORITYR + 41, Width::Half), Err(Refused));
    assert_eq!(gic.read(0, 0x1000, Width::Word), Err(Refused));
    assert_eq!(gic.write(0, 0xfffc, Width::Word, 1), Err(Refused));
}

#[test]
fn configuration_of_private_interrupts_is_fixed() {
    let mut gic = on(1);
    gic.write(0, ICFGR, Width::Word, 0).unwrap();
    gic.write(0, ICFGR + 4, Width::Word, !0).unwrap();
    assert_eq!((word(&gic, 0, ICFGR), word(&gic, 0, ICFGR + 4)), (0xaaaa_aaaa, 0));
    gic.write(0, ICFGR + 8, Width::Half, 0xffff).unwrap();
    assert_eq!(word(&gic, 0, ICFGR + 8), 0x0000_aaaa);
    gic.write(0, ICFGR + 8, Width::Byte, 0).unwrap();
    assert_eq!(word(&gic, 0, ICFGR + 8), 0x0000_aa00);
}

#[test]
fn reset_keeps_what_the_hardware_holds() {
    let mut gic = on(1);
    enable(&mut gic, 0, 48);
    gic.set_line(0, 48, true);
    gic.next_injection(0).unwrap();
    gic.reset();
    assert_eq!(word(&gic, 0, ISENABLER + 4), 0);
    assert!(gic.is_busy(0, 48));
    assert_eq!(gic.ended(0, 0), Some(48));
}

#[derive(Clone, Debug)]
enum Step {
    Write(usize, u64, Width, u64),
    Line(usize, u16, bool),
    Inject(usize),
    End(usize, usize),
    Off(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let width = prop_oneof![Just(Width::Byte), Just(Width::Half), Just(Width::Word), Just(Width::Double)];
    prop_oneof![
        (0..5usize, 0..0x1100u64, width, any::<u64>()).prop_map(|(c, o, w, v)| Step::Write(c, o, w, v)),
        (0..5usize, 0..300u16, any::<bool>()).prop_map(|(c, i, h)| Step::Line(c, i, h)),
        (0..5usize).prop_map(Step::Inject),
        (0..5usize, 0..5usize).prop_map(|(c, i)| Step::End(c, i)),
        (0..5usize).prop_map(Step::Off),
    ]
}

proptest! {
    /// Whatever a guest writes: no INTID is in two list registers, and nothing disabled is injected.
    #[test]
    fn invariants(steps in prop::collection::vec(step(), 0..400)) {
        let mut gic = on(3);
        let mut lists = [[None::<u16>; LIST_REGISTERS]; MAX_VCPUS];
        // Given back by a vCPU that went off.
        let mut given = [[false; LIST_REGISTERS]; MAX_VCPUS];
        for step in steps {
            match step {
                Step::Write(vcpu, offset, width, value) => {
                    let _ = gic.write(vcpu % 3, offset, width, value);
                    let _ = gic.read(vcpu % 3, offset, width);
                }
                Step::Line(vcpu, intid, high) => gic.set_line(vcpu, intid, high),
                Step::Inject(vcpu) => {
                    if let Some(i) = gic.next_injection(vcpu) {
                        prop_assert!(gic.is_enabled(vcpu, i.intid));
                        prop_assert!(i.priority < 32);
                        let private = i.intid < 32;
                        for (other, held) in lists.iter().enumerate().filter(|(other, _)| !private || *other == vcpu) {
                            let twice = |(index, held): (usize, &Option<u16>)| {
                                *held == Some(i.intid) && (other == vcpu || !given[other][index])
                            };
                            prop_assert!(!held.iter().enumerate().any(twice));
                        }
                        prop_assert_eq!(lists[vcpu][i.index as usize].replace(i.intid), None);
                    } else if gic.is_quiet(vcpu) {
                        prop_assert_eq!(gic.waiting() & 1 << vcpu, 0);
                    }
                }
                Step::End(vcpu, index) => {
                    let held = lists.get_mut(vcpu).and_then(|l| l.get_mut(index)).and_then(Option::take);
                    let given = given.get_mut(vcpu).and_then(|g| g.get_mut(index)).is_some_and(core::mem::take);
                    prop_assert_eq!(gic.ended(vcpu, index), held.filter(|_| !given));
                }
                Step::Off(vcpu) => {
                    gic.switched_off(vcpu);
                    for (given, held) in given.iter_mut().zip(&lists).nth(vcpu).into_iter().flat_map(|(g, l)| g.iter_mut().zip(l)) {
                        *given |= held.is_some_and(|intid| intid >= 32);
                    }
                }
            }
        }
    }

    /// Nothing is lost: after any disabling and enabling, each line that went up while its interrupt was an edge, or is
    /// still up, is delivered once everything is enabled.
    #[test]
    fn nothing_is_lost(steps in prop::collection::vec((32u64..64, any::<bool>(), any::<bool>()), 1..100), edge: bool) {
        let mut gic = on(1);
        let mut owed = std::collections::BTreeSet::new();
        if edge {
            gic.write(0, ICFGR + 8, Width::Double, !0).unwrap();
        }
        let mut high = 0u64;
        for (intid, enabled, up) in steps {
            let bit = 1u64 << intid;
            let register = if enabled { ISENABLER } else { ICENABLER };
            gic.write(0, register + 4, Width::Word, 1 << (intid - 32)).unwrap();
            gic.set_line(0, intid as u16, up);
            if edge && up && high & bit == 0 {
                owed.insert(intid as u16);
            }
            high = if up { high | bit } else { high & !bit };
            if let Some(i) = gic.next_injection(0) {
                owed.remove(&i.intid);
            }
        }
        if !edge {
            owed = (32..64).filter(|i| high & 1 << i != 0).collect();
        }
        gic.write(0, ISENABLER + 4, Width::Word, !0).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..64 {
            while let Some(i) = gic.next_injection(0) {
                seen.insert(i.intid);
            }
            for index in 0..LIST_REGISTERS {
                if let Some(intid) = gic.ended(0, index) {
                    seen.insert(intid);
                    gic.set_line(0, intid, false);
                }
            }
        }
        prop_assert!(seen.is_superset(&owed), "{owed:?} not in {seen:?}");
        prop_assert!(gic.is_quiet(0));
        prop_assert_eq!(gic.read(0, ISACTIVER + 4, Width::Word).unwrap(), 0);
    }
}

#[test]
fn a_pulse_is_taken_once_however_often_it_comes_and_never_lost() {
    // As edge or, by a guest that did not say so, as level.
    for edge in [false, true] {
        let mut gic = on(1);
        if edge {
            gic.write(0, ICFGR + 4 * 4, Width::Word, 2).unwrap();
        }
        gic.pulse(64);
        gic.pulse(64);
        assert_eq!(gic.next_injection(0), None, "masked");
        enable(&mut gic, 0, 64);
        assert_eq!(gic.next_injection(0).unwrap().intid, 64);
        gic.pulse(64); // while it is being handled
        assert_eq!(gic.next_injection(0), None);
        gic.ended(0, 0);
        assert_eq!(gic.next_injection(0).unwrap().intid, 64);
        gic.ended(0, 0);
        assert_eq!(gic.next_injection(0), None);
    }
    let mut gic = on(1);
    gic.pulse(3); // no SPI
    gic.pulse(1023);
    assert_eq!(gic.next_injection(0), None);
}

/// Two list registers of one vCPU with one INTID are UNPREDICTABLE (GICv2 5.3.9), also if the vCPU was off in between.
#[test]
fn what_a_vcpu_has_given_back_is_not_given_to_it_twice() {
    let mut gic = on(2);
    gic.write(0, ITARGETSR + 60, Width::Byte, 2).unwrap();
    enable(&mut gic, 0, 60);
    gic.set_line(0, 60, true);
    assert_eq!(gic.next_injection(1).unwrap().intid, 60);
    gic.switched_off(1);
    assert_eq!(gic.next_injection(1), None, "its list register still has it");
    assert_eq!(gic.next_injection(0), None, "not its target");
    // It is on again, takes what it has and ends it. The line is still high.
    assert_eq!(gic.ended(1, 0), None);
    assert_eq!(gic.next_injection(1).unwrap().intid, 60);
    gic.switched_off(1);
    gic.write(0, ITARGETSR + 60, Width::Byte, 1).unwrap();
    assert_eq!(gic.next_injection(0).unwrap().intid, 60, "the target of the moment");
    gic.set_line(0, 60, false);
    assert_eq!(gic.ended(0, 0), Some(60));
    assert_eq!((gic.waiting(), gic.is_busy(0, 60)), (0, false));
}
