//! Counting checks.

use core::sync::atomic::{AtomicU32, Ordering};

static PASSED: AtomicU32 = AtomicU32::new(0);
static FAILED: AtomicU32 = AtomicU32::new(0);

/// Notes one check, with a line.
pub fn check(what: &str, ok: bool) {
    crate::println!("{} {what}", if ok { "ok  " } else { "FAIL" });
    if ok { &PASSED } else { &FAILED }.fetch_add(1, Ordering::Relaxed);
}

/// Notes that two values are equal, and prints both if they are not.
pub fn equal(what: &str, seen: u64, wanted: u64) {
    if seen != wanted {
        crate::println!("     {what}: {seen:#x}, not {wanted:#x}");
    }
    check(what, seen == wanted);
}

/// The last line.
pub fn summary(name: &str, aborted: bool) {
    let failed = FAILED.load(Ordering::Relaxed) + u32::from(aborted);
    crate::println!("{name}: {} passed, {failed} failed", PASSED.load(Ordering::Relaxed));
}
