//! Protected calls: messages and answers (manual 4.2, "Message Passing").

use crate::director::{Case, Director, HIGH, LOW, Line, ONE, PASSIVE, Words};
use crate::raw::{self, label, length, nr, tag};
use crate::routines::{self, pattern, shared};
use crate::say;

pub const CASES: &[(&str, Case)] = &[
    ("call and answer in registers", registers),
    ("registers beyond a short answer keep what they had", short_answer),
    ("every message length from 0 to 120", lengths),
    ("lengths beyond 120 are cut", too_long),
    ("a label has 52 bits", wide_label),
    ("the kernel leaves the first words of the buffer alone", buffer_words),
    ("capability counts of a tag are dropped", dropped_counts),
    ("a capability to the endpoint itself arrives as a badge", unwrapped),
    ("a server by ReplyRecv", serve_reply_recv),
    ("a server by NBSendRecv to the reply capability", serve_nb_send_recv),
    ("a reply by NBSend", reply_nb_send),
    ("ReplyRecv without a caller only receives", reply_nobody),
    ("a caller not answered is dropped by the next receive", dropped_caller),
    ("a dropped caller calls again when resumed", resumed_caller),
    ("a call to a passive server", passive),
    ("calls to a passive server from three priorities", passive_three),
    ("a long call to a passive server", passive_long),
    ("NBSendWait sends and waits", nb_send_wait),
];

/// `child` calls the director with four words in registers.
fn call(child: u64, info: u64, words: [u64; 4]) -> [u64; 9] {
    let _ = child;
    [74 + 10, info, words[0], words[1], words[2], words[3], 0xa6, nr::CALL as u64, 0xa8]
}

fn registers(t: &mut Director, out: &mut Line) -> Option<()> {
    t.start_sys(ONE, call(ONE, tag(5, 0, 4), [1, 2, 3, 4]));
    let event = t.next()?;
    say!(out, "{event}; ");
    t.reply(7, &[11, 12, 13, 14]);
    say!(out, "answer {}", Words(&t.exit(ONE)?));
    Some(())
}

fn short_answer(t: &mut Director, out: &mut Line) -> Option<()> {
    for count in 0..4 {
        t.start_sys(ONE, call(ONE, tag(5, 0, 4), [1, 2, 3, 4]));
        t.next()?;
        t.reply(0, &[11, 12, 13, 14][..count]);
        say!(out, "{} ", Words(&t.exit(ONE)?));
    }
    Some(())
}

fn lengths(t: &mut Director, out: &mut Line) -> Option<()> {
    t.start(ONE, routines::call_lengths as *const () as u64, &[0, 120]);
    for n in 0..=120 {
        let event = t.next()?;
        let count = length(event.info);
        let word = |i: usize| if i < 4 { event.mr[i] } else { raw::get_mr(i) };
        let wrong = (0..count).find(|i| word(*i) != pattern(n, *i));
        if label(event.info) != n || count as u64 != n || wrong.is_some() {
            say!(out, "{n}: label {} length {count} wrong {wrong:?}", label(event.info));
            return Some(());
        }
        let mut x = [4, tag(n, 0, n), 0, 0, 0, 0, 0, nr::SEND as u64, 0];
        for i in 0..count {
            raw::set_mr(i, !pattern(n, i));
            if i < 4 {
                x[2 + i] = !pattern(n, i);
            }
        }
        raw::svc(&mut x);
    }
    say!(out, "121 lengths, end {}", Words(&t.exit(ONE)?[..3]));
    Some(())
}

fn too_long(t: &mut Director, out: &mut Line) -> Option<()> {
    for n in [121, 124, 127] {
        t.start_sys(ONE, call(ONE, tag(1, 0, n), [1, 2, 3, 4]));
        let event = t.next()?;
        say!(out, "{n} as {}; ", length(event.info));
        t.receive([4, tag(1, 0, n), 5, 6, 7, 8, 0, nr::SEND as u64, 0]);
        say!(out, "back as {}; ", length(t.exit(ONE)?[1]));
    }
    Some(())
}

fn wide_label(t: &mut Director, out: &mut Line) -> Option<()> {
    t.start_sys(ONE, call(ONE, tag((1 << 52) - 1, 0, 0), [0; 4]));
    say!(out, "{:#x} ", t.next()?.info);
    t.reply(0xa_bcde_f012_3456, &[]);
    say!(out, "{:#x}", t.exit(ONE)?[1]);
    Some(())
}

fn buffer_words(t: &mut Director, out: &mut Line) -> Option<()> {
    t.start(ONE, routines::call_and_show as *const () as u64, &[tag(3, 0, 6), 0, 0, 74 + 10]);
    let event = t.next()?;
    say!(out, "{} ", event.message());
    raw::set_mr(4, 0x44);
    raw::set_mr(5, 0x55);
    t.reply(9, &[1, 2, 3, 4]);
    say!(out, "{}", Words(&t.exit(ONE)?));
    Some(())
}

fn dropped_counts(t: &mut Director, out: &mut Line) -> Option<()> {
    // Extra capability 0 is the sender's address space; the receiver has no slot for it.
    t.start(ONE, routines::call_and_show as *const () as u64, &[tag(3, 1, 2) | 7 << 9, 3, 3, 74 + 10]);
    say!(out, "{:#x} ", t.next()?.info);
    t.reply(0, &[]);
    say!(out, "{:#x}", t.exit(ONE)?[1]);
    Some(())
}

