//! A guest's instructions as its monitor sees them (sheet section 5).

use sel4::sys::invocation_label as inv;

use super::vcpus::{read, write};
use crate::director::{Case, Child, Director, Event, HIGH, Line, ONE, VCPU, VCPU2, Words, tcb, vcpu};
use crate::guest::{
    DATA, PAGE, PAGE_HERE, RAM, go_on, high_registers, peek, piece, poke, registers, run, smc, start_on,
};
use crate::raw::{label, length, nr, tag};
use crate::say;

pub const CASES: &[(&str, Case)] = &[
    ("guest: WFI", wfi),
    ("guest: WFI skipped", wfi_skipped),
    ("guest: SMC", smc_immediate),
    ("guest: HVC with a number that is no system call", hvc),
    ("guest: HVC that is a system call", hvc_call),
    ("guest: load from a hole", load_hole),
    ("guest: byte load and pair load from a hole", load_forms),
    ("guest: store to a hole", store_hole),
    ("guest: loads from a read-only page do not exit, stores do", read_only_page),
    ("guest: a load answered with a register", load_answered),
    ("guest: execution of a hole", jump_hole),
    ("guest: SVC and BRK are the guest's own", own_exceptions),
    ("guest: ICC_SGI1R", sgi),
    ("guest: the physical timer", cntp),
    ("guest: identification", identification),
    ("guest: counters", counters),
    ("guest: floating point survives the monitor and the other vCPU", fp),
    ("guest: floating point without CPACR is the guest's own", fp_off),
    ("guest: system registers survive the other vCPU", system_registers),
    ("guest: an answer by NBSendRecv goes on", answer_nb_send_recv),
    ("guest: a write by Send goes on", answer_by_send),
    ("guest: Wait keeps the fault to be answered", wait_keeps),
    ("guest: a receive gives the fault up", receive_drops),
    ("guest: no answer but a resume", resumed),
    ("guest: an interrupt is taken and ended", interrupt),
    ("guest: injecting into an active list register", inject_active),
    ("guest: the same while the VCPU is loaded", inject_loaded),
    ("guest: two interrupts by priority", two_interrupts),
    ("guest: an interrupt of a group that is off", group_off),
    ("guest: an injected interrupt waits until the guest runs", inject_blocked),
    ("guest: the virtual timer", timer),
    ("guest: a late AckVPPI", timer_late),
    ("guest: runs below everybody", lowest),
    ("guest: preempted and goes on", preempted),
];

fn show(out: &mut Line, event: &Event) {
    let from = event.badge & 0xff;
    say!(out, "{from}/{}:{} ", label(event.info), Words(&event.mr[..length(event.info).min(13)]));
}

/// Program counter of a vCPU, relative to guest RAM.
fn pc(t: &Director, child: Child) -> u64 {
    t.read_registers(child, 1).mr[0].wrapping_sub(RAM)
}

/// Whether the program counter is `offset` bytes into a piece.
fn at(t: &Director, piece: u64, offset: u64) -> bool {
    pc(t, VCPU) + RAM == piece + offset
}

fn wfi(t: &mut Director, out: &mut Line) -> Option<()> {
    show(out, &run(t, piece::g_wfi(), &[])?);
    say!(out, "at it {} spsr {:x} ", at(t, piece::g_wfi(), 0), t.read_registers(VCPU, 3).mr[2]);
    // Answered without a change it waits again.
    show(out, &t.reply_next(0, &[])?);
    Some(())
}

fn wfi_skipped(t: &mut Director, out: &mut Line) -> Option<()> {
    run(t, piece::g_wfi(), &[])?;
    t.write_registers(VCPU, false, &[piece::g_wfi() + 4]);
    let event = t.reply_next(0, &[])?;
    say!(out, "{:x?} x1 {}", smc(&event), registers(t, VCPU)[1]);
    Some(())
}

fn smc_immediate(t: &mut Director, out: &mut Line) -> Option<()> {
    show(out, &run(t, piece::g_done(), &[1, 2, 3, 4, 5])?);
    say!(out, "at it {} {}", at(t, piece::g_done(), 0), Words(&registers(t, VCPU)));
    Some(())
}

fn hvc(t: &mut Director, out: &mut Line) -> Option<()> {
    for number in [0u64, 0x8400_0000, (-29i64) as u64] {
        let mut event = run(t, piece::g_hvc(), &[0x8400_0000, 1, 2, 3, 4, 5, 6, number])?;
        event.mr[8] = event.mr[8].wrapping_sub(piece::g_hvc());
        event.mr[10] = event.mr[10].wrapping_sub(piece::g_hvc());
        show(out, &event);
    }
    Some(())
}

