//! Bad capabilities (manual 3.4, "Lookup Failure Description"; 6.2.1, "Capability Faults").

use crate::director::{Case, Director, Event, Line, ONE, ONE_VSPACE, Words};
use crate::raw::{at, label, length, nr, tag};
use crate::say;

pub const CASES: &[(&str, Case)] = &[
    ("Call on an empty slot", call_empty),
    ("Send and NBSend on an empty slot", send_empty),
    ("Recv on an empty slot", recv_empty),
    ("Wait and NBWait on an empty slot", wait_empty),
    ("Recv with an empty reply slot", recv_no_reply),
    ("Recv with a reply capability that is none", recv_bad_reply),
    ("ReplyRecv with an empty reply slot", reply_recv_no_reply),
    ("Call on a pointer that does not resolve", call_unresolved),
    ("Send and NBSend on a pointer that does not resolve", send_unresolved),
    ("Recv on a pointer that does not resolve", recv_unresolved),
    ("NBSendRecv to a pointer that does not resolve", nb_send_recv_unresolved),
    ("Recv on a capability that is no endpoint", recv_other),
    ("Wait on somebody else's bound notification", wait_bound),
    ("an extra capability that does not resolve", extra_unresolved),
    ("Call on a notification signals", call_notification),
    ("Call on the reply capability without a caller", call_reply),
    ("Call on an address space with an unknown label", call_vspace),
    ("a child's own fault endpoint takes any message", forged),
    ("pointers to the user's slots ignore their low bits", user_slots),
    ("unknown labels and short messages", labels),
];

const EMPTY: u64 = 9;
/// Top six bits zero, but not within the nine that the Microkit node uses.
const UNRESOLVED: u64 = 0x1234;

/// Fault message with the address of the program counter made relative to `t_sys`.
fn show(out: &mut Line, event: &Event) {
    let mut words = event.mr;
    words[0] = words[0].wrapping_sub(at::t_sys());
    say!(out, "{}:{} ", label(event.info), Words(&words[..length(event.info).min(13)]));
}

/// A system call of a child that is to fault; `resume` is not tried.
fn faulting(t: &mut Director, out: &mut Line, x: [u64; 9]) -> Option<()> {
    t.start_sys(ONE, x);
    let event = t.next()?;
    match event.exited(ONE) {
        Some(x) => say!(out, "returns {} ", Words(&x)),
        None => show(out, &event),
    }
    Some(())
}

fn with(number: isize, x0: u64, x6: u64) -> [u64; 9] {
    [x0, tag(1, 0, 1), 0xc2, 0xc3, 0xc4, 0xc5, x6, number as u64, 74 + 10]
}

fn call_empty(t: &mut Director, out: &mut Line) -> Option<()> {
    faulting(t, out, with(nr::CALL, EMPTY, 0))
}

fn send_empty(t: &mut Director, out: &mut Line) -> Option<()> {
    faulting(t, out, with(nr::SEND, EMPTY, 0))?;
    faulting(t, out, with(nr::NB_SEND, EMPTY, 0))
}

fn recv_empty(t: &mut Director, out: &mut Line) -> Option<()> {
    faulting(t, out, with(nr::RECV, EMPTY, 4))?;
    faulting(t, out, with(nr::NB_RECV, EMPTY, 4))
}

fn wait_empty(t: &mut Director, out: &mut Line) -> Option<()> {
    faulting(t, out, with(nr::WAIT, EMPTY, 0))?;
    faulting(t, out, with(nr::NB_WAIT, EMPTY, 0))
}

fn recv_no_reply(t: &mut Director, out: &mut Line) -> Option<()> {
    // The receiving capability must be an endpoint: the director's.
    faulting(t, out, with(nr::RECV, 74 + 20, EMPTY))
}

fn recv_bad_reply(t: &mut Director, out: &mut Line) -> Option<()> {
    faulting(t, out, with(nr::RECV, 74 + 20, 3))
}

fn reply_recv_no_reply(t: &mut Director, out: &mut Line) -> Option<()> {
    faulting(t, out, with(nr::REPLY_RECV, 74 + 20, EMPTY))
}

fn call_unresolved(t: &mut Director, out: &mut Line) -> Option<()> {
    faulting(t, out, with(nr::CALL, UNRESOLVED, 0))?;
    faulting(t, out, with(nr::CALL, 33 << 58, 0))
}

fn send_unresolved(t: &mut Director, out: &mut Line) -> Option<()> {
    faulting(t, out, with(nr::SEND, UNRESOLVED, 0))?;
    faulting(t, out, with(nr::NB_SEND, UNRESOLVED, 0))
}

fn recv_unresolved(t: &mut Director, out: &mut Line) -> Option<()> {
    faulting(t, out, with(nr::RECV, UNRESOLVED, 4))?;
    faulting(t, out, with(nr::NB_RECV, UNRESOLVED, 4))
}

