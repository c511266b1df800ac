//! The distributor's registers (GICv2 architecture specification, chapter 4.3), every width.
//!
//! Accesses become masked accesses of 32-bit words, which gives bytes and words (and the halves and doublewords that the
//! specification leaves open) one meaning.

use super::{BANK, Bank, INTIDS, PRIORITY_MASK, PRIVATE_EDGE, SHARED_BANKS, Vgic};
use crate::fault::Width;

/// An access that no distributor register takes: misaligned or outside. Reads as zero, writes are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

const CTLR: u64 = 0x000;
const TYPER: u64 = 0x004;
const IIDR: u64 = 0x008;
const ISENABLER: u64 = 0x100;
const ICENABLER: u64 = 0x180;
const ISPENDR: u64 = 0x200;
const ICPENDR: u64 = 0x280;
const ISACTIVER: u64 = 0x300;
const ICACTIVER: u64 = 0x380;
const IPRIORITYR: u64 = 0x400;
const ITARGETSR: u64 = 0x800;
const ICFGR: u64 = 0xc00;
const SGIR: u64 = 0xf00;
const CPENDSGIR: u64 = 0xf10;
const SPENDSGIR: u64 = 0xf20;
const IDENTIFICATION: u64 = 0xfd0;
/// End of the register block.
const END: u64 = 0x1000;

/// ICPIDR4–7, 0–3 and ICCIDR0–3 of a GICv2.
const IDENTITY: [u8; 12] = [0x04, 0, 0, 0, 0x90, 0xb4, 0x2b, 0, 0x0d, 0xf0, 0x05, 0xb1];

/// The even (configuration) bits of an ICFGR half, spread over one bit per interrupt.
fn gather_edges(value: u32) -> u32 {
    (0..16).filter(|n| value & (2 << (2 * n)) != 0).fold(0, |bits, n| bits | 1 << n)
}

fn spread_edges(bits: u32) -> u32 {
    (0..16).filter(|n| bits & (1 << n) != 0).fold(0, |value, n| value | 2 << (2 * n))
}

/// Bytes of `value` that `mask` selects, with their position.
fn lanes(value: u32, mask: u32) -> impl Iterator<Item = (usize, u8)> {
    value.to_le_bytes().into_iter().enumerate().filter(move |(lane, _)| mask & (0xff << (8 * lane)) != 0)
}

impl Vgic {
    /// Reads `width` at `offset` for `vcpu`.
    pub fn read(&self, vcpu: usize, offset: u64, width: Width) -> Result<u64, Refused> {
        check(offset, width)?;
        if let Width::Double = width {
            let low = self.read_word(vcpu, offset) as u64;
            return Ok(low | (self.read_word(vcpu, offset + 4) as u64) << 32);
        }
        let word = self.read_word(vcpu, offset & !3) as u64;
        Ok(word >> (8 * (offset & 3)) & width.mask())
    }

    /// Writes `width` at `offset` for `vcpu`. Afterwards ask every vCPU in [`Vgic::waiting`] for injections.
    pub fn write(&mut self, vcpu: usize, offset: u64, width: Width, value: u64) -> Result<(), Refused> {
        check(offset, width)?;
        if let Width::Double = width {
            self.write_word(vcpu, offset, value as u32, !0);
            self.write_word(vcpu, offset + 4, (value >> 32) as u32, !0);
            return Ok(());
        }
        let shift = 8 * (offset & 3);
        self.write_word(vcpu, offset & !3, (value << shift) as u32, (width.mask() << shift) as u32);
        Ok(())
    }

    fn read_word(&self, vcpu: usize, offset: u64) -> u32 {
        let bits = |base: u64, read: fn(&Bank) -> u32| {
            self.bank(vcpu, ((offset - base) / 4) as usize).map_or(0, read)
        };
        match offset {
            CTLR => self.enabled as u32,
            TYPER => SHARED_BANKS as u32 | (self.vcpus as u32 - 1) << 5,
            IIDR => (b'P' as u32) << 24 | 0x43b,
            ISENABLER..ICENABLER => bits(ISENABLER, |bank| bank.enabled),
            ICENABLER..ISPENDR => bits(ICENABLER, |bank| bank.enabled),
            ISPENDR..ICPENDR => bits(ISPENDR, Bank::pending),
            ICPENDR..ISACTIVER => bits(ICPENDR, Bank::pending),
            ISACTIVER..ICACTIVER => bits(ISACTIVER, |bank| bank.busy),
            ICACTIVER..IPRIORITYR => bits(ICACTIVER, |bank| bank.busy),
            IPRIORITYR..ITARGETSR => self.bytes(offset - IPRIORITYR, |intid| self.priority(vcpu, intid)),
            ITARGETSR..ICFGR => self.bytes(offset - ITARGETSR, |intid| match intid.checked_sub(BANK) {
                Some(spi) => self.targets.get(spi).copied().unwrap_or(0),
                None => 1 << vcpu,
            }),
            ICFGR..0xd00 => {
                let half = ((offset - ICFGR) / 4) as usize;
                spread_edges(self.bank(vcpu, half / 2).map_or(0, |bank| bank.edge) >> (16 * (half % 2)))
            }
            CPENDSGIR..0xf30 => {
                let first = (offset & 0xf) as usize;
                let source =
                    |lane| self.cpus.get(vcpu).and_then(|cpu| cpu.sources.get(first + lane)).copied();
                u32::from_le_bytes(core::array::from_fn(|lane| source(lane).unwrap_or(0)))
            }
            IDENTIFICATION..END => {
                IDENTITY.get(((offset - IDENTIFICATION) / 4) as usize).copied().unwrap_or(0).into()
            }
            _ => 0,
        }
    }

