//! Faults of native threads and what an answer does (manual 6.2; sheet section 5).

use sel4::sys::invocation_label as inv;

use crate::director::{Case, Child, Director, Event, FLOAT, HIGH, Line, ONE, TWO, Words, tcb};
use crate::raw::{at, label, length, nr, tag};
use crate::say;

pub const CASES: &[(&str, Case)] = &[
    ("reading what is not mapped", read_unmapped),
    ("writing what is not mapped", write_unmapped),
    ("writing to text and to a read-only region", write_readonly),
    ("reading beyond the address space", read_beyond),
    ("executing what is not mapped", jump_unmapped),
    ("executing data", jump_data),
    ("a data fault answered without a change comes again", refault),
    ("a data fault skipped by writing the program counter", skipped),
    ("an undefined instruction", undefined),
    ("an undefined instruction skipped by the answer", undefined_skipped),
    ("an undefined instruction answered with a label stops", undefined_stopped),
    ("an undefined instruction answered with nothing comes again", undefined_again),
    ("BRK", brk),
    ("an unknown system call in full", unknown),
    ("an unknown system call answered with registers", unknown_answered),
    ("an unknown system call answered with less", unknown_short),
    ("system-call numbers that do not exist", numbers),
    ("an identification register", midr),
    ("the virtual counter", cntvct),
    ("HVC and SMC of a PD", hvc_smc),
    ("floating point where it is switched off", fpu_off),
    ("floating point where it is on", fpu_on),
    ("floating-point registers survive other threads", fpu_kept),
    ("a fault is sent with the own scheduling context", fault_keeps_time),
    ("a fault resumed by a write needs no answer", resume_instead),
    ("a fault resumed by TCBResume comes again", resume_again),
    ("a PD that panics says why", panics),
];

/// The message with word `ip` relative to `base`.
fn show(out: &mut Line, event: &Event, ip: usize, base: u64) {
    let mut words = event.mr;
    words[ip] = words[ip].wrapping_sub(base);
    say!(out, "{}:{} ", label(event.info), Words(&words[..length(event.info).min(13)]));
}

fn run(t: &Director, child: Child, routine: u64, x: &[u64]) -> Option<Event> {
    t.start(child, routine, x);
    t.next()
}

/// Runs a routine and shows its fault, or how it ends.
fn fault(t: &Director, out: &mut Line, routine: u64, x: &[u64]) -> Option<()> {
    let event = run(t, ONE, routine, x)?;
    match event.exited(ONE) {
        Some(x) => say!(out, "ends {} ", Words(&x)),
        None => show(out, &event, 0, routine),
    }
    Some(())
}

fn read_unmapped(t: &mut Director, out: &mut Line) -> Option<()> {
    fault(t, out, at::t_load(), &[0x1008])?;
    fault(t, out, at::t_load(), &[0x7000_0000])?;
    fault(t, out, at::t_load(), &[0x70_0000_0010])
}

fn write_unmapped(t: &mut Director, out: &mut Line) -> Option<()> {
    fault(t, out, at::t_store(), &[0x1008])
}

fn write_readonly(t: &mut Director, out: &mut Line) -> Option<()> {
    fault(t, out, at::t_store(), &[0x20_0000])?;
    fault(t, out, at::t_store(), &[0x1110_0000])?;
    fault(t, out, at::t_load(), &[0x1110_0000])
}

fn read_beyond(t: &mut Director, out: &mut Line) -> Option<()> {
    fault(t, out, at::t_load(), &[0x100_0000_0000])
}

fn jump_unmapped(t: &mut Director, out: &mut Line) -> Option<()> {
    let event = run(t, ONE, at::t_jump(), &[0x3000])?;
    show(out, &event, 0, 0);
    Some(())
}

fn jump_data(t: &mut Director, out: &mut Line) -> Option<()> {
    let event = run(t, ONE, at::t_jump(), &[0x1100_0000])?;
    show(out, &event, 0, 0);
    Some(())
}

fn refault(t: &mut Director, out: &mut Line) -> Option<()> {
    run(t, ONE, at::t_load(), &[0x1008])?;
    // Label and message of this answer mean nothing.
    let event = t.reply_next(7, &[0, 0, 0, 0])?;
    show(out, &event, 0, at::t_load());
    Some(())
}