fn nb_send_recv_unresolved(t: &mut Director, out: &mut Line) -> Option<()> {
    // The send half is dropped; the receive half waits for the notification.
    t.start_sys(ONE, [1, tag(1, 0, 0), 2, 3, 4, 5, 4, nr::NB_SEND_RECV as u64, UNRESOLVED]);
    say!(out, "blocked {} ", t.all_blocked()?);
    t.notify(ONE);
    say!(out, "{}", Words(&t.exit(ONE)?));
    Some(())
}

fn recv_other(t: &mut Director, out: &mut Line) -> Option<()> {
    faulting(t, out, with(nr::RECV, 3, 4))?;
    faulting(t, out, with(nr::WAIT, 4, 4))
}

fn wait_bound(t: &mut Director, out: &mut Line) -> Option<()> {
    faulting(t, out, with(nr::WAIT, 10 + 10, 0))?;
    faulting(t, out, with(nr::NB_WAIT, 10 + 10, 0))?;
    faulting(t, out, with(nr::RECV, 10 + 10, 4))
}

fn extra_unresolved(t: &mut Director, out: &mut Line) -> Option<()> {
    let routine = crate::routines::call_and_show as *const () as u64;
    for cap in [UNRESOLVED, EMPTY] {
        t.start(ONE, routine, &[tag(3, 1, 1), cap, 3, 74 + 10]);
        let event = t.next()?;
        if event.faulting().is_some() {
            say!(out, "fault {}:{} ", label(event.info), Words(&event.mr[1..length(event.info)]));
        } else {
            say!(out, "{event} ");
        }
    }
    Some(())
}

fn call_notification(t: &mut Director, out: &mut Line) -> Option<()> {
    t.start_sys(ONE, [10 + 10, tag(77, 0, 2), 1, 2, 3, 4, 5, nr::CALL as u64, 0]);
    say!(out, "{} ", t.next()?);
    say!(out, "{}", Words(&t.exit(ONE)?));
    Some(())
}

fn call_reply(t: &mut Director, out: &mut Line) -> Option<()> {
    faulting(t, out, with(nr::CALL, 4, 0))?;
    faulting(t, out, with(nr::SEND, 4, 0))
}

fn call_vspace(t: &mut Director, out: &mut Line) -> Option<()> {
    faulting(t, out, with(nr::CALL, 3, 0))?;
    say!(out, "{} ", t.invoke(ONE_VSPACE, 2, &[], &[]));
    say!(out, "{}", t.invoke(ONE_VSPACE, 0, &[], &[]));
    Some(())
}

fn forged(t: &mut Director, out: &mut Line) -> Option<()> {
    t.start_sys(ONE, [2, tag(99, 0, 2), 7, 8, 0, 0, 0, nr::CALL as u64, 0]);
    let event = t.next()?;
    say!(out, "{event} ");
    t.reply(3, &[4]);
    say!(out, "{}", Words(&t.exit(ONE)?[..3]));
    Some(())
}

fn user_slots(t: &mut Director, out: &mut Line) -> Option<()> {
    use sel4::sys::invocation_label::SchedContextConsumed;
    let answer = t.invoke(crate::director::ONE_SC | 0x3ff_ffff, SchedContextConsumed, &[], &[]);
    say!(out, "{:#x} ", answer.info);
    let answer = t.invoke(9 << 58, SchedContextConsumed, &[], &[]);
    say!(out, "{answer}");
    Some(())
}

fn labels(t: &mut Director, out: &mut Line) -> Option<()> {
    use crate::director::{ONE_SC, tcb, vcpu};
    use sel4::sys::invocation_label as inv;
    for cap in [tcb(ONE), ONE_SC, vcpu(30), 138, 7] {
        say!(out, "{} {} ", t.invoke(cap, 0, &[], &[]), t.invoke(cap, 1, &[], &[]));
    }
    let short = [
        (tcb(ONE), inv::TCBReadRegisters),
        (tcb(ONE), inv::TCBWriteRegisters),
        (tcb(ONE), inv::TCBCopyRegisters),
        (tcb(ONE), inv::TCBSetPriority),
        (tcb(ONE), inv::TCBSetFlags),
        (tcb(ONE), inv::TCBSetTLSBase),
        (ONE_SC, inv::SchedContextBind),
        (vcpu(30), inv::ARMVCPUReadReg),
        (vcpu(30), inv::ARMVCPUWriteReg),
        (vcpu(30), inv::ARMVCPUInjectIRQ),
        (vcpu(30), inv::ARMVCPUAckVPPI),
        (3, inv::ARMVSpaceClean_Data),
        (7, inv::ARMSMCCall),
    ];
    say!(out, "short");
    for (cap, method) in short {
        say!(out, " {}", label(t.invoke(cap, method, &[], &[]).info));
    }
    Some(())
}
