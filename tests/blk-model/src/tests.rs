//! Random steps. The fuzzer's are better, but these run with every `cargo test`.

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::{Counts, Step, run};

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(any::<Step>(), 2..300)
}

/// Runs so many cases and adds up what happened in them.
fn runs(cases: u32, flips: bool) -> Counts {
    let total = Cell::new(Counts::default());
    let mut runner = TestRunner::new(Config::with_cases(cases));
    let result = runner.run(&steps(), |steps| {
        let mut sum = total.get();
        sum.add(&run(&steps, flips));
        total.set(sum);
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
    total.get()
}

#[test]
fn whatever_the_offender_and_the_disk_do_the_neighbour_is_answered_rightly() {
    let counts = runs(400, false);
    println!("{counts:?}");
    assert!(counts.done > 2000 && counts.errors > 50 && counts.offended > 200, "{counts:?}");
    assert!(counts.second > 500, "{counts:?}");
    assert!(counts.kills > 500 && counts.in_flight > 200 && counts.restarts > 50, "{counts:?}");
    assert!(counts.broken > 20, "{counts:?}");
}

#[test]
fn flipped_bits_hurt_only_whose_they_were() {
    let counts = runs(400, true);
    println!("{counts:?}");
    assert!(counts.flips.iter().all(|flips| *flips > 200) && counts.done > 2000, "{counts:?}");
}
