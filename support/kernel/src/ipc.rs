//! Messages over endpoints (seL4 manual 4).

use crate::abi::{MessageInfo, REGISTERS, buffer};
use crate::cspace::word_address;
use crate::fault::Fault;
use crate::hal::Hardware;
use crate::id::{EndpointId, ReplyId, Table, TcbId};
use crate::kernel::Kernel;
use crate::object::{Cap, EndpointCap, Queue, State, Tcb};
use crate::queue::List;

impl<H: Hardware> Kernel<'_, H> {
    /// Sends the message in `sender`'s registers, or its fault.
    pub(crate) fn send(&mut self, sender: TcbId, cap: EndpointCap, blocking: bool, call: bool, donate: bool) {
        let endpoint = &mut self.endpoints[cap.id];
        if !endpoint.receiving || endpoint.queue.is_empty() {
            if blocking {
                self.set_state(
                    sender,
                    State::Sending { endpoint: cap.id, badge: cap.badge, rights: cap.rights, call },
                );
                self.endpoints[cap.id].receiving = false;
                self.queue_on_endpoint(cap.id, sender);
            }
            return;
        }
        let Some(receiver) = endpoint.queue.pop(&mut self.tcbs) else { return };
        self.transfer(sender, Some(cap.id), cap.badge, cap.rights.grant(), receiver);
        let reply = self.unlink_receiver(receiver);
        if call || self.tcbs[sender].fault.is_some() {
            match reply {
                Some(reply) if cap.rights.grant() || cap.rights.grant_reply() => {
                    self.push_reply(sender, receiver, reply, donate);
                }
                _ => self.give_up(sender),
            }
        } else if donate
            && self.tcbs[receiver].sched_context.is_none()
            && let Some(sc) = self.tcbs[sender].sched_context
        {
            self.donate(sc, receiver);
        }
        self.unblock_refills(receiver);
        self.set_state(receiver, State::Running);
        self.wake(receiver);
    }

    /// Receives into `receiver`'s registers.
    pub(crate) fn receive(
        &mut self,
        receiver: TcbId,
        id: EndpointId,
        reply: Option<ReplyId>,
        blocking: bool,
    ) {
        if let Some(r) = reply
            && let Some(held) = self.replies[r].tcb
            && held != receiver
        {
            self.cancel_ipc(held);
            self.set_state(held, State::Inactive);
        }
        if let Some(n) = self.tcbs[receiver].notification {
            if self.notifications[n].pending.is_some() {
                self.take_signal(receiver, n);
                return;
            }
            if blocking {
                self.return_sched_context(receiver, n);
            }
        }
        let endpoint = &mut self.endpoints[id];
        if endpoint.receiving || endpoint.queue.is_empty() {
            if blocking {
                endpoint.receiving = true;
                if let Some(r) = reply {
                    self.replies[r].tcb = Some(receiver);
                }
                self.set_state(receiver, State::Receiving { endpoint: id, reply });
                self.queue_on_endpoint(id, receiver);
            } else {
                self.tcbs[receiver].context.set_badge(0);
            }
            return;
        }
        let Some(sender) = endpoint.queue.pop(&mut self.tcbs) else { return };
        let State::Sending { badge, rights, call, .. } = self.tcbs[sender].state else { return };
        self.transfer(sender, Some(id), badge, rights.grant(), receiver);
        self.unblock_refills(sender);
        let fault = self.tcbs[sender].fault;
        if call || fault.is_some() {
            match reply {
                Some(r) if rights.grant() || rights.grant_reply() => {
                    let donate = !matches!(fault, Some(Fault::Timeout { .. }));
                    self.push_reply(sender, receiver, r, donate);
                }
                _ => self.give_up(sender),
            }
        } else {
            self.set_state(sender, State::Running);
            self.wake(sender);
        }
    }

    /// A caller that cannot get a reply, because the receiver has no reply object or the capability does not allow it.
    fn give_up(&mut self, caller: TcbId) {
        self.tcbs[caller].fault = None;
        self.set_state(caller, State::Inactive);
    }

    /// A thread that was blocked goes on, as soon as its budget allows.
    pub(crate) fn wake(&mut self, t: TcbId) {
        if let Some(sc) = self.tcbs[t].sched_context {
            self.resume_sched_context(sc);
        }
        self.possible_switch(t);
    }

    fn queue_on_endpoint(&mut self, id: EndpointId, t: TcbId) {
        self.endpoints[id].queue.push_by_priority(&mut self.tcbs, t);
    }

    /// Takes the reply object away from a thread that was receiving with it.
    fn unlink_receiver(&mut self, receiver: TcbId) -> Option<ReplyId> {
        let State::Receiving { reply, .. } = self.tcbs[receiver].state else { return None };
        if let Some(r) = reply {
            self.replies[r].tcb = None;
        }
        reply
    }

    /// Copies a message or a fault.
    pub(crate) fn transfer(
        &mut self,
        sender: TcbId,
        endpoint: Option<EndpointId>,
        badge: u64,
        grant: bool,
        receiver: TcbId,
    ) {
        let info = match self.tcbs[sender].fault {
            None => self.transfer_message(sender, endpoint, grant, receiver),
            Some(fault) => self.transfer_fault(sender, fault, receiver),
        };
        let context = &mut self.tcbs[receiver].context;
        context.x[1] = info.0;
        context.x[0] = badge;
    }

    fn transfer_message(
        &mut self,
        sender: TcbId,
        endpoint: Option<EndpointId>,
        grant: bool,
        receiver: TcbId,
    ) -> MessageInfo {
        let info = MessageInfo(self.tcbs[sender].context.x[1]);
        let mut length = info.length();
        let [_, _, m0, m1, m2, m3, ..] = self.tcbs[sender].context.x;
        let [_, _, registers @ ..] = &mut self.tcbs[receiver].context.x;
        for (register, word) in registers.iter_mut().zip([m0, m1, m2, m3]).take(length) {
            *register = word;
        }
        if length > REGISTERS {
            match (self.tcbs[sender].buffer, self.tcbs[receiver].buffer) {
                (Some(from), Some(to)) => {
                    for i in REGISTERS..length {
                        let word = self.hw.read(word_address(from, buffer::MESSAGE + i));
                        self.hw.write(word_address(to, buffer::MESSAGE + i), word);
                    }
                }
                _ => length = REGISTERS,
            }
        }
        let (extra, unwrapped) = match info.extra_caps() {
            0 => (0, 0),
            n if grant => self.unwrap_caps(sender, endpoint, n, receiver),
            _ => (0, 0),
        };
        info.delivered(length, extra, unwrapped)
    }

    /// Extra capabilities to the endpoint the message goes through arrive as badges. Others would need a receive slot,
    /// which needs a CNode capability, which no thread here has: they end the transfer.
    fn unwrap_caps(
        &mut self,
        sender: TcbId,
        endpoint: Option<EndpointId>,
        count: usize,
        receiver: TcbId,
    ) -> (u64, u64) {
        let Some(to) = self.tcbs[receiver].buffer else { return (0, 0) };
        let mut badges = [0; 3];
        let mut found = 0;
        for (i, badge) in badges.iter_mut().enumerate().take(count) {
            match self.lookup(sender, self.extra_pointer(sender, i)) {
                Ok(&Cap::Endpoint(cap)) if Some(cap.id) == endpoint && found == i => {
                    *badge = cap.badge;
                    found = i + 1;
                }
                Ok(_) => {}
                Err(_) => return (0, 0),
            }
        }
        for (i, badge) in badges.iter().enumerate().take(found) {
            self.hw.write(word_address(to, buffer::CAPS + i), *badge);
        }
        (found as u64, (1 << found) - 1)
    }

    fn transfer_fault(&mut self, sender: TcbId, fault: Fault, receiver: TcbId) -> MessageInfo {
        let message = fault.message(&self.tcbs[sender].context);
        let length = self.places(receiver, message.length);
        for (i, word) in message.words.iter().enumerate().take(length) {
            self.set_mr(receiver, i, *word);
        }
        MessageInfo::new(message.label, length)
    }

    /// Sends a thread's fault to its handler, or stops it.
    pub(crate) fn send_fault(&mut self, t: TcbId, fault: Fault, handler: Option<EndpointCap>) {
        // It may have been put into a queue when its budget ended in this same kernel entry.
        self.dequeue(t);
        match handler {
            Some(cap) => {
                self.tcbs[t].fault = Some(fault);
                let donate = self.tcbs[t].sched_context.is_some() && !matches!(fault, Fault::Timeout { .. });
                self.send(t, cap, true, false, donate);
            }
            None => {
                self.report_unhandled(t, &fault);
                self.set_state(t, State::Inactive);
            }
        }
    }

    /// The current budget is used up and somebody wants to know.
    pub(crate) fn timeout(&mut self, t: TcbId) {
        let Some(id) = self.tcbs[t].sched_context else { return };
        let used = core::mem::take(&mut self.scheds[id].consumed);
        let fault = Fault::Timeout { badge: self.scheds[id].badge, consumed: self.micros(used) };
        let handler = self.tcbs[t].timeout_handler;
        self.send_fault(t, fault, handler);
    }

    /// Takes a thread out of whatever it waits for.
    pub(crate) fn cancel_ipc(&mut self, t: TcbId) {
        match self.tcbs[t].state {
            State::Receiving { .. } => {
                self.leave_object_queue(t);
                self.unlink_receiver(t);
            }
            State::Sending { .. } | State::Waiting(_) => self.leave_object_queue(t),
            State::Replying(reply) => self.cut_reply(reply),
            State::Inactive | State::Running | State::Restart => {}
        }
        if !self.tcbs[t].is_runnable() {
            self.tcbs[t].fault = None;
            self.tcbs[t].state = State::Inactive;
        }
    }

    fn leave_object_queue(&mut self, t: TcbId) {
        if self.tcbs[t].queue == Queue::Object {
            self.with_object_queue(t, |list, tcbs| list.remove(tcbs, t));
        }
    }

    /// The endpoint's or notification's queue a thread is in.
    pub(crate) fn with_object_queue(
        &mut self,
        t: TcbId,
        f: impl FnOnce(&mut List, &mut Table<'_, TcbId, Tcb>),
    ) {
        match self.tcbs[t].state {
            State::Receiving { endpoint, .. } | State::Sending { endpoint, .. } => {
                f(&mut self.endpoints[endpoint].queue, &mut self.tcbs);
            }
            State::Waiting(n) => f(&mut self.notifications[n].queue, &mut self.tcbs),
            _ => {}
        }
    }
}
