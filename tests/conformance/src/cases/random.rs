//! Random system calls of several PDs and a guest, the same sequence on every kernel; the result is a digest of every answer
//! and event.
//!
//! What may depend on time is left out: no two threads of one priority, no thread that runs on, no timers. Addresses of the
//! program are made relative. Build with `CONFORMANCE_TRACE=1` to see each step as a `##` line.

use sel4::sys::invocation_label as inv;

use crate::director::{
    Answer, Case, Child, Director, Event, HIGH, HIGH_SC, LOW, LOW_SC, Line, ONE, ONE_SC, SELF_TCB, TWO, VCPU,
    VCPU2, Words, tcb, vcpu,
};
use crate::guest::{self, piece, start_on};
use crate::raw::{EXIT, at, label, length, nr, tag};
use crate::say;
use crate::serial::Serial;

pub const CASES: &[(&str, Case)] = &[
    ("random calls, rounds 0 to 9", |t, out| rounds(t, out, 0)),
    ("random calls, rounds 10 to 19", |t, out| rounds(t, out, 10)),
    ("random calls, rounds 20 to 29", |t, out| rounds(t, out, 20)),
    ("random calls, rounds 30 to 39", |t, out| rounds(t, out, 30)),
    ("random calls, rounds 40 to 49", |t, out| rounds(t, out, 40)),
    ("random calls, rounds 50 to 59", |t, out| rounds(t, out, 50)),
];

const STEPS: usize = 80;

/// Children that take part, with the priority each has during a round and the scheduling context the director may take.
const PUPPETS: [(Child, u64, u64); 4] =
    [(ONE, 100, ONE_SC), (TWO, 101, 0), (HIGH, 150, HIGH_SC), (LOW, 50, LOW_SC)];

fn rounds(t: &mut Director, out: &mut Line, first: u64) -> Option<()> {
    for (child, priority) in PUPPETS.map(|puppet| (puppet.0, puppet.1)).into_iter().chain([(VCPU2, 61)]) {
        t.invoke(tcb(child), inv::TCBSetPriority, &[SELF_TCB], &[priority]);
    }
    let mut done = Some(());
    for round in first..first + 10 {
        t.set_timer(3_000_000);
        let mut round = Round {
            t,
            random: (round + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            digest: 0xcbf2_9ce4_8422_2325,
        };
        done = done.and(round.run());
        say!(out, "{:08x} ", round.digest & 0xffff_ffff);
        t.reset();
    }
    t.invoke(tcb(TWO), inv::TCBSetPriority, &[SELF_TCB], &[100]);
    t.invoke(tcb(VCPU2), inv::TCBSetPriority, &[SELF_TCB], &[60]);
    done
}

struct Round<'a> {
    t: &'a Director,
    random: u64,
    digest: u64,
}

