//! Sending, receiving and calling through capabilities.
//!
//! As in libsel4, the IPC buffer's first four message registers are loaded into x2–x5 before a send and stored from them
//! after a receive, so a message reads the same whether it travelled in registers or in memory. The `_with_mrs` forms skip
//! that, which saves the memory traffic and the loan of the buffer on hot paths.

use core::ptr;

use crate::arch::{self, Received};
use crate::sys::{self, syscall};
use crate::{
    Cap, CapType, InvocationContext, IpcBuffer, MessageInfo, NoExplicitInvocationContext, Word, cap,
};

/// Greatest number of message registers of a message.
pub const NUM_MESSAGE_REGISTERS: usize = sys::seL4_MsgMaxLength as usize;

/// Message registers that travel in machine registers.
pub const NUM_FAST_MESSAGE_REGISTERS: usize = 4;

/// Who sent: chosen by whoever handed out the capability.
pub type Badge = Word;

/// Tag that comes with [`cap::Notification::wait`]; it means nothing.
pub type WaitMessageInfo = MessageInfo;

/// Where the right to answer a caller is put.
pub type ReplyAuthority<C = NoExplicitInvocationContext> = cap::Reply<C>;

/// Names a reply object.
pub trait ConveysReplyAuthority {
    /// Its invocation context.
    type C;

    /// The reply object.
    fn into_reply_authority(self) -> ReplyAuthority<Self::C>;
}

impl<C> ConveysReplyAuthority for ReplyAuthority<C> {
    type C = C;

    fn into_reply_authority(self) -> ReplyAuthority<C> {
        self
    }
}

fn finish(received: Received, ipc_buffer: &mut IpcBuffer) -> (MessageInfo, Badge) {
    ipc_buffer.set_fast(received.regs);
    (MessageInfo::from_bits(received.info), received.badge)
}

impl<T: CapType, C: InvocationContext> Cap<T, C> {
    /// Sends and, on an endpoint, waits until the message is taken. On a kernel object this is an invocation whose result
    /// nobody learns.
    pub fn send(self, info: MessageInfo) {
        self.send_by(syscall::SEND, info);
    }

    /// Sends if somebody waits for it, else drops the message.
    pub fn nb_send(self, info: MessageInfo) {
        self.send_by(syscall::NB_SEND, info);
    }

    fn send_by(self, number: isize, info: MessageInfo) {
        self.invoke(|cptr, buffer| arch::send(number, cptr.bits(), info.bits(), buffer.fast(), buffer));
    }

    /// In one system call: `nb_send` here, then `recv` from `src`.
    pub fn nb_send_recv<U: CapType>(
        self,
        info: MessageInfo,
        src: Cap<U>,
        reply_authority: impl ConveysReplyAuthority,
    ) -> (MessageInfo, Badge) {
        let reply = reply_authority.into_reply_authority().bits();
        self.invoke(|cptr, buffer| {
            let regs = buffer.fast();
            finish(arch::nb_send_recv(cptr.bits(), src.bits(), info.bits(), regs, reply, buffer), buffer)
        })
    }

    /// Waits for a message.
    pub fn recv(self, reply_authority: impl ConveysReplyAuthority) -> (MessageInfo, Badge) {
        self.recv_by(syscall::RECV, reply_authority.into_reply_authority().bits())
    }

    /// Takes a message that is there; badge 0 if none is.
    pub fn nb_recv(self, reply_authority: impl ConveysReplyAuthority) -> (MessageInfo, Badge) {
        self.recv_by(syscall::NB_RECV, reply_authority.into_reply_authority().bits())
    }

    fn recv_by(self, number: isize, reply: Word) -> (MessageInfo, Badge) {
        self.invoke(|cptr, buffer| finish(arch::recv(number, cptr.bits(), reply, buffer), buffer))
    }

    /// Sends and waits for the answer.
    pub fn call(self, info: MessageInfo) -> MessageInfo {
        self.invoke(|cptr, buffer| {
            let regs = buffer.fast();
            finish(arch::call(cptr.bits(), info.bits(), regs, buffer), buffer).0
        })
    }

    /// In one system call: answers the caller that `reply_authority` holds, then `recv`.
    pub fn reply_recv(
        self,
        info: MessageInfo,
        reply_authority: impl ConveysReplyAuthority,
    ) -> (MessageInfo, Badge) {
        let reply = reply_authority.into_reply_authority().bits();
        self.invoke(|cptr, buffer| {
            let regs = buffer.fast();
            finish(arch::reply_recv(cptr.bits(), info.bits(), regs, reply, buffer), buffer)
        })
    }

    /// [`Cap::send`] of up to four message registers that are not in the IPC buffer.
    pub fn send_with_mrs<M: FastMessages>(self, info: MessageInfo, messages: M) {
        arch::send(syscall::SEND, self.bits(), info.bits(), messages.prepare(), ptr::null_mut());
    }

    /// [`Cap::recv`] without storing the first four message registers.
    pub fn recv_with_mrs(self, reply_authority: impl ConveysReplyAuthority) -> RecvWithMRs {
        let reply = reply_authority.into_reply_authority().bits();
        let got = self.invoke(|cptr, buffer| arch::recv(syscall::RECV, cptr.bits(), reply, buffer));
        RecvWithMRs { info: MessageInfo::from_bits(got.info), badge: got.badge, msg: got.regs }
    }

    /// [`Cap::call`] with up to four message registers that are not in the IPC buffer; nor is the answer.
    pub fn call_with_mrs<M: FastMessages>(self, info: MessageInfo, messages: M) -> CallWithMRs {
        let regs = messages.prepare();
        let got = self.invoke(|cptr, buffer| arch::call(cptr.bits(), info.bits(), regs, buffer));
        CallWithMRs { info: MessageInfo::from_bits(got.info), msg: got.regs }
    }
}

