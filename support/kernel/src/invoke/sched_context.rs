//! Scheduling context invocations (seL4 manual 10.2.4).

use crate::abi::{Error, Invocation, MessageInfo};
use crate::hal::Hardware;
use crate::id::{SchedContextId, TcbId};
use crate::kernel::Kernel;
use crate::object::{Above, Cap};
use crate::syscall::Outcome;

impl<H: Hardware> Kernel<'_, H> {
    pub(crate) fn invoke_sched_context(
        &mut self,
        t: TcbId,
        sc: SchedContextId,
        info: MessageInfo,
    ) -> Result<Outcome, Error> {
        match Self::decode(info)? {
            Invocation::SchedContextConsumed => return Ok(Outcome::Word(self.take_consumed(sc))),
            Invocation::SchedContextYieldTo => return self.yield_to(t, sc),
            Invocation::SchedContextBind => match self.extra_cap(t, info, 0)? {
                Cap::Tcb(target) => {
                    if self.tcbs[target].sched_context.is_some() {
                        return Err(Error::IllegalOperation);
                    }
                    self.check_bindable(sc, target)?;
                    self.bind_thread(sc, target);
                }
                Cap::Notification(cap) => {
                    if self.scheds[sc].notification.is_some()
                        || self.notifications[cap.id].sched_context.is_some()
                    {
                        return Err(Error::IllegalOperation);
                    }
                    self.scheds[sc].notification = Some(cap.id);
                    self.notifications[cap.id].sched_context = Some(sc);
                }
                _ => return Err(Error::InvalidCapability(1)),
            },
            Invocation::SchedContextUnbindObject => match self.extra_cap(t, info, 0)? {
                Cap::Tcb(target) => {
                    if self.scheds[sc].tcb != Some(target) || target == t {
                        return Err(Error::IllegalOperation);
                    }
                    self.unbind_thread(sc);
                }
                Cap::Notification(cap) => {
                    if self.scheds[sc].notification != Some(cap.id) {
                        return Err(Error::IllegalOperation);
                    }
                    self.unbind_notification(sc);
                }
                _ => return Err(Error::InvalidCapability(1)),
            },
            Invocation::SchedContextUnbind => {
                if self.scheds[sc].tcb == Some(t) {
                    return Err(Error::IllegalOperation);
                }
                self.unbind_thread(sc);
                self.unbind_notification(sc);
                if let Some(reply) = self.scheds[sc].reply.take() {
                    self.replies[reply].above = Above::Nothing;
                }
            }
            _ => return Err(Error::IllegalOperation),
        }
        Ok(Outcome::Done)
    }

    /// A thread gets its own scheduling context.
    pub(crate) fn bind_thread(&mut self, sc: SchedContextId, t: TcbId) {
        self.scheds[sc].tcb = Some(t);
        self.tcbs[t].sched_context = Some(sc);
        self.unblock_refills(t);
        self.resume_sched_context(sc);
        if self.tcbs[t].is_schedulable() {
            self.enqueue(t, true);
            self.reschedule();
        }
    }

    /// A scheduling context's thread loses it.
    pub(crate) fn unbind_thread(&mut self, sc: SchedContextId) {
        let Some(t) = self.scheds[sc].tcb.take() else { return };
        if self.sched.current == Some(t) {
            self.reschedule();
        }
        self.dequeue(t);
        self.tcbs[t].sched_context = None;
    }

    fn unbind_notification(&mut self, sc: SchedContextId) {
        if let Some(n) = self.scheds[sc].notification.take() {
            self.notifications[n].sched_context = None;
        }
    }

    /// Microseconds used since the last question.
    fn take_consumed(&mut self, sc: SchedContextId) -> u64 {
        if self.sched.sched_context == Some(sc) {
            self.commit_time();
        }
        let used = core::mem::take(&mut self.scheds[sc].consumed);
        self.micros(used)
    }

    /// Lets a thread of the same or a higher priority run before the caller, which learns how long it ran.
    fn yield_to(&mut self, t: TcbId, sc: SchedContextId) -> Result<Outcome, Error> {
        let target = self.scheds[sc].tcb.filter(|target| *target != t).ok_or(Error::IllegalOperation)?;
        if self.tcbs[target].priority > self.tcbs[t].mcp || self.tcbs[t].yield_to.is_some() {
            return Err(Error::IllegalOperation);
        }
        self.resume_sched_context(sc);
        if !self.tcbs[target].is_schedulable() {
            return Ok(Outcome::Word(self.take_consumed(sc)));
        }
        self.unblock_refills(target);
        let lower = self.tcbs[target].priority < self.tcbs[t].priority;
        self.dequeue(target);
        if lower {
            self.enqueue(target, true);
            return Ok(Outcome::Word(self.take_consumed(sc)));
        }
        if let Some(earlier) = self.scheds[sc].yield_from.replace(t) {
            // Somebody else waits for the same answer: it gets it now.
            self.tcbs[earlier].yield_to = None;
            let used = self.take_consumed(sc);
            self.answer_yield(earlier, used);
        }
        self.tcbs[t].yield_to = Some(sc);
        self.enqueue(t, true);
        self.enqueue(target, true);
        self.reschedule();
        Ok(Outcome::Sent)
    }

    /// The caller of YieldTo goes on.
    pub(crate) fn complete_yield(&mut self, t: TcbId, sc: SchedContextId) {
        self.scheds[sc].yield_from = None;
        let used = self.take_consumed(sc);
        self.answer_yield(t, used);
    }

    fn answer_yield(&mut self, t: TcbId, used: u64) {
        self.set_mr(t, 0, used);
        let context = &mut self.tcbs[t].context;
        context.x[0] = 0;
        context.x[1] = MessageInfo::new(0, 1).0;
    }
}
