//! `<domains>`: the domain schedule. It is read in full, so that a description is judged the same with either SDK; the
//! embedded kernel then says that it has no domain scheduler.

use std::collections::BTreeSet;

use super::error::{Place, Result};
use super::node::{Node, parse_number};
use crate::sdk::Board;

/// A read `<domains>` element.
#[derive(Debug)]
pub struct Domains {
    /// Where.
    pub place: Place,
    names: BTreeSet<String>,
}

impl Domains {
    /// Whether a domain of that name is declared.
    pub fn contains(&self, name: &str) -> bool {
        self.names.contains(name)
    }
}

/// Reads `<domains>`.
pub fn read(node: &Node<'_, '_>, board: &Board) -> Result<Domains> {
    node.only(&[])?;
    if board.cores != 1 {
        return Err(node.error("domains do not exist on multicore kernels", "remove <domains>"));
    }
    let mut names = BTreeSet::new();
    let mut ids = BTreeSet::new();
    let mut schedule = None;
    for child in node.children() {
        match child.name() {
            "domain" => {
                child.only(&["name", "id"])?;
                let name = child.required("name")?;
                if !names.insert(name.to_owned()) {
                    return Err(child.error_in(
                        "name",
                        format!("a second domain '{name}'"),
                        "names of domains are unique",
                    ));
                }
                if let Some(id) = child.number("id")? {
                    if id >= board.domains {
                        let right = format!("write a number below {}", board.domains);
                        return Err(child.error_in("id", format!("domain id {id} is too great"), right));
                    }
                    if !ids.insert(id) {
                        return Err(child.error_in(
                            "id",
                            format!("a second domain with id {id}"),
                            "ids of domains are unique",
                        ));
                    }
                }
            }
            "domain_schedule" if schedule.is_some() => {
                return Err(child.error("a second <domain_schedule>", "write it once"));
            }
            "domain_schedule" => schedule = Some(child),
            _ => return Err(child.unknown("domains", &["domain", "domain_schedule"])),
        }
    }
    if names.len() as u64 > board.domains {
        let right = format!("at most {} exist", board.domains);
        return Err(node.error(format!("{} domains", names.len()), right));
    }
    let Some(schedule) = schedule else {
        return Err(node.error("<domain_schedule> is missing", "write one <domain_schedule>"));
    };
    read_schedule(&schedule, &names, board)?;
    Ok(Domains { place: node.place(), names })
}

fn read_schedule(node: &Node<'_, '_>, names: &BTreeSet<String>, board: &Board) -> Result<()> {
    node.only(&["index_shift", "start_index"])?;
    let start = node.number("start_index")?.unwrap_or(0);
    let shift = node.number("index_shift")?;
    let mut length = 0;
    for child in node.children() {
        match child.name() {
            "schedule_entry" => read_entry(&child, names)?,
            "schedule_end_marker" => child.only(&[])?,
            _ => {
                return Err(child.unknown("domain_schedule", &["schedule_entry", "schedule_end_marker"]));
            }
        }
        length += 1;
    }
    let limit = board.domain_schedules;
    if length >= limit {
        return Err(node.error(format!("{length} entries"), format!("write fewer than {limit}")));
    }
    if start >= length {
        let right = format!("write a number below the number of entries, {length}");
        return Err(node.error_in("start_index", format!("start_index {start} is not an entry"), right));
    }
    match shift {
        Some(shift) if shift.saturating_add(length) >= limit => Err(node.error_in(
            "index_shift",
            format!("index_shift {shift} and {length} entries exceed the kernel's schedule"),
            format!("their sum must be below {limit}"),
        )),
        _ => Ok(()),
    }
}

fn read_entry(node: &Node<'_, '_>, names: &BTreeSet<String>) -> Result<()> {
    node.only(&["domain", "duration"])?;
    let domain = node.required("domain")?;
    let duration = node.required("duration")?;
    if !names.contains(domain) {
        return Err(node.error_in(
            "domain",
            format!("there is no domain '{domain}'"),
            "name one declared by a <domain>",
        ));
    }
    let right = "write a number above 0 and a unit, as '1000 us' or '1000 ticks'";
    let bad = |wrong: String| node.error_in("duration", wrong, right);
    let Some((count, unit)) = duration.split_once(' ') else {
        return Err(bad(format!("'{duration}' has no unit")));
    };
    match parse_number(count) {
        None => return Err(bad(format!("'{count}' is not a number"))),
        Some(0) => return Err(bad("a duration of 0".to_owned())),
        Some(_) => {}
    }
    match unit {
        "us" | "ticks" => Ok(()),
        _ => Err(bad(format!("'{unit}' is not a unit of duration"))),
    }
}
