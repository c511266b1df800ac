//! Virtual machine monitor: one instance per guest. Wiring only; see the library.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod kernel;
#[cfg(target_os = "none")]
mod pd;

#[cfg(not(target_os = "none"))]
fn main() {}
