//! Writes a [`System`] as Microkit's system.xml.

use std::fmt::Write;

use super::model::{Channel, End, Map, Pd, Region, System, VirtualMachine};

/// One element's attributes, in order.
struct Tag(String);

impl Tag {
    fn new(name: &str) -> Self {
        Self(format!("<{name}"))
    }

    fn with(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        let value = value.to_string();
        let value = value.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
        // Writing to a String cannot fail.
        let _ = write!(self.0, " {name}=\"{value}\"");
        self
    }

    fn with_some(self, name: &str, value: Option<impl std::fmt::Display>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    fn empty(self) -> String {
        self.0 + " />"
    }

    fn open(self) -> String {
        self.0 + ">"
    }
}

struct Writer {
    text: String,
    depth: usize,
}

impl Writer {
    fn line(&mut self, line: &str) {
        for _ in 0..self.depth {
            self.text.push_str("    ");
        }
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn nested(&mut self, tag: Tag, name: &str, inside: impl FnOnce(&mut Self)) {
        self.line(&tag.open());
        self.depth += 1;
        inside(self);
        self.depth -= 1;
        self.line(&format!("</{name}>"));
    }

    fn region(&mut self, region: &Region) {
        let tag = Tag::new("memory_region")
            .with("name", &region.name)
            .with_some("size", (region.size != 0).then(|| format!("{:#x}", region.size)))
            .with("page_size", if region.large { "0x200000" } else { "0x1000" })
            .with_some("phys_addr", region.paddr.map(|paddr| format!("{paddr:#x}")))
            .with_some("prefill_path", region.prefill.as_ref());
        self.line(&tag.empty());
    }

    fn map(&mut self, map: &Map) {
        let tag = Tag::new("map")
            .with("mr", &map.region)
            .with("vaddr", format!("{:#x}", map.vaddr))
            .with("perms", map.perms)
            .with_some("cached", (!map.cached).then_some("false"))
            .with_some("setvar_size", map.setvar_size.as_ref())
            .with_some("setvar_prefill_size", map.setvar_prefill_size.as_ref());
        self.line(&tag.empty());
    }

    fn vm(&mut self, vm: &VirtualMachine) {
        let tag = Tag::new("virtual_machine")
            .with("name", &vm.name)
            .with("priority", vm.priority)
            .with("budget", vm.budget)
            .with("period", vm.period);
        self.nested(tag, "virtual_machine", |w| {
            for id in 0..vm.vcpus {
                w.line(&Tag::new("vcpu").with("id", id).empty());
            }
            for map in &vm.maps {
                w.map(map);
            }
        });
    }

    fn pd(&mut self, pd: &Pd) {
        let tag = Tag::new("protection_domain")
            .with("name", &pd.name)
            .with_some("id", pd.id)
            .with("priority", pd.priority)
            .with_some("budget", pd.budget.map(|(budget, _)| budget))
            .with_some("period", pd.budget.map(|(_, period)| period))
            .with("stack_size", format!("{:#x}", pd.stack))
            .with("fpu", "false")
            .with_some("smc", pd.smc.then_some("true"));
        self.nested(tag, "protection_domain", |w| {
            w.line(&Tag::new("program_image").with("path", pd.elf).empty());
            for map in &pd.maps {
                w.map(map);
            }
            for (symbol, region) in &pd.paddrs {
                w.line(&Tag::new("setvar").with("symbol", symbol).with("region_paddr", region).empty());
            }
            for (id, irq) in &pd.irqs {
                let tag = Tag::new("irq").with("irq", irq.number).with("id", id);
                w.line(&tag.with("trigger", if irq.edge { "edge" } else { "level" }).empty());
            }
            for child in &pd.children {
                w.pd(child);
            }
            if let Some(vm) = &pd.vm {
                w.vm(vm);
            }
        });
    }

    fn channel(&mut self, Channel(a, b): &Channel) {
        self.nested(Tag::new("channel"), "channel", |w| {
            for End { pd, id, calls } in [a, b] {
                let tag = Tag::new("end").with("pd", pd).with("id", id);
                w.line(&tag.with_some("pp", calls.then_some("true")).empty());
            }
        });
    }
}

/// The document.
pub fn write(system: &System) -> String {
    let mut w = Writer { text: String::new(), depth: 0 };
    w.line(r#"<?xml version="1.0" encoding="UTF-8"?>"#);
    w.line("<!-- Generated from partita.json by `partita generate`; edit that file instead. -->");
    w.nested(Tag::new("system"), "system", |w| {
        for region in &system.regions {
            w.region(region);
        }
        for pd in &system.pds {
            w.pd(pd);
        }
        for channel in &system.channels {
            w.channel(channel);
        }
    });
    w.text
}
