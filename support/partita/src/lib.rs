//! Partita's host tool: system description, device trees, image, report, run.
//!
//! Every command begins with a [`context::Context`]; what it cannot do is a [`failure::Failure`], one sentence. The parts:
//! [`system`] (system.xml), [`mod@dtb`], [`mod@build`], [`qemu`], [`smoke`],
//! [`report`], [`import`].

pub mod bench;
pub mod board;
pub mod boot_files;
pub mod build;
pub mod check;
pub mod context;
pub mod dtb;
pub mod failure;
pub mod flash;
pub mod import;
pub mod process;
pub mod qemu;
pub mod report;
pub mod sdk;
pub mod session;
pub mod smoke;
pub mod system;
pub mod tools;
