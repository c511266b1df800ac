//! A virtual GICv2: the distributor is emulated here, the CPU interface is the hardware's GICV page.
//!
//! What seL4 leaves a VMM with shapes this (abi.md section 5): an interrupt is handed to the guest by writing a list
//! register, which cannot be read back or cleared, only overwritten; the only news about it is the maintenance event when
//! the guest has ended it. So this model keeps a shadow: an INTID is *busy* from the moment it is in a list register until
//! its end, and is in no second one meanwhile (two list registers with one INTID are UNPREDICTABLE, GICv2 5.3.9). Whatever
//! arrives while it is busy, disabled, or without a free list register stays pending here and is offered again after
//! every event, so that nothing is lost.
//!
//! Where a real distributor differs: disabling an interrupt or clearing its pending bit does not take it back from a list
//! register (the guest may see it once more), and the source CPU of an SGI always reads as 0.

mod distributor;
#[cfg(test)]
mod tests;

pub use distributor::Refused;

use partita_protocol::MAX_VCPUS;

/// INTIDs 0..INTIDS exist: 16 SGIs, 16 PPIs, the rest SPIs. It covers every SPI of the boards we run on.
pub const INTIDS: usize = 256;
/// List registers of the cores we run on (GIC-400, Cortex-A53, Cortex-A72, QEMU).
pub const LIST_REGISTERS: usize = 4;

/// INTIDs in one bank.
const BANK: usize = 32;
/// Banks of SPIs.
const SHARED_BANKS: usize = INTIDS / BANK - 1;
const _: () = assert!(SHARED_BANKS <= u8::BITS as usize);
/// PPIs and SGIs that are edge-triggered: all SGIs, no PPI.
const PRIVATE_EDGE: u32 = 0x0000_ffff;
/// Priority bits that exist; a list register holds five.
const PRIORITY_MASK: u8 = 0xf8;

/// An interrupt to be written to a list register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Injection {
    /// List register.
    pub index: u8,
    /// Interrupt.
    pub intid: u16,
    /// 0 (highest) to 31, as the list register wants it.
    pub priority: u8,
}

/// 32 interrupts: one bit each.
#[derive(Clone, Copy, Default)]
struct Bank {
    enabled: u32,
    /// Edges seen, and pending set by software.
    latched: u32,
    /// Level of the input.
    line: u32,
    edge: u32,
    /// In a list register: pending or active there.
    busy: u32,
}

impl Bank {
    const fn pending(&self) -> u32 {
        self.latched | (self.line & !self.edge)
    }

    const fn offered(&self) -> u32 {
        self.enabled & self.pending() & !self.busy
    }
}

/// What each vCPU has of its own.
#[derive(Clone, Copy)]
struct Cpu {
    bank: Bank,
    priority: [u8; BANK],
    /// Senders of each pending SGI, one bit per vCPU.
    sources: [u8; 16],
    lists: [Option<u16>; LIST_REGISTERS],
    /// List registers whose interrupt was given back when the vCPU was switched off, one bit each.
    given_back: u8,
}

impl Cpu {
    const fn new() -> Self {
        Self {
            bank: Bank { enabled: PRIVATE_EDGE, latched: 0, line: 0, edge: PRIVATE_EDGE, busy: 0 },
            priority: [0; BANK],
            sources: [0; 16],
            lists: [None; LIST_REGISTERS],
            given_back: 0,
        }
    }
}

/// The virtual interrupt controller of one guest.
pub struct Vgic {
    enabled: bool,
    vcpus: u8,
    cpus: [Cpu; MAX_VCPUS],
    shared: [Bank; SHARED_BANKS],
    /// Bit `n`: something in shared bank `n` was enabled since reset. The others need no look.
    used_banks: u8,
    priority: [u8; SHARED_BANKS * BANK],
    targets: [u8; SHARED_BANKS * BANK],
}

impl Vgic {
    /// For a guest with `vcpus` vCPUs, after reset.
    pub const fn new(vcpus: usize) -> Self {
        let vcpus = if vcpus == 0 {
            1
        } else if vcpus > MAX_VCPUS {
            MAX_VCPUS
        } else {
            vcpus
        };
        Self {
            enabled: false,
            vcpus: vcpus as u8,
            cpus: [Cpu::new(); MAX_VCPUS],
            shared: [Bank { enabled: 0, latched: 0, line: 0, edge: 0, busy: 0 }; SHARED_BANKS],
            used_banks: 0,
            priority: [0; SHARED_BANKS * BANK],
            targets: [1; SHARED_BANKS * BANK],
        }
    }

