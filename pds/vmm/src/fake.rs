//! A machine without a kernel, for tests and fuzzing: it records what the VMM does to it, and answers as backends and
//! supervisor would.

use std::boxed::Box;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::vec::Vec;

use heapless::Vec as Slots;
use partita_guest::gic::Injection;
use partita_guest::lines::Lines;
use partita_guest::registers;
use partita_protocol::MAX_VCPUS;
use partita_protocol::alive::Alive;
use partita_protocol::backend::{self, BackendStatus, DeviceStatus, Status};
use partita_protocol::layout::{channel, guest};
use partita_protocol::lifecycle::{Actual, Wanted};
use partita_protocol::links::{DoorbellRx, DoorbellTx};
use partita_protocol::stats::VmmStats;
use partita_protocol::timer::{TimerRequest, TimerState};
use partita_ring::log::Logger;
use partita_ring::{AtomicU64, Duplex, Header, Mine, Rx, Yours};
use partita_virtio::fake::FakeRam;
use partita_virtio::mmio::RegisterPage;

use crate::devices::Slot;
use crate::files::Files;
use crate::links::{Description, Links};
use crate::load::Images;
use crate::machine::{Field, Machine, Page};
use crate::remote::{Backend, device_id};
use crate::terminal::{Port, Terminal};
use crate::vmm::{CellLink, Parts, TimerLink, Vmm};

/// Bytes of a [`Guest`]'s RAM.
pub const RAM: u64 = 6 << 20;

/// What the VMM did, and what the guest's vCPUs hold.
pub struct State {
    /// Context of vCPU 0.
    pub registers: [u64; registers::WORDS],
    /// Contexts of the other vCPUs.
    pub secondary: [[u64; registers::WORDS]; MAX_VCPUS - 1],
    /// Which vCPUs the kernel would run. Whoever plays a fault clears the bit, and sets it for [`Next::Reply`].
    pub runs: [bool; MAX_VCPUS],
    /// A vCPU was resumed since this was cleared.
    pub resumed: bool,
    /// Times its context was read.
    pub reads: usize,
    /// Times it was suspended.
    pub suspended: usize,
    /// VCPU fields: CNTV_CTL and CNTV_CVAL.
    pub timer: (u64, u64),
    /// The same of each vCPU, where they differ.
    pub timers: [Option<(u64, u64)>; MAX_VCPUS],
    /// Fields that were written.
    pub fields: Vec<(Field, u64)>,
    /// List registers that were written.
    pub injected: Vec<Injection>,
    /// Whose they are.
    pub injected_to: Vec<usize>,
    /// Times the timer was acknowledged.
    pub acks: usize,
    /// Whose timers were.
    pub acked: Vec<usize>,
    /// Interrupts of devices that were acknowledged.
    pub irq_acks: Vec<usize>,
    /// CNTPCT.
    pub now: u64,
    /// Channels that were signalled.
    pub signals: Vec<usize>,
    /// Protected calls.
    pub calls: Vec<(usize, u64, Vec<u64>)>,
    /// What the backend answers to RESET.
    pub reset: u64,
    /// What the backend answers to everything else.
    pub status: u64,
}

impl Default for State {
    fn default() -> Self {
        Self {
            registers: [0; registers::WORDS],
            secondary: [[0; registers::WORDS]; MAX_VCPUS - 1],
            runs: [false; MAX_VCPUS],
            resumed: false,
            reads: 0,
            suspended: 0,
            timer: (0, 0),
            timers: [None; MAX_VCPUS],
            fields: Vec::new(),
            injected: Vec::new(),
            injected_to: Vec::new(),
            acks: 0,
            acked: Vec::new(),
            irq_acks: Vec::new(),
            now: 0,
            signals: Vec::new(),
            calls: Vec::new(),
            reset: 0,
            status: 0,
        }
    }
}

