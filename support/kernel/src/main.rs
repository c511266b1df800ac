//! The kernel as it runs: the machine-independent part over AArch64 hardware.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod arch {
    pub mod aarch64;
}

#[cfg(not(target_os = "none"))]
fn main() {}
