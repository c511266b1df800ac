use proptest::prelude::*;

use super::{parse, table};
use crate::{Config, Partition, Size};

pub(super) fn sentences(text: &str) -> String {
    match parse("partita.json", text) {
        Ok(_) => "accepted".into(),
        Err(problems) => problems.iter().map(|problem| format!("{problem}\n")).collect(),
    }
}

fn with_disks(disks: &str) -> String {
    format!(
        r#"{{ "controllers": [{{ "name": "d", "kind": "virtio-mmio" }}, {{ "name": "e", "kind": "virtio-mmio", "slot": 8 }}],
              "cells": [{{ "name": "a", "memory": "16M", "kernel": "k", "disks": [{disks}] }}] }}"#
    )
}

#[test]
fn partitions_with_two_users_are_refused() {
    let disk = |controller: &str, partition: &str, read_only: bool| {
        format!(r#"{{ "controller": "{controller}", "partition": {partition}, "read_only": {read_only} }}"#)
    };
    let pair = |a: String, b: String| sentences(&with_disks(&format!("{a}, {b}")));
    let range =
        |first: u64, count: u64| format!(r#"{{ "range": {{ "first": {first}, "count": {count} }} }}"#);
    let refused = "partita.json: cells[0].disks[1].partition: overlaps cells[0].disks[0].partition; \
                   a part of a disk has one user, unless all of them are read_only\n";
    assert_eq!(pair(disk("d", r#""x""#, false), disk("d", r#""x""#, false)), refused);
    assert_eq!(pair(disk("d", r#""x""#, true), disk("d", r#""x""#, false)), refused);
    assert_eq!(pair(disk("d", r#""x""#, true), disk("d", r#""x""#, true)), "accepted");
    assert_eq!(pair(disk("d", r#""x""#, false), disk("e", r#""x""#, false)), "accepted");
    assert_eq!(pair(disk("d", r#""x""#, false), disk("d", r#""y""#, false)), "accepted");
    assert_eq!(pair(disk("d", &range(0, 8), false), disk("d", &range(7, 8), false)), refused);
    assert_eq!(pair(disk("d", &range(8, 8), false), disk("d", &range(0, 8), false)), "accepted");
    let open = r#"{ "range": { "first": 4 } }"#;
    assert_eq!(pair(disk("d", open, false), disk("d", &range(100, 8), false)), refused);
    assert_eq!(pair(disk("d", open, false), disk("d", &range(0, 4), false)), "accepted");
}

#[test]
fn names_and_transports_are_unique() {
    let controllers = |second: &str| {
        sentences(&format!(
            r#"{{ "controllers": [{{ "name": "d", "kind": "virtio-mmio", "slot": 1 }}, {second}],
                  "cells": [{{ "name": "a", "memory": "16M", "kernel": "k" }}] }}"#
        ))
    };
    assert!(
        controllers(r#"{ "name": "d", "kind": "virtio-mmio", "slot": 9 }"#).contains("\"d\" is the name of")
    );
    assert!(
        controllers(r#"{ "name": "e", "kind": "virtio-mmio", "slot": 1 }"#)
            .contains("slot 1 (interrupt 49) is used by")
    );
    assert!(controllers(r#"{ "name": "e", "kind": "virtio-mmio", "slot": 7 }"#).contains("share a page"));
    assert_eq!(controllers(r#"{ "name": "e", "kind": "virtio-mmio", "slot": 8 }"#), "accepted");
    let cell = r#"{ "name": "a", "memory": "16M", "kernel": "k" }"#;
    let twice = sentences(&format!(r#"{{ "cells": [{cell}, {cell}] }}"#));
    assert!(twice.contains("cells[1].name: \"a\" is the name of cells[0] already"), "{twice}");
}

/// Several mistakes are reported together.
#[test]
fn all_mistakes_are_reported_at_once() {
    let text = r#"{ "cels": [], "cells": [{ "name": 3, "memory": "x", "kernel": "" }] }"#;
    assert_eq!(sentences(text).lines().count(), 4);
}

#[test]
fn the_default_system_is_accepted_and_its_schema_is_current() {
    let root = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let text = std::fs::read_to_string(root.join("partita.json")).unwrap();
    assert_eq!(sentences(&text), "accepted");
    let schema = std::fs::read_to_string(root.join("docs/partita.schema.json")).unwrap();
    assert!(schema == super::json_schema(), "docs/partita.schema.json is stale: run `make generate`");
    let manual = std::fs::read_to_string(root.join("docs/configuration.md")).unwrap();
    assert!(manual.ends_with(&super::markdown()), "the tables of docs/configuration.md are stale");
}

fn label() -> impl Strategy<Value = String> {
    "[ !#-\\[\\]-~äß]{1,36}".prop_filter("a key of the object form", |label| {
        !table::PARTITION.iter().any(|key| key.name == label)
    })
}

/// A disk has one partition table.
fn partition_json(mbr: bool) -> impl Strategy<Value = String> {
    prop_oneof![
        label().prop_map(move |label| if mbr { r#"{"mbr":5}"#.into() } else { format!("\"{label}\"") }),
        (1..=128u32).prop_map(move |n| format!(r#"{{"{}": {n}}}"#, if mbr { "mbr" } else { "gpt" })),
        (0..1u64 << 54, proptest::option::of(1..1u64 << 54)).prop_map(|(first, count)| match count {
            Some(count) => format!(r#"{{"range": {{"first": {first}, "count": {count}}}}}"#),
            None => format!(r#"{{"range":{{"first":{first}}}}}"#),
        }),
    ]
}

fn cell_json(name: usize, mbr: bool) -> impl Strategy<Value = String> {
    let optional = proptest::collection::vec(any::<bool>(), 11);
    let disks = proptest::collection::vec(
        (partition_json(mbr), proptest::option::of("[ -!#-\\[\\]-~]{1,19}")),
        0..=4,
    );
    (optional, 8..100u64, 1..=4u8, 1..=99u8, "[ -!#-\\[\\]-~]{0,100}", disks, any::<bool>()).prop_map(
        move |(has, memory, vcpus, priority, line, disks, flag)| {
            let mut keys = vec![
                format!(r#""name": "cell{name}""#),
                format!(r#""memory": "{}M""#, memory * 2),
                r#""kernel": "build/Image""#.into(),
            ];
            let word = |a: &str, b: &str| if flag { a.to_owned() } else { b.to_owned() };
            let more = [
                format!(r#""vcpus": {vcpus}"#),
                format!(r#""priority":{priority}"#),
                r#""budget_us": 1000, "period_us":   2000"#.into(),
                format!(r#""boot": "{}""#, word("linux", "binary")),
                r#""initrd": "i""#.into(),
                format!(r#""cmdline": "{line}""#),
                format!(r#""console":"{}""#, word("virtio", "pl011")),
                format!(r#""autostart": {flag}"#),
                format!(
                    r#""on_crash": "{}", "on_reset": "{}""#,
                    word("stop", "restart"),
                    word("restart", "stop")
                ),
                format!(
                    r#""watchdog_seconds": {}, "on_hang": "{}""#,
                    1 + line.len(),
                    word("report", "restart")
                ),
                format!(r#""cid": {}, "manager": {flag}"#, 3 + name),
            ];
            if flag {
                keys.push(format!(
                    r#""passthrough": [{{ "name": "p", "address": "{:#x}", "guest_address": "0xc000000", "size": "8K",
                        "irqs": [{{ "irq": {}, "trigger": "edge" }}], "device_tree": {{ "compatible": ["a,b", "c"],
                        "clocks": ["x"], "properties": [{{ "name": "q" }}, {{ "name": "r", "cell": 7 }},
                        {{ "name": "s", "text": "t" }}] }} }}]"#,
                    0x1000_0000 * (name + 1),
                    100 + name
                ));
            }
            keys.extend(more.into_iter().zip(has).filter(|(_, has)| *has).map(|(key, _)| key));
            let disks: Vec<String> = disks
                .iter()
                .enumerate()
                .map(|(n, (partition, serial))| {
                    let serial = serial
                        .as_ref()
                        .map_or(String::new(), |serial| format!(r#", "serial": "{n}{serial}""#));
                    format!(r#"{{ "controller": "d", "partition": {partition}, "read_only": true{serial} }}"#)
                })
                .collect();
            keys.push(format!(r#""disks": [{}]"#, disks.join(",")));
            format!("{{{}}}", keys.join(",\n"))
        },
    )
}

fn file() -> impl Strategy<Value = String> {
    let cells = |(count, mbr)| (0..count).map(|n| cell_json(n, mbr)).collect::<Vec<_>>();
    (1..=9usize, any::<bool>()).prop_flat_map(cells).prop_map(|cells| {
        format!(
            r#"{{ "controllers": [{{ "name": "d", "kind": "virtio-mmio" }}], "cells": [{}] }}"#,
            cells.join(", ")
        )
    })
}

proptest! {
    /// What the table allows, the target's parser reads; and what it reads, written again, is the same.
    #[test]
    fn files_survive_a_round_trip(text in file()) {
        let config = match parse("x", &text) {
            Ok(config) => config,
            Err(problems) => panic!("{text}: {problems:?}"),
        };
        let again = serde_json::to_string(&config).unwrap();
        prop_assert_eq!(&crate::parse(again.as_bytes()).unwrap(), &config);
        prop_assert_eq!(&parse("x", &again).unwrap(), &config);
    }

    /// Anything the host accepts, the target accepts; nothing makes either panic.
    #[test]
    fn a_damaged_file_never_panics(
        text in file(),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>(), 0..3u8), 1..6),
    ) {
        let mut bytes = text.into_bytes();
        for (at, byte, how) in damage {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => { bytes.remove(at); }
                _ => bytes.insert(at, byte),
            }
        }
        let _ = crate::parse(&bytes);
        if let Ok(text) = std::str::from_utf8(&bytes)
            && let Err(problems) = parse("x", text)
        {
            prop_assert!(!problems.is_empty());
            prop_assert!(!problems.iter().any(|problem| problem.wrong.contains("parser of the target")), "{problems:?}");
        }
    }

    #[test]
    fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = crate::parse(&bytes);
        let _ = parse("x", &String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn sizes_survive_a_round_trip(kib in 0..1u64 << 38) {
        let size = Size(kib << 10);
        prop_assert_eq!(Size::parse(&size.to_string()), Some(size));
    }
}

#[test]
fn sizes_have_one_form() {
    assert_eq!(Size::parse("2G"), Some(Size(2 << 30)));
    for wrong in
        ["", "M", "1", "1m", "-1M", "+1M", "1 M", "1.5G", "0x10M", "999999999999K", "9999999999G", "1MM", "ä"]
    {
        assert_eq!(Size::parse(wrong), None, "{wrong}");
    }
}

#[test]
fn defaults_are_what_the_table_says() {
    let config = crate::parse(br#"{"cells":[{"name":"a","memory":"16M","kernel":"k"}]}"#).unwrap();
    let written = serde_json::to_value(&config.cells[0]).unwrap();
    for key in table::CELL {
        // A default that is words depends on other keys, and has a test of its own.
        let value = |text| serde_json::from_str::<serde_json::Value>(text).ok();
        if let Some(expected) = key.default.and_then(value) {
            assert_eq!(written[key.name], expected, "{}", key.name);
        }
    }
}

#[test]
fn a_slice_is_short_with_several_vcpus() {
    let of = |keys: &str| {
        let text = format!(r#"{{"cells":[{{"name":"a","memory":"16M","kernel":"k"{keys}}}]}}"#);
        let config: Config<'_> = parse("partita.json", &text).unwrap();
        (config.cells[0].budget_us(), config.cells[0].period_us())
    };
    assert_eq!(of(""), (10_000, 10_000));
    assert_eq!(of(r#","vcpus":2"#), (1000, 1000));
    assert_eq!(of(r#","vcpus":2,"budget_us":4000"#), (4000, 4000));
    assert_eq!(of(r#","vcpus":2,"period_us":500"#), (500, 500));
    assert_eq!(of(r#","vcpus":2,"period_us":5000"#), (1000, 5000));
    assert_eq!(of(r#","budget_us":2000"#), (2000, 10_000));
}

#[test]
fn a_disk_has_as_many_queues_as_the_cell_has_vcpus() {
    let of = |vcpus: usize, key: &str| {
        let text = format!(
            r#"{{"controllers":[{{"name":"d","kind":"virtio-mmio","slot":31}}],"cells":[{{"name":"a","memory":"16M","kernel":"k",
                "vcpus":{vcpus},"disks":[{{"controller":"d","partition":"p"{key}}}]}}]}}"#
        );
        let config: Config<'_> = parse("partita.json", &text).unwrap();
        let cell = &config.cells[0];
        cell.queues(&cell.disks[0])
    };
    assert_eq!([1, 2, 3, 4].map(|vcpus| of(vcpus, "")), [1, 2, 3, 4]);
    assert_eq!([(1, 4), (4, 1), (2, 3)].map(|(vcpus, n)| of(vcpus, &format!(r#","queues":{n}"#))), [4, 1, 3]);
}

#[test]
fn lines_of_passed_through_devices_have_numbers_in_the_guest() {
    use crate::passthrough::{Line, Trigger::*};
    let text = r#"{"cells":[{"name":"a","memory":"16M","kernel":"k","passthrough":[
        {"name":"x","address":"0x9010000","irqs":[{"irq":34,"shared":true},{"irq":35,"trigger":"edge","guest_irq":200}]},
        {"name":"y","address":"0x9011000","irqs":[{"irq":36},{"irq":34,"shared":true}]}]}]}"#;
    let config: Config<'_> = parse("partita.json", text).unwrap();
    let line = |irq, trigger, guest_irq| Line { irq, trigger, guest_irq };
    let lines: Vec<_> = config.cells[0].lines().collect();
    assert_eq!(lines, [line(34, Level, 80), line(35, Edge, 200), line(36, Level, 82)]);
}

#[test]
fn the_object_form_of_a_partition_is_not_a_label() {
    let parse = |partition: &str| {
        crate::parse(with_disks(&format!(r#"{{"controller":"d","partition":{partition}}}"#)).as_bytes())
            .map(|config: Config<'_>| format!("{:?}", config.cells[0].disks[0].partition))
    };
    assert_eq!(parse(r#""a""#).unwrap(), format!("{:?}", Partition::Label("a")));
    assert!(parse(r#""gpt""#).is_err());
    assert!(parse(r#"{"gpt":1,"mbr":2}"#).is_err());
    assert!(parse("7").is_err());
}
