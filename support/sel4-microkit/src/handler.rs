//! The event loop.

use core::fmt;

#[cfg(feature = "alloc")]
use alloc::boxed::Box;

pub use core::convert::Infallible;

use crate::ipc::{self, ChannelSet, Event};
use crate::symbols::pd_irqs;
use crate::{Channel, Child, DeferredAction, MessageInfo, pd_is_passive};

/// What a protection domain does.
///
/// Events that a PD does not expect end in a panic: the system description decides who can cause them, so one that comes
/// anyway is a mistake in the system, not of a peer.
pub trait Handler {
    /// What can go wrong for good.
    type Error: fmt::Display;

    /// Notifications or interrupts came.
    fn notified(&mut self, channels: ChannelSet) -> Result<(), Self::Error> {
        panic!("unexpected notification {}", channels.display())
    }

    /// A protected call came; the result is its answer.
    fn protected(&mut self, channel: Channel, msg_info: MessageInfo) -> Result<MessageInfo, Self::Error> {
        panic!("unexpected call {} from channel {}", msg_info.label(), channel.index())
    }

    /// A child PD or vCPU faulted; the result is the answer, if it is to go on.
    fn fault(&mut self, child: Child, msg_info: MessageInfo) -> Result<Option<MessageInfo>, Self::Error> {
        panic!("unexpected fault {} of child {}", msg_info.label(), child.index())
    }

    /// Called after every event: an action to be joined with the next receive.
    fn take_deferred_action(&mut self) -> Option<DeferredAction> {
        None
    }

    /// The loop itself. A PD with other needs writes its own.
    #[doc(hidden)]
    fn run(&mut self) -> Result<Never, Self::Error> {
        let mut answer = None;
        let mut deferred = pd_is_passive().then(ipc::forfeit_sc);
        ack_all_irqs();
        loop {
            let event = match (answer.take(), deferred.take()) {
                (Some(message), action) => {
                    if let Some(action) = action {
                        ipc::send(action);
                    }
                    ipc::reply_recv(message)
                }
                (None, Some(action)) => ipc::nb_send_recv(action),
                (None, None) => ipc::recv(),
            };
            match event {
                Event::Notified(channels) => self.notified(channels)?,
                Event::Protected(channel, message) => answer = Some(self.protected(channel, message)?),
                Event::Fault(child, message) => answer = self.fault(child, message)?,
            }
            deferred = self.take_deferred_action().as_ref().map(DeferredAction::prepare);
        }
    }
}

/// An interrupt that came before the PD ran is masked until it is acknowledged (seL4 issue 1536), so every loop starts
/// with this.
fn ack_all_irqs() {
    let mut irqs = pd_irqs();
    while irqs != 0 {
        let channel = Channel::new(irqs.trailing_zeros() as usize);
        if let Err(error) = channel.irq_ack() {
            panic!("channel {}: {error}", channel.index());
        }
        irqs &= irqs - 1;
    }
}

/// What never comes.
#[doc(hidden)]
pub enum Never {}

impl Handler for Never {
    type Error = Infallible;
}

/// A [`Handler`] that expects nothing.
pub struct NullHandler(());

impl NullHandler {
    /// The only one.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self(())
    }
}

impl Handler for NullHandler {
    type Error = Infallible;
}

#[cfg(feature = "alloc")]
impl<T: Handler + ?Sized> Handler for Box<T> {
    type Error = T::Error;

    fn notified(&mut self, channels: ChannelSet) -> Result<(), Self::Error> {
        (**self).notified(channels)
    }

    fn protected(&mut self, channel: Channel, msg_info: MessageInfo) -> Result<MessageInfo, Self::Error> {
        (**self).protected(channel, msg_info)
    }

    fn fault(&mut self, child: Child, msg_info: MessageInfo) -> Result<Option<MessageInfo>, Self::Error> {
        (**self).fault(child, msg_info)
    }

    fn take_deferred_action(&mut self) -> Option<DeferredAction> {
        (**self).take_deferred_action()
    }

    fn run(&mut self) -> Result<Never, Self::Error> {
        (**self).run()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::rc::Rc;

    use sel4::fake::{Syscall, with_kernel};
    use sel4::sys::{invocation_label as label, syscall};

    use super::*;
    use crate::{DeferredActionSlot, fake, get_mr, set_mr};

    /// What the kernel answers: badge, tag, first message register. The last is followed by the end of the loop.
    type Script = VecDeque<(u64, u64, u64)>;

    /// A system call: number, x0–x2, x8.
    type Seen = (isize, [u64; 3], u64);

    #[derive(Default)]
    struct Recorder {
        slot: DeferredActionSlot,
        seen: Vec<String>,
        left: usize,
    }

    impl Recorder {
        fn done(&mut self, event: String) -> Result<(), &'static str> {
            self.seen.push(event);
            self.left -= 1;
            if self.left == 0 { Err("end of script") } else { Ok(()) }
        }
    }

    impl Handler for Recorder {
        type Error = &'static str;

        fn notified(&mut self, channels: ChannelSet) -> Result<(), Self::Error> {
            if channels.contains(Channel::new(3)) {
                let _ = self.slot.defer_notify(Channel::new(9));
            }
            if channels.contains(Channel::new(0)) {
                let _ = self.slot.defer_irq_ack(Channel::new(0));
            }
            self.done(format!("notified {}", channels.display()))
        }

