//! Registers, start and stop of threads (manual 6.1, "Threads").

use sel4::sys::invocation_label as inv;

use crate::director::{Case, Director, LOW, Line, ONE, ONE_SC, SELF_TCB, STACK_TOP, TWO, Words, tcb};
use crate::raw::{at, length, nr, tag};
use crate::routines::{self, flag, flag_address};
use crate::say;

pub const CASES: &[(&str, Case)] = &[
    ("all registers are read as they are", read_all),
    ("as many registers as asked for", read_counts),
    ("no register and too many", read_bounds),
    ("register counts to write", write_bounds),
    ("writing the program counter keeps the rest", write_pc),
    ("a short write by Send", write_by_send),
    ("processor state is sanitised", spsr),
    ("registers are copied", copy),
    ("own thread refuses", own_thread),
    ("reading registers can stop the thread", read_and_stop),
    ("a suspended thread stays where it is", suspend_resume),
    ("resume does a blocked system call again", resume_blocked),
    ("a write starts a blocked thread elsewhere", restart_blocked),
    ("suspending a caller frees the server", suspend_caller),
    ("TLS base", tls_base),
    ("flags", flags),
    ("binding notifications", bind_notification),
    ("a restarted PD begins anew", restarted),
];

fn read_all(t: &mut Director, out: &mut Line) -> Option<()> {
    let mut registers: [u64; 36] = core::array::from_fn(|i| 0x1000 + i as u64);
    (registers[0], registers[2]) = (at::t_spin(), 0xf000_0000);
    say!(out, "{} ", t.write_registers(ONE, true, &registers));
    t.all_blocked(); // runs ONE for ever: only the timer ends this
    let answer = t.read_registers(ONE, 36);
    let same = |i: usize| match i {
        0 => answer.mr[0] == at::t_spin(),
        2 => true,
        _ => answer.mr[i] == 0x1000 + i as u64,
    };
    say!(out, "{:#x} spsr {:#x} differ", answer.info, answer.mr[2]);
    (0..36).filter(|i| !same(*i)).for_each(|i| say!(out, " {i}:{:x}", answer.mr[i]));
    Some(())
}

fn read_counts(t: &mut Director, out: &mut Line) -> Option<()> {
    for count in [1, 2, 3, 4, 5, 12, 34, 35, 36] {
        say!(out, "{} ", length(t.read_registers(ONE, count).info));
    }
    Some(())
}

fn read_bounds(t: &mut Director, out: &mut Line) -> Option<()> {
    for count in [0, 37, 120, 1 << 40] {
        say!(out, "{} ", t.read_registers(ONE, count));
    }
    Some(())
}

fn write_bounds(t: &mut Director, out: &mut Line) -> Option<()> {
    let write = |length: u64, count: u64| {
        let info = tag(inv::TCBWriteRegisters.into(), 0, length);
        t.invoke_raw(tcb(ONE), info, &[], &[0, count, 0x20_0000, STACK_TOP])
    };
    say!(out, "short {} none {} ", write(1, 1), write(2, 0));
    say!(out, "fewer than said {} ", write(3, 2));
    say!(out, "as said {} more than there are {}", write(4, 2), write(40, 37));
    Some(())
}

fn write_pc(t: &mut Director, out: &mut Line) -> Option<()> {
    let mut registers: [u64; 36] = core::array::from_fn(|i| 0x2000 + i as u64);
    (registers[0], registers[1], registers[2]) = (at::t_spin(), STACK_TOP - 64, 0);
    t.write_registers(ONE, false, &registers);
    say!(out, "{} ", t.write_registers(ONE, true, &[at::t_sp()]));
    let x = t.exit(ONE)?;
    say!(out, "sp {:#x} x1–x6 {}", x[0], Words(&x[1..]));
    Some(())
}

fn write_by_send(t: &mut Director, out: &mut Line) -> Option<()> {
    t.write_registers(ONE, false, &[at::t_spin(), STACK_TOP, 0, 5]);
    t.invoke_by_send(tcb(ONE), inv::TCBWriteRegisters, &[1, 1, at::t_sp()]);
    say!(out, "sp {:#x}", t.exit(ONE)?[0]);
    Some(())
}

