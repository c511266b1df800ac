//! Numbers of the kernel this is built for, under the names of libsel4.
#![allow(non_upper_case_globals)]

use crate::Word;

include!(concat!(env!("OUT_DIR"), "/constants.rs"));

/// Bits of a small page.
pub const seL4_PageBits: u32 = 12;
/// Bits of a large page.
pub const seL4_LargePageBits: u32 = 21;
/// Greatest number of message registers of a message.
pub const seL4_MsgMaxLength: u32 = 120;

/// System-call numbers, as x7 takes them. The debug calls exist in debug configurations only; in others they are
/// unknown-syscall faults.
pub mod syscall {
    #![allow(missing_docs)]
    pub const CALL: isize = -1;
    pub const REPLY_RECV: isize = -2;
    pub const NB_SEND_RECV: isize = -3;
    pub const NB_SEND_WAIT: isize = -4;
    pub const SEND: isize = -5;
    pub const NB_SEND: isize = -6;
    pub const RECV: isize = -7;
    pub const NB_RECV: isize = -8;
    pub const WAIT: isize = -9;
    pub const NB_WAIT: isize = -10;
    pub const YIELD: isize = -11;
    pub const DEBUG_PUT_CHAR: isize = -12;
    pub const DEBUG_HALT: isize = -14;
    pub const DEBUG_CAP_IDENTIFY: isize = -15;
    pub const DEBUG_SNAPSHOT: isize = -16;
    pub const DEBUG_NAME_THREAD: isize = -17;
}

/// Address of the IPC buffer that Microkit gives every PD: the last page of its address space.
pub const IPC_BUFFER: Word = seL4_UserVSpaceTop & !((1 << seL4_PageBits) - 1);
