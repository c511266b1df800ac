//! Runs the project's test suites one after another and counts all of them together, so that one line at the end tells
//! what happened: a suite that could not be built or ran into its time limit counts as a failure, and what was left out
//! is counted and named.

pub mod counts;
pub mod step;
