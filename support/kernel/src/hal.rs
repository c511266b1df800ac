//! What the kernel needs of the machine. `arch` implements it on AArch64; tests use a fake.

use crate::context::Context;
use crate::id::{TcbId, VSpaceId};
use crate::vcpu::Vcpu;

/// Cache maintenance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheOp {
    /// Write back.
    Clean,
    /// Discard.
    Invalidate,
    /// Write back and discard.
    CleanInvalidate,
    /// Make written instructions visible to fetches.
    Unify,
}

/// Time in ticks, the deadline timer, interrupt lines.
pub trait Machine {
    /// Ticks since some moment.
    fn now(&self) -> u64;
    /// Interrupts at or after that moment.
    fn set_deadline(&mut self, time: u64);
    /// Lets an interrupt line through or not.
    fn enable_irq(&mut self, irq: u32, on: bool);
    /// Prints a byte, in the debug configuration.
    fn put_char(&mut self, byte: u8);
    /// Stops the machine.
    fn halt(&mut self);
    /// A secure monitor call: x0 to x7 in and out.
    fn smc(&mut self, registers: [u64; 8]) -> [u64; 8];
}

/// Memory of users, by physical address. Addresses come from the boot description only.
pub trait Memory {
    /// Reads a word.
    fn read(&self, paddr: u64) -> u64;
    /// Writes a word.
    fn write(&mut self, paddr: u64, value: u64);
    /// Where an address is mapped, and the size of the page.
    fn translate(&self, vspace: VSpaceId, vaddr: u64) -> Option<(u64, u64)>;
    /// Maintains the caches of a range inside one page.
    fn maintain(&mut self, op: CacheOp, paddr: u64, bytes: u64);
}

/// The CPU's registers that are not saved at every kernel entry.
pub trait Cpu {
    /// Saves them from the CPU.
    fn save(&mut self, context: &mut Context);
    /// Loads them, and the address space.
    fn load(&mut self, context: &Context, vspace: VSpaceId);
    /// Changes the FPU's owner: saves its registers for `from`, loads those of `to`.
    fn switch_fpu(&mut self, from: Option<TcbId>, to: TcbId);
    /// Lets threads use the FPU or trap.
    fn enable_fpu(&mut self, on: bool);
}

/// The virtual CPU's registers, and the virtual interrupt interface.
pub trait Virtual {
    /// Number of list registers.
    fn list_registers(&self) -> usize;
    /// Reads field `field` (0 to 23) from the CPU.
    fn read_field(&self, field: usize) -> u64;
    /// Writes field `field` (0 to 23) to the CPU.
    fn write_field(&mut self, field: usize, value: u64);
    /// Reads a list register.
    fn read_lr(&self, index: usize) -> u32;
    /// Writes a list register.
    fn write_lr(&mut self, index: usize, value: u32);
    /// Maintenance status, and the list registers whose interrupt was completed.
    fn maintenance(&self) -> (u32, u32);
    /// Saves what stays in the CPU while a virtual CPU is loaded but not active.
    fn save_all(&mut self, vcpu: &mut Vcpu);
    /// Loads it.
    fn load_all(&mut self, vcpu: &Vcpu);
    /// Turns on what only runs while the virtual CPU does: control registers, timer, interrupt interface, traps.
    fn activate(&mut self, vcpu: &Vcpu);
    /// Saves that and turns it off; native threads can run.
    fn deactivate(&mut self, vcpu: &mut Vcpu);
    /// Forgets the loaded virtual CPU's translations: another one of the same machine is about to use them.
    fn flush_translations(&mut self);
}

/// All of it.
pub trait Hardware: Machine + Memory + Cpu + Virtual {}
impl<T: Machine + Memory + Cpu + Virtual> Hardware for T {}
