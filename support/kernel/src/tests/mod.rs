//! Tests of the whole machine-independent kernel on fake hardware.

mod check;
mod fake;
mod random;
mod scenarios;
mod system;