fn hvc_call(t: &mut Director, out: &mut Line) -> Option<()> {
    for number in [nr::CALL, nr::SEND, nr::NB_SEND, nr::YIELD] {
        let event = run(t, piece::g_hvc(), &[1, tag(5, 0, 2), 2, 3, 4, 5, 6, number as u64])?;
        if smc(&event).is_some() {
            say!(out, "{number}: {} ", Words(&registers(t, VCPU)[..7]));
        } else {
            let skip = usize::from(label(event.info) == 1);
            say!(
                out,
                "{number}: {}:{} ",
                label(event.info),
                Words(&event.mr[skip..length(event.info).min(13)])
            );
        }
    }
    Some(())
}

fn load_hole(t: &mut Director, out: &mut Line) -> Option<()> {
    for address in [0x0900_0018, 0x1234_5678, 0x80_0000_0008] {
        let mut event = run(t, piece::g_load(), &[address])?;
        event.mr[0] = event.mr[0].wrapping_sub(piece::g_load());
        show(out, &event);
    }
    Some(())
}

fn load_forms(t: &mut Director, out: &mut Line) -> Option<()> {
    for code in [piece::g_load_byte(), piece::g_load_pair()] {
        let mut event = run(t, code, &[0x0900_0010])?;
        event.mr[0] = event.mr[0].wrapping_sub(code);
        show(out, &event);
    }
    Some(())
}

fn store_hole(t: &mut Director, out: &mut Line) -> Option<()> {
    let mut event = run(t, piece::g_store(), &[0x0900_0000, 0x41])?;
    event.mr[0] = event.mr[0].wrapping_sub(piece::g_store());
    show(out, &event);
    Some(())
}

fn read_only_page(t: &mut Director, out: &mut Line) -> Option<()> {
    poke(PAGE_HERE + 8, 0x7469_7274);
    poke(PAGE_HERE + 12, 0);
    let event = run(t, piece::g_load(), &[PAGE + 8])?;
    say!(out, "{:x?} {:x} ", smc(&event), registers(t, VCPU)[1]);
    let mut event = run(t, piece::g_store(), &[PAGE + 8, 5])?;
    event.mr[0] = event.mr[0].wrapping_sub(piece::g_store());
    show(out, &event);
    say!(out, "unchanged {}", peek(PAGE_HERE + 8) == 0x7469_7274);
    Some(())
}

fn load_answered(t: &mut Director, out: &mut Line) -> Option<()> {
    run(t, piece::g_load(), &[0x0900_0018])?;
    let mut words = [0; 36];
    words.copy_from_slice(&t.read_registers(VCPU, 36).mr[..36]);
    (words[0], words[4]) = (words[0] + 4, 0xabcd);
    t.write_registers(VCPU, false, &words);
    let event = t.reply_next(0, &[])?;
    say!(out, "{:x?} {}", smc(&event), Words(&registers(t, VCPU)[..2]));
    Some(())
}

fn jump_hole(t: &mut Director, out: &mut Line) -> Option<()> {
    for address in [0x0900_0000, 0x5000_1000] {
        show(out, &run(t, piece::g_jump(), &[address])?);
    }
    Some(())
}

fn own_exceptions(t: &mut Director, out: &mut Line) -> Option<()> {
    for code in [piece::g_svc(), piece::g_brk()] {
        let event = run(t, code, &[])?;
        let mut words = high_registers(t, VCPU);
        words[2] = words[2].wrapping_sub(code);
        say!(out, "{:x?} {} ", smc(&event), Words(&words[..3]));
    }
    Some(())
}

fn sgi(t: &mut Director, out: &mut Line) -> Option<()> {
    let event = run(t, piece::g_sgi(), &[0x100_0001])?;
    show(out, &event);
    say!(out, "at it {} own {}", at(t, piece::g_sgi(), 0), Words(&high_registers(t, VCPU)[..2]));
    Some(())
}

fn cntp(t: &mut Director, out: &mut Line) -> Option<()> {
    let event = run(t, piece::g_cntp(), &[])?;
    match smc(&event) {
        Some(number) => say!(out, "reads, {number:x}"),
        None => show(out, &event),
    }
    Some(())
}

