//! Debug system calls, and what the debug configuration prints.

use core::fmt::{self, Write};

use crate::abi::{BUILD, Config, buffer, syscall};
use crate::cspace::word_address;
use crate::fault::Fault;
use crate::hal::{Hardware, Machine};
use crate::id::TcbId;
use crate::kernel::Kernel;
use crate::object::Cap;

/// Prints through the machine.
pub struct Console<'m, M>(pub &'m mut M);

impl<M: Machine> Write for Console<'_, M> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for byte in s.bytes() {
            if byte == b'\n' {
                self.0.put_char(b'\r');
            }
            self.0.put_char(byte);
        }
        Ok(())
    }
}

/// A name, up to its first NUL.
fn name(bytes: &[u8]) -> &str {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    bytes.get(..end).and_then(|b| core::str::from_utf8(b).ok()).unwrap_or("?")
}

impl<H: Hardware> Kernel<'_, H> {
    /// Handles a debug system call; false if it is none or this is not the debug configuration.
    pub(crate) fn debug_syscall(&mut self, t: TcbId, number: i64) -> bool {
        if BUILD != Config::Debug || !(syscall::DEBUG_NAME_THREAD..=syscall::DEBUG_PUT_CHAR).contains(&number)
        {
            return false;
        }
        let x0 = self.tcbs[t].context.x[0];
        match number {
            syscall::DEBUG_PUT_CHAR => self.hw.put_char(x0 as u8),
            syscall::DEBUG_DUMP_SCHEDULER => self.dump(),
            syscall::DEBUG_HALT => {
                let _ = writeln!(Console(&mut self.hw), "Debug halt system call from user thread");
                self.hw.halt();
            }
            syscall::DEBUG_CAP_IDENTIFY => {
                let kind = self.lookup(t, x0).map_or(0, |cap| identify(*cap));
                self.tcbs[t].context.x[0] = kind;
            }
            syscall::DEBUG_NAME_THREAD => {
                if let Ok(&Cap::Tcb(target)) = self.lookup(t, x0) {
                    self.set_name(t, target);
                }
            }
            _ => {}
        }
        true
    }

    fn set_name(&mut self, t: TcbId, target: TcbId) {
        let Some(paddr) = self.tcbs[t].buffer else { return };
        let mut bytes = [0; 64];
        for (i, chunk) in bytes.chunks_exact_mut(8).enumerate() {
            chunk.copy_from_slice(&self.hw.read(word_address(paddr, buffer::MESSAGE + i)).to_le_bytes());
        }
        if let Some(end) = bytes.iter().position(|b| *b == 0)
            && let Some(rest) = bytes.get_mut(end..)
        {
            rest.fill(0);
        }
        self.tcbs[target].name = bytes;
    }

    fn dump(&mut self) {
        let mut console = Console(&mut self.hw);
        let _ = writeln!(console, "\nname\tstate\tip\tprio\tqueue");
        for (_, t) in self.tcbs.iter() {
            let (ip, n) = (t.context.fault_ip, name(&t.name));
            let _ = writeln!(console, "{n}\t{:?}\t{ip:#x}\t{}\t{:?}", t.state, t.priority, t.queue);
        }
    }

    /// A fault that nobody handles.
    pub(crate) fn report_unhandled(&mut self, t: TcbId, fault: &Fault) {
        if BUILD != Config::Debug {
            return;
        }
        let tcb = &self.tcbs[t];
        let (ip, n) = (tcb.context.fault_ip, name(&tcb.name));
        let _ = writeln!(Console(&mut self.hw), "thread '{n}' has no fault handler: {fault:x?} at {ip:#x}");
    }
}

/// The kernel's number of a capability's type.
fn identify(cap: Cap) -> u64 {
    match cap {
        Cap::Null => 0,
        Cap::Endpoint(_) => 4,
        Cap::Notification(_) => 6,
        Cap::Reply(_) => 8,
        Cap::CNode(..) => 10,
        Cap::Tcb(_) => 12,
        Cap::Irq(_) => 16,
        Cap::SchedContext(_) => 22,
        Cap::VSpace(_) => 9,
        Cap::Vcpu(_) => 15,
        Cap::Smc(_) => 25,
    }
}
