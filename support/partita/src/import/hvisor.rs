//! Reads a zone file and a virtio file of hvisor's tool. Numbers may be JSON numbers or strings such as `"0x8000_0000"`.

use serde_json::{Map, Value, json};

use super::Imported;
use crate::{fail, failure::Result};

/// A file's name, for messages, and its text.
type File = (String, String);

/// Memory of a cell is a multiple of this.
const GRANULE: u64 = 2 << 20;

/// Converts a zone, with its devices if the virtio file is given.
///
/// # Errors
/// A file is no JSON object; the zone has no name, no memory or no kernel.
pub fn import(zone_file: &File, virtio_file: Option<&File>) -> Result<Imported> {
    let zone = object(zone_file)?;
    let mut notes = Vec::new();
    let name = cell_name(zone_file, &zone, &mut notes)?;
    let mut cell = Map::new();
    cell.insert("name".into(), json!(name));
    cell.insert("memory".into(), json!(memory(zone_file, &zone, &mut notes)?));
    cell.insert("vcpus".into(), json!(vcpus(&zone, &mut notes)));
    let Some(kernel) = zone.get("kernel_filepath").and_then(Value::as_str) else {
        fail!("{}: kernel_filepath is missing; a cell needs a kernel", zone_file.0);
    };
    cell.insert("kernel".into(), json!(kernel));
    modules(&zone, &mut cell, &mut notes);
    cell.insert("cmdline".into(), json!("console=hvc0 root=/dev/vda rw"));
    notes.push(
        "cells[0].cmdline: hvisor's is in the zone's device tree; compare chosen/bootargs there".into(),
    );

    let id = zone.get("zone_id").and_then(number);
    let mut disks = Vec::new();
    let mut console = false;
    if let Some(virtio_file) = virtio_file {
        devices(virtio_file, id, &mut disks, &mut console, &mut notes)?;
    } else {
        notes.push("no virtio file was given: the cell has a console and no disks".into());
        console = true;
    }
    if !console {
        cell.insert("console".into(), json!("pl011"));
        cell.insert("cmdline".into(), json!("console=ttyAMA0 root=/dev/vda rw"));
        notes
            .push("the zone has no virtio console: the cell's console is the emulated PL011, ttyAMA0".into());
    }
    if disks.is_empty() {
        let cmdline = if console { "console=hvc0" } else { "console=ttyAMA0" };
        cell.insert("cmdline".into(), json!(cmdline));
    } else {
        cell.insert("disks".into(), Value::Array(disks.clone()));
    }
    without_counterpart(&zone, &mut notes);

    let text = write(&cell, !disks.is_empty());
    if let Err(problems) = partita_config::host::parse("partita.json", &text) {
        notes.extend(problems.iter().map(|problem| format!("to be put right by hand: {problem}")));
    }
    Ok(Imported { description: text, notes })
}

/// The keys in the order that people write them.
const ORDER: [&str; 8] = ["name", "memory", "vcpus", "kernel", "initrd", "cmdline", "console", "disks"];

fn write(cell: &Map<String, Value>, disk: bool) -> String {
    let controllers = if disk {
        "  \"controllers\": [{ \"name\": \"disk0\", \"kind\": \"virtio-mmio\", \"slot\": 0 }],\n"
    } else {
        ""
    };
    let keys: Vec<String> =
        ORDER.iter().filter_map(|key| Some(format!("      \"{key}\": {}", cell.get(*key)?))).collect();
    format!("{{\n{controllers}  \"cells\": [\n    {{\n{}\n    }}\n  ]\n}}\n", keys.join(",\n"))
}

fn object((name, text): &File) -> Result<Map<String, Value>> {
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => fail!("{name}: the file must hold an object"),
        Err(error) => fail!("{name}: not JSON: {error}"),
    }
}

/// A number, or a string of one.
fn number(value: &Value) -> Option<u64> {
    match value {
        Value::String(text) => {
            let text = text.trim().replace('_', "");
            match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
                Some(hex) => u64::from_str_radix(hex, 16).ok(),
                None => text.parse().ok(),
            }
        }
        value => value.as_u64(),
    }
}

fn list<'a>(map: &'a Map<String, Value>, key: &str) -> &'a [Value] {
    map.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// hvisor takes any name; here it is part of the name of a protection domain.
fn cell_name(file: &File, zone: &Map<String, Value>, notes: &mut Vec<String>) -> Result<String> {
    let Some(name) = zone.get("name").and_then(Value::as_str) else {
        fail!("{}: name is missing; is it hvisor's zone file?", file.0);
    };
    let fits = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c.to_ascii_lowercase() } else { '-' };
    let mut fitting: String = name.chars().map(fits).take(32).collect();
    if !fitting.starts_with(|c: char| c.is_ascii_lowercase()) {
        fitting = format!("zone-{fitting}").chars().take(32).collect();
    }
    if fitting != name {
        notes
            .push(format!("cells[0].name: {name:?} became {fitting:?}: lower-case letters, digits, - and _"));
    }
    Ok(fitting)
}

