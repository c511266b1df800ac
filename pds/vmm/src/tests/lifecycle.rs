//! What the supervisor wants, from every phase, and several vCPUs. The fake kernel's `runs` says which vCPUs it would run:
//! that has to be what the VMM believes, after every event.

use partita_guest::boot_file::{HEADER, Header, LEAD};
use partita_guest::crc32c::crc32c;
use partita_protocol::lifecycle::CellState;

use super::*;

const CPU_OFF: u64 = 0x8400_0002;
const CPU_ON: u64 = 0xc400_0003;

/// A guest and the side of the kernel that the VMM does not see.
struct World {
    guest: Guest,
    vcpus: usize,
    /// Whose fault the reply object holds while the VMM waits.
    kept: Option<usize>,
}

impl World {
    fn new(vcpus: usize) -> Self {
        let mut world = World { guest: Guest::with_vcpus(true, vcpus), vcpus, kept: None };
        let next = world.guest.vmm.begin();
        world.after(next, None);
        world.store(0, GICD, 1);
        for intid in [27, 33, 48, 49] {
            world.store(0, GICD + 0x100 + 4 * (intid / 32), 1 << (intid % 32));
        }
        world
    }

    fn runs(&self, vcpu: usize) -> bool {
        self.guest.machine.0.borrow().runs[vcpu]
    }

    /// Carries out what the VMM answered and compares.
    fn after(&mut self, next: Next, faulted: Option<usize>) {
        match next {
            Next::Reply => {
                let vcpu = faulted.or(self.kept).expect("somebody to answer");
                assert!(!self.runs(vcpu), "resumed and answered");
                self.guest.machine.0.borrow_mut().runs[vcpu] = true;
                self.kept = None;
            }
            Next::Wait => self.kept = faulted.or(self.kept),
            Next::Receive | Next::Notify(_) => self.kept = None,
        }
        let vmm = &self.guest.vmm;
        let may_run = matches!(vmm.phase, Phase::Running | Phase::Preparing(_));
        for vcpu in 0..4 {
            let expected = may_run && vmm.vcpu(vcpu) == Vcpu::Running;
            assert_eq!(self.runs(vcpu), expected, "vCPU {vcpu} in {:?} after {next:?}", vmm.phase);
            assert!(!(next == Next::Wait && self.runs(vcpu)), "a fault could come while it waits");
        }
    }

    fn fault(&mut self, vcpu: usize, label: u64, words: [u64; 4]) {
        if self.runs(vcpu) {
            self.guest.machine.0.borrow_mut().runs[vcpu] = false;
            let next = self.guest.vmm.fault(vcpu, label, words);
            self.after(next, Some(vcpu));
        }
    }

    fn store(&mut self, vcpu: usize, ipa: u64, value: u32) {
        self.guest.machine.0.borrow_mut().context(vcpu)[registers::X0 + 1] = value.into();
        self.fault(vcpu, VM_FAULT, [PC, ipa, 0, 0x9381_004f]);
    }

    fn smc(&mut self, vcpu: usize, x: [u64; 4]) -> i64 {
        self.guest.machine.0.borrow_mut().context(vcpu)[registers::X0..registers::X0 + 4].copy_from_slice(&x);
        self.fault(vcpu, VCPU_FAULT, [SMC, 0, 0, 0]);
        self.guest.machine.0.borrow_mut().context(vcpu)[registers::X0] as i64
    }

    fn wfi(&mut self, vcpu: usize) {
        self.fault(vcpu, VCPU_FAULT, [WFI, 0, 0, 0]);
    }

    fn notify(&mut self, channels: u64) {
        let next = self.guest.vmm.notified(channels);
        self.after(next, None);
    }

    fn want(&mut self, epoch: u32, state: CellState) {
        self.guest.wanted.publish(epoch, state);
        self.notify(1 << channel::SUPERVISOR);
    }

    /// Lets everything that has begun come to its end.
    fn settle(&mut self) {
        self.guest.answer_reset(Status::Ok);
        for _ in 0..20 {
            self.notify(1);
            for vcpu in 0..self.vcpus {
                if matches!(self.guest.vmm.phase, Phase::Preparing(_)) {
                    self.fault(vcpu, VCPU_FAULT, [SMC, 0, 0, 0]);
                }
            }
        }
    }

    fn actual(&self) -> (u32, CellState) {
        let actual = self.guest.actual;
        (actual.epoch.load(Ordering::Relaxed), CellState::from_word(actual.state.load(Ordering::Relaxed)))
    }
}

