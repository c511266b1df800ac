//! The device tree of a guest.
//!
//! It says what the VMM emulates and nothing else; docs/guest-abi.md describes the machine. PSCI is called by SMC because
//! seL4 takes HVC for a system call. The GIC's second region is the physical GICV page. Only the virtual timer is the
//! guest's own; the entries of the others are there because the binding wants them.

use partita_config::{Cell, Config, Passthrough, Trigger};
use partita_protocol::layout::guest;
use vm_fdt::FdtWriter;

use crate::{
    board::Board,
    fail,
    failure::{Failure, Result},
};

const GIC_PHANDLE: u32 = 1;
const CLOCK_PHANDLE: u32 = 2;
/// First of those of the clocks of passed-through devices.
const PASSTHROUGH_PHANDLE: u32 = 0x100;
const SPI: u32 = 0;
const PPI: u32 = 1;
const LEVEL_HIGH: u32 = 4;
const EDGE_RISING: u32 = 1;
/// First INTID of the shared interrupts, which the binding counts from 0.
const FIRST_SPI: u32 = 32;
const PL011_CLOCK: u32 = 24_000_000;

/// The device tree blob of a cell whose initramfs has `initrd` bytes (0: it has none).
///
/// # Errors
/// The initramfs does not fit into the cell's memory.
pub fn write(config: &Config<'_>, cell: &Cell<'_>, board: &Board, initrd: u64) -> Result<Vec<u8>> {
    let ram = cell.memory.0;
    let (Some(initrd_start), Some(_)) = (guest::initrd_address(ram, initrd), guest::dtb_address(ram, initrd))
    else {
        fail!(
            "cell {}: its memory of {} has no room for its initramfs of {initrd} bytes; give it more memory",
            cell.name,
            cell.memory
        );
    };
    let chosen = Chosen { initrd: (initrd != 0).then_some((initrd_start, initrd_start + initrd)) };
    let links = config.links_of(cell.name).count();
    build(cell, board, &chosen, links)
        .map_err(|error| Failure::new(format!("cell {}: its device tree: {error}", cell.name)))
}

struct Chosen {
    initrd: Option<(u64, u64)>,
}

fn build(
    cell: &Cell<'_>,
    board: &Board,
    chosen: &Chosen,
    links: usize,
) -> std::result::Result<Vec<u8>, vm_fdt::Error> {
    let mut fdt = FdtWriter::new()?;
    let root = fdt.begin_node("")?;
    fdt.property_string_list("compatible", vec!["partita,cell".into(), "linux,dummy-virt".into()])?;
    fdt.property_string("model", &format!("Partita cell {}", cell.name))?;
    fdt.property_u32("#address-cells", 2)?;
    fdt.property_u32("#size-cells", 2)?;
    fdt.property_u32("interrupt-parent", GIC_PHANDLE)?;

    let uart = format!("pl011@{:x}", guest::UART);
    let node = fdt.begin_node("chosen")?;
    if let Some(cmdline) = cell.cmdline {
        fdt.property_string("bootargs", cmdline)?;
    }
    // Also with virtio-console: `earlycon` and a kernel without the driver then have a place to print to.
    fdt.property_string("stdout-path", &format!("/{uart}"))?;
    if let Some((start, end)) = chosen.initrd {
        fdt.property_u64("linux,initrd-start", start)?;
        fdt.property_u64("linux,initrd-end", end)?;
    }
    fdt.end_node(node)?;

    let node = fdt.begin_node(&format!("memory@{:x}", guest::RAM))?;
    fdt.property_string("device_type", "memory")?;
    fdt.property_array_u64("reg", &[guest::RAM, cell.memory.0])?;
    fdt.end_node(node)?;

    cpus(&mut fdt, cell, board)?;
    firmware(&mut fdt)?;
    interrupts(&mut fdt)?;

    let node = fdt.begin_node("apb-pclk")?;
    fdt.property_string("compatible", "fixed-clock")?;
    fdt.property_u32("#clock-cells", 0)?;
    fdt.property_u32("clock-frequency", PL011_CLOCK)?;
    fdt.property_string("clock-output-names", "clk24mhz")?;
    fdt.property_phandle(CLOCK_PHANDLE)?;
    fdt.end_node(node)?;

    let node = fdt.begin_node(&uart)?;
    fdt.property_string_list("compatible", vec!["arm,pl011".into(), "arm,primecell".into()])?;
    fdt.property_array_u64("reg", &[guest::UART, 0x1000])?;
    fdt.property_array_u32("interrupts", &[SPI, guest::UART_IRQ - FIRST_SPI, LEVEL_HIGH])?;
    fdt.property_array_u32("clocks", &[CLOCK_PHANDLE, CLOCK_PHANDLE])?;
    fdt.property_string_list("clock-names", vec!["uartclk".into(), "apb_pclk".into()])?;
    fdt.end_node(node)?;

    for (device, _) in (0..).zip(cell.devices()) {
        let address = guest::VIRTIO + u64::from(device) * 0x1000;
        let node = fdt.begin_node(&format!("virtio_mmio@{address:x}"))?;
        fdt.property_string("compatible", "virtio,mmio")?;
        fdt.property_array_u64("reg", &[address, 0x1000])?;
        fdt.property_array_u32("interrupts", &[SPI, guest::VIRTIO_IRQ + device - FIRST_SPI, LEVEL_HIGH])?;
        fdt.property_null("dma-coherent")?;
        fdt.end_node(node)?;
    }
    for (device, phandle) in cell.passthrough.iter().zip(PASSTHROUGH_PHANDLE..) {
        passed_through(&mut fdt, cell, device, phandle)?;
    }
    if links != 0 {
        // hvisor's binding: entry i is the doorbell of channel i; the rest is asked for by hypercall.
        let interrupt = |link| [SPI, guest::LINK_IRQ + link - FIRST_SPI, EDGE_RISING];
        let interrupts: Vec<u32> = (0..).take(links).flat_map(interrupt).collect();
        let node = fdt.begin_node("hvisor_ivc_device")?;
        fdt.property_string("compatible", "hvisor")?;
        fdt.property_u32("interrupt-parent", GIC_PHANDLE)?;
        fdt.property_array_u32("interrupts", &interrupts)?;
        fdt.end_node(node)?;
    }
    let node = fdt.begin_node("aliases")?;
    fdt.property_string("serial0", &format!("/{uart}"))?;
    fdt.end_node(node)?;
    fdt.end_node(root)?;
    fdt.finish()
}

