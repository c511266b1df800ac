//! The page part through which a thread and the kernel pass what does not fit in registers.

use core::mem::{offset_of, size_of};

use crate::Word;

/// The IPC buffer.
///
/// The kernel reads and writes `msg[4..]` and the capability words during a system call of this thread and at no other
/// time; `tag` and `msg[0..4]` it never touches, they travel in registers.
#[derive(Clone, Debug)]
#[repr(C, align(1024))]
pub struct IpcBuffer {
    tag: Word,
    msg: [Word; 120],
    user_data: Word,
    caps_or_badges: [Word; 3],
    receive_cnode: Word,
    receive_index: Word,
    receive_depth: Word,
}

const _: () = {
    assert!(size_of::<IpcBuffer>() == 1024);
    assert!(offset_of!(IpcBuffer, msg) == 8);
    assert!(offset_of!(IpcBuffer, user_data) == 968);
    assert!(offset_of!(IpcBuffer, caps_or_badges) == 976);
    assert!(offset_of!(IpcBuffer, receive_cnode) == 1000);
};

impl Default for IpcBuffer {
    fn default() -> Self {
        Self {
            tag: 0,
            msg: [0; 120],
            user_data: 0,
            caps_or_badges: [0; 3],
            receive_cnode: 0,
            receive_index: 0,
            receive_depth: 0,
        }
    }
}

impl IpcBuffer {
    /// The message registers.
    pub fn msg_regs(&self) -> &[Word] {
        &self.msg
    }

    /// The message registers.
    pub fn msg_regs_mut(&mut self) -> &mut [Word] {
        &mut self.msg
    }

    /// The message registers as bytes.
    pub fn msg_bytes(&self) -> &[u8] {
        // SAFETY: `msg` is 960 initialised bytes, every byte is a valid `u8`, and the borrow is that of `self`.
        unsafe { core::slice::from_raw_parts(self.msg.as_ptr().cast(), size_of::<[Word; 120]>()) }
    }

    /// The message registers as bytes.
    pub fn msg_bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `msg_bytes`; any byte pattern is a valid `Word`, and the borrow is exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.msg.as_mut_ptr().cast(), size_of::<[Word; 120]>()) }
    }

    /// A word the kernel leaves alone.
    pub fn user_data(&self) -> Word {
        self.user_data
    }

    /// Sets the word the kernel leaves alone.
    pub fn set_user_data(&mut self, data: Word) {
        self.user_data = data;
    }

    /// Capabilities to send, or badges of unwrapped ones.
    pub fn caps_or_badges(&self) -> &[Word] {
        &self.caps_or_badges
    }

    /// Capabilities to send, or badges of unwrapped ones.
    pub fn caps_or_badges_mut(&mut self) -> &mut [Word] {
        &mut self.caps_or_badges
    }

    pub(crate) fn fast(&self) -> [Word; 4] {
        [self.msg[0], self.msg[1], self.msg[2], self.msg[3]]
    }

    pub(crate) fn set_fast(&mut self, regs: [Word; 4]) {
        self.msg[..4].copy_from_slice(&regs);
    }
}
