//! Reads what the report needs from a system.xml, with Microkit's defaults.

use std::result::Result;

use roxmltree::{Document, Node};

/// A memory region.
#[derive(Debug)]
pub struct Region {
    /// Its name.
    pub name: String,
    /// Bytes, if the description says it.
    pub size: Option<u64>,
    /// Fixed physical address.
    pub paddr: Option<u64>,
    /// File it is filled from.
    pub prefill: Option<String>,
}

/// A mapping.
#[derive(Debug)]
pub struct Map {
    /// Name of the region.
    pub region: String,
    /// Virtual address.
    pub vaddr: u64,
    /// Of `rwx`.
    pub perms: String,
    /// Normal memory.
    pub cached: bool,
}

/// A PD, or a virtual machine.
#[derive(Debug)]
pub struct Domain {
    /// Its name.
    pub name: String,
    /// PD or virtual machine it belongs to.
    pub parent: Option<String>,
    /// `Some(n)`: a virtual machine with n vCPUs.
    pub vcpus: Option<usize>,
    /// Its priority.
    pub priority: String,
    /// May call the secure monitor.
    pub smc: bool,
    /// Regions whose physical address it is told.
    pub physical: Vec<String>,
    /// Address space.
    pub maps: Vec<Map>,
    /// Interrupt, trigger, id.
    pub irqs: Vec<(String, String, String)>,
}

/// One end of a channel.
#[derive(Debug)]
pub struct End {
    /// The PD.
    pub pd: String,
    /// The channel's number there.
    pub id: String,
    /// May make protected calls to the other end.
    pub calls: bool,
    /// May notify the other end.
    pub notifies: bool,
}

/// A system.
#[derive(Debug, Default)]
pub struct System {
    /// Memory.
    pub regions: Vec<Region>,
    /// PDs and virtual machines, parents first.
    pub domains: Vec<Domain>,
    /// Channels.
    pub channels: Vec<[End; 2]>,
}

/// Reads a document.
pub fn read(xml: &str) -> Result<System, String> {
    let document = Document::parse(xml).map_err(|error| error.to_string())?;
    let root = document.root_element();
    if !root.has_tag_name("system") {
        return Err(format!("its root is <{}>, it must be <system>", root.tag_name().name()));
    }
    let mut system = System::default();
    for node in root.children().filter(Node::is_element) {
        match node.tag_name().name() {
            "memory_region" => system.regions.push(region(node)?),
            "protection_domain" => domain(node, None, &mut system.domains)?,
            "channel" => system.channels.push(channel(node)?),
            _ => {}
        }
    }
    Ok(system)
}

fn attribute(node: Node<'_, '_>, name: &str) -> Result<String, String> {
    let element = node.tag_name().name();
    node.attribute(name).map(str::to_owned).ok_or_else(|| format!("<{element}> has no attribute {name}"))
}

fn number(text: &str) -> Result<u64, String> {
    let text = text.replace('_', "");
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("{text} is not a number"))
}

fn region(node: Node<'_, '_>) -> Result<Region, String> {
    Ok(Region {
        name: attribute(node, "name")?,
        size: node.attribute("size").map(number).transpose()?,
        paddr: node.attribute("phys_addr").map(number).transpose()?,
        prefill: node.attribute("prefill_path").map(str::to_owned),
    })
}

fn domain(node: Node<'_, '_>, parent: Option<&str>, domains: &mut Vec<Domain>) -> Result<(), String> {
    let name = attribute(node, "name")?;
    let vm = node.has_tag_name("virtual_machine");
    let place = domains.len();
    domains.push(Domain {
        name: name.clone(),
        parent: parent.map(str::to_owned),
        vcpus: vm.then(|| node.children().filter(|child| child.has_tag_name("vcpu")).count()),
        priority: node.attribute("priority").unwrap_or("0").to_owned(),
        smc: node.attribute("smc") == Some("true"),
        physical: Vec::new(),
        maps: Vec::new(),
        irqs: Vec::new(),
    });
    for child in node.children().filter(Node::is_element) {
        match child.tag_name().name() {
            "map" => {
                let map = Map {
                    region: attribute(child, "mr")?,
                    vaddr: number(&attribute(child, "vaddr")?)?,
                    perms: child.attribute("perms").unwrap_or("rw").to_owned(),
                    cached: child.attribute("cached") != Some("false"),
                };
                domains[place].maps.push(map);
            }
            "irq" => {
                let trigger = child.attribute("trigger").unwrap_or("level").to_owned();
                let irq = (attribute(child, "irq")?, trigger, attribute(child, "id")?);
                domains[place].irqs.push(irq);
            }
            "setvar" => domains[place].physical.extend(child.attribute("region_paddr").map(str::to_owned)),
            "protection_domain" | "virtual_machine" => domain(child, Some(&name), domains)?,
            _ => {}
        }
    }
    Ok(())
}

fn channel(node: Node<'_, '_>) -> Result<[End; 2], String> {
    let ends: Vec<End> = node
        .children()
        .filter(|child| child.has_tag_name("end"))
        .map(|end| {
            Ok(End {
                pd: attribute(end, "pd")?,
                id: attribute(end, "id")?,
                calls: end.attribute("pp") == Some("true"),
                notifies: end.attribute("notify") != Some("false"),
            })
        })
        .collect::<Result<_, String>>()?;
    ends.try_into().map_err(|_| "a <channel> must have two <end>".into())
}
