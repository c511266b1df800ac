//! Small systems, described as the packer would, and user code that is a closure's system call.

use zerocopy::IntoBytes;

use super::fake::Fake;
use crate::abi::{MessageInfo, REGISTERS, buffer};
use crate::boot::{self, Arena};
use crate::context::Context;
use crate::fault::Fault;
use crate::id::{Id, TcbId};
use crate::image::{self, Header, MAGIC, NONE, Table, VERSION, cap};
use crate::kernel::Kernel;
use crate::object::State;

pub type TestKernel = Kernel<'static, Fake>;

/// Ticks per second: one a microsecond.
pub const FREQUENCY: u64 = 1_000_000;
/// Slots of the one CNode every thread has.
pub const CNODE_BITS: u32 = 6;

pub struct Leak;

impl Arena<'static> for Leak {
    fn array<T: 'static>(&mut self, count: usize, make: impl FnMut(usize) -> T) -> Option<&'static mut [T]> {
        Some(Box::leak((0..count).map(make).collect::<Vec<T>>().into_boxed_slice()))
    }
}

/// A system being described.
#[derive(Default)]
pub struct Builder {
    pub endpoints: u32,
    pub notifications: u32,
    pub replies: u32,
    pub tcbs: Vec<image::Tcb>,
    pub scheds: Vec<image::SchedContext>,
    pub slots: Vec<image::Slot>,
    pub irqs: Vec<image::Irq>,
    pub vcpus: Vec<image::Vcpu>,
}

impl Builder {
    /// A thread with its own CSpace, IPC buffer, scheduling context.
    pub fn thread(&mut self, priority: u32, budget: u64, period: u64) -> u32 {
        let n = self.tcbs.len() as u32;
        let sc = self.scheds.len() as u32;
        self.scheds.push(image::SchedContext {
            budget,
            period,
            badge: 0x100 + u64::from(n),
            ..Default::default()
        });
        self.tcbs.push(image::Tcb {
            name: [0; 64],
            pc: 0x1000 * u64::from(n + 1),
            sp: 0x9000,
            x0: 0,
            ipc_buffer: 0xf000,
            ipc_buffer_paddr: 0x8000_0000 + u64::from(n) * 0x1000,
            fault_badge: 0,
            vspace: n,
            cspace: n,
            cspace_guard_bits: 64 - CNODE_BITS,
            fault_endpoint: NONE,
            fault_rights: 0,
            sched_context: sc,
            notification: NONE,
            priority,
            mcp: priority,
            flags: image::tcb::RESUME | image::tcb::FPU_DISABLED,
        });
        n
    }

    /// Gives `thread` a capability in `slot`.
    pub fn cap(&mut self, thread: u32, slot: u32, kind: u32, object: u32, badge: u64, rights: u32) {
        self.slots.push(image::Slot {
            cnode: thread,
            index: slot,
            kind,
            object,
            badge,
            rights,
            guard_bits: 0,
        });
    }

    pub fn full(&mut self, thread: u32, slot: u32, kind: u32, object: u32, badge: u64) {
        self.cap(thread, slot, kind, object, badge, 15);
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut body = Vec::new();
        let start = size_of::<Header>();
        let mut add = |bytes: &[u8], count: usize| {
            let table = Table { offset: (start + body.len()) as u32, count: count as u32 };
            body.extend_from_slice(bytes);
            body.resize(body.len().next_multiple_of(8), 0);
            table
        };
        let cnodes: Vec<_> =
            self.tcbs.iter().map(|_| image::CNode { size_bits: CNODE_BITS, reserved: 0 }).collect();
        let header = Header {
            magic: MAGIC,
            version: VERSION,
            size: start as u32,
            endpoints: self.endpoints,
            notifications: self.notifications,
            replies: self.replies,
            vspaces: self.tcbs.len() as u32,
            cnodes: add(cnodes.as_bytes(), cnodes.len()),
            slots: add(self.slots.as_bytes(), self.slots.len()),
            sched_contexts: add(self.scheds.as_bytes(), self.scheds.len()),
            irqs: add(self.irqs.as_bytes(), self.irqs.len()),
            vcpus: add(self.vcpus.as_bytes(), self.vcpus.len()),
            tcbs: add(self.tcbs.as_bytes(), self.tcbs.len()),
            fills: add(&[], 0),
            mappings: add(&[], 0),
            ..Default::default()
        };
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend(body);
        bytes
    }

    pub fn boot(&self) -> TestKernel {
        let bytes: &'static [u64] = {
            let mut bytes = self.bytes();
            bytes.resize(bytes.len().next_multiple_of(8), 0);
            Box::leak(
                bytes.chunks(8).map(|c| u64::from_le_bytes(c.try_into().unwrap())).collect::<Vec<_>>().into(),
            )
        };
        let d = boot::parse(bytes.as_bytes()).unwrap();
        let hw = Fake { time: 1000, ..Default::default() };
        let objects = boot::objects(&d, &mut Leak, hw.time, FREQUENCY).unwrap();
        let mut kernel = Kernel::new(hw, objects, FREQUENCY);
        boot::start(&mut kernel, &d);
        kernel.leave();
        kernel
    }
}

