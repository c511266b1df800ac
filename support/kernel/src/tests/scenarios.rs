//! What the manual promises, one scenario each.

use super::check::invariants;
use super::system::{Builder, Call, TestKernel, client_and_server};
use crate::abi::{Invocation, MessageInfo, buffer, invocations, syscall};
use crate::fault::Fault;
use crate::hal::CacheOp;
use crate::image::{self, cap};
use crate::object::State;

const SERVER: u32 = 0;
const CLIENT: u32 = 1;

fn label(name: &str) -> u64 {
    let label = invocations(crate::abi::BUILD).find(|(n, _)| *n == name).unwrap().1;
    assert!(Invocation::decode(label).is_some());
    label
}

fn recv() -> Call {
    Call::new(syscall::RECV, 1).reply(2)
}

/// Both have started, the server waits at its endpoint, the client runs.
fn ready(b: &Builder) -> TestKernel {
    let mut k = b.boot();
    assert_eq!(k.runs(), Some(0));
    k.call(recv());
    assert_eq!(k.runs(), Some(1));
    k
}

#[test]
fn call_and_reply() {
    let mut k = ready(&client_and_server());
    k.call(Call::new(syscall::CALL, 1).info(0xabc, 6).mrs(&[1, 2, 3, 4]));
    invariants(&k);
    assert_eq!(k.runs(), Some(0));
    assert_eq!(k.received(SERVER), (0x77, 0xabc, [1, 2, 3, 4]));
    assert!(matches!(k.state(CLIENT), State::Replying(_)));
    k.set_buffer(SERVER, buffer::MESSAGE + 4, 99);
    k.call(Call::new(syscall::REPLY_RECV, 1).info(5, 5).mrs(&[9, 8, 7, 6]).reply(2));
    assert_eq!(k.runs(), Some(1));
    assert_eq!(k.received(CLIENT), (0, 5, [9, 8, 7, 6]));
    assert_eq!(k.buffer(CLIENT, buffer::MESSAGE + 4), 99);
    assert!(matches!(k.state(SERVER), State::Receiving { .. }));
}

#[test]
fn only_the_given_registers_are_copied() {
    let mut k = ready(&client_and_server());
    k.call(Call::new(syscall::CALL, 1).info(1, 2).mrs(&[1, 2, 3, 4]));
    // x4 and x5 of the server are what it had when it called Recv.
    assert_eq!(k.received(SERVER).2, [1, 2, 0, 0]);
}

#[test]
fn length_is_clamped() {
    let mut k = ready(&client_and_server());
    k.call(Call::new(syscall::CALL, 1).info(1, 127));
    assert_eq!(MessageInfo(k.context(SERVER).x[1]), MessageInfo::new(1, 120));
}

#[test]
fn notification_wakes_with_badge_only() {
    let mut b = client_and_server();
    b.full(CLIENT, 8, cap::NOTIFICATION, 1, 8);
    let mut k = ready(&b);
    let info = k.context(SERVER).x[1];
    k.call(Call::new(syscall::SEND, 8));
    assert_eq!(k.runs(), Some(1), "nobody is bound to that one");
    k.call(Call::new(syscall::SEND, 2));
    assert_eq!(k.runs(), Some(0));
    assert_eq!((k.context(SERVER).x[0], k.context(SERVER).x[1]), (4, info));
}

#[test]
fn pending_signals_are_merged_and_win_over_senders() {
    let mut b = client_and_server();
    b.full(CLIENT, 8, cap::NOTIFICATION, 0, 0x100);
    b.tcbs[CLIENT as usize].priority = 30;
    let mut k = b.boot();
    assert_eq!(k.runs(), Some(1));
    k.call(Call::new(syscall::SEND, 8));
    k.call(Call::new(syscall::NB_SEND, 8));
    k.call(Call::new(syscall::CALL, 1).info(3, 0));
    assert_eq!(k.runs(), Some(0));
    k.call(recv());
    assert_eq!(k.context(SERVER).x[0], 0x100);
    k.call(recv());
    assert_eq!(k.runs(), Some(0));
    assert_eq!(k.received(SERVER).0, 0x77);
}

#[test]
fn receiving_with_a_used_reply_object_drops_the_caller() {
    let mut k = ready(&client_and_server());
    k.call(Call::new(syscall::CALL, 1));
    k.call(recv());
    invariants(&k);
    assert_eq!((k.state(CLIENT), k.runs()), (State::Inactive, None));
}