#[test]
fn stop_and_start_by_wish() {
    let mut world = World::new(1);
    world.guest.clear();
    world.want(0, CellState::Stopped);
    assert_eq!(world.actual(), (0, CellState::Stopped));
    assert_eq!(world.guest.calls(), [], "nobody is told that it stopped itself");
    world.want(0, CellState::Running);
    assert_eq!(world.actual(), (0, CellState::Stopped), "an epoch starts once");
    world.guest.ram.ram().write(0x4050_0000, b"old").unwrap();
    world.want(1, CellState::Running);
    assert!(matches!(world.guest.vmm.phase, Phase::Preparing(_)));
    world.settle();
    assert_eq!(world.actual(), (1, CellState::Running));
    assert_eq!(world.guest.ram.bytes(0x4050_0000, 3), [0; 3]);
    assert_eq!(world.guest.ram.bytes(guest::RAM, 16), KERNEL);
    assert!(world.guest.ram.bytes(guest::RAM + 16, 200).iter().all(|byte| *byte == 0), "the program is gone");
}

#[test]
fn restart_out_of_a_handler_ends_what_is_active() {
    let mut world = World::new(1);
    world.fault(0, VPPI, [27, 0, 0, 0]);
    world.want(1, CellState::Running);
    let x = world.guest.machine.0.borrow().registers[registers::X0..registers::X0 + 5].to_vec();
    assert_eq!(x, [guest::GICC, 27, 1023, 1023, 1023]);
    world.fault(0, MAINTENANCE, [0, 0, 0, 0]);
    world.settle();
    world.guest.clear();
    world.store(0, GICD, 1);
    world.store(0, GICD + 0x100, 1 << 27);
    world.fault(0, VPPI, [27, 0, 0, 0]);
    assert_eq!(world.guest.machine.0.borrow().injected.len(), 1, "27 is not taken any more");
}

#[test]
fn a_hundred_restarts_in_a_row() {
    let mut world = World::new(2);
    for epoch in 1..=100 {
        assert_eq!(world.smc(0, [CPU_ON, 1, guest::RAM, 0]), 0);
        world.wfi((epoch % 2) as usize);
        world.want(epoch, CellState::Running);
        world.settle();
        assert_eq!(world.actual(), (epoch, CellState::Running));
    }
}

#[test]
fn pause_keeps_a_sleeper_asleep_and_its_timer_due() {
    let mut world = World::new(1);
    world.guest.machine.0.borrow_mut().timer = (1, 1000);
    world.wfi(0);
    world.want(0, CellState::Paused);
    assert_eq!(world.actual().1, CellState::Paused);
    world.guest.machine.0.borrow_mut().now = 5000;
    world.guest.timer.fired.store(1000, Ordering::Relaxed);
    world.notify(1 << channel::TIMER);
    assert!(world.guest.vmm.is(0, Vcpu::Asleep));
    world.want(0, CellState::Running);
    assert!(world.runs(0), "the kernel reports the timer as soon as it runs");
}

#[test]
fn paused_while_held_in_a_reset() {
    let mut world = World::new(1);
    world.guest.answer_reset(Status::Pending);
    world.store(0, DISK + reg::STATUS as u64, 0);
    world.want(0, CellState::Paused);
    world.guest.answer_reset(Status::Ok);
    world.notify(1);
    assert!(!world.runs(0));
    world.want(0, CellState::Running);
    assert!(world.runs(0));
    assert_eq!(world.guest.machine.0.borrow().registers[0], PC + 4);
}

#[test]
fn wanted_paused_before_it_runs() {
    let mut world = World::new(1);
    world.want(3, CellState::Paused);
    world.settle();
    assert_eq!(world.actual(), (3, CellState::Paused));
    assert!(!world.runs(0));
}

#[test]
fn ends_itself_and_starts_in_the_next_epoch_only() {
    let mut world = World::new(1);
    world.want(0, CellState::Running);
    world.smc(0, [0x8400_0008, 0, 0, 0]);
    assert_eq!(world.actual(), (0, CellState::Ended));
    assert_eq!(world.guest.actual.reason.load(Ordering::Relaxed), StopReason::PowerOff as u32);
    world.notify(1 << channel::SUPERVISOR);
    assert_eq!(world.actual(), (0, CellState::Ended));
    world.want(1, CellState::Running);
    world.settle();
    assert_eq!(world.actual(), (1, CellState::Running));
}