impl State {
    /// Context of a vCPU.
    pub fn context(&mut self, vcpu: usize) -> &mut [u64; registers::WORDS] {
        match vcpu.checked_sub(1) {
            None => &mut self.registers,
            Some(n) => &mut self.secondary[n],
        }
    }
}

/// [`Machine`] over a shared [`State`].
#[derive(Clone, Default)]
pub struct FakeMachine(pub Rc<RefCell<State>>);

impl Machine for FakeMachine {
    fn registers(&mut self, vcpu: usize, into: &mut [u64]) {
        let mut state = self.0.borrow_mut();
        state.reads += 1;
        into.iter_mut().zip(*state.context(vcpu)).for_each(|(to, from)| *to = from);
    }
    fn set_registers(&mut self, vcpu: usize, prefix: &[u64], resume: bool) {
        let mut state = self.0.borrow_mut();
        state.context(vcpu).iter_mut().zip(prefix).for_each(|(to, from)| *to = *from);
        state.resumed |= resume;
        state.runs[vcpu] |= resume;
    }
    fn resume(&mut self, vcpu: usize) {
        let mut state = self.0.borrow_mut();
        state.resumed = true;
        state.runs[vcpu] = true;
    }
    fn suspend(&mut self, vcpu: usize) {
        let mut state = self.0.borrow_mut();
        state.suspended += 1;
        state.runs[vcpu] = false;
    }
    fn reset(&mut self, vcpu: usize) {
        let mut state = self.0.borrow_mut();
        state.timer = (0, 0);
        state.timers[vcpu] = None;
    }
    fn field(&mut self, vcpu: usize, field: Field) -> u64 {
        let state = self.0.borrow();
        let (ctl, cval) = state.timers[vcpu].unwrap_or(state.timer);
        match field {
            Field::CntvCtl => ctl,
            Field::CntvCval => cval,
            _ => 0,
        }
    }
    fn set_field(&mut self, _: usize, field: Field, value: u64) {
        self.0.borrow_mut().fields.push((field, value));
    }
    fn inject(&mut self, vcpu: usize, injection: Injection) {
        let mut state = self.0.borrow_mut();
        state.injected.push(injection);
        state.injected_to.push(vcpu);
    }
    fn ack_timer(&mut self, vcpu: usize) {
        let mut state = self.0.borrow_mut();
        state.acks += 1;
        state.acked.push(vcpu);
    }
    fn ack_irq(&mut self, channel: usize) {
        self.0.borrow_mut().irq_acks.push(channel);
    }
    fn counter(&self) -> u64 {
        self.0.borrow().now
    }
    fn frequency(&self) -> u64 {
        62_500_000
    }
    fn signal(&mut self, channel: usize) {
        self.0.borrow_mut().signals.push(channel);
    }
    fn call(&mut self, channel: usize, label: u64, request: &[u64], reply: &mut [u64]) -> usize {
        let mut state = self.0.borrow_mut();
        state.calls.push((channel, label, request.to_vec()));
        if channel == channel::SUPERVISOR {
            return 0;
        }
        let info = [state.status, 0, 1, 128, 8, 0x1_0000];
        let words = match label {
            backend::label::INFO => info.as_slice(),
            backend::label::RESET => &[state.reset],
            _ => &[state.status],
        };
        reply.iter_mut().zip(words).for_each(|(to, from)| *to = *from);
        words.len().min(reply.len())
    }
    fn clean(&mut self, offset: u64, bytes: u64) {
        assert!(offset + bytes <= RAM);
    }
    fn publish(&mut self, offset: u64, bytes: u64) {
        assert!(offset + bytes <= RAM);
    }
}

