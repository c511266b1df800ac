//! The guest's terminal from its driver to the console PD and back, in any order of events. Nobody looks without having been
//! told: the driver runs when its interrupt is injected, the VMM and the console PD when they are notified. So a
//! notification, an interrupt or a wake-up that is lost leaves bytes behind.

use std::collections::VecDeque;

use super::*;

/// Where the buffers are: of the transmit queue by head, then of the receive queue.
const BUFFERS: u64 = 0x4030_0000;
const BUFFER: u64 = 4096;
const SIZE: u16 = 8;
/// Room in the ring that the console PD waits for before it hands on more of what was typed.
const ROOM: usize = 1024;
/// Bytes that it prints in one go.
const PIECE: usize = 700;
/// Rounds in which everything has to end.
const ROUNDS: usize = 3000;
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const INTID: u16 = 49;

#[derive(Clone, Debug)]
enum Step {
    /// The driver sends buffers of these sizes.
    Send(Vec<usize>),
    /// It gives a buffer of this size for input.
    Supply(usize),
    /// The guest writes bytes to its PL011.
    Uart(usize),
    /// Somebody types.
    Type(usize),
    /// The console PD runs, if it was notified or has more to do, and prints up to so many bytes.
    Print(usize),
    /// The VMM runs, if it was notified.
    Vmm,
    /// The guest takes an interrupt.
    Interrupt,
    /// It rests until something wakes it.
    Rest,
    /// The console PD is started again.
    Again,
    /// The driver resets the device and starts it again.
    Reset,
}

struct World {
    guest: Guest,
    event_idx: bool,
    queues: [DriverQueue; 2],
    /// Buffers that are free, and where those are that the device has.
    places: [Vec<u64>; 2],
    by_head: [[u64; SIZE as usize]; 2],
    /// The console PD, and the VMM, were notified.
    told: [bool; 2],
    /// Injections that the guest has not taken.
    injected: VecDeque<u8>,
    next: u8,
    sent: Vec<u8>,
    printed: Vec<u8>,
    typed: Vec<u8>,
    /// Of them, what the console PD has no room for in the ring.
    ahead: VecDeque<u8>,
    read: Vec<u8>,
}

impl World {
    fn new(event_idx: bool) -> Self {
        let mut guest = Guest::running();
        let queues = Self::set_up(&mut guest, event_idx);
        // A console PD of now, and nothing of earlier guests of this thread.
        guest.console_again();
        guest.console.rx.read(&mut [0; 16384]);
        guest.clear();
        let mut world = Self {
            guest,
            event_idx,
            queues,
            places: places(),
            by_head: [[0; SIZE as usize]; 2],
            told: [true; 2],
            injected: VecDeque::new(),
            next: 0,
            sent: Vec::new(),
            printed: Vec::new(),
            typed: Vec::new(),
            ahead: VecDeque::new(),
            read: Vec::new(),
        };
        world.settle();
        // It rests now, and input wakes it.
        world.type_in(1);
        assert!(world.vmm() && world.interrupt() && world.awake());
        world.read.clear();
        world.typed.clear();
        world
    }

    /// Brings the device to DRIVER_OK.
    fn set_up(guest: &mut Guest, event_idx: bool) -> [DriverQueue; 2] {
        let ram = guest.ram.ram();
        let queues = [0, 1].map(|n| DriverQueue::new(ram, 0x4020_0000 + 0x1000 * n, SIZE, event_idx));
        for (register, value) in [
            (reg::STATUS, 3),
            (reg::DRIVER_FEATURES_SEL, 1),
            (reg::DRIVER_FEATURES, 1),
            (reg::DRIVER_FEATURES_SEL, 0),
            (reg::DRIVER_FEATURES, u32::from(event_idx) << 29),
            (reg::STATUS, 11),
        ] {
            guest.set(CONSOLE + register as u64, value);
        }
        for (n, queue) in queues.iter().enumerate() {
            for (register, value) in [
                (reg::QUEUE_SEL, n as u64),
                (reg::QUEUE_NUM, SIZE.into()),
                (reg::QUEUE_DESC_LOW, queue.layout.desc),
                (reg::QUEUE_DRIVER_LOW, queue.layout.avail),
                (reg::QUEUE_DEVICE_LOW, queue.layout.used),
                (reg::QUEUE_READY, 1),
            ] {
                guest.set(CONSOLE + register as u64, value as u32);
            }
        }
        guest.set(CONSOLE + reg::STATUS as u64, 15);
        queues
    }

    /// The vCPU can do something.
    fn awake(&self) -> bool {
        self.guest.vmm.is(0, Vcpu::Running)
    }

