use core::sync::atomic::Ordering;

use partita_guest::registers;
use partita_protocol::backend::{Status, label as backend};
use partita_protocol::layout::{channel, guest};
use partita_protocol::stats::Counter;
use partita_protocol::supervisor::{StopReason, label as supervisor};
use partita_virtio::fake::{Buffer, DriverQueue};
use partita_virtio::mmio::registers::reg;
use proptest::prelude::*;

use crate::fake::{Guest, KERNEL};
use crate::vmm::{Next, Phase, Vcpu};

mod console;
mod lifecycle;
mod links;
mod timers;

const PC: u64 = 0x4000_1000;
const GICD: u64 = guest::GICD;
const DISK: u64 = guest::VIRTIO;
const CONSOLE: u64 = guest::VIRTIO + 0x1000;

const VM_FAULT: u64 = 6;
const MAINTENANCE: u64 = 7;
const VCPU_FAULT: u64 = 8;
const VPPI: u64 = 9;
const WFI: u64 = 0x07e0_0000;
const SMC: u64 = 0x5e00_0000;

impl Guest {
    fn running() -> Self {
        let mut guest = Guest::new(true);
        // What an earlier guest of this thread left in the console's ring is told of.
        let next = guest.vmm.begin();
        assert!(matches!(next, Next::Receive | Next::Notify(channel::CONSOLE)), "{next:?}");
        assert_eq!(guest.vmm.phase, Phase::Running);
        guest.set(GICD, 1);
        for intid in [27, 33, 48, 49] {
            guest.set(GICD + 0x100 + 4 * (intid / 32), 1 << (intid % 32));
        }
        guest.clear();
        guest
    }

    fn clear(&mut self) {
        let mut state = self.machine.0.borrow_mut();
        state.resumed = false;
        state.reads = 0;
        state.signals.clear();
        state.calls.clear();
        state.injected.clear();
        state.injected_to.clear();
        drop(state);
        self.log();
    }

    /// STR w1, [ipa].
    fn store(&mut self, ipa: u64, value: u32) -> Next {
        let mut state = self.machine.0.borrow_mut();
        state.registers[registers::X0 + 1] = value.into();
        state.resumed = false;
        drop(state);
        self.vmm.fault(0, VM_FAULT, [PC, ipa, 0, 0x9381_004f])
    }

    fn set(&mut self, ipa: u64, value: u32) {
        assert_eq!(self.vmm.phase, Phase::Running);
        let _ = self.store(ipa, value);
    }

    /// LDR w2, [ipa].
    fn load(&mut self, ipa: u64) -> u64 {
        let next = self.vmm.fault(0, VM_FAULT, [PC, ipa, 0, 0x9382_0007]);
        assert_eq!(next, Next::Receive);
        self.machine.0.borrow().registers[registers::X0 + 2]
    }

    fn trap(&mut self, esr: u64) -> Next {
        self.vmm.fault(0, VCPU_FAULT, [esr, 0, 0, 0])
    }

    fn smc(&mut self, function: u64) -> Next {
        self.machine.0.borrow_mut().registers[registers::X0] = function;
        self.trap(SMC)
    }

    /// Plays the program that prepares a restart.
    pub(crate) fn settle(&mut self) {
        for _ in 0..100 {
            for vcpu in 0..4 {
                if matches!(self.vmm.phase, Phase::Preparing(_)) && self.machine.0.borrow().runs[vcpu] {
                    let _ = self.vmm.fault(vcpu, VCPU_FAULT, [SMC, 0, 0, 0]);
                }
            }
        }
    }

    fn calls(&self) -> Vec<(usize, u64)> {
        self.machine.0.borrow().calls.iter().map(|(channel, label, _)| (*channel, *label)).collect()
    }

    /// Brings a device to DRIVER_OK with queues of 8.
    fn set_up(&mut self, base: u64, queues: u32) {
        for (register, value) in [
            (reg::STATUS, 1),
            (reg::STATUS, 3),
            (reg::DRIVER_FEATURES_SEL, 1),
            (reg::DRIVER_FEATURES, 1),
            (reg::STATUS, 11),
        ] {
            self.set(base + register as u64, value);
        }
        for queue in 0..queues {
            let at = 0x4010_0000 + 0x1000 * queue;
            for (register, value) in [
                (reg::QUEUE_SEL, queue),
                (reg::QUEUE_NUM, 8),
                (reg::QUEUE_DESC_LOW, at),
                (reg::QUEUE_DRIVER_LOW, at + 0x100),
                (reg::QUEUE_DEVICE_LOW, at + 0x200),
                (reg::QUEUE_READY, 1),
            ] {
                self.set(base + register as u64, value);
            }
        }
        self.set(base + reg::STATUS as u64, 15);
    }

