//! Who waits at an endpoint, and who is served (manual 4.2).

use crate::director::{Case, Director, HIGH, LOW, Line, ONE, TWO, Words};
use crate::raw::{nr, tag};
use crate::say;

pub const CASES: &[(&str, Case)] = &[
    ("Send waits for a receiver", send_waits),
    ("NBSend without a receiver is dropped", nb_send_dropped),
    ("NBSend with a receiver arrives", nb_send_arrives),
    ("senders are served by priority, then in order", order),
    ("NBRecv without a sender changes x0 only", nb_recv_empty),
    ("NBRecv takes a waiting sender", nb_recv_sender),
    ("a suspended sender leaves the queue", suspended_sender),
    ("a changed priority moves in the queue", reordered),
    ("a notification wins over waiting senders", notification_first),
    ("Wait on an endpoint takes a message", wait_endpoint),
];

fn to_high(info: u64, word: u64, number: isize) -> [u64; 9] {
    [74 + 20, info, word, 0, 0, 0, 0, number as u64, 0]
}

fn recv(number: isize) -> [u64; 9] {
    [1, 0xb1, 0xb2, 0xb3, 0xb4, 0xb5, 4, number as u64, 0]
}

fn send_waits(t: &mut Director, out: &mut Line) -> Option<()> {
    t.start_sys(ONE, to_high(tag(1, 0, 1), 5, nr::SEND));
    say!(out, "blocked {} ", t.all_blocked()?);
    t.start_sys(HIGH, recv(nr::RECV));
    say!(out, "{} ", Words(&t.exit(HIGH)?));
    say!(out, "sender goes on {}", t.exit(ONE).is_some());
    Some(())
}

fn nb_send_dropped(t: &mut Director, out: &mut Line) -> Option<()> {
    say!(out, "{} ", Words(&t.sys(ONE, to_high(tag(1, 0, 1), 5, nr::NB_SEND))?));
    t.start_sys(HIGH, recv(nr::RECV));
    say!(out, "nothing comes {}", t.all_blocked()?);
    Some(())
}

fn nb_send_arrives(t: &mut Director, out: &mut Line) -> Option<()> {
    t.start_sys(HIGH, recv(nr::RECV));
    t.start_sys(ONE, to_high(tag(1, 0, 1), 5, nr::NB_SEND));
    say!(out, "{} ", Words(&t.exit(HIGH)?));
    say!(out, "sender goes on {}", t.exit(ONE).is_some());
    Some(())
}

/// LOW, TWO and ONE wait, in this order.
fn three_wait(t: &mut Director) -> Option<()> {
    for (child, word) in [(LOW, 4), (TWO, 2), (ONE, 1)] {
        t.start_sys(child, to_high(tag(1, 0, 1), word, nr::SEND));
        t.all_blocked()?;
    }
    Some(())
}

/// HIGH receives until nothing comes.
fn drain(t: &mut Director, out: &mut Line) -> Option<()> {
    for _ in 0..4 {
        let x = t.sys(HIGH, recv(nr::NB_RECV))?;
        if x[0] == 0 {
            say!(out, "none ");
        } else {
            say!(out, "{:#x}:{} ", x[0], x[2]);
        }
    }
    Some(())
}

fn order(t: &mut Director, out: &mut Line) -> Option<()> {
    three_wait(t)?;
    drain(t, out)
}

fn nb_recv_empty(t: &mut Director, out: &mut Line) -> Option<()> {
    say!(out, "{}", Words(&t.sys(HIGH, recv(nr::NB_RECV))?));
    Some(())
}

fn nb_recv_sender(t: &mut Director, out: &mut Line) -> Option<()> {
    t.start_sys(ONE, to_high(tag(1, 0, 1), 5, nr::SEND));
    t.all_blocked()?;
    say!(out, "{}", Words(&t.sys(HIGH, recv(nr::NB_RECV))?));
    Some(())
}

fn suspended_sender(t: &mut Director, out: &mut Line) -> Option<()> {
    three_wait(t)?;
    t.suspend(TWO);
    drain(t, out)
}

fn reordered(t: &mut Director, out: &mut Line) -> Option<()> {
    use crate::director::{SELF_TCB, tcb};
    use sel4::sys::invocation_label as inv;
    three_wait(t)?;
    let answer = t.invoke(tcb(LOW), inv::TCBSetPriority, &[SELF_TCB], &[120]);
    say!(out, "{answer} ");
    drain(t, out)?;
    t.invoke(tcb(LOW), inv::TCBSetPriority, &[SELF_TCB], &[50]);
    Some(())
}

fn notification_first(t: &mut Director, out: &mut Line) -> Option<()> {
    t.start_sys(ONE, to_high(tag(1, 0, 1), 5, nr::SEND));
    t.all_blocked()?;
    t.notify(HIGH);
    say!(out, "{} ", Words(&t.sys(HIGH, recv(nr::RECV))?));
    t.start_sys(HIGH, recv(nr::RECV));
    say!(out, "{}", Words(&t.exit(HIGH)?));
    Some(())
}

fn wait_endpoint(t: &mut Director, out: &mut Line) -> Option<()> {
    t.start_sys(ONE, to_high(tag(1, 0, 1), 5, nr::CALL));
    t.all_blocked()?;
    say!(out, "{} ", Words(&t.sys(HIGH, recv(nr::WAIT))?));
    // Without a reply object nobody can answer the caller.
    say!(out, "caller blocked {}", t.all_blocked()?);
    Some(())
}
