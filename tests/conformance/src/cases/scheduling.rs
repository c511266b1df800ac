//! Priorities, budgets and scheduling contexts (manual 6.1). Results say what ran before what, never how long.

use sel4::sys::invocation_label as inv;

use crate::director::{
    BUDGET, Case, Director, HIGH, HIGH_SC, IDLE, LOW, LOW_SC, Line, ONE, ONE_SC, SELF_TCB, TWO, tcb,
};
use crate::raw::at;
use crate::routines::{self, flag, flag_address, shared};
use crate::say;

pub const CASES: &[(&str, Case)] = &[
    ("threads run by priority", by_priority),
    ("equal priorities run in order", in_order),
    ("Yield lets an equal priority run", yields),
    ("round robin between equal priorities", round_robin),
    ("an exhausted budget lets lower priorities run", exhausted),
    ("a budget comes back every period", refilled),
    ("a timeout endpoint learns of an exhausted budget", timeout_fault),
    ("a changed priority takes effect at once", raised),
    ("SetPriority is bounded by the authority", bounded),
    ("SetMCPriority and its bound", mcp),
    ("SetSchedParams with wrong capabilities", sched_params),
    ("Consumed counts and starts again", consumed),
    ("Consumed in a call counts the server's time", consumed_by_server),
    ("YieldTo a lower priority", yield_to_lower),
    ("YieldTo a thread that is not ready", yield_to_blocked),
    ("YieldTo oneself or upwards", yield_to_errors),
    ("an unbound thread does not run until bound", unbound),
    ("Bind refuses what is bound", bind_errors),
];

const EXIT: fn(u64) -> u64 = |_| routines::trace_exit as *const () as u64;

fn traced(out: &mut Line) {
    say!(out, "trace");
    (0..shared(0)).for_each(|i| say!(out, " {}", shared(1 + i as usize)));
}

fn by_priority(t: &mut Director, out: &mut Line) -> Option<()> {
    for child in [LOW, ONE, IDLE, HIGH, BUDGET] {
        t.start(child, EXIT(child), &[child]);
    }
    for _ in 0..5 {
        t.next()?;
    }
    traced(out);
    Some(())
}

fn in_order(t: &mut Director, out: &mut Line) -> Option<()> {
    for (first, second) in [(ONE, TWO), (TWO, ONE)] {
        t.start(first, EXIT(first), &[first]);
        t.start(second, EXIT(second), &[second]);
        t.next()?;
        t.next()?;
    }
    traced(out);
    Some(())
}

fn yields(t: &mut Director, out: &mut Line) -> Option<()> {
    t.start(ONE, routines::trace_yield_trace as *const () as u64, &[10]);
    t.start(TWO, routines::trace_yield_trace as *const () as u64, &[20]);
    t.next()?;
    t.next()?;
    traced(out);
    Some(())
}

fn round_robin(t: &mut Director, out: &mut Line) -> Option<()> {
    t.start(ONE, routines::meet as *const () as u64, &[1, 2]);
    t.start(TWO, routines::meet as *const () as u64, &[2, 1]);
    let (first, second) = (t.next()?, t.next()?);
    let both = first.faulting()? + second.faulting()?;
    say!(out, "both end {}", both == ONE + TWO);
    Some(())
}

/// Long enough for every budget to be whole again.
fn rest(t: &Director) {
    t.set_timer(120_000);
    t.next();
    t.set_timer(3_000_000);
    t.invoke(138, inv::IRQAckIRQ, &[], &[]);
}

fn exhausted(t: &mut Director, out: &mut Line) -> Option<()> {
    rest(t);
    t.start(BUDGET, at::t_count(), &[flag_address(0)]);
    t.start(LOW, EXIT(LOW), &[LOW]);
    say!(out, "low ends {} ", t.next()?.exited(LOW).is_some());
    say!(out, "budget ran {}", flag(0) > 0);
    Some(())
}

fn refilled(t: &mut Director, out: &mut Line) -> Option<()> {
    t.start(BUDGET, routines::count_gaps as *const () as u64, &[4, 20_000]);
    say!(out, "gaps {}", t.exit(BUDGET)?[0]);
    Some(())
}

fn timeout_fault(t: &mut Director, out: &mut Line) -> Option<()> {
    rest(t);
    say!(out, "{} ", t.invoke(tcb(BUDGET), inv::TCBSetTimeoutEndpoint, &[1], &[]));
    t.start(BUDGET, at::t_spin(), &[]);
    let event = t.next()?;
    say!(out, "badge {:#x} {:#x} ", event.badge, event.info);
    say!(out, "sc {:#x} consumed {} ", event.mr[0], event.mr[1] > 0);
    t.suspend(BUDGET);
    say!(out, "{}", t.invoke(tcb(BUDGET), inv::TCBSetTimeoutEndpoint, &[9], &[]));
    Some(())
}

fn set_priority(t: &Director, child: u64, priority: u64) -> crate::director::Answer {
    t.invoke(tcb(child), inv::TCBSetPriority, &[SELF_TCB], &[priority])
}

fn raised(t: &mut Director, out: &mut Line) -> Option<()> {
    t.start(LOW, EXIT(LOW), &[LOW]);
    t.start(ONE, EXIT(ONE), &[ONE]);
    say!(out, "{} ", set_priority(t, LOW, 110));
    t.next()?;
    t.next()?;
    say!(out, "{} ", set_priority(t, LOW, 50));
    traced(out);
    Some(())
}