#[test]
fn second_vcpu_starts_sleeps_is_woken_by_sgi_and_goes_off() {
    let mut world = World::new(2);
    assert_eq!(world.smc(0, [CPU_ON, 1, guest::RAM + 0x100, 77]), 0);
    let context = world.guest.machine.0.borrow().secondary[0];
    assert_eq!(context[..4], [guest::RAM + 0x100, 0, 0x3c5, 77]);
    assert_eq!(world.guest.actual.vcpus_on.load(Ordering::Relaxed), 2);
    world.store(1, GICD + 0x100, 1 << 27);
    world.wfi(1);
    assert!(world.guest.vmm.is(1, Vcpu::Asleep) && world.runs(0));
    world.store(0, GICD + 0xf00, 1 << 17 | 3);
    assert!(world.runs(1));
    assert_eq!(world.guest.machine.0.borrow().injected.last().unwrap().intid, 3);
    world.fault(1, MAINTENANCE, [0, 0, 0, 0]);
    world.wfi(0);
    world.wfi(1);
    assert_eq!(world.kept, Some(1), "with nobody running the reply is kept");
    world.notify(1 << channel::SUPERVISOR);
    world.guest.machine.0.borrow_mut().timer = (1, 0);
    world.notify(1 << channel::TIMER);
    assert!(world.runs(0) && world.runs(1));
    world.smc(1, [CPU_OFF, 0, 0, 0]);
    assert!(!world.runs(1));
    assert_eq!(world.smc(0, [0xc400_0004, 1, 0, 0]), 1);
    assert_eq!(world.guest.actual.vcpus_on.load(Ordering::Relaxed), 1);
}

/// A boot file of several pieces, as guests.img has it.
fn boot_file() -> (Vec<u8>, [u8; HEADER]) {
    let file: Vec<u8> = (0..1_500_000u32).map(|n| (n >> 3) as u8 | 1).collect();
    let header = Header { length: file.len() as u64, crc: crc32c(&file) }.to_bytes();
    let mut region = vec![0; LEAD];
    region[..HEADER].copy_from_slice(&header);
    region.extend(file);
    (region, header)
}

impl World {
    fn with_boot_file(region: Vec<u8>, expected: &[u8]) -> Self {
        let guest = Guest::with_boot_file(Vec::leak(region), expected);
        let mut world = World { guest, vcpus: 1, kept: None };
        world.guest.ram.ram().fill(guest::RAM, crate::fake::RAM, 0).unwrap();
        world.guest.log();
        let next = world.guest.vmm.begin();
        world.after(next, None);
        world
    }
}

#[test]
fn a_boot_file_is_checked_in_pieces_before_the_first_start_and_serves_restarts() {
    let (region, header) = boot_file();
    let file = region[LEAD..].to_vec();
    let mut world = World::with_boot_file(region, &header);
    // RAM is not cleared again: two pieces, and the exit that finds all done.
    for _ in 0..3 {
        assert!(matches!(world.guest.vmm.phase, Phase::Preparing(_)));
        world.fault(0, VCPU_FAULT, [SMC, 0, 0, 0]);
    }
    let log = world.guest.log();
    assert_eq!(world.actual(), (0, CellState::Running), "{:?} {log}", world.guest.vmm.phase);
    assert_eq!(world.guest.ram.bytes(guest::RAM, file.len()), file);
    world.guest.ram.ram().fill(guest::RAM, crate::fake::RAM, 0xa5).unwrap();
    world.want(1, CellState::Running);
    let mut exits = 0;
    while matches!(world.guest.vmm.phase, Phase::Preparing(_)) {
        world.fault(0, VCPU_FAULT, [SMC, 0, 0, 0]);
        exits += 1;
    }
    assert_eq!((exits, world.actual()), (4, (1, CellState::Running)), "cleared, not checked again");
    assert_eq!(world.guest.ram.bytes(guest::RAM, file.len()), file);
    assert!(world.guest.ram.bytes(guest::RAM + file.len() as u64, 4096).iter().all(|byte| *byte == 0));
}

