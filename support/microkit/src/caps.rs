//! Which object and capability goes where: the ABI between Microkit's tool, libmicrokit and monitor.
//!
//! libmicrokit finds its capabilities at fixed slots and decodes badges; a slot that differs from the official layout
//! breaks PDs built for the official SDK, so the numbers here are those of Microkit 2.3.0.

use crate::elf::Elf;
use crate::sdf::model::{Map, Paddr, Pd, Region, Scheduling, System, UserCapKind, Vm};
use crate::sdk::{Board, PAGE_SIZES};
use crate::spec::{Cap, Contents, Id, Mapping, Memory, MemoryId, Object, Spec, Tcb};

/// Badge bit of faults.
pub const FAULT_BADGE: u64 = 1 << 62;
/// Badge bit of protected calls.
pub const PPC_BADGE: u64 = 1 << 63;

/// Slots of a PD's Microkit CNode.
pub mod slot {
    /// Endpoint or notification it receives from.
    pub const INPUT: u64 = 1;
    /// Fault endpoint.
    pub const FAULT: u64 = 2;
    /// Own address space.
    pub const VSPACE: u64 = 3;
    /// Reply object.
    pub const REPLY: u64 = 4;
    /// Monitor, if passive.
    pub const MONITOR: u64 = 5;
    /// Own TCB, in the benchmark configuration.
    pub const TCB: u64 = 6;
    /// Secure monitor calls.
    pub const SMC: u64 = 7;
    /// Notifications of peers.
    pub const NOTIFICATION: u64 = 10;
    /// Endpoints of peers.
    pub const ENDPOINT: u64 = NOTIFICATION + 64;
    /// IRQ handlers.
    pub const IRQ: u64 = ENDPOINT + 64;
    /// TCBs of children.
    pub const CHILD: u64 = IRQ + 64;
    /// TCBs of vCPUs.
    pub const VM: u64 = CHILD + 64;
    /// vCPUs.
    pub const VCPU: u64 = VM + 64;
}

/// Slots of the monitor's CNode.
pub mod monitor_slot {
    /// Fault endpoint.
    pub const FAULT: u64 = 1;
    /// Reply object.
    pub const REPLY: u64 = 2;
    /// TCBs of PDs.
    pub const PD: u64 = 10;
    /// TCBs of vCPUs.
    pub const VM: u64 = PD + 64;
    /// Scheduling contexts of passive PDs.
    pub const SCHED_CONTEXT: u64 = VM + 64;
    /// Notifications of passive PDs.
    pub const NOTIFICATION: u64 = SCHED_CONTEXT + 64;
}

const ROOT_BITS: u8 = 6;
const CNODE_BITS: u8 = 9;
const PAGE: u64 = PAGE_SIZES[0];
const MONITOR_STACK: u64 = PAGE;

/// Address of the page that the monitor's x0 points to.
pub fn boot_info(board: &Board) -> u64 {
    board.stack_top() - MONITOR_STACK - 2 * PAGE
}

/// What other PDs and the monitor need of a PD.
struct Handles {
    root: Id,
    cnode: Id,
    notification: Id,
    endpoint: Option<Id>,
    sched_context: Id,
    tcb: Id,
    vspace: Id,
}

struct Builder<'a> {
    board: &'a Board,
    system: &'a System,
    spec: Spec,
    monitor_cnode: Id,
    monitor_endpoint: Id,
    regions: Vec<MemoryId>,
    smc: Option<Id>,
    vcpus: u64,
    handles: Vec<Handles>,
}

/// Builds the objects of `system`; `elfs` are those of the PDs, then the monitor's.
pub fn build(system: &System, elfs: &[Elf], board: &Board) -> Result<Spec, String> {
    let Some((monitor, pds)) = elfs.split_last() else {
        return Err("internal error: no ELF files".to_owned());
    };
    let mut builder = Builder {
        board,
        system,
        spec: Spec::default(),
        monitor_cnode: 0,
        monitor_endpoint: 0,
        regions: Vec::new(),
        smc: None,
        vcpus: 0,
        handles: Vec::new(),
    };
    builder.monitor(monitor, pds.len())?;
    for region in &system.regions {
        let id = builder.region(region)?;
        builder.regions.push(id);
    }
    if system.pds.iter().any(|pd| pd.smc) {
        builder.smc = Some(builder.spec.add("arm_smc".to_owned(), Object::Smc)?);
    }
    for (index, (pd, elf)) in system.pds.iter().zip(pds).enumerate() {
        builder.pd(index, pd, elf).map_err(|error| format!("{} {error}", pd.place))?;
    }
    builder.channels()?;
    builder.user_caps()?;
    builder.order_starts();
    Ok(builder.spec)
}

