//! Between protection domains: calls, signals, faults, interrupts.

use sel4::sys::invocation_label as inv;

use super::marks::at;
use super::{Measure, ROUNDS, mark};
use crate::director::{Child, Director, HIGH, ONE};
use crate::raw::{self, nr, svc, tag};

pub const MEASURES: &[(&str, Measure)] = &[
    ("call, active server | reply and receive, back in the caller", call_active),
    ("call, passive server | reply and receive, passive server", call_passive),
    ("signal a higher waiting PD, switch | receive, switch back", signal_switch),
    ("signal a lower waiting PD, no switch | -", signal_lower),
    ("signal a PD that does not wait", signal_not_waiting),
    (
        "NBSendRecv: signal a higher waiting PD, block, switch | the same, signal a lower one",
        signal_and_receive,
    ),
    ("receive without waiting, nothing there", receive_nothing),
    ("fault of a PD to its waiting parent | reply and receive, back in the PD", exception),
    ("memory fault round trip: reply, fault again", memory_fault),
    (
        "interrupt to a waiting PD, from a PD | acknowledge an interrupt by Call | receive, back in the interrupted PD",
        interrupt_call,
    ),
    ("- | acknowledge an interrupt by Send | -", interrupt_send),
    ("- | NBSendRecv: acknowledge an interrupt, block, switch", interrupt_and_receive),
];

/// Registers of a system call on `cap`.
fn registers(cap: u64, number: isize, dest: u64, first: isize) -> [u64; 11] {
    let mut x = [cap, tag(0, 0, 0), 0, 0, 0, 0, 4, number as u64, dest, 0, 0];
    (x[9], x[10]) = (ROUNDS, first as u64);
    x
}

/// Lets a child make one system call `ROUNDS` times; waits until it has.
fn rounds(t: &Director, child: Child, cap: u64, number: isize, dest: u64) -> Option<()> {
    t.start(child, at::b_rounds(), &registers(cap, number, dest, 0));
    t.exit(child).map(|_| ())
}

/// Lets a child receive, and then make one system call for ever.
fn serve(t: &Director, child: Child, routine: u64, number: isize, dest: u64) {
    t.start(child, routine, &registers(1, number, dest, nr::RECV));
}

/// Endpoint of `one` to `high` and to `passive`.
const TO_HIGH: u64 = 74 + 20;
const TO_PASSIVE: u64 = 74 + 30;
/// Notification of `one` to `high`, of `high` to `one`, of a child to the director.
const SIGNAL_HIGH: u64 = 10 + 20;
const SIGNAL_ONE: u64 = 10 + 21;
const SIGNAL_DIRECTOR: u64 = 10 + 10;

fn call_active(t: &Director) -> Option<()> {
    serve(t, HIGH, at::b_serve(), nr::REPLY_RECV, 0);
    rounds(t, ONE, TO_HIGH, nr::CALL, 0)
}

fn call_passive(t: &Director) -> Option<()> {
    // The server marks in its handler.
    rounds(t, ONE, TO_PASSIVE, nr::CALL, 0)
}

fn signal_switch(t: &Director) -> Option<()> {
    serve(t, HIGH, at::b_serve(), nr::RECV, 0);
    rounds(t, ONE, SIGNAL_HIGH, nr::SEND, 0)
}

fn signal_lower(t: &Director) -> Option<()> {
    serve(t, ONE, at::b_quiet(), nr::NB_SEND_RECV, SIGNAL_DIRECTOR);
    // When the answer comes `one` waits.
    t.notify(ONE);
    t.next()?;
    for _ in 0..ROUNDS {
        mark();
        t.notify(ONE);
        mark();
        t.next()?;
    }
    mark();
    Some(())
}

fn signal_not_waiting(t: &Director) -> Option<()> {
    for _ in 0..ROUNDS {
        mark();
        t.notify(ONE);
    }
    mark();
    // Takes it, so that it is not there for the next measurement.
    t.sys(ONE, [1, 0, 0, 0, 0, 0, 4, nr::NB_RECV as u64, 0]).map(|_| ())
}

