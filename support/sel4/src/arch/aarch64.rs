//! `svc #0` with the registers of each kind of system call.
//!
//! None of the blocks says `nomem`: the kernel reads and writes the IPC buffer, whose address each function takes (and
//! ignores), so that the compiler knows the buffer to be visible here. Flags are preserved by the kernel but not promised.
#![cfg_attr(not(target_os = "none"), allow(dead_code))]

use core::arch::asm;

use super::Received;
use crate::sys::syscall;
use crate::{IpcBuffer, Word};

/// Send, NBSend: nothing comes back.
#[inline(always)]
pub(crate) fn send(number: isize, dest: Word, info: Word, regs: [Word; 4], buffer: *mut IpcBuffer) {
    // SAFETY: a send reads the registers and, through the kernel, the caller's own IPC buffer.
    unsafe {
        asm!("svc #0", "/* {0} */", in(reg) buffer, in("x7") number,
            inlateout("x0") dest => _, inlateout("x1") info => _,
            inlateout("x2") regs[0] => _, inlateout("x3") regs[1] => _,
            inlateout("x4") regs[2] => _, inlateout("x5") regs[3] => _, options(nostack));
    }
}

/// Recv, NBRecv, Wait, NBWait (for the latter two `reply` is ignored).
#[inline(always)]
pub(crate) fn recv(number: isize, source: Word, reply: Word, buffer: *mut IpcBuffer) -> Received {
    let (badge, info, r0, r1, r2, r3);
    // SAFETY: a receive writes the listed registers and, through the kernel, the caller's own IPC buffer.
    unsafe {
        asm!("svc #0", "/* {0} */", in(reg) buffer, in("x7") number, in("x6") reply,
            inlateout("x0") source => badge, inlateout("x1") 0u64 => info,
            lateout("x2") r0, lateout("x3") r1, lateout("x4") r2, lateout("x5") r3, options(nostack));
    }
    Received { badge, info, regs: [r0, r1, r2, r3] }
}

/// Call.
#[inline(always)]
pub(crate) fn call(dest: Word, info: Word, regs: [Word; 4], buffer: *mut IpcBuffer) -> Received {
    let (badge, tag, r0, r1, r2, r3);
    // SAFETY: as for `send` and `recv`.
    unsafe {
        asm!("svc #0", "/* {0} */", in(reg) buffer, in("x7") syscall::CALL,
            inlateout("x0") dest => badge, inlateout("x1") info => tag,
            inlateout("x2") regs[0] => r0, inlateout("x3") regs[1] => r1,
            inlateout("x4") regs[2] => r2, inlateout("x5") regs[3] => r3, options(nostack));
    }
    Received { badge, info: tag, regs: [r0, r1, r2, r3] }
}

/// ReplyRecv.
#[inline(always)]
pub(crate) fn reply_recv(
    source: Word,
    info: Word,
    regs: [Word; 4],
    reply: Word,
    buffer: *mut IpcBuffer,
) -> Received {
    let (badge, tag, r0, r1, r2, r3);
    // SAFETY: as for `send` and `recv`.
    unsafe {
        asm!("svc #0", "/* {0} */", in(reg) buffer, in("x7") syscall::REPLY_RECV, in("x6") reply,
            inlateout("x0") source => badge, inlateout("x1") info => tag,
            inlateout("x2") regs[0] => r0, inlateout("x3") regs[1] => r1,
            inlateout("x4") regs[2] => r2, inlateout("x5") regs[3] => r3, options(nostack));
    }
    Received { badge, info: tag, regs: [r0, r1, r2, r3] }
}

/// NBSendRecv.
#[inline(always)]
pub(crate) fn nb_send_recv(
    dest: Word,
    source: Word,
    info: Word,
    regs: [Word; 4],
    reply: Word,
    buffer: *mut IpcBuffer,
) -> Received {
    let (badge, tag, r0, r1, r2, r3);
    // SAFETY: as for `send` and `recv`.
    unsafe {
        asm!("svc #0", "/* {0} */", in(reg) buffer, in("x7") syscall::NB_SEND_RECV, in("x6") reply, in("x8") dest,
            inlateout("x0") source => badge, inlateout("x1") info => tag,
            inlateout("x2") regs[0] => r0, inlateout("x3") regs[1] => r1,
            inlateout("x4") regs[2] => r2, inlateout("x5") regs[3] => r3, options(nostack));
    }
    Received { badge, info: tag, regs: [r0, r1, r2, r3] }
}

/// Yield and the debug calls: one word in, one word out.
#[inline(always)]
pub(crate) fn debug(number: isize, word: Word) -> Word {
    let result;
    // SAFETY: these calls read x0 (NameThread also the caller's IPC buffer) and write at most x0.
    unsafe {
        asm!("svc #0", in("x7") number, inlateout("x0") word => result, options(nostack));
    }
    result
}
