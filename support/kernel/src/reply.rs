//! Reply objects, call chains and the donation of scheduling contexts (seL4 manual 4.3, 6.1.6).
//!
//! A scheduling context that was donated over calls knows the latest one; each reply object knows the one below it. When
//! a reply is sent through the latest, the scheduling context goes back to that caller. A caller that goes away earlier
//! cuts the chain.

use crate::fault::Fault;
use crate::hal::Hardware;
use crate::id::{ReplyId, SchedContextId, TcbId};
use crate::kernel::Kernel;
use crate::object::{Above, State};

impl<H: Hardware> Kernel<'_, H> {
    /// `caller` waits for a reply from `callee` through `reply`, and lends its scheduling context if wanted.
    pub(crate) fn push_reply(&mut self, caller: TcbId, callee: TcbId, reply: ReplyId, donate: bool) {
        self.replies[reply].tcb = Some(caller);
        let sc = self.tcbs[caller].sched_context;
        self.set_state(caller, State::Replying(reply));
        if donate
            && self.tcbs[callee].sched_context.is_none()
            && let Some(sc) = sc
        {
            let below = self.scheds[sc].reply.replace(reply);
            if let Some(b) = below {
                self.replies[b].above = Above::Reply(reply);
            }
            self.replies[reply].below = below;
            self.replies[reply].above = Above::SchedContext(sc);
            self.donate(sc, callee);
        }
    }

    /// Moves a scheduling context to another thread.
    pub(crate) fn donate(&mut self, sc: SchedContextId, to: TcbId) {
        if let Some(from) = self.scheds[sc].tcb {
            self.dequeue(from);
            self.tcbs[from].sched_context = None;
            if self.sched.current == Some(from) || self.sched.action == crate::sched::Action::Switch(from) {
                self.reschedule();
            }
        }
        self.scheds[sc].tcb = Some(to);
        self.tcbs[to].sched_context = Some(sc);
    }

    /// Replies to the caller that `reply` holds, if any.
    pub(crate) fn reply(&mut self, sender: TcbId, reply: ReplyId) {
        let Some(receiver) = self.replies[reply].tcb else { return };
        if self.tcbs[receiver].state != State::Replying(reply) {
            return;
        }
        self.pop_reply(reply, receiver);
        self.unblock_refills(receiver);
        let fault = self.tcbs[receiver].fault.take();
        match fault {
            None => {
                self.transfer(sender, None, 0, true, receiver);
                self.set_state(receiver, State::Running);
            }
            Some(fault) => {
                let next = if self.answer_fault(sender, receiver, &fault) {
                    State::Restart
                } else {
                    State::Inactive
                };
                self.set_state(receiver, next);
            }
        }
        let tcb = &self.tcbs[receiver];
        let Some(id) = tcb.sched_context else { return };
        if !tcb.is_runnable() {
            return;
        }
        let refills = &self.scheds[id].refills;
        if refills.ready(self.sched.now) && refills.sufficient(0) {
            self.possible_switch(receiver);
        } else if tcb.timeout_handler.is_some() && !matches!(fault, Some(Fault::Timeout { .. })) {
            self.timeout(receiver);
        } else {
            self.postpone(id);
        }
    }

    /// Writes a fault's answer into the thread's registers; whether it goes on.
    fn answer_fault(&mut self, sender: TcbId, receiver: TcbId, fault: &Fault) -> bool {
        let info = crate::abi::MessageInfo(self.tcbs[sender].context.x[1]);
        let length = self.places(sender, info.length()).min(fault.reply_words());
        let vm = self.tcbs[receiver].vcpu.is_some();
        for i in 0..length {
            let value = self.mr(sender, i);
            fault.set_reply_word(&mut self.tcbs[receiver].context, i, value, vm);
        }
        fault.restarts(info.label())
    }

    /// Takes a reply object out of its chain because the reply is sent; the scheduling context goes back.
    fn pop_reply(&mut self, reply: ReplyId, caller: TcbId) {
        let r = core::mem::take(&mut self.replies[reply]);
        match r.above {
            Above::SchedContext(sc) => {
                self.scheds[sc].reply = r.below;
                if let Some(b) = r.below {
                    self.replies[b].above = Above::SchedContext(sc);
                }
                if self.tcbs[caller].sched_context.is_none() {
                    self.donate(sc, caller);
                }
            }
            Above::Reply(above) => {
                self.replies[above].below = r.below;
                if let Some(b) = r.below {
                    self.replies[b].above = r.above;
                }
            }
            Above::Nothing => {
                if let Some(b) = r.below {
                    self.replies[b].above = Above::Nothing;
                }
            }
        }
    }

    /// Takes a reply object out of its chain because the caller goes away: the chain is cut there.
    pub(crate) fn cut_reply(&mut self, reply: ReplyId) {
        let r = core::mem::take(&mut self.replies[reply]);
        match r.above {
            Above::SchedContext(sc) => self.scheds[sc].reply = None,
            Above::Reply(above) => self.replies[above].below = None,
            Above::Nothing => {}
        }
        if let Some(b) = r.below {
            self.replies[b].above = Above::Nothing;
        }
    }
}
