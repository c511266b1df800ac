//! Links with the root task's script when built for the machine.

fn main() {
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        println!("cargo:rustc-link-arg-bins=-Tsel4-root-task.ld");
    }
}
