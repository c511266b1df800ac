//! Turns the SDK's own description of its kernel into Rust constants.
//!
//! One PD ELF fits one numbering of invocation labels, one address of the IPC buffer and one answer to "does this kernel
//! print". All three are read from the SDK the system is built with, so the same sources fit any SDK of the supported
//! version. A target build without an SDK is refused: it would run with numbers that mean something else.

mod sdk;

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs, process};

fn main() {
    for name in ["SEL4_INCLUDE_DIRS", "SEL4_PREFIX"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    println!("cargo:rerun-if-changed=build");
    if let Err(message) = run() {
        println!("cargo::error={message}");
        eprintln!("sel4: {message}");
        process::exit(1);
    }
}

fn run() -> Result<(), String> {
    let target_os = env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    let sdk = match sdk::locate()? {
        Some(include) => sdk::read(&include)?,
        None if target_os == "none" => {
            return Err("no seL4 to build for: set SEL4_INCLUDE_DIRS to \
                <microkit SDK>/board/<board>/<config>/include"
                .into());
        }
        None => sdk::host_default(),
    };
    for file in &sdk.files {
        println!("cargo:rerun-if-changed={}", file.display());
    }
    let out = env::var("OUT_DIR").map_err(|e| format!("OUT_DIR: {e}"))?;
    write(&Path::new(&out).join("constants.rs"), &constants(&sdk))?;
    write(&Path::new(&out).join("config_macros.rs"), &config_macros(&sdk))
}

fn constants(sdk: &sdk::Sdk) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "/// Greatest user address (inclusive).\npub const seL4_UserVSpaceTop: u64 = {:#x};",
        sdk.user_top
    );
    text.push_str("/// Invocation labels of the kernel this is built for.\npub mod invocation_label {\n");
    for (name, number) in &sdk.labels {
        let _ = writeln!(text, "    /// `{name}`\n    pub const {name}: u32 = {number};");
    }
    text.push_str("}\n");
    let _ = writeln!(text, "pub(crate) const PRINTING: bool = {};", sdk.flag("PRINTING"));
    let _ = writeln!(text, "pub(crate) const DEBUG_BUILD: bool = {};", sdk.flag("DEBUG_BUILD"));
    text
}

fn config_macros(sdk: &sdk::Sdk) -> String {
    let (mut bools, mut strings) = (String::new(), String::new());
    for (name, value) in &sdk.config {
        match value {
            sdk::Value::Bool(value) => {
                let _ = writeln!(bools, "    ({name}) => {{ {value} }};");
            }
            sdk::Value::Text(value) => {
                let _ = writeln!(strings, "    ({name}) => {{ {value:?} }};");
            }
        }
    }
    format!(
        "/// Value of a boolean kernel configuration key.\n#[macro_export]\nmacro_rules! sel4_cfg_bool {{\n{bools}}}\n\
         /// Value of a textual kernel configuration key.\n#[macro_export]\nmacro_rules! sel4_cfg_str {{\n{strings}}}\n"
    )
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}
