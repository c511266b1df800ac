//! The scheduler: 256 priorities, round robin within one, budgets (seL4 manual 6.1).
//!
//! A kernel entry only notes what should run next ([`Action`]); [`Kernel::schedule`] decides once, at its end. The current
//! thread is in no queue. Time used since the last switch is charged when the scheduling context changes or runs dry.

use crate::hal::Hardware;
use crate::id::{SchedContextId, TcbId};
use crate::kernel::{Kernel, ticks};
use crate::object::{Queue, State};
use crate::queue::List;

/// The kernel's worst-case execution time in microseconds; the smallest budget is twice that.
pub const WCET_US: u64 = 10;

/// What the end of this kernel entry is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Go on with the current thread.
    Resume,
    /// Choose from the ready queues.
    Choose,
    /// Switch to this thread unless a better one is ready.
    Switch(TcbId),
}

/// Queues and clocks.
pub struct Scheduler {
    ready: [List; 256],
    occupied: [u64; 4],
    release: List,
    /// What is to be done.
    pub action: Action,
    /// The thread that runs.
    pub current: Option<TcbId>,
    /// The scheduling context that is charged.
    pub sched_context: Option<SchedContextId>,
    /// Time of this kernel entry.
    pub now: u64,
    /// Ticks not charged yet.
    pub consumed: u64,
    /// The deadline has to be set again.
    pub reprogram: bool,
    /// Smallest budget in ticks.
    pub minimum: u64,
}

impl Scheduler {
    /// Nothing ready.
    pub fn new(now: u64, frequency: u64) -> Self {
        Scheduler {
            ready: [List::EMPTY; 256],
            occupied: [0; 4],
            release: List::EMPTY,
            action: Action::Choose,
            current: None,
            sched_context: None,
            now,
            consumed: 0,
            reprogram: true,
            minimum: ticks(2 * WCET_US, frequency),
        }
    }

    /// The greatest priority with a ready thread.
    fn highest(&self) -> Option<u8> {
        (0..4u8).rev().find_map(|i| {
            let word = self.occupied[usize::from(i)];
            (word != 0).then(|| i * 64 + (63 - word.leading_zeros()) as u8)
        })
    }

    /// Ready queue of a priority.
    #[cfg(test)]
    pub fn ready(&self, priority: u8) -> (List, bool) {
        let bit = self.occupied[usize::from(priority / 64)] >> (priority % 64) & 1;
        (self.ready[usize::from(priority)], bit != 0)
    }

    /// The queue of threads that wait for a refill.
    #[cfg(test)]
    pub fn release(&self) -> List {
        self.release
    }
}

