//! What the VMM needs of the kernel and of its peers, as a trait: `main.rs` implements it by system calls, the tests by a
//! fake guest.

use partita_guest::gic::Injection;
use partita_virtio::mmio::RegisterPage;

/// System registers of a vCPU that the VMM looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// ESR_EL1.
    Esr,
    /// VBAR_EL1.
    Vbar,
    /// ELR_EL1.
    Elr,
    /// SPSR_EL1.
    Spsr,
    /// CNTV_CTL_EL0, frozen while the vCPU does not run.
    CntvCtl,
    /// CNTV_CVAL_EL0.
    CntvCval,
}

/// The machine below one guest.
///
/// Operations without a result are invocations by Send: their arguments are valid by construction, and nobody would do
/// anything about an error.
pub trait Machine {
    /// Reads the first `into.len()` words of a vCPU's context ([`partita_guest::registers`]).
    fn registers(&mut self, vcpu: usize, into: &mut [u64]);
    /// Writes the first words of a vCPU's context; with `resume` the vCPU runs on from there, whatever it was blocked in.
    fn set_registers(&mut self, vcpu: usize, prefix: &[u64], resume: bool);
    /// Runs a stopped vCPU.
    fn resume(&mut self, vcpu: usize);
    /// Stops a vCPU.
    fn suspend(&mut self, vcpu: usize);
    /// Gives a stopped vCPU the system registers of a new one, and MPIDR with its number as Aff0.
    fn reset(&mut self, vcpu: usize);
    /// Reads a system register of a vCPU that does not run now.
    fn field(&mut self, vcpu: usize, field: Field) -> u64;
    /// Writes one.
    fn set_field(&mut self, vcpu: usize, field: Field, value: u64);
    /// Writes a list register.
    fn inject(&mut self, vcpu: usize, injection: Injection);
    /// Lets the virtual timer's interrupt come again.
    fn ack_timer(&mut self, vcpu: usize);
    /// Lets the interrupt of a passed-through device come again.
    fn ack_irq(&mut self, channel: usize);
    /// CNTPCT.
    fn counter(&self) -> u64;
    /// Counts per second.
    fn frequency(&self) -> u64;
    /// Notifies a peer.
    fn signal(&mut self, channel: usize);
    /// Protected call; returns how many words of `reply` came.
    fn call(&mut self, channel: usize, label: u64, request: &[u64], reply: &mut [u64]) -> usize;
    /// Writes `bytes` bytes of guest RAM from `offset` back to memory, for a guest whose caches are off.
    fn clean(&mut self, offset: u64, bytes: u64);
    /// Makes `bytes` bytes of guest RAM that were written at `offset` visible to a guest whose caches are off, and to
    /// its instruction fetches.
    fn publish(&mut self, offset: u64, bytes: u64);
}

/// A virtio register page as the VMM sees it. Copies of a value mean the same page.
pub trait Page: RegisterPage + Copy {
    /// What the guest reads at byte `offset`, a multiple of 4 below 4096.
    fn load(&self, offset: usize) -> u32;
}