fn bounded(t: &mut Director, out: &mut Line) -> Option<()> {
    say!(out, "201 {} ", set_priority(t, LOW, 201));
    say!(out, "200 {} ", set_priority(t, LOW, 200));
    say!(out, "256 {} ", set_priority(t, LOW, 256));
    say!(out, "51 by low {} ", t.invoke(tcb(ONE), inv::TCBSetPriority, &[tcb(LOW)], &[51]));
    say!(out, "no authority {} ", t.invoke(tcb(LOW), inv::TCBSetPriority, &[3], &[40]));
    say!(out, "empty authority {} ", t.invoke(tcb(LOW), inv::TCBSetPriority, &[9], &[40]));
    say!(out, "back {}", set_priority(t, LOW, 50));
    Some(())
}

fn mcp(t: &mut Director, out: &mut Line) -> Option<()> {
    let set = |mcp| t.invoke(tcb(LOW), inv::TCBSetMCPriority, &[SELF_TCB], &[mcp]);
    say!(out, "201 {} ", set(201));
    say!(out, "60 {} ", set(60));
    say!(out, "60 by low {} ", t.invoke(tcb(ONE), inv::TCBSetMCPriority, &[tcb(LOW)], &[60]));
    say!(out, "61 by low {} ", t.invoke(tcb(ONE), inv::TCBSetMCPriority, &[tcb(LOW)], &[61]));
    say!(out, "back {} ", set(50));
    say!(out, "{}", t.invoke(tcb(ONE), inv::TCBSetMCPriority, &[SELF_TCB], &[100]));
    Some(())
}

fn sched_params(t: &mut Director, out: &mut Line) -> Option<()> {
    let set = |caps: &[u64], words: &[u64]| t.invoke(tcb(LOW), inv::TCBSetSchedParams, caps, words);
    say!(out, "mcp {} ", set(&[SELF_TCB, LOW_SC, 1], &[201, 50]));
    say!(out, "priority {} ", set(&[SELF_TCB, LOW_SC, 1], &[50, 201]));
    say!(out, "sc {} ", set(&[SELF_TCB, 3, 1], &[50, 50]));
    say!(out, "other's sc {} ", set(&[SELF_TCB, ONE_SC, 1], &[50, 50]));
    say!(out, "endpoint {} ", set(&[SELF_TCB, LOW_SC, 3], &[50, 50]));
    say!(out, "two caps {}", set(&[SELF_TCB, LOW_SC], &[50, 50]));
    Some(())
}

fn consumed(t: &mut Director, out: &mut Line) -> Option<()> {
    let read = || t.invoke(ONE_SC, inv::SchedContextConsumed, &[], &[]);
    read();
    let (idle, info) = (read().mr[0], read().info);
    t.start(ONE, routines::work as *const () as u64, &[3_000]);
    t.exit(ONE)?;
    let busy = read().mr[0];
    say!(out, "{info:#x} idle {idle} busy {} again {}", busy >= 2_000, read().mr[0]);
    Some(())
}

fn consumed_by_server(t: &mut Director, out: &mut Line) -> Option<()> {
    let read = |sc| t.invoke(sc, inv::SchedContextConsumed, &[], &[]).mr[0];
    let _ = [read(ONE_SC), read(HIGH_SC)];
    // HIGH is active: it serves on its own time.
    t.start(HIGH, routines::work as *const () as u64, &[2_000]);
    t.exit(HIGH)?;
    say!(out, "one {} high {}", read(ONE_SC), read(HIGH_SC) >= 1_000);
    Some(())
}

fn yield_to_lower(t: &mut Director, out: &mut Line) -> Option<()> {
    t.start(ONE, EXIT(ONE), &[ONE]);
    let answer = t.invoke(ONE_SC, inv::SchedContextYieldTo, &[], &[]);
    say!(out, "{:#x} before it ran {} ", answer.info, shared(0) == 0);
    t.next()?;
    traced(out);
    Some(())
}

fn yield_to_blocked(t: &mut Director, out: &mut Line) -> Option<()> {
    let answer = t.invoke(LOW_SC, inv::SchedContextYieldTo, &[], &[]);
    say!(out, "{:#x}", answer.info);
    Some(())
}

fn yield_to_errors(t: &mut Director, out: &mut Line) -> Option<()> {
    say!(out, "unbound: {} ", t.invoke(ONE_SC, inv::SchedContextUnbind, &[], &[]));
    say!(out, "{} ", t.invoke(ONE_SC, inv::SchedContextYieldTo, &[], &[]));
    say!(out, "{} ", t.invoke(ONE_SC, inv::SchedContextBind, &[tcb(ONE)], &[]));
    say!(out, "{:#x}", t.invoke(ONE_SC, inv::SchedContextYieldTo, &[], &[]).info);
    Some(())
}

fn unbound(t: &mut Director, out: &mut Line) -> Option<()> {
    say!(out, "{} ", t.invoke(ONE_SC, inv::SchedContextUnbindObject, &[tcb(ONE)], &[]));
    t.start(ONE, EXIT(ONE), &[ONE]);
    say!(out, "does not run {} ", t.all_blocked()?);
    say!(out, "{} ", t.invoke(ONE_SC, inv::SchedContextBind, &[tcb(ONE)], &[]));
    say!(out, "runs {}", t.exit(ONE)?[0] == ONE);
    Some(())
}

fn bind_errors(t: &mut Director, out: &mut Line) -> Option<()> {
    say!(out, "bound {} ", t.invoke(ONE_SC, inv::SchedContextBind, &[tcb(ONE)], &[]));
    say!(out, "other {} ", t.invoke(ONE_SC, inv::SchedContextBind, &[tcb(TWO)], &[]));
    say!(out, "no thread {} ", t.invoke(ONE_SC, inv::SchedContextBind, &[3], &[]));
    say!(out, "unbind other {}", t.invoke(ONE_SC, inv::SchedContextUnbindObject, &[tcb(TWO)], &[]));
    Some(())
}
