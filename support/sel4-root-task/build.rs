//! Puts this crate's linker script where the linker of every program that uses it will look.

use std::path::Path;
use std::{env, fs, process};

fn main() {
    println!("cargo:rerun-if-changed=sel4-root-task.ld");
    let out = env::var("OUT_DIR").unwrap_or_default();
    let script = Path::new(&out).join("sel4-root-task.ld");
    if let Err(e) = fs::copy("sel4-root-task.ld", &script) {
        println!("cargo::error={}: {e}", script.display());
        process::exit(1);
    }
    println!("cargo:rustc-link-search={out}");
}
