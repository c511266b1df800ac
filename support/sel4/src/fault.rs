//! What a thread did that the kernel will not go on after, as its handler is told.

use crate::{IpcBuffer, MessageInfo, Word};

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident = $label:literal, $words:literal)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, PartialEq, Eq)]
            pub struct $name([Word; $words]);
        )*

        /// A fault. The label of the message says which.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Fault {
            $($(#[$doc])* $name($name),)*
        }

        impl Fault {
            /// From a message. A label that is no fault's reads as [`Fault::NullFault`]: whoever has a capability to a
            /// handler's endpoint can send such a message, so its reader must live with it.
            pub fn new(ipc_buffer: &IpcBuffer, info: &MessageInfo) -> Self {
                let regs = ipc_buffer.msg_regs();
                match info.label() {
                    $($label => Self::$name($name(core::array::from_fn(|i| regs[i]))),)*
                    _ => Self::NullFault(NullFault([])),
                }
            }
        }
    };
}

faults! {
    /// No fault.
    NullFault = 0, 0
    /// A capability that the thread named is not there.
    CapFault = 1, 7
    /// A system call with a number the kernel does not know.
    UnknownSyscall = 2, 13
    /// An instruction that is not allowed.
    UserException = 3, 5
    /// A breakpoint or single step (debug kernels).
    DebugException = 4, 4
    /// The budget ran out.
    Timeout = 5, 2
    /// An address that is not mapped, or not for this.
    VmFault = 6, 4
    /// A guest has finished with an interrupt.
    VGicMaintenance = 7, 1
    /// A guest did what its hypervisor wants to know of; also odd exceptions of native threads.
    VCpuFault = 8, 1
    /// A guest's timer has fired.
    VPpiEvent = 9, 1
}

impl UnknownSyscall {
    /// Address of the instruction.
    pub fn fault_ip(&self) -> Word {
        self.0[8]
    }

    /// Stack pointer.
    pub fn sp(&self) -> Word {
        self.0[9]
    }

    /// Address after the instruction.
    pub fn lr(&self) -> Word {
        self.0[10]
    }

    /// Processor state.
    pub fn spsr(&self) -> Word {
        self.0[11]
    }

    /// The number.
    pub fn syscall(&self) -> Word {
        self.0[12]
    }

    /// Register `ix`.
    ///
    /// # Panics
    /// If `ix` is greater than 7.
    pub fn gpr(&self, ix: usize) -> Word {
        self.0[..8][ix]
    }
}

impl VmFault {
    /// Address of the instruction.
    pub fn ip(&self) -> Word {
        self.0[0]
    }

    /// Address accessed; of a guest, its physical address.
    pub fn addr(&self) -> Word {
        self.0[1]
    }

    /// Whether an instruction was to be fetched.
    pub fn is_prefetch(&self) -> bool {
        self.0[2] != 0
    }

    /// ESR_EL2.
    pub fn fsr(&self) -> Word {
        self.0[3]
    }
}

impl VGicMaintenance {
    /// Index of the list register, if one is meant.
    pub fn idx(&self) -> Option<Word> {
        Some(self.0[0]).filter(|index| *index != Word::MAX)
    }
}

impl VCpuFault {
    /// ESR_EL2.
    pub fn hsr(&self) -> Word {
        self.0[0]
    }
}

impl VPpiEvent {
    /// Interrupt number.
    pub fn irq(&self) -> Word {
        self.0[0]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Fault;
    use crate::{IpcBuffer, MessageInfo};

    fn with(label: u64, words: &[u64]) -> Fault {
        let mut buffer = IpcBuffer::default();
        buffer.msg_regs_mut()[..words.len()].copy_from_slice(words);
        Fault::new(&buffer, &MessageInfo::new(label, 0, 0, words.len()))
    }

    #[test]
    fn words_are_in_the_kernels_order() {
        let Fault::VmFault(fault) = with(6, &[0x20_0004, 0x900_0000, 0, 0x9300_0046]) else { panic!() };
        assert_eq!(
            (fault.ip(), fault.addr(), fault.is_prefetch(), fault.fsr()),
            (0x20_0004, 0x900_0000, false, 0x9300_0046)
        );
        let Fault::UnknownSyscall(fault) = with(2, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]) else {
            panic!()
        };
        assert_eq!((fault.gpr(7), fault.fault_ip(), fault.sp(), fault.lr()), (7, 8, 9, 10));
        assert_eq!((fault.spsr(), fault.syscall()), (11, 12));
        let Fault::VGicMaintenance(fault) = with(7, &[u64::MAX]) else { panic!() };
        assert_eq!(fault.idx(), None);
    }

    proptest! {
        #[test]
        fn no_message_can_stop_the_reader(label in 0u64..1 << 52, length in 0usize..128) {
            let fault = Fault::new(&IpcBuffer::default(), &MessageInfo::new(label, 7, 3, length));
            prop_assert_eq!(matches!(fault, Fault::NullFault(_)), label == 0 || label > 9);
        }
    }
}
