//! `<protection_domain>` and its children.

use super::domains::Domains;
use super::error::Result;
use super::model::{Irq, Map, Pd, Scheduling, Setvar, System, UserCap, UserCapKind, Value};
use super::node::Node;
use super::{MAX_ID, MAX_PDS, vm};
use crate::sdk::{Board, PAGE_SIZES};

const DEFAULT_BUDGET: u64 = 1000;
const DEFAULT_STACK: u64 = 0x2000;
const MAX_STACK: u64 = 0x100_0000;
const MAX_PRIORITY: u64 = 254;
/// Child ids above share CSpace slots with vCPUs. The official tool does not check.
const MAX_CHILD_ID: u64 = 63;
/// Slot `64 + n` is slot `n` of the 64-slot root CNode. The official tool accepts up to 127 and fails at boot.
const USER_SLOTS: u64 = 64;
/// The kernel refuses less. The official tool does not check and fails at boot.
const MIN_BUDGET: u64 = 20;

const ATTRIBUTES: [&str; 12] = [
    "name",
    "priority",
    "budget",
    "period",
    "passive",
    "stack_size",
    "smc",
    "cpu",
    "domain",
    "fpu",
    "id",
    "setvar_id",
];

/// Reads a `<protection_domain>` and its descendants, appends them in global order and returns the index.
pub fn read(
    node: &Node<'_, '_>,
    parent: Option<usize>,
    board: &Board,
    domains: Option<&Domains>,
    system: &mut System,
) -> Result<usize> {
    node.only(&ATTRIBUTES[..if parent.is_some() { 12 } else { 10 }])?;
    let index = system.pds.len();
    if index >= MAX_PDS {
        return Err(node.error(
            format!("more than {MAX_PDS} protection domains"),
            format!("a system has at most {MAX_PDS}, children included"),
        ));
    }
    let name = node.required("name")?.to_owned();
    let id = match parent {
        Some(_) => Some(read_child_id(node)?),
        None => None,
    };
    let scheduling = read_scheduling(node, MAX_PRIORITY, board)?;
    let stack_size = read_stack(node)?;
    read_cpu(node, board)?;
    read_domain(node, domains)?;
    let smc = node.boolean("smc", false)?;
    if smc && !board.smc {
        return Err(node.error_in(
            "smc",
            "this kernel does not forward secure monitor calls",
            "remove smc=\"true\"",
        ));
    }
    system.pds.push(Pd {
        place: node.place(),
        name,
        parent,
        id,
        is_parent: false,
        scheduling,
        passive: node.boolean("passive", false)?,
        stack_size,
        smc,
        fpu: node.boolean("fpu", true)?,
        image: String::new(),
        symbols: None,
        image_place: node.place(),
        maps: Vec::new(),
        irqs: Vec::new(),
        setvars: Vec::new(),
        caps: Vec::new(),
        vm: None,
    });
    read_children(node, index, board, domains, system)?;
    Ok(index)
}

fn read_children(
    node: &Node<'_, '_>,
    index: usize,
    board: &Board,
    domains: Option<&Domains>,
    system: &mut System,
) -> Result<()> {
    let mut child_ids = Vec::new();
    let mut image = false;
    let mut cspace = false;
    for child in node.children() {
        if child.name() == "protection_domain" {
            let at = read(&child, Some(index), board, domains, system)?;
            let id = system.pds[at].id.unwrap_or_default();
            if let Some(symbol) = child.text("setvar_id") {
                let setvar = setvar(&child, "setvar_id", symbol, Value::Known(id));
                add_setvar(&mut system.pds[index].setvars, setvar)?;
            }
            child_ids.push((id, child));
            system.pds[index].is_parent = true;
            continue;
        }
        let pd = &mut system.pds[index];
        match child.name() {
            "program_image" if image => {
                return Err(child.error("a second <program_image>", "a protection domain has one"));
            }
            "program_image" => {
                child.only(&["path", "path_for_symbols"])?;
                pd.image = child.required("path")?.to_owned();
                pd.symbols = child.text("path_for_symbols").map(str::to_owned);
                pd.image_place = child.place_of("path");
                image = true;
            }
            "map" => {
                let limit = board.stack_top() - pd.stack_size - 1;
                let map = read_map(&child, limit, Some(&mut pd.setvars))?;
                pd.maps.push(map);
            }
            "irq" => read_irq(&child, pd)?,
            "setvar" => {
                child.only(&["symbol", "region_paddr"])?;
                let symbol = child.required("symbol")?;
                let region = child.required("region_paddr")?;
                let setvar = setvar(&child, "region_paddr", symbol, Value::Paddr(region.to_owned()));
                add_setvar(&mut pd.setvars, setvar)?;
            }
            "virtual_machine" if pd.vm.is_some() => {
                return Err(child.error(
                    "a second <virtual_machine>",
                    "a protection domain has at most one; use one monitor per virtual machine",
                ));
            }
            "virtual_machine" => {
                let vm = vm::read(&child, board, &mut system.warnings)?;
                system.pds[index].vm = Some(vm);
            }
            "cspace" if cspace => return Err(child.error("a second <cspace>", "write it once")),
            "cspace" => {
                read_cspace(&child, pd)?;
                cspace = true;
            }
            "ioport" => {
                return Err(child.error("I/O ports exist on x86 only", "remove <ioport>"));
            }
            _ => {
                let allowed = [
                    "program_image",
                    "map",
                    "irq",
                    "setvar",
                    "protection_domain",
                    "virtual_machine",
                    "cspace",
                ];
                return Err(child.unknown("protection_domain", &allowed));
            }
        }
    }
    let pd = &system.pds[index];
    if !image {
        return Err(node.error(
            format!("protection domain '{}' has no <program_image>", pd.name),
            "write <program_image path=\"...\"/> in it",
        ));
    }
    let vcpus = pd.vm.as_ref().map(|vm| vm.vcpus.as_slice()).unwrap_or_default();
    for (at, (id, child)) in child_ids.iter().enumerate() {
        let wrong = if child_ids[..at].iter().any(|(other, _)| other == id) {
            format!("a second child {id} in protection domain '{}'", pd.name)
        } else if vcpus.contains(id) {
            format!("child {id} has the id of a vCPU of protection domain '{}'", pd.name)
        } else {
            continue;
        };
        return Err(child.error_in(
            "id",
            wrong,
            "children and vCPUs of a protection domain share ids 0 to 63",
        ));
    }
    Ok(())
}

