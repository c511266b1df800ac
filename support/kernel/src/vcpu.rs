//! Virtual CPUs: registers, list registers, virtual timer, and lazy switching.
//!
//! A virtual CPU is *loaded* while its registers are in the CPU and *active* while its thread runs. A switch to a native
//! thread only deactivates it; the rest is saved when another virtual CPU is loaded. The virtual timer never runs while a
//! virtual CPU is not active.

use crate::abi::Error;
use crate::fault::Fault;
use crate::hal::Hardware;
use crate::id::{TcbId, VcpuId};
use crate::kernel::Kernel;

/// Register fields, as VCPU invocations number them.
pub mod field {
    /// SCTLR_EL1
    pub const SCTLR: usize = 0;
    /// CPACR_EL1
    pub const CPACR: usize = 1;
    /// VMPIDR_EL2
    pub const VMPIDR: usize = 16;
    /// CNTV_CTL_EL0
    pub const CNTV_CTL: usize = 20;
    /// CNTV_CVAL_EL0
    pub const CNTV_CVAL: usize = 21;
    /// CNTVOFF_EL2
    pub const CNTVOFF: usize = 22;
    /// CNTKCTL_EL1
    pub const CNTKCTL: usize = 23;
    /// How many there are.
    pub const COUNT: usize = 24;
    /// Whether deactivation saves it.
    pub const fn is_volatile(field: usize) -> bool {
        matches!(field, SCTLR | CPACR | CNTV_CTL | CNTV_CVAL | CNTVOFF | CNTKCTL)
    }
}

/// Interrupt numbers the kernel keeps for itself.
pub mod irq {
    /// vGIC maintenance.
    pub const MAINTENANCE: u32 = 25;
    /// EL2 physical timer.
    pub const TIMER: u32 = 26;
    /// Virtual timer.
    pub const VTIMER: u32 = 27;
    /// Greatest number of this platform.
    pub const MAX: u32 = 159;
}

/// List registers a virtual CPU keeps.
pub const MAX_LIST_REGISTERS: usize = 64;

/// GICv2 list register bits (GICv2 architecture 5.3.9).
mod lr {
    pub const EOI: u32 = 1 << 19;
    pub const PENDING: u32 = 1 << 28;
    pub const STATE: u32 = 3 << 28;
    pub const ACTIVE: u32 = 2 << 28;
    pub const PRIORITY_SHIFT: u32 = 23;
    pub const GROUP_SHIFT: u32 = 30;
}

/// SCTLR_EL1 of a new virtual CPU: the RES1 bits, cache maintenance and WFx allowed, MMU and caches off.
const SCTLR_RESET: u64 = 0x34d5_8820;
/// GICH_HCR: interface on.
const VGIC_ENABLE: u32 = 1;

/// A virtual CPU.
#[derive(Debug)]
#[repr(C)]
pub struct Vcpu {
    /// Registers that invocations can reach.
    pub fields: [u64; field::COUNT],
    /// GICH_HCR.
    pub vgic_hcr: u32,
    /// GICH_VMCR.
    pub vgic_vmcr: u32,
    /// GICH_APR.
    pub vgic_apr: u32,
    /// GICH_LR.
    pub list: [u32; MAX_LIST_REGISTERS],
    /// The virtual timer's interrupt was delivered and not acknowledged yet.
    pub vtimer_masked: bool,
    /// Its thread.
    pub tcb: Option<TcbId>,
}

impl Default for Vcpu {
    fn default() -> Self {
        let mut fields = [0; field::COUNT];
        fields[field::SCTLR] = SCTLR_RESET;
        Vcpu {
            fields,
            vgic_hcr: VGIC_ENABLE,
            vgic_vmcr: 0,
            vgic_apr: 0,
            list: [0; MAX_LIST_REGISTERS],
            vtimer_masked: false,
            tcb: None,
        }
    }
}

const _: () = assert!(size_of::<Vcpu>() as u64 <= crate::pool::bytes::VCPU);

/// Which virtual CPU is in the CPU.
#[derive(Clone, Copy, Debug, Default)]
pub struct Loaded {
    /// Its registers are there.
    pub vcpu: Option<VcpuId>,
    /// It runs.
    pub active: bool,
}