#[test]
fn empty_and_unresolvable_capabilities() {
    let mut b = client_and_server();
    b.tcbs[CLIENT as usize].fault_endpoint = 0;
    b.tcbs[CLIENT as usize].fault_rights = 15;
    b.tcbs[CLIENT as usize].fault_badge = 0x55;
    let mut k = ready(&b);
    k.call(Call::new(syscall::CALL, 40));
    assert_eq!(k.received(CLIENT), (0, 2, [0; 4]));
    k.call(Call::new(syscall::SEND, 40));
    k.call(Call::new(syscall::NB_SEND, 1 << 60));
    assert_eq!(k.runs(), Some(1));
    k.call(Call::new(syscall::SEND, 1 << 60));
    assert_eq!(k.runs(), Some(0));
    let ip = k.context(CLIENT).fault_ip;
    assert_eq!(k.received(SERVER), (0x55, 1, [ip, 1 << 60, 0, 4]));
    assert_eq!(k.buffer(SERVER, buffer::MESSAGE + 4), 64);
    // The reply makes it try again.
    k.call(Call::new(syscall::REPLY_RECV, 1).reply(2));
    assert_eq!((k.runs(), k.context(CLIENT).pc), (Some(1), ip));
    k.call(Call::new(syscall::RECV, 41).reply(2));
    assert_eq!(k.received(SERVER).2[2..], [1, 2]);
}

#[test]
fn faults_are_messages_and_replies_write_back() {
    let mut b = client_and_server();
    b.tcbs[CLIENT as usize].fault_endpoint = 0;
    b.tcbs[CLIENT as usize].fault_rights = 15;
    let mut k = ready(&b);
    k.faults(Fault::UserException { number: 0x200_0000, code: 0 });
    let ip = k.context(CLIENT).fault_ip;
    assert_eq!(k.received(SERVER).1, 3);
    k.call(Call::new(syscall::REPLY_RECV, 1).info(0, 1).mrs(&[ip + 4]).reply(2));
    assert_eq!((k.runs(), k.context(CLIENT).pc), (Some(1), ip + 4));
    k.faults(Fault::UserException { number: 0x200_0000, code: 0 });
    k.call(Call::new(syscall::REPLY_RECV, 1).info(1, 0).reply(2));
    assert_eq!((k.runs(), k.state(CLIENT)), (None, State::Inactive));
    invariants(&k);
}

#[test]
fn passive_server_runs_on_its_callers_budget() {
    let mut b = client_and_server();
    b.full(SERVER, 9, cap::SCHED_CONTEXT, 0, 0);
    b.full(CLIENT, 9, cap::SCHED_CONTEXT, 0, 0);
    b.tcbs[SERVER as usize].sched_context = image::NONE;
    b.tcbs[SERVER as usize].flags = 0;
    let mut k = b.boot();
    // As if it had received before: start it inside a Recv.
    k.tcbs[crate::id::Id::new(0)].state = State::Restart;
    k.tcbs[crate::id::Id::new(0)].sched_context = Some(crate::id::Id::new(0));
    k.scheds[crate::id::Id::new(0)].tcb = Some(crate::id::Id::new(0));
    k.wake(crate::id::Id::new(0));
    k.schedule();
    k.leave();
    k.call(recv());
    assert_eq!(k.runs(), Some(1));
    k.set_extra(CLIENT, 0, 0);
    k.call(Call::new(syscall::CALL, 9).info(label("SchedContextUnbind"), 0));
    assert_eq!(k.received(CLIENT).1, 0);
    k.call(Call::new(syscall::CALL, 1));
    invariants(&k);
    assert_eq!(k.runs(), Some(0));
    assert_eq!(k.tcbs[crate::id::Id::new(0)].sched_context, Some(crate::id::Id::new(1)));
    assert_eq!(k.tcbs[crate::id::Id::new(1)].sched_context, None);
    k.call(Call::new(syscall::REPLY_RECV, 1).reply(2));
    invariants(&k);
    assert_eq!(k.runs(), Some(1));
    assert_eq!(k.tcbs[crate::id::Id::new(1)].sched_context, Some(crate::id::Id::new(1)));
}

#[test]
fn budgets_are_enforced() {
    let mut b = Builder::default();
    b.thread(20, 100, 1000);
    b.thread(10, 1000, 1000);
    let mut k = b.boot();
    assert_eq!((k.runs(), k.hw.deadline), (Some(0), 1100));
    k.pass(100);
    assert_eq!(k.runs(), Some(1), "used up");
    assert_eq!(k.hw.deadline, 2000);
    k.pass(900);
    assert_eq!(k.runs(), Some(0), "a period later");
    invariants(&k);
}