fn read_child_id(node: &Node<'_, '_>) -> Result<u64> {
    let id = node.required_number("id")?;
    if id > MAX_CHILD_ID {
        return Err(node.error_in(
            "id",
            format!("child id {id} is out of range"),
            format!("write 0 to {MAX_CHILD_ID}"),
        ));
    }
    Ok(id)
}

/// Reads `priority`, `budget` and `period`.
pub fn read_scheduling(node: &Node<'_, '_>, max_priority: u64, board: &Board) -> Result<Scheduling> {
    let budget = node.number("budget")?.unwrap_or(DEFAULT_BUDGET);
    let period = node.number("period")?.unwrap_or(budget);
    if budget > period {
        return Err(node.error_in(
            "budget",
            format!("the budget ({budget}) is greater than the period ({period})"),
            "write a budget less than or equal to the period",
        ));
    }
    if budget < MIN_BUDGET {
        return Err(node.error_in(
            "budget",
            format!("a budget of {budget} us is below the kernel's minimum"),
            format!("write at least {MIN_BUDGET}"),
        ));
    }
    if period > board.max_period {
        return Err(node.error_in(
            if node.text("period").is_some() { "period" } else { "budget" },
            format!("a period of {period} us is too great"),
            format!("write at most {}", board.max_period),
        ));
    }
    let priority = node.number("priority")?.unwrap_or(0);
    match u8::try_from(priority) {
        Ok(value) if priority <= max_priority => Ok(Scheduling { priority: value, budget, period }),
        _ => Err(node.error_in(
            "priority",
            format!("priority {priority} is out of range"),
            format!("write 0 to {max_priority}"),
        )),
    }
}

fn read_stack(node: &Node<'_, '_>) -> Result<u64> {
    let size = node.number("stack_size")?.unwrap_or(DEFAULT_STACK);
    let page = PAGE_SIZES[0];
    if (page..=MAX_STACK).contains(&size) && size % page == 0 {
        return Ok(size);
    }
    Err(node.error_in(
        "stack_size",
        format!("{size:#x} is no size for a stack"),
        format!("write a multiple of {page:#x} from {page:#x} to {MAX_STACK:#x}"),
    ))
}

/// Checks `cpu`.
pub fn read_cpu(node: &Node<'_, '_>, board: &Board) -> Result<()> {
    match node.number("cpu")? {
        Some(cpu) if cpu >= board.cores => Err(node.error_in(
            "cpu",
            format!("core {cpu} does not exist"),
            format!("this kernel runs on {} core(s): write a number below that", board.cores),
        )),
        _ => Ok(()),
    }
}

fn read_domain(node: &Node<'_, '_>, domains: Option<&Domains>) -> Result<()> {
    let Some(domains) = domains else {
        return match node.text("domain") {
            None => Ok(()),
            Some(name) => Err(node.error_in(
                "domain",
                format!("domain '{name}', but no domains are declared"),
                "write <domains> before the protection domains, or remove 'domain'",
            )),
        };
    };
    let name = node.required("domain")?;
    if domains.contains(name) {
        return Ok(());
    }
    Err(node.error_in("domain", format!("there is no domain '{name}'"), "name one declared in <domains>"))
}

