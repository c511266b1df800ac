//! The description files of a configuration, in the official formats, from the kernel's own tables.

use std::fmt::Write;
use std::ops::Range;

use partita_kernel::abi::{self, Config, Constant};
use serde_json::Value;

use crate::sdk::Board;

/// Path below the configuration's directory, and text.
pub fn describe(config: Config, board: &Board) -> Vec<(&'static str, String)> {
    let kernel: Vec<_> = abi::gen_config(config).collect();
    vec![
        ("invocations_all.json", numbers(abi::invocations(config))),
        ("address_space_constants.json", numbers(abi::constants())),
        ("object_sizes.json", numbers(abi::object_sizes(config))),
        ("platform_gen.json", platform(board)),
        ("include/kernel/gen_config.json", gen_config_json(&kernel)),
        ("include/kernel/gen_config.h", gen_config_header(&kernel)),
        ("include/sel4/gen_config.json", gen_config_json(&LIBRARY)),
        ("include/sel4/gen_config.h", gen_config_header(&LIBRARY)),
    ]
}

/// Configuration of the official user library, for readers that open the file; no kernel depends on it.
const LIBRARY: [(&str, Constant); 7] = [
    ("LIB_SEL4_INLINE_INVOCATIONS", Constant::Bool(true)),
    ("LIB_SEL4_DEFAULT_FUNCTION_ATTRIBUTES", Constant::Bool(false)),
    ("LIB_SEL4_PUBLIC_SYMBOLS", Constant::Bool(false)),
    ("LIB_SEL4_FUNCTION_ATTRIBUTE", Constant::Text("inline")),
    ("LIB_SEL4_STUBS_USE_IPC_BUFFER_ONLY", Constant::Bool(false)),
    ("LIB_SEL4_PRINT_INVOCATION_ERRORS", Constant::Text("0")),
    ("LIB_SEL4_USE_THREAD_LOCALS", Constant::Bool(false)),
];

fn numbers(values: impl IntoIterator<Item = (&'static str, u64)>) -> String {
    let values: Vec<_> = values.into_iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
    format!("{{{}}}", values.join(", "))
}

fn platform(board: &Board) -> String {
    let ranges = |ranges: &[Range<u64>]| {
        let ranges: Vec<_> =
            ranges.iter().map(|r| format!("{{\"start\": {}, \"end\": {}}}", r.start, r.end)).collect();
        ranges.join(", ")
    };
    format!("{{\"devices\": [{}], \"memory\": [{}]}}", ranges(&board.devices), ranges(&board.memory))
}

fn gen_config_json(values: &[(&str, Constant)]) -> String {
    let lines: Vec<_> = values
        .iter()
        .map(|(name, value)| match value {
            Constant::Bool(value) => format!("    \"{name}\": {value}"),
            Constant::Text(value) => format!("    \"{name}\": {}", Value::from(*value)),
        })
        .collect();
    format!("{{\n{}\n}}\n", lines.join(",\n"))
}

fn gen_config_header(values: &[(&str, Constant)]) -> String {
    let mut text = "#pragma once\n\n".to_owned();
    for (name, value) in values {
        // Writing to a String does not fail.
        let _ = match value {
            Constant::Bool(true) => writeln!(text, "#define CONFIG_{name}  1"),
            Constant::Bool(false) => writeln!(text, "/* disabled: CONFIG_{name} */"),
            Constant::Text(value) => writeln!(text, "#define CONFIG_{name}  {value}"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(config: Config, path: &str) -> String {
        let files = describe(config, &Board::qemu_virt());
        files.into_iter().find(|(name, _)| *name == path).unwrap().1
    }

    fn json(config: Config, path: &str) -> Value {
        serde_json::from_str(&file(config, path)).unwrap()
    }

    #[test]
    fn labels_of_the_two_configurations() {
        for (config, count, set_tls, ack) in [(Config::Debug, 65, 20, 63), (Config::Release, 61, 16, 59)] {
            let labels = json(config, "invocations_all.json");
            assert_eq!(labels.as_object().unwrap().len(), count);
            assert_eq!(labels["TCBSetTLSBase"], set_tls);
            assert_eq!(labels["ARMVCPUAckVPPI"], ack);
        }
    }

    #[test]
    fn header_and_json_say_the_same() {
        for config in [Config::Debug, Config::Release] {
            let header = file(config, "include/kernel/gen_config.h");
            for (name, value) in json(config, "include/kernel/gen_config.json").as_object().unwrap() {
                let line = match value {
                    Value::Bool(true) => format!("#define CONFIG_{name}  1"),
                    Value::Bool(false) => format!("/* disabled: CONFIG_{name} */"),
                    Value::String(value) => format!("#define CONFIG_{name}  {value}"),
                    other => panic!("{other}"),
                };
                assert!(header.lines().any(|have| have == line), "{line}");
            }
        }
    }

    #[test]
    fn the_packer_reads_its_own_sdk() {
        let dir = std::env::temp_dir().join(format!("partita-sdk-files-{}", std::process::id()));
        let config_dir = dir.join("board/qemu_virt_aarch64/debug");
        for (path, text) in describe(Config::Debug, &Board::qemu_virt()) {
            let path = config_dir.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let board = crate::sdk::Sdk::open(dir.clone()).unwrap().board("qemu_virt_aarch64", "debug").unwrap();
        std::fs::remove_dir_all(dir).unwrap();
        let built_in = Board::qemu_virt();
        assert_eq!(format!("{board:?}"), format!("{built_in:?}"));
    }
}
