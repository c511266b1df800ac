//! Virtual processors without running them (sheet sections 4 and 5).

use sel4::sys::invocation_label as inv;

use crate::director::{Case, Director, Line, ONE, VCPU, VCPU2, Words, tcb, vcpu};
use crate::raw::label;
use crate::say;

pub const CASES: &[(&str, Case)] = &[
    ("registers of a fresh VCPU", fresh),
    ("thread registers of a fresh vCPU", fresh_thread),
    ("VCPU registers keep what is written", kept),
    ("VCPU registers of two vCPUs are apart", apart),
    ("register numbers that do not exist", bad_field),
    ("injection arguments", inject_bounds),
    ("injection overwrites what is pending", inject_again),
    ("AckVPPI arguments", ack_bounds),
    ("processor state of a vCPU is its own", vcpu_spsr),
    ("SetTCB", set_tcb),
];

pub fn read(t: &Director, child: u64, field: u64) -> u64 {
    t.invoke(vcpu(child), inv::ARMVCPUReadReg, &[], &[field]).mr[0]
}

pub fn write(t: &Director, child: u64, field: u64, value: u64) {
    t.invoke(vcpu(child), inv::ARMVCPUWriteReg, &[], &[field, value]);
}

fn fresh(t: &mut Director, out: &mut Line) -> Option<()> {
    for field in 0..24 {
        let value = read(t, VCPU2, field);
        if value != 0 {
            say!(out, "{field}:{value:x} ");
        }
    }
    say!(out, "{:#x}", t.invoke(vcpu(VCPU2), inv::ARMVCPUReadReg, &[], &[0]).info);
    Some(())
}

fn fresh_thread(t: &mut Director, out: &mut Line) -> Option<()> {
    let answer = t.read_registers(VCPU2, 36);
    let set = (0..36).filter(|i| answer.mr[*i] != 0).fold(0u64, |set, i| set | 1 << i);
    say!(out, "{:#x} {set:#x} {}", answer.info, Words(&answer.mr[..3]));
    Some(())
}

fn kept(t: &mut Director, out: &mut Line) -> Option<()> {
    for field in 0..24 {
        let before = read(t, VCPU2, field);
        write(t, VCPU2, field, 0xffff_ffff_ffff_ffff);
        let ones = read(t, VCPU2, field);
        write(t, VCPU2, field, before);
        if ones != u64::MAX || read(t, VCPU2, field) != before {
            say!(out, "{field}:{ones:x} ");
        }
    }
    say!(out, "the others all ones");
    Some(())
}

fn apart(t: &mut Director, out: &mut Line) -> Option<()> {
    write(t, VCPU, 15, 0x15);
    write(t, VCPU2, 15, 0x25);
    say!(out, "{:x} {:x}", read(t, VCPU, 15), read(t, VCPU2, 15));
    Some(())
}

fn bad_field(t: &mut Director, out: &mut Line) -> Option<()> {
    for field in [24, 25, 1 << 32, u64::MAX] {
        let answer = t.invoke(vcpu(VCPU), inv::ARMVCPUReadReg, &[], &[field]);
        say!(out, "{answer} {} ", t.invoke(vcpu(VCPU), inv::ARMVCPUWriteReg, &[], &[field, 0]));
    }
    Some(())
}

fn word(virq: u64, priority: u64, group: u64, index: u64) -> u64 {
    virq | priority << 16 | group << 24 | index << 32
}

fn inject_bounds(t: &mut Director, out: &mut Line) -> Option<()> {
    let words = [
        word(1024, 0, 0, 0),
        word(0xffff, 0, 0, 0),
        word(40, 32, 0, 0),
        word(40, 0, 2, 0),
        word(40, 0, 0, 4),
        word(40, 0, 0, 255),
        word(40, 31, 1, 3) | 0xff << 40,
    ];
    for word in words {
        say!(out, "{} ", t.invoke(vcpu(VCPU2), inv::ARMVCPUInjectIRQ, &[], &[word]));
    }
    Some(())
}

fn inject_again(t: &mut Director, out: &mut Line) -> Option<()> {
    for virq in [50, 51] {
        say!(out, "{} ", t.invoke(vcpu(VCPU2), inv::ARMVCPUInjectIRQ, &[], &[word(virq, 5, 1, 0)]));
    }
    Some(())
}

fn ack_bounds(t: &mut Director, out: &mut Line) -> Option<()> {
    for irq in [27, 26, 28, 0, 160, 1 << 40] {
        say!(out, "{irq} {} ", t.invoke(vcpu(VCPU), inv::ARMVCPUAckVPPI, &[], &[irq]));
    }
    Some(())
}

fn vcpu_spsr(t: &mut Director, out: &mut Line) -> Option<()> {
    for value in [0, 0x3c0, 0x3c4, 0x3c5, 0x3c9, 0xf000_03cd, 0x1f, 0xffff_ffff_ffff_ffc5] {
        t.write_registers(VCPU2, false, &[0x4000_0000, 0, value]);
        say!(out, "{:x} ", t.read_registers(VCPU2, 3).mr[2]);
    }
    Some(())
}

fn set_tcb(t: &mut Director, out: &mut Line) -> Option<()> {
    let set = |cap| t.invoke(vcpu(VCPU2), inv::ARMVCPUSetTCB, &[cap], &[]);
    say!(out, "no thread {} empty {} ", set(3), set(9));
    say!(out, "again {} ", set(tcb(VCPU2)));
    let none = t.invoke(vcpu(VCPU2), inv::ARMVCPUSetTCB, &[], &[]);
    say!(
        out,
        "none {} of a PD {}",
        label(none.info),
        label(t.invoke(tcb(ONE), inv::ARMVCPUSetTCB, &[], &[]).info)
    );
    Some(())
}
