//! Between a guest and its monitor: exits, answers, registers, interrupts.

use core::arch::global_asm;

use sel4::sys::invocation_label as inv;

use super::pds::{MASK_IN_GUEST, TRANSMIT, interrupts_by_call};
use super::{Measure, ROUNDS, mark};
use crate::director::{Child, Director, Event, VCPU, VCPU2, tcb, vcpu};
use crate::guest::{EL1, GICC};
use crate::raw::{label, nr};

pub const MEASURES: &[(&str, Measure)] = &[
    (
        "VM store fault to its waiting VMM | WriteRegisters(1) by Call | reply and receive, back in the VM",
        store,
    ),
    ("- | WriteRegisters(1) by Send | NBSendRecv with the reply, back in the VM", store_by_send),
    ("- | WriteRegisters(1) and resume by Send | receive, back in the resumed VM", store_resumed),
    ("- | - | receive, back in another VM", store_two_vms),
    ("VM sleeps (WFI) | - | -", wfi),
    ("SMC of a VM | - | -", smc),
    ("HVC of a VM | - | -", hvc),
    ("- | InjectIRQ by Call | - | end of interrupt to the VMM | -", interrupt),
    ("InjectIRQ by Send", inject_by_send),
    ("ReadRegisters(36)", read_all),
    ("ReadRegisters(4)", read_four),
    ("VCPU ReadReg", read_vcpu),
    ("VCPU WriteReg", write_vcpu),
    ("interrupt to a waiting PD, from a VM | - | receive, back in the interrupted VM", physical_interrupt),
];

