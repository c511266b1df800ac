//! Caches, interrupts, the secure monitor (sheet section 4).

use sel4::sys::invocation_label as inv;

use crate::director::{Case, Director, Line, ONE, ONE_VSPACE};
use crate::raw::{label, nr, svc, tag};
use crate::routines::{counter, ticks};
use crate::say;

pub const CASES: &[(&str, Case)] = &[
    ("cache operations on own memory", caches),
    ("cache operations: bad ranges", cache_bounds),
    ("cache operations on read-only memory, text and device", cache_kinds),
    ("cache operations on another's address space", cache_other),
    ("the director's timer interrupt", timer_irq),
    ("an interrupt comes again only after its acknowledgement", irq_masked),
    ("an interrupt whose line stays high comes again", irq_level),
    ("IRQ acknowledgement by Send and by NBSendRecv", irq_ack_send),
    ("SMC: PSCI version", psci_version),
    ("SMC: PSCI features and an unknown function", psci_unknown),
    ("debug output where there is none", debug_call),
    // The last: the director's timer notifies nobody after it.
    ("setting and clearing an interrupt's notification", irq_handler),
];

const SHARED: u64 = 0x1100_0000;

const OPERATIONS: [u32; 4] = [
    inv::ARMVSpaceClean_Data,
    inv::ARMVSpaceInvalidate_Data,
    inv::ARMVSpaceCleanInvalidate_Data,
    inv::ARMVSpaceUnify_Instruction,
];

fn each(t: &Director, out: &mut Line, start: u64, end: u64) {
    for operation in OPERATIONS {
        say!(out, "{} ", t.invoke(3, operation, &[], &[start, end]));
    }
    say!(out, "; ");
}

fn caches(t: &mut Director, out: &mut Line) -> Option<()> {
    each(t, out, SHARED, SHARED + 0x1000);
    each(t, out, SHARED + 8, SHARED + 9);
    Some(())
}

fn cache_bounds(t: &mut Director, out: &mut Line) -> Option<()> {
    for (start, end) in [
        (SHARED, SHARED),
        (SHARED + 64, SHARED),
        (SHARED, SHARED + 0x1001),
        (SHARED + 0xfff, SHARED + 0x1001),
        (0x7000_0000, 0x7000_0040),
        (0xff_ffff_f000, 0x100_0000_0000),
        (0xff_ffff_f000, 0x100_0000_0001),
        (u64::MAX - 8, u64::MAX),
    ] {
        say!(out, "{} ", t.invoke(3, inv::ARMVSpaceClean_Data, &[], &[start, end]));
    }
    Some(())
}

fn cache_kinds(t: &mut Director, out: &mut Line) -> Option<()> {
    each(t, out, 0x1110_0000, 0x1110_0040);
    each(t, out, 0x20_0000, 0x20_0040);
    each(t, out, 0x1080_0000, 0x1080_0040);
    Some(())
}

fn cache_other(t: &mut Director, out: &mut Line) -> Option<()> {
    say!(out, "{} ", t.invoke(ONE_VSPACE, inv::ARMVSpaceClean_Data, &[], &[SHARED, SHARED + 64]));
    say!(out, "{}", t.invoke(ONE_VSPACE, inv::ARMVSpaceClean_Data, &[], &[0x1080_0000, 0x1080_0040]));
    Some(())
}

/// Waits for the timer's notification; the badge.
fn wait() -> u64 {
    let mut x = [1, 0, 0, 0, 0, 0, 0, nr::WAIT as u64, 0];
    svc(&mut x);
    x[0]
}

/// The badge that is there.
fn poll() -> u64 {
    let mut x = [1, 0, 0, 0, 0, 0, 0, nr::NB_WAIT as u64, 0];
    svc(&mut x);
    x[0]
}

fn timer_irq(t: &mut Director, out: &mut Line) -> Option<()> {
    let start = counter();
    t.set_timer(1_000);
    say!(out, "badge {:#x} not early {} ", wait(), counter() - start >= ticks(1_000));
    t.stop_timer();
    say!(out, "ack {}", t.invoke(138, inv::IRQAckIRQ, &[], &[]));
    Some(())
}

fn spin(micros: u64) {
    let start = counter();
    while counter() - start < ticks(micros) {}
}