/// A system call's registers.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub number: i64,
    pub cap: u64,
    pub info: MessageInfo,
    pub mrs: [u64; REGISTERS],
    pub reply: u64,
    pub dest: u64,
}

impl Call {
    pub fn new(number: i64, cap: u64) -> Self {
        Call { number, cap, info: MessageInfo::new(0, 0), mrs: [0; REGISTERS], reply: 0, dest: 0 }
    }
    pub fn info(self, label: u64, length: usize) -> Self {
        Call { info: MessageInfo::new(label, length), ..self }
    }
    pub fn extra(self, caps: u64) -> Self {
        Call { info: MessageInfo(self.info.0 | caps << 7), ..self }
    }
    pub fn mrs(self, mrs: &[u64]) -> Self {
        let mut all = [0; REGISTERS];
        all[..mrs.len()].copy_from_slice(mrs);
        Call { mrs: all, ..self }
    }
    pub fn reply(self, reply: u64) -> Self {
        Call { reply, ..self }
    }
    pub fn dest(self, dest: u64) -> Self {
        Call { dest, ..self }
    }
}

impl TestKernel {
    /// Number of the thread that runs.
    pub fn runs(&self) -> Option<usize> {
        self.current().map(Id::index)
    }
    /// A thread's registers.
    pub fn context(&self, thread: u32) -> &Context {
        &self.tcbs[TcbId::new(thread as usize)].context
    }
    /// A thread's state.
    pub fn state(&self, thread: u32) -> State {
        self.tcbs[TcbId::new(thread as usize)].state
    }
    /// Message registers a thread has received, its badge, its label.
    pub fn received(&self, thread: u32) -> (u64, u64, [u64; 4]) {
        let x = &self.context(thread).x;
        (x[0], MessageInfo(x[1]).label(), [x[2], x[3], x[4], x[5]])
    }
    /// Writes a word of a thread's IPC buffer.
    pub fn set_buffer(&mut self, thread: u32, word: usize, value: u64) {
        if let Some(paddr) = self.tcbs[TcbId::new(thread as usize)].buffer {
            self.hw.memory.insert(paddr + 8 * word as u64, value);
        }
    }
    /// A word of a thread's IPC buffer.
    pub fn buffer(&self, thread: u32, word: usize) -> u64 {
        let paddr = self.tcbs[TcbId::new(thread as usize)].buffer.unwrap();
        self.hw.memory.get(&(paddr + 8 * word as u64)).copied().unwrap_or(0)
    }
    /// Sets an extra capability pointer.
    pub fn set_extra(&mut self, thread: u32, index: usize, pointer: u64) {
        self.set_buffer(thread, buffer::CAPS + index, pointer);
    }

    /// The current thread makes a system call.
    pub fn call(&mut self, c: Call) {
        let context = self.current_context().expect("somebody runs");
        context.fault_ip = context.pc;
        context.pc += 4;
        context.x[0] = c.cap;
        context.x[1] = c.info.0;
        context.x[2..6].copy_from_slice(&c.mrs);
        context.x[6] = c.reply;
        context.x[8] = c.dest;
        context.x[7] = c.number as u64;
        self.enter_syscall();
        self.leave();
    }

    /// The current thread faults.
    pub fn faults(&mut self, fault: Fault) {
        let context = self.current_context().expect("somebody runs");
        context.fault_ip = context.pc;
        self.enter_fault(fault);
        self.leave();
    }

    /// An interrupt arrives.
    pub fn interrupt(&mut self, irq: u32) {
        if let Some(context) = self.current_context() {
            context.fault_ip = context.pc;
        }
        self.enter_interrupt(irq);
        self.leave();
    }

    /// Time passes; the deadline timer fires if it is due.
    pub fn pass(&mut self, ticks: u64) {
        self.hw.time += ticks;
        if self.hw.time >= self.hw.deadline {
            self.interrupt(crate::vcpu::irq::TIMER);
        }
    }
}

/// Two threads (0: server, priority 20; 1: client, priority 10) and an endpoint with a reply object.
pub fn client_and_server() -> Builder {
    let mut b = Builder { endpoints: 1, notifications: 2, replies: 2, ..Default::default() };
    let server = b.thread(20, 1000, 1000);
    let client = b.thread(10, 1000, 1000);
    b.full(server, 1, cap::ENDPOINT, 0, 0);
    b.full(server, 2, cap::REPLY, 0, 0);
    b.full(server, 3, cap::NOTIFICATION, 0, 0);
    b.full(server, 4, cap::TCB, client, 0);
    b.full(server, 5, cap::SCHED_CONTEXT, 1, 0);
    b.full(server, 6, cap::SCHED_CONTEXT, 0, 0);
    b.full(client, 1, cap::ENDPOINT, 0, 0x77);
    b.full(client, 2, cap::NOTIFICATION, 0, 4);
    b.full(client, 3, cap::VSPACE, client, 0);
    b.tcbs[server as usize].notification = 0;
    b
}
