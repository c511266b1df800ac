//! Invocations of IRQ handlers, virtual CPUs, address spaces and the secure monitor.

use crate::abi::{Error, Invocation, MessageInfo, user_top};
use crate::hal::{CacheOp, Hardware};
use crate::id::{IrqId, TcbId, VSpaceId, VcpuId};
use crate::kernel::Kernel;
use crate::object::Cap;
use crate::syscall::Outcome;

impl<H: Hardware> Kernel<'_, H> {
    pub(crate) fn invoke_irq(&mut self, t: TcbId, irq: IrqId, info: MessageInfo) -> Result<Outcome, Error> {
        match Self::decode(info)? {
            Invocation::IrqAckIrq => {
                let number = self.irqs[irq].number;
                self.hw.enable_irq(number, true);
            }
            Invocation::IrqSetIrqHandler => match self.extra_cap(t, info, 0)? {
                Cap::Notification(cap) if cap.rights.write() => self.irqs[irq].handler = Some(cap),
                _ => return Err(Error::InvalidCapability(0)),
            },
            Invocation::IrqClearIrqHandler => self.irqs[irq].handler = None,
            _ => return Err(Error::IllegalOperation),
        }
        Ok(Outcome::Done)
    }

    pub(crate) fn invoke_vcpu(
        &mut self,
        t: TcbId,
        vcpu: VcpuId,
        info: MessageInfo,
    ) -> Result<Outcome, Error> {
        match Self::decode(info)? {
            Invocation::VcpuInjectIrq => {
                self.need(t, info, 1)?;
                self.vcpu_inject(vcpu, self.mr(t, 0))?;
            }
            Invocation::VcpuReadReg => {
                self.need(t, info, 1)?;
                return self.vcpu_read(vcpu, self.mr(t, 0)).map(Outcome::Word);
            }
            Invocation::VcpuWriteReg => {
                self.need(t, info, 2)?;
                self.vcpu_write(vcpu, self.mr(t, 0), self.mr(t, 1))?;
            }
            Invocation::VcpuAckVppi => {
                self.need(t, info, 1)?;
                self.vcpu_ack_vppi(vcpu, self.mr(t, 0))?;
            }
            Invocation::VcpuSetTcb => match self.extra_cap(t, info, 0)? {
                Cap::Tcb(target) => self.vcpu_set_tcb(vcpu, target),
                _ => return Err(Error::IllegalOperation),
            },
            _ => return Err(Error::IllegalOperation),
        }
        Ok(Outcome::Done)
    }

    /// Cache maintenance by address: inside one page; what is not mapped needs none.
    pub(crate) fn invoke_vspace(
        &mut self,
        t: TcbId,
        vspace: VSpaceId,
        info: MessageInfo,
    ) -> Result<Outcome, Error> {
        let op = match Self::decode(info)? {
            Invocation::VSpaceCleanData => CacheOp::Clean,
            Invocation::VSpaceInvalidateData => CacheOp::Invalidate,
            Invocation::VSpaceCleanInvalidateData => CacheOp::CleanInvalidate,
            Invocation::VSpaceUnifyInstruction => CacheOp::Unify,
            _ => return Err(Error::IllegalOperation),
        };
        self.need(t, info, 2)?;
        let (start, end) = (self.mr(t, 0), self.mr(t, 1));
        if end <= start {
            return Err(Error::InvalidArgument(1));
        }
        if end > user_top() {
            return Err(Error::IllegalOperation);
        }
        let Some((paddr, page)) = self.hw.translate(vspace, start) else { return Ok(Outcome::Done) };
        let first = start & !(page - 1);
        if end - 1 > first + (page - 1) {
            return Err(Error::Range(start, first + (page - 1)));
        }
        self.hw.maintain(op, paddr, end - start);
        Ok(Outcome::Done)
    }

    pub(crate) fn invoke_smc(
        &mut self,
        t: TcbId,
        function: u64,
        info: MessageInfo,
    ) -> Result<Outcome, Error> {
        if Self::decode(info)? != Invocation::SmcCall {
            return Err(Error::IllegalOperation);
        }
        self.need(t, info, 8)?;
        let mut registers = [0; 8];
        for (i, register) in registers.iter_mut().enumerate() {
            *register = self.mr(t, i);
        }
        if function != 0 && registers[0] != function {
            return Err(Error::IllegalOperation);
        }
        let results = self.hw.smc(registers);
        for (i, result) in results.iter().enumerate() {
            self.set_mr(t, i, *result);
        }
        Ok(Outcome::Words(8))
    }
}