fn skipped(t: &mut Director, out: &mut Line) -> Option<()> {
    run(t, ONE, at::t_load(), &[0x1008, 5])?;
    t.write_registers(ONE, false, &[at::t_load() + 4]);
    let event = t.reply_next(0, &[])?;
    say!(out, "{}", Words(&event.exited(ONE)?[..2]));
    Some(())
}

fn undefined(t: &mut Director, out: &mut Line) -> Option<()> {
    let event = run(t, ONE, at::t_udf(), &[])?;
    let mut shown = event;
    shown.mr[2] &= !0xfff; // masks of a configuration
    show(out, &shown, 0, at::t_udf());
    Some(())
}

fn undefined_skipped(t: &mut Director, out: &mut Line) -> Option<()> {
    run(t, ONE, at::t_udf(), &[])?;
    let event = t.reply_next(0, &[at::t_udf() + 4])?;
    say!(out, "{:#x}", event.exited(ONE)?[0]);
    Some(())
}

fn undefined_stopped(t: &mut Director, out: &mut Line) -> Option<()> {
    run(t, ONE, at::t_udf(), &[])?;
    t.reply(1, &[at::t_udf() + 4]);
    say!(out, "stopped {}", t.all_blocked()?);
    Some(())
}

fn undefined_again(t: &mut Director, out: &mut Line) -> Option<()> {
    run(t, ONE, at::t_udf(), &[])?;
    let event = t.reply_next(0, &[])?;
    say!(out, "{} at {:#x}", label(event.info), event.mr[0] - at::t_udf());
    Some(())
}

fn brk(t: &mut Director, out: &mut Line) -> Option<()> {
    let event = run(t, ONE, at::t_brk(), &[])?;
    let base = if label(event.info) == 8 { 0 } else { at::t_brk() };
    show(out, &event, 0, base);
    Some(())
}

/// The registers of an unknown call, program counters relative.
fn show_unknown(out: &mut Line, event: &Event) {
    let mut words = event.mr;
    words[8] = words[8].wrapping_sub(at::t_sys());
    words[10] = words[10].wrapping_sub(at::t_sys());
    words[11] &= !0xfff;
    say!(out, "{}:{} ", label(event.info), Words(&words[..length(event.info).min(13)]));
}

fn unknown(t: &mut Director, out: &mut Line) -> Option<()> {
    let x = [0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0x55, 0xa8];
    t.start_sys(ONE, x);
    show_unknown(out, &t.next()?);
    Some(())
}

fn unknown_answered(t: &mut Director, out: &mut Line) -> Option<()> {
    t.start_sys(ONE, [0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0x55, 0xa8]);
    let event = t.next()?;
    let words = [0xb0, 0xb1, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, at::t_sys() + 4, event.mr[9]];
    for (i, word) in words.iter().enumerate().skip(4) {
        crate::raw::set_mr(i, *word);
    }
    let mut x = [4, tag(0, 0, 10), 0, 0, 0, 0, 0, nr::SEND as u64, 0];
    x[2..6].copy_from_slice(&words[..4]);
    crate::raw::svc(&mut x);
    say!(out, "{}", Words(&t.exit(ONE)?));
    Some(())
}

fn unknown_short(t: &mut Director, out: &mut Line) -> Option<()> {
    t.start_sys(ONE, [0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0x55, 0xa8]);
    t.next()?;
    let event = t.reply_next(0, &[0xb0, 0xb1])?;
    show_unknown(out, &event);
    Some(())
}

fn numbers(t: &mut Director, out: &mut Line) -> Option<()> {
    for number in [0i64, 1, -20, -28, -29, -1000, i64::MIN, i64::MAX] {
        t.start_sys(ONE, [1, 0, 0, 0, 0, 0, 0, number as u64, 0]);
        let event = t.next()?;
        say!(out, "{}:{} ", label(event.info), event.mr[12] as i64);
    }
    Some(())
}

fn midr(t: &mut Director, out: &mut Line) -> Option<()> {
    let mut event = run(t, ONE, at::t_midr(), &[])?;
    event.mr[2] &= !0xfff;
    show(out, &event, 0, at::t_midr());
    Some(())
}

