//! The guest's timers, its sleep and its interrupts, against a model of what seL4 does with them and of the timer PD: nobody
//! sleeps past its deadline, whatever several vCPUs set, mask and end in whatever order, and however late notifications are.

use std::collections::VecDeque;

use partita_protocol::lifecycle::CellState;
use partita_protocol::timer::NEVER;

use super::*;

const VTIMER: u16 = 27;
/// Steps in which everything has to come to rest.
const ROUNDS: usize = 2000;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The vCPU sets its timer to so many counts from now (or into the past), or switches it off.
    Set(usize, Option<i64>),
    /// It masks or unmasks the timer's interrupt in its distributor.
    Enable(usize, bool),
    /// It takes an interrupt: sets the timer to so many counts from now, or switches it off, and ends it.
    Take(usize, Option<i64>),
    Wfi(usize),
    /// An SGI to another.
    Sgi(usize, usize),
    Pass(u64),
    /// The timer PD runs, if it was notified or its time has come.
    Timer,
    /// The VMM is notified by it, if it is to be.
    Vmm,
    Pause(bool),
}

struct World {
    guest: Guest,
    vcpus: usize,
    /// The kernel has reported the timer and waits for an acknowledgement.
    masked: [bool; 4],
    enabled: [bool; 4],
    /// List registers: written and not ended.
    lists: [VecDeque<(u8, u16)>; 4],
    kept: Option<usize>,
    epoch: u32,
    /// The timer PD: it was told, when it will look, and whether it has told the VMM.
    told: bool,
    armed: u64,
    notified: bool,
}

impl World {
    fn new(vcpus: usize) -> Self {
        let mut guest = Guest::with_vcpus(true, vcpus);
        let next = guest.vmm.begin();
        guest.request.deadline.store(0, Ordering::Relaxed);
        guest.machine.0.borrow_mut().now = 1_000_000;
        let mut world = Self {
            guest,
            vcpus,
            masked: [false; 4],
            enabled: [true; 4],
            lists: Default::default(),
            kept: None,
            epoch: 0,
            told: false,
            armed: NEVER,
            notified: false,
        };
        world.after(next, None);
        world.store(0, GICD, 1);
        for vcpu in 1..vcpus {
            let x = [0xc400_0003, vcpu as u64, guest::RAM, 0];
            world.guest.machine.0.borrow_mut().context(0)[registers::X0..][..4].copy_from_slice(&x);
            world.fault(0, VCPU_FAULT, [SMC, 0, 0, 0]);
        }
        (0..vcpus).for_each(|vcpu| world.store(vcpu, GICD + 0x100, 1 << VTIMER));
        world
    }

    fn now(&self) -> u64 {
        self.guest.machine.0.borrow().now
    }

    fn runs(&self, vcpu: usize) -> bool {
        vcpu < self.vcpus && self.guest.machine.0.borrow().runs[vcpu]
    }

    fn timer(&self, vcpu: usize) -> (u64, u64) {
        self.guest.machine.0.borrow().timers[vcpu].unwrap_or((0, 0))
    }

    fn set_timer(&mut self, vcpu: usize, after: Option<i64>) {
        let now = self.now();
        let value = after.map_or((0, 0), |after| (1, now.saturating_add_signed(after)));
        self.guest.machine.0.borrow_mut().timers[vcpu] = Some(value);
    }

    fn after(&mut self, next: Next, faulted: Option<usize>) {
        let mut state = self.guest.machine.0.borrow_mut();
        match next {
            Next::Reply => {
                let vcpu = faulted.or(self.kept.take()).expect("somebody to answer");
                state.runs[vcpu] = true;
            }
            Next::Wait => self.kept = faulted.or(self.kept),
            Next::Receive | Next::Notify(_) => self.kept = None,
        }
        let signals = core::mem::take(&mut state.signals);
        self.told |= next == Next::Notify(channel::TIMER) || signals.contains(&channel::TIMER);
        let (injected, to) = (core::mem::take(&mut state.injected), core::mem::take(&mut state.injected_to));
        for (injection, vcpu) in injected.into_iter().zip(to) {
            let lists = &mut self.lists[vcpu];
            assert!(
                lists.iter().all(|(index, intid)| *index != injection.index && *intid != injection.intid)
            );
            lists.push_back((injection.index, injection.intid));
        }
        for vcpu in core::mem::take(&mut state.acked) {
            self.masked[vcpu] = false;
        }
        drop(state);
        self.guest.log();
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

    /// Its timer is on and its time has come.
    fn is_due(&self, vcpu: usize) -> bool {
        let (ctl, cval) = self.timer(vcpu);
        ctl == 1 && cval <= self.now()
    }

    /// What the kernel reports of those that run.
    fn kernel(&mut self) -> bool {
        let mut any = false;
        for vcpu in 0..self.vcpus {
            if self.runs(vcpu) && self.is_due(vcpu) && !self.masked[vcpu] {
                self.masked[vcpu] = true;
                self.fault(vcpu, VPPI, [VTIMER.into(), 0, 0, 0]);
                any = true;
            }
        }
        any
    }

    fn take(&mut self, vcpu: usize, after: Option<i64>) -> bool {
        if !self.runs(vcpu) {
            return false;
        }
        let Some((index, intid)) = self.lists[vcpu].pop_front() else { return false };
        if intid == VTIMER {
            self.set_timer(vcpu, after);
        }
        self.fault(vcpu, MAINTENANCE, [index.into(), 0, 0, 0]);
        true
    }

    /// WFI traps only if it would wait.
    fn wfi(&mut self, vcpu: usize) {
        if self.lists.get(vcpu).is_some_and(VecDeque::is_empty) {
            self.fault(vcpu, VCPU_FAULT, [WFI, 0, 0, 0]);
        }
    }

    /// As `pds/timer` (`deadlines.rs`): it reads what is wanted when it is told, and again when that is due.
    fn timer_pd(&mut self) {
        let fired = self.guest.timer.fired.load(Ordering::Relaxed);
        let wanted = match self.guest.request.deadline.load(Ordering::Relaxed) {
            deadline if deadline <= fired => NEVER,
            deadline => deadline,
        };
        if core::mem::take(&mut self.told) || self.armed <= self.now() {
            self.armed = wanted;
            if wanted <= self.now() {
                self.guest.timer.fired.store(wanted, Ordering::Relaxed);
                self.armed = NEVER;
                self.notified = true;
            }
        }
    }

    fn vmm(&mut self) {
        if core::mem::take(&mut self.notified) {
            let next = self.guest.vmm.notified(1 << channel::TIMER);
            self.after(next, None);
        }
    }

    fn pause(&mut self, paused: bool) {
        let state = if paused { CellState::Paused } else { CellState::Running };
        self.guest.wanted.publish(self.epoch, state);
        let next = self.guest.vmm.notified(1 << channel::SUPERVISOR);
        self.after(next, None);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Set(vcpu, after) if self.runs(vcpu) => self.set_timer(vcpu, after),
            Step::Enable(vcpu, on) if self.runs(vcpu) => {
                self.enabled[vcpu] = on;
                self.store(vcpu, GICD + if on { 0x100 } else { 0x180 }, 1 << VTIMER);
            }
            Step::Take(vcpu, after) => _ = self.take(vcpu, after),
            Step::Wfi(vcpu) => self.wfi(vcpu),
            Step::Sgi(vcpu, to) if self.runs(vcpu) => self.store(vcpu, GICD + 0xf00, 1 << (16 + to)),
            Step::Pass(counts) => self.guest.machine.0.borrow_mut().now += counts,
            Step::Timer => self.timer_pd(),
            Step::Vmm => self.vmm(),
            Step::Pause(paused) => self.pause(paused),
            Step::Set(..) | Step::Enable(..) | Step::Sgi(..) => {}
        }
        // Between two instructions, and before the next that could sleep.
        if !matches!(step, Step::Pass(_)) {
            self.kernel();
        }
        self.nobody_is_forgotten();
    }

