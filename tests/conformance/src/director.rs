//! What the cases use: children, events, invocations, and the transcript.

use core::fmt::{self, Write};

use sel4::sys::invocation_label as inv;

use crate::raw::{self, EXIT, Regs, get_mr, label, length, nr, set_cap, set_mr, svc, tag};
use crate::routines::{counter, set_shared, ticks};
use crate::serial::Serial;

/// A child PD by id, or a vCPU by id from 30 on.
pub type Child = u64;

/// Children of the system description.
pub const ONE: Child = 1;
/// As `ONE`, same priority.
pub const TWO: Child = 2;
/// Priority 150, receives calls.
pub const HIGH: Child = 3;
/// Priority 50.
pub const LOW: Child = 4;
/// Priority 1: runs when nobody else can.
pub const IDLE: Child = 5;
/// A passive server.
pub const PASSIVE: Child = 6;
/// 2 ms in every 50.
pub const BUDGET: Child = 7;
/// May use the FPU.
pub const FLOAT: Child = 8;
/// First vCPU.
pub const VCPU: Child = 30;
/// Second vCPU.
pub const VCPU2: Child = 31;

/// The director's own thread.
pub const SELF_TCB: u64 = 1 << 58;
/// Scheduling context of `ONE`.
pub const ONE_SC: u64 = 2 << 58;
/// Scheduling context of `LOW`.
pub const LOW_SC: u64 = 3 << 58;
/// Scheduling context of `HIGH`.
pub const HIGH_SC: u64 = 4 << 58;
/// Address space of `ONE`.
pub const ONE_VSPACE: u64 = 5 << 58;

/// Stack of every child.
pub const STACK_TOP: u64 = sel4::sys::IPC_BUFFER - 0x1000;

/// Thread capability of a child.
pub fn tcb(child: Child) -> u64 {
    if child >= VCPU { 266 + child } else { 202 + child }
}

/// VCPU capability.
pub fn vcpu(child: Child) -> u64 {
    330 + child
}

/// Channel and interrupt id of the director's timer.
const TIMER: u64 = 0;

/// Something the director received.
#[derive(Clone, Copy)]
pub struct Event {
    /// Badge.
    pub badge: u64,
    /// Tag.
    pub info: u64,
    /// The first message registers.
    pub mr: [u64; 40],
}

impl Event {
    /// Child or vCPU that faulted.
    pub fn faulting(&self) -> Option<Child> {
        (self.badge >> 62 == 1).then_some(self.badge & 0xff)
    }

    /// Registers of a child's routine that ended.
    pub fn exited(&self, child: Child) -> Option<[u64; 7]> {
        let ended = self.faulting() == Some(child) && label(self.info) == 2 && self.mr[12] == EXIT;
        ended.then(|| core::array::from_fn(|i| self.mr[i]))
    }

    /// The message as text.
    pub fn message(&self) -> Words<'_> {
        Words(&self.mr[..length(self.info).min(40)])
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.badge >> 62 {
            0 => write!(f, "notified {:#x}", self.badge),
            2 => write!(f, "call from {} {}:{}", self.badge & 0x3f, label(self.info), self.message()),
            _ => write!(f, "fault of {} {}:{}", self.badge & 0xff, label(self.info), self.message()),
        }
    }
}

/// Words in hexadecimal.
pub struct Words<'a>(pub &'a [u64]);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, word) in self.0.iter().enumerate() {
            write!(f, "{}{word:x}", if i == 0 { "" } else { " " })?;
        }
        f.write_str("]")
    }
}

/// Answer of an invocation.
#[derive(Clone, Copy)]
pub struct Answer {
    /// Tag.
    pub info: u64,
    /// The first message registers.
    pub mr: [u64; 40],
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", label(self.info), Words(&self.mr[..length(self.info).min(40)]))
    }
}

/// Result of a case.
pub struct Line {
    bytes: [u8; 512],
    length: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (to, from) in self.bytes[self.length..].iter_mut().zip(text.bytes()) {
            *to = from;
            self.length += 1;
        }
        Ok(())
    }
}

/// A case writes its result; `None` is: something that had to come did not.
pub type Case = fn(&mut Director, &mut Line) -> Option<()>;

/// Runs cases.
pub struct Director {
    number: usize,
}