/// RAM is one region here; `io` regions would give devices to the guest.
fn memory(file: &File, zone: &Map<String, Value>, notes: &mut Vec<String>) -> Result<String> {
    let (mut ram, mut regions) = (0u64, 0);
    for (n, region) in list(zone, "memory_regions").iter().enumerate() {
        let get = |key: &str| region.get(key).and_then(number).unwrap_or_default();
        let at = format!("{:#x}, {:#x} bytes", get("virtual_start"), get("size"));
        match region.get("type").and_then(Value::as_str) {
            Some("ram") => {
                ram = ram.saturating_add(get("size"));
                regions += 1;
            }
            Some("io") => notes.push(format!(
                "memory_regions[{n}]: the device at {at} is not passed through: cells get their devices from Partita"
            )),
            // Where the guest finds its virtio devices is Partita's choice.
            Some("virtio") => {}
            other => notes.push(format!("memory_regions[{n}]: type {other:?} is unknown; left out")),
        }
    }
    if ram == 0 {
        fail!("{}: memory_regions has no region of type ram; a cell needs memory", file.0);
    }
    if regions > 1 {
        notes.push(format!("cells[0].memory: {regions} regions of RAM became one; it begins at 0x40000000"));
    } else {
        notes.push(
            "cells[0].memory: RAM begins at 0x40000000, wherever hvisor had it (docs/guest-abi.md)".into(),
        );
    }
    let rounded = ram.checked_next_multiple_of(GRANULE).unwrap_or(ram);
    if rounded != ram {
        notes.push(format!("cells[0].memory: {ram:#x} bytes were rounded up to a multiple of 2M"));
    }
    Ok(format!("{}M", rounded >> 20))
}

/// hvisor gives whole processors; here virtual ones share them.
fn vcpus(zone: &Map<String, Value>, notes: &mut Vec<String>) -> u64 {
    let cpus = list(zone, "cpus").len().max(1) as u64;
    let most = partita_protocol::MAX_VCPUS as u64;
    notes.push(format!(
        "cells[0].vcpus: processors of its own ({cpus}) became virtual ones, which share the machine's: see priority, budget_us"
    ));
    if cpus > most {
        notes.push(format!("cells[0].vcpus: {cpus} are too many, {most} were taken"));
    }
    cpus.min(most)
}

/// A module that looks like an initramfs becomes one.
fn modules(zone: &Map<String, Value>, cell: &mut Map<String, Value>, notes: &mut Vec<String>) {
    for (n, module) in list(zone, "modules").iter().enumerate() {
        let text = |key| module.get(key).and_then(Value::as_str).unwrap_or_default();
        let (name, path) = (text("name"), text("filepath"));
        let initrd =
            ["initrd", "initramfs", "rootfs"].iter().any(|word| name.contains(word) || path.contains(word));
        if initrd && !path.is_empty() && !cell.contains_key("initrd") {
            cell.insert("initrd".into(), json!(path));
        } else {
            notes.push(format!("modules[{n}]: {name:?} ({path}) is no initramfs; left out"));
        }
    }
}

fn devices(
    file: &File,
    id: Option<u64>,
    disks: &mut Vec<Value>,
    console: &mut bool,
    notes: &mut Vec<String>,
) -> Result {
    let virtio = object(file)?;
    let zones = list(&virtio, "zones");
    let Some(zone) = zones.iter().find(|zone| zone.get("id").and_then(number) == id && id.is_some()) else {
        let ids: Vec<String> = zones
            .iter()
            .filter_map(|zone| zone.get("id").and_then(number))
            .map(|id| id.to_string())
            .collect();
        let wanted = id.map_or_else(|| "none".into(), |id| id.to_string());
        fail!("{}: no zone has the id {wanted} of the zone file; there is: {}", file.0, ids.join(", "));
    };
    let Some(zone) = zone.as_object() else { fail!("{}: zones must hold objects", file.0) };
    for (n, device) in list(zone, "devices").iter().enumerate() {
        let text = |key| device.get(key).and_then(Value::as_str);
        let path = format!("devices[{n}]");
        if text("status") == Some("disable") {
            notes.push(format!("{path}: is disabled; left out"));
            continue;
        }
        match text("type") {
            Some("blk") => {
                let image = text("img").unwrap_or_default();
                let label = label(image);
                notes.push(format!(
                    "cells[0].disks[{}].partition: {image} is a file in hvisor's root Linux; here a guest has a partition: \
                     write the image's contents into a GPT partition labelled {label:?} of disk0",
                    disks.len()
                ));
                disks.push(json!({ "controller": "disk0", "partition": label }));
            }
            Some("console") => {
                if std::mem::replace(console, true) {
                    notes.push(format!("{path}: a second console; left out"));
                }
            }
            Some("net") => notes.push(format!(
                "{path}: a network device (tap {}); Partita has no network between cells yet; left out",
                text("tap").unwrap_or("?")
            )),
            other => notes.push(format!("{path}: a device of type {other:?} has no counterpart; left out")),
        }
    }
    Ok(())
}