fn spsr(t: &mut Director, out: &mut Line) -> Option<()> {
    for value in [0, 0x3c5, 0xf000_03c9, 0xffff_ffff_ffff_ffff] {
        t.write_registers(ONE, false, &[at::t_spin(), STACK_TOP, value]);
        say!(out, "{:#x} ", t.read_registers(ONE, 3).mr[2]);
    }
    Some(())
}

fn copy(t: &mut Director, out: &mut Line) -> Option<()> {
    let registers: [u64; 36] =
        core::array::from_fn(|i| if i == 0 { at::t_spin() } else { 0x3000 + i as u64 });
    t.write_registers(ONE, false, &registers);
    t.write_registers(TWO, false, &[0; 36]);
    for (name, bits) in [("frame", 4), ("integer", 8), ("both", 12)] {
        t.write_registers(TWO, false, &[0; 36]);
        let answer = t.invoke(tcb(TWO), inv::TCBCopyRegisters, &[tcb(ONE)], &[bits]);
        let read = t.read_registers(TWO, 36);
        let copied =
            (0..36).filter(|i| *i != 2 && read.mr[*i] == registers[*i]).fold(0u64, |set, i| set | 1 << i);
        say!(out, "{name} {answer} {copied:#x} ");
    }
    say!(out, "no source {} ", t.invoke(tcb(TWO), inv::TCBCopyRegisters, &[], &[12]));
    say!(out, "bad source {}", t.invoke(tcb(TWO), inv::TCBCopyRegisters, &[3], &[12]));
    Some(())
}

fn own_thread(t: &mut Director, out: &mut Line) -> Option<()> {
    say!(out, "read {} ", t.invoke(SELF_TCB, inv::TCBReadRegisters, &[], &[0, 1]));
    say!(out, "write {} ", t.invoke(SELF_TCB, inv::TCBWriteRegisters, &[], &[0, 1, 0]));
    say!(out, "flags {} ", t.invoke(SELF_TCB, inv::TCBSetFlags, &[], &[0, 0]));
    say!(out, "priority {}", t.invoke(SELF_TCB, inv::TCBSetPriority, &[SELF_TCB], &[200]));
    Some(())
}

fn read_and_stop(t: &mut Director, out: &mut Line) -> Option<()> {
    t.start(ONE, at::t_count(), &[flag_address(1)]);
    t.start(LOW, routines::trace_exit as *const () as u64, &[LOW]);
    let answer = t.invoke(tcb(ONE), inv::TCBReadRegisters, &[], &[1, 1]);
    say!(out, "{:#x} ", answer.info);
    say!(out, "low runs {}", t.exit(LOW)?[0] == LOW);
    Some(())
}

fn suspend_resume(t: &mut Director, out: &mut Line) -> Option<()> {
    t.start(LOW, at::t_count(), &[flag_address(1)]);
    t.start(ONE, routines::work as *const () as u64, &[100]);
    t.exit(ONE)?;
    // LOW has not run yet: let it, by a timer of the director's own.
    t.set_timer(2_000);
    t.next();
    t.set_timer(3_000_000);
    t.invoke(138, inv::IRQAckIRQ, &[], &[]);
    say!(out, "{} ", t.suspend(LOW));
    let before = flag(1);
    t.start(ONE, routines::work as *const () as u64, &[2_000]);
    t.exit(ONE)?;
    say!(out, "ran {} stands {} ", before > 0, flag(1) == before);
    t.resume(LOW);
    t.set_timer(2_000);
    t.next();
    t.set_timer(3_000_000);
    say!(out, "goes on {}", flag(1) > before);
    Some(())
}

fn resume_blocked(t: &mut Director, out: &mut Line) -> Option<()> {
    t.start_sys(TWO, [1, 0xd1, 0xd2, 0, 0, 0, 0, nr::WAIT as u64, 0]);
    t.all_blocked()?;
    say!(out, "{} ", t.resume(TWO));
    say!(out, "blocked again {} ", t.all_blocked()?);
    t.notify(TWO);
    say!(out, "{}", Words(&t.exit(TWO)?[..3]));
    Some(())
}