fn identification(t: &mut Director, out: &mut Line) -> Option<()> {
    write(t, VCPU, 16, 0x8000_0005);
    let event = run(t, piece::g_ids(), &[])?;
    let x = registers(t, VCPU);
    say!(out, "{:x?} mpidr {:x} el {:x} midr {:x} sctlr {:x}", smc(&event), x[0], x[1], x[2], x[3]);
    write(t, VCPU, 16, 0);
    Some(())
}

fn counters(t: &mut Director, out: &mut Line) -> Option<()> {
    run(t, piece::g_counters(), &[])?;
    let x = registers(t, VCPU);
    say!(out, "frequency {} virtual from physical {} ", x[2], x[1].wrapping_sub(x[0]) < x[2]);
    write(t, VCPU, 22, 1 << 40);
    run(t, piece::g_counters(), &[])?;
    let x = registers(t, VCPU);
    let behind = x[0].wrapping_sub(x[1]);
    say!(out, "with an offset {}", behind <= 1 << 40 && behind > (1 << 40) - x[2]);
    write(t, VCPU, 22, 0);
    Some(())
}

fn fp(t: &mut Director, out: &mut Line) -> Option<()> {
    let event = run(t, piece::g_fp(), &[0, 0x1111])?;
    say!(out, "{:x?} ", smc(&event));
    start_on(t, VCPU2, piece::g_fp(), &[0, 0x2222]);
    say!(out, "{:x?} ", smc(&t.next()?));
    go_on(t, VCPU)?;
    say!(out, "{:x} ", registers(t, VCPU)[2]);
    go_on(t, VCPU2)?;
    say!(out, "{:x}", registers(t, VCPU2)[2]);
    write(t, VCPU, 1, 0);
    write(t, VCPU2, 1, 0);
    Some(())
}

fn fp_off(t: &mut Director, out: &mut Line) -> Option<()> {
    write(t, VCPU, 1, 0);
    let event = run(t, piece::g_fp_off(), &[0, 1])?;
    say!(out, "{:x?} {}", smc(&event), Words(&high_registers(t, VCPU)[..2]));
    Some(())
}

fn system_registers(t: &mut Director, out: &mut Line) -> Option<()> {
    run(t, piece::g_tpidr(), &[0x11])?;
    start_on(t, VCPU2, piece::g_tpidr(), &[0x22]);
    t.next()?;
    say!(out, "read {:x} {:x} ", read(t, VCPU, 15), read(t, VCPU2, 15));
    write(t, VCPU, 15, 0x33);
    go_on(t, VCPU)?;
    go_on(t, VCPU2)?;
    say!(out, "after a write {:x} {:x}", registers(t, VCPU)[0], registers(t, VCPU2)[0]);
    Some(())
}

fn answer_nb_send_recv(t: &mut Director, out: &mut Line) -> Option<()> {
    run(t, piece::g_wfi(), &[])?;
    t.write_registers(VCPU, false, &[piece::g_wfi() + 4]);
    let event = t.receive([1, 0, 0, 0, 0, 0, 4, nr::NB_SEND_RECV as u64, 4])?;
    say!(out, "{:x?}", smc(&event));
    Some(())
}

fn answer_by_send(t: &mut Director, out: &mut Line) -> Option<()> {
    run(t, piece::g_wfi(), &[])?;
    t.invoke_by_send(tcb(VCPU), inv::TCBWriteRegisters, &[1, 1, piece::g_wfi() + 4]);
    // As a VMM does it: the next receive carries a notification.
    t.start_sys(HIGH, [1, 0, 0, 0, 0, 0, 4, nr::WAIT as u64, 0]);
    let first = t.receive([1, 0, 0, 0, 0, 0, 4, nr::NB_SEND_RECV as u64, 10 + HIGH])?;
    say!(out, "notified {} ", first.exited(HIGH).is_some());
    say!(out, "guest {:x?}", smc(&t.next()?));
    Some(())
}

fn wait_keeps(t: &mut Director, out: &mut Line) -> Option<()> {
    run(t, piece::g_wfi(), &[])?;
    t.start_sys(ONE, [10 + 10, 0, 0, 0, 0, 0, 0, nr::SEND as u64, 0]);
    let event = t.receive([1, 0, 0, 0, 0, 0, 0, nr::WAIT as u64, 0])?;
    say!(out, "{event} ");
    t.suspend(ONE);
    t.write_registers(VCPU, false, &[piece::g_wfi() + 4]);
    say!(out, "{:x?}", smc(&t.reply_next(0, &[])?));
    Some(())
}

