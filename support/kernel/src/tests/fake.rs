//! A machine made of vectors.

use std::collections::{BTreeMap, BTreeSet};

use crate::context::Context;
use crate::hal::{CacheOp, Cpu, Machine, Memory, Virtual};
use crate::id::{TcbId, VSpaceId};
use crate::vcpu::{Vcpu, field};

/// Fake hardware. What the kernel did is there to be looked at.
#[derive(Default)]
pub struct Fake {
    pub time: u64,
    pub deadline: u64,
    pub enabled: BTreeSet<u32>,
    pub printed: String,
    pub memory: BTreeMap<u64, u64>,
    pub maintained: Vec<(CacheOp, u64, u64)>,
    pub loaded: Option<VSpaceId>,
    pub fpu_on: bool,
    pub fpu_owner: Option<TcbId>,
    pub fields: [u64; field::COUNT],
    pub list: [u32; 4],
    pub guest: bool,
    pub flushes: usize,
    pub status: (u32, u32),
}

impl Machine for Fake {
    fn now(&self) -> u64 {
        self.time
    }
    fn set_deadline(&mut self, time: u64) {
        self.deadline = time;
    }
    fn enable_irq(&mut self, irq: u32, on: bool) {
        if on {
            self.enabled.insert(irq);
        } else {
            self.enabled.remove(&irq);
        }
    }
    fn put_char(&mut self, byte: u8) {
        self.printed.push(byte as char);
    }
    fn halt(&mut self) {}
    fn smc(&mut self, registers: [u64; 8]) -> [u64; 8] {
        registers.map(|r| r.wrapping_add(1))
    }
}

impl Memory for Fake {
    fn read(&self, paddr: u64) -> u64 {
        assert_eq!(paddr % 8, 0);
        self.memory.get(&paddr).copied().unwrap_or(0)
    }
    fn write(&mut self, paddr: u64, value: u64) {
        assert_eq!(paddr % 8, 0);
        self.memory.insert(paddr, value);
    }
    fn translate(&self, _: VSpaceId, vaddr: u64) -> Option<(u64, u64)> {
        // One page at 0x1000, one large page at 2 MiB.
        match vaddr {
            0x1000..0x2000 => Some((vaddr + 0x8000_0000, 0x1000)),
            0x20_0000..0x40_0000 => Some((vaddr + 0x8000_0000, 0x20_0000)),
            _ => None,
        }
    }
    fn maintain(&mut self, op: CacheOp, paddr: u64, bytes: u64) {
        self.maintained.push((op, paddr, bytes));
    }
}

impl Cpu for Fake {
    fn save(&mut self, _: &mut Context) {}
    fn load(&mut self, _: &Context, vspace: VSpaceId) {
        self.loaded = Some(vspace);
    }
    fn switch_fpu(&mut self, from: Option<TcbId>, to: TcbId) {
        assert!(self.fpu_on);
        assert_eq!(self.fpu_owner, from);
        self.fpu_owner = Some(to);
    }
    fn enable_fpu(&mut self, on: bool) {
        self.fpu_on = on;
    }
}

impl Virtual for Fake {
    fn list_registers(&self) -> usize {
        4
    }
    fn read_field(&self, field: usize) -> u64 {
        self.fields[field]
    }
    fn write_field(&mut self, field: usize, value: u64) {
        self.fields[field] = value;
    }
    fn read_lr(&self, index: usize) -> u32 {
        self.list[index]
    }
    fn write_lr(&mut self, index: usize, value: u32) {
        self.list[index] = value;
    }
    fn maintenance(&self) -> (u32, u32) {
        self.status
    }
    fn save_all(&mut self, vcpu: &mut Vcpu) {
        assert!(!self.guest);
        for f in (0..field::COUNT).filter(|f| !field::is_volatile(*f)) {
            vcpu.fields[f] = self.fields[f];
        }
        vcpu.list[..4].copy_from_slice(&self.list);
    }
    fn load_all(&mut self, vcpu: &Vcpu) {
        assert!(!self.guest);
        for f in (0..field::COUNT).filter(|f| !field::is_volatile(*f)) {
            self.fields[f] = vcpu.fields[f];
        }
        self.list.copy_from_slice(&vcpu.list[..4]);
    }
    fn activate(&mut self, vcpu: &Vcpu) {
        assert!(!self.guest);
        self.guest = true;
        for f in (0..field::COUNT).filter(|f| field::is_volatile(*f)) {
            self.fields[f] = vcpu.fields[f];
        }
        if !vcpu.vtimer_masked {
            self.enabled.insert(27);
        }
    }
    fn deactivate(&mut self, vcpu: &mut Vcpu) {
        assert!(self.guest);
        self.guest = false;
        for f in (0..field::COUNT).filter(|f| field::is_volatile(*f)) {
            vcpu.fields[f] = self.fields[f];
            self.fields[f] = 0;
        }
        self.enabled.remove(&27);
    }
    fn flush_translations(&mut self) {
        self.flushes += 1;
    }
}
