//! Random system calls, faults, interrupts and time: the invariants hold after every one.

use proptest::prelude::*;

use super::check::invariants;
use super::system::{Builder, Call, TestKernel};
use crate::abi::{BUILD, MAX_LENGTH, MessageInfo, buffer, invocations};
use crate::fault::Fault;
use crate::image::{self, cap};

#[derive(Clone, Debug)]
enum Step {
    Call {
        number: i64,
        cap: u64,
        label: u64,
        info: u64,
        mrs: [u64; 4],
        reply: u64,
        dest: u64,
        extra: [u64; 3],
    },
    Fault(u8),
    Irq(u32),
    Time(u64),
}

/// Six threads at four priorities, one of them a VM, one without a scheduling context, everything reachable from all.
fn system() -> TestKernel {
    let mut b = Builder { endpoints: 3, notifications: 3, replies: 3, ..Default::default() };
    for (priority, budget, period) in
        [(4, 1000, 1000), (3, 300, 2000), (3, 1000, 1000), (2, 500, 1500), (2, 1000, 1000), (1, 1000, 1000)]
    {
        let t = b.thread(priority, budget, period);
        b.tcbs[t as usize].mcp = 4;
        b.tcbs[t as usize].fault_endpoint = t % 3;
        b.tcbs[t as usize].fault_badge = 0x40 + u64::from(t);
        b.tcbs[t as usize].fault_rights = if t == 4 { 1 } else { 15 };
    }
    b.tcbs[5].sched_context = image::NONE;
    for _ in 0..2 {
        let vm = b.thread(2, 1000, 1000);
        b.vcpus.push(image::Vcpu { tcb: vm, reserved: 0 });
        b.tcbs[vm as usize].vspace = 6;
        b.tcbs[vm as usize].fault_endpoint = 0;
        b.tcbs[vm as usize].fault_rights = 15;
        b.tcbs[vm as usize].flags = image::tcb::RESUME;
    }
    b.tcbs[0].notification = 0;
    b.tcbs[1].notification = 1;
    b.irqs.push(image::Irq { irq: 40, edge: 0, notification: 0, reserved: 0, badge: 1 << 20 });
    b.irqs.push(image::Irq { irq: 41, edge: 0, notification: 2, reserved: 0, badge: 1 << 21 });
    for t in 0..b.tcbs.len() as u32 {
        for i in 0..3 {
            let rights = if t == 3 { 1 + i } else { 15 };
            b.cap(t, 1 + i, cap::ENDPOINT, i, 0x10 + u64::from(t), rights);
            b.cap(t, 4 + i, cap::NOTIFICATION, i, 1 << t, rights);
            b.full(t, 7 + i, cap::REPLY, i, 0);
        }
        for i in 0..8 {
            b.full(t, 10 + i, cap::TCB, i, 0);
            b.full(t, 18 + i, cap::SCHED_CONTEXT, i, 0);
        }
        b.full(t, 26, cap::IRQ, 0, 0);
        b.full(t, 27, cap::IRQ, 1, 0);
        b.full(t, 28, cap::VCPU, 0, 0);
        b.full(t, 29, cap::VCPU, 1, 0);
        b.full(t, 30, cap::VSPACE, t, 0);
        b.full(t, 31, cap::SMC, 0, 0);
    }
    b.boot()
}

fn pointer() -> impl Strategy<Value = u64> {
    prop_oneof![40 => 1u64..32, 1 => 0u64..64, 1 => any::<u64>()]
}

fn small() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0u64..6, 1 => 0u64..130, 1 => any::<u64>()]
}

fn step() -> impl Strategy<Value = Step> {
    let call = (
        prop_oneof![30 => -11i64..=-1, 1 => -18i64..=1],
        pointer(),
        0u64..70,
        (0u64..=127, 0u64..4),
        [small(), small(), small(), small()],
        7u64..10,
        pointer(),
        [pointer(), pointer(), pointer()],
    )
        .prop_map(|(number, cap, label, (length, caps), mrs, reply, dest, extra)| Step::Call {
            number,
            cap,
            label,
            info: caps << 7 | length,
            mrs,
            reply,
            dest,
            extra,
        });
    // Calls that make progress: receive and reply with the right capabilities, more often than chance would.
    let useful =
        (prop_oneof![Just(-1i64), Just(-2), Just(-7), Just(-5), Just(-3)], 1u64..4, 7u64..10, 1u64..7)
            .prop_map(|(number, cap, reply, dest)| Step::Call {
                number,
                cap,
                label: 0,
                info: 4,
                mrs: [0, 1, 2, 3],
                reply,
                dest,
                extra: [0; 3],
            });
    let resume = (10u64..18).prop_map(|cap| Step::Call {
        number: -1,
        cap,
        label: 13,
        info: 0,
        mrs: [0; 4],
        reply: 7,
        dest: 0,
        extra: [0; 3],
    });
    prop_oneof![
        8 => call,
        8 => useful,
        2 => resume,
        2 => (0u8..8).prop_map(Step::Fault),
        2 => prop_oneof![Just(40u32), Just(41), Just(25), Just(26), Just(27), Just(99), Just(1019)].prop_map(Step::Irq),
        6 => prop_oneof![1u64..50, 1u64..2500].prop_map(Step::Time),
    ]
}

fn apply(k: &mut TestKernel, step: &Step) {
    match step {
        Step::Call { number, cap, label, info, mrs, reply, dest, extra } => {
            let Some(current) = k.runs() else { return k.pass(100) };
            for (i, pointer) in extra.iter().enumerate() {
                k.set_buffer(current as u32, buffer::CAPS + i, *pointer);
            }
            let call = Call {
                number: *number,
                cap: *cap,
                info: MessageInfo(label << 12 | info),
                mrs: *mrs,
                reply: *reply,
                dest: *dest,
            };
            k.call(call);
        }
        Step::Fault(kind) => {
            if k.runs().is_none() {
                return k.pass(100);
            }
            k.faults(match kind {
                0 => Fault::UnknownSyscall,
                1 => Fault::UserException { number: 1, code: 2 },
                2 => Fault::Breakpoint,
                3 => Fault::Vcpu { esr: 5 },
                _ => Fault::Vm { address: 1, prefetch: false, esr: 3 },
            });
        }
        Step::Irq(irq) => k.interrupt(*irq),
        Step::Time(ticks) => k.pass(*ticks),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold(steps in prop::collection::vec(step(), 1..300)) {
        let mut k = system();
        invariants(&k);
        for step in &steps {
            apply(&mut k, step);
            invariants(&k);
        }
    }
}

/// The generator reaches what it is for: every label is used, messages have every length.
#[test]
fn generator_covers() {
    assert!(invocations(BUILD).all(|(_, label)| label < 70));
    assert_eq!(MessageInfo(127).length(), MAX_LENGTH);
}