        fn protected(&mut self, channel: Channel, message: MessageInfo) -> Result<MessageInfo, Self::Error> {
            let _ = self.slot.defer_notify(Channel::new(9));
            self.done(format!("call {} of {}: {}", message.label(), channel.index(), get_mr(0)))?;
            set_mr(0, 77);
            Ok(MessageInfo::new(5, 1))
        }

        fn fault(&mut self, child: Child, message: MessageInfo) -> Result<Option<MessageInfo>, Self::Error> {
            self.done(format!("fault {} of {}", message.label(), child.index()))?;
            Ok((message.label() == 8).then(|| MessageInfo::new(0, 0)))
        }

        fn take_deferred_action(&mut self) -> Option<DeferredAction> {
            self.slot.take()
        }
    }

    /// Runs the loop against a script; returns the handler's record and every system call.
    fn run(script: Vec<(u64, u64, u64)>) -> (Vec<String>, Vec<Seen>) {
        let mut handler = Recorder { left: script.len(), ..Default::default() };
        let mut script: Script = script.into();
        let calls = Rc::new(RefCell::new(Vec::new()));
        let record = calls.clone();
        let kernel = move |call: &mut Syscall<'_>| {
            record.borrow_mut().push((call.number, [call.x[0], call.x[1], call.x[2]], call.x[8]));
            match call.number {
                syscall::RECV | syscall::REPLY_RECV | syscall::NB_SEND_RECV => {
                    assert_eq!((call.x[0], call.x[6]), (1, 4));
                    let (badge, tag, word) = script.pop_front().unwrap();
                    call.x[..3].copy_from_slice(&[badge, tag, word]);
                }
                syscall::CALL => call.x[1] = 0,
                _ => {}
            }
        };
        let error = with_kernel(kernel, || handler.run().err());
        assert_eq!(error, Some("end of script"));
        (handler.seen, Rc::try_unwrap(calls).unwrap().into_inner())
    }

    fn tag(label: u64, count: usize) -> u64 {
        MessageInfo::new(label, count).into_inner().bits()
    }

    #[test]
    fn a_notification_defers_its_answer_into_the_next_receive() {
        let (seen, calls) = run(vec![(1 << 3, 0, 0), (1 << 4 | 1 << 61, 0, 0)]);
        assert_eq!(seen, ["notified {3}", "notified {4, 61}"]);
        assert_eq!(calls[0], (syscall::RECV, [1, 0, 0], 0));
        assert_eq!((calls[1].0, calls[1].1[1], calls[1].2), (syscall::NB_SEND_RECV, 0, 19));
        assert_eq!(calls.len(), 2);
    }

    #[test]
    fn an_irq_is_acked_at_start_and_then_deferred() {
        fake::set_irqs(1);
        let (_, calls) = run(vec![(1, 0, 0), (1 << 5, 0, 0)]);
        fake::set_irqs(0);
        let ack = tag(label::IRQAckIRQ.into(), 0);
        assert_eq!((calls[0].0, calls[0].1[..2].to_vec()), (syscall::CALL, vec![138, ack]));
        assert_eq!((calls[2].0, calls[2].1[1], calls[2].2), (syscall::NB_SEND_RECV, ack, 138));
    }

    #[test]
    fn an_answer_goes_with_reply_recv_after_the_deferred_action() {
        let (seen, calls) = run(vec![(1 << 63 | 7, tag(2, 1), 41), (1 << 5, 0, 0)]);
        assert_eq!(seen, ["call 2 of 7: 41", "notified {5}"]);
        assert_eq!((calls[1].0, calls[1].1[0]), (syscall::SEND, 19));
        assert_eq!((calls[2].0, calls[2].1), (syscall::REPLY_RECV, [1, tag(5, 1), 77]));
    }

    #[test]
    fn a_fault_is_answered_only_if_the_handler_says_so() {
        let (seen, calls) =
            run(vec![(1 << 62 | 6, tag(8, 1), 0), (1 << 62 | 2, tag(6, 4), 0), (1 << 9, 0, 0)]);
        assert_eq!(seen, ["fault 8 of 6", "fault 6 of 2", "notified {9}"]);
        assert_eq!([calls[1].0, calls[2].0], [syscall::REPLY_RECV, syscall::RECV]);
    }

    #[test]
    fn a_passive_pd_gives_its_scheduling_context_back_first() {
        fake::set_passive(true);
        let (_, calls) = run(vec![(1 << 5, 0, 0)]);
        fake::set_passive(false);
        assert_eq!((calls[0].0, calls[0].1[1], calls[0].2), (syscall::NB_SEND_RECV, 0, 5));
    }

    #[test]
    fn a_second_deferred_action_makes_the_first_happen_now() {
        fake::set_irqs(1);
        let kernel = |call: &mut Syscall<'_>| {
            assert_eq!((call.number, call.x[0]), (syscall::SEND, 12));
        };
        with_kernel(kernel, || {
            let mut slot = DeferredActionSlot::new();
            slot.defer_notify(Channel::new(2)).unwrap();
            assert_eq!(sel4::fake::calls(), 0);
            slot.defer_irq_ack(Channel::new(0)).unwrap();
            assert_eq!(sel4::fake::calls(), 1);
            assert_eq!(slot.take(), Some(DeferredAction::new_irq_ack(Channel::new(0))));
        });
        fake::set_irqs(0);
    }
}
