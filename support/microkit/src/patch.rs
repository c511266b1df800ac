//! Variables of the ELF files that the packer sets: who a PD is, what it may do, and what the SDF asks for.

use crate::elf::Elf;
use crate::sdf::MAX_PDS;
use crate::sdf::model::{Pd, System, Value};
use crate::sdk::Board;

const NAME: usize = 64;

/// Patches all ELF files: those of the PDs, then the monitor's. `paddr` gives the physical address of a region.
pub fn patch(
    system: &System,
    elfs: &mut [Elf],
    board: &Board,
    paddr: &dyn Fn(&str) -> Option<u64>,
) -> Result<(), String> {
    let Some((monitor, pds)) = elfs.split_last_mut() else { return Ok(()) };
    patch_monitor(system, monitor, board)?;
    for (index, (pd, elf)) in system.pds.iter().zip(pds).enumerate() {
        patch_pd(system, index, pd, elf)
            .map_err(|error| format!("{} '{}': {error}", pd.image_place, pd.image))?;
        for setvar in &pd.setvars {
            let at = |error: String| setvar.place.error(error, "").to_string();
            let value = value(system, &setvar.value, paddr).map_err(at)?;
            set(elf, &setvar.symbol, value)
                .map_err(|error| at(format!("cannot set a variable of '{}': {error}", pd.image)))?;
        }
    }
    Ok(())
}

fn set(elf: &mut Elf, symbol: &str, value: u64) -> Result<(), String> {
    let (_, size) = elf.symbol(symbol)?;
    if size != 8 {
        return Err(format!("symbol '{symbol}' has {size} bytes, not the 8 of a word"));
    }
    elf.write(symbol, &value.to_le_bytes())
}

fn value(system: &System, value: &Value, paddr: &dyn Fn(&str) -> Option<u64>) -> Result<u64, String> {
    let region = |name: &str| {
        system
            .regions
            .iter()
            .find(|region| region.name == name)
            .ok_or_else(|| format!("there is no memory region '{name}'"))
    };
    match value {
        Value::Known(value) => Ok(*value),
        Value::Size(name) => Ok(region(name)?.size),
        Value::PrefillSize(name) => Ok(region(name)?.prefill.as_ref().map_or(0, |bytes| bytes.len() as u64)),
        Value::Paddr(name) => paddr(name).ok_or_else(|| format!("memory region '{name}' has no address")),
    }
}

fn patch_pd(system: &System, index: usize, pd: &Pd, elf: &mut Elf) -> Result<(), String> {
    let name = pd.name.as_bytes();
    elf.write("microkit_name", &name[..name.len().min(NAME)])?;
    elf.write("microkit_passive", &[u8::from(pd.passive)])?;
    let mut notifications = 0_u64;
    let mut calls = 0_u64;
    let ends = system.channels.iter().flat_map(|channel| &channel.ends).filter(|end| end.pd == index);
    for end in ends {
        notifications |= u64::from(end.notify) << end.id;
        calls |= u64::from(end.pp) << end.id;
    }
    elf.write("microkit_irqs", &pd.irq_bits().to_le_bytes())?;
    elf.write("microkit_notifications", &notifications.to_le_bytes())?;
    elf.write("microkit_pps", &calls.to_le_bytes())?;
    elf.write("microkit_ioports", &0_u64.to_le_bytes())
}

/// The monitor's variables are set if it has them: names for messages, stacks to recognise an overflow.
fn patch_monitor(system: &System, elf: &mut Elf, board: &Board) -> Result<(), String> {
    let vms = || system.pds.iter().filter_map(|pd| pd.vm.as_ref());
    let pd_names = names(system.pds.iter().map(|pd| pd.name.as_str()));
    let vm_names = names(vms().flat_map(|vm| vm.vcpus.iter().map(|_| vm.name.as_str())));
    let vcpus: usize = vms().map(|vm| vm.vcpus.len()).sum();
    let stacks: Vec<u8> =
        system.pds.iter().flat_map(|pd| (board.stack_top() - pd.stack_size).to_le_bytes()).collect();
    let values = [
        ("pd_names_len", system.pds.len().to_le_bytes().to_vec()),
        ("pd_names", pd_names),
        ("vm_names_len", vcpus.min(MAX_PDS).to_le_bytes().to_vec()),
        ("vm_names", vm_names),
        ("pd_stack_bottom_addrs", stacks),
    ];
    for (symbol, bytes) in values {
        if elf.symbol(symbol).is_ok() {
            elf.write(symbol, &bytes).map_err(|error| format!("monitor.elf: {error}"))?;
        }
    }
    Ok(())
}

/// Fields of 64 bytes, NUL-padded; the last byte stays NUL.
fn names<'a>(names: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let mut table = Vec::new();
    for name in names.take(MAX_PDS) {
        let mut field = [0; NAME];
        let length = name.len().min(NAME - 1);
        field[..length].copy_from_slice(&name.as_bytes()[..length]);
        table.extend_from_slice(&field);
    }
    table
}