impl Round<'_> {
    fn next(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        let index = self.below(from.len() as u64);
        from[index as usize]
    }

    fn word(&mut self, word: u64) {
        let begin = at::t_sys();
        let word = if (begin..begin + 64).contains(&word) { word - begin + (1 << 48) } else { word };
        self.digest = (self.digest ^ word).wrapping_mul(0x100_0000_01b3);
    }

    fn answer(&mut self, what: &str, answer: &Answer) {
        if option_env!("CONFORMANCE_TRACE").is_some() {
            say!(&mut Serial, "## {what}: {answer}\n");
        }
        self.word(answer.info);
        (0..length(answer.info).min(40)).for_each(|i| self.word(answer.mr[i]));
    }

    fn event(&mut self, event: &Event) {
        if option_env!("CONFORMANCE_TRACE").is_some() {
            say!(&mut Serial, "## event {:#x} {:#x} {}\n", event.badge, event.info, event.message());
        }
        self.word(event.badge);
        // A notification's tag and message are the registers as they were.
        if event.badge >> 62 != 0 {
            let mut words = event.mr;
            if label(event.info) == 2 {
                words[11] &= !0xfff; // masks of a configuration
            }
            self.word(event.info);
            (0..length(event.info).min(40)).for_each(|i| self.word(words[i]));
        }
    }

    fn run(&mut self) -> Option<()> {
        guest::load();
        for _ in 0..STEPS {
            self.step()?;
        }
        Some(())
    }

    /// x0 to x8 of a random system call of `child`.
    fn call_of(&mut self) -> [u64; 9] {
        const CAPS: [u64; 18] = [
            1,
            1,
            1,
            2,
            3,
            4,
            4,
            9,
            74 + 10,
            74 + 10,
            74 + 20,
            74 + 20,
            74 + 30,
            10 + 10,
            10 + 20,
            10 + 40,
            0x1234,
            1 << 58,
        ];
        const REPLIES: [u64; 8] = [4, 4, 4, 4, 4, 9, 3, 0x1234];
        let number = match self.below(24) {
            0 => 77,
            1 => -40,
            n => -1 - (n as i64 - 2) % 11,
        };
        let (x0, x8) = (self.pick(&CAPS), self.pick(&CAPS));
        let x6 = if number == nr::NB_SEND_WAIT as i64 { self.pick(&CAPS) } else { self.pick(&REPLIES) };
        let message_label = if self.below(3) == 0 { self.below(66) } else { self.below(4) };
        let message_length = if self.below(8) == 0 { self.below(128) } else { self.below(7) };
        let extra = if self.below(8) == 0 { self.below(4) } else { 0 };
        let mut x = [x0, tag(message_label, extra, message_length), 0, 0, 0, 0, x6, number as u64, x8];
        x[2..6].fill_with(|| self.below(0x1000));
        x
    }

    fn step(&mut self) -> Option<()> {
        let (child, priority, sched_context) = self.pick(&PUPPETS);
        let thread = tcb(child);
        match self.below(26) {
            0..=8 => {
                let x = self.call_of();
                if option_env!("CONFORMANCE_TRACE").is_some() {
                    say!(&mut Serial, "## start {child} {}\n", Words(&x));
                }
                self.t.start_sys(child, x);
                if self.below(2) == 0 {
                    self.receive()?;
                }
            }
            9 => self.t.notify(child),
            10 => self.answer("suspend", &self.t.suspend(child)),
            11 => self.answer("resume", &self.t.resume(child)),
            12 => {
                // Keeps its remainder modulo 5, so no two are equal.
                let to = 5 * self.below(33) + 5 + [0, 1, 2, 4][(child - 1) as usize];
                self.answer("priority", &self.t.invoke(thread, inv::TCBSetPriority, &[SELF_TCB], &[to]));
            }
            13 => self.answer(
                "priority back",
                &self.t.invoke(thread, inv::TCBSetPriority, &[SELF_TCB], &[priority]),
            ),
            14 => {
                let count = self.below(38);
                let mut answer = self.t.read_registers(child, count);
                answer.mr[2] &= !0xfff; // masks of a configuration
                self.answer("read", &answer);
            }
            15 if sched_context != 0 => {
                self.answer("unbind", &self.t.invoke(sched_context, inv::SchedContextUnbind, &[], &[]));
            }
            15 | 16 if sched_context != 0 => {
                self.answer("bind", &self.t.invoke(sched_context, inv::SchedContextBind, &[thread], &[]));
            }
            17 => {
                let words = [self.below(99), self.below(99), self.below(99), self.below(99)];
                let (answer_label, count) = (self.below(3), self.below(5) as usize);
                if option_env!("CONFORMANCE_TRACE").is_some() {
                    say!(&mut Serial, "## reply {answer_label} {}\n", Words(&words[..count]));
                }
                self.t.reply(answer_label, &words[..count]);
            }
            18 => self.vcpu_call(),
            19 => self.start_guest(),
            20 => {
                let (other, _, _) = self.pick(&PUPPETS);
                let bits = self.below(16) & !1; // not "suspend the source", to keep both alive
                self.answer("copy", &self.t.invoke(thread, inv::TCBCopyRegisters, &[tcb(other)], &[bits]));
            }
            21 => {
                let (other, _, _) = self.pick(&PUPPETS);
                self.answer(
                    "bind notification",
                    &self.t.invoke(thread, inv::TCBBindNotification, &[10 + other], &[]),
                );
            }
            22 => self
                .answer("unbind notification", &self.t.invoke(thread, inv::TCBUnbindNotification, &[], &[])),
            _ => self.receive()?,
        }
        Some(())
    }

    /// Takes an event; the PD of lowest priority sees to it that there is one.
    fn receive(&mut self) -> Option<()> {
        self.t.start_sys(crate::director::IDLE, [0, 0, 0, 0, 0, 0, 0, EXIT, 0]);
        let event = self.t.next()?;
        self.event(&event);
        Some(())
    }

    fn vcpu_call(&mut self) {
        let cap = vcpu(self.pick(&[VCPU, VCPU2]));
        match self.below(4) {
            0 => {
                let field = self.below(26);
                self.answer("vcpu read", &self.t.invoke(cap, inv::ARMVCPUReadReg, &[], &[field]));
            }
            1 => {
                // Not the MMU, the vectors, or the timer.
                let field = self.pick(&[1, 2, 3, 5, 6, 7, 9, 10, 11, 12, 13, 15, 16, 17, 18, 19, 24, 25]);
                let value = self.next();
                self.answer("vcpu write", &self.t.invoke(cap, inv::ARMVCPUWriteReg, &[], &[field, value]));
            }
            2 => {
                let word = self.below(1100) | self.below(34) << 16 | self.below(6) << 32;
                self.answer("inject", &self.t.invoke(cap, inv::ARMVCPUInjectIRQ, &[], &[word]));
            }
            _ => {
                let irq = self.pick(&[27, 27, 26, 200]);
                self.answer("ack", &self.t.invoke(cap, inv::ARMVCPUAckVPPI, &[], &[irq]));
            }
        }
    }

    fn start_guest(&mut self) {
        let child = self.pick(&[VCPU, VCPU2]);
        let code = match self.below(7) {
            0 => piece::g_wfi(),
            1 => piece::g_hvc(),
            2 => piece::g_load(),
            3 => piece::g_store(),
            4 => piece::g_irq(),
            5 => piece::g_tpidr(),
            _ => piece::g_done(),
        };
        if option_env!("CONFORMANCE_TRACE").is_some() {
            say!(&mut Serial, "## guest {child} at {:#x}\n", code);
        }
        let number = self.pick(&[1u64, 5, (-6i64) as u64, 0x8400_0000]);
        self.t.invoke(vcpu(child), inv::ARMVCPUWriteReg, &[], &[14, guest::RAM]);
        start_on(self.t, child, code, &[0x0900_0040, 1, 2, 3, 4, 5, 6, number]);
    }
}
