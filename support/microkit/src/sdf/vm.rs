//! `<virtual_machine>`.

use super::MAX_ID;
use super::error::Result;
use super::model::Vm;
use super::node::Node;
use crate::sdk::Board;

/// Reads a `<virtual_machine>`.
pub fn read(node: &Node<'_, '_>, board: &Board, warnings: &mut Vec<String>) -> Result<Vm> {
    node.only(&["name", "budget", "period", "priority"])?;
    let name = node.required("name")?.to_owned();
    // 255 is accepted officially, more is cut to 8 bits there.
    let scheduling = super::pd::read_scheduling(node, 255, board)?;
    let mut vcpus = Vec::new();
    let mut maps = Vec::new();
    for child in node.children() {
        match child.name() {
            "vcpu" => {
                child.only(&["id", "setvar_id", "cpu"])?;
                let id = child.id("id", MAX_ID)?;
                if vcpus.contains(&id) {
                    return Err(child.error_in(
                        "id",
                        format!("a second vCPU {id} in virtual machine '{name}'"),
                        "ids of vCPUs are unique in their virtual machine",
                    ));
                }
                super::pd::read_cpu(&child, board)?;
                if child.text("setvar_id").is_some() {
                    warnings.push(format!(
                        "{} Microkit 2.3.0 ignores setvar_id of a vCPU, and so does this packer",
                        child.place_of("setvar_id")
                    ));
                }
                vcpus.push(id);
            }
            "map" => maps.push(super::pd::read_map(&child, board.user_top, None)?),
            _ => return Err(child.unknown("virtual_machine", &["vcpu", "map"])),
        }
    }
    if vcpus.is_empty() {
        return Err(node.error(
            format!("virtual machine '{name}' has no vCPU"),
            "write at least one <vcpu id=\"...\"/>",
        ));
    }
    Ok(Vm { place: node.place(), name, scheduling, vcpus, maps })
}
