//! Channels to other PDs and interrupts, and children, by the ids of the system description.

use core::fmt;

use sel4::cap::{Endpoint, IrqHandler, Notification, Tcb};

use crate::MessageInfo;
use crate::symbols::{pd_irqs, pd_notifications, pd_pps};

// Where Microkit puts the capabilities of a PD: 64 slots for each kind, by channel or child id.
const NOTIFICATIONS: usize = 10;
const ENDPOINTS: usize = NOTIFICATIONS + 64;
const IRQS: usize = ENDPOINTS + 64;
const TCBS: usize = IRQS + 64;

/// Ids are 0 to 61: two bits of a badge say what kind of event it is.
pub(crate) const MAX_CHANNELS: usize = 62;

/// A channel or interrupt of this PD.
#[derive(Debug, Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct Channel {
    index: usize,
}

impl Channel {
    /// By its id.
    ///
    /// # Panics
    /// If `index` is not below 62.
    pub const fn new(index: usize) -> Self {
        assert!(index < MAX_CHANNELS);
        Self { index }
    }

    /// Its id.
    pub const fn index(&self) -> usize {
        self.index
    }

    /// The capability in `base`'s range, which exists only if the system description says so.
    fn slot(&self, base: usize, granted: usize, what: &str) -> sel4::CPtrBits {
        if granted >> self.index & 1 == 0 {
            panic!("channel {} is not for {what}", self.index);
        }
        (base + self.index) as sel4::CPtrBits
    }

    #[doc(hidden)]
    pub fn notification(&self) -> Notification {
        Notification::from_bits(self.slot(NOTIFICATIONS, pd_notifications(), "notify"))
    }

    #[doc(hidden)]
    pub fn irq_handler(&self) -> IrqHandler {
        IrqHandler::from_bits(self.slot(IRQS, pd_irqs(), "irq_ack"))
    }

    #[doc(hidden)]
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::from_bits(self.slot(ENDPOINTS, pd_pps(), "pp_call"))
    }

    /// Notifies the other end.
    ///
    /// # Panics
    /// If the system description does not let this PD do so.
    pub fn notify(&self) {
        self.notification().signal()
    }

    /// Lets the interrupt come again.
    ///
    /// # Panics
    /// If this is not an interrupt of this PD.
    pub fn irq_ack(&self) -> Result<(), IrqAckError> {
        self.irq_handler().irq_handler_ack().map_err(IrqAckError)
    }

    /// Calls the other end's `protected`.
    ///
    /// # Panics
    /// If the system description does not let this PD do so.
    pub fn pp_call(&self, msg_info: MessageInfo) -> MessageInfo {
        MessageInfo::from_inner(self.endpoint().call(msg_info.into_inner()))
    }
}

/// The kernel refused [`Channel::irq_ack`].
#[derive(Debug, PartialEq, Eq)]
pub struct IrqAckError(sel4::Error);

impl fmt::Display for IrqAckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "acknowledging an interrupt: {}", self.0)
    }
}

/// A child PD or a vCPU of this PD.
#[derive(Debug, Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct Child {
    index: usize,
}

impl Child {
    /// By its id.
    pub const fn new(index: usize) -> Self {
        Self { index }
    }

    /// Its id.
    pub const fn index(&self) -> usize {
        self.index
    }

    #[doc(hidden)]
    pub fn tcb(&self) -> Tcb {
        Tcb::from_bits((TCBS + self.index) as sel4::CPtrBits)
    }
}
