//! A kernel for host tests: system calls of a thread go to a function that the test gave for that thread.
//!
//! ```
//! use sel4::fake;
//!
//! let signals = fake::with_kernel(
//!     |call| assert_eq!((call.number, call.x[0]), (sel4::sys::syscall::SEND, 12)),
//!     || {
//!         sel4::cap::Notification::from_bits(12).signal();
//!         fake::calls()
//!     },
//! );
//! assert_eq!(signals, 1);
//! ```

use std::cell::{Cell, RefCell};

use super::Received;
use crate::sys::syscall;
use crate::{IpcBuffer, Word};

/// One system call: the registers as the instruction finds them, to be changed to what the kernel leaves.
pub struct Syscall<'a> {
    /// x7: one of [`crate::sys::syscall`].
    pub number: isize,
    /// x0 to x8 (x7 holds the number too).
    pub x: [Word; 9],
    /// The caller's IPC buffer. Of its messages only `msg_regs()[4..]` is looked at, as on the real kernel; absent where the
    /// call passes everything in registers.
    pub ipc_buffer: Option<&'a mut IpcBuffer>,
}

type Kernel = Box<dyn FnMut(&mut Syscall<'_>)>;

thread_local! {
    static KERNEL: RefCell<Option<Kernel>> = const { RefCell::new(None) };
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

/// Runs `f` while `kernel` answers this thread's system calls.
pub fn with_kernel<R>(kernel: impl FnMut(&mut Syscall<'_>) + 'static, f: impl FnOnce() -> R) -> R {
    let before = KERNEL.replace(Some(Box::new(kernel)));
    CALLS.set(0);
    let result = f();
    KERNEL.set(before);
    result
}

/// System calls since the innermost [`with_kernel`] of this thread began.
pub fn calls() -> usize {
    CALLS.get()
}

fn enter(number: isize, mut x: [Word; 9], buffer: *mut IpcBuffer) -> Received {
    x[7] = number as Word;
    CALLS.set(CALLS.get() + 1);
    // SAFETY: not null only if the caller passes the buffer it holds exclusively for the duration of the call.
    let mut call = Syscall { number, x, ipc_buffer: unsafe { buffer.as_mut() } };
    // Taken out while it runs: a kernel function that makes system calls itself is a mistake in the test.
    let mut kernel = KERNEL.take().expect("system call on the host without sel4::fake::with_kernel");
    kernel(&mut call);
    KERNEL.set(Some(kernel));
    let [badge, info, r0, r1, r2, r3, ..] = call.x;
    Received { badge, info, regs: [r0, r1, r2, r3] }
}

fn pack(x0: Word, x1: Word, regs: [Word; 4], x6: Word, x8: Word) -> [Word; 9] {
    [x0, x1, regs[0], regs[1], regs[2], regs[3], x6, 0, x8]
}

pub(crate) fn send(number: isize, dest: Word, info: Word, regs: [Word; 4], buffer: *mut IpcBuffer) {
    enter(number, pack(dest, info, regs, 0, 0), buffer);
}

pub(crate) fn recv(number: isize, source: Word, reply: Word, buffer: *mut IpcBuffer) -> Received {
    enter(number, pack(source, 0, [0; 4], reply, 0), buffer)
}

pub(crate) fn call(dest: Word, info: Word, regs: [Word; 4], buffer: *mut IpcBuffer) -> Received {
    enter(syscall::CALL, pack(dest, info, regs, 0, 0), buffer)
}

pub(crate) fn reply_recv(
    source: Word,
    info: Word,
    regs: [Word; 4],
    reply: Word,
    buffer: *mut IpcBuffer,
) -> Received {
    enter(syscall::REPLY_RECV, pack(source, info, regs, reply, 0), buffer)
}

pub(crate) fn nb_send_recv(
    dest: Word,
    source: Word,
    info: Word,
    regs: [Word; 4],
    reply: Word,
    buffer: *mut IpcBuffer,
) -> Received {
    enter(syscall::NB_SEND_RECV, pack(source, info, regs, reply, dest), buffer)
}

pub(crate) fn debug(number: isize, word: Word) -> Word {
    let mut x = [0; 9];
    x[0] = word;
    enter(number, x, std::ptr::null_mut()).badge
}
