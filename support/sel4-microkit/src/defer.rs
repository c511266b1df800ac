//! One action that can be put off and joined with the next receive, which saves a system call.

use sel4::MessageInfoBuilder;

use crate::{Channel, IrqAckError};

/// A notification or interrupt acknowledgement that is to happen with the next receive.
#[derive(Debug, Copy, Clone, Eq, PartialEq)]
pub struct DeferredAction {
    channel: Channel,
    interface: DeferredActionInterface,
}

/// What is to be done on the channel.
#[derive(Debug, Copy, Clone, Eq, PartialEq)]
pub enum DeferredActionInterface {
    /// [`Channel::notify`]
    Notify,
    /// [`Channel::irq_ack`]
    IrqAck,
}

impl DeferredAction {
    /// An action on a channel.
    pub fn new(channel: Channel, interface: DeferredActionInterface) -> Self {
        Self { channel, interface }
    }

    /// A notification.
    pub fn new_notify(channel: Channel) -> Self {
        Self::new(channel, DeferredActionInterface::Notify)
    }

    /// An interrupt acknowledgement.
    pub fn new_irq_ack(channel: Channel) -> Self {
        Self::new(channel, DeferredActionInterface::IrqAck)
    }

    /// On which channel.
    pub fn channel(&self) -> Channel {
        self.channel
    }

    /// What.
    pub fn interface(&self) -> DeferredActionInterface {
        self.interface
    }

    /// Does it at once.
    pub fn execute_now(self) -> Result<(), IrqAckError> {
        match self.interface {
            DeferredActionInterface::Notify => self.channel.notify(),
            DeferredActionInterface::IrqAck => self.channel.irq_ack()?,
        }
        Ok(())
    }

    pub(crate) fn prepare(&self) -> Prepared {
        match self.interface {
            DeferredActionInterface::Notify => Prepared {
                cap: self.channel.notification().upcast(),
                info: MessageInfoBuilder::default().build(),
            },
            DeferredActionInterface::IrqAck => Prepared {
                cap: self.channel.irq_handler().upcast(),
                info: MessageInfoBuilder::default()
                    .label(sel4::sys::invocation_label::IRQAckIRQ.into())
                    .build(),
            },
        }
    }
}

/// A send without an answer.
#[derive(Debug, Clone, Eq, PartialEq)]
pub(crate) struct Prepared {
    pub cap: sel4::cap::Unspecified,
    pub info: sel4::MessageInfo,
}

/// Holds at most one [`DeferredAction`]; a second one makes the first happen at once.
#[derive(Debug, Default)]
pub struct DeferredActionSlot {
    inner: Option<DeferredAction>,
}

impl DeferredActionSlot {
    /// Empty.
    pub const fn new() -> Self {
        Self { inner: None }
    }

    /// Takes the action; for [`crate::Handler::take_deferred_action`].
    pub fn take(&mut self) -> Option<DeferredAction> {
        self.inner.take()
    }

    /// Puts an action off. The error is of the action that was put off before.
    pub fn defer(&mut self, action: DeferredAction) -> Result<(), IrqAckError> {
        self.inner.replace(action).map_or(Ok(()), DeferredAction::execute_now)
    }

    /// Puts a notification off.
    pub fn defer_notify(&mut self, channel: Channel) -> Result<(), IrqAckError> {
        self.defer(DeferredAction::new_notify(channel))
    }

    /// Puts an interrupt acknowledgement off.
    pub fn defer_irq_ack(&mut self, channel: Channel) -> Result<(), IrqAckError> {
        self.defer(DeferredAction::new_irq_ack(channel))
    }
}
