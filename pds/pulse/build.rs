//! Links the PD with the linker script that `sel4-microkit` provides.

fn main() {
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "none") {
        println!("cargo:rustc-link-arg-bins=-Tsel4-microkit.ld");
    }
    println!("cargo:rerun-if-changed=build.rs");
}