fn receive_drops(t: &mut Director, out: &mut Line) -> Option<()> {
    run(t, piece::g_wfi(), &[])?;
    t.start_sys(ONE, [10 + 10, 0, 0, 0, 0, 0, 0, nr::SEND as u64, 0]);
    say!(out, "{} ", t.next()?);
    t.suspend(ONE);
    t.write_registers(VCPU, false, &[piece::g_wfi() + 4]);
    t.reply(0, &[]);
    say!(out, "stopped {} ", t.all_blocked()?);
    t.resume(VCPU);
    say!(out, "{:x?}", smc(&t.next()?));
    Some(())
}

fn resumed(t: &mut Director, out: &mut Line) -> Option<()> {
    run(t, piece::g_wfi(), &[])?;
    say!(out, "{} ", t.resume(VCPU));
    show(out, &t.next()?);
    Some(())
}

/// Group 0: the guest enables that group alone.
fn inject(t: &Director, virq: u64, priority: u64, index: u64) -> u64 {
    let word = virq | priority << 16 | index << 32;
    t.invoke(vcpu(VCPU), inv::ARMVCPUInjectIRQ, &[], &[word]).info
}

/// Starts the guest that enables interrupts, up to its first stop.
fn ready(t: &Director) -> Option<()> {
    let event = run(t, piece::g_irq(), &[])?;
    (smc(&event)? == 2).then_some(())
}

fn interrupt(t: &mut Director, out: &mut Line) -> Option<()> {
    ready(t)?;
    say!(out, "inject {:x} ", inject(t, 40, 10, 0));
    let event = go_on(t, VCPU)?;
    let x = high_registers(t, VCPU);
    say!(out, "taken {:x?} x20 {:x} IAR {:x} ", smc(&event), x[0], x[3]);
    let ended = go_on(t, VCPU)?;
    show(out, &ended);
    show(out, &t.reply_next(0, &[])?);
    Some(())
}

fn inject_active(t: &mut Director, out: &mut Line) -> Option<()> {
    ready(t)?;
    say!(out, "{:x} {:x} ", inject(t, 40, 10, 1), inject(t, 41, 10, 1));
    go_on(t, VCPU)?;
    say!(out, "IAR {:x} ", high_registers(t, VCPU)[3]);
    // The other vCPU runs, so the first one's list registers are saved.
    start_on(t, VCPU2, piece::g_done(), &[]);
    t.next()?;
    say!(out, "active: {:x} another: {:x} ", inject(t, 42, 10, 1), inject(t, 43, 10, 2));
    show(out, &go_on(t, VCPU)?);
    let event = t.reply_next(0, &[])?;
    say!(out, "{:x?} IAR {:x} ", smc(&event), high_registers(t, VCPU)[3]);
    show(out, &go_on(t, VCPU)?);
    say!(out, "{:x?}", smc(&t.reply_next(0, &[])?));
    Some(())
}

fn inject_loaded(t: &mut Director, out: &mut Line) -> Option<()> {
    ready(t)?;
    inject(t, 40, 10, 1);
    go_on(t, VCPU)?;
    say!(out, "IAR {:x} active: {:x} ", high_registers(t, VCPU)[3], inject(t, 42, 10, 1));
    let event = go_on(t, VCPU)?;
    say!(out, "{:x?} IAR {:x} ", smc(&event), high_registers(t, VCPU)[3]);
    show(out, &go_on(t, VCPU)?);
    say!(out, "{:x?}", smc(&t.reply_next(0, &[])?));
    Some(())
}

fn two_interrupts(t: &mut Director, out: &mut Line) -> Option<()> {
    ready(t)?;
    inject(t, 50, 20, 0);
    inject(t, 60, 8, 3);
    let event = go_on(t, VCPU)?;
    say!(out, "{:x?} IAR {:x} ", smc(&event), high_registers(t, VCPU)[3]);
    show(out, &go_on(t, VCPU)?);
    let event = t.reply_next(0, &[])?;
    say!(out, "{:x?} IAR {:x} ", smc(&event), high_registers(t, VCPU)[3]);
    show(out, &go_on(t, VCPU)?);
    say!(out, "{:x?}", smc(&t.reply_next(0, &[])?));
    Some(())
}