    /// Puts the distributor in its reset state. What is in list registers stays there until the guest ends it.
    pub fn reset(&mut self) {
        let old = core::mem::replace(self, Self::new(self.vcpus as usize));
        for (cpu, old) in self.cpus.iter_mut().zip(&old.cpus) {
            cpu.lists = old.lists;
            cpu.given_back = old.given_back;
            cpu.bank.busy = old.bank.busy;
        }
        for (bank, old) in self.shared.iter_mut().zip(&old.shared) {
            bank.busy = old.busy;
        }
    }

    /// Drives the input line of a PPI (of `vcpu`) or an SPI. A rising edge is latched if the guest configured an edge.
    pub fn set_line(&mut self, vcpu: usize, intid: u16, high: bool) {
        if intid < 16 {
            return;
        }
        let bit = 1 << (intid % BANK as u16);
        if let Some(bank) = self.bank_mut(vcpu, intid as usize / BANK) {
            if high {
                bank.latched |= bit & bank.edge & !bank.line;
                bank.line |= bit;
            } else {
                bank.line &= !bit;
            }
        }
    }

    /// Makes an SPI pending, as a message does (GICv2m): whatever trigger the guest has configured, and once however often
    /// it is repeated before the guest takes it.
    pub fn pulse(&mut self, intid: u16) {
        if usize::from(intid) >= BANK
            && let Some(bank) = self.bank_mut(0, intid as usize / BANK)
        {
            bank.latched |= 1 << (intid % BANK as u16);
        }
    }

    /// The next interrupt to write to a list register of `vcpu`; it counts as written. Ask until there is none.
    pub fn next_injection(&mut self, vcpu: usize) -> Option<Injection> {
        let index = self.cpus.get(vcpu)?.lists.iter().position(Option::is_none)?;
        let (intid, priority) = self.candidate(vcpu)?;
        let bit = 1 << (intid % BANK as u16);
        let cpu = self.cpus.get_mut(vcpu)?;
        *cpu.lists.get_mut(index)? = Some(intid);
        match cpu.sources.get_mut(intid as usize) {
            Some(sources) => {
                *sources &= sources.wrapping_sub(1);
                cpu.bank.latched &= if *sources == 0 { !bit } else { !0 };
                cpu.bank.busy |= bit;
            }
            None => {
                let bank = self.bank_mut(vcpu, intid as usize / BANK)?;
                bank.latched &= !bit;
                bank.busy |= bit;
            }
        }
        Some(Injection { index: index as u8, intid, priority: priority >> 3 })
    }

    /// The guest has ended the interrupt in list register `index` of `vcpu`: which one it was, if that is the end of it. Ask
    /// for injections in any case: the list register is free.
    pub fn ended(&mut self, vcpu: usize, index: usize) -> Option<u16> {
        let cpu = self.cpus.get_mut(vcpu)?;
        let intid = cpu.lists.get_mut(index)?.take()?;
        let bit = 1 << index;
        if cpu.given_back & bit != 0 {
            cpu.given_back &= !bit;
            return None;
        }
        let bank = self.bank_mut(vcpu, intid as usize / BANK)?;
        bank.busy &= !(1 << (intid % BANK as u16));
        Some(intid)
    }

    /// The list registers of `vcpu` are known to be empty.
    pub fn emptied(&mut self, vcpu: usize) {
        for index in 0..LIST_REGISTERS {
            let _ = self.ended(vcpu, index);
        }
    }

    /// `vcpu` was switched off: SPIs in its list registers are offered again, to whom they are for now if that is another. The
    /// list registers keep what they have; should the vCPU be switched on again it sees those interrupts once more.
    pub fn switched_off(&mut self, vcpu: usize) {
        for index in 0..LIST_REGISTERS {
            let Some(cpu) = self.cpus.get_mut(vcpu) else { return };
            let Some(intid) = cpu.lists.get(index).copied().flatten() else { continue };
            if (intid as usize) < BANK || cpu.given_back & (1 << index) != 0 {
                continue;
            }
            cpu.given_back |= 1 << index;
            let bit = 1 << (intid % BANK as u16);
            if let Some(bank) = self.bank_mut(vcpu, intid as usize / BANK) {
                bank.busy &= !bit;
                bank.latched |= bit & bank.edge;
            }
        }
    }

    /// True if nothing is in the list registers of `vcpu` and nothing could be written there: it may sleep.
    pub fn is_quiet(&self, vcpu: usize) -> bool {
        let taken = |cpu: &Cpu| {
            let taken = |(n, list): (usize, &Option<u16>)| list.is_some() && cpu.given_back & (1 << n) == 0;
            cpu.lists.iter().enumerate().any(taken)
        };
        !self.cpus.get(vcpu).is_some_and(taken) && self.candidate(vcpu).is_none()
    }