fn restart_blocked(t: &mut Director, out: &mut Line) -> Option<()> {
    t.start_sys(TWO, [1, 0, 0, 0, 0, 0, 0, nr::WAIT as u64, 0]);
    t.all_blocked()?;
    let answer = t.read_registers(TWO, 1);
    say!(out, "pc at svc {} ", answer.mr[0] == at::t_sys());
    t.write_registers(TWO, true, &[at::t_sp()]);
    say!(out, "sp {:#x} ", t.exit(TWO)?[0]);
    t.notify(TWO);
    say!(out, "signal kept {:#x}", t.sys(TWO, [1, 0, 0, 0, 0, 0, 0, nr::NB_WAIT as u64, 0])?[0]);
    Some(())
}

fn suspend_caller(t: &mut Director, out: &mut Line) -> Option<()> {
    t.start(crate::director::HIGH, routines::serve as *const () as u64, &[2, nr::REPLY_RECV as u64]);
    t.start_sys(ONE, [74 + 10, tag(1, 0, 0), 0, 0, 0, 0, 0, nr::CALL as u64, 0]);
    say!(out, "{} ", t.next()?);
    say!(out, "{} ", t.suspend(ONE));
    t.reply(5, &[1]);
    say!(out, "not answered {} ", t.all_blocked()?);
    // Started elsewhere, it can call again.
    let x = t.sys(ONE, [74 + 20, tag(2, 0, 1), 6, 0, 0, 0, 0, nr::CALL as u64, 0])?;
    say!(out, "{}", Words(&x[1..3]));
    Some(())
}

fn tls_base(t: &mut Director, out: &mut Line) -> Option<()> {
    say!(out, "{} ", t.invoke(tcb(ONE), inv::TCBSetTLSBase, &[], &[0x1234_5678_9abc]));
    t.start(ONE, at::t_tls(), &[]);
    say!(out, "after a full write {:#x} ", t.exit(ONE)?[0]);
    t.invoke(tcb(ONE), inv::TCBSetTLSBase, &[], &[0x77]);
    t.write_registers(ONE, true, &[at::t_tls(), STACK_TOP, 0]);
    say!(out, "after a short one {:#x}", t.exit(ONE)?[0]);
    t.write_registers(ONE, false, &[0; 36]);
    Some(())
}

fn flags(t: &mut Director, out: &mut Line) -> Option<()> {
    let set = |clear, set| t.invoke(tcb(TWO), inv::TCBSetFlags, &[], &[clear, set]);
    say!(out, "{} {} {} ", set(0, 0), set(1, 0), set(0, 1));
    say!(out, "unknown {}", set(0, 1 << 20));
    Some(())
}

fn bind_notification(t: &mut Director, out: &mut Line) -> Option<()> {
    let bind = |cap| t.invoke(tcb(ONE), inv::TCBBindNotification, &[cap], &[]);
    say!(out, "bound {} ", bind(10 + 2));
    say!(out, "unbind {} ", t.invoke(tcb(ONE), inv::TCBUnbindNotification, &[], &[]));
    say!(out, "again {} ", t.invoke(tcb(ONE), inv::TCBUnbindNotification, &[], &[]));
    say!(out, "another's {} ", bind(10 + 2));
    say!(out, "no notification {} ", bind(3));
    say!(out, "bind {} ", bind(10 + 1));
    t.notify(ONE);
    let x = t.sys(ONE, [1, 0, 0, 0, 0, 0, 4, nr::RECV as u64, 0])?;
    say!(out, "badge {:#x} ", x[0]);
    let _ = ONE_SC;
    Some(())
}

fn restarted(t: &mut Director, out: &mut Line) -> Option<()> {
    // The program's own beginning, twice; then its data are as they were (the entry code sees to that).
    for _ in 0..3 {
        let mut registers = [0; 36];
        registers[0] = 0x20_0000;
        t.write_registers(ONE, true, &registers);
        say!(out, "{} ", Words(&t.exit(ONE)?));
    }
    Some(())
}