/// Reads a `<map>`; `last` is the greatest address it may begin at. With `setvars`, its setvar attributes are allowed.
pub fn read_map(node: &Node<'_, '_>, last: u64, setvars: Option<&mut Vec<Setvar>>) -> Result<Map> {
    let attributes = ["mr", "vaddr", "perms", "cached", "setvar_vaddr", "setvar_size", "setvar_prefill_size"];
    node.only(&attributes[..if setvars.is_some() { 7 } else { 4 }])?;
    let region = node.required("mr")?.to_owned();
    let vaddr = node.required_number("vaddr")?;
    if vaddr > last {
        return Err(node.error_in(
            "vaddr",
            format!("{vaddr:#x} is outside of the address space"),
            format!("write an address up to {last:#x} (the stack begins there)"),
        ));
    }
    let perms = node.text("perms").unwrap_or("rw");
    if let Some(other) = perms.chars().find(|c| !"rwx".contains(*c)) {
        return Err(node.error_in(
            "perms",
            format!("'{other}' is not a permission"),
            "write a combination of 'r', 'w' and 'x'",
        ));
    }
    let [read, write, execute] = ['r', 'w', 'x'].map(|c| perms.contains(c));
    if write && !read && !execute {
        return Err(node.error_in("perms", "memory cannot be mapped write-only", "write 'rw'"));
    }
    let cached = node.boolean("cached", true)?;
    if let Some(setvars) = setvars {
        let values = [
            ("setvar_vaddr", Value::Known(vaddr)),
            ("setvar_size", Value::Size(region.clone())),
            ("setvar_prefill_size", Value::PrefillSize(region.clone())),
        ];
        for (attribute, value) in values {
            if let Some(symbol) = node.text(attribute) {
                add_setvar(setvars, setvar(node, attribute, symbol, value))?;
            }
        }
    }
    let (region_place, vaddr_place) = (node.place_of("mr"), node.place_of("vaddr"));
    Ok(Map { region_place, vaddr_place, region, vaddr, read, write, execute, cached })
}

fn read_irq(node: &Node<'_, '_>, pd: &mut Pd) -> Result<()> {
    let id = node.id("id", MAX_ID)?;
    for (attribute, what) in [("pin", "I/O APIC"), ("pcidev", "MSI")] {
        if node.text("irq").is_none() && node.text(attribute).is_some() {
            return Err(node.error_in(
                attribute,
                format!("{what} interrupts exist on x86 only"),
                "write irq=\"<GIC interrupt id>\"",
            ));
        }
    }
    node.only(&["irq", "id", "setvar_id", "trigger"])?;
    let text = node.required("irq")?;
    let Ok(irq) = text.parse::<u64>() else {
        return Err(node.error_in(
            "irq",
            format!("'{text}' is not a decimal number"),
            "write the GIC interrupt id (shared peripheral interrupt + 32), decimal",
        ));
    };
    let edge = match node.text("trigger") {
        None | Some("level") => false,
        Some("edge") => true,
        Some(other) => {
            return Err(node.error_in(
                "trigger",
                format!("'{other}' is not a trigger"),
                "write 'level' or 'edge'",
            ));
        }
    };
    if let Some(symbol) = node.text("setvar_id") {
        add_setvar(&mut pd.setvars, setvar(node, "setvar_id", symbol, Value::Known(id)))?;
    }
    let (irq_place, id_place) = (node.place_of("irq"), node.place_of("id"));
    pd.irqs.push(Irq { irq_place, id_place, irq, id, edge });
    Ok(())
}

fn read_cspace(node: &Node<'_, '_>, pd: &mut Pd) -> Result<()> {
    node.only(&[])?;
    for child in node.children() {
        let kind = match child.name() {
            "cap_tcb" => UserCapKind::Tcb,
            "cap_sc" => UserCapKind::SchedContext,
            "cap_vspace" => UserCapKind::VSpace,
            _ => return Err(child.unknown("cspace", &["cap_tcb", "cap_sc", "cap_vspace"])),
        };
        child.only(&["slot", "pd"])?;
        let pd_name = child.required("pd")?.to_owned();
        let slot = child.required_number("slot")?;
        if !(1..USER_SLOTS).contains(&slot) {
            let wrong = match slot {
                0 => "slot 0 holds Microkit's own capabilities".to_owned(),
                _ => format!("slot {slot} does not exist"),
            };
            return Err(child.error_in("slot", wrong, format!("write 1 to {}", USER_SLOTS - 1)));
        }
        if pd.caps.iter().any(|cap| cap.slot == slot) {
            return Err(child.error_in(
                "slot",
                format!("slot {slot} of protection domain '{}' is taken", pd.name),
                "write another slot",
            ));
        }
        pd.caps.push(UserCap { place: child.place_of("pd"), kind, pd_name, pd: 0, slot });
    }
    Ok(())
}

fn setvar(node: &Node<'_, '_>, attribute: &str, symbol: &str, value: Value) -> Setvar {
    Setvar { place: node.place_of(attribute), symbol: symbol.to_owned(), value }
}

/// Appends a setvar; a symbol is set once.
pub fn add_setvar(setvars: &mut Vec<Setvar>, setvar: Setvar) -> Result<()> {
    if setvars.iter().any(|other| other.symbol == setvar.symbol) {
        return Err(setvar
            .place
            .error(format!("symbol '{}' is set twice", setvar.symbol), "set each symbol in one place"));
    }
    setvars.push(setvar);
    Ok(())
}
