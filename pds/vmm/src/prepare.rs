//! Makes a used machine as good as new before a guest starts in it again: CPU interfaces empty, RAM zero; and checks boot
//! files, before the guest's first start.
//!
//! A guest may be stopped in the middle of an interrupt handler. Its list register is then active, and nothing that seL4
//! offers a VMM can change that: InjectIRQ refuses an active one, and there is no call to clear it. But the vCPU itself can:
//! so each vCPU that has run gets a small program, which ends everything in its CPU interface (GICV), switches that off,
//! and reports by SMC.
//!
//! The first vCPU then goes on calling, and at each call a piece of RAM is cleared. That way the work is done in the VMM,
//! where it is cached and fast, but paced by a thread with the guest's priority and budget: other guests get their turn
//! as they would if this one ran.

use core::sync::atomic::Ordering;

use partita_guest::exception::EL1H_MASKED;
use partita_guest::registers;
use partita_protocol::MAX_VCPUS;
use partita_protocol::layout::guest;
use partita_protocol::lifecycle::LIST_REGISTERS;

use crate::exits::label;
use crate::files;
use crate::machine::{Machine, Page};
use crate::vmm::{Phase, Vcpu, Vmm};

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preparation {
    /// Bytes of RAM that are done, from its start; the first [`PAGE`] are the program's until the end.
    cleared: u64,
    /// vCPUs whose CPU interface may hold something, one bit each.
    dirty: u32,
}

/// RAM that the program takes.
const PAGE: u64 = 0x1000;
/// Bytes cleared at a call.
const PIECE: u64 = 2 << 20;

/// The program. x0: the CPU interface; x1 to x4: INTIDs that its list registers may hold as active, 1023 for none.
///
/// EOImode is 1 throughout, so that an interrupt whose priority the guest has dropped but which it has not deactivated
/// (it may have used EOImode 1) is ended too. EOIR or DIR of what is not active changes nothing (GICv2 5.2.5).
const PROGRAM: [u32; 29] = [
    0x5280_1fe5, //      mov  w5, #0xff
    0xb900_0405, //      str  w5, [x0, #4]      PMR: let everything through
    0x5280_4025, //      mov  w5, #0x201
    0xb900_0005, //      str  w5, [x0]          CTLR: EOImode, EnableGrp0
    0x9140_0407, //      add  x7, x0, #1, lsl #12
    0xb900_1001, //      str  w1, [x0, #0x10]   EOIR
    0xb900_1002, //      str  w2, [x0, #0x10]
    0xb900_1003, //      str  w3, [x0, #0x10]
    0xb900_1004, //      str  w4, [x0, #0x10]
    0xb900_00e1, //      str  w1, [x7]          DIR
    0xb900_00e2, //      str  w2, [x7]
    0xb900_00e3, //      str  w3, [x7]
    0xb900_00e4, //      str  w4, [x7]
    0x5280_0108, //      mov  w8, #8            at most: four list registers, each pending once more
    0xb940_0c05, // 1:   ldr  w5, [x0, #0xc]    IAR
    0x1200_24a6, //      and  w6, w5, #0x3ff
    0x710f_f0df, //      cmp  w6, #1020
    0x5400_00a2, //      b.hs 2f
    0xb900_1005, //      str  w5, [x0, #0x10]   EOIR
    0xb900_00e5, //      str  w5, [x7]          DIR
    0x7100_0508, //      subs w8, w8, #1
    0x54ff_ff21, //      b.ne 1b
    0xb900_081f, // 2:   str  wzr, [x0, #8]     BPR, PMR and CTLR as after reset
    0xb900_041f, //      str  wzr, [x0, #4]
    0xb900_001f, //      str  wzr, [x0]
    0xd503_3f9f, //      dsb  sy
    0xd503_3fdf, //      isb
    0xd400_0003, // 3:   smc  #0
    0x17ff_ffff, //      b    3b
];