    fn complete(&mut self) -> Next {
        self.backend.devices[0].used[0].fetch_add(1, Ordering::Release);
        self.vmm.notified(1)
    }
}

#[test]
fn starts_as_the_boot_protocol_says() {
    let mut guest = Guest::new(true);
    assert_eq!(guest.vmm.begin(), Next::Receive);
    let state = guest.machine.0.borrow();
    let dtb = guest::dtb_address(crate::fake::RAM, 100).unwrap();
    assert_eq!(state.registers[..4], [guest::RAM, 0, 0x3c5, dtb]);
    assert!(state.resumed && state.registers[4..].iter().all(|x| *x == 0));
    assert_eq!(guest.ram.bytes(guest::RAM, 16), KERNEL);
    assert_eq!(guest.ram.bytes(dtb, 50), [2; 50]);
    drop(state);
    assert_eq!(
        guest.calls(),
        [(0, backend::RESET), (0, backend::INFO), (channel::SUPERVISOR, supervisor::GUEST_RUNNING)]
    );
}

#[test]
fn waits_for_its_disk() {
    let mut guest = Guest::new(true);
    guest.machine.0.borrow_mut().status = Status::Pending as u64;
    assert_eq!(guest.vmm.begin(), Next::Receive);
    assert_eq!(guest.vmm.phase, Phase::Stopped(true));
    assert_eq!(guest.vmm.notified(1), Next::Receive);
    assert_eq!(guest.vmm.phase, Phase::Stopped(true));
    guest.machine.0.borrow_mut().status = 0;
    let _ = guest.vmm.notified(1);
    assert_eq!(guest.vmm.phase, Phase::Running);
}

#[test]
fn starts_when_the_supervisor_says_so() {
    let mut guest = Guest::new(false);
    assert_eq!(guest.vmm.begin(), Next::Receive);
    assert!(!guest.machine.0.borrow().resumed);
    let _ = guest.vmm.notified(1 << channel::SUPERVISOR);
    assert_eq!(guest.vmm.phase, Phase::Running);
}

#[test]
fn a_kick_costs_no_register_read_and_joins_the_receive() {
    let mut guest = Guest::running();
    guest.set_up(DISK, 1);
    guest.clear();
    assert_eq!(guest.store(DISK + reg::QUEUE_NOTIFY as u64, 0), Next::Notify(0));
    let state = guest.machine.0.borrow();
    assert!(state.resumed && state.reads == 0 && state.signals.is_empty());
    assert_eq!(state.registers[0], PC + 4);
}

#[test]
fn drivers_queue_goes_to_the_backend() {
    let mut guest = Guest::running();
    guest.set_up(DISK, 1);
    let state = guest.machine.0.borrow();
    let calls: Vec<_> = state.calls.iter().map(|(_, label, words)| (*label, words.clone())).collect();
    let queue = vec![0, 0, 8, 0x4010_0000, 0x4010_0100, 0x4010_0200];
    assert_eq!(calls, [(backend::QUEUE, queue), (backend::START, vec![0, 1 << 32])]);
}

#[test]
fn completion_interrupts_and_is_acknowledged_without_a_register_read() {
    let mut guest = Guest::running();
    guest.set_up(DISK, 1);
    guest.clear();
    assert_eq!(guest.trap(WFI), Next::Wait);
    assert_eq!(guest.complete(), Next::Reply);
    let injected = guest.machine.0.borrow().injected.clone();
    assert_eq!(injected.iter().map(|i| i.intid).collect::<Vec<_>>(), [48]);
    // The reply takes it along, behind the store.
    assert_eq!(guest.store(DISK + reg::INTERRUPT_ACK as u64, 1), Next::Reply);
    assert_eq!(guest.machine.0.borrow().registers[registers::PC], PC + 4);
    assert_eq!(guest.vmm.fault(0, MAINTENANCE, [0, 0, 0, 0]), Next::Reply);
    let state = guest.machine.0.borrow();
    assert_eq!((state.reads, state.injected.len()), (0, 1), "the line is low again");
}