/// Writes to the result, without a reason to fail.
#[macro_export]
macro_rules! say {
    ($out:expr, $($arg:tt)*) => {{
        let _ = ::core::fmt::Write::write_fmt($out, format_args!($($arg)*));
    }};
}

impl Director {
    /// Before the first case: no child runs but the passive server.
    pub fn new() -> Self {
        let director = Self { number: 0 };
        director.clean_up();
        director
    }

    /// Runs one case and writes its line.
    pub fn case(&mut self, name: &str, case: Case) {
        self.number += 1;
        let mut line = Line { bytes: [0; 512], length: 0 };
        (0..512).for_each(|i| set_shared(i, 0));
        self.set_timer(3_000_000);
        if case(self, &mut line).is_none() {
            say!(&mut line, " NOTHING CAME");
        }
        self.stop_timer();
        self.clean_up();
        let text = core::str::from_utf8(&line.bytes[..line.length]).unwrap_or("?").trim_end();
        say!(&mut Serial, "%% {:02} {name}: {text}\n", self.number);
    }

    /// Stops every child and vCPU and drops what is pending.
    pub fn clean_up(&self) {
        for child in [ONE, TWO, HIGH, LOW, IDLE, BUDGET, FLOAT, VCPU, VCPU2] {
            self.suspend(child);
        }
        self.invoke(138 + TIMER, inv::IRQAckIRQ, &[], &[]);
        for _ in 0..20 {
            let mut x = [1, 0, 0, 0, 0, 0, 4, nr::NB_RECV as u64, 0];
            svc(&mut x);
            if x[0] == 0 {
                break;
            }
        }
    }

    /// Puts everybody back to what the system description says, as far as a random sequence can have changed it.
    pub fn reset(&self) {
        self.clean_up();
        for (child, sched_context) in [(ONE, ONE_SC), (LOW, LOW_SC), (HIGH, HIGH_SC)] {
            self.invoke(sched_context, inv::SchedContextBind, &[tcb(child)], &[]);
        }
        // Every notification is unbound before any is bound: two may have changed places.
        let puppets = [(ONE, 100), (TWO, 101), (HIGH, 150), (LOW, 50)];
        for (child, _) in puppets {
            self.invoke(tcb(child), inv::TCBUnbindNotification, &[], &[]);
        }
        for (child, priority) in puppets {
            self.invoke(tcb(child), inv::TCBBindNotification, &[10 + child], &[]);
            self.invoke(tcb(child), inv::TCBSetPriority, &[SELF_TCB], &[priority]);
            let mut x = [1, 0, 0, 0, 0, 0, 4, nr::NB_RECV as u64, 0];
            x[0] = 1;
            self.sys(child, x);
        }
        self.clean_up();
    }

    /// Fires the director's timer interrupt in `micros`.
    pub fn set_timer(&self, micros: u64) {
        let deadline = counter() + ticks(micros);
        // SAFETY: the physical timer of EL0 is the director's, by its interrupt in the system description.
        unsafe {
            core::arch::asm!("msr cntp_cval_el0, {0}", "msr cntp_ctl_el0, {1}", "isb", in(reg) deadline, in(reg) 1u64);
        }
    }

    /// Stops the director's timer.
    pub fn stop_timer(&self) {
        // SAFETY: as in `set_timer`.
        unsafe { core::arch::asm!("msr cntp_ctl_el0, xzr", "isb") };
    }

    /// Receives by system call `number`: the next event, or `None` when the case has run out of time.
    pub fn receive(&self, mut x: Regs) -> Option<Event> {
        svc(&mut x);
        let mut event = Event { badge: x[0], info: x[1], mr: [0; 40] };
        event.mr[..4].copy_from_slice(&x[2..6]);
        (4..40).for_each(|i| event.mr[i] = get_mr(i));
        if event.badge >> 62 == 0 && event.badge & 1 << TIMER != 0 { None } else { Some(event) }
    }

    /// The next event.
    pub fn next(&self) -> Option<Event> {
        self.receive([1, 0, 0, 0, 0, 0, 4, nr::RECV as u64, 0])
    }

    /// Answers (up to four words) and takes the next event.
    pub fn reply_next(&self, answer_label: u64, words: &[u64]) -> Option<Event> {
        let mut x = [1, tag(answer_label, 0, words.len() as u64), 0, 0, 0, 0, 4, nr::REPLY_RECV as u64, 0];
        x[2..2 + words.len()].copy_from_slice(words);
        self.receive(x)
    }