impl<H: Hardware> Kernel<'_, H> {
    /// Makes `next` active, or none.
    pub(crate) fn switch_vcpu(&mut self, next: Option<VcpuId>) {
        let Loaded { vcpu, active } = self.loaded_vcpu;
        if active && (vcpu != next) {
            self.deactivate_vcpu();
        }
        let Some(next) = next else { return };
        if vcpu == Some(next) {
            if active {
                return;
            }
        } else {
            if let Some(old) = vcpu {
                self.hw.save_all(&mut self.vcpus[old]);
                if self.vspace_of(old) == self.vspace_of(next) {
                    self.hw.flush_translations();
                }
            }
            self.hw.load_all(&self.vcpus[next]);
        }
        self.hw.activate(&self.vcpus[next]);
        self.loaded_vcpu = Loaded { vcpu: Some(next), active: true };
    }

    fn vspace_of(&self, vcpu: VcpuId) -> Option<crate::id::VSpaceId> {
        self.vcpus[vcpu].tcb.map(|t| self.tcbs[t].vspace)
    }

    /// Turns the active virtual CPU off; it stays loaded.
    fn deactivate_vcpu(&mut self) {
        if let Loaded { vcpu: Some(v), active: true } = self.loaded_vcpu {
            self.hw.deactivate(&mut self.vcpus[v]);
            self.loaded_vcpu.active = false;
        }
    }

    /// Whether field `f` of `vcpu` is in the CPU now.
    fn is_in_cpu(&self, vcpu: VcpuId, f: usize) -> bool {
        self.loaded_vcpu.vcpu == Some(vcpu) && (self.loaded_vcpu.active || !field::is_volatile(f))
    }

    /// VCPU_ReadReg.
    pub(crate) fn vcpu_read(&mut self, vcpu: VcpuId, f: u64) -> Result<u64, Error> {
        let f = check_field(f)?;
        Ok(if self.is_in_cpu(vcpu, f) { self.hw.read_field(f) } else { self.vcpus[vcpu].fields[f] })
    }

    /// VCPU_WriteReg.
    pub(crate) fn vcpu_write(&mut self, vcpu: VcpuId, f: u64, value: u64) -> Result<(), Error> {
        let f = check_field(f)?;
        if self.is_in_cpu(vcpu, f) {
            self.hw.write_field(f, value);
        } else {
            self.vcpus[vcpu].fields[f] = value;
        }
        Ok(())
    }

    /// VCPU_InjectIRQ. The argument packs interrupt 15:0, priority 23:16, group 31:24, index 39:32.
    pub(crate) fn vcpu_inject(&mut self, vcpu: VcpuId, packed: u64) -> Result<(), Error> {
        let irq = (packed & 0xffff) as u32;
        let priority = (packed >> 16 & 0xff) as u32;
        let group = (packed >> 24 & 0xff) as u32;
        let index = (packed >> 32 & 0xff) as usize;
        let registers = self.hw.list_registers();
        if irq > 1023 {
            return Err(Error::Range(0, 1023));
        }
        if priority > 31 {
            return Err(Error::Range(0, 31));
        }
        if group > 1 {
            return Err(Error::Range(0, 1));
        }
        if index >= registers {
            return Err(Error::Range(0, registers as u64 - 1));
        }
        let slot = self.vcpus[vcpu].list.get_mut(index).ok_or(Error::Range(0, registers as u64 - 1))?;
        if *slot & lr::STATE == lr::ACTIVE {
            return Err(Error::DeleteFirst);
        }
        let value = group << lr::GROUP_SHIFT | lr::PENDING | priority << lr::PRIORITY_SHIFT | lr::EOI | irq;
        *slot = value;
        if self.loaded_vcpu.vcpu == Some(vcpu) {
            self.hw.write_lr(index, value);
        }
        Ok(())
    }

    /// VCPU_AckVPPI.
    pub(crate) fn vcpu_ack_vppi(&mut self, vcpu: VcpuId, irq: u64) -> Result<(), Error> {
        if irq > u64::from(irq::MAX) {
            return Err(Error::Range(0, u64::from(irq::MAX)));
        }
        if irq != u64::from(irq::VTIMER) {
            return Err(Error::InvalidArgument(0));
        }
        self.vcpus[vcpu].vtimer_masked = false;
        Ok(())
    }

    /// VCPU_SetTCB: one virtual CPU, one thread.
    pub(crate) fn vcpu_set_tcb(&mut self, vcpu: VcpuId, tcb: TcbId) {
        if let Some(old) = self.tcbs[tcb].vcpu {
            self.vcpu_dissociate(old);
        }
        self.vcpu_dissociate(vcpu);
        self.tcbs[tcb].vcpu = Some(vcpu);
        self.vcpus[vcpu].tcb = Some(tcb);
        self.reload = true;
    }

    fn vcpu_dissociate(&mut self, vcpu: VcpuId) {
        if self.loaded_vcpu.vcpu == Some(vcpu) {
            self.deactivate_vcpu();
            self.hw.save_all(&mut self.vcpus[vcpu]);
            self.loaded_vcpu.vcpu = None;
        }
        if let Some(t) = self.vcpus[vcpu].tcb.take() {
            self.tcbs[t].vcpu = None;
        }
    }

    /// The vGIC's maintenance interrupt.
    pub(crate) fn vgic_maintenance(&mut self) {
        let Loaded { vcpu: Some(vcpu), active: true } = self.loaded_vcpu else { return };
        let (status, completed) = self.hw.maintenance();
        let index = completed.trailing_zeros() as usize;
        let index = (status & 1 != 0 && index < self.hw.list_registers()).then_some(index);
        if let Some(i) = index {
            let value = self.hw.read_lr(i) & !lr::EOI;
            self.hw.write_lr(i, value);
            if let Some(shadow) = self.vcpus[vcpu].list.get_mut(i) {
                *shadow = value;
            }
        }
        self.fault(Fault::VgicMaintenance { index: index.map(|i| i as u8) });
    }

    /// The virtual timer's interrupt.
    pub(crate) fn vtimer_interrupt(&mut self) {
        self.hw.enable_irq(irq::VTIMER, false);
        let Loaded { vcpu: Some(vcpu), active: true } = self.loaded_vcpu else { return };
        self.vcpus[vcpu].vtimer_masked = true;
        self.fault(Fault::VppiEvent { irq: u64::from(irq::VTIMER) });
    }
}

fn check_field(f: u64) -> Result<usize, Error> {
    match usize::try_from(f) {
        Ok(f) if f < field::COUNT => Ok(f),
        _ => Err(Error::InvalidArgument(1)),
    }
}