#[test]
fn completion_during_handling_interrupts_again() {
    let mut guest = Guest::running();
    guest.set_up(DISK, 1);
    guest.clear();
    let _ = guest.complete();
    guest.set(DISK + reg::INTERRUPT_ACK as u64, 1);
    assert_eq!(guest.complete(), Next::Receive);
    assert_eq!(guest.machine.0.borrow().injected.len(), 1, "48 is still active");
    assert_eq!(guest.vmm.fault(0, MAINTENANCE, [0, 0, 0, 0]), Next::Reply);
    assert_eq!(guest.machine.0.borrow().injected.len(), 2);
}

#[test]
fn idle_guest_sleeps_until_its_timer() {
    let mut guest = Guest::running();
    guest.machine.0.borrow_mut().timer = (1, 1000);
    assert_eq!(guest.trap(WFI), Next::Wait);
    assert_eq!(guest.request.deadline.load(Ordering::Relaxed), 1000);
    assert_eq!(guest.machine.0.borrow().signals, [channel::TIMER]);
    // An early wake-up changes nothing, and does not arm again.
    assert_eq!(guest.vmm.notified(1 << channel::TIMER), Next::Wait);
    assert_eq!(guest.machine.0.borrow().signals.len(), 1);
    guest.machine.0.borrow_mut().now = 1000;
    guest.timer.fired.store(1000, Ordering::Relaxed);
    assert_eq!(guest.vmm.notified(1 << channel::TIMER), Next::Reply);
    assert!(guest.vmm.is(0, Vcpu::Running));
    // Running, the kernel reports the expired timer; it is acknowledged when the guest ends the interrupt, not earlier.
    let acks = guest.machine.0.borrow().acks;
    assert_eq!(guest.vmm.fault(0, VPPI, [27, 0, 0, 0]), Next::Reply);
    assert_eq!(guest.machine.0.borrow().acks, acks);
    assert_eq!(guest.machine.0.borrow().injected.last().unwrap().intid, 27);
    assert_eq!(guest.vmm.fault(0, MAINTENANCE, [0, 0, 0, 0]), Next::Reply);
    assert_eq!(guest.machine.0.borrow().acks, acks + 1);
}

#[test]
fn wfi_with_something_pending_is_skipped() {
    let mut guest = Guest::running();
    let _ = guest.vmm.fault(0, VPPI, [27, 0, 0, 0]);
    guest.machine.0.borrow_mut().registers[0] = PC;
    assert_eq!(guest.trap(WFI), Next::Receive);
    assert!(guest.machine.0.borrow().resumed);
    assert_eq!(guest.machine.0.borrow().registers[0], PC + 4);
}

#[test]
fn stale_timer_event_is_dropped_when_the_guest_lets_it_through() {
    let mut guest = Guest::running();
    guest.set(GICD + 0x180, 1 << 27);
    let _ = guest.vmm.fault(0, VPPI, [27, 0, 0, 0]);
    guest.machine.0.borrow_mut().timer = (1, 5000);
    let acks = guest.machine.0.borrow().acks;
    guest.set(GICD + 0x100, 1 << 27);
    let state = guest.machine.0.borrow();
    assert!(state.injected.is_empty());
    assert_eq!(state.acks, acks + 1);
}

#[test]
fn reset_holds_the_vcpu_until_nothing_is_in_flight() {
    let mut guest = Guest::running();
    guest.set_up(DISK, 1);
    guest.answer_reset(Status::Pending);
    assert_eq!(guest.store(DISK + reg::STATUS as u64, 0), Next::Receive);
    assert!(!guest.machine.0.borrow().resumed);
    assert_eq!(guest.vmm.notified(1), Next::Receive);
    assert!(!guest.machine.0.borrow().resumed);
    guest.answer_reset(Status::Ok);
    let _ = guest.vmm.notified(1);
    assert!(guest.machine.0.borrow().resumed);
    assert_eq!(guest.machine.0.borrow().registers[0], PC + 4);
    assert_eq!(guest.page_word(reg::STATUS), 0);
}