#[test]
fn a_boot_file_that_is_missing_another_or_damaged_stops_its_guest_with_a_line() {
    let (good, header) = boot_file();
    let refused = |region: Vec<u8>| {
        let mut world = World::with_boot_file(region, &header);
        world.settle();
        assert_eq!(world.actual(), (0, CellState::Ended));
        assert_eq!(world.guest.actual.reason.load(Ordering::Relaxed), StopReason::Crash as u32);
        let told = world.guest.machine.0.borrow().calls.last().cloned().unwrap();
        assert_eq!(told, (channel::SUPERVISOR, supervisor::GUEST_STOPPED, vec![StopReason::Crash as u64]));
        let log = world.guest.log();
        // Another start says it again and changes nothing.
        world.want(1, CellState::Running);
        world.settle();
        assert_eq!(world.actual(), (1, CellState::Ended));
        log
    };
    assert!(refused(vec![0; good.len()]).contains(
        "cannot start: guests.img is not at 0xc0000000: found no header (the first bytes are 0000000000000000); load it \
         there beside loader.img"
    ));
    let mut other = good.clone();
    let header_of_other = Header { length: 7, crc: 8 }.to_bytes();
    other[..HEADER].copy_from_slice(&header_of_other);
    assert!(
        refused(other).contains("found that of another build (7 bytes with CRC 00000008 instead of 1500000")
    );
    let mut short = good.clone();
    short[LEAD + 1_400_000..].fill(0);
    assert!(refused(short).contains("found a damaged file or a part of it (CRC "));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Want { next_epoch: bool, state: u8 },
    Fault { vcpu: usize, label: u64, words: [u64; 4] },
    Store { vcpu: usize, ipa: u64, value: u32 },
    Smc { vcpu: usize, function: usize, target: u64 },
    Wfi { vcpu: usize },
    Notify { channels: u64 },
    Reset { answer: u64 },
    Time { passed: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let base =
        prop::sample::select(vec![DISK + 0x70, DISK + 0x50, CONSOLE + 0x70, GICD, GICD + 0xf00, guest::UART]);
    prop_oneof![
        3 => (any::<bool>(), 0u8..3).prop_map(|(next_epoch, state)| Step::Want { next_epoch, state }),
        2 => (0usize..4, prop::sample::select(vec![MAINTENANCE, VPPI]), 0u64..4)
            .prop_map(|(vcpu, label, index)| Step::Fault { vcpu, label, words: [index, 0, 0, 0] }),
        3 => (0usize..4, base, any::<u32>()).prop_map(|(vcpu, ipa, value)| Step::Store { vcpu, ipa, value: value & 0x020f_0001 }),
        3 => (0usize..4, 0usize..6, 0u64..5).prop_map(|(vcpu, function, target)| Step::Smc { vcpu, function, target }),
        4 => (0usize..4).prop_map(|vcpu| Step::Wfi { vcpu }),
        3 => any::<u64>().prop_map(|bits| Step::Notify { channels: bits & ((1 << channel::TIMER) | (1 << channel::CONSOLE) | 1) }),
        1 => (0u64..2).prop_map(|answer| Step::Reset { answer }),
        1 => (0u64..2000).prop_map(|passed| Step::Time { passed }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    /// Whatever the guest, its peers and the supervisor do, in any order: the VMM's belief is the kernel's truth (checked in
    /// [`World::after`]), and the last wish comes true.
    #[test]
    fn any_wish_comes_true(vcpus in 1usize..5, steps in prop::collection::vec(step(), 1..80), last in 0u8..3) {
        let mut world = World::new(vcpus);
        let mut epoch = 0;
        for step in steps {
            match step {
                Step::Want { next_epoch, state } => {
                    epoch += u32::from(next_epoch);
                    world.want(epoch, CellState::from_word(state.into()));
                }
                Step::Fault { vcpu, label, words } => world.fault(vcpu, label, words),
                Step::Store { vcpu, ipa, value } => world.store(vcpu, ipa, value),
                Step::Smc { vcpu, function, target } => {
                    let function = [CPU_ON, CPU_ON, CPU_OFF, 0xc400_0001, 0x8400_0008, 0x8400_0009][function];
                    world.smc(vcpu, [function, target, guest::RAM, 0]);
                }
                Step::Wfi { vcpu } => world.wfi(vcpu),
                Step::Notify { channels } => world.notify(channels),
                Step::Reset { answer } => world.guest.machine.0.borrow_mut().reset = answer,
                Step::Time { passed } => {
                    let mut state = world.guest.machine.0.borrow_mut();
                    state.now += passed;
                    state.timer = (1, state.now + 500);
                    let fired = state.now;
                    drop(state);
                    world.guest.timer.fired.store(fired, Ordering::Relaxed);
                }
            }
            world.guest.log();
        }
        let last = CellState::from_word(last.into());
        world.want(epoch + 1, last);
        world.settle();
        prop_assert_eq!(world.actual().1, last);
        if last != CellState::Stopped {
            prop_assert_eq!(world.actual().0, epoch + 1);
        }
    }
}

#[test]
fn a_restarted_vmm_stops_its_vcpus_and_starts_its_guest_as_wanted() {
    for vcpus in [1, 3] {
        let mut world = World::new(vcpus);
        // An interrupt is in the guest when the VMM dies.
        world.guest.vmm.gic.set_line(0, 33, true);
        world.guest.vmm.deliver();
        world.guest.wanted.publish(1, CellState::Running);

        let mut guest = Guest::again(vcpus);
        guest.machine.0.borrow_mut().runs[0] = true;
        let mut world = World {
            kept: None,
            vcpus,
            guest: {
                assert_eq!(guest.vmm.begin(), Next::Receive);
                guest
            },
        };
        let calls = world.guest.calls();
        assert_eq!(
            calls[..2],
            [(0, backend::RESET), (0, backend::INFO)],
            "no request of the guest before is in flight"
        );
        assert!(matches!(world.guest.vmm.phase, Phase::Preparing(_)));
        let registers = world.guest.machine.0.borrow_mut().context(0)[registers::X0..][..5].to_vec();
        assert_eq!(registers, [guest::GICC, 33, 1023, 1023, 1023], "what may be active is ended");
        world.settle();
        assert_eq!(world.guest.vmm.phase, Phase::Running);
        assert_eq!(
            (0..vcpus).map(|n| world.runs(n)).collect::<Vec<_>>(),
            (0..vcpus).map(|n| n == 0).collect::<Vec<_>>()
        );
        assert_eq!(world.guest.actual.epoch.load(Ordering::Relaxed), 1);
        assert_eq!(world.guest.actual.state.load(Ordering::Relaxed), CellState::Running as u32);
    }
}

/// Memory at an address that was asked for is not the kernel's, which has cleared its own only.
#[test]
fn memory_that_may_hold_something_is_cleared_before_the_first_start() {
    const OLD: u64 = guest::RAM + 0x10_0000;
    for stale in [false, true] {
        let mut guest = if stale { Guest::stale() } else { Guest::new(true) };
        guest.ram.ram().write(OLD, b"old").unwrap();
        let next = guest.vmm.begin();
        let mut world = World { guest, vcpus: 1, kept: None };
        world.after(next, None);
        assert_eq!(matches!(world.guest.vmm.phase, Phase::Preparing(_)), stale);
        world.settle();
        assert_eq!(world.guest.vmm.phase, Phase::Running);
        assert_eq!(world.guest.ram.bytes(OLD, 3), if stale { [0; 3] } else { *b"old" });
        assert_eq!(world.guest.ram.bytes(guest::RAM, 16), KERNEL);
    }
}

#[test]
fn a_restarted_vmm_whose_guest_is_not_wanted_says_that_it_is_off() {
    let world = World::new(1);
    assert_eq!(world.guest.actual.state.load(Ordering::Relaxed), CellState::Running as u32);
    world.guest.wanted.publish(0, CellState::Stopped);
    let mut guest = Guest::again(1);
    guest.machine.0.borrow_mut().runs[0] = true;
    assert_eq!(guest.vmm.begin(), Next::Receive);
    assert!(!guest.machine.0.borrow().runs[0]);
    assert_eq!(guest.actual.state.load(Ordering::Relaxed), CellState::Stopped as u32);
}

#[test]
fn a_ping_is_answered_and_changes_nothing_else() {
    let mut world = World::new(1);
    let before = world.guest.calls().len();
    world.notify(1 << channel::PING);
    world.notify(1 << channel::PING);
    assert_eq!(world.guest.vmm.alive.beats(), 2);
    assert_eq!((world.guest.calls().len(), world.guest.vmm.phase), (before, Phase::Running));
}

#[test]
fn an_interrupt_that_a_vcpu_took_with_it_comes_again_when_it_has_ended_it() {
    let mut world = World::new(2);
    assert_eq!(world.smc(0, [CPU_ON, 1, guest::RAM, 0]), 0);
    world.store(0, GICD + 0x830, 0x0202_0202);
    world.store(0, GICD + 0x104, 1 << (50 - 32));
    world.guest.vmm.gic.set_line(0, 50, true);
    world.guest.vmm.deliver();
    world.smc(1, [CPU_OFF, 0, 0, 0]);
    let injected = |world: &World| {
        let state = world.guest.machine.0.borrow();
        state.injected.iter().zip(&state.injected_to).map(|(i, to)| (i.intid, *to)).collect::<Vec<_>>()
    };
    assert_eq!(injected(&world), [(50, 1)], "and not into a second list register");
    assert_eq!(world.smc(0, [CPU_ON, 1, guest::RAM, 0]), 0);
    world.fault(1, MAINTENANCE, [0, 0, 0, 0]);
    assert_eq!(injected(&world), [(50, 1), (50, 1)], "the line is still high");
}