    /// vCPUs for which something waits to be injected, one bit each.
    pub fn waiting(&self) -> u32 {
        (0..self.vcpus as usize).filter(|v| self.candidate(*v).is_some()).fold(0, |set, v| set | 1 << v)
    }

    /// True if the guest lets `intid` through: without that it cannot wake a vCPU.
    pub fn is_enabled(&self, vcpu: usize, intid: u16) -> bool {
        self.enabled
            && self
                .bank(vcpu, intid as usize / BANK)
                .is_some_and(|bank| bank.enabled & (1 << (intid % BANK as u16)) != 0)
    }

    /// True if the shared interrupt `intid` is pending, and not only in a list register.
    pub fn is_pending(&self, intid: u16) -> bool {
        self.bank(0, intid as usize / BANK)
            .is_some_and(|bank| bank.pending() & (1 << (intid % BANK as u16)) != 0)
    }

    /// True if `intid` is in a list register.
    pub fn is_busy(&self, vcpu: usize, intid: u16) -> bool {
        self.bank(vcpu, intid as usize / BANK)
            .is_some_and(|bank| bank.busy & (1 << (intid % BANK as u16)) != 0)
    }

    /// The pending interrupt of highest priority (then lowest number) for `vcpu` that is in no list register.
    fn candidate(&self, vcpu: usize) -> Option<(u16, u8)> {
        if !self.enabled {
            return None;
        }
        let cpu = self.cpus.get(vcpu)?;
        let mut best = None;
        let offered = cpu.bank.offered();
        if offered != 0 {
            best = self.best_of(vcpu, 0, offered, best);
        }
        let mut banks = self.used_banks;
        while banks != 0 {
            let number = banks.trailing_zeros() as usize;
            banks &= banks - 1;
            let offered = self.shared.get(number)?.offered();
            if offered != 0 {
                best = self.best_of(vcpu, number + 1, offered, best);
            }
        }
        best
    }

    /// The better of `best` and the interrupts `offered` by bank `number`. Kept out of the way: mostly there are none.
    #[cold]
    fn best_of(
        &self,
        vcpu: usize,
        number: usize,
        mut offered: u32,
        mut best: Option<(u16, u8)>,
    ) -> Option<(u16, u8)> {
        while offered != 0 {
            let intid = number * BANK + offered.trailing_zeros() as usize;
            offered &= offered - 1;
            if number > 0 && (self.target(intid) != Some(vcpu) || self.has_given_back(vcpu, intid)) {
                continue;
            }
            let priority = self.priority(vcpu, intid);
            if best.is_none_or(|(_, least)| priority < least) {
                best = Some((intid as u16, priority));
            }
        }
        best
    }

    /// A list register of `vcpu` still has an SPI that the vCPU gave back: a second one must not.
    fn has_given_back(&self, vcpu: usize, intid: usize) -> bool {
        let given = |cpu: &Cpu| {
            let has = |(n, list): (usize, &Option<u16>)| {
                cpu.given_back & (1 << n) != 0 && list.is_some_and(|held| usize::from(held) == intid)
            };
            cpu.given_back != 0 && cpu.lists.iter().enumerate().any(has)
        };
        self.cpus.get(vcpu).is_some_and(given)
    }

    /// The vCPU that takes an SPI: the lowest of its targets (GICv2's 1-of-N leaves the choice to us).
    fn target(&self, intid: usize) -> Option<usize> {
        match self.targets.get(intid.checked_sub(BANK)?)? {
            0 => None,
            targets => Some(targets.trailing_zeros() as usize),
        }
    }

    fn priority(&self, vcpu: usize, intid: usize) -> u8 {
        let found = match intid.checked_sub(BANK) {
            Some(spi) => self.priority.get(spi),
            None => self.cpus.get(vcpu).and_then(|cpu| cpu.priority.get(intid)),
        };
        found.copied().unwrap_or(0xff)
    }

    fn bank(&self, vcpu: usize, number: usize) -> Option<&Bank> {
        match number.checked_sub(1) {
            Some(shared) => self.shared.get(shared),
            None => self.cpus.get(vcpu).map(|cpu| &cpu.bank),
        }
    }

    fn bank_mut(&mut self, vcpu: usize, number: usize) -> Option<&mut Bank> {
        match number.checked_sub(1) {
            Some(shared) => self.shared.get_mut(shared),
            None => self.cpus.get_mut(vcpu).map(|cpu| &mut cpu.bank),
        }
    }
}