/// A register page on the heap.
#[derive(Clone, Copy)]
pub struct FakePage(&'static [Cell<u32>; 1024]);

impl FakePage {
    /// All zero.
    pub fn new() -> Self {
        Self(Box::leak(Box::new([const { Cell::new(0) }; 1024])))
    }
}

impl Default for FakePage {
    fn default() -> Self {
        Self::new()
    }
}

impl RegisterPage for FakePage {
    fn store(&mut self, offset: usize, value: u32) {
        self.0[offset / 4].set(value);
    }
}

impl Page for FakePage {
    fn load(&self, offset: usize) -> u32 {
        self.0[offset / 4].get()
    }
}

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

/// A ring: our end and the other side's.
fn ring() -> [(Mine<'static>, Yours<'static>); 2] {
    let data = || &*Vec::leak((0..1024).map(|_| AtomicU64::new(0)).collect());
    let (ours, theirs) = (leak(Header::new()), leak(Header::new()));
    let (ours_data, theirs_data): (&[_], &[_]) = (data(), data());
    [
        (Mine::new(ours, ours_data), Yours::new(theirs, theirs_data)),
        (Mine::new(theirs, theirs_data), Yours::new(ours, ours_data)),
    ]
}

/// What lives as long as the thread: a [`Guest`] takes it over from the one before, so that a fuzzer does not run out of
/// memory. Bytes left in a ring stay there.
struct Shared {
    ram: FakeRam,
    pages: [FakePage; 3],
    log: [(Mine<'static>, Yours<'static>); 2],
    console: [(Mine<'static>, Yours<'static>); 2],
    backend: &'static BackendStatus,
    timer: &'static TimerState,
    request: &'static TimerRequest,
    stats: &'static VmmStats,
    wanted: &'static Wanted,
    actual: &'static Actual,
    alive: &'static Alive,
    bells: (&'static DoorbellTx, &'static DoorbellRx),
}

impl Shared {
    fn new() -> Self {
        let device = |_| DeviceStatus {
            used: Default::default(),
            config: Default::default(),
            needs_reset: Default::default(),
            reset: Default::default(),
            reserved: Default::default(),
        };
        Self {
            ram: FakeRam::new(guest::RAM, RAM, 0),
            pages: [FakePage::new(), FakePage::new(), FakePage::new()],
            log: ring(),
            console: ring(),
            backend: leak(BackendStatus {
                devices: core::array::from_fn(device),
                generation: Default::default(),
            }),
            timer: leak(TimerState { fired: Default::default(), count: Default::default() }),
            request: leak(TimerRequest { deadline: Default::default() }),
            stats: leak(VmmStats::new()),
            wanted: leak(Wanted::default()),
            alive: leak(Alive::default()),
            actual: leak(Actual::default()),
            bells: (leak(DoorbellTx::default()), leak(DoorbellRx::default())),
        }
    }
}

thread_local! {
    static SHARED: &'static Shared = leak(Shared::new());
}

/// A VMM with one disk, a console, a link to one other cell, and a kernel of four instructions.
pub struct Guest {
    /// The VMM.
    pub vmm: Vmm<'static, FakeMachine, FakePage>,
    /// What it did.
    pub machine: FakeMachine,
    /// What the disk's backend writes.
    pub backend: &'static BackendStatus,
    /// What timer writes.
    pub timer: &'static TimerState,
    /// What the VMM writes for timer.
    pub request: &'static TimerRequest,
    /// Counters.
    pub stats: &'static VmmStats,
    /// The supervisor's wish.
    pub wanted: &'static Wanted,
    /// What the VMM answers.
    pub actual: &'static Actual,
    /// Guest RAM.
    pub ram: FakeRam,
    /// The disk's registers, as the guest reads them.
    pub page: FakePage,
    /// The control table of its link, as the guest reads it.
    pub table: FakePage,
    /// Doorbells, both ways.
    pub bells: (&'static DoorbellTx, &'static DoorbellRx),
    /// What came out of the log.
    pub log: Rx<'static>,
    /// The console PD's end of the guest's terminal.
    pub console: Duplex<'static>,
}

/// The guest's kernel: any bytes that are no known file format.
pub const KERNEL: &[u8] = &[0x5f; 16];

const IN_IMAGE: Images<'static> = Images { kernel: KERNEL, initrd: &[1; 100], dtb: &[2; 50], plain: true };

impl Guest {
    /// Before [`Vmm::begin`].
    pub fn new(autostart: bool) -> Self {
        Self::with_vcpus(autostart, 1)
    }

    /// The same with several vCPUs.
    pub fn with_vcpus(autostart: bool, vcpus: usize) -> Self {
        Self::forget();
        Self::attach(autostart, vcpus, false, IN_IMAGE, Files::in_image())
    }

    /// With boot files beside the image: `kernel` behind its header, which should be `expected`.
    pub fn with_boot_file(kernel: &'static [u8], expected: &[u8]) -> Self {
        Self::forget();
        let (files, [kernel, _]) = Files::open(0xc000_0000, kernel, None, expected);
        Self::attach(true, 1, false, Images { kernel, ..IN_IMAGE }, files)
    }

    /// A first life over memory that may hold something, which is started at once.
    pub fn stale() -> Self {
        Self::forget();
        Self::attach(true, 1, true, IN_IMAGE, Files::in_image())
    }

    /// What the last VMM of this thread left in its pages.
    fn forget() {
        SHARED.with(|shared| {
            shared.wanted.valid.store(0, Ordering::Relaxed);
            shared.alive.clear();
            shared.actual.held.iter().flatten().for_each(|intid| intid.store(0, Ordering::Relaxed));
        });
    }

    /// The VMM that this thread's last one is restarted as: the pages are as that one left them.
    pub fn again(vcpus: usize) -> Self {
        Self::attach(true, vcpus, false, IN_IMAGE, Files::in_image())
    }

    fn attach(
        autostart: bool,
        vcpus: usize,
        stale: bool,
        images: Images<'static>,
        files: Files<'static>,
    ) -> Self {
        let machine = FakeMachine::default();
        let Shared { ram, pages, log, console, backend, timer, request, stats, wanted, actual, alive, bells } =
            SHARED.with(|shared| *shared);
        backend.devices[0].needs_reset.store(0, Ordering::Relaxed);
        timer.fired.store(0, Ordering::Relaxed);
        let attach = |(mine, yours)| Duplex::new(mine, yours);
        let link = Description { id: 3, peers: 2, peer: 1, shared: 0x2000, output: 0x1_0000 };
        let link = Links::new([link].into_iter().collect(), [pages[2]].into_iter(), *bells, 62_500_000);
        let mut devices = Slots::new();
        let disk = Backend { id: device_id::BLK, channel: 0, device: 0, status: backend };
        let _ = devices.push(Slot::Waiting(pages[0], disk));
        let mut lines = Lines::new();
        assert!(lines.add(channel::VMM_PASSTHROUGH as u8, 80, false));
        let vmm = Vmm::new(Parts {
            alive,
            machine: machine.clone(),
            logger: Logger::new(log[0].0, log[0].1, || ()),
            ram: ram.ram(),
            stale,
            images,
            files,
            vcpus,
            devices,
            terminal: Terminal::new(attach(console[0]), Some((1, Port::new(pages[1])))),
            lines,
            links: Some(link),
            timer: TimerLink { request, state: timer },
            stats,
            cell: CellLink { wanted, actual },
            autostart,
        });
        Self {
            vmm,
            machine,
            backend,
            timer,
            request,
            stats,
            wanted,
            actual,
            ram: *ram,
            page: pages[0],
            table: pages[2],
            bells: *bells,
            log: attach(log[1]).rx,
            console: attach(console[1]),
        }
    }

    /// The console PD is started again.
    pub fn console_again(&mut self) {
        let (mine, yours) = SHARED.with(|shared| shared.console[1]);
        self.console = Duplex::new(mine, yours);
    }

    /// The log since the last call.
    pub fn log(&mut self) -> std::string::String {
        let mut bytes = std::vec![0; 8192];
        let length = self.log.read(&mut bytes);
        std::string::String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    /// Makes the backend answer RESET like this.
    pub fn answer_reset(&self, status: Status) {
        self.machine.0.borrow_mut().reset = status as u64;
    }
}
