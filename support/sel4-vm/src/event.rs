//! Receiving, with what can ride on it, for a PD that writes its own loop.
//!
//! Microkit's loop answers a fault with ReplyRecv. For a VMM there are cheaper ways (kernel instructions, release):
//!
//! | way | instructions |
//! |---|---|
//! | [`reply_recv`] to a vCPU | 1224 |
//! | [`resume_recv`]: NBSendRecv with the reply capability as destination | 1089 |
//! | [`crate::Vm::resume_at`] then [`notify_recv`]: go on after a doorbell and ring the next one | 524 + 874 |
//! | sleep on WFI by [`wait`] (keeps the vCPU's fault to be answered) / by [`recv`] (gives it up) | 644 / 763 |

use sel4::{Badge, MessageInfo, Word, cap};

use crate::slot;

const INPUT: cap::Endpoint = cap::Endpoint::from_bits(slot::INPUT);
const REPLY: cap::Reply = cap::Reply::from_bits(slot::REPLY);

/// What a PD is woken for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Bit `n`: channel or interrupt `n`.
    Notified(Word),
    /// A protected call from a channel.
    Protected(usize, MessageInfo),
    /// A fault of a child or vCPU.
    Fault(usize, MessageInfo),
}

impl Event {
    /// By the badge, as Microkit hands them out.
    pub fn new(info: MessageInfo, badge: Badge) -> Self {
        match badge >> 62 {
            0 => Self::Notified(badge),
            2 => Self::Protected((badge & 0x3f) as usize, info),
            _ => Self::Fault((badge & 0xff) as usize, info),
        }
    }
}

/// Waits for an event. A caller or vCPU that was not answered is given up: it becomes inactive.
pub fn recv() -> Event {
    let (info, badge) = INPUT.recv(REPLY);
    Event::new(info, badge)
}

/// Answers and waits. With nobody to answer it only waits.
pub fn reply_recv(info: MessageInfo) -> Event {
    let (info, badge) = INPUT.reply_recv(info, REPLY);
    Event::new(info, badge)
}

/// Answers a vCPU's fault with an empty message (it goes on at its program counter) and waits. Not for protected calls: a
/// reply sent this way leaves a passive server without the caller's time.
pub fn resume_recv() -> Event {
    send_recv(REPLY.upcast(), MessageInfo::new(0, 0, 0, 0))
}

/// Notifies a channel and waits.
pub fn notify_recv(channel: usize) -> Event {
    send_recv(
        cap::Unspecified::from_bits(slot::NOTIFICATIONS + channel as Word),
        MessageInfo::new(0, 0, 0, 0),
    )
}

/// Acknowledges an interrupt and waits.
pub fn irq_ack_recv(channel: usize) -> Event {
    send_recv(cap::Unspecified::from_bits(slot::IRQS + channel as Word), irq_ack_info())
}

/// Sends `info` (and the message registers of the IPC buffer) to `destination` without waiting, then waits for an event.
/// VCPU, IRQ, reply and notification capabilities work as destinations; TCB invocations fail without a word.
pub fn send_recv(destination: cap::Unspecified, info: MessageInfo) -> Event {
    let (info, badge) = destination.nb_send_recv(info, INPUT, REPLY);
    Event::new(info, badge)
}

/// Waits for a notification and leaves the reply object alone, so a vCPU that faulted before stays to be answered.
///
/// Only for a PD that nobody calls and whose every vCPU is already blocked: a message that comes while waiting would have
/// no reply object and its sender would be stuck.
pub fn wait() -> Word {
    let (_, badge) = cap::Notification::from_bits(slot::INPUT).wait();
    badge
}

/// Takes notifications that are there, without waiting. 0 if there are none. As [`wait`].
pub fn poll() -> Word {
    let (_, badge) = cap::Notification::from_bits(slot::INPUT).poll();
    badge
}

/// Acknowledges an interrupt without a result, by Send: 451 instructions instead of 513.
pub fn irq_ack_by_send(channel: usize) {
    cap::IrqHandler::from_bits(slot::IRQS + channel as Word).send_with_mrs(irq_ack_info(), []);
}

fn irq_ack_info() -> MessageInfo {
    MessageInfo::new(sel4::sys::invocation_label::IRQAckIRQ.into(), 0, 0, 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sel4::fake::{Syscall, with_kernel};
    use sel4::sys::syscall;

    use super::*;

    #[test]
    fn resume_recv_sends_to_the_reply_object_and_receives_with_it() {
        let kernel = |call: &mut Syscall<'_>| {
            assert_eq!((call.number, call.x[8], call.x[0], call.x[6]), (syscall::NB_SEND_RECV, 4, 1, 4));
            assert_eq!(call.x[1], 0);
            call.x[0] = 1 << 62 | 2;
            call.x[1] = MessageInfo::new(8, 0, 0, 1).bits();
        };
        assert_eq!(with_kernel(kernel, resume_recv), Event::Fault(2, MessageInfo::new(8, 0, 0, 1)));
    }

    #[test]
    fn wait_names_no_reply_object() {
        let kernel = |call: &mut Syscall<'_>| {
            assert_eq!((call.number, call.x[0]), (syscall::WAIT, 1));
            call.x[0] = 0b101;
        };
        assert_eq!(with_kernel(kernel, wait), 5);
    }

    #[test]
    fn acks_carry_the_label() {
        let kernel = |call: &mut Syscall<'_>| {
            assert_eq!(call.x[1] >> 12, u64::from(sel4::sys::invocation_label::IRQAckIRQ));
            match call.number {
                syscall::SEND => assert_eq!(call.x[0], 141),
                number => assert_eq!((number, call.x[8]), (syscall::NB_SEND_RECV, 141)),
            }
            call.x[0] = 1;
        };
        with_kernel(kernel, || {
            irq_ack_by_send(3);
            assert_eq!(irq_ack_recv(3), Event::Notified(1));
        });
    }

    proptest! {
        #[test]
        fn badges_read_as_microkit_makes_them(id in 0usize..62, bits in 0u64..1 << 62) {
            let info = MessageInfo::new(1, 0, 0, 0);
            prop_assert_eq!(Event::new(info.clone(), bits), Event::Notified(bits));
            let call = Event::new(info.clone(), 1 << 63 | id as u64);
            prop_assert_eq!(call, Event::Protected(id, info.clone()));
            prop_assert_eq!(Event::new(info.clone(), 1 << 62 | id as u64), Event::Fault(id, info));
        }
    }
}