    /// Takes in what the VMM did.
    fn after(&mut self, next: Next) {
        let mut state = self.guest.machine.0.borrow_mut();
        let signals = core::mem::take(&mut state.signals);
        self.told[0] |= next == Next::Notify(channel::CONSOLE) || signals.contains(&channel::CONSOLE);
        let injected = core::mem::take(&mut state.injected);
        self.injected.extend(injected.iter().filter(|i| i.intid == INTID).map(|i| i.index));
    }

    fn store(&mut self, ipa: u64, value: u32) {
        let next = self.guest.store(ipa, value);
        self.after(next);
    }

    fn kick(&mut self, queue: usize) {
        if self.queues[queue].needs_kick() {
            self.store(CONSOLE + reg::QUEUE_NOTIFY as u64, queue as u32);
        }
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let first = self.next;
        self.next = first.wrapping_add(count as u8);
        (0..count).map(|i| first.wrapping_add(i as u8)).collect()
    }

    fn send(&mut self, sizes: &[usize]) {
        for size in sizes {
            let Some(place) = self.places[TRANSMIT].pop() else { break };
            let bytes = self.bytes(*size);
            self.guest.ram.ram().write(place, &bytes).unwrap();
            let head = self.queues[TRANSMIT].add(&[Buffer::out(place, *size as u32)]).unwrap();
            self.by_head[TRANSMIT][usize::from(head)] = place;
            self.sent.extend(bytes);
        }
        self.kick(TRANSMIT);
    }

    fn supply(&mut self, size: usize) {
        if let Some(place) = self.places[RECEIVE].pop() {
            let head = self.queues[RECEIVE].add(&[Buffer::into(place, size as u32)]).unwrap();
            self.by_head[RECEIVE][usize::from(head)] = place;
            self.kick(RECEIVE);
        }
    }

    /// The driver's look at its queues, as Linux does it: until there is nothing more after it has asked for an interrupt.
    fn look(&mut self) {
        for queue in [RECEIVE, TRANSMIT] {
            loop {
                while let Some((head, written)) = self.queues[queue].take_used() {
                    let place = self.by_head[queue][usize::from(head)];
                    self.places[queue].push(place);
                    if queue == RECEIVE {
                        self.read.extend(self.guest.ram.bytes(place, written as usize));
                    }
                }
                self.queues[queue].want_interrupt(true);
                let Some((head, written)) = self.queues[queue].take_used() else { break };
                let place = self.by_head[queue][usize::from(head)];
                self.places[queue].push(place);
                if queue == RECEIVE {
                    self.read.extend(self.guest.ram.bytes(place, written as usize));
                }
            }
        }
    }

    /// The guest takes an interrupt, if there is one.
    fn interrupt(&mut self) -> bool {
        let Some(index) = self.injected.pop_front() else { return false };
        assert!(self.awake(), "an interrupt of a vCPU that sleeps");
        self.store(CONSOLE + reg::INTERRUPT_ACK as u64, 1);
        self.look();
        let next = self.guest.vmm.fault(0, MAINTENANCE, [index.into(), 0, 0, 0]);
        self.after(next);
        // As every driver: it would never hear of input otherwise.
        if self.places[RECEIVE].len() == usize::from(SIZE) {
            self.supply(64);
        }
        true
    }

    fn uart(&mut self, count: usize) {
        for byte in self.bytes(count) {
            // Its FIFO is as deep as the ring: a driver looks at the flag first.
            if self.guest.vmm.terminal.uart.read(0x18) & (1 << 5) == 0 {
                self.sent.push(byte);
                self.store(guest::UART, byte.into());
            }
        }
    }

    fn rest(&mut self) {
        let next = self.guest.trap(WFI);
        self.after(next);
    }

    fn vmm(&mut self) -> bool {
        let told = core::mem::take(&mut self.told[1]);
        if told {
            let next = self.guest.vmm.notified(1 << channel::CONSOLE);
            self.after(next);
        }
        told
    }

    fn feed(&mut self) {
        let tx = &mut self.guest.console.tx;
        loop {
            let (front, _) = self.ahead.as_slices();
            let taken = tx.write(front);
            self.ahead.drain(..taken);
            if self.ahead.is_empty() || taken == 0 && !tx.arm(ROOM) {
                return;
            }
        }
    }

    fn type_in(&mut self, count: usize) {
        let bytes = self.bytes(count);
        self.typed.extend(&bytes);
        self.ahead.extend(bytes);
        self.feed();
        self.tell_vmm();
    }