fn unwrapped(t: &mut Director, out: &mut Line) -> Option<()> {
    t.start(ONE, routines::call_and_show as *const () as u64, &[tag(3, 2, 1), 74 + 10, 74 + 10, 74 + 10]);
    let event = t.next()?;
    say!(out, "{:#x} badges {:#x} {:#x}", event.info, raw::get_cap(0), raw::get_cap(1));
    t.reply(0, &[]);
    t.exit(ONE)?;
    Some(())
}

fn serve(t: &mut Director, out: &mut Line, number: isize) -> Option<()> {
    t.start(HIGH, routines::serve as *const () as u64, &[3, number as u64]);
    for word in [10, 20, 30] {
        t.start_sys(ONE, [74 + 20, tag(2, 0, 1), word, 0, 0, 0, 0, nr::CALL as u64, 0]);
        let mut event = t.next()?;
        if event.exited(HIGH).is_some() {
            say!(out, "server ends ");
            event = t.next()?;
        }
        let x = event.exited(ONE)?;
        say!(out, "{:x}:{} ", x[1], x[2]);
    }
    say!(out, "trace {}", Words(&[1, 2, 3, 4, 5, 6].map(shared)));
    Some(())
}

fn serve_reply_recv(t: &mut Director, out: &mut Line) -> Option<()> {
    serve(t, out, nr::REPLY_RECV)
}

fn serve_nb_send_recv(t: &mut Director, out: &mut Line) -> Option<()> {
    serve(t, out, nr::NB_SEND_RECV)
}

fn reply_nb_send(t: &mut Director, out: &mut Line) -> Option<()> {
    t.start_sys(ONE, call(ONE, tag(5, 0, 0), [0; 4]));
    t.next()?;
    t.receive([4, tag(6, 0, 1), 66, 0, 0, 0, 0, nr::NB_SEND as u64, 0]);
    say!(out, "{}", Words(&t.exit(ONE)?[..3]));
    Some(())
}

fn reply_nobody(t: &mut Director, out: &mut Line) -> Option<()> {
    t.start_sys(ONE, call(ONE, tag(5, 0, 1), [42, 0, 0, 0]));
    say!(out, "{}", t.reply_next(3, &[1])?);
    t.reply(0, &[]);
    t.exit(ONE)?;
    Some(())
}

fn dropped_caller(t: &mut Director, out: &mut Line) -> Option<()> {
    t.start_sys(ONE, call(ONE, tag(5, 0, 0), [0; 4]));
    t.next()?;
    say!(out, "blocked {} ", t.all_blocked()?);
    // The caller is gone: the answer goes to the idle PD's fault, which this ends.
    t.reply(1, &[]);
    say!(out, "still blocked {}", t.all_blocked()?);
    Some(())
}

fn resumed_caller(t: &mut Director, out: &mut Line) -> Option<()> {
    t.start_sys(ONE, call(ONE, tag(5, 0, 1), [9, 0, 0, 0]));
    t.next()?;
    t.all_blocked()?;
    say!(out, "resume {} ", t.resume(ONE));
    say!(out, "{} ", t.next()?);
    t.reply(1, &[8]);
    say!(out, "{}", Words(&t.exit(ONE)?[..3]));
    Some(())
}

fn passive(t: &mut Director, out: &mut Line) -> Option<()> {
    let _ = PASSIVE;
    let x = t.sys(ONE, [74 + 30, tag(5, 0, 3), 1, 2, 3, 0, 0, nr::CALL as u64, 0])?;
    say!(out, "{}", Words(&x[..4]));
    Some(())
}

fn passive_three(t: &mut Director, out: &mut Line) -> Option<()> {
    for (i, child) in [LOW, ONE, HIGH, LOW].into_iter().enumerate() {
        let x = t.sys(child, [74 + 30, tag(5, 0, 1), i as u64, 0, 0, 0, 0, nr::CALL as u64, 0])?;
        say!(out, "{} ", Words(&x[1..4]));
    }
    Some(())
}

fn passive_long(t: &mut Director, out: &mut Line) -> Option<()> {
    t.start(ONE, routines::call_and_show as *const () as u64, &[tag(3, 0, 100), 0, 0, 74 + 30]);
    say!(out, "{}", Words(&t.exit(ONE)?[1..4]));
    Some(())
}

fn nb_send_wait(t: &mut Director, out: &mut Line) -> Option<()> {
    // ONE sends to HIGH's endpoint (x6) and waits on its own notification (x0).
    t.start_sys(HIGH, [1, 0, 0, 0, 0, 0, 4, nr::RECV as u64, 0]);
    t.start_sys(ONE, [1, tag(4, 0, 2), 21, 22, 0, 0, 74 + 20, nr::NB_SEND_WAIT as u64, 0]);
    say!(out, "server got {} ", Words(&t.exit(HIGH)?[..4]));
    t.notify(ONE);
    say!(out, "badge {:#x}", t.exit(ONE)?[0]);
    Some(())
}
