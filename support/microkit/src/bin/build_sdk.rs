//! Builds the embedded SDK.
fn main() {}