    /// Who sleeps and has a timer is woken in time: by the timer PD, or by what is already under way to it or from it.
    fn nobody_is_forgotten(&self) {
        let paused = self.guest.vmm.phase == Phase::Paused;
        for vcpu in (0..self.vcpus).filter(|vcpu| !paused && self.guest.vmm.is(*vcpu, Vcpu::Asleep)) {
            let (ctl, cval) = self.timer(vcpu);
            if ctl != 1 || !self.enabled[vcpu] || self.notified {
                continue;
            }
            let asked = self.guest.request.deadline.load(Ordering::Relaxed);
            let fired = self.guest.timer.fired.load(Ordering::Relaxed);
            let known = if self.told && asked > fired { asked } else { self.armed };
            assert!(known <= cval, "vCPU {vcpu} sleeps until {cval}, the timer until {known}");
            assert!(self.lists[vcpu].is_empty(), "vCPU {vcpu} sleeps beside an interrupt");
        }
    }

    /// The guest goes on; each timer is let through and switched off when its interrupt is taken.
    fn settle(&mut self) {
        self.pause(false);
        for _ in 0..ROUNDS {
            let mut busy = self.kernel();
            for vcpu in 0..self.vcpus {
                if self.runs(vcpu) && !self.enabled[vcpu] {
                    self.step(Step::Enable(vcpu, true));
                    busy = true;
                }
                while self.take(vcpu, None) {
                    busy = true;
                }
                self.wfi(vcpu);
            }
            self.timer_pd();
            busy |= self.notified;
            self.vmm();
            self.nobody_is_forgotten();
            if !busy && !self.told {
                if self.armed == NEVER {
                    return;
                }
                let mut state = self.guest.machine.0.borrow_mut();
                state.now = state.now.max(self.armed);
            }
        }
        panic!("no end");
    }
}

fn step() -> impl Strategy<Value = Step> {
    let vcpu = || 0usize..4;
    let after =
        || prop_oneof![1 => Just(None), 4 => (1i64..2000).prop_map(Some), 1 => (-2000i64..=0).prop_map(Some)];
    prop_oneof![
        4 => (vcpu(), after()).prop_map(|(vcpu, after)| Step::Set(vcpu, after)),
        2 => (vcpu(), any::<bool>()).prop_map(|(vcpu, on)| Step::Enable(vcpu, on)),
        4 => (vcpu(), after()).prop_map(|(vcpu, after)| Step::Take(vcpu, after)),
        6 => vcpu().prop_map(Step::Wfi),
        2 => (vcpu(), vcpu()).prop_map(|(vcpu, to)| Step::Sgi(vcpu, to)),
        4 => (0u64..1500).prop_map(Step::Pass),
        4 => Just(Step::Timer),
        4 => Just(Step::Vmm),
        1 => any::<bool>().prop_map(Step::Pause),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn nobody_sleeps_past_its_deadline(vcpus in 1usize..5, steps in prop::collection::vec(step(), 1..150)) {
        let mut world = World::new(vcpus);
        for step in steps {
            world.step(step);
        }
        world.settle();
        for vcpu in 0..vcpus {
            // One that has masked it and sleeps gets what it wants.
            prop_assert!(world.timer(vcpu).0 == 0 || !world.enabled[vcpu], "the timer of vCPU {} never came", vcpu);
            prop_assert!(world.guest.vmm.is(vcpu, Vcpu::Asleep));
        }
    }
}