fn group_off(t: &mut Director, out: &mut Line) -> Option<()> {
    ready(t)?;
    let word = 40 | 10 << 16 | 1 << 24;
    say!(out, "{} ", t.invoke(vcpu(VCPU), inv::ARMVCPUInjectIRQ, &[], &[word]));
    say!(out, "{:x?} ", smc(&go_on(t, VCPU)?));
    // Overwritten by one of the enabled group it is gone.
    inject(t, 41, 10, 0);
    let event = run_again(t)?;
    say!(out, "{:x?} IAR {:x} ", smc(&event), high_registers(t, VCPU)[3]);
    show(out, &go_on(t, VCPU)?);
    Some(())
}

/// The same guest code from its beginning, list registers as they are.
fn run_again(t: &Director) -> Option<Event> {
    start_on(t, VCPU, piece::g_irq(), &[]);
    t.next()
}

fn inject_blocked(t: &mut Director, out: &mut Line) -> Option<()> {
    let event = run(t, piece::g_irq_wfi(), &[])?;
    show(out, &event);
    inject(t, 70, 0, 0);
    // The guest stays blocked in its fault until it is answered.
    t.start_sys(ONE, [10 + 10, 0, 0, 0, 0, 0, 0, nr::SEND as u64, 0]);
    let woken = t.receive([1, 0, 0, 0, 0, 0, 0, nr::WAIT as u64, 0])?;
    t.suspend(ONE);
    say!(out, "{woken} ");
    let event = t.reply_next(0, &[])?;
    say!(out, "{:x?} IAR {:x} ", smc(&event), high_registers(t, VCPU)[3]);
    show(out, &go_on(t, VCPU)?);
    show(out, &t.reply_next(0, &[])?);
    Some(())
}

fn timer_until_event(t: &Director, out: &mut Line) -> Option<()> {
    let event = run(t, piece::g_timer(), &[20_000])?;
    show(out, &event);
    say!(out, "ctl {:x} ", read(t, VCPU, 20));
    Some(())
}

fn timer(t: &mut Director, out: &mut Line) -> Option<()> {
    timer_until_event(t, out)?;
    inject(t, 27, 10, 0);
    let event = t.reply_next(0, &[])?;
    say!(out, "taken {:x?} IAR {:x} ", smc(&event), high_registers(t, VCPU)[3]);
    // The guest's handler ends it without touching the timer; the level is still high.
    show(out, &go_on(t, VCPU)?);
    say!(out, "ack {} ", t.invoke(vcpu(VCPU), inv::ARMVCPUAckVPPI, &[], &[27]));
    show(out, &t.reply_next(0, &[])?);
    write(t, VCPU, 20, 0);
    t.invoke(vcpu(VCPU), inv::ARMVCPUAckVPPI, &[], &[27]);
    Some(())
}

fn timer_late(t: &mut Director, out: &mut Line) -> Option<()> {
    timer_until_event(t, out)?;
    // Without AckVPPI and injection the guest goes on, its interrupt masked.
    let event = t.reply_next(0, &[])?;
    say!(out, "{:x?} x1 {} ", smc(&event), registers(t, VCPU)[1]);
    say!(out, "{:x?} ctl {:x} ", smc(&go_on(t, VCPU)?), read(t, VCPU, 20));
    t.invoke(vcpu(VCPU), inv::ARMVCPUAckVPPI, &[], &[27]);
    say!(out, "{:x?}", smc(&go_on(t, VCPU)?));
    Some(())
}

fn lowest(t: &mut Director, out: &mut Line) -> Option<()> {
    crate::guest::load();
    start_on(t, VCPU, piece::g_done(), &[]);
    t.start_sys(ONE, [10 + 10, 0, 0, 0, 0, 0, 0, nr::SEND as u64, 0]);
    say!(out, "{} ", t.next()?);
    say!(out, "{} ", t.exit(ONE).is_some());
    say!(out, "{:x?}", smc(&t.next()?));
    Some(())
}

fn preempted(t: &mut Director, out: &mut Line) -> Option<()> {
    crate::guest::load();
    poke(DATA, 0);
    start_on(t, VCPU, piece::g_until(), &[DATA, 0, 0x77]);
    t.set_timer(2_000);
    say!(out, "{} ", t.next().is_none());
    t.set_timer(3_000_000);
    t.invoke(138, inv::IRQAckIRQ, &[], &[]);
    poke(DATA, 5);
    let event = t.next()?;
    say!(out, "{:x?} {}", smc(&event), Words(&registers(t, VCPU)[1..3]));
    Some(())
}