#[test]
fn power_off_drains_the_disk_before_the_supervisor_hears_of_it() {
    let mut guest = Guest::running();
    guest.set_up(DISK, 1);
    guest.clear();
    guest.answer_reset(Status::Pending);
    assert_eq!(guest.smc(0x8400_0008), Next::Receive);
    assert_eq!(guest.calls(), [(0, backend::RESET)]);
    guest.answer_reset(Status::Ok);
    let _ = guest.vmm.notified(1);
    assert_eq!(guest.calls()[1..], [(0, backend::RESET), (channel::SUPERVISOR, supervisor::GUEST_STOPPED)]);
    let reason = guest.machine.0.borrow().calls.last().unwrap().2[0];
    assert_eq!(reason, StopReason::PowerOff as u64);
    assert!(guest.log().contains("guest powered off"));
    // And again: everything as new.
    guest.clear();
    let _ = guest.vmm.notified(1 << channel::SUPERVISOR);
    guest.settle();
    assert_eq!(guest.calls(), [(channel::SUPERVISOR, supervisor::GUEST_RUNNING)]);
    assert!(guest.machine.0.borrow().resumed);
    assert_eq!(guest.page_word(reg::STATUS), 0);
}

#[test]
fn loads_from_emulated_registers() {
    let mut guest = Guest::running();
    assert_eq!(guest.load(GICD + 4), 7);
    assert_eq!(guest.load(guest::UART + 0x18), 0x90);
    assert_eq!(guest.machine.0.borrow().registers[0], PC + 4);
}

#[test]
fn psci_answers_in_x0() {
    let mut guest = Guest::running();
    assert_eq!(guest.smc(0x8400_0000), Next::Receive);
    assert_eq!(guest.machine.0.borrow().registers[registers::X0], 0x10001);
    guest.machine.0.borrow_mut().registers[registers::X0 + 1] = 1;
    assert_eq!(guest.smc(0xc400_0003), Next::Receive);
    assert_eq!(guest.machine.0.borrow().registers[registers::X0] as i64, -2);
}

#[test]
fn accesses_to_nothing_stop_the_guest_with_one_line() {
    for (fault, text) in [
        ([PC, 0x1234_0000, 0, 0x9382_0007], "load from nothing at ipa 0x12340000, pc 0x40001000"),
        ([PC, 0x1234_0000, 1, 0x8200_0007], "instruction fetch at ipa 0x12340000"),
        ([PC, DISK, 0, 0x9200_004f], "access without syndrome"),
    ] {
        let mut guest = Guest::running();
        assert_eq!(guest.vmm.fault(0, VM_FAULT, fault), Next::Receive);
        let log = guest.log();
        assert!(log.contains(text), "{log}");
        assert_eq!(guest.vmm.phase, Phase::Stopped(false));
        assert!(guest.calls().contains(&(channel::SUPERVISOR, supervisor::GUEST_STOPPED)));
        // What comes afterwards is not answered.
        assert_eq!(guest.trap(WFI), Next::Receive);
    }
}

#[test]
fn unknown_system_register_is_an_undefined_instruction() {
    let mut guest = Guest::running();
    guest.machine.0.borrow_mut().registers[..3].copy_from_slice(&[PC, 7, 0x3c5]);
    let esr = (0x18 << 26) | (1 << 25) | (3 << 20) | (5 << 17) | (12 << 10) | (11 << 1);
    assert_eq!(guest.trap(esr), Next::Receive);
    let state = guest.machine.0.borrow();
    assert_eq!(state.registers[..3], [0x200, 7, 0x3c5]);
    assert_eq!(state.fields.len(), 3);
    drop(state);
    assert!(guest.log().contains("s3_0_c12_c11_5"));
}

#[test]
fn uart_output_is_told_by_the_line() {
    let mut guest = Guest::running();
    let mut bytes = [0; 16];
    guest.console.rx.arm();
    assert_eq!(guest.store(guest::UART, b'h'.into()), Next::Receive);
    assert_eq!(guest.store(guest::UART, b'i'.into()), Next::Receive);
    assert_eq!(guest.store(guest::UART, b'\n'.into()), Next::Notify(channel::CONSOLE));
    assert_eq!(guest.console.rx.read(&mut bytes), 3);
    guest.console.rx.arm();
    assert_eq!(guest.store(guest::UART, b'>'.into()), Next::Receive);
    assert_eq!(guest.trap(WFI), Next::Wait);
    assert_eq!(guest.machine.0.borrow().signals, [channel::CONSOLE]);
}

