//! Partita's host tool: system description, device trees, image, report, run.
fn main() {}
