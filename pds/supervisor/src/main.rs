//! Parent of the other PDs: faults, lifecycle, power.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod children;
#[cfg(target_os = "none")]
mod machine;
#[cfg(target_os = "none")]
mod pages;
#[cfg(target_os = "none")]
mod pd;

#[cfg(not(target_os = "none"))]
fn main() {}
