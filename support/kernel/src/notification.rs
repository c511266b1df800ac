//! Notifications (seL4 manual 5), bound ones, and the scheduling contexts they lend to passive threads.

use crate::hal::Hardware;
use crate::id::{NotificationId, TcbId};
use crate::kernel::Kernel;
use crate::object::State;

impl<H: Hardware> Kernel<'_, H> {
    /// Signals: wakes the bound thread if it receives, else one that waits, else the signal is kept.
    pub(crate) fn signal(&mut self, id: NotificationId, badge: u64) {
        let n = &mut self.notifications[id];
        if let Some(pending) = &mut n.pending {
            *pending |= badge;
        } else if let Some(t) = n.tcb
            && matches!(self.tcbs[t].state, State::Receiving { .. })
        {
            self.cancel_ipc(t);
            self.deliver(t, id, badge);
        } else if let Some(t) = n.queue.pop(&mut self.tcbs) {
            self.deliver(t, id, badge);
        } else {
            n.pending = Some(badge);
        }
    }

    fn deliver(&mut self, t: TcbId, id: NotificationId, badge: u64) {
        self.tcbs[t].context.set_badge(badge);
        self.set_state(t, State::Running);
        self.unblock_refills(t);
        self.lend_sched_context(t, id);
        self.wake(t);
    }

    /// Takes a pending signal.
    pub(crate) fn take_signal(&mut self, t: TcbId, id: NotificationId) {
        if let Some(badge) = self.notifications[id].pending.take() {
            self.tcbs[t].context.set_badge(badge);
            self.lend_sched_context(t, id);
        }
    }

    /// Waits for a signal.
    pub(crate) fn wait(&mut self, t: TcbId, id: NotificationId, blocking: bool) {
        if self.notifications[id].pending.is_some() {
            self.take_signal(t, id);
        } else if blocking {
            self.set_state(t, State::Waiting(id));
            self.return_sched_context(t, id);
            self.notifications[id].queue.push_by_priority(&mut self.tcbs, t);
        } else {
            self.tcbs[t].context.set_badge(0);
        }
    }

    /// A thread without a scheduling context runs on the notification's, if nobody else does.
    fn lend_sched_context(&mut self, t: TcbId, id: NotificationId) {
        if self.tcbs[t].sched_context.is_none()
            && let Some(sc) = self.notifications[id].sched_context
            && self.scheds[sc].tcb.is_none()
        {
            self.donate(sc, t);
            self.unblock_refills(t);
            self.resume_sched_context(sc);
        }
    }

    /// Before it blocks, a thread that runs on a notification's scheduling context gives it back.
    pub(crate) fn return_sched_context(&mut self, t: TcbId, id: NotificationId) {
        if let Some(sc) = self.notifications[id].sched_context
            && self.tcbs[t].sched_context == Some(sc)
        {
            self.tcbs[t].sched_context = None;
            self.scheds[sc].tcb = None;
            if self.sched.current == Some(t) {
                self.reschedule();
            }
        }
    }
}