#[test]
fn console_bytes_go_both_ways() {
    let mut guest = Guest::running();
    let mut queues = [0, 1].map(|n| DriverQueue::new(guest.ram.ram(), 0x4020_0000 + 0x1000 * n, 8, false));
    for (register, value) in
        [(reg::STATUS, 3), (reg::DRIVER_FEATURES_SEL, 1), (reg::DRIVER_FEATURES, 1), (reg::STATUS, 11)]
    {
        guest.set(CONSOLE + register as u64, value);
    }
    for (n, queue) in queues.iter().enumerate() {
        for (register, value) in [
            (reg::QUEUE_SEL, n as u64),
            (reg::QUEUE_NUM, 8),
            (reg::QUEUE_DESC_LOW, queue.layout.desc),
            (reg::QUEUE_DRIVER_LOW, queue.layout.avail),
            (reg::QUEUE_DEVICE_LOW, queue.layout.used),
            (reg::QUEUE_READY, 1),
        ] {
            guest.set(CONSOLE + register as u64, value as u32);
        }
    }
    guest.set(CONSOLE + reg::STATUS as u64, 15);
    guest.clear();

    guest.ram.ram().write(0x4030_0000, b"hello").unwrap();
    queues[1].add(&[Buffer::out(0x4030_0000, 5)]).unwrap();
    guest.console.rx.arm();
    assert_eq!(guest.store(CONSOLE + reg::QUEUE_NOTIFY as u64, 1), Next::Notify(channel::CONSOLE));
    let mut bytes = [0; 16];
    assert_eq!(guest.console.rx.read(&mut bytes), 5);
    assert_eq!(&bytes[..5], b"hello");

    queues[0].add(&[Buffer::into(0x4031_0000, 64)]).unwrap();
    guest.set(CONSOLE + reg::QUEUE_NOTIFY as u64, 0);
    guest.console.tx.write(b"ls\r");
    guest.clear();
    let _ = guest.vmm.notified(1 << channel::CONSOLE);
    assert_eq!(guest.ram.bytes(0x4031_0000, 3), b"ls\r");
}

#[test]
fn backend_restart_gets_the_queues_again() {
    let mut guest = Guest::running();
    guest.set_up(DISK, 1);
    guest.clear();
    guest.backend.generation.fetch_add(1, Ordering::Release);
    let _ = guest.vmm.notified(1);
    assert_eq!(guest.calls(), [(0, backend::QUEUE), (0, backend::START)]);
}

#[test]
fn guests_mistake_ends_in_needs_reset() {
    let mut guest = Guest::running();
    guest.set_up(DISK, 1);
    guest.backend.devices[0].needs_reset.store(1, Ordering::Release);
    let _ = guest.vmm.notified(1);
    assert_eq!(guest.page_word(reg::STATUS), 15 | 64);
    assert_eq!(guest.page_word(reg::INTERRUPT_STATUS), 2);
}

impl Guest {
    fn page_word(&self, offset: usize) -> u32 {
        use crate::machine::Page;
        self.page.load(offset)
    }
}

proptest! {
    /// Whatever a guest does, the VMM survives, and every fault is followed by one of: the vCPU goes on, sleeps, is held, or
    /// the guest is stopped.
    #[test]
    fn any_fault_has_an_end(faults in prop::collection::vec(
        (0u64..12, any::<[u64; 4]>(), 0usize..6, any::<u64>(), any::<bool>()), 1..60)) {
        let mut guest = Guest::running();
        guest.set_up(DISK, 1);
        guest.set_up(CONSOLE, 2);
        for (label, mut words, place, register, esr_store) in faults {
            if label == VM_FAULT {
                words[1] = [DISK, CONSOLE, GICD, guest::UART, 0, words[1]][place] + words[1] % 0x1000;
                words[3] = if esr_store { 0x9381_004f } else { words[3] };
            }
            guest.machine.0.borrow_mut().registers[registers::X0 + 1] = register;
            if guest.vmm.phase != Phase::Running {
                guest = Guest::running();
            }
            if guest.vmm.is(0, Vcpu::Asleep) {
                let _ = guest.complete();
                guest.vmm.set_vcpu(0, Vcpu::Running);
            }
            guest.machine.0.borrow_mut().resumed = false;
            let next = guest.vmm.fault(0, label, words);
            let resumed = guest.machine.0.borrow().resumed;
            match next {
                Next::Reply => prop_assert!(!resumed && guest.vmm.is(0, Vcpu::Running)),
                Next::Wait => prop_assert!(!resumed && guest.vmm.is(0, Vcpu::Asleep)),
                Next::Receive | Next::Notify(_) => prop_assert!(
                    resumed || guest.vmm.phase != Phase::Running, "label {label} {words:x?}"),
            }
        }
        prop_assert!(guest.stats.get(Counter::Wfi) <= guest.stats.exits());
    }
}