/// A partition label from an image's file name.
fn label(image: &str) -> String {
    let file = image.rsplit('/').next().unwrap_or_default();
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    let label: String =
        stem.chars().filter(|c| c.is_ascii_graphic() && !"\"\\".contains(*c)).take(36).collect();
    // These words are keys of the object form.
    if matches!(label.as_str(), "" | "gpt" | "mbr" | "range") { format!("disk-{label}") } else { label }
}

/// What remains of the zone file.
fn without_counterpart(zone: &Map<String, Value>, notes: &mut Vec<String>) {
    for (key, value) in zone {
        let note = match key.as_str() {
            "name" | "zone_id" | "cpus" | "memory_regions" | "kernel_filepath" | "modules" => continue,
            "interrupts" if value.as_array().is_some_and(Vec::is_empty) => continue,
            "ivc_configs" => {
                links(value, notes);
                continue;
            }
            "interrupts" => "interrupts of the guest's devices are given by Partita (docs/guest-abi.md)",
            "dtb_filepath" => "the device tree is generated",
            "kernel_load_paddr" | "dtb_load_paddr" | "entry_point" => "Partita places kernel and device tree",
            "arch_config" => "the guest's interrupt controller is the board's: see docs/guest-abi.md",
            "pci_config" | "num_pci_devs" | "alloc_pci_devs" => "cells have no PCI",
            _ => "the key is unknown here",
        };
        notes.push(format!("{key}: {note}; left out"));
    }
}