impl<H: Hardware> Kernel<'_, H> {
    /// Puts a thread into its ready queue, if it may run and is in none.
    pub(crate) fn enqueue(&mut self, t: TcbId, front: bool) {
        let tcb = &self.tcbs[t];
        if tcb.queue != Queue::None || !tcb.is_schedulable() {
            return;
        }
        let priority = usize::from(tcb.priority);
        let list = &mut self.sched.ready[priority];
        if front {
            list.push_front(&mut self.tcbs, t, Queue::Ready);
        } else {
            list.push_back(&mut self.tcbs, t, Queue::Ready);
        }
        self.sched.occupied[priority / 64] |= 1 << (priority % 64);
    }

    /// Takes a thread out of the ready or release queue.
    pub(crate) fn dequeue(&mut self, t: TcbId) {
        match self.tcbs[t].queue {
            Queue::Ready => {
                let priority = usize::from(self.tcbs[t].priority);
                let list = &mut self.sched.ready[priority];
                list.remove(&mut self.tcbs, t);
                if list.is_empty() {
                    self.sched.occupied[priority / 64] &= !(1 << (priority % 64));
                }
            }
            Queue::Release => {
                if self.sched.release.head == Some(t) {
                    self.sched.reprogram = true;
                }
                self.sched.release.remove(&mut self.tcbs, t);
            }
            Queue::None | Queue::Object => {}
        }
    }

    /// Puts a thread without budget aside until its next refill.
    pub(crate) fn postpone(&mut self, sc: SchedContextId) {
        let Some(t) = self.scheds[sc].tcb else { return };
        self.dequeue(t);
        let time = self.scheds[sc].refills.head().time;
        let mut after = self.sched.release.tail;
        while let Some(a) = after
            && self.refill_time(a) > time
        {
            after = self.tcbs[a].prev;
        }
        self.sched.release.insert_after(&mut self.tcbs, after, t, Queue::Release);
        self.sched.reprogram = true;
    }

    fn refill_time(&self, t: TcbId) -> u64 {
        self.tcbs[t].sched_context.map_or(0, |sc| self.scheds[sc].refills.head().time)
    }

    /// Changes a thread's state; the current one gives way if it cannot go on.
    pub(crate) fn set_state(&mut self, t: TcbId, state: State) {
        self.tcbs[t].state = state;
        if self.sched.current == Some(t)
            && self.sched.action == Action::Resume
            && !self.tcbs[t].is_schedulable()
        {
            self.sched.action = Action::Choose;
        }
    }

    /// The choice has to be made again.
    pub(crate) fn reschedule(&mut self) {
        if let Action::Switch(t) = self.sched.action {
            self.enqueue(t, true);
        }
        self.sched.action = Action::Choose;
    }

    /// A thread has become ready: it may be the next to run.
    pub(crate) fn possible_switch(&mut self, t: TcbId) {
        if !self.tcbs[t].is_schedulable() {
            return;
        }
        if self.sched.action == Action::Resume {
            self.sched.action = Action::Switch(t);
        } else {
            self.reschedule();
            self.enqueue(t, true);
        }
    }

    /// Takes the time.
    pub(crate) fn update_time(&mut self) {
        let now = self.hw.now();
        self.sched.consumed += now.saturating_sub(self.sched.now);
        self.sched.now = now;
    }

    /// Whether the current scheduling context may go on; if not, it is charged and its thread waits or queues up.
    pub(crate) fn check_budget(&mut self) -> bool {
        let Some(sc) = self.sched.sched_context else {
            self.sched.consumed = 0;
            return true;
        };
        if self.scheds[sc].refills.sufficient(self.sched.consumed) {
            return true;
        }
        self.charge_budget(self.sched.consumed, true);
        false
    }

    /// The same at a system call or fault, which is executed again when there is budget.
    pub(crate) fn has_budget_or_restart(&mut self) -> bool {
        let enough = self.check_budget();
        if !enough
            && let Some(t) = self.sched.current
            && self.tcbs[t].is_runnable()
        {
            self.set_state(t, State::Restart);
        }
        enough
    }

    /// Charges a budget that is used up, and ends the time slice.
    fn charge_budget(&mut self, used: u64, may_fault: bool) {
        if let Some(sc) = self.sched.sched_context {
            let sc = &mut self.scheds[sc];
            sc.refills.use_up(used);
            sc.consumed += used;
        }
        self.sched.consumed = 0;
        if let Some(t) = self.sched.current
            && self.tcbs[t].is_schedulable()
        {
            self.end_slice(t, may_fault);
            self.reschedule();
            self.sched.reprogram = true;
        }
    }

    fn end_slice(&mut self, t: TcbId, may_fault: bool) {
        let Some(id) = self.tcbs[t].sched_context else { return };
        let sc = &self.scheds[id];
        if may_fault && !sc.refills.is_round_robin() && self.tcbs[t].timeout_handler.is_some() {
            self.timeout(t);
        } else if sc.refills.ready(self.sched.now) && sc.refills.sufficient(0) {
            self.enqueue(t, false);
        } else {
            self.postpone(id);
        }
    }

    /// Yield: the rest of the current refill is given away, but not counted as used.
    pub(crate) fn yield_budget(&mut self) {
        let Some(id) = self.sched.sched_context else { return };
        let used = self.scheds[id].consumed + self.sched.consumed;
        let rest = self.scheds[id].refills.head().amount;
        self.charge_budget(rest, false);
        self.scheds[id].consumed = used;
    }

    /// A scheduling context's thread may have become ready: it waits if there is no budget yet.
    pub(crate) fn resume_sched_context(&mut self, id: SchedContextId) {
        let sc = &self.scheds[id];
        if let Some(t) = sc.tcb
            && self.tcbs[t].is_schedulable()
            && !(sc.refills.ready(self.sched.now) && sc.refills.sufficient(0))
        {
            self.postpone(id);
        }
    }

    /// Time that passed while a thread did not run is not saved up.
    pub(crate) fn unblock_refills(&mut self, t: TcbId) {
        if let Some(id) = self.tcbs[t].sched_context
            && self.sched.sched_context != Some(id)
        {
            self.scheds[id].refills.unblock(self.sched.now);
        }
    }

    /// Threads whose refill is due become ready.
    fn awaken(&mut self) {
        while let Some(t) = self.sched.release.head
            && self.tcbs[t].sched_context.is_none_or(|sc| self.scheds[sc].refills.ready(self.sched.now))
        {
            self.dequeue(t);
            self.possible_switch(t);
            self.sched.reprogram = true;
        }
    }

    /// The end of a kernel entry: chooses the thread to run, and lets it.
    pub(crate) fn schedule(&mut self) {
        self.awaken();
        if self.sched.action != Action::Resume {
            self.choose();
            self.sched.action = Action::Resume;
        }
        self.switch_sched_context();
        if self.sched.reprogram {
            self.set_deadline();
            self.sched.reprogram = false;
        }
        self.activate();
    }

    fn choose(&mut self) {
        let current = self.sched.current;
        let was_runnable = current.is_some_and(|t| self.tcbs[t].is_schedulable());
        if let Some(t) = current {
            self.enqueue(t, true);
        }
        if let Action::Switch(t) = self.sched.action {
            if !self.tcbs[t].is_schedulable() {
                // It lost its scheduling context since it was noted.
            } else if let Some(c) = current
                && was_runnable
                && self.tcbs[c].priority == self.tcbs[t].priority
            {
                self.enqueue(t, false);
            } else {
                self.enqueue(t, true);
            }
        }
        self.sched.current = self.sched.highest().and_then(|p| self.sched.ready[usize::from(p)].head);
        if let Some(t) = self.sched.current {
            self.dequeue(t);
        }
    }

    /// Charges the scheduling context that ran if another one is to run.
    fn switch_sched_context(&mut self) {
        let next = self.sched.current.and_then(|t| self.tcbs[t].sched_context);
        if self.sched.sched_context == next && !self.sched.reprogram {
            return;
        }
        if self.sched.sched_context != next {
            self.sched.reprogram = true;
            if let Some(n) = next {
                self.scheds[n].refills.unblock(self.sched.now);
            }
        }
        self.commit_time();
        self.sched.sched_context = next;
    }

    /// Charges what was used so far.
    pub(crate) fn commit_time(&mut self) {
        let used = core::mem::take(&mut self.sched.consumed);
        if let Some(id) = self.sched.sched_context
            && used > 0
        {
            let sc = &mut self.scheds[id];
            sc.refills.use_part(used);
            sc.consumed += used;
        }
    }

    fn set_deadline(&mut self) {
        let slice = self
            .sched
            .sched_context
            .map(|sc| self.sched.now.saturating_add(self.scheds[sc].refills.head().amount));
        let release = self.sched.release.head.map(|t| self.refill_time(t));
        let deadline = match (slice, release) {
            (Some(a), Some(b)) => a.min(b),
            (Some(a), None) | (None, Some(a)) => a,
            (None, None) => u64::MAX,
        };
        self.hw.set_deadline(deadline);
    }

    /// The chosen thread goes on.
    fn activate(&mut self) {
        let Some(t) = self.sched.current else { return };
        if let Some(sc) = self.tcbs[t].yield_to.take() {
            self.complete_yield(t, sc);
        }
        let tcb = &mut self.tcbs[t];
        if tcb.state == State::Restart {
            tcb.context.pc = tcb.context.fault_ip;
            tcb.state = State::Running;
        }
    }

    /// Changes a priority. A waiting thread moves within its queue, a ready one goes to the end of its new one.
    pub(crate) fn set_priority(&mut self, t: TcbId, priority: u8) {
        match self.tcbs[t].queue {
            Queue::Ready => {
                self.dequeue(t);
                self.tcbs[t].priority = priority;
                self.enqueue(t, true);
                self.reschedule();
            }
            Queue::Object => {
                self.with_object_queue(t, |list, tcbs| {
                    list.remove(tcbs, t);
                    tcbs[t].priority = priority;
                    list.push_by_priority(tcbs, t);
                });
                self.tcbs[t].priority = priority;
            }
            Queue::None | Queue::Release => {
                self.tcbs[t].priority = priority;
                if self.sched.current == Some(t) || self.sched.action == Action::Switch(t) {
                    self.reschedule();
                }
            }
        }
    }
}