fn signal_and_receive(t: &Director) -> Option<()> {
    serve(t, HIGH, at::b_serve(), nr::NB_SEND_RECV, SIGNAL_ONE);
    rounds(t, ONE, 1, nr::NB_SEND_RECV, SIGNAL_HIGH)
}

fn receive_nothing(_: &Director) -> Option<()> {
    for _ in 0..ROUNDS {
        mark();
        svc(&mut [1, 0, 0, 0, 0, 0, 4, nr::NB_RECV as u64, 0]);
    }
    mark();
    Some(())
}

fn exception(t: &Director) -> Option<()> {
    t.start(ONE, at::b_undefined(), &[]);
    let mut event = t.next()?;
    for _ in 0..ROUNDS {
        if event.faulting() != Some(ONE) || raw::label(event.info) != 3 {
            return None;
        }
        mark();
        event = t.reply_next(0, &[at::b_undefined()])?;
    }
    Some(())
}

fn memory_fault(t: &Director) -> Option<()> {
    t.start(ONE, raw::at::t_load(), &[0]);
    let mut event = t.next()?;
    for _ in 0..ROUNDS {
        if event.faulting() != Some(ONE) || raw::label(event.info) != 6 {
            return None;
        }
        mark();
        event = t.reply_next(0, &[])?;
    }
    mark();
    Some(())
}

/// The director's interrupt: the UART's.
const IRQ: u64 = 138 + 40;
/// Its mask register, where PDs and where the guest have it.
const MASK: u64 = 0x1080_0038;
pub const MASK_IN_GUEST: u64 = 0x0900_0038;
/// The bit of the interrupt that a UART with nothing to send has.
pub const TRANSMIT: u64 = 1 << 5;

/// Masks the interrupt in the UART.
fn mask() {
    // SAFETY: the system description maps the UART's registers there.
    unsafe { (MASK as *mut u32).write_volatile(0) };
}

/// Takes the interrupt `ROUNDS` times: a mark, what `acknowledge` does and marks, and a receive, which acknowledges if
/// `and_receive` says so. Who raised it goes on then and raises the next.
fn interrupts(t: &Director, and_receive: bool, acknowledge: fn(&Director)) -> Option<()> {
    let plain = [1, 0, 0, 0, 0, 0, 4, nr::RECV as u64, 0];
    let mut receive = plain;
    if and_receive {
        receive = [1, tag(inv::IRQAckIRQ.into(), 0, 0), 0, 0, 0, 0, 4, nr::NB_SEND_RECV as u64, IRQ];
    }
    let mut event = t.receive(plain)?;
    for _ in 0..ROUNDS {
        if event.badge != 1 << 40 {
            return None;
        }
        mask();
        mark();
        acknowledge(t);
        event = t.receive(receive)?;
    }
    mask();
    t.invoke(IRQ, inv::IRQAckIRQ, &[], &[]);
    Some(())
}

fn by_call(t: &Director) {
    t.invoke(IRQ, inv::IRQAckIRQ, &[], &[]);
    mark();
}

fn by_send(t: &Director) {
    t.invoke_by_send(IRQ, inv::IRQAckIRQ, &[]);
    mark();
}

/// As [`interrupts`], acknowledged by Call.
pub fn interrupts_by_call(t: &Director) -> Option<()> {
    interrupts(t, false, by_call)
}

fn interrupt_call(t: &Director) -> Option<()> {
    t.start(ONE, at::b_interrupt(), &[MASK, TRANSMIT]);
    interrupts_by_call(t)
}

fn interrupt_send(t: &Director) -> Option<()> {
    t.start(ONE, at::b_interrupt(), &[MASK, TRANSMIT]);
    interrupts(t, false, by_send)
}

fn interrupt_and_receive(t: &Director) -> Option<()> {
    t.start(ONE, at::b_interrupt(), &[MASK, TRANSMIT]);
    interrupts(t, true, |_| ())
}
