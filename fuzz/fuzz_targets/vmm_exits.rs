//! Any sequence of exits and notifications for a whole VMM over a machine without a kernel: after every fault the guest
//! goes on, sleeps, is held for a reset, or is stopped.
#![no_main]

use std::sync::atomic::Ordering;

use libfuzzer_sys::{
    arbitrary::{self, Arbitrary},
    fuzz_target,
};
use partita_pd_vmm::{
    fake::Guest,
    vmm::{Next, Vcpu},
};
use partita_protocol::layout::guest;

#[derive(Arbitrary, Debug)]
enum Step {
    /// A store or load of `width` at one of the devices.
    Access {
        device: u8,
        offset: u16,
        width: u8,
        value: u32,
        store: bool,
    },
    Fault {
        label: u8,
        words: [u64; 4],
    },
    Notified {
        channels: u64,
    },
    Complete {
        queue: u8,
        config: bool,
        needs_reset: bool,
    },
    Time {
        passed: u32,
        reset: u8,
    },
    Type {
        bytes: [u8; 8],
    },
}

fuzz_target!(|steps: Vec<Step>| {
    let mut host = Guest::new(true);
    let _ = host.vmm.begin();
    for step in steps.iter().take(300) {
        host.machine.0.borrow_mut().resumed = false;
        let asleep = host.vmm.vcpu(0) == Vcpu::Asleep;
        let next = match *step {
            Step::Access { device, offset, width, value, store } if !asleep => {
                let bases = [guest::VIRTIO, guest::VIRTIO + 0x1000, guest::GICD, guest::UART];
                let ipa = bases[usize::from(device) % 4] + u64::from(offset) % 0x1000;
                host.machine.0.borrow_mut().registers[4] = value.into();
                let esr = 0x9301_000f | u64::from(width % 4) << 22 | 1 << 24 | u64::from(store) << 6;
                host.vmm.fault(0, 6, [0x4000_0000, ipa, 0, esr])
            }
            Step::Fault { label, words } if !asleep => host.vmm.fault(0, u64::from(label % 12), words),
            Step::Notified { channels } => {
                let _ = host.vmm.notified(channels & (1 << 62) - 1);
                continue;
            }
            Step::Complete { queue, config, needs_reset } => {
                let device = &host.backend.devices[0];
                device.used[usize::from(queue) % device.used.len()].fetch_add(1, Ordering::Relaxed);
                device.config.fetch_add(config.into(), Ordering::Relaxed);
                device.needs_reset.store(needs_reset.into(), Ordering::Relaxed);
                let _ = host.vmm.notified(1);
                continue;
            }
            Step::Time { passed, reset } => {
                let mut state = host.machine.0.borrow_mut();
                state.now += u64::from(passed);
                state.timer = (1, state.now + 100);
                state.reset = u64::from(reset % 5);
                host.timer.fired.store(state.now, Ordering::Relaxed);
                continue;
            }
            Step::Type { bytes } => {
                host.console.tx.write(&bytes);
                host.console.rx.consume(100);
                continue;
            }
            _ => continue,
        };
        let resumed = host.machine.0.borrow().resumed;
        match (next, host.vmm.vcpu(0)) {
            (Next::Reply, Vcpu::Running) => assert!(!resumed),
            (Next::Wait, Vcpu::Asleep) | (_, Vcpu::Off | Vcpu::Held(..)) => {}
            (Next::Receive | Next::Notify(_), Vcpu::Running) => assert!(resumed, "{step:x?}"),
            other => panic!("{other:?} after {step:x?}"),
        }
    }
});