fn cntvct(t: &mut Director, out: &mut Line) -> Option<()> {
    let mut event = run(t, ONE, at::t_cntvct(), &[])?;
    if label(event.info) == 8 {
        show(out, &event, 0, 0);
    } else {
        event.mr[2] &= !0xfff;
        show(out, &event, 0, at::t_cntvct());
    }
    Some(())
}

fn hvc_smc(t: &mut Director, out: &mut Line) -> Option<()> {
    for routine in [at::t_hvc(), at::t_smc()] {
        let mut event = run(t, ONE, routine, &[])?;
        event.mr[2] &= !0xfff;
        show(out, &event, 0, routine);
    }
    Some(())
}

fn fpu_off(t: &mut Director, out: &mut Line) -> Option<()> {
    let event = run(t, ONE, at::t_fp(), &[])?;
    show(out, &event, 0, 0);
    say!(out, "pc at it {}", t.read_registers(ONE, 1).mr[0] == at::t_fp());
    Some(())
}

fn fpu_on(t: &mut Director, out: &mut Line) -> Option<()> {
    say!(out, "{:#x} ", run(t, FLOAT, at::t_fp(), &[])?.exited(FLOAT)?[0]);
    let off = t.invoke(tcb(FLOAT), inv::TCBSetFlags, &[], &[0, 1]);
    say!(out, "off {off} ");
    let event = run(t, FLOAT, at::t_fp(), &[])?;
    show(out, &event, 0, 0);
    say!(out, "on {} ", t.invoke(tcb(FLOAT), inv::TCBSetFlags, &[], &[1, 0]));
    say!(out, "{:#x}", run(t, FLOAT, at::t_fp(), &[])?.exited(FLOAT)?[0]);
    Some(())
}

fn fpu_kept(t: &mut Director, out: &mut Line) -> Option<()> {
    t.start(FLOAT, at::t_fp_keep(), &[0x1122_3344_5566_7788, 1]);
    t.all_blocked()?;
    // Another thread with the FPU and another value in between.
    t.invoke(tcb(TWO), inv::TCBSetFlags, &[], &[1, 0]);
    t.start(TWO, at::t_fp_keep(), &[0x99, 1]);
    t.notify(TWO);
    say!(out, "{:#x} ", t.exit(TWO)?[1]);
    t.invoke(tcb(TWO), inv::TCBSetFlags, &[], &[0, 1]);
    t.notify(FLOAT);
    say!(out, "{:#x}", t.exit(FLOAT)?[1]);
    Some(())
}

fn fault_keeps_time(t: &mut Director, out: &mut Line) -> Option<()> {
    let read = || t.invoke(crate::director::HIGH_SC, inv::SchedContextConsumed, &[], &[]).info;
    run(t, HIGH, at::t_udf(), &[])?;
    say!(out, "consumed of a faulted thread {:#x}", read());
    Some(())
}

fn resume_instead(t: &mut Director, out: &mut Line) -> Option<()> {
    run(t, ONE, at::t_udf(), &[])?;
    t.invoke_by_send(tcb(ONE), inv::TCBWriteRegisters, &[1, 1, at::t_udf() + 4]);
    // The reply object is free again: an answer goes nowhere.
    t.reply(1, &[1, 2]);
    say!(out, "{:#x}", t.exit(ONE)?[0]);
    Some(())
}

fn resume_again(t: &mut Director, out: &mut Line) -> Option<()> {
    run(t, ONE, at::t_load(), &[0x1008])?;
    say!(out, "{} ", t.resume(ONE));
    let event = t.next()?;
    show(out, &event, 0, at::t_load());
    Some(())
}

extern "C" fn panicking() -> ! {
    panic!("on purpose")
}

fn panics(t: &mut Director, out: &mut Line) -> Option<()> {
    let event = run(t, ONE, panicking as *const () as u64, &[])?;
    say!(out, "{} at {:#x} ", label(event.info), event.mr[1]);
    let registers = t.read_registers(ONE, 36).mr;
    // x0, and the message's first words: x9, x10.
    let text = [registers[17].to_le_bytes(), registers[18].to_le_bytes()];
    let text = core::str::from_utf8(text.as_flattened()).unwrap_or("?");
    say!(out, "code {} {:?}", registers[3], text.trim_end_matches('\0'));
    Some(())
}