    /// Four neighbouring byte-wide fields.
    fn bytes(&self, first: u64, field: impl Fn(usize) -> u8) -> u32 {
        let field = |lane| {
            let intid = first as usize + lane;
            if intid < INTIDS { field(intid) } else { 0 }
        };
        u32::from_le_bytes(core::array::from_fn(field))
    }

    fn write_word(&mut self, vcpu: usize, offset: u64, value: u32, mask: u32) {
        let number = |base: u64| ((offset - base) / 4) as usize;
        let set = value & mask;
        match offset {
            CTLR => self.enabled = (self.enabled as u32 & !mask | set) & 1 != 0,
            ISENABLER..ICENABLER => {
                let number = number(ISENABLER);
                if set != 0 && (1..=SHARED_BANKS).contains(&number) {
                    self.used_banks |= 1 << (number - 1);
                }
                self.modify(vcpu, number, |bank| bank.enabled |= set);
            }
            ICENABLER..ISPENDR => {
                let number = number(ICENABLER);
                let always = if number == 0 { PRIVATE_EDGE } else { 0 };
                self.modify(vcpu, number, |bank| bank.enabled &= !set | always);
            }
            ISPENDR..ICPENDR => {
                let set = if offset == ISPENDR { set & !PRIVATE_EDGE } else { set };
                self.modify(vcpu, number(ISPENDR), |bank| bank.latched |= set);
            }
            ICPENDR..ISACTIVER => {
                let set = if offset == ICPENDR { set & !PRIVATE_EDGE } else { set };
                self.modify(vcpu, number(ICPENDR), |bank| bank.latched &= !set);
            }
            IPRIORITYR..ITARGETSR => self.write_priorities(vcpu, (offset - IPRIORITYR) as usize, value, mask),
            ITARGETSR..ICFGR => self.write_targets((offset - ITARGETSR) as usize, value, mask),
            ICFGR..0xd00 if number(ICFGR) >= 2 => {
                let half = number(ICFGR);
                let shift = 16 * (half % 2);
                let keep = !(gather_edges(mask) << shift);
                let edges = gather_edges(set) << shift;
                self.modify(vcpu, half / 2, |bank| bank.edge = bank.edge & keep | edges);
            }
            SGIR => self.send(vcpu, set),
            CPENDSGIR..SPENDSGIR => {
                self.write_sources(vcpu, (offset - CPENDSGIR) as usize, value, mask, false)
            }
            SPENDSGIR..0xf30 => self.write_sources(vcpu, (offset - SPENDSGIR) as usize, value, mask, true),
            _ => {}
        }
    }

    fn modify(&mut self, vcpu: usize, number: usize, change: impl FnOnce(&mut Bank)) {
        if let Some(bank) = self.bank_mut(vcpu, number) {
            change(bank);
        }
    }

    fn write_priorities(&mut self, vcpu: usize, first: usize, value: u32, mask: u32) {
        for (lane, byte) in lanes(value, mask) {
            let intid = first + lane;
            let field = match intid.checked_sub(BANK) {
                Some(spi) => self.priority.get_mut(spi),
                None => self.cpus.get_mut(vcpu).and_then(|cpu| cpu.priority.get_mut(intid)),
            };
            if let Some(field) = field {
                *field = byte & PRIORITY_MASK;
            }
        }
    }

    fn write_targets(&mut self, first: usize, value: u32, mask: u32) {
        if self.vcpus == 1 {
            return; // a uniprocessor GIC has no choice of target
        }
        let exists = ((1u32 << self.vcpus) - 1) as u8;
        for (lane, byte) in lanes(value, mask) {
            if let Some(field) = (first + lane).checked_sub(BANK).and_then(|spi| self.targets.get_mut(spi)) {
                *field = byte & exists;
            }
        }
    }

    /// GICD_SGIR.
    fn send(&mut self, from: usize, value: u32) {
        let intid = (value & 0xf) as usize;
        let targets = match (value >> 24) & 3 {
            0 => (value >> 16) & 0xff,
            1 => !(1 << from),
            2 => 1 << from,
            _ => 0,
        };
        for to in (0..self.vcpus as usize).filter(|to| targets & (1 << to) != 0) {
            self.pend_sgi(to, intid, 1 << from);
        }
    }

    fn pend_sgi(&mut self, to: usize, intid: usize, sources: u8) {
        if let Some(cpu) = self.cpus.get_mut(to)
            && let Some(pending) = cpu.sources.get_mut(intid)
        {
            *pending |= sources;
            if *pending != 0 {
                cpu.bank.latched |= 1 << intid;
            }
        }
    }

    /// GICD_CPENDSGIR and GICD_SPENDSGIR: one byte of senders for each SGI.
    fn write_sources(&mut self, vcpu: usize, first: usize, value: u32, mask: u32, set: bool) {
        let exists = ((1u32 << self.vcpus) - 1) as u8;
        for (lane, byte) in lanes(value, mask) {
            let intid = first + lane;
            if set {
                self.pend_sgi(vcpu, intid, byte & exists);
            } else if let Some(cpu) = self.cpus.get_mut(vcpu)
                && let Some(pending) = cpu.sources.get_mut(intid)
            {
                *pending &= !byte;
                if *pending == 0 {
                    cpu.bank.latched &= !(1 << intid);
                }
            }
        }
    }
}

fn check(offset: u64, width: Width) -> Result<(), Refused> {
    if !offset.is_multiple_of(width.bytes()) || offset >= END { Err(Refused) } else { Ok(()) }
}
