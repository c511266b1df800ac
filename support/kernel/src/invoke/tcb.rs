//! Thread invocations (seL4 manual 10.2.1).

use crate::abi::{Error, Invocation, MessageInfo};
use crate::context::{FRAME_WORDS, USER_CONTEXT_WORDS};
use crate::hal::Hardware;
use crate::id::{SchedContextId, TcbId};
use crate::kernel::Kernel;
use crate::object::{Cap, EndpointCap};
use crate::syscall::Outcome;

/// CopyRegisters: what to do, bits of MR0.
mod copy {
    pub const SUSPEND: u64 = 1;
    pub const RESUME: u64 = 2;
    pub const FRAME: u64 = 4;
    pub const INTEGER: u64 = 8;
}

/// `seL4_TCBFlag_fpuDisabled`, the only flag.
const FLAG_FPU_DISABLED: u64 = 1;

impl<H: Hardware> Kernel<'_, H> {
    pub(crate) fn invoke_tcb(
        &mut self,
        t: TcbId,
        target: TcbId,
        info: MessageInfo,
    ) -> Result<Outcome, Error> {
        match Self::decode(info)? {
            Invocation::TcbReadRegisters => return self.read_registers(t, target, info),
            Invocation::TcbWriteRegisters => self.write_registers(t, target, info)?,
            Invocation::TcbCopyRegisters => self.copy_registers(t, target, info)?,
            Invocation::TcbSuspend => self.suspend(target),
            Invocation::TcbResume => self.resume(target),
            Invocation::TcbSetPriority => {
                self.need(t, info, 1)?;
                let authority = self.authority(t, info)?;
                let priority = self.check_priority(authority, self.mr(t, 0))?;
                self.set_priority(target, priority);
            }
            Invocation::TcbSetMcPriority => {
                self.need(t, info, 1)?;
                let authority = self.authority(t, info)?;
                self.tcbs[target].mcp = self.check_priority(authority, self.mr(t, 0))?;
            }
            Invocation::TcbSetSchedParams => self.set_sched_params(t, target, info)?,
            Invocation::TcbSetTimeoutEndpoint => {
                let cap = self.extra_cap(t, info, 0)?;
                self.tcbs[target].timeout_handler = fault_handler(cap, 1)?;
            }
            Invocation::TcbBindNotification => self.bind_notification(t, target, info)?,
            Invocation::TcbUnbindNotification => {
                let n = self.tcbs[target].notification.take().ok_or(Error::IllegalOperation)?;
                self.notifications[n].tcb = None;
            }
            Invocation::TcbSetTlsBase => {
                self.need(t, info, 1)?;
                let base = self.mr(t, 0);
                self.unload(target);
                self.tcbs[target].context.tpidr = base;
            }
            Invocation::TcbSetFlags => return self.set_flags(t, target, info),
            // These need capabilities to CNodes and frames, which no thread here has.
            Invocation::TcbConfigure => {
                self.need(t, info, 3)?;
                self.extra_cap(t, info, 2)?;
                return Err(Error::IllegalOperation);
            }
            Invocation::TcbSetSpace => {
                self.need(t, info, 2)?;
                self.extra_cap(t, info, 2)?;
                return Err(Error::IllegalOperation);
            }
            Invocation::TcbSetIpcBuffer => {
                self.need(t, info, 1)?;
                self.extra_cap(t, info, 0)?;
                if self.mr(t, 0) != 0 {
                    return Err(Error::IllegalOperation);
                }
                self.tcbs[target].buffer = None;
            }
            // The CPU's breakpoint registers are not virtualised.
            _ => return Err(Error::IllegalOperation),
        }
        Ok(Outcome::Done)
    }

    fn read_registers(&mut self, t: TcbId, target: TcbId, info: MessageInfo) -> Result<Outcome, Error> {
        self.need(t, info, 2)?;
        let (flags, count) = (self.mr(t, 0), self.mr(t, 1));
        let words = USER_CONTEXT_WORDS as u64;
        if count < 1 || count > words {
            return Err(Error::Range(1, words));
        }
        if target == t {
            return Err(Error::IllegalOperation);
        }
        if flags & 1 != 0 {
            self.suspend(target);
        }
        self.unload(target);
        let length = self.places(t, count as usize);
        for i in 0..length {
            let word = self.tcbs[target].context.word(i);
            self.set_mr(t, i, word);
        }
        Ok(Outcome::Words(length))
    }

    fn write_registers(&mut self, t: TcbId, target: TcbId, info: MessageInfo) -> Result<(), Error> {
        self.need(t, info, 2)?;
        let (flags, count) = (self.mr(t, 0), self.mr(t, 1));
        let given = self.argument_count(t, info) - 2;
        if (given as u64) < count {
            return Err(Error::TruncatedMessage);
        }
        if target == t {
            return Err(Error::IllegalOperation);
        }
        self.unload(target);
        let vm = self.tcbs[target].vcpu.is_some();
        for i in 0..given.min(count as usize).min(USER_CONTEXT_WORDS) {
            let word = self.mr(t, 2 + i);
            self.tcbs[target].context.set_word(i, word, vm);
        }
        let context = &mut self.tcbs[target].context;
        context.pc = context.fault_ip;
        if flags & 1 != 0 {
            self.resume(target);
        }
        Ok(())
    }

    fn copy_registers(&mut self, t: TcbId, target: TcbId, info: MessageInfo) -> Result<(), Error> {
        self.need(t, info, 1)?;
        let source = match self.extra_cap(t, info, 0)? {
            Cap::Tcb(source) => source,
            _ => return Err(Error::InvalidCapability(1)),
        };
        let flags = self.mr(t, 0);
        if flags & copy::SUSPEND != 0 {
            self.suspend(source);
        }
        if flags & copy::RESUME != 0 {
            self.resume(target);
        }
        self.unload(source);
        self.unload(target);
        let vm = self.tcbs[target].vcpu.is_some();
        let frame = if flags & copy::FRAME != 0 { 0..FRAME_WORDS } else { 0..0 };
        let integer = if flags & copy::INTEGER != 0 { FRAME_WORDS..USER_CONTEXT_WORDS } else { 0..0 };
        for i in frame.chain(integer) {
            let word = self.tcbs[source].context.word(i);
            self.tcbs[target].context.set_word(i, word, vm);
        }
        if target == t || self.sched.current == Some(target) {
            self.reschedule();
        }
        Ok(())
    }

    /// The thread in the first extra capability, whose maximum controlled priority bounds what may be set.
    fn authority(&self, t: TcbId, info: MessageInfo) -> Result<TcbId, Error> {
        match self.extra_cap(t, info, 0)? {
            Cap::Tcb(authority) => Ok(authority),
            _ => Err(Error::InvalidCapability(1)),
        }
    }

    fn check_priority(&self, authority: TcbId, priority: u64) -> Result<u8, Error> {
        let mcp = self.tcbs[authority].mcp;
        u8::try_from(priority).ok().filter(|p| *p <= mcp).ok_or(Error::Range(0, u64::from(mcp)))
    }

    fn set_sched_params(&mut self, t: TcbId, target: TcbId, info: MessageInfo) -> Result<(), Error> {
        self.need(t, info, 2)?;
        self.extra_cap(t, info, 2)?;
        let authority = self.authority(t, info)?;
        let mcp = self.check_priority(authority, self.mr(t, 0))?;
        let priority = self.check_priority(authority, self.mr(t, 1))?;
        let sc = match self.extra_cap(t, info, 1)? {
            Cap::SchedContext(sc) => {
                if self.tcbs[target].sched_context.is_some_and(|old| old != sc) {
                    return Err(Error::IllegalOperation);
                }
                if self.tcbs[target].sched_context.is_none() {
                    self.check_bindable(sc, target)?;
                }
                Some(sc)
            }
            Cap::Null if target == t => return Err(Error::IllegalOperation),
            Cap::Null => None,
            _ => return Err(Error::InvalidCapability(2)),
        };
        let handler = fault_handler(self.extra_cap(t, info, 2)?, 3)?;
        self.tcbs[target].fault_handler = handler;
        self.tcbs[target].mcp = mcp;
        self.set_priority(target, priority);
        match (sc, self.tcbs[target].sched_context) {
            (Some(sc), None) => self.bind_thread(sc, target),
            (None, Some(old)) => self.unbind_thread(old),
            _ => {}
        }
        Ok(())
    }

    /// Whether a scheduling context may become a thread's.
    pub(crate) fn check_bindable(&self, sc: SchedContextId, target: TcbId) -> Result<(), Error> {
        let context = &self.scheds[sc];
        let blocked =
            !self.tcbs[target].is_runnable() && self.tcbs[target].state != crate::object::State::Inactive;
        let released = context.refills.ready(self.sched.now) && context.refills.sufficient(0);
        if context.tcb.is_some() || (blocked && !released) {
            return Err(Error::IllegalOperation);
        }
        Ok(())
    }

    fn bind_notification(&mut self, t: TcbId, target: TcbId, info: MessageInfo) -> Result<(), Error> {
        let cap = self.extra_cap(t, info, 0)?;
        if self.tcbs[target].notification.is_some() {
            return Err(Error::IllegalOperation);
        }
        let Cap::Notification(cap) = cap else { return Err(Error::IllegalOperation) };
        let n = &mut self.notifications[cap.id];
        if !cap.rights.read() || !n.queue.is_empty() || n.tcb.is_some() {
            return Err(Error::IllegalOperation);
        }
        n.tcb = Some(target);
        self.tcbs[target].notification = Some(cap.id);
        Ok(())
    }

    fn set_flags(&mut self, t: TcbId, target: TcbId, info: MessageInfo) -> Result<Outcome, Error> {
        self.need(t, info, 2)?;
        let (clear, set) = (self.mr(t, 0), self.mr(t, 1));
        let tcb = &mut self.tcbs[target];
        let old = if tcb.fpu_disabled { FLAG_FPU_DISABLED } else { 0 };
        let new = (old & !clear | set) & FLAG_FPU_DISABLED;
        tcb.fpu_disabled = new != 0;
        self.reload = true;
        Ok(Outcome::Word(new))
    }
}

/// A capability that faults may be sent through, or none.
fn fault_handler(cap: Cap, number: u64) -> Result<Option<EndpointCap>, Error> {
    match cap {
        Cap::Null => Ok(None),
        Cap::Endpoint(cap) if cap.handles_faults() => Ok(Some(cap)),
        _ => Err(Error::InvalidCapability(number)),
    }
}