/// A device that the guest has whole. Its clocks are fixed ones, in a node of their own.
fn passed_through(
    fdt: &mut FdtWriter,
    cell: &Cell<'_>,
    device: &Passthrough<'_>,
    phandle: u32,
) -> std::result::Result<(), vm_fdt::Error> {
    let Some(tree) = device.device_tree.get() else { return Ok(()) };
    let address = device.guest_address.unwrap_or(device.address).0;
    if !tree.clocks.is_empty() {
        let node = fdt.begin_node(&format!("{}-clock", device.name))?;
        fdt.property_string("compatible", "fixed-clock")?;
        fdt.property_u32("#clock-cells", 0)?;
        fdt.property_u32("clock-frequency", tree.clock_hz)?;
        fdt.property_phandle(phandle)?;
        fdt.end_node(node)?;
    }
    let strings = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    let node = fdt.begin_node(&format!("{}@{address:x}", device.name))?;
    fdt.property_string_list("compatible", strings(&tree.compatible))?;
    fdt.property_array_u64("reg", &[address, device.size.0])?;
    let interrupts: Vec<u32> = device
        .irqs
        .iter()
        .filter_map(|irq| cell.lines().find(|line| line.irq == irq.irq))
        .flat_map(|line| {
            let trigger = if line.trigger == Trigger::Edge { EDGE_RISING } else { LEVEL_HIGH };
            [SPI, line.guest_irq - FIRST_SPI, trigger]
        })
        .collect();
    if !interrupts.is_empty() {
        fdt.property_array_u32("interrupts", &interrupts)?;
    }
    if !tree.clocks.is_empty() {
        fdt.property_array_u32("clocks", &vec![phandle; tree.clocks.len()])?;
        fdt.property_string_list("clock-names", strings(&tree.clocks))?;
    }
    for property in &tree.properties {
        match (property.cell, property.text) {
            (Some(cell), _) => fdt.property_u32(property.name, cell)?,
            (None, Some(text)) => fdt.property_string(property.name, text)?,
            (None, None) => fdt.property_null(property.name)?,
        }
    }
    fdt.end_node(node)
}