fn irq_masked(t: &mut Director, out: &mut Line) -> Option<()> {
    t.set_timer(500);
    say!(out, "{:#x} ", wait());
    spin(500);
    say!(out, "without ack {:#x} ", poll());
    t.stop_timer();
    t.invoke(138, inv::IRQAckIRQ, &[], &[]);
    spin(500);
    say!(out, "timer off {:#x} ", poll());
    t.set_timer(500);
    say!(out, "again {:#x}", wait());
    Some(())
}

fn irq_level(t: &mut Director, out: &mut Line) -> Option<()> {
    t.set_timer(500);
    wait();
    t.invoke(138, inv::IRQAckIRQ, &[], &[]);
    say!(out, "{:#x} ", wait());
    t.stop_timer();
    t.invoke(138, inv::IRQAckIRQ, &[], &[]);
    spin(200);
    say!(out, "off {:#x}", poll());
    Some(())
}

fn irq_ack_send(t: &mut Director, out: &mut Line) -> Option<()> {
    t.set_timer(500);
    wait();
    t.invoke_by_send(138, inv::IRQAckIRQ, &[]);
    say!(out, "{:#x} ", wait());
    // The line is still high: the acknowledgement that rides on the receive brings it at once.
    let mut x = [1, tag(inv::IRQAckIRQ.into(), 0, 0), 0, 0, 0, 0, 4, nr::NB_SEND_RECV as u64, 138];
    svc(&mut x);
    say!(out, "{:#x} ", x[0]);
    t.stop_timer();
    say!(
        out,
        "twice {} {}",
        t.invoke(138, inv::IRQAckIRQ, &[], &[]),
        t.invoke(138, inv::IRQAckIRQ, &[], &[])
    );
    Some(())
}

fn irq_handler(t: &mut Director, out: &mut Line) -> Option<()> {
    t.stop_timer();
    say!(out, "no notification {} ", t.invoke(138, inv::IRQSetIRQHandler, &[3], &[]));
    say!(out, "none {} ", t.invoke(138, inv::IRQSetIRQHandler, &[], &[]));
    say!(out, "another's {} ", t.invoke(138, inv::IRQSetIRQHandler, &[10 + ONE], &[]));
    t.start_sys(ONE, [1, 0, 0, 0, 0, 0, 0, nr::WAIT as u64, 0]);
    t.set_timer(500);
    say!(out, "one gets {:#x} ", t.exit(ONE)?[0]);
    t.stop_timer();
    t.invoke(138, inv::IRQAckIRQ, &[], &[]);
    say!(out, "clear {} ", t.invoke(138, inv::IRQClearIRQHandler, &[], &[]));
    t.set_timer(500);
    spin(1_000);
    say!(out, "nobody gets it {:#x}", poll());
    t.stop_timer();
    Some(())
}

fn smc(t: &Director, function: u64, x1: u64) -> crate::director::Answer {
    t.invoke(7, inv::ARMSMCCall, &[], &[function, x1, 0, 0, 0, 0, 0, 0])
}

fn psci_version(t: &mut Director, out: &mut Line) -> Option<()> {
    let answer = smc(t, 0x8400_0000, 0);
    say!(out, "{:#x} {:#x}", answer.info, answer.mr[0]);
    Some(())
}

fn psci_unknown(t: &mut Director, out: &mut Line) -> Option<()> {
    say!(out, "{:x} ", smc(t, 0x8400_000a, 0x8400_0008).mr[0]);
    say!(out, "{:x} ", smc(t, 0x8400_00ff, 0).mr[0]);
    say!(out, "short {}", label(t.invoke(7, inv::ARMSMCCall, &[], &[0x8400_0000]).info));
    Some(())
}

fn debug_call(t: &mut Director, out: &mut Line) -> Option<()> {
    // CapIdentify: a debug kernel answers, another does not know it.
    t.start_sys(ONE, [9, 0, 0, 0, 0, 0, 0, (-15i64) as u64, 0]);
    let event = t.next()?;
    match event.exited(ONE) {
        Some(x) => say!(out, "empty slot {}", x[0]),
        None => say!(out, "{}:{}", label(event.info), event.mr[12] as i64),
    }
    Some(())
}
