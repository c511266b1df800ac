//! Every message, in full: what a person reads is a promise like any other.

use super::tests::sentences;

const GOOD: &str = r#"{
  "controllers": [{ "name": "disk0", "kind": "virtio-mmio", "slot": 0 }],
  "cells": [{
    "name": "a", "memory": "512M", "kernel": "Image",
    "disks": [{ "controller": "disk0", "partition": "root" }]
  }]
}"#;

/// [`GOOD`] with one replacement.
fn with(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    GOOD.replacen(from, to, 1)
}

/// The cell of [`GOOD`] with more keys.
fn cell(keys: &str) -> String {
    with(r#""kernel": "Image""#, &format!(r#""kernel": "Image", {keys}"#))
}

/// [`GOOD`] with other disks.
fn disks(list: &str) -> String {
    with(r#"{ "controller": "disk0", "partition": "root" }"#, list)
}

/// The disk of [`GOOD`] with another partition.
fn partition(value: &str) -> String {
    with(r#""root""#, value)
}

/// [`GOOD`] with a second cell, which has this disk.
fn second_cell(name: &str, disk: &str) -> String {
    let cell = format!(r#"{{ "name": "{name}", "memory": "64M", "kernel": "k", "disks": [{disk}] }}"#);
    with("  }]\n}", &format!("  }}, {cell}]\n}}"))
}

/// [`GOOD`] with a second controller.
fn second_controller(keys: &str) -> String {
    with(r#""slot": 0 }"#, &format!(r#""slot": 0 }}, {{ "kind": "virtio-mmio", {keys} }}"#))
}

/// Two cells and these links.
fn links(list: &str) -> String {
    let cell = |name| format!(r#"{{ "name": "{name}", "memory": "64M", "kernel": "k" }}"#);
    format!(r#"{{ "cells": [{}, {}], "links": [{list}] }}"#, cell("a"), cell("b"))
}

/// [`GOOD`] with passed-through devices.
fn devices(list: &str) -> String {
    cell(&format!(r#""passthrough": [{list}]"#))
}

/// A passed-through device with more keys.
fn device(name: &str, address: &str, more: &str) -> String {
    format!(r#"{{ "name": "{name}", "address": "{address}"{more} }}"#)
}

/// [`GOOD`] with one passed-through device.
fn one_device(more: &str) -> String {
    devices(&device("d", "0x9040000", more))
}

/// Two devices of a cell with these interrupts.
fn two_lines(a: &str, b: &str) -> String {
    let more = |irqs: &str| format!(r#", "irqs": [{irqs}]"#);
    devices(&format!("{}, {}", device("d", "0x9040000", &more(a)), device("e", "0x9050000", &more(b))))
}

/// Two cells, `a` with CID 3 and `bee` with this one, and these sockets.
fn pair(cid: u32, sockets: &str) -> String {
    format!(
        r#"{{ "cells": [{{ "name": "a", "memory": "16M", "kernel": "k", "cid": 3 }},
                        {{ "name": "bee", "memory": "16M", "kernel": "k", "cid": {cid} }}],
              "sockets": [{sockets}] }}"#
    )
}

fn repeat(entry: &str, count: usize) -> String {
    (0..count).map(|n| entry.replace('#', &n.to_string())).collect::<Vec<_>>().join(", ")
}

fn disk(partition: &str, more: &str) -> String {
    format!(r#"{{ "controller": "disk0", "partition": {partition}{more} }}"#)
}

#[test]
fn each_mistake_has_its_message() {
    let cases: &[(String, &str)] = &[
        // Not a description at all.
        ("".into(), "line 1, column 0: not JSON: EOF while parsing a value; the file ends too early: a bracket or quotation mark is missing"),
        ("[]".into(), "the file holds a list; it must hold an object"),
        ("{".into(), "line 1, column 1: not JSON: EOF while parsing an object; the file ends too early: a bracket or quotation mark is missing"),
        ("{ \"cells\": [], }".into(), "line 1, column 16: not JSON: trailing comma; remove the comma before the bracket"),
        ("{ \"cells\": [] } x".into(), "line 1, column 17: not JSON: trailing characters; nothing may follow the last bracket"),
        ("// note\n{}".into(), "line 1, column 1: not JSON: expected value; a value must be here; JSON has no comments"),
        ("{}".into(), "cells: is missing; it must be a list of 1 to 9 objects"),
        (with(r#""Image""#, r#""C:\\Image""#), "line 4, column 49: a backslash is not supported; write the character itself; quotes and control characters cannot be written"),
        // Keys.
        (with("cells", "cell"), "cell: unknown key; did you mean \"cells\"?"),
        (with("controllers", "devices"), "devices: unknown key; there is: $schema, boot_files, controllers, cells, links, sockets"),
        (with(r#""memory""#, r#""memroy""#), "cells[0].memroy: unknown key; did you mean \"memory\"?"),
        (with(r#""memory": "512M", "#, ""), "cells[0].memory: is missing; it must be a size such as \"512M\" (K, M or G)"),
        (with(r#""kernel": "Image""#, r#""autostart": true"#), "cells[0].kernel: is missing; it must be a file name"),
        (cell(r#""kernel": "Other""#), "cells[0].kernel: the key is there twice; leave one of them"),
        (cell(r#""onCrash": "stop""#), "cells[0].onCrash: unknown key; did you mean \"on_crash\"?"),
        (cell(r#""network": {}"#), "cells[0].network: unknown key; there is: name, memory, memory_address, vcpus, priority, budget_us, period_us, boot, kernel, initrd, cmdline, console, autostart, on_crash, on_reset, watchdog_seconds, on_hang, disks, passthrough, cid, manager"),
        (with(r#""kind""#, r#""type""#), "controllers[0].type: unknown key; there is: name, kind, slot, timeout_ms\ncontrollers[0].kind: is missing; it must be one of: virtio-mmio"),
        (with(r#""partition""#, r#""readonly": true, "partition""#), "cells[0].disks[0].readonly: unknown key; did you mean \"read_only\"?"),
        // Values.
        (cell(r#""memory_address": "0x40100000""#), "cells[0].memory_address: is 0x40100000; it must be a multiple of 2M"),
        (with("{\n", "{ \"boot_files\": \"0xc0100000\",\n"), "boot_files: is 0xc0100000; it must be a multiple of 2M"),
        (with("{\n", "{ \"boot_files\": true,\n"), "boot_files: is true; it must be an address such as \"0x9040000\""),
        (with("{\n", "{ \"boot_file\": \"0x0\",\n"), "boot_file: unknown key; did you mean \"boot_files\"?"),
        (cell(r#""memory_address": 1073741824"#), "cells[0].memory_address: is 1073741824; it must be an address such as \"0x9040000\""),
        (
            format!(r#"{{ "cells": [{}] }}"#, [("a", "0x40000000"), ("b", "0x40e00000")].map(|(name, at)| format!(r#"{{ "name": "{name}", "memory": "16M", "memory_address": "{at}", "kernel": "k" }}"#)).join(", ")),
            "cells[1].memory_address: overlaps the memory of cells[0]; choose another address",
        ),
        (with("512M", "512"), "cells[0].memory: is \"512\"; it must be a size such as \"512M\" (K, M or G)"),
        (with("512M", "512MB"), "cells[0].memory: is \"512MB\"; it must be a size such as \"512M\" (K, M or G)"),
        (with(r#""512M""#, "512"), "cells[0].memory: is 512; it must be a size such as \"512M\" (K, M or G)"),
        (with("512M", "1M"), "cells[0].memory: is 1M; it must be a multiple of 2M from 16M to 16G"),
        (with("512M", "17M"), "cells[0].memory: is 17M; it must be a multiple of 2M from 16M to 16G"),
        (with("512M", "32G"), "cells[0].memory: is 32G; it must be a multiple of 2M from 16M to 16G"),
        (cell(r#""vcpus": 5"#), "cells[0].vcpus: is 5; it must be a whole number from 1 to 4"),
        (cell(r#""vcpus": 0"#), "cells[0].vcpus: is 0; it must be a whole number from 1 to 4"),
        (cell(r#""vcpus": 1.5"#), "cells[0].vcpus: is 1.5; it must be a whole number from 1 to 4"),
        (cell(r#""vcpus": "2""#), "cells[0].vcpus: is \"2\"; it must be a whole number from 1 to 4"),
        (cell(r#""vcpus": -1"#), "cells[0].vcpus: is -1; it must be a whole number from 1 to 4"),
        (cell(r#""priority": 100"#), "cells[0].priority: is 100; it must be a whole number from 1 to 99"),
        (cell(r#""budget_us": 50"#), "cells[0].budget_us: is 50; it must be a whole number from 100 to 10000000"),
        (cell(r#""budget_us": 5000, "period_us": 1000"#), "cells[0].budget_us: 5000 is more than period_us, 1000; the budget is a part of the period"),
        (cell(r#""boot": "Linux""#), "cells[0].boot: is \"Linux\"; did you mean \"linux\"?"),
        (cell(r#""boot": "uefi""#), "cells[0].boot: is \"uefi\"; there is: linux, binary"),
        (cell(r#""console": "hvc0""#), "cells[0].console: is \"hvc0\"; there is: virtio, pl011"),
        (cell(r#""on_crash": "reboot""#), "cells[0].on_crash: is \"reboot\"; there is: stop, restart"),
        (cell(r#""autostart": "yes""#), "cells[0].autostart: is \"yes\"; it must be true or false"),
        (cell(r#""initrd": """#), "cells[0].initrd: is \"\"; it must be a file name"),
        (cell(r#""initrd": null"#), "cells[0].initrd: is null; it must be a file name"),
        (cell("\"cmdline\": \"\u{e4}\""), "cells[0].cmdline: is \"ä\"; it must be a command line of at most 2047 ASCII characters"),
        (cell(r#""watchdog_seconds": 100000"#), "cells[0].watchdog_seconds: is 100000; it must be a whole number from 0 to 86400"),
        (cell(r#""on_hang": "ignore", "watchdog_seconds": 5"#), "cells[0].on_hang: is \"ignore\"; there is: report, stop, restart"),
        (with(r#""name": "a""#, r#""name": "A b""#), "cells[0].name: is \"A b\"; it must be a name of lower-case letters, digits, - and _ that begins with a letter, at most 32 characters"),
        (with(r#""name": "a""#, r#""name": "9""#), "cells[0].name: is \"9\"; it must be a name of lower-case letters, digits, - and _ that begins with a letter, at most 32 characters"),
        (with("virtio-mmio", "virtio_mmio"), "controllers[0].kind: is \"virtio_mmio\"; did you mean \"virtio-mmio\"?"),
        (with("virtio-mmio", "nvme"), "controllers[0].kind: is \"nvme\"; there is: virtio-mmio"),
        (with(r#""slot": 0"#, r#""timeout_ms": 99"#), "controllers[0].timeout_ms: is 99; it must be a whole number from 100 to 600000"),
        (with(r#""slot": 0"#, r#""slot": 32"#), "controllers[0].slot: is 32; it must be a whole number from 0 to 31"),
        (partition("2"), "cells[0].disks[0].partition: is 2; it must be a GPT partition label of 1 to 36 characters, or an object with one of the keys gpt, mbr, range"),
        (partition(r#""""#), "cells[0].disks[0].partition: is \"\"; it must be a GPT partition label of 1 to 36 characters, or an object with one of the keys gpt, mbr, range"),
        (partition(r#"{ "gpt": 1, "mbr": 1 }"#), "cells[0].disks[0].partition: has 2 keys; it must have one of gpt, mbr, range"),
        (partition(r#"{ "gpt": 0 }"#), "cells[0].disks[0].partition.gpt: is 0; it must be a whole number from 1 to 128"),
        (partition(r#"{ "label": "root" }"#), "cells[0].disks[0].partition.label: unknown key; there is: gpt, mbr, range"),
        (partition(r#"{ "range": { "first": 0, "size": 4 } }"#), "cells[0].disks[0].partition.range.size: unknown key; there is: first, count"),
        (partition(r#"{ "range": { "count": 4 } }"#), "cells[0].disks[0].partition.range.first: is missing; it must be a whole number from 0 to 36028797018963967"),
        (disks(&disk(r#""root""#, r#", "serial": "a serial that is too long""#)), "cells[0].disks[0].serial: is \"a serial that is too long\"; it must be a string of 1 to 20 ASCII characters"),
        (disks(&disk(r#""root""#, r#", "queues": 0"#)), "cells[0].disks[0].queues: is 0; it must be a whole number from 1 to 4"),
        (disks(&disk(r#""root""#, r#", "queues": 5"#)), "cells[0].disks[0].queues: is 5; it must be a whole number from 1 to 4"),
        (disks(&disk(r#""root""#, r#", "queue": 2"#)), "cells[0].disks[0].queue: unknown key; did you mean \"queues\"?"),
        (disks(&disk(r#""root""#, r#", "iops": 0"#)), "cells[0].disks[0].iops: is 0; it must be a whole number from 1 to 1000000"),
        (disks(&disk(r#""root""#, r#", "iops": "100""#)), "cells[0].disks[0].iops: is \"100\"; it must be a whole number from 1 to 1000000"),
        (disks(&disk(r#""root""#, r#", "bytes_per_second": 100"#)), "cells[0].disks[0].bytes_per_second: is 100; it must be a size such as \"512M\" (K, M or G)"),
        (disks(&disk(r#""root""#, r#", "bytes_per_second": "63K""#)), "cells[0].disks[0].bytes_per_second: is 63K; it must be at least 64K: a guest waits for one large request no longer than its patience"),
        (disks(&disk(r#""root""#, r#", "iop": 5"#)), "cells[0].disks[0].iop: unknown key; did you mean \"iops\"?"),
        // Too many.
        (r#"{ "cells": [] }"#.into(), "cells: has 0 entries; it must be a list of 1 to 9 objects"),
        (r#"{ "cells": [5] }"#.into(), "cells[0]: is 5; it must be an object"),
        (
            format!(r#"{{ "cells": [{}] }}"#, repeat(r#"{ "name": "g#", "memory": "16M", "kernel": "k" }"#, 10)),
            "cells: has 10 entries; it must be a list of 1 to 9 objects",
        ),
        (disks(&repeat(r#"{ "controller": "disk0", "partition": "p#" }"#, 5)), "cells[0].disks: has 5 entries; it must be a list of at most 4 objects"),
        (
            with(
                r#"{ "name": "disk0", "kind": "virtio-mmio", "slot": 0 }"#,
                &repeat(r#"{ "name": "disk#", "kind": "virtio-mmio", "slot": # }"#, 5),
            ),
            "controllers: has 5 entries; it must be a list of at most 4 objects",
        ),
        // What the parts demand of each other.
        (with(r#""controller": "disk0""#, r#""controller": "disk1""#), "cells[0].disks[0].controller: there is no controller \"disk1\"; did you mean \"disk0\"?"),
        (r#"{ "cells": [{ "name": "a", "memory": "16M", "kernel": "k", "disks": [{ "controller": "d", "partition": "p" }] }] }"#.into(), "cells[0].disks[0].controller: there is no controller \"d\"; none is described yet"),
        (second_cell("a", &disk(r#""home""#, "")), "cells[1].name: \"a\" is the name of cells[0] already; choose another name"),
        (second_cell("b", &disk(r#""root""#, "")), "cells[1].disks[0].partition: overlaps cells[0].disks[0].partition; a part of a disk has one user, unless all of them are read_only"),
        (second_cell("b", &disk(r#""root""#, r#", "read_only": true"#)), "cells[1].disks[0].partition: overlaps cells[0].disks[0].partition; a part of a disk has one user, unless all of them are read_only"),
        (second_cell("b", &disk(r#"{ "mbr": 1 }"#, "")), "cells[1].disks[0].partition: is a partition of an MBR, cells[0].disks[0].partition one of a GPT; the disk of disk0 has one partition table"),
        (
            disks(&format!(
                "{}, {}",
                disk(r#"{ "range": { "first": 0, "count": 2048 } }"#, ""),
                disk(r#"{ "range": { "first": 2047 } }"#, "")
            )),
            "cells[0].disks[1].partition: overlaps cells[0].disks[0].partition; a part of a disk has one user, unless all of them are read_only",
        ),
        (partition(r#"{ "range": { "first": 36028797018963967, "count": 2 } }"#), "cells[0].disks[0].partition.range: ends at sector 36028797018963969; no disk has more than 2^55 sectors"),
        (
            disks(&format!("{}, {}", disk(r#""p""#, r#", "serial": "s""#), disk(r#""q""#, r#", "serial": "s""#))),
            "cells[0].disks[1].serial: \"s\" is the serial of cells[0].disks[0] already; a guest tells its disks apart by it: choose another",
        ),
        (second_controller(r#""name": "disk0", "slot": 8"#), "controllers[1].name: \"disk0\" is the name of controllers[0] already; choose another name"),
        (second_controller(r#""name": "disk1", "slot": 0"#), "controllers[1].slot: slot 0 (interrupt 48) is used by controllers[0] already; choose another slot"),
        (second_controller(r#""name": "disk1", "slot": 7"#), "controllers[1].slot: slots 7 and 0 (controllers[0]) share a page; give each controller one of 0-7, 8-15, 16-23, 24-31"),
        (cell(r#""on_hang": "restart""#), "cells[0].on_hang: nobody watches this cell; set watchdog_seconds to the seconds of silence that are too many"),
        (cell(r#""cmdline": "console=hvc0", "console": "pl011""#), "cells[0].cmdline: console=hvc0 is a virtio-console, and the cell has only a PL011; write console=ttyAMA0, or \"console\": \"virtio\""),
        (cell(r#""cmdline": "root=/dev/vdb rw""#), "cells[0].cmdline: root is on /dev/vdb, and the cell has only /dev/vda; add the disk to disks, or name one that is there"),
        (r#"{ "cells": [{ "name": "a", "memory": "16M", "kernel": "k", "cmdline": "root=/dev/vda" }] }"#.into(), "cells[0].cmdline: root is on /dev/vda, and the cell has no disks; add the disk to disks, or name one that is there"),
        // Links.
        (links(r#"{ "name": "l", "peers": ["a"] }"#), "links[0].peers: has 1 entries; it must be a list of 2 to 4 names"),
        (links(r#"{ "name": "l", "peers": ["a", 5] }"#), "links[0].peers[1]: is 5; it must be a name of lower-case letters, digits, - and _ that begins with a letter, at most 32 characters"),
        (links(r#"{ "name": "l" }"#), "links[0].peers: is missing; it must be a list of 2 to 4 names"),
        (links(r#"{ "name": "l", "peers": ["a", "c"] }"#), "links[0].peers[1]: there is no cell \"c\"; did you mean \"a\"?"),
        (links(r#"{ "name": "l", "peers": ["a", "debian"] }"#), "links[0].peers[1]: there is no cell \"debian\"; there is: a, b"),
        (links(r#"{ "name": "l", "peers": ["a", "b", "a"] }"#), "links[0].peers[2]: \"a\" is peer 0 already; a cell is in a link once"),
        (links(r#"{ "name": "l", "peers": ["a", "b"], "shared": "1K" }"#), "links[0].shared: is 1K; it must be a multiple of 4K from 0K to 256M"),
        (links(r#"{ "name": "l", "peers": ["a", "b"], "output": "0K" }"#), "links[0].output: is 0K; it must be a multiple of 4K from 4K to 256M"),
        (links(r#"{ "name": "l", "peers": ["a", "b"], "output": "1G" }"#), "links[0].output: is 1G; it must be a multiple of 4K from 4K to 256M\nlinks[0]: has 2G of memory; there is room for 256M in a guest's address space"),
        (links(r#"{ "name": "l", "peers": ["a", "b"], "output": "200M" }"#), "links[0]: has 400M of memory; there is room for 256M in a guest's address space"),
        (links(r#"{ "name": "l", "peers": ["a", "b"] }, { "name": "l", "id": 0, "peers": ["a", "b"] }"#), "links[1].name: \"l\" is the name of links[0] already; choose another name\nlinks[1].id: 0 is the id of links[0] already; guests tell links apart by it: choose another"),
        (links(&repeat(r#"{ "name": "l#", "peers": ["a", "b"] }"#, 3)), "links[2].peers[0]: \"a\" is in 2 links already; hvisor's guests can be told of no more\nlinks[2].peers[1]: \"b\" is in 2 links already; hvisor's guests can be told of no more"),
        (links(&repeat(r#"{ "name": "l#", "peers": ["a", "b"] }"#, 5)), "links: has 5 entries; it must be a list of at most 4 objects"),
        (cell(r#""initrd": "a.boot""#), "cells[0].initrd: \"a.boot\" is the name of a file that is generated; rename the file, or put it into a directory"),
        (cell(r#""initrd": "guests.img""#), "cells[0].initrd: \"guests.img\" is the name of a file that is generated; rename the file, or put it into a directory"),
        (cell(r#""initrd": "a.dtb""#), "cells[0].initrd: \"a.dtb\" is the name of a file that is generated; rename the file, or put it into a directory"),
        (with(r#""Image""#, r#""vmm.elf""#), "cells[0].kernel: \"vmm.elf\" is the name of a file that is generated; rename the file, or put it into a directory"),
        // Passed-through devices.
        (one_device(r#", "adress": "0x0""#), "cells[0].passthrough[0].adress: unknown key; did you mean \"address\"?"),
        (devices(r#"{ "name": "d" }"#), "cells[0].passthrough[0].address: is missing; it must be an address such as \"0x9040000\""),
        (devices(&device("d", "9040000", "")), "cells[0].passthrough[0].address: is \"9040000\"; it must be an address such as \"0x9040000\""),
        (devices(&device("d", "0x9040200", "")), "cells[0].passthrough[0].address: is 0x9040200; it must be a multiple of 4K: whole pages are mapped, and everything in them is the guest's"),
        (one_device(r#", "size": "1K""#), "cells[0].passthrough[0].size: is 1K; it must be a multiple of 4K, and end below 2^40"),
        (devices(&device("d", "0x9000000", "")), "cells[0].passthrough[0].address: the guest would find it at 0x9000000, where the emulated PL011 is; write another guest_address, for example \"0xc000000\""),
        (one_device(r#", "guest_address": "0x40000000""#), "cells[0].passthrough[0].guest_address: the guest would find it at 0x40000000, where its RAM is; write another guest_address, for example \"0xc000000\""),
        (devices(&format!("{}, {}", device("d", "0x9040000", ""), device("d", "0x9050000", ""))), "cells[0].passthrough[1].name: \"d\" is the name of cells[0].passthrough[0] already; choose another name"),
        (devices(&format!("{}, {}", device("d", "0x9040000", r#", "size": "8K""#), device("e", "0x9041000", r#", "guest_address": "0xc000000""#))), "cells[0].passthrough[1].address: overlaps cells[0].passthrough[0]; a device has one user"),
        (devices(&format!("{}, {}", device("d", "0x9040000", ""), device("e", "0x9050000", r#", "guest_address": "0x9040000""#))), "cells[0].passthrough[1].guest_address: the guest would find it where cells[0].passthrough[0] is; write another guest_address"),
        (devices(&repeat(r#"{ "name": "d#", "address": "0xa#00000" }"#, 5)), "cells[0].passthrough: has 5 entries; it must be a list of at most 4 objects"),
        (one_device(&format!(r#", "irqs": [{}]"#, repeat(r#"{ "irq": 4# }"#, 5))), "cells[0].passthrough[0].irqs: has 5 entries; it must be a list of at most 4 objects"),
        (one_device(r#", "irqs": [{ "irq": 8 }]"#), "cells[0].passthrough[0].irqs[0].irq: is 8; it must be a whole number from 32 to 1019"),
        (one_device(r#", "irqs": [{ "irq": 40, "trigger": "rising" }]"#), "cells[0].passthrough[0].irqs[0].trigger: is \"rising\"; there is: level, edge"),
        (one_device(r#", "irqs": [{ "irq": 40, "guest_irq": 48 }]"#), "cells[0].passthrough[0].irqs[0].guest_irq: 48 is a virtio device's interrupt in the guest; leave it out, or write one from 80 to 255"),
        (one_device(r#", "irqs": [{ "irq": 40, "shared": true }]"#), "cells[0].passthrough[0].irqs[0].shared: no other device of this cell has interrupt 40; leave it out"),
        (two_lines(r#"{ "irq": 40 }"#, r#"{ "irq": 40 }"#), "cells[0].passthrough[1].irqs[0].irq: 40 is the interrupt of cells[0].passthrough[0].irqs[0] already; if the devices share the line, write \"shared\": true in both"),
        (two_lines(r#"{ "irq": 40 }"#, r#"{ "irq": 41, "guest_irq": 80 }"#), "cells[0].passthrough[1].irqs[0].guest_irq: 80 is the guest's interrupt for cells[0].passthrough[0].irqs[0] already; each line needs one of its own"),
        (two_lines(r#"{ "irq": 40, "shared": true }"#, r#"{ "irq": 40, "shared": true, "trigger": "edge" }"#), "cells[0].passthrough[1].irqs[0].trigger: is another than that of cells[0].passthrough[0].irqs[0]; devices that share a line agree on it"),
        (second_cell("b", &disk(r#""home""#, "")).replace("\"64M\"", r#""64M", "passthrough": [{ "name": "x", "address": "0x9040000", "irqs": [{ "irq": 40 }] }]"#).replace("\"512M\"", r#""512M", "passthrough": [{ "name": "x", "address": "0x9040000", "irqs": [{ "irq": 40 }] }]"#), "cells[1].passthrough[0].address: overlaps cells[0].passthrough[0]; a device has one user\ncells[1].passthrough[0].irqs[0].irq: 40 is the interrupt of cells[0].passthrough[0].irqs[0] already; a line can be shared by devices of one cell only"),
        (one_device(r#", "device_tree": {}"#), "cells[0].passthrough[0].device_tree.compatible: is missing; it must be a list of 1 to 4 strings, each a name of letters, digits and , . _ + ? # - as device trees have them, at most 31 characters"),
        (one_device(r#", "device_tree": { "compatible": ["a b"] }"#), "cells[0].passthrough[0].device_tree.compatible[0]: is \"a b\"; it must be a name of letters, digits and , . _ + ? # - as device trees have them, at most 31 characters"),
        (one_device(r#", "device_tree": { "compatible": [] }"#), "cells[0].passthrough[0].device_tree.compatible: has 0 entries; it must be a list of 1 to 4 strings, each a name of letters, digits and , . _ + ? # - as device trees have them, at most 31 characters"),
        (one_device(r#", "device_tree": { "compatible": ["a"], "properties": [{ "name": "reg" }] }"#), "cells[0].passthrough[0].device_tree.properties[0].name: \"reg\" is there already; leave it out: a property is there once"),
        (one_device(r#", "device_tree": { "compatible": ["a"], "properties": [{ "name": "x", "cell": 1, "text": "a" }] }"#), "cells[0].passthrough[0].device_tree.properties[0]: has a cell and a text; a property has one value: leave one of them"),
        // Sockets.
        (cell(r#""cid": 2"#), "cells[0].cid: is 2; it must be a whole number from 3 to 4294967294"),
        (cell(r#""manager": true"#), "cells[0].manager: the cell has no cid; a manager reaches the service by virtio-vsock: give the cell a cid"),
        (cell(r#""cid": 3"#).replace(r#""name": "a""#, r#""name": "host""#), "cells[0].name: \"host\" means CID 2 in sockets; choose another name"),
        (pair(3, ""), "cells[1].cid: 3 is the cid of cells[0] already; choose another number from 3"),
        (pair(4, r#"{ "from": "a", "to": "zebra", "ports": [1] }"#), "sockets[0].to: there is no cell \"zebra\"; there is: a, bee, host"),
        (pair(4, r#"{ "from": "be", "to": "a", "ports": [1] }"#), "sockets[0].from: there is no cell \"be\"; did you mean \"bee\"?"),
        (pair(4, r#"{ "from": "host", "to": "a", "ports": [1] }"#), "sockets[0].from: CID 2 opens no connections; name the cell that connects"),
        (pair(4, r#"{ "from": "a", "to": "a", "ports": [1] }"#), "sockets[0].to: is the cell that connects; inside a cell no device is needed: its system connects it to itself"),
        (pair(4, r#"{ "from": "a", "to": "bee", "ports": [] }"#), "sockets[0].ports: has 0 entries; it must be a list of 1 to 8 whole numbers"),
        (pair(4, r#"{ "from": "a", "to": "bee", "ports": 5 }"#), "sockets[0].ports: is 5; it must be a list of 1 to 8 whole numbers"),
        (pair(4, r#"{ "from": "a", "to": "bee", "ports": [0] }"#), "sockets[0].ports[0]: is 0; it must be a whole number from 1 to 4294967294"),
        (pair(4, r#"{ "from": "a", "to": "bee", "ports": [5, 5] }"#), "sockets[0].ports[1]: 5 is there twice; leave one of them"),
        (pair(4, r#"{ "from": "a", "to": "bee", "ports": [5] }, { "from": "a", "to": "bee", "ports": [6] }"#), "sockets[1]: sockets[0] is from a to bee already; add the ports there"),
        (pair(4, r#"{ "from": "a", "to": "host", "ports": [1] }"#), "sockets[0].ports[0]: port 1 of host is the management service; say \"manager\": true in the cell instead"),
        (pair(4, r#"{ "from": "a", "to": "host", "ports": [2] }"#), "sockets[0].ports[0]: port 2 of host is open to all; remove it: every cell with a cid may connect"),
        (pair(4, r#"{ "from": "a", "to": "host", "ports": [80] }"#), "sockets[0].ports[0]: host has no port 80; it has 7, 9, 19 and 514"),
        (
            r#"{ "cells": [{ "name": "a", "memory": "16M", "kernel": "k" }, { "name": "b", "memory": "16M", "kernel": "k", "cid": 3 }], "sockets": [{ "from": "a", "to": "b", "ports": [1] }] }"#.into(),
            "sockets[0].from: cell \"a\" has no cid; give cells[0] a cid",
        ),
    ];
    assert!(cases.len() >= 40);
    for (text, message) in cases {
        let lines: String = message.lines().map(|line| format!("partita.json: {line}\n")).collect();
        assert_eq!(sentences(text), lines, "for {text}");
    }
    assert_eq!(sentences(GOOD), "accepted");
    let good = pair(
        4,
        r#"{ "from": "a", "to": "bee", "ports": [1, 2] }, { "from": "bee", "to": "host", "ports": [7, 514] }"#,
    );
    assert_eq!(sentences(&good), "accepted");
}