fn cpus(fdt: &mut FdtWriter, cell: &Cell<'_>, board: &Board) -> std::result::Result<(), vm_fdt::Error> {
    let cpus = fdt.begin_node("cpus")?;
    fdt.property_u32("#address-cells", 1)?;
    fdt.property_u32("#size-cells", 0)?;
    for cpu in 0..u32::from(cell.vcpus) {
        let node = fdt.begin_node(&format!("cpu@{cpu:x}"))?;
        fdt.property_string("device_type", "cpu")?;
        fdt.property_string("compatible", board.cpu)?;
        fdt.property_u32("reg", cpu)?;
        fdt.property_string("enable-method", "psci")?;
        fdt.end_node(node)?;
    }
    fdt.end_node(cpus)
}

fn firmware(fdt: &mut FdtWriter) -> std::result::Result<(), vm_fdt::Error> {
    let node = fdt.begin_node("psci")?;
    fdt.property_string_list("compatible", vec!["arm,psci-1.0".into(), "arm,psci-0.2".into()])?;
    fdt.property_string("method", "smc")?;
    fdt.end_node(node)
}

fn interrupts(fdt: &mut FdtWriter) -> std::result::Result<(), vm_fdt::Error> {
    let node = fdt.begin_node("timer")?;
    fdt.property_string("compatible", "arm,armv8-timer")?;
    // Secure physical, physical, virtual (INTID 27), hypervisor.
    let ppis = [13, 14, 11, 10].map(|ppi| [PPI, ppi, LEVEL_HIGH]);
    fdt.property_array_u32("interrupts", ppis.as_flattened())?;
    fdt.property_null("always-on")?;
    fdt.end_node(node)?;

    let node = fdt.begin_node(&format!("intc@{:x}", guest::GICD))?;
    fdt.property_string("compatible", "arm,cortex-a15-gic")?;
    fdt.property_u32("#interrupt-cells", 3)?;
    fdt.property_u32("#address-cells", 0)?;
    fdt.property_null("interrupt-controller")?;
    fdt.property_array_u64("reg", &[guest::GICD, 0x1000, guest::GICC, guest::GICC_SIZE])?;
    fdt.property_phandle(GIC_PHANDLE)?;
    fdt.end_node(node)
}

#[cfg(test)]
mod tests {
    use fdt::Fdt;
    use partita_config::Config;

    use super::*;

