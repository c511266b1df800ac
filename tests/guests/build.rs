//! Guests are flat binaries, linked at the start of guest RAM: the output file is the kernel of a `boot: binary` cell.

fn main() {
    println!("cargo:rerun-if-changed=guest.ld");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        let here = std::env::var("CARGO_MANIFEST_DIR").expect("set by cargo");
        println!("cargo:rustc-link-arg-bins=-T{here}/guest.ld");
        println!("cargo:rustc-link-arg-bins=--oformat=binary");
    }
}
