//! Invocations: what a capability to a kernel object other than an endpoint, notification or reply object does.
//!
//! Every handler checks in the order the real kernel does, so that the same wrong call gets the same error.

mod misc;
mod sched_context;
mod tcb;

use crate::abi::{Error, Invocation, MessageInfo};
use crate::hal::Hardware;
use crate::id::TcbId;
use crate::kernel::Kernel;
use crate::object::Cap;

impl<H: Hardware> Kernel<'_, H> {
    /// What the message asks for.
    pub(crate) fn decode(info: MessageInfo) -> Result<Invocation, Error> {
        Invocation::decode(info.label()).ok_or(Error::IllegalOperation)
    }

    /// Usable length of the caller's message.
    pub(crate) fn argument_count(&self, t: TcbId, info: MessageInfo) -> usize {
        self.places(t, info.length())
    }

    /// Fails unless the message has that many words.
    pub(crate) fn need(&self, t: TcbId, info: MessageInfo, words: usize) -> Result<(), Error> {
        if self.argument_count(t, info) < words { Err(Error::TruncatedMessage) } else { Ok(()) }
    }

    /// Extra capability `index`.
    pub(crate) fn extra_cap(&self, t: TcbId, info: MessageInfo, index: usize) -> Result<Cap, Error> {
        if index >= info.extra_caps() || self.tcbs[t].buffer.is_none() {
            return Err(Error::TruncatedMessage);
        }
        Ok(self.lookup(t, self.extra_pointer(t, index)).copied().unwrap_or(Cap::Null))
    }
}