#[test]
fn round_robin_within_a_priority() {
    let mut b = Builder::default();
    for _ in 0..3 {
        b.thread(10, 1000, 1000);
    }
    let mut k = b.boot();
    let first = k.runs().unwrap();
    let order: Vec<_> = (0..6)
        .map(|_| {
            k.pass(1000);
            invariants(&k);
            k.runs().unwrap()
        })
        .collect();
    assert_eq!(order[2], first);
    assert_eq!(order[..3], order[3..]);
    k.call(Call::new(syscall::YIELD, 0));
    assert_ne!(k.runs(), Some(order[5]));
}

#[test]
fn interrupts_are_masked_until_acknowledged() {
    let mut b = client_and_server();
    b.irqs.push(image::Irq { irq: 40, edge: 0, notification: 0, reserved: 0, badge: 0x200 });
    b.full(SERVER, 8, cap::IRQ, 0, 0);
    let mut k = ready(&b);
    k.hw.enabled.insert(40);
    k.interrupt(40);
    assert_eq!((k.runs(), k.context(SERVER).x[0]), (Some(0), 0x200));
    assert!(!k.hw.enabled.contains(&40));
    k.call(Call::new(syscall::CALL, 8).info(label("IRQAckIRQ"), 0));
    assert!(k.hw.enabled.contains(&40));
    k.call(Call::new(syscall::CALL, 8).info(label("IRQClearIRQHandler"), 0));
    k.call(recv());
    k.interrupt(40);
    assert_eq!(k.runs(), Some(1));
}

#[test]
fn registers_are_read_and_written() {
    let mut k = ready(&client_and_server());
    k.faults(Fault::Vcpu { esr: 1 });
    assert_eq!(k.runs(), None);
    k.hw.enabled.clear();
    let mut b = client_and_server();
    b.tcbs[SERVER as usize].priority = 5;
    b.tcbs[CLIENT as usize].priority = 1;
    let mut k = b.boot();
    k.call(Call::new(syscall::CALL, 4).info(label("TCBReadRegisters"), 2).mrs(&[0, 4]));
    assert_eq!(k.received(SERVER), (0, 0, [0x2000, 0x9000, k.context(CLIENT).spsr, 0]));
    for (n, error) in [(0, 4), (37, 4)] {
        k.call(Call::new(syscall::CALL, 4).info(label("TCBReadRegisters"), 2).mrs(&[0, n]));
        assert_eq!(k.received(SERVER).1, error);
        assert_eq!(k.received(SERVER).2[..2], [1, 36]);
    }
    k.call(Call::new(syscall::CALL, 4).info(label("TCBWriteRegisters"), 3).mrs(&[0, 1, 0x4444]));
    assert_eq!((k.received(SERVER).1, k.context(CLIENT).pc), (0, 0x4444));
    k.call(Call::new(syscall::CALL, 4).info(label("TCBWriteRegisters"), 3).mrs(&[0, 2, 0]));
    assert_eq!(k.received(SERVER).1, 7);
    k.call(Call::new(syscall::CALL, 4).info(label("TCBSuspend"), 0));
    assert_eq!(k.state(CLIENT), State::Inactive);
    invariants(&k);
}

#[test]
fn cache_operations_check_their_range() {
    let b = client_and_server();
    let mut k = ready(&b);
    let clean = label("ARMVSpaceClean_Data");
    for (start, end, result) in [
        (0x1000, 0x1100, 0),
        (0x1000, 0x2000, 0),
        (0x1000, 0x2001, 4),
        (0x5000, 0x9000, 0),
        (0x1000, 0x1000, 1),
        (0x1000, 0x100_0000_0000, 3),
        (0x20_0000, 0x40_0000, 0),
    ] {
        k.call(Call::new(syscall::CALL, 3).info(clean, 2).mrs(&[start, end]));
        assert_eq!(k.received(CLIENT).1, result, "{start:#x}..{end:#x}");
    }
    assert_eq!(
        k.hw.maintained,
        [
            (CacheOp::Clean, 0x8000_1000, 0x100),
            (CacheOp::Clean, 0x8000_1000, 0x1000),
            (CacheOp::Clean, 0x8020_0000, 0x20_0000)
        ]
    );
}

/// A VMM and a VM below it.
fn vmm() -> TestKernel {
    let mut b = client_and_server();
    b.vcpus.push(image::Vcpu { tcb: CLIENT, reserved: 0 });
    b.tcbs[CLIENT as usize].flags = 0;
    b.tcbs[CLIENT as usize].fault_endpoint = 0;
    b.tcbs[CLIENT as usize].fault_rights = 15;
    b.full(SERVER, 10, cap::VCPU, 0, 0);
    b.boot()
}

