//! Invariants that hold after every kernel entry.

use super::system::TestKernel;
use crate::id::{Id, TcbId};
use crate::object::{Above, Queue, State};
use crate::queue::List;
use crate::sched::Action;

/// Walks a queue both ways.
fn members(k: &TestKernel, list: &List) -> Vec<TcbId> {
    let mut forward = Vec::new();
    let (mut at, mut before) = (list.head, None);
    while let Some(t) = at {
        assert_eq!(k.tcbs[t].prev, before, "back link of {t:?}");
        forward.push(t);
        assert!(forward.len() <= k.tcbs.len(), "a queue is a circle");
        (before, at) = (at, k.tcbs[t].next);
    }
    assert_eq!(list.tail, before, "tail");
    forward
}

/// Panics if something is inconsistent.
pub fn invariants(k: &TestKernel) {
    let mut queued = vec![0; k.tcbs.len()];
    let mut note = |t: TcbId| queued[t.index()] += 1;

    assert_eq!(k.sched.action, Action::Resume);
    let mut highest = None;
    for priority in 0..=255u8 {
        let (list, bit) = k.sched.ready(priority);
        let in_it = members(k, &list);
        assert_eq!(bit, !in_it.is_empty(), "bitmap of {priority}");
        for t in in_it {
            note(t);
            assert_eq!(k.tcbs[t].priority, priority);
            assert_eq!(k.tcbs[t].queue, Queue::Ready);
            assert!(k.tcbs[t].is_schedulable());
            highest = Some(priority);
        }
    }
    let waiting = members(k, &k.sched.release());
    let times: Vec<u64> = waiting
        .iter()
        .map(|t| k.scheds[k.tcbs[*t].sched_context.expect("postponed without a budget")].refills.head().time)
        .collect();
    assert!(times.is_sorted(), "release queue {times:?}");
    for t in waiting {
        note(t);
        assert_eq!(k.tcbs[t].queue, Queue::Release);
        assert!(k.tcbs[t].is_runnable());
    }
    for (id, e) in k.endpoints.iter() {
        let in_it = members(k, &e.queue);
        assert!(in_it.is_sorted_by_key(|t| std::cmp::Reverse(k.tcbs[*t].priority)), "order at {id:?}");
        for t in in_it {
            note(t);
            assert_eq!(k.tcbs[t].queue, Queue::Object);
            match k.tcbs[t].state {
                State::Receiving { endpoint, .. } => assert!(e.receiving && endpoint == id),
                State::Sending { endpoint, .. } => assert!(!e.receiving && endpoint == id),
                other => panic!("{t:?} is queued at {id:?} but {other:?}"),
            }
        }
    }
    for (id, n) in k.notifications.iter() {
        let in_it = members(k, &n.queue);
        assert!(in_it.is_empty() || n.pending.is_none());
        for t in in_it {
            note(t);
            assert_eq!((k.tcbs[t].queue, k.tcbs[t].state), (Queue::Object, State::Waiting(id)));
        }
        if let Some(t) = n.tcb {
            assert_eq!(k.tcbs[t].notification, Some(id));
        }
        if let Some(sc) = n.sched_context {
            assert_eq!(k.scheds[sc].notification, Some(id));
        }
    }
    for (id, t) in k.tcbs.iter() {
        assert_eq!(queued[id.index()], usize::from(t.queue != Queue::None), "{id:?} in {:?}", t.queue);
        let blocked = matches!(t.state, State::Receiving { .. } | State::Sending { .. } | State::Waiting(_));
        assert_eq!(t.queue == Queue::Object, blocked, "{id:?} {:?} {:?}", t.state, t.queue);
        if let Some(sc) = t.sched_context {
            assert_eq!(k.scheds[sc].tcb, Some(id));
        }
        if let Some(n) = t.notification {
            assert_eq!(k.notifications[n].tcb, Some(id));
        }
        if let State::Replying(r) = t.state {
            assert_eq!(k.replies[r].tcb, Some(id));
        }
        if let State::Receiving { reply: Some(r), .. } = t.state {
            assert_eq!(k.replies[r].tcb, Some(id));
        }
        if t.fault.is_some() {
            assert!(matches!(t.state, State::Sending { .. } | State::Replying(_)), "{id:?} {:?}", t.state);
        }
        if t.is_schedulable() && k.current() != Some(id) {
            assert_eq!(t.queue, Queue::Ready, "{id:?} is lost");
        }
        if let Some(sc) = t.yield_to {
            assert_eq!(k.scheds[sc].yield_from, Some(id));
        }
    }
    for (id, r) in k.replies.iter() {
        match r.tcb.map(|t| k.tcbs[t].state) {
            None => assert!(r.above == Above::Nothing && r.below.is_none()),
            Some(State::Replying(reply)) => assert_eq!(reply, id),
            Some(State::Receiving { reply, .. }) => {
                assert_eq!(reply, Some(id));
                assert!(r.above == Above::Nothing && r.below.is_none());
            }
            Some(other) => panic!("reply {id:?} holds a thread that is {other:?}"),
        }
        if let Some(b) = r.below {
            assert_eq!(k.replies[b].above, Above::Reply(id));
        }
        match r.above {
            Above::Reply(a) => assert_eq!(k.replies[a].below, Some(id)),
            Above::SchedContext(sc) => assert_eq!(k.scheds[sc].reply, Some(id)),
            Above::Nothing => {}
        }
    }
    for (id, sc) in k.scheds.iter() {
        if let Some(t) = sc.tcb {
            assert_eq!(k.tcbs[t].sched_context, Some(id));
        }
        if let Some(r) = sc.reply {
            assert_eq!(k.replies[r].above, Above::SchedContext(id));
        }
        let total: u64 = sc.refills.all().iter().map(|r| r.amount).sum();
        assert!(total <= sc.refills.budget());
        assert!(sc.refills.is_round_robin() || total == sc.refills.budget());
    }
    if let Some(c) = k.current() {
        let tcb = &k.tcbs[c];
        assert!(tcb.state == State::Running && tcb.queue == Queue::None);
        assert_eq!(k.sched.sched_context, tcb.sched_context);
        assert!(highest.is_none_or(|h| h <= tcb.priority), "a thread of priority {highest:?} is ready");
        let sc = &k.scheds[tcb.sched_context.expect("runs without a budget")];
        assert!(sc.refills.ready(k.sched.now) && sc.refills.sufficient(0));
        assert_eq!(k.hw.guest, tcb.vcpu.is_some());
        assert_eq!(k.hw.fpu_on, !tcb.fpu_disabled);
        assert_eq!(k.hw.loaded, Some(tcb.vspace));
    } else {
        assert_eq!(highest, None, "idle while somebody is ready");
        assert!(!k.hw.guest);
    }
    if let Some(v) = k.loaded_vcpu.vcpu {
        let runs = k.current().is_some_and(|c| k.tcbs[c].vcpu == Some(v));
        assert_eq!(k.loaded_vcpu.active, runs);
    }
    for (id, v) in k.vcpus.iter() {
        if let Some(t) = v.tcb {
            assert_eq!(k.tcbs[t].vcpu, Some(id));
        }
    }
}
