use std::{collections::BTreeSet, fmt::Write, path::Path};

use partita_config::{Config, Device};
use partita_protocol::{MAX_CELLS, MAX_CONTROLLERS, layout::vaddr};
use proptest::prelude::*;

use super::{
    compose::compose,
    generate,
    model::{Channel, End, MAX_IDS, MAX_PDS, Map, Pd, Region, System},
};
use crate::{board::Board, boot_files::BootFiles};

fn board() -> &'static Board {
    Board::named("qemu_virt_aarch64").unwrap()
}

/// A description of cells, each with disks at the controllers of these numbers. Those with an even number of vCPUs have a
/// virtio-vsock device.
fn description(controllers: usize, cells: &[(u8, Vec<usize>)]) -> String {
    let mut text = String::from("{ \"controllers\": [");
    for n in 0..controllers {
        let comma = if n == 0 { "" } else { ", " };
        write!(text, r#"{comma}{{ "name": "c{n}", "kind": "virtio-mmio", "slot": {} }}"#, n * 8).unwrap();
    }
    text.push_str("], \"cells\": [");
    for (n, (vcpus, disks)) in cells.iter().enumerate() {
        let comma = if n == 0 { "" } else { ", " };
        let cid = if vcpus % 2 == 0 { format!(r#""cid": {}, "#, 3 + n) } else { String::new() };
        write!(
            text,
            r#"{comma}{{ "name": "g{n}", "memory": "{}M", "vcpus": {vcpus}, {cid}"kernel": "Image", "disks": ["#,
            16 + 2 * n
        )
        .unwrap();
        for (d, controller) in disks.iter().enumerate() {
            let comma = if d == 0 { "" } else { ", " };
            write!(text, r#"{comma}{{ "controller": "c{controller}", "partition": "p{n}-{d}" }}"#).unwrap();
        }
        text.push_str("] }");
    }
    text + "] }"
}

fn full() -> String {
    description(MAX_CONTROLLERS, &vec![(4, vec![0, 1, 2, 3]); MAX_CELLS])
}

fn parsed(text: &str) -> Config<'_> {
    partita_config::host::parse("test.json", text).unwrap()
}

/// Everything that Microkit's tool would refuse, and what it would not but should.
fn check(system: &System, config: &Config<'_>) {
    system.check_limits().unwrap();
    let pds = system.all_pds();
    let names: BTreeSet<&str> = pds.iter().map(|pd| pd.name.as_str()).collect();
    assert_eq!(names.len(), pds.len());
    for pd in &pds {
        check_maps(system, &pd.name, &pd.maps);
        if let Some(vm) = &pd.vm {
            check_maps(system, &vm.name, &vm.maps);
            assert!(!names.contains(vm.name.as_str()));
        }
    }
    for Channel(a, b) in &system.channels {
        let priority = |end: &End| pds.iter().find(|pd| pd.name == end.pd).unwrap().priority;
        for (caller, callee) in [(a, b), (b, a)] {
            assert!(
                !caller.calls || priority(caller) < priority(callee),
                "{} calls {}",
                caller.pd,
                callee.pd
            );
        }
    }
    one_writer(system, config);
}

fn size(system: &System, map: &Map) -> u64 {
    let region = region(system, &map.region);
    // Prefilled regions are as large as their files: what the generator leaves room for.
    if region.size == 0 { if region.large { 0x1000_0000 } else { 0x1000 } } else { region.size }
}

fn region<'a>(system: &'a System, name: &str) -> &'a Region {
    let mut found = system.regions.iter().filter(|region| region.name == name);
    let region = found.next().unwrap_or_else(|| panic!("no region {name}"));
    assert!(found.next().is_none(), "two regions {name}");
    region
}

fn check_maps(system: &System, who: &str, maps: &[Map]) {
    let mut ranges: Vec<(u64, u64, &str)> = maps
        .iter()
        .map(|map| {
            let size = size(system, map);
            let granule = if region(system, &map.region).large { 0x20_0000 } else { 0x1000 };
            assert_eq!((map.vaddr % granule, size % granule), (0, 0), "{who} maps {}", map.region);
            (map.vaddr, map.vaddr + size, map.region.as_str())
        })
        .collect();
    ranges.sort_unstable();
    for pair in ranges.windows(2) {
        assert!(pair[0].1 <= pair[1].0, "{who}: {} and {} overlap", pair[0].2, pair[1].2);
    }
    assert!(ranges.last().is_none_or(|last| last.1 <= 0xff_ffff_0000), "{who} maps beyond the address space");
}

/// Rule 1, with its exceptions spelled out: guest RAM, and the page of the GIC, which the hardware banks.
fn one_writer(system: &System, config: &Config<'_>) {
    for region in &system.regions {
        let mut writers = Vec::new();
        for pd in system.all_pds() {
            let vm = pd.vm.iter().flat_map(|vm| vm.maps.iter().map(|map| (vm.name.as_str(), map)));
            for (who, map) in pd.maps.iter().map(|map| (pd.name.as_str(), map)).chain(vm) {
                if map.region == region.name && map.perms.contains('w') {
                    writers.push(who);
                }
            }
        }
        if region.name == "gicv" {
            assert_eq!(writers.len(), config.cells.len());
        } else if let Some(cell) = region.name.strip_prefix("guest_ram.") {
            let (_, cell) = config.cell(cell).unwrap();
            let backends: BTreeSet<_> = cell.disks.iter().map(|disk| disk.controller).collect();
            assert_eq!(writers.len(), 2 + backends.len() + usize::from(cell.cid.is_some()));
        } else if let Some(link) = region.name.strip_suffix(".shared") {
            let link = config.links.iter().find(|l| Some(l.name) == link.strip_prefix("link.")).unwrap();
            let guests: Vec<String> = link.peers.iter().map(|peer| format!("guest.{peer}")).collect();
            assert_eq!(writers.len(), guests.len());
            assert!(guests.iter().all(|guest| writers.contains(&guest.as_str())));
        } else if region.prefill.is_some() || region.name.starts_with("guest_file.") {
            assert_eq!(writers, [""; 0], "{}", region.name);
        } else {
            assert_eq!(writers.len(), 1, "{} is written by {writers:?}", region.name);
        }
    }
}

#[test]
fn the_largest_description_fits() {
    let text = full();
    let config = parsed(&text);
    let system = compose(&config, board(), &BootFiles::default());
    check(&system, &config);
    // supervisor, pulse, timer, console, the broker, the drivers, the VMMs
    assert_eq!(system.all_pds().len(), 5 + MAX_CONTROLLERS + MAX_CELLS);
}

#[test]
fn a_link_is_mapped_into_its_peers_only_and_an_output_section_has_one_writer() {
    let links = r#", "links": [
        { "name": "l", "peers": ["g0", "g1", "g2"], "shared": "8K", "output": "64K" },
        { "name": "m", "peers": ["g1", "g0"], "output": "2M" }
    ] }"#;
    let text = description(1, &[(1, vec![]), (1, vec![]), (1, vec![]), (1, vec![])]);
    let text = format!("{}{links}", text.strip_suffix(" }").unwrap());
    let config = parsed(&text);
    let system = compose(&config, board(), &BootFiles::default());
    check(&system, &config);
    let maps = |region: &str| -> Vec<(String, u64, &str)> {
        let pds = system.all_pds();
        let pds = pds.iter().map(|pd| (&pd.name, &pd.maps));
        let vms = system.all_pds().into_iter().filter_map(|pd| pd.vm.as_ref()).map(|vm| (&vm.name, &vm.maps));
        let all = pds.chain(vms).flat_map(|(who, maps)| maps.iter().map(move |map| (who, map)));
        all.filter(|(_, map)| map.region == region)
            .map(|(who, map)| (who.clone(), map.vaddr, map.perms))
            .collect()
    };
    let guest = |n: u32, at: u64, perms| (format!("guest.g{n}"), at, perms);
    assert_eq!(maps("link.l.shared"), [0, 1, 2].map(|n| guest(n, 0x1000_0000, "rw")));
    let at = 0x1001_2000;
    assert_eq!(maps("link.l.output.g1"), [guest(0, at, "r"), guest(1, at, "rw"), guest(2, at, "r")]);
    assert_eq!(maps("link.m.output.g0"), [guest(0, 0x2020_0000, "rw"), guest(1, 0x2020_0000, "r")]);
    // Control tables: the VMM fills them in, the guest reads them, and stores exit.
    let table = maps("link_control.g2");
    assert_eq!(table, [("vmm_g2".into(), vaddr::LINK_CONTROL as u64, "rw"), guest(2, 0x0b00_0000, "r")]);
    // A cell without links has nothing of it; one with links and without a cid is still heard.
    let g3 = system.all_pds().into_iter().find(|pd| pd.name == "vmm_g3").unwrap();
    assert!(!g3.maps.iter().chain(&g3.vm.as_ref().unwrap().maps).any(|map| map.region.contains("link")));
    let hears = |cell: &str| system.channels.iter().any(|Channel(a, b)| a.pd == cell && b.pd == "ivc");
    assert!(hears("vmm_g0") && hears("vmm_g2") && !hears("vmm_g3"));
}