#[test]
fn virtual_cpu_is_loaded_lazily() {
    let mut k = vmm();
    let write = label("ARMVCPUWriteReg");
    k.call(Call::new(syscall::CALL, 10).info(write, 2).mrs(&[0, 0x30d0_1805]));
    k.call(Call::new(syscall::CALL, 10).info(write, 2).mrs(&[2, 0x1234]));
    assert_eq!(k.hw.fields[2], 0, "not loaded yet");
    k.call(Call::new(syscall::CALL, 4).info(label("TCBResume"), 0));
    k.call(recv());
    assert_eq!((k.runs(), k.hw.guest), (Some(1), true));
    assert_eq!((k.hw.fields[0], k.hw.fields[2]), (0x30d0_1805, 0x1234));
    k.hw.fields[2] = 0x5678;
    k.hw.fields[0] = 0x30d0_1806;
    k.faults(Fault::Vcpu { esr: 0x07e0_0000 });
    assert_eq!((k.runs(), k.hw.guest), (Some(0), false));
    assert_eq!(k.received(SERVER).1, 8);
    for (field, value) in [(0, 0x30d0_1806), (2, 0x5678)] {
        k.call(Call::new(syscall::CALL, 10).info(label("ARMVCPUReadReg"), 1).mrs(&[field]));
        assert_eq!(k.received(SERVER).2[0], value);
    }
    k.call(Call::new(syscall::CALL, 10).info(label("ARMVCPUReadReg"), 1).mrs(&[24]));
    assert_eq!(k.received(SERVER).1, 1);
    invariants(&k);
}

#[test]
fn interrupts_are_injected_and_completed() {
    let mut k = vmm();
    let inject = label("ARMVCPUInjectIRQ");
    let packed =
        |irq: u64, priority: u64, group: u64, index: u64| irq | priority << 16 | group << 24 | index << 32;
    for (word, error) in [
        (packed(1024, 0, 0, 0), 4),
        (packed(1, 32, 0, 0), 4),
        (packed(1, 0, 2, 0), 4),
        (packed(1, 0, 0, 4), 4),
        (packed(27, 3, 1, 2), 0),
    ] {
        k.call(Call::new(syscall::CALL, 10).info(inject, 1).mrs(&[word]));
        assert_eq!(k.received(SERVER).1, error, "{word:#x}");
    }
    let lr = 1 << 30 | 1 << 28 | 3 << 23 | 1 << 19 | 27;
    assert_eq!(k.vcpus[crate::id::Id::new(0)].list[2], lr);
    k.call(Call::new(syscall::CALL, 4).info(label("TCBResume"), 0));
    k.call(recv());
    assert_eq!(k.hw.list[2], lr);
    k.hw.status = (1, 1 << 2);
    k.interrupt(25);
    assert_eq!((k.received(SERVER).1, k.received(SERVER).2[0]), (7, 2));
    assert_eq!(k.hw.list[2] & 1 << 19, 0);
    invariants(&k);
}

#[test]
fn virtual_timer_fires_once_until_acknowledged() {
    let mut k = vmm();
    k.call(Call::new(syscall::CALL, 4).info(label("TCBResume"), 0));
    k.call(recv());
    assert!(k.hw.enabled.contains(&27));
    k.interrupt(27);
    assert_eq!((k.received(SERVER).1, k.received(SERVER).2[0]), (9, 27));
    k.call(Call::new(syscall::REPLY_RECV, 1).reply(2));
    assert_eq!((k.runs(), k.hw.enabled.contains(&27)), (Some(1), false));
    k.faults(Fault::Vcpu { esr: 0 });
    for (irq, error) in [(26, 1), (160, 4), (27, 0)] {
        k.call(Call::new(syscall::CALL, 10).info(label("ARMVCPUAckVPPI"), 1).mrs(&[irq]));
        assert_eq!(k.received(SERVER).1, error);
    }
    k.call(Call::new(syscall::REPLY_RECV, 1).reply(2));
    assert!(k.hw.enabled.contains(&27));
}

#[test]
fn thread_invocations_are_refused_before_a_receive() {
    let mut k = ready(&client_and_server());
    k.call(Call::new(syscall::CALL, 1));
    k.call(Call::new(syscall::NB_SEND_RECV, 1).info(label("TCBSuspend"), 0).dest(4).reply(9));
    assert!(matches!(k.state(CLIENT), State::Replying(_)));
}

#[test]
fn extra_capability_to_the_same_endpoint_arrives_as_its_badge() {
    let mut k = ready(&client_and_server());
    k.set_extra(CLIENT, 0, 1);
    k.call(Call::new(syscall::CALL, 1).info(9, 0).extra(1));
    assert_eq!(MessageInfo(k.context(SERVER).x[1]), MessageInfo::new(9, 0).delivered(0, 1, 1));
    assert_eq!(k.buffer(SERVER, buffer::CAPS), 0x77);
}