// Position-independent; copied to the start of guest RAM, twice (one for each vCPU). The MMU of the guest stays off.
global_asm!(
    r#"
    .section .rodata.bench, "a"
    .balign 2048
    .global bg_begin
bg_begin:
    // The vectors: an interrupt taken at EL1 with its own stack.
    .skip   0x280
    hint    #127
    ldr     w23, [x24, #0xc]
    str     w23, [x24, #0x10]
    dsb     sy
    eret
    .balign 2048
    .global bg_store
bg_store:
    hint    #127
    str     w1, [x0]
    b       bg_store
    .global bg_wfi
bg_wfi:
    hint    #127
    wfi
    b       bg_wfi
    .global bg_smc
bg_smc:
    hint    #127
    smc     #0
    b       bg_smc
    .global bg_hvc
bg_hvc:
    hint    #127
    hvc     #0
    b       bg_hvc
    .global bg_interrupts
bg_interrupts:
    mov     w9, #0xff
    str     w9, [x24, #4]
    mov     w9, #1
    str     w9, [x24]
    b       bg_wfi
    .global bg_raise
bg_raise:
    hint    #127
    str     w1, [x0]
    dsb     sy
    isb
    b       bg_raise
    .global bg_end
bg_end:
    .previous
    "#
);

unsafe extern "C" {
    static bg_begin: u8;
    static bg_end: u8;
    static bg_store: u8;
    static bg_wfi: u8;
    static bg_smc: u8;
    static bg_hvc: u8;
    static bg_interrupts: u8;
    static bg_raise: u8;
}

/// Guest RAM, for the guest and the director.
const RAM: u64 = 0x1_4000_0000;
/// Nothing is there.
const HOLE: u64 = 0x0a00_0000;

/// Where a piece is in guest RAM.
fn piece(symbol: *const u8) -> u64 {
    symbol as u64 - (&raw const bg_begin) as u64 + RAM
}

/// Copies the pieces to guest RAM and cleans them to memory, where the guest (caches off) looks.
fn load() {
    let begin = &raw const bg_begin;
    let bytes = (&raw const bg_end) as usize - begin as usize;
    for offset in (0..bytes).step_by(4) {
        let to = (RAM + offset as u64) as *mut u32;
        // SAFETY: reads the code between the two symbols, which are 4-byte aligned; writes guest RAM, which is as large as
        // that at least, is mapped there, and is not referenced.
        unsafe {
            to.write_volatile(begin.add(offset).cast::<u32>().read());
            core::arch::asm!("dc civac, {0}", "dsb sy", "ic ivau, {0}", "dsb sy", "isb", in(reg) to, options(nostack));
        }
    }
}

/// Interrupts of the guest are not masked.
const EL1_INTERRUPTS: u64 = EL1 & !(1 << 7);

fn start(t: &Director, child: Child, pc: u64, spsr: u64, x: &[u64]) {
    let mut registers = [0; 36];
    (registers[0], registers[2]) = (pc, spsr);
    registers[3..3 + x.len()].copy_from_slice(x);
    registers[29] = GICC; // x24
    t.write_registers(child, true, &registers);
}

/// Runs a piece up to its first exit.
fn run(t: &Director, pc: u64, x: &[u64]) -> Option<Event> {
    load();
    t.invoke(vcpu(VCPU), inv::ARMVCPUWriteReg, &[], &[14, RAM]);
    start(t, VCPU, pc, EL1_INTERRUPTS, x);
    t.next()
}

/// How the monitor lets the guest go on behind the instruction that it exited with.
#[derive(Clone, Copy)]
enum Answer {
    Call,
    Send,
    Resume,
}

/// A guest exits with `fault` again and again.
fn exits(t: &Director, first: Option<Event>, pc: u64, fault: u64, answer: Answer) -> Option<()> {
    let mut event = first?;
    // Behind the mark and the instruction.
    let next = pc + 8;
    for _ in 0..ROUNDS {
        if event.faulting() != Some(VCPU) || label(event.info) != fault {
            return None;
        }
        mark();
        match answer {
            Answer::Call => {
                t.write_registers(VCPU, false, &[next]);
            }
            Answer::Send => t.invoke_by_send(tcb(VCPU), inv::TCBWriteRegisters, &[0, 1, next]),
            Answer::Resume => t.invoke_by_send(tcb(VCPU), inv::TCBWriteRegisters, &[1, 1, next]),
        }
        mark();
        event = match answer {
            Answer::Call => t.reply_next(0, &[])?,
            Answer::Send => t.receive([1, 0, 0, 0, 0, 0, 4, nr::NB_SEND_RECV as u64, 4])?,
            Answer::Resume => t.next()?,
        };
    }
    Some(())
}

fn stores(t: &Director, answer: Answer) -> Option<()> {
    let pc = piece(&raw const bg_store);
    exits(t, run(t, pc, &[HOLE]), pc, 6, answer)
}

fn store(t: &Director) -> Option<()> {
    stores(t, Answer::Call)
}

fn store_by_send(t: &Director) -> Option<()> {
    stores(t, Answer::Send)
}

fn store_resumed(t: &Director) -> Option<()> {
    stores(t, Answer::Resume)
}

fn store_two_vms(t: &Director) -> Option<()> {
    let pc = piece(&raw const bg_store);
    run(t, pc, &[HOLE])?;
    // The first round: the other begins.
    mark();
    mark();
    start(t, VCPU2, pc, EL1_INTERRUPTS, &[HOLE]);
    let mut event = t.next()?;
    for round in 1..ROUNDS {
        let (here, there) = if round % 2 == 1 { (VCPU2, VCPU) } else { (VCPU, VCPU2) };
        if event.faulting() != Some(here) || label(event.info) != 6 {
            return None;
        }
        mark();
        t.invoke_by_send(tcb(there), inv::TCBWriteRegisters, &[1, 1, pc]);
        mark();
        event = t.next()?;
    }
    Some(())
}

fn wfi(t: &Director) -> Option<()> {
    let pc = piece(&raw const bg_wfi);
    exits(t, run(t, pc, &[]), pc, 8, Answer::Call)
}

fn smc(t: &Director) -> Option<()> {
    let pc = piece(&raw const bg_smc);
    // An SMC exits at itself.
    exits(t, run(t, pc, &[]), pc, 8, Answer::Call)
}

fn hvc(t: &Director) -> Option<()> {
    // x7 is 0, which is no system call: it comes as an unknown one.
    let pc = piece(&raw const bg_hvc);
    exits(t, run(t, pc, &[]), pc, 2, Answer::Call)
}

/// Interrupt 40, priority 10, list register 0.
const INTERRUPT: u64 = 40 | 10 << 16;

fn interrupt(t: &Director) -> Option<()> {
    let pc = piece(&raw const bg_wfi);
    let mut event = run(t, piece(&raw const bg_interrupts), &[])?;
    for _ in 0..ROUNDS {
        if event.faulting() != Some(VCPU) || label(event.info) != 8 {
            return None;
        }
        mark();
        t.invoke(vcpu(VCPU), inv::ARMVCPUInjectIRQ, &[], &[INTERRUPT]);
        mark();
        t.write_registers(VCPU, false, &[pc + 8]);
        // The guest takes it first of all, marks, and ends it.
        event = t.reply_next(0, &[])?;
        if event.faulting() != Some(VCPU) || label(event.info) != 7 {
            return None;
        }
        mark();
        event = t.reply_next(0, &[])?;
    }
    Some(())
}

/// A guest that has stopped; then `operation`, `ROUNDS` times.
fn stopped(t: &Director, operation: impl Fn()) -> Option<()> {
    // The mark of the guest is the first.
    run(t, piece(&raw const bg_wfi), &[])?;
    for _ in 1..ROUNDS {
        mark();
        operation();
    }
    mark();
    Some(())
}

fn inject_by_send(t: &Director) -> Option<()> {
    stopped(t, || t.invoke_by_send(vcpu(VCPU), inv::ARMVCPUInjectIRQ, &[INTERRUPT]))
}

fn read_all(t: &Director) -> Option<()> {
    stopped(t, || {
        t.read_registers(VCPU, 36);
    })
}

fn read_four(t: &Director) -> Option<()> {
    stopped(t, || {
        t.read_registers(VCPU, 4);
    })
}

fn read_vcpu(t: &Director) -> Option<()> {
    stopped(t, || {
        t.invoke(vcpu(VCPU), inv::ARMVCPUReadReg, &[], &[14]);
    })
}

fn write_vcpu(t: &Director) -> Option<()> {
    stopped(t, || {
        t.invoke(vcpu(VCPU), inv::ARMVCPUWriteReg, &[], &[14, RAM]);
    })
}

fn physical_interrupt(t: &Director) -> Option<()> {
    load();
    start(t, VCPU, piece(&raw const bg_raise), EL1, &[MASK_IN_GUEST, TRANSMIT]);
    interrupts_by_call(t)
}