#[test]
fn system_xml_is_that_of_partita_json() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let read = |file: &str| std::fs::read_to_string(root.join(file)).unwrap();
    let text = read("partita.json");
    let xml = generate(&parsed(&text), board(), &BootFiles::default()).unwrap();
    assert!(read("system.xml") == xml, "system.xml is stale: run `make generate`");
}

#[test]
fn a_cell_sees_its_memory_its_devices_and_nothing_else() {
    let text = description(2, &[(1, vec![0, 1]), (2, vec![])]);
    let config = parsed(&text);
    let system = compose(&config, board(), &BootFiles::default());
    check(&system, &config);
    let pds = system.all_pds();
    let vm = |name: &str| pds.iter().find(|pd| pd.name == name).and_then(|pd| pd.vm.as_ref()).unwrap();
    let regions = |name: &str| vm(name).maps.iter().map(|map| map.region.clone()).collect::<Vec<_>>();
    assert_eq!(regions("vmm_g0"), ["guest_ram.g0", "gicv", "virtio_registers.g0"]);
    assert_eq!(regions("vmm_g1"), ["guest_ram.g1", "gicv", "virtio_registers.g1"]);
    assert_eq!((vm("vmm_g0").vcpus, vm("vmm_g1").vcpus), (1, 2));
    let registers = vm("vmm_g0").maps.last().unwrap();
    assert_eq!((registers.perms, registers.cached), ("r", false));
    // Two disks and the console: three pages.
    let devices: Vec<Device> = config.cells[0].devices().collect();
    assert_eq!(devices, [Device::Disk(0), Device::Disk(1), Device::Console]);
    assert_eq!(size(&system, registers), 0x3000);
    // The second has vsock behind its console; the broker has its RAM and nobody else's.
    assert_eq!(config.cells[1].devices().collect::<Vec<_>>(), [Device::Console, Device::Vsock]);
    let ivc = pds.iter().find(|pd| pd.name == "ivc").unwrap();
    let ram: Vec<_> = ivc.maps.iter().filter(|map| map.region.starts_with("guest_ram")).collect();
    assert_eq!(ram.len(), 1);
    assert_eq!((ram[0].region.as_str(), ram[0].vaddr), ("guest_ram.g1", vaddr::cell_ram(1) as u64));
    assert!(ivc.paddrs.is_empty());
    // A driver has the RAM of its clients only.
    let blk = pds.iter().find(|pd| pd.name == "blk_c1").unwrap();
    let ram: Vec<_> = blk.maps.iter().filter(|map| map.region.starts_with("guest_ram")).collect();
    assert_eq!(ram.len(), 1);
    assert_eq!((ram[0].region.as_str(), ram[0].vaddr), ("guest_ram.g0", vaddr::cell_ram(0) as u64));
}

