//! The PD's one receiving capability and what its badges mean.

use core::fmt;

use sel4::{Badge, MessageInfoBuilder, cap};

use crate::channel::MAX_CHANNELS;
use crate::defer::Prepared;
use crate::{Channel, Child, MessageInfo};

const INPUT: cap::Endpoint = cap::Endpoint::from_bits(1);
const REPLY: cap::Reply = cap::Reply::from_bits(4);
const MONITOR: cap::Endpoint = cap::Endpoint::from_bits(5);

const PROTECTED: u32 = 63;
const FAULT: u32 = 62;

/// What a PD is woken for.
#[derive(Debug, Clone)]
pub enum Event {
    /// Notifications and interrupts.
    Notified(ChannelSet),
    /// A protected call.
    Protected(Channel, MessageInfo),
    /// A fault of a child PD or vCPU.
    Fault(Child, MessageInfo),
}

impl Event {
    fn new((info, badge): (sel4::MessageInfo, Badge)) -> Self {
        if badge >> FAULT & 1 != 0 {
            Self::Fault(Child::new((badge & 0xff) as usize), MessageInfo::from_inner(info))
        } else if badge >> PROTECTED & 1 != 0 {
            Self::Protected(Channel::new((badge & 0x3f) as usize), MessageInfo::from_inner(info))
        } else {
            Self::Notified(ChannelSet(badge))
        }
    }
}

/// Channels that were notified.
#[derive(Debug, Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelSet(Badge);

impl ChannelSet {
    /// Whether `channel` was.
    pub fn contains(&self, channel: Channel) -> bool {
        self.0 >> channel.index() & 1 != 0
    }

    /// The channels, lowest first.
    pub fn iter(&self) -> ChannelSetIter {
        ChannelSetIter(self.0)
    }

    /// As `{1, 5}`.
    pub fn display(&self) -> DisplayChannelSet<'_> {
        DisplayChannelSet(self)
    }
}

/// Iterator over a [`ChannelSet`].
#[derive(Debug, Clone)]
pub struct ChannelSetIter(Badge);

impl Iterator for ChannelSetIter {
    type Item = Channel;

    fn next(&mut self) -> Option<Channel> {
        let index = self.0.trailing_zeros() as usize;
        if index >= MAX_CHANNELS {
            return None;
        }
        self.0 &= self.0 - 1;
        Some(Channel::new(index))
    }
}

/// Shows a [`ChannelSet`].
pub struct DisplayChannelSet<'a>(&'a ChannelSet);

impl fmt::Display for DisplayChannelSet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, channel) in self.0.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { ", " }, channel.index())?;
        }
        f.write_str("}")
    }
}

/// Answers the pending caller.
pub fn reply(msg_info: MessageInfo) {
    REPLY.send(msg_info.into_inner())
}

/// Waits for an event.
pub fn recv() -> Event {
    Event::new(INPUT.recv(REPLY))
}

/// Answers the pending caller and waits for an event, in one system call.
pub fn reply_recv(msg_info: MessageInfo) -> Event {
    Event::new(INPUT.reply_recv(msg_info.into_inner(), REPLY))
}

pub(crate) fn nb_send_recv(action: Prepared) -> Event {
    Event::new(action.cap.nb_send_recv(action.info, INPUT, REPLY))
}

pub(crate) fn send(action: Prepared) {
    action.cap.send(action.info)
}

/// Tells the monitor that this PD has initialised and can be made passive.
pub(crate) fn forfeit_sc() -> Prepared {
    Prepared { cap: MONITOR.upcast(), info: MessageInfoBuilder::default().build() }
}