impl<C: InvocationContext> cap::Notification<C> {
    /// Sets this capability's badge bits.
    pub fn signal(self) {
        arch::send(syscall::SEND, self.bits(), 0, [0; 4], ptr::null_mut());
    }

    /// Waits until a bit is set; takes all of them.
    pub fn wait(self) -> (WaitMessageInfo, Badge) {
        self.recv_by(syscall::WAIT, 0)
    }

    /// Takes the bits that are set; badge 0 if none is.
    pub fn poll(self) -> (MessageInfo, Badge) {
        self.recv_by(syscall::NB_WAIT, 0)
    }
}

/// Gives up the rest of this thread's budget.
pub fn r#yield() {
    arch::debug(syscall::YIELD, 0);
}

/// Result of [`Cap::recv_with_mrs`].
pub struct RecvWithMRs {
    /// Tag.
    pub info: MessageInfo,
    /// Sender.
    pub badge: Badge,
    /// First message registers.
    pub msg: [Word; NUM_FAST_MESSAGE_REGISTERS],
}

/// Result of [`Cap::call_with_mrs`].
pub struct CallWithMRs {
    /// Tag.
    pub info: MessageInfo,
    /// First message registers.
    pub msg: [Word; NUM_FAST_MESSAGE_REGISTERS],
}

/// Up to four message registers.
pub trait FastMessages: sealed::Sealed {
    #[doc(hidden)]
    fn prepare(self) -> [Word; NUM_FAST_MESSAGE_REGISTERS];
}

impl<const N: usize> FastMessages for [Word; N]
where
    [Word; N]: sealed::Sealed,
{
    fn prepare(self) -> [Word; NUM_FAST_MESSAGE_REGISTERS] {
        self.as_slice().prepare()
    }
}

impl FastMessages for &[Word] {
    /// What is beyond the fourth word is not sent.
    fn prepare(self) -> [Word; NUM_FAST_MESSAGE_REGISTERS] {
        let mut regs = [0; NUM_FAST_MESSAGE_REGISTERS];
        regs.iter_mut().zip(self).for_each(|(to, from)| *to = *from);
        regs
    }
}

mod sealed {
    use crate::Word;

    pub trait Sealed {}
    impl Sealed for [Word; 0] {}
    impl Sealed for [Word; 1] {}
    impl Sealed for [Word; 2] {}
    impl Sealed for [Word; 3] {}
    impl Sealed for [Word; 4] {}
    impl Sealed for &[Word] {}
}

#[cfg(test)]
mod tests {
    use crate::fake::with_kernel;
    use crate::sys::syscall;
    use crate::{Cap, MessageInfo, cap, with_ipc_buffer, with_ipc_buffer_mut};

    #[test]
    fn nb_send_recv_puts_source_in_x0_reply_in_x6_destination_in_x8() {
        with_ipc_buffer_mut(|buffer| buffer.msg_regs_mut()[..5].copy_from_slice(&[10, 11, 12, 13, 14]));
        let kernel = |call: &mut crate::fake::Syscall<'_>| {
            assert_eq!(call.number, syscall::NB_SEND_RECV);
            assert_eq!(call.x[..7], [1, MessageInfo::new(7, 0, 0, 5).bits(), 10, 11, 12, 13, 4]);
            assert_eq!(call.x[8], 20);
            let buffer = call.ipc_buffer.as_mut().unwrap();
            assert_eq!(buffer.msg_regs()[4], 14);
            buffer.msg_regs_mut()[4] = 104;
            call.x[..6].copy_from_slice(&[0x55, MessageInfo::new(9, 0, 0, 5).bits(), 100, 101, 102, 103]);
        };
        let (info, badge) = with_kernel(kernel, || {
            let (src, reply) = (cap::Endpoint::from_bits(1), cap::Reply::from_bits(4));
            cap::Notification::from_bits(20).nb_send_recv(MessageInfo::new(7, 0, 0, 5), src, reply)
        });
        assert_eq!((info.label(), info.length(), badge), (9, 5, 0x55));
        with_ipc_buffer(|buffer| assert_eq!(buffer.msg_regs()[..5], [100, 101, 102, 103, 104]));
    }

    #[test]
    fn receives_start_with_an_empty_tag() {
        let cap: cap::Endpoint = Cap::from_bits(1);
        let kernel = |call: &mut crate::fake::Syscall<'_>| {
            assert_eq!((call.number, call.x[0], call.x[6]), (syscall::RECV, 1, 4));
            call.x[0] = 1 << 5; // a notification writes nothing else
        };
        let (info, badge) = with_kernel(kernel, || cap.recv(cap::Reply::from_bits(4)));
        assert_eq!((info.bits(), badge), (0, 32));
    }

    #[test]
    fn messages_in_registers_leave_the_buffer_alone() {
        with_ipc_buffer_mut(|buffer| buffer.msg_regs_mut().fill(1));
        let kernel = |call: &mut crate::fake::Syscall<'_>| {
            assert_eq!(call.x[2..6], [5, 6, 0, 0]);
            call.x[2..6].fill(9);
        };
        let answer = with_kernel(kernel, || {
            cap::Endpoint::from_bits(74).call_with_mrs(MessageInfo::new(0, 0, 0, 2), [5, 6])
        });
        assert_eq!(answer.msg, [9; 4]);
        with_ipc_buffer(|buffer| assert!(buffer.msg_regs().iter().all(|word| *word == 1)));
    }
}