#[test]
fn cells_share_a_kernel_but_no_device_tree() {
    let text = description(0, &[(1, vec![]), (1, vec![])]);
    let config = parsed(&text);
    let system = compose(&config, board(), &BootFiles::default());
    let prefills: Vec<_> = system.regions.iter().filter_map(|region| region.prefill.as_deref()).collect();
    assert_eq!(prefills, ["partita.json", "g0.dtb", "g1.dtb", "Image"]);
}

/// Files of these lengths, for each name of a description.
fn boot_files(config: &Config<'_>, length: u64) -> BootFiles {
    BootFiles::with(config, |name| Ok((name.into(), length))).unwrap()
}

#[test]
fn boot_files_are_mapped_into_the_vmms_that_boot_them_and_written_by_nobody() {
    let text = r#"{ "boot_files": "0xc0000000", "cells": [
        { "name": "a", "memory": "64M", "kernel": "k", "initrd": "i" },
        { "name": "b", "memory": "64M", "kernel": "k" } ] }"#;
    let config = parsed(text);
    let files = boot_files(&config, 27 << 20);
    let system = compose(&config, board(), &files);
    check(&system, &config);
    let at = |name: &str| region(&system, name).paddr.zip(Some(region(&system, name).size));
    assert_eq!(at("guest_file.0"), Some((0xc000_0000, 28 << 20)));
    assert_eq!(at("guest_file.1"), Some((0xc1c0_0000, 28 << 20)));
    let maps = |pd: &str| -> Vec<(String, u64, &str, Option<String>)> {
        let pds = system.all_pds();
        let pd = pds.iter().find(|other| other.name == pd).unwrap();
        let files = pd.maps.iter().filter(|map| map.region.starts_with("guest_file"));
        files.map(|map| (map.region.clone(), map.vaddr, map.perms, map.setvar_size.clone())).collect()
    };
    let kernel =
        ("guest_file.0".to_owned(), vaddr::GUEST_KERNEL as u64, "r", Some("guest_kernel_room".to_owned()));
    let initrd =
        ("guest_file.1".to_owned(), vaddr::GUEST_INITRD as u64, "r", Some("guest_initrd_room".to_owned()));
    assert_eq!(maps("vmm_a"), [kernel.clone(), initrd]);
    assert_eq!(maps("vmm_b"), [kernel]);
    // What is packed: descriptions and the headers to expect, no kernel.
    let prefills: Vec<_> = system.regions.iter().filter_map(|region| region.prefill.as_deref()).collect();
    assert_eq!(prefills, ["partita.json", "a.dtb", "b.dtb", "a.boot", "b.boot"]);
    // make report counts the files as shared and written by nobody, not as a device's registers.
    let report = crate::report::write(&generate(&config, board(), &files).unwrap()).unwrap();
    let lines: Vec<&str> = report.lines().filter(|line| line.contains("guest_file.0")).collect();
    assert!(lines.len() == 2 && lines.iter().all(|line| line.contains("  no writer;")), "{lines:?}");
}

