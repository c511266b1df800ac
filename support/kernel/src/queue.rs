//! Doubly linked thread queues; the links are in the threads, so a thread is in at most one.

use crate::id::{Table, TcbId};
use crate::object::{Queue, Tcb};

type Tcbs<'a> = Table<'a, TcbId, Tcb>;

/// A queue.
#[derive(Clone, Copy, Debug, Default)]
pub struct List {
    /// First thread.
    pub head: Option<TcbId>,
    /// Last thread.
    pub tail: Option<TcbId>,
}

impl List {
    /// An empty queue.
    pub const EMPTY: List = List { head: None, tail: None };

    /// Whether nobody is in it.
    pub fn is_empty(&self) -> bool {
        self.head.is_none()
    }

    /// Puts a thread that is in no queue in front.
    pub fn push_front(&mut self, tcbs: &mut Tcbs, t: TcbId, queue: Queue) {
        self.insert_after(tcbs, None, t, queue);
    }

    /// Puts a thread that is in no queue at the end.
    pub fn push_back(&mut self, tcbs: &mut Tcbs, t: TcbId, queue: Queue) {
        self.insert_after(tcbs, self.tail, t, queue);
    }

    /// Puts a thread that is in no queue behind those of the same or a higher priority.
    pub fn push_by_priority(&mut self, tcbs: &mut Tcbs, t: TcbId) {
        let priority = tcbs[t].priority;
        let mut after = self.tail;
        while let Some(a) = after
            && tcbs[a].priority < priority
        {
            after = tcbs[a].prev;
        }
        self.insert_after(tcbs, after, t, Queue::Object);
    }

    /// Puts a thread that is in no queue behind `after`, or in front.
    pub fn insert_after(&mut self, tcbs: &mut Tcbs, after: Option<TcbId>, t: TcbId, queue: Queue) {
        let next = match after {
            Some(a) => tcbs[a].next.replace(t),
            None => self.head.replace(t),
        };
        match next {
            Some(n) => tcbs[n].prev = Some(t),
            None => self.tail = Some(t),
        }
        let tcb = &mut tcbs[t];
        debug_assert!(tcb.queue == Queue::None);
        tcb.prev = after;
        tcb.next = next;
        tcb.queue = queue;
    }

    /// Takes a thread out that is in this queue.
    pub fn remove(&mut self, tcbs: &mut Tcbs, t: TcbId) {
        let tcb = &mut tcbs[t];
        debug_assert!(tcb.queue != Queue::None);
        let (prev, next) = (tcb.prev.take(), tcb.next.take());
        tcb.queue = Queue::None;
        match prev {
            Some(p) => tcbs[p].next = next,
            None => self.head = next,
        }
        match next {
            Some(n) => tcbs[n].prev = prev,
            None => self.tail = prev,
        }
    }

    /// Takes the first thread out.
    pub fn pop(&mut self, tcbs: &mut Tcbs) -> Option<TcbId> {
        let t = self.head?;
        self.remove(tcbs, t);
        Some(t)
    }
}