    /// Answers (up to four words).
    pub fn reply(&self, answer_label: u64, words: &[u64]) {
        let mut x = [4, tag(answer_label, 0, words.len() as u64), 0, 0, 0, 0, 0, nr::SEND as u64, 0];
        x[2..2 + words.len()].copy_from_slice(words);
        svc(&mut x);
    }

    /// Starts a child at `pc` with x0–x8.
    pub fn start(&self, child: Child, pc: u64, x: &[u64]) {
        let mut registers = [0; 36];
        (registers[0], registers[1]) = (pc, STACK_TOP);
        registers[3..3 + x.len()].copy_from_slice(x);
        self.write_registers(child, true, &registers);
    }

    /// Starts a child with one system call.
    pub fn start_sys(&self, child: Child, x: Regs) {
        self.start(child, raw::at::t_sys(), &x);
    }

    /// Lets a child do one system call; its x0–x6 after it.
    pub fn sys(&self, child: Child, x: Regs) -> Option<[u64; 7]> {
        self.start_sys(child, x);
        self.next()?.exited(child)
    }

    /// The registers of a child's routine that is the next to end.
    pub fn exit(&self, child: Child) -> Option<[u64; 7]> {
        self.next()?.exited(child)
    }

    /// Lets the PD of lowest priority run: its end is the next event if all others are blocked.
    pub fn all_blocked(&self) -> Option<bool> {
        self.start(IDLE, crate::routines::trace_exit as *const () as u64, &[0]);
        Some(self.next()?.exited(IDLE).is_some())
    }

    /// Notifies a child.
    pub fn notify(&self, child: Child) {
        svc(&mut [10 + child, 0, 0, 0, 0, 0, 0, nr::SEND as u64, 0]);
    }

    /// Invokes a capability with extra capabilities and message registers.
    pub fn invoke(&self, cap: u64, method: u32, caps: &[u64], words: &[u64]) -> Answer {
        self.invoke_raw(cap, tag(method.into(), caps.len() as u64, words.len() as u64), caps, words)
    }

    /// [`Director::invoke`] with any tag.
    pub fn invoke_raw(&self, cap: u64, info: u64, caps: &[u64], words: &[u64]) -> Answer {
        let mut x: Regs = [cap, info, 0, 0, 0, 0, 0, nr::CALL as u64, 0];
        caps.iter().enumerate().for_each(|(i, cap)| set_cap(i, *cap));
        for (i, word) in words.iter().enumerate() {
            if i < 4 { x[2 + i] = *word } else { set_mr(i, *word) }
        }
        svc(&mut x);
        let mut answer = Answer { info: x[1], mr: [0; 40] };
        answer.mr[..4].copy_from_slice(&x[2..6]);
        (4..40).for_each(|i| answer.mr[i] = get_mr(i));
        answer
    }

    /// Sends an invocation without waiting for a result.
    pub fn invoke_by_send(&self, cap: u64, method: u32, words: &[u64]) {
        let mut x: Regs = [cap, tag(method.into(), 0, words.len() as u64), 0, 0, 0, 0, 0, nr::SEND as u64, 0];
        x[2..2 + words.len()].copy_from_slice(words);
        svc(&mut x);
    }

    /// Stops a child.
    pub fn suspend(&self, child: Child) -> Answer {
        self.invoke(tcb(child), inv::TCBSuspend, &[], &[])
    }

    /// Starts a child where it was.
    pub fn resume(&self, child: Child) -> Answer {
        self.invoke(tcb(child), inv::TCBResume, &[], &[])
    }

    /// Writes the first registers of a child.
    pub fn write_registers(&self, child: Child, resume: bool, registers: &[u64]) -> Answer {
        let mut words = [0; 38];
        (words[0], words[1]) = (resume.into(), registers.len() as u64);
        words[2..2 + registers.len()].copy_from_slice(registers);
        self.invoke(tcb(child), inv::TCBWriteRegisters, &[], &words)
    }

    /// Reads the first `count` registers of a child.
    pub fn read_registers(&self, child: Child, count: u64) -> Answer {
        self.invoke(tcb(child), inv::TCBReadRegisters, &[], &[0, count])
    }
}
