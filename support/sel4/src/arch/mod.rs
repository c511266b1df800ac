//! The system-call instruction, and on the host what stands in for it.
//!
//! Registers, both ways: x0 destination or source, then badge; x1 tag; x2–x5 the first message registers; x6 reply
//! object (for NBSendWait the destination); x8 destination of NBSendRecv; x7 the number. A notification's wake-up writes
//! x0 and nothing else, so the tag that comes with a notification means nothing; receives start with a zero there.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(not(target_os = "none"))]
pub mod fake;

#[cfg(all(target_arch = "aarch64", target_os = "none"))]
pub(crate) use aarch64::{call, debug, nb_send_recv, recv, reply_recv, send};
#[cfg(not(target_os = "none"))]
pub(crate) use fake::{call, debug, nb_send_recv, recv, reply_recv, send};

use crate::Word;

/// What a system call that receives leaves in the registers.
pub(crate) struct Received {
    pub badge: Word,
    pub info: Word,
    pub regs: [Word; 4],
}