#[test]
fn names_cannot_run_into_each_other() {
    let text = r#"{ "controllers": [{ "name": "a", "kind": "virtio-mmio" },
                                    { "name": "a_b", "kind": "virtio-mmio", "slot": 8 }],
        "cells": [{ "name": "b_c", "memory": "16M", "kernel": "k", "disks": [{ "controller": "a", "partition": "1" }] },
                  { "name": "c", "memory": "16M", "kernel": "k", "disks": [{ "controller": "a_b", "partition": "2" }] },
                  { "name": "timer", "memory": "16M", "kernel": "k" }] }"#;
    let config = parsed(text);
    check(&compose(&config, board(), &BootFiles::default()), &config);
}

#[test]
fn limits_of_microkit_are_kept() {
    let pd = |n: usize| Pd { name: format!("p{n}"), ..Pd::default() };
    let sentence = |system: System| system.check_limits().unwrap_err().to_string();
    let system = |count| System { pds: (0..count).map(pd).collect(), ..System::default() };
    assert!(system(MAX_PDS).check_limits().is_ok());
    assert!(sentence(system(MAX_PDS + 1)).contains("needs 64 protection domains"));

    let channel = |a: usize, b: usize| {
        let end = |n: usize, id: usize| End { pd: format!("p{n}"), id, calls: false };
        System { channels: vec![Channel(end(0, a), end(1, b))], ..system(2) }
    };
    assert!(channel(MAX_IDS - 1, 0).check_limits().is_ok());
    assert!(sentence(channel(MAX_IDS, 0)).contains("channel or interrupt id 62"));
    let mut twice = channel(3, 0);
    twice.pds[0].irqs.push((3, board().timer));
    assert!(sentence(twice).contains("id 3 twice"));
    let mut children = system(1);
    children.pds[0].children = vec![Pd { id: Some(MAX_IDS), ..pd(1) }];
    assert!(sentence(children).contains("child or vCPU id 62"));
    let region = Region { name: "r".into(), ..Region::default() };
    assert!(
        sentence(System { regions: vec![region.clone(), region], ..system(1) }).contains("two regions r")
    );
}