/// A link needs two cells, and a zone file has one: so each becomes a note with the words to write.
fn links(value: &Value, notes: &mut Vec<String>) {
    for (n, ivc) in value.as_array().into_iter().flatten().enumerate() {
        let get = |key: &str| ivc.get(key).and_then(number).unwrap_or_default();
        let (id, peer, kib) = (get("ivc_id"), get("peer_id"), |key| get(key).div_ceil(0x1000) * 4);
        notes.push(format!(
            "ivc_configs[{n}]: once the other cells are described too, write \"links\": [{{ \"name\": \"ivc{id}\", \"id\": {id}, \
             \"peers\": [...], \"shared\": \"{}K\", \"output\": \"{}K\" }}] with {} names, this cell's in place {peer} \
             (counted from 0); addresses and the interrupt are Partita's (docs/links.md)",
            kib("rw_sec_size"),
            kib("out_sec_size"),
            get("max_peers").max(2)
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Facts of hvisor's formats, typed by us: numbers as strings of hexadecimal digits, one zone of three devices.
    const ZONE: &str = r#"{
        "name": "Linux2", "zone_id": 1, "cpus": [2, 3],
        "memory_regions": [
            { "type": "ram", "physical_start": "0x60000000", "virtual_start": "0x60000000", "size": "0x10000000" },
            { "type": "io", "physical_start": "0x9000000", "virtual_start": "0x9000000", "size": "0x1000" },
            { "type": "virtio", "physical_start": "0xa003c00", "virtual_start": "0xa003c00", "size": "0x200" }
        ],
        "interrupts": [76, 78], "ivc_configs": [],
        "kernel_filepath": "./Image", "dtb_filepath": "./zone1.dtb",
        "kernel_load_paddr": "0x60400000", "dtb_load_paddr": "0x60000000", "entry_point": "0x60400000",
        "arch_config": { "gic_version": "v3", "gicd_base": "0x8000000" }
    }"#;
    const VIRTIO: &str = r#"{ "zones": [
        { "id": 3, "devices": [] },
        { "id": 1, "memory_region": [{ "zone0_ipa": "0x60000000", "zonex_ipa": "0x60000000", "size": "0x10000000" }],
          "devices": [
            { "type": "blk", "addr": "0xa003c00", "len": "0x200", "irq": 78, "img": "/root/rootfs2.ext4", "status": "enable" },
            { "type": "console", "addr": "0xa003800", "len": "0x200", "irq": 76, "status": "enable" },
            { "type": "net", "addr": "0xa003600", "len": "0x200", "irq": 75, "tap": "tap0",
              "mac": ["0x00", "0x16", "0x3e", "0x10", "0x10", "0x10"], "status": "enable" },
            { "type": "blk", "img": "old.img", "status": "disable" }
        ] }
    ] }"#;

    fn file(name: &str, text: &str) -> File {
        (name.into(), text.into())
    }

    #[test]
    fn a_linux_zone_becomes_a_cell() {
        let imported = import(&file("zone.json", ZONE), Some(&file("virtio.json", VIRTIO))).unwrap();
        let config = partita_config::host::parse("x", &imported.description).unwrap();
        let cell = &config.cells[0];
        assert_eq!((cell.name, cell.memory.to_string(), cell.vcpus), ("linux2", "256M".into(), 2));
        assert_eq!((cell.kernel, cell.disks.len()), ("./Image", 1));
        assert_eq!(cell.disks[0].partition, partita_config::Partition::Label("rootfs2"));
        assert_eq!(config.controllers.len(), 1);
        let notes = imported.notes.join("\n");
        for word in [
            "\"Linux2\" became \"linux2\"",
            "memory_regions[1]: the device at 0x9000000",
            "processors of its own (2)",
            "/root/rootfs2.ext4 is a file",
            "devices[2]: a network device (tap tap0)",
            "devices[3]: is disabled",
            "interrupts: ",
            "dtb_filepath: ",
            "kernel_load_paddr: ",
            "dtb_load_paddr: ",
            "entry_point: ",
            "arch_config: ",
        ] {
            assert!(notes.contains(word), "no {word:?} in\n{notes}");
        }
        assert!(!notes.contains("ivc_configs"), "{notes}");
        assert!(!notes.contains("by hand"), "{notes}");
    }

    #[test]
    fn no_key_is_left_out_silently() {
        let zone = ZONE
            .replace("\"ivc_configs\": []", "\"ivc_configs\": [{ \"ivc_id\": 3, \"peer_id\": 1, \"rw_sec_size\": \"0\", \"out_sec_size\": \"0x1000\", \"max_peers\": 2 }], \"secret\": 1")
            .replace("\"0x10000000\" }", "\"0x1000_0001\" }");
        let modules = r#""modules": [{ "name": "initrd", "filepath": "i.gz", "load_paddr": "0x0" },
            { "name": "firmware", "filepath": "fw.bin", "load_paddr": "0x0" }], "name""#;
        let zone = zone.replacen("\"name\"", modules, 1);
        let imported = import(&file("zone.json", &zone), None).unwrap();
        let config = partita_config::host::parse("x", &imported.description).unwrap();
        assert_eq!(
            (config.cells[0].initrd, config.cells[0].memory.to_string()),
            (Some("i.gz"), "258M".into())
        );
        let notes = imported.notes.join("\n");
        for word in [
            r#"ivc_configs[0]: once the other cells are described too, write "links": [{ "name": "ivc3", "id": 3, "peers": [...], "shared": "0K", "output": "4K" }] with 2 names, this cell's in place 1"#,
            "secret: the key is unknown",
            "rounded up",
            "\"firmware\"",
            "no virtio file",
        ] {
            assert!(notes.contains(word), "no {word:?} in\n{notes}");
        }
    }

    #[test]
    fn a_zone_without_a_console_gets_the_pl011() {
        let virtio = VIRTIO.replace("\"console\"", "\"gpu\"");
        let imported = import(&file("zone.json", ZONE), Some(&file("virtio.json", &virtio))).unwrap();
        let config = partita_config::host::parse("x", &imported.description).unwrap();
        assert_eq!(config.cells[0].cmdline, Some("console=ttyAMA0 root=/dev/vda rw"));
        assert!(imported.notes.iter().any(|note| note.contains("\"gpu\"")), "{:?}", imported.notes);
    }

    #[test]
    fn what_is_no_zone_is_refused() {
        let refused = |zone: &str, virtio: Option<&str>| {
            let virtio = virtio.map(|text| file("v.json", text));
            import(&file("z.json", zone), virtio.as_ref()).unwrap_err().to_string()
        };
        assert!(refused("x", None).starts_with("z.json: not JSON"));
        assert!(refused("[]", None).contains("must hold an object"));
        assert!(refused("{}", None).contains("name is missing"));
        assert!(refused(&ZONE.replace("\"ram\"", "\"rom\""), None).contains("no region of type ram"));
        assert!(
            refused(&ZONE.replace("kernel_filepath", "kernel"), None).contains("kernel_filepath is missing")
        );
        let other = refused(&ZONE.replace("\"zone_id\": 1", "\"zone_id\": 2"), Some(VIRTIO));
        assert_eq!(other, "v.json: no zone has the id 2 of the zone file; there is: 3, 1");
    }

    #[test]
    fn numbers_have_two_forms() {
        for (text, value) in
            [("5", Some(5)), (r#""0x8000_0000""#, Some(1 << 31)), (r#""12""#, Some(12)), (r#""z""#, None)]
        {
            assert_eq!(number(&serde_json::from_str(text).unwrap()), value);
        }
        assert_eq!(label("/a/gpt.img"), "disk-gpt");
        assert_eq!(label(""), "disk-");
    }
}