    fn tell_vmm(&mut self) {
        let console = &mut self.guest.console;
        let (tx, rx) = (console.tx.should_notify(), console.rx.should_notify());
        self.told[1] |= tx | rx;
    }

    /// The console PD's event: it prints until nothing is left and it has asked to hear of more, or its time is over; then its
    /// UART wakes it again.
    fn print(&mut self, most: usize) -> bool {
        if !core::mem::take(&mut self.told[0]) {
            return false;
        }
        self.feed();
        let mut left = most;
        loop {
            let mut bytes = vec![0; left.min(PIECE)];
            let count = self.guest.console.rx.read(&mut bytes);
            self.printed.extend(&bytes[..count]);
            left -= count;
            if left == 0 {
                self.told[0] = true;
                break;
            }
            if count == 0 && !self.guest.console.rx.arm() {
                break;
            }
        }
        self.tell_vmm();
        true
    }

    fn again(&mut self) {
        self.guest.console_again();
        self.told[0] = true;
    }

    /// What was not moved yet of the device's buffers is gone with its queues.
    fn reset(&mut self) {
        self.store(CONSOLE + reg::STATUS as u64, 0);
        self.told[0] = true;
        self.print(usize::MAX);
        self.look();
        assert!(self.sent.starts_with(&self.printed), "what was printed was not sent");
        self.sent.clone_from(&self.printed);
        self.queues = Self::set_up(&mut self.guest, self.event_idx);
        self.places = places();
        self.after(Next::Receive);
        self.supply(64);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Type(count) => self.type_in(count),
            Step::Print(most) => _ = self.print(most),
            Step::Vmm => _ = self.vmm(),
            Step::Again => self.again(),
            _ if !self.awake() => {}
            Step::Send(sizes) => self.send(&sizes),
            Step::Supply(size) => self.supply(size),
            Step::Uart(count) => self.uart(count),
            Step::Interrupt => _ = self.interrupt(),
            Step::Rest => self.rest(),
            Step::Reset => self.reset(),
        }
    }

    /// Everybody does what they were told to look at, and nothing else; the guest supplies buffers for what is typed.
    fn settle(&mut self) {
        if self.awake() {
            self.supply(64);
        }
        for _ in 0..ROUNDS {
            let mut busy = self.print(4096) | self.vmm();
            while self.awake() && self.interrupt() {
                busy = true;
                self.supply(64);
            }
            if self.awake() {
                self.rest();
                busy |= self.awake() || self.told != [false; 2];
            }
            if !busy {
                return;
            }
        }
        panic!("no end");
    }
}

fn places() -> [Vec<u64>; 2] {
    let place = |n: u64| BUFFERS + BUFFER * n;
    [(0..SIZE.into()).map(place).collect(), (0..SIZE.into()).map(|n| place(n + 8)).collect()]
}

fn step() -> impl Strategy<Value = Step> {
    let size = || prop_oneof![3 => 1usize..100, 1 => 1000..=BUFFER as usize];
    prop_oneof![
        4 => prop::collection::vec(size(), 1..8).prop_map(Step::Send),
        3 => size().prop_map(Step::Supply),
        1 => (1usize..40).prop_map(Step::Uart),
        3 => prop_oneof![3 => 1usize..60, 1 => 1000usize..9000].prop_map(Step::Type),
        5 => prop_oneof![1usize..50, 500usize..9000].prop_map(Step::Print),
        5 => Just(Step::Vmm),
        4 => Just(Step::Interrupt),
        2 => Just(Step::Rest),
        1 => Just(Step::Again),
        1 => Just(Step::Reset),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_byte_arrives_though_nobody_looks_untold(event_idx: bool, steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::new(event_idx);
        for step in steps {
            world.step(step);
        }
        world.settle();
        prop_assert_eq!(world.printed.len(), world.sent.len(), "bytes were sent and not printed");
        prop_assert!(world.printed == world.sent);
        prop_assert_eq!(world.read.len(), world.typed.len(), "bytes were typed and not read");
        prop_assert!(world.read == world.typed);
    }
}

#[test]
fn the_pl011_waits_while_the_virtio_console_has_filled_the_ring() {
    let mut world = World::new(true);
    world.send(&[4096, 4096]);
    assert_eq!(world.guest.vmm.terminal.uart.read(0x18) & 0x20, 0x20, "TXFF");
    world.print(usize::MAX);
    world.vmm();
    assert_eq!(world.guest.vmm.terminal.uart.read(0x18) & 0x20, 0);
    world.uart(1);
    world.settle();
    assert_eq!((world.printed.len(), &world.printed), (8193, &world.sent));
}
