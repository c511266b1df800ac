//! The cases, by subject. Where a case follows a document it names it; `manual` is the seL4 manual, `sheet` the table of
//! AArch64 facts in docs/.

mod calls;
mod capabilities;
mod faults;
mod guests;
mod machine;
mod notifications;
mod queues;
mod random;
mod scheduling;
mod threads;
mod vcpus;

use crate::director::{Case, Director};
use crate::say;
use crate::serial::Serial;

/// Runs them all, writes `%% end`, waits for ever.
pub fn run_all() -> ! {
    say!(&mut Serial, "\n%% begin\n");
    let mut director = Director::new();
    let subjects: [&[(&str, Case)]; 11] = [
        calls::CASES,
        queues::CASES,
        capabilities::CASES,
        notifications::CASES,
        scheduling::CASES,
        threads::CASES,
        faults::CASES,
        vcpus::CASES,
        guests::CASES,
        random::CASES,
        machine::CASES,
    ];
    for (name, case) in subjects.into_iter().flatten() {
        director.case(name, *case);
    }
    say!(&mut Serial, "%% end\n");
    loop {
        crate::raw::svc(&mut [1, 0, 0, 0, 0, 0, 4, crate::raw::nr::RECV as u64, 0]);
    }
}
