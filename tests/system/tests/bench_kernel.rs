//! `make bench-kernel`: every operation is counted on the kernel under test, and none costs what only a mistake would.

use std::fs;

use partita::bench;
use partita_system_tests::fixture;

/// The dearest operation, the registers of a virtual CPU that change places, takes less than half of this on both kernels.
const MOST: u64 = 5000;

#[test]
fn every_kernel_operation_is_counted() {
    let context = fixture::context(None).unwrap();
    bench::kernel::run(&context).unwrap();
    let text = fs::read_to_string(context.build_dir().join("bench-kernel.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let column = if context.options.microkit_sdk.is_some() { "sel4" } else { "embedded" };
    let rows = json["rows"].as_array().unwrap();
    assert!(rows.len() >= 35, "only {} operations", rows.len());
    for row in rows {
        let instructions = row[column].as_u64().unwrap();
        assert!((100..MOST).contains(&instructions), "{row}");
    }
    let of = |name: &str| rows.iter().find(|row| row["name"] == name).unwrap()[column].as_u64().unwrap();
    // What has to be so on any kernel: a switch costs more than none, and a call more than a signal that wakes nobody.
    let quiet = of("signal a PD that does not wait");
    assert!(of("signal a higher waiting PD, switch") > quiet);
    assert!(of("call, active server") > quiet);
}
