//! Child PDs: stop, start again.

use sel4::{Result, UserContext, Word, cap::Tcb};

use crate::{MAX_ID, slot, thread};

/// First instruction of a PD built with our linker script or libmicrokit's.
const ENTRY: Word = 0x20_0000;

/// Child PD `n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChildPd {
    tcb: Tcb,
}

impl ChildPd {
    /// By its id in the system description, at most 61.
    ///
    /// # Panics
    /// If the id is greater.
    pub const fn new(child: usize) -> Self {
        assert!(child <= MAX_ID);
        Self { tcb: Tcb::from_bits(slot::CHILD_TCBS + child as Word) }
    }

    /// Its capability.
    pub const fn tcb(&self) -> Tcb {
        self.tcb
    }

    /// Stops it. A protected call it was serving stays unanswered; its caller waits until the child, started again,
    /// receives with the same reply object, and then loses the call (it becomes inactive): see [`ChildPd::restart`].
    pub fn stop(&self) -> Result<()> {
        self.tcb.tcb_suspend()
    }

    /// Goes on where it was stopped. A child that was blocked in a system call does it again.
    pub fn resume(&self) -> Result<()> {
        self.tcb.tcb_resume()
    }

    /// Starts it at its beginning with every register zero, as Microkit did, whatever it was doing. Our entry code sets the
    /// stack pointer and restores the data. Whoever was in a protected call to it is made inactive by the child's first
    /// receive and must be started again by its own parent.
    pub fn restart(&self) -> Result<()> {
        self.restart_at(ENTRY)
    }

    /// [`ChildPd::restart`] of a program with another entry point.
    pub fn restart_at(&self, entry: Word) -> Result<()> {
        let mut context = UserContext::default();
        *context.pc_mut() = entry;
        self.tcb.tcb_write_all_registers(true, &mut context)
    }

    /// All registers, for a report.
    pub fn registers(&self) -> Result<UserContext> {
        self.tcb.tcb_read_registers(false, thread::ALL as Word)
    }

    /// Sets the priority, at most this PD's own: `authority` is a capability to a thread with that right (a child of equal or
    /// greater maximum controlled priority).
    pub fn set_priority(&self, authority: &ChildPd, priority: u8) -> Result<()> {
        self.tcb.tcb_set_priority(authority.tcb, priority.into())
    }
}

#[cfg(test)]
mod tests {
    use sel4::fake::{Syscall, with_kernel};
    use sel4::{Error, MessageInfo};

    use super::*;

    #[test]
    fn restart_writes_every_register() {
        let kernel = |call: &mut Syscall<'_>| {
            assert_eq!(call.x[0], 205);
            assert_eq!(MessageInfo::from_bits(call.x[1]).length(), 38);
            assert_eq!(call.x[2..6], [1, 36, 0x20_0000, 0]);
            assert!(call.ipc_buffer.as_ref().unwrap().msg_regs()[4..38].iter().all(|word| *word == 0));
            call.x[1] = MessageInfo::new(2, 0, 0, 0).bits();
        };
        assert_eq!(with_kernel(kernel, || ChildPd::new(3).restart()), Err(Error::InvalidCapability));
    }
}