#[test]
fn guests_larger_than_the_board_are_refused() {
    let cell =
        |n: usize, memory: &str| format!(r#"{{ "name": "g{n}", "memory": "{memory}", "kernel": "k" }}"#);
    let text = format!(r#"{{ "cells": [{}, {}] }}"#, cell(0, "1G"), cell(1, "512M"));
    let sentence = generate(&parsed(&text), board(), &BootFiles::default()).unwrap_err().to_string();
    assert_eq!(sentence, "cells: they have 1536M of memory together; qemu_virt_aarch64 has 1408M for them");
    let text = format!(r#"{{ "cells": [{}, {}] }}"#, cell(0, "1G"), cell(1, "384M"));
    assert!(generate(&parsed(&text), board(), &BootFiles::default()).is_ok());
}

#[test]
fn memory_at_a_fixed_place_is_the_boards_and_counts_apart() {
    let cell = |n: usize, memory: &str, at: &str| {
        format!(r#"{{ "name": "g{n}", "memory": "{memory}", {at} "kernel": "k" }}"#)
    };
    let fixed = |address: &str| {
        let cells = [cell(0, "1408M", ""), cell(1, "512M", &format!(r#""memory_address": "{address}","#))];
        generate(&parsed(&format!(r#"{{ "cells": [{}] }}"#, cells.join(","))), board(), &BootFiles::default())
    };
    let xml = fixed("0x40000000").unwrap();
    let region = xml.lines().find(|line| line.contains("name=\"guest_ram.g1\"")).unwrap();
    assert!(
        region.contains("phys_addr=\"0x40000000\"") && region.contains("size=\"0x20000000\""),
        "{region}"
    );
    assert!(!xml.lines().any(|line| line.contains("guest_ram.g0") && line.contains("phys_addr")));
    assert_eq!(
        fixed("0x40200000").unwrap_err().to_string(),
        "cells[1].memory_address: 512M from 0x40200000 are not in the memory that qemu_virt_aarch64 keeps from the \
         kernel, 0x40000000 to 0x60000000 and 0xc0000000 to 0x240000000; leave memory_address out, or choose an address there"
    );
    assert!(fixed("0x80000000").is_err() && fixed("0x3fe00000").is_err());
}

#[test]
fn boards_have_a_sentence() {
    assert!(Board::named("rpi4b_4gb").unwrap_err().to_string().contains("not supported yet"));
    assert!(Board::named("qemu").unwrap_err().to_string().contains("unknown"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever the description, the system keeps the rules; and the document is well-formed XML.
    #[test]
    fn any_system_keeps_the_rules(
        controllers in 0..=MAX_CONTROLLERS,
        cells in proptest::collection::vec((1..=4u8, proptest::collection::vec(0..MAX_CONTROLLERS, 0..=4)), 1..=MAX_CELLS),
        beside in proptest::option::of(1..128u64 << 20),
    ) {
        let cells: Vec<_> = cells
            .into_iter()
            .map(|(vcpus, disks)| (vcpus, disks.into_iter().filter(|disk| *disk < controllers).collect()))
            .collect();
        let mut text = description(controllers, &cells);
        if beside.is_some() {
            text = text.replacen('{', r#"{ "boot_files": "0xc0000000","#, 1);
        }
        let config = parsed(&text);
        let files = boot_files(&config, beside.unwrap_or(0));
        check(&compose(&config, board(), &files), &config);
        let xml = generate(&config, board(), &files).unwrap();
        let document = roxmltree::Document::parse(&xml).unwrap();
        prop_assert!(document.root_element().has_tag_name("system"));
        prop_assert!(crate::report::write(&xml).is_ok());
        let svg = crate::report::draw(&xml).unwrap();
        prop_assert!(roxmltree::Document::parse(&svg).is_ok());
    }
}
