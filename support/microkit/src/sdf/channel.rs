//! `<channel>`: two ends, each in a protection domain that has been read before.

use super::MAX_ID;
use super::error::Result;
use super::model::{Channel, End, Setvar, System, Value};
use super::node::Node;

/// Reads a `<channel>` and appends it.
pub fn read(node: &Node<'_, '_>, system: &mut System) -> Result<()> {
    node.only(&[])?;
    let mut ends = Vec::new();
    let mut setvars = Vec::new();
    for child in node.children() {
        if child.name() != "end" {
            return Err(child.unknown("channel", &["end"]));
        }
        let (end, symbol) = read_end(&child, system)?;
        if let Some(symbol) = symbol {
            let place = child.place_of("setvar_id");
            setvars.push((end.pd, Setvar { place, symbol, value: Value::Known(end.id) }));
        }
        ends.push(end);
    }
    let count = ends.len();
    let Ok(ends) = <[End; 2]>::try_from(ends) else {
        return Err(node.error(format!("{count} ends"), "a channel has exactly two <end> elements"));
    };
    if ends[0].pp && ends[1].pp {
        return Err(node.error(
            "protected calls in both directions",
            "write pp=\"true\" on the end of lower priority only",
        ));
    }
    for (index, setvar) in setvars {
        if let Some(pd) = system.pds.get_mut(index) {
            super::pd::add_setvar(&mut pd.setvars, setvar)?;
        }
    }
    system.channels.push(Channel { ends });
    Ok(())
}

fn read_end(node: &Node<'_, '_>, system: &System) -> Result<(End, Option<String>)> {
    node.only(&["pd", "id", "pp", "notify", "setvar_id"])?;
    let name = node.required("pd")?;
    let id = node.id("id", MAX_ID)?;
    let notify = node.boolean("notify", true)?;
    let pp = node.boolean("pp", false)?;
    let Some(pd) = system.pds.iter().position(|pd| pd.name == name) else {
        return Err(node.error_in(
            "pd",
            format!("there is no protection domain '{name}'"),
            "name one that this file declares",
        ));
    };
    let (id_place, pp_place) = (node.place_of("id"), node.place_of("pp"));
    Ok((End { id_place, pp_place, pd, id, notify, pp }, node.text("setvar_id").map(str::to_owned)))
}