impl<M: Machine, P: Page> Vmm<'_, M, P> {
    /// Begins. [`Vmm::launch`] follows by itself. `fresh`: RAM is zero.
    pub(crate) fn prepare(&mut self, fresh: bool) {
        self.gic.reset();
        let mut bytes = [0; size_of_val(&PROGRAM)];
        for (bytes, word) in bytes.chunks_exact_mut(4).zip(PROGRAM) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let base = self.ram.ipa();
        if self.ram.write(base, &bytes).is_err() {
            return self.launch(); // RAM too small for anything: refused there
        }
        self.machine.publish(0, bytes.len() as u64);
        let used = (0..MAX_VCPUS).filter(|vcpu| self.used.get(*vcpu) == Some(&true));
        let dirty = used.fold(1, |set, vcpu| set | 1 << vcpu);
        self.phase =
            Phase::Preparing(Preparation { cleared: if fresh { self.ram.size() } else { PAGE }, dirty });
        for vcpu in (0..self.vcpus.len()).filter(|vcpu| dirty & (1 << vcpu) != 0) {
            self.new_vcpu(vcpu);
            let mut words = [0; registers::X0 + 5];
            let [x1, x2, x3, x4] = self.held(vcpu);
            words[..registers::X0].copy_from_slice(&[base, 0, EL1H_MASKED]);
            words[registers::X0..].copy_from_slice(&[guest::GICC, x1, x2, x3, x4]);
            self.resume_with(vcpu, &words);
        }
    }

    /// INTIDs that a vCPU's list registers may hold as active, 1023 for none: what was last written to each, which a page
    /// keeps for a VMM that was restarted.
    fn held(&self, vcpu: usize) -> [u64; LIST_REGISTERS] {
        let Some(kept) = self.cell.actual.held.get(vcpu) else { return [1023; LIST_REGISTERS] };
        kept.each_ref().map(|word| match word.load(Ordering::Relaxed).checked_sub(1) {
            None => 1023,
            Some(intid) => u64::from(intid) & 0x3ff,
        })
    }

    /// An exit of the program. Whatever it is, an answer lets it go on or try again, and each brings the end nearer.
    pub(crate) fn preparation_exit(
        &mut self,
        mut done: Preparation,
        vcpu: usize,
        label: u64,
        words: [u64; 4],
    ) {
        match label {
            label::VGIC_MAINTENANCE => {
                if let Ok(index) = usize::try_from(words[0] as i64) {
                    self.gic.ended(vcpu, index);
                }
                return;
            }
            // A timer event that was under way when the vCPU was stopped.
            label::VPPI_EVENT => return self.machine.ack_timer(vcpu),
            _ => {}
        }
        self.gic.emptied(vcpu);
        done.dirty &= !(1 << vcpu);
        if vcpu != 0 {
            self.machine.suspend(vcpu);
            self.set_vcpu(vcpu, Vcpu::Off);
        } else if done.cleared < self.ram.size() {
            self.clear(done.cleared, PIECE);
            done.cleared += PIECE;
        } else if self.files.verdict().is_none() {
            self.files.check(files::PIECE);
        } else if done.dirty == 0 {
            self.clear(0, PAGE);
            self.machine.suspend(vcpu);
            self.set_vcpu(vcpu, Vcpu::Off);
            return match self.files.verdict() {
                Some(Err(refused)) => self.refuse(format_args!("{refused}")),
                _ => self.launch(),
            };
        }
        self.phase = Phase::Preparing(done);
    }

    /// Clears up to `bytes` bytes of RAM from `offset`.
    fn clear(&mut self, offset: u64, bytes: u64) {
        let bytes = bytes.min(self.ram.size().saturating_sub(offset));
        // In RAM by the line above.
        if self.ram.fill(self.ram.ipa() + offset, bytes, 0).is_ok() {
            self.machine.clean(offset, bytes);
        }
    }
}