impl Builder<'_> {
    fn frames(
        &mut self,
        name: String,
        first: Option<u64>,
        size: u64,
        contents: Contents,
    ) -> Result<MemoryId, String> {
        let paddr = Paddr::Any;
        self.spec.add_memory(Memory { name, first, size, page_size: PAGE, paddr, contents })
    }

    fn region(&mut self, region: &Region) -> Result<MemoryId, String> {
        let in_ram = |paddr: u64| self.board.memory.iter().any(|range| range.contains(&paddr));
        let contents = match (&region.prefill, region.paddr) {
            (Some(bytes), _) => Contents::File(bytes.clone()),
            (None, Paddr::Fixed(paddr)) if !in_ram(paddr) => Contents::Untouched,
            (None, _) => Contents::Zero,
        };
        self.spec.add_memory(Memory {
            name: format!("mr_{}", region.name),
            first: Some(0),
            size: region.size,
            page_size: region.page_size,
            paddr: region.paddr,
            contents,
        })
    }

    /// Address space with the segments of an ELF file.
    fn vspace(&mut self, name: &str, index: usize, elf: Option<&Elf>) -> Result<Id, String> {
        // The official tool numbers levels from 0; 40-bit boards start at level 1.
        let root = if self.board.user_top < 1 << 40 { "pud" } else { "pgd" };
        let vspace = self.spec.add(format!("{root}_{name}"), Object::VSpace(Vec::new()))?;
        let mut mapped: Vec<(u64, u64)> = Vec::new();
        let mut frames = 0;
        for (number, segment) in elf.into_iter().flat_map(|elf| elf.segments.iter().enumerate()) {
            let (start, end) = (segment.page_start(), segment.page_end());
            if end > self.board.stack_top() {
                return Err(format!(
                    "a segment of '{name}' at {start:#x}..{end:#x} exceeds the address space"
                ));
            }
            if mapped.iter().any(|(other, other_end)| start < *other_end && *other < end) {
                return Err(format!(
                    "segments of '{name}' share the page at {start:#x}; align them to {PAGE:#x} (-z max-page-size)"
                ));
            }
            mapped.push((start, end));
            let pages = (end - start) / PAGE;
            let memory = Memory {
                name: format!("elf_{name}"),
                first: Some(frames),
                size: end - start,
                page_size: PAGE,
                paddr: Paddr::Any,
                contents: Contents::Segment(index, number, segment.vaddr - start),
            };
            let memory = self.spec.add_memory(memory)?;
            frames += pages;
            let (read, write, execute) = (segment.read, segment.write, segment.execute);
            self.spec.map(vspace, Mapping { vaddr: start, memory, read, write, execute, cached: true });
        }
        Ok(vspace)
    }

    fn map_data(&mut self, vspace: Id, vaddr: u64, memory: MemoryId, write: bool) {
        let mapping = Mapping { vaddr, memory, read: true, write, execute: false, cached: true };
        self.spec.map(vspace, mapping);
    }

    fn map_regions(&mut self, vspace: Id, maps: &[Map]) {
        for map in maps {
            let found = self.system.regions.iter().position(|region| region.name == map.region);
            let Some(&memory) = found.and_then(|index| self.regions.get(index)) else { continue };
            let (read, write, execute) = (map.read, map.write, map.execute);
            let mapping = Mapping { vaddr: map.vaddr, memory, read, write, execute, cached: map.cached };
            self.spec.map(vspace, mapping);
        }
    }

    fn sched_context(&mut self, name: &str, scheduling: Scheduling, badge: u64) -> Result<Id, String> {
        let Scheduling { budget, period, .. } = scheduling;
        self.spec.add(format!("sched_context_{name}"), Object::SchedContext { budget, period, badge })
    }

    fn cnode(&mut self, name: &str, bits: u8) -> Result<Id, String> {
        self.spec.add(format!("cnode_{name}"), Object::CNode(bits, Default::default()))
    }

    fn monitor(&mut self, elf: &Elf, index: usize) -> Result<(), String> {
        let name = "monitor";
        let vspace = self.vspace(name, index, Some(elf))?;
        self.monitor_endpoint = self.spec.add("ep_fault_monitor".to_owned(), Object::Endpoint)?;
        let reply = self.spec.add("reply_monitor".to_owned(), Object::Reply)?;
        let scheduling = Scheduling { priority: 255, budget: 1000, period: 1000 };
        let sched_context = self.sched_context(name, scheduling, 0)?;
        self.monitor_cnode = self.cnode(name, CNODE_BITS)?;
        self.spec.insert(self.monitor_cnode, monitor_slot::FAULT, Cap::Endpoint(self.monitor_endpoint, 0))?;
        self.spec.insert(self.monitor_cnode, monitor_slot::REPLY, Cap::Reply(reply))?;
        let stack = self.frames("monitor_stack".to_owned(), None, MONITOR_STACK, Contents::Zero)?;
        self.map_data(vspace, self.board.stack_top() - MONITOR_STACK, stack, true);
        let ipc_frame = self.frames("ipcbuf_monitor".to_owned(), None, PAGE, Contents::Zero)?;
        self.map_data(vspace, self.board.ipc_buffer(), ipc_frame, true);
        let contents = Contents::Bytes(boot_info_page(self.board));
        let page = self.frames("bootinfo_monitor".to_owned(), None, PAGE, contents)?;
        self.map_data(vspace, boot_info(self.board), page, false);
        let tcb = Tcb {
            thread: name.to_owned(),
            pc: elf.entry,
            sp: self.board.stack_top(),
            x0: boot_info(self.board),
            ipc_vaddr: self.board.ipc_buffer(),
            ipc_frame,
            priority: 255,
            resume: true,
            fpu: true,
            cspace: (self.monitor_cnode, 64 - CNODE_BITS),
            vspace,
            fault: None,
            sched_context,
            notification: None,
            vcpu: None,
        };
        let tcb = self.spec.add("tcb_monitor".to_owned(), Object::Tcb(Box::new(tcb)))?;
        self.spec.start_order.push(tcb);
        Ok(())
    }

    fn needs_endpoint(&self, index: usize, pd: &Pd) -> bool {
        let called =
            |(from, to): (&crate::sdf::model::End, &crate::sdf::model::End)| from.pp && to.pd == index;
        pd.is_parent
            || pd.vm.is_some()
            || self.system.channels.iter().any(|channel| channel.directions().into_iter().any(called))
    }

    fn pd(&mut self, index: usize, pd: &Pd, elf: &Elf) -> Result<(), String> {
        let name = &pd.name;
        let monitor_badge = index as u64 + 1;
        let vspace = self.vspace(name, index, Some(elf))?;
        check_overlap(pd, elf, &self.system.regions)?;
        self.map_regions(vspace, &pd.maps);
        let ipc_frame = self.frames(format!("ipcbuf_{name}"), None, PAGE, Contents::Zero)?;
        self.map_data(vspace, self.board.ipc_buffer(), ipc_frame, true);
        let stack = self.frames(format!("{name}_stack"), Some(0), pd.stack_size, Contents::Zero)?;
        self.map_data(vspace, self.board.stack_top() - pd.stack_size, stack, true);

        let sched_context = self.sched_context(name, pd.scheduling, 0x100 + index as u64)?;
        let cnode = self.cnode(name, CNODE_BITS)?;
        let root = self.cnode(&format!("{name}_root"), ROOT_BITS)?;
        self.spec.insert(root, 0, Cap::CNode(cnode, 64 - ROOT_BITS - CNODE_BITS))?;

        let notification = self.spec.add(format!("ntfn_{name}"), Object::Notification)?;
        let endpoint = match self.needs_endpoint(index, pd) {
            true => Some(self.spec.add(format!("ep_{name}"), Object::Endpoint)?),
            false => None,
        };
        let input = match endpoint {
            Some(endpoint) => Cap::Endpoint(endpoint, 0),
            None => Cap::Notification(notification, 0),
        };
        let parent = pd.parent.and_then(|parent| self.handles.get(parent));
        let fault = match (parent.and_then(|parent| parent.endpoint), pd.id) {
            (Some(endpoint), Some(id)) => (endpoint, FAULT_BADGE | id),
            _ => (self.monitor_endpoint, monitor_badge),
        };
        let parent_cnode = parent.map(|parent| parent.cnode);
        let reply = self.spec.add(format!("reply_{name}"), Object::Reply)?;

        self.spec.insert(cnode, slot::INPUT, input)?;
        self.spec.insert(cnode, slot::FAULT, Cap::Endpoint(fault.0, fault.1))?;
        self.spec.insert(cnode, slot::VSPACE, Cap::VSpace(vspace))?;
        self.spec.insert(cnode, slot::REPLY, Cap::Reply(reply))?;
        if pd.passive {
            self.spec.insert(cnode, slot::MONITOR, Cap::Endpoint(self.monitor_endpoint, monitor_badge))?;
        }
        if let (true, Some(smc)) = (pd.smc, self.smc) {
            self.spec.insert(cnode, slot::SMC, Cap::Smc(smc))?;
        }
        for irq in &pd.irqs {
            let number = irq.irq as u32;
            let object = Object::Irq(number, irq.edge, notification, 1 << irq.id);
            let handler = self.spec.add(format!("irq_{number}_{name}"), object)?;
            self.spec.insert(cnode, slot::IRQ + irq.id, Cap::Irq(handler))?;
        }

        let tcb = Tcb {
            thread: name.clone(),
            pc: elf.entry,
            sp: self.board.stack_top(),
            x0: 0,
            ipc_vaddr: self.board.ipc_buffer(),
            ipc_frame,
            priority: pd.scheduling.priority,
            resume: true,
            fpu: pd.fpu,
            cspace: (root, 0),
            vspace,
            fault: Some(fault),
            sched_context,
            notification: Some(notification),
            vcpu: None,
        };
        let tcb = self.spec.add(format!("tcb_{name}"), Object::Tcb(Box::new(tcb)))?;
        self.spec.start_order.push(tcb);
        if self.board.benchmark {
            self.spec.insert(cnode, slot::TCB, Cap::Tcb(tcb))?;
        }
        if let (Some(parent), Some(id)) = (parent_cnode, pd.id) {
            self.spec.insert(parent, slot::CHILD + id, Cap::Tcb(tcb))?;
        }
        let at = index as u64;
        self.spec.insert(self.monitor_cnode, monitor_slot::PD + at, Cap::Tcb(tcb))?;
        if pd.passive {
            let sched_cap = Cap::SchedContext(sched_context);
            self.spec.insert(self.monitor_cnode, monitor_slot::SCHED_CONTEXT + at, sched_cap)?;
            let notification_cap = Cap::Notification(notification, 0);
            self.spec.insert(self.monitor_cnode, monitor_slot::NOTIFICATION + at, notification_cap)?;
        }
        if let (Some(vm), Some(endpoint)) = (&pd.vm, endpoint) {
            self.vm(vm, cnode, endpoint)?;
        }
        self.handles.push(Handles { root, cnode, notification, endpoint, sched_context, tcb, vspace });
        Ok(())
    }

    fn vm(&mut self, vm: &Vm, monitor: Id, endpoint: Id) -> Result<(), String> {
        let vspace = self.vspace(&vm.name, 0, None)?;
        self.map_regions(vspace, &vm.maps);
        for (position, id) in vm.vcpus.iter().enumerate() {
            if self.vcpus >= 64 {
                return Err("there are more than 64 vCPUs in the system".to_owned());
            }
            let name = format!("{}_{id}", vm.name);
            let cnode = self.cnode(&name, CNODE_BITS)?;
            let ipc_frame = self.frames(format!("ipcbuf_{name}"), None, PAGE, Contents::Zero)?;
            let sched_context = self.sched_context(&name, vm.scheduling, 0x100 + position as u64)?;
            let tcb_id = self.spec.objects.len() + 1;
            let vcpu = self.spec.add(format!("vcpu_{name}"), Object::Vcpu(tcb_id))?;
            let tcb = Tcb {
                thread: vm.name.clone(),
                pc: 0,
                sp: 0,
                x0: 0,
                ipc_vaddr: 0,
                ipc_frame,
                priority: vm.scheduling.priority,
                resume: false,
                fpu: true,
                cspace: (cnode, 64 - CNODE_BITS),
                vspace,
                fault: Some((endpoint, FAULT_BADGE | id)),
                sched_context,
                notification: None,
                vcpu: Some(vcpu),
            };
            let tcb = self.spec.add(format!("tcb_{name}"), Object::Tcb(Box::new(tcb)))?;
            self.spec.start_order.push(tcb);
            self.spec.insert(monitor, slot::VCPU + id, Cap::Vcpu(vcpu))?;
            self.spec.insert(monitor, slot::VM + id, Cap::Tcb(tcb))?;
            self.spec.insert(self.monitor_cnode, monitor_slot::VM + self.vcpus, Cap::Tcb(tcb))?;
            self.vcpus += 1;
        }
        Ok(())
    }

    /// PDs are resumed in ascending order of their names, as by the official initialiser. With seL4's ready queues, which
    /// put a resumed thread at the head, those of equal priority then first run in descending order.
    fn order_starts(&mut self) {
        let mut order = std::mem::take(&mut self.spec.start_order);
        if let Some((_, pds)) = order.split_first_mut() {
            pds.sort_by(|a, b| self.spec.name(*a).cmp(self.spec.name(*b)));
        }
        self.spec.start_order = order;
    }

    fn channels(&mut self) -> Result<(), String> {
        for channel in &self.system.channels {
            for (from, to) in channel.directions() {
                let (Some(sender), Some(receiver)) = (self.handles.get(from.pd), self.handles.get(to.pd))
                else {
                    continue;
                };
                let cnode = sender.cnode;
                if from.notify {
                    let cap = Cap::Notification(receiver.notification, 1 << to.id);
                    self.spec.insert(cnode, slot::NOTIFICATION + from.id, cap)?;
                }
                if let (true, Some(endpoint)) = (from.pp, receiver.endpoint) {
                    let cap = Cap::Endpoint(endpoint, PPC_BADGE | to.id);
                    self.spec.insert(cnode, slot::ENDPOINT + from.id, cap)?;
                }
            }
        }
        Ok(())
    }

    fn user_caps(&mut self) -> Result<(), String> {
        for (pd, owner) in self.system.pds.iter().zip(&self.handles) {
            for cap in &pd.caps {
                let Some(of) = self.handles.get(cap.pd) else { continue };
                let value = match cap.kind {
                    UserCapKind::Tcb => Cap::Tcb(of.tcb),
                    UserCapKind::SchedContext => Cap::SchedContext(of.sched_context),
                    UserCapKind::VSpace => Cap::VSpace(of.vspace),
                };
                self.spec.insert(owner.root, cap.slot, value)?;
            }
        }
        Ok(())
    }
}

fn check_overlap(pd: &Pd, elf: &Elf, regions: &[Region]) -> Result<(), String> {
    for map in &pd.maps {
        let size = regions.iter().find(|region| region.name == map.region).map_or(0, |region| region.size);
        let end = map.vaddr + size;
        let hit = elf.segments.iter().find(|s| map.vaddr < s.page_end() && s.page_start() < end);
        if let Some(segment) = hit {
            return Err(format!(
                "memory region '{}' at {:#x}..{end:#x} overlaps the program at {:#x}..{:#x} (mapped at line {})",
                map.region,
                map.vaddr,
                segment.page_start(),
                segment.page_end(),
                map.vaddr_place.line
            ));
        }
    }
    Ok(())
}

/// A `seL4_BootInfo` of a root task that was given everything already: one node, its IPC buffer, no free slots.
fn boot_info_page(board: &Board) -> Vec<u8> {
    let mut words = [0; 18];
    words[2] = 1;
    words[4] = board.ipc_buffer();
    words[17] = u64::from(CNODE_BITS);
    words.iter().flat_map(|word: &u64| word.to_le_bytes()).collect()
}
