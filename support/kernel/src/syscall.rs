//! System calls (seL4 manual 10.1): a send half, a receive half, or both.

use crate::abi::{Error, MessageInfo, syscall};
use crate::fault::{Fault, Lookup};
use crate::hal::Hardware;
use crate::id::TcbId;
use crate::kernel::Kernel;
use crate::object::{Cap, State};

/// How the send half was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manner {
    /// Wants a reply.
    pub call: bool,
    /// May wait for a receiver.
    pub blocking: bool,
    /// May lend the scheduling context.
    pub donate: bool,
    /// A receive half follows: thread and scheduling context invocations are refused.
    pub first: bool,
}

const CALL: Manner = Manner { call: true, blocking: true, donate: true, first: false };
const SEND: Manner = Manner { call: false, blocking: true, donate: false, first: false };
const NB_SEND: Manner = Manner { call: false, blocking: false, donate: false, first: false };
const FIRST: Manner = Manner { call: false, blocking: false, donate: true, first: true };

/// What an invocation answers: message registers, or the rest is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Success; the caller gets an empty reply.
    Done,
    /// Success; the caller gets one word.
    Word(u64),
    /// Success; the caller gets these words, which are in its message registers already.
    Words(usize),
    /// It was a message: nothing to answer.
    Sent,
}

