//! Notifications (manual chapter 5).

use crate::director::{Case, Director, HIGH, LOW, Line, ONE, PASSIVE, TWO, Words};
use crate::raw::{nr, tag};
use crate::routines::{self, shared};
use crate::say;

pub const CASES: &[(&str, Case)] = &[
    ("signals to nobody add up", add_up),
    ("a wake-up writes x0 only", wake_up),
    ("NBWait takes what is there", nb_wait),
    ("a bound notification ends a receive", bound),
    ("a bound notification ends a NBSendRecv", bound_nb_send_recv),
    ("Recv on the own notification", recv_own),
    ("signals from several PDs come at once", several),
    ("a signal to a higher priority switches at once", switch_up),
    ("a signal to an equal priority does not", switch_equal),
    ("a signal to a lower priority does not", switch_down),
    ("NBSend signals as Send does", nb_send),
    ("a signal to a passive server", passive),
    ("a suspended waiter leaves the signal", suspended),
];

const OWN: u64 = 1;

fn wait(number: isize) -> [u64; 9] {
    [OWN, 0xd1, 0xd2, 0xd3, 0xd4, 0xd5, 4, number as u64, 0]
}

fn signal(channel: u64) -> [u64; 9] {
    [10 + channel, tag(3, 0, 3), 1, 2, 3, 4, 5, nr::SEND as u64, 0]
}

fn add_up(t: &mut Director, out: &mut Line) -> Option<()> {
    t.notify(TWO);
    t.notify(TWO);
    t.sys(ONE, signal(40))?;
    say!(out, "{:#x} ", t.sys(TWO, wait(nr::WAIT))?[0]);
    say!(out, "then {:#x}", t.sys(TWO, wait(nr::NB_WAIT))?[0]);
    Some(())
}

fn wake_up(t: &mut Director, out: &mut Line) -> Option<()> {
    t.start_sys(TWO, wait(nr::WAIT));
    say!(out, "blocked {} ", t.all_blocked()?);
    t.sys(ONE, signal(40))?;
    say!(out, "{}", Words(&t.exit(TWO)?));
    Some(())
}

fn nb_wait(t: &mut Director, out: &mut Line) -> Option<()> {
    say!(out, "{} ", Words(&t.sys(TWO, wait(nr::NB_WAIT))?));
    t.notify(TWO);
    say!(out, "{}", Words(&t.sys(TWO, wait(nr::NB_WAIT))?));
    Some(())
}

fn bound(t: &mut Director, out: &mut Line) -> Option<()> {
    t.start_sys(HIGH, wait(nr::RECV));
    t.all_blocked()?;
    t.notify(HIGH);
    say!(out, "{}", Words(&t.exit(HIGH)?));
    Some(())
}

fn bound_nb_send_recv(t: &mut Director, out: &mut Line) -> Option<()> {
    t.start_sys(HIGH, [1, tag(0, 0, 0), 2, 3, 4, 5, 4, nr::NB_SEND_RECV as u64, 10 + 10]);
    say!(out, "{} ", t.next()?);
    t.notify(HIGH);
    say!(out, "{}", Words(&t.exit(HIGH)?));
    Some(())
}

fn recv_own(t: &mut Director, out: &mut Line) -> Option<()> {
    t.start_sys(ONE, wait(nr::RECV));
    t.all_blocked()?;
    t.notify(ONE);
    say!(out, "{}", Words(&t.exit(ONE)?));
    Some(())
}

fn several(t: &mut Director, out: &mut Line) -> Option<()> {
    // The director has the highest priority: it sees each at once, unless it is not waiting.
    for child in [ONE, TWO, LOW] {
        t.start_sys(child, signal(10));
        say!(out, "{} ", t.next()?);
        t.exit(child)?;
    }
    Some(())
}

fn traced(t: &Director, out: &mut Line) {
    let _ = t;
    say!(out, "trace");
    (0..shared(0)).for_each(|i| say!(out, " {}", shared(1 + i as usize)));
}

fn run_both(t: &mut Director, out: &mut Line, waiter: u64, sender: u64, channel: u64) -> Option<()> {
    t.start(waiter, routines::wait_trace as *const () as u64, &[50, nr::WAIT as u64]);
    t.all_blocked()?;
    crate::routines::set_shared(0, 0);
    let number = nr::SEND as u64;
    t.start(sender, routines::trace_send_trace as *const () as u64, &[1, 10 + channel, number]);
    t.next()?;
    t.next()?;
    traced(t, out);
    Some(())
}

fn switch_up(t: &mut Director, out: &mut Line) -> Option<()> {
    run_both(t, out, HIGH, ONE, 20)
}

fn switch_equal(t: &mut Director, out: &mut Line) -> Option<()> {
    run_both(t, out, TWO, ONE, 40)
}

fn switch_down(t: &mut Director, out: &mut Line) -> Option<()> {
    run_both(t, out, LOW, HIGH, 24)
}

fn nb_send(t: &mut Director, out: &mut Line) -> Option<()> {
    let mut x = signal(40);
    x[7] = nr::NB_SEND as u64;
    t.sys(ONE, x)?;
    say!(out, "{:#x}", t.sys(TWO, wait(nr::WAIT))?[0]);
    Some(())
}

fn passive(t: &mut Director, out: &mut Line) -> Option<()> {
    t.notify(PASSIVE);
    say!(out, "idle runs {} ", t.all_blocked()?);
    t.sys(ONE, signal(30))?;
    traced(t, out);
    Some(())
}

fn suspended(t: &mut Director, out: &mut Line) -> Option<()> {
    t.start_sys(TWO, wait(nr::WAIT));
    t.all_blocked()?;
    t.suspend(TWO);
    t.notify(TWO);
    say!(out, "blocked {} ", t.all_blocked()?);
    say!(out, "resume {} ", t.resume(TWO));
    say!(out, "{:#x}", t.exit(TWO)?[0]);
    Some(())
}