    const TEXT: &str = r#"{
        "controllers": [{ "name": "d", "kind": "virtio-mmio" }],
        "cells": [{
            "name": "a", "memory": "64M", "vcpus": 3, "kernel": "Image", "cmdline": "root=/dev/vda rw",
            "disks": [{ "controller": "d", "partition": "x" }, { "controller": "d", "partition": "y" }]
        }]
    }"#;

    fn blob(text: &str, initrd: u64) -> Result<Vec<u8>> {
        let config: Config<'_> = partita_config::parse(text.as_bytes()).unwrap();
        write(&config, &config.cells[0], Board::named("qemu_virt_aarch64").unwrap(), initrd)
    }

    fn cells(fdt: &Fdt<'_>, node: &str, property: &str) -> Vec<u32> {
        let value = fdt.find_node(node).and_then(|node| node.property(property)).unwrap().value;
        value.chunks(4).map(|cell| u32::from_be_bytes(cell.try_into().unwrap())).collect()
    }

    #[test]
    fn a_parser_reads_back_the_machine() {
        let blob = blob(TEXT, 5_000_000).unwrap();
        let fdt = Fdt::new(&blob).unwrap();
        let memory: Vec<_> = fdt.memory().regions().collect();
        assert_eq!(memory.len(), 1);
        assert_eq!((memory[0].starting_address as u64, memory[0].size), (0x4000_0000, Some(64 << 20)));
        assert_eq!(fdt.cpus().count(), 3);
        assert_eq!(fdt.chosen().bootargs(), Some("root=/dev/vda rw"));
        assert_eq!(fdt.chosen().stdout().unwrap().name, "pl011@9000000");

        // Below the top of RAM, on 2 MiB: 64 MiB - 5,000,000 is 59.2 MiB.
        assert_eq!(cells(&fdt, "/chosen", "linux,initrd-start"), [0, 0x4000_0000 + (58 << 20)]);
        assert_eq!(cells(&fdt, "/chosen", "linux,initrd-end"), [0, 0x4000_0000 + (58 << 20) + 5_000_000]);

        let psci = fdt.find_node("/psci").unwrap();
        assert_eq!(psci.property("method").unwrap().as_str(), Some("smc"));
        assert_eq!(cells(&fdt, "/timer", "interrupts"), [1, 13, 4, 1, 14, 4, 1, 11, 4, 1, 10, 4]);
        assert_eq!(
            cells(&fdt, "/intc@8000000", "reg"),
            [0, 0x0800_0000, 0, 0x1000, 0, 0x0801_0000, 0, 0x2000]
        );
        assert_eq!(cells(&fdt, "/pl011@9000000", "interrupts"), [0, 1, 4]);
    }

    #[test]
    fn devices_are_disks_then_console() {
        let blob = blob(TEXT, 0).unwrap();
        let fdt = Fdt::new(&blob).unwrap();
        let nodes: Vec<_> = fdt.all_nodes().filter(|node| node.name.starts_with("virtio_mmio@")).collect();
        assert_eq!(nodes.len(), 3);
        for (n, node) in (0u32..).zip(&nodes) {
            let address = 0x0a00_0000 + n * 0x1000;
            assert_eq!(node.name, format!("virtio_mmio@{address:x}"));
            let path = format!("/{}", node.name);
            assert_eq!(cells(&fdt, &path, "reg"), [0, address, 0, 0x1000]);
            assert_eq!(cells(&fdt, &path, "interrupts"), [0, 16 + n, 4]);
            assert!(node.property("dma-coherent").is_some());
        }
        assert!(fdt.find_node("/chosen").unwrap().property("linux,initrd-start").is_none());
    }

    #[test]
    fn a_passed_through_device_is_what_its_driver_looks_for() {
        let text = TEXT.replace(
            r#""vcpus": 3,"#,
            r#""vcpus": 3, "passthrough": [
                { "name": "hidden", "address": "0x9050000", "irqs": [{ "irq": 41 }] },
                { "name": "serial", "address": "0x9040000", "guest_address": "0xc000000",
                  "irqs": [{ "irq": 40, "trigger": "edge" }, { "irq": 50, "guest_irq": 200 }],
                  "device_tree": { "compatible": ["arm,pl011", "arm,primecell"], "clocks": ["uartclk", "apb_pclk"],
                    "clock_hz": 48000000, "properties": [{ "name": "x" }, { "name": "y", "cell": 7 },
                    { "name": "z", "text": "word" }] } }],"#,
        );
        let blob = blob(&text, 0).unwrap();
        let fdt = Fdt::new(&blob).unwrap();
        assert!(!fdt.all_nodes().any(|node| node.name.contains("hidden")));
        let path = "/serial@c000000";
        let node = fdt.find_node(path).unwrap();
        assert_eq!(node.compatible().unwrap().all().collect::<Vec<_>>(), ["arm,pl011", "arm,primecell"]);
        assert_eq!(cells(&fdt, path, "reg"), [0, 0xc00_0000, 0, 0x1000]);
        assert_eq!(cells(&fdt, path, "interrupts"), [0, 81 - 32, 1, 0, 200 - 32, 4]);
        let clock = cells(&fdt, path, "clocks");
        assert_eq!((clock.len(), clock[0]), (2, cells(&fdt, "/serial-clock", "phandle")[0]));
        assert_eq!(cells(&fdt, "/serial-clock", "clock-frequency"), [48_000_000]);
        assert_eq!(node.property("x").unwrap().value.len(), 0);
        assert_eq!(cells(&fdt, path, "y"), [7]);
        assert_eq!(node.property("z").unwrap().as_str(), Some("word"));
    }

    #[test]
    fn links_have_the_node_that_hvisors_driver_looks_for() {
        let text = TEXT.replace(
            "\"cells\": [{",
            r#""links": [{ "name": "l", "peers": ["a", "b"] }, { "name": "m", "peers": ["c", "a"] }], "cells": [{"#,
        );
        let blob = self::blob(&text, 0).unwrap();
        let fdt = Fdt::new(&blob).unwrap();
        assert_eq!(cells(&fdt, "/hvisor_ivc_device", "interrupts"), [0, 32, 1, 0, 33, 1]);
        let blob = self::blob(TEXT, 0).unwrap();
        assert!(Fdt::new(&blob).unwrap().find_node("/hvisor_ivc_device").is_none());
    }

    #[test]
    fn an_initramfs_larger_than_memory_is_refused() {
        let sentence = blob(TEXT, 64 << 20).unwrap_err().to_string();
        assert!(sentence.contains("cell a: its memory of 64M has no room for its initramfs"), "{sentence}");
    }
}