impl<H: Hardware> Kernel<'_, H> {
    /// A system call of the current thread.
    pub(crate) fn syscall(&mut self, t: TcbId, number: i64) {
        let [x0, _, _, _, _, _, x6, _, x8, ..] = self.tcbs[t].context.x;
        match number {
            syscall::CALL => {
                self.invoke_and_answer(t, x0, CALL);
            }
            syscall::SEND => {
                self.invoke_and_answer(t, x0, SEND);
            }
            syscall::NB_SEND => {
                self.invoke_and_answer(t, x0, NB_SEND);
            }
            syscall::REPLY_RECV => {
                self.invoke_and_answer(t, x6, FIRST);
                self.receive_half(t, x0, true, Some(x6));
            }
            syscall::NB_SEND_RECV => {
                self.invoke_and_answer(t, x8, FIRST);
                self.receive_half(t, x0, true, Some(x6));
            }
            syscall::NB_SEND_WAIT => {
                self.invoke_and_answer(t, x6, FIRST);
                self.receive_half(t, x0, true, None);
            }
            syscall::RECV => self.receive_half(t, x0, true, Some(x6)),
            syscall::NB_RECV => self.receive_half(t, x0, false, Some(x6)),
            syscall::WAIT => self.receive_half(t, x0, true, None),
            syscall::NB_WAIT => self.receive_half(t, x0, false, None),
            syscall::YIELD => self.yield_budget(),
            _ => self.fault(Fault::UnknownSyscall),
        }
    }

    fn invoke_and_answer(&mut self, t: TcbId, pointer: u64, manner: Manner) {
        let info = MessageInfo(self.tcbs[t].context.x[1]);
        let cap = match self.lookup(t, pointer) {
            Ok(cap) => cap,
            Err(lookup) => return self.send_half_fails(pointer, lookup, manner),
        };
        if info.extra_caps() != 0
            && let Err((pointer, lookup)) = self.check_extra_caps(t, info)
        {
            return self.send_half_fails(pointer, lookup, manner);
        }
        let result = self.invoke(t, cap, info, manner);
        if !manner.call {
            return;
        }
        let info = match result {
            Ok(Outcome::Sent) => return,
            Ok(Outcome::Done) => MessageInfo::new(0, 0),
            Ok(Outcome::Word(word)) => {
                self.set_mr(t, 0, word);
                MessageInfo::new(0, 1)
            }
            Ok(Outcome::Words(length)) => MessageInfo::new(0, length),
            Err(error) => {
                let (label, words, length) = error.message();
                for (i, word) in words.iter().enumerate().take(length) {
                    self.set_mr(t, i, *word);
                }
                MessageInfo::new(label, length)
            }
        };
        let context = &mut self.tcbs[t].context;
        context.x[1] = info.0;
        context.x[0] = 0;
    }

    /// No capability is there: a fault, unless the caller does not mind.
    fn send_half_fails(&mut self, pointer: u64, lookup: Lookup, manner: Manner) {
        if manner.blocking {
            self.fault(Fault::Cap { pointer, receiving: false, lookup });
        }
    }

    /// Every extra capability pointer has to name a slot, even if nothing will look at it.
    fn check_extra_caps(&self, t: TcbId, info: MessageInfo) -> Result<(), (u64, Lookup)> {
        if self.tcbs[t].buffer.is_none() {
            return Ok(());
        }
        for i in 0..info.extra_caps() {
            let pointer = self.extra_pointer(t, i);
            self.lookup(t, pointer).map_err(|lookup| (pointer, lookup))?;
        }
        Ok(())
    }

    /// The receive half. `reply`: pointer to the reply object, if one is used.
    fn receive_half(&mut self, t: TcbId, pointer: u64, blocking: bool, reply: Option<u64>) {
        let missing = Lookup::Missing { left: 0 };
        let cap = match self.lookup(t, pointer) {
            Ok(cap) => cap,
            Err(lookup) => return self.fault(Fault::Cap { pointer, receiving: true, lookup }),
        };
        match *cap {
            Cap::Endpoint(cap) if cap.rights.read() => {
                let reply = match reply {
                    None => None,
                    Some(pointer) => match self.lookup(t, pointer) {
                        Ok(&Cap::Reply(reply)) => Some(reply),
                        other => {
                            let lookup = other.err().unwrap_or(missing);
                            return self.fault(Fault::Cap { pointer, receiving: true, lookup });
                        }
                    },
                };
                self.receive(t, cap.id, reply, blocking);
            }
            Cap::Notification(cap)
                if cap.rights.read() && self.notifications[cap.id].tcb.is_none_or(|bound| bound == t) =>
            {
                self.wait(t, cap.id, blocking);
            }
            _ => self.fault(Fault::Cap { pointer, receiving: true, lookup: missing }),
        }
    }

    /// Performs what a capability allows.
    #[inline(always)]
    fn invoke(&mut self, t: TcbId, cap: &Cap, info: MessageInfo, manner: Manner) -> Result<Outcome, Error> {
        match *cap {
            Cap::Endpoint(cap) => {
                if !cap.rights.write() {
                    return Err(Error::InvalidCapability(0));
                }
                self.send(t, cap, manner.blocking, manner.call, manner.donate);
                Ok(Outcome::Sent)
            }
            Cap::Notification(cap) => {
                if !cap.rights.write() {
                    return Err(Error::InvalidCapability(0));
                }
                self.signal(cap.id, cap.badge);
                Ok(Outcome::Done)
            }
            Cap::Reply(reply) => {
                self.reply(t, reply);
                Ok(Outcome::Done)
            }
            Cap::Irq(irq) => self.invoke_irq(t, irq, info),
            Cap::Vcpu(vcpu) => self.invoke_vcpu(t, vcpu, info),
            Cap::Tcb(_) | Cap::SchedContext(_) if manner.first => Err(Error::InvalidCapability(0)),
            Cap::Tcb(target) => self.invoke_tcb(t, target, info),
            Cap::SchedContext(sc) => self.invoke_sched_context(t, sc, info),
            Cap::VSpace(vspace) => self.invoke_vspace(t, vspace, info),
            Cap::Smc(function) => self.invoke_smc(t, function, info),
            Cap::CNode(..) => Err(Error::IllegalOperation),
            Cap::Null => Err(Error::InvalidCapability(0)),
        }
    }

    /// Makes a thread go on from where it entered the kernel, whatever it waited for.
    pub(crate) fn resume(&mut self, t: TcbId) {
        if self.tcbs[t].is_runnable() {
            return;
        }
        self.cancel_ipc(t);
        self.set_state(t, State::Restart);
        self.unblock_refills(t);
        self.wake(t);
    }

    /// Stops a thread.
    pub(crate) fn suspend(&mut self, t: TcbId) {
        self.cancel_ipc(t);
        let tcb = &mut self.tcbs[t];
        if tcb.state == State::Running {
            tcb.context.fault_ip = tcb.context.pc;
        }
        self.dequeue(t);
        self.set_state(t, State::Inactive);
        if let Some(sc) = self.tcbs[t].yield_to.take() {
            self.scheds[sc].yield_from = None;
        }
    }
}
