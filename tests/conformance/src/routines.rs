//! What children do that takes more than a system call. Each ends with [`exit`].

use crate::raw::{self, Regs, exit, get_mr, nr, set_mr, svc};

/// A page that all PDs share: word 0 is the number of trace entries, which follow; flags are in the upper half.
const SHARED: *mut u64 = 0x1100_0000 as *mut u64;

/// First flag word.
const FLAGS: usize = 256;

/// A word of the shared page.
pub fn shared(i: usize) -> u64 {
    assert!(i < 512);
    // SAFETY: the page is mapped there in every PD; only single words are read and written, never referenced.
    unsafe { SHARED.add(i).read_volatile() }
}

/// Sets a word of the shared page.
pub fn set_shared(i: usize, value: u64) {
    assert!(i < 512);
    // SAFETY: as in `shared`.
    unsafe { SHARED.add(i).write_volatile(value) }
}

/// Address of flag `i`.
pub fn flag_address(i: usize) -> u64 {
    SHARED as u64 + 8 * (FLAGS + i) as u64
}

/// Flag `i`.
pub fn flag(i: usize) -> u64 {
    shared(FLAGS + i)
}

/// Sets flag `i`.
pub fn set_flag(i: usize, value: u64) {
    set_shared(FLAGS + i, value);
}

/// Appends to the trace.
pub fn trace(entry: u64) {
    let count = shared(0);
    if count < 200 {
        set_shared(1 + count as usize, entry);
        set_shared(0, count + 1);
    }
}

fn syscall(number: isize, x0: u64, x1: u64, x6: u64) -> Regs {
    let mut x = [0; 9];
    (x[0], x[1], x[6], x[7]) = (x0, x1, x6, number as u64);
    svc(&mut x);
    x
}

/// Word `i` of a test message of `seed`.
pub fn pattern(seed: u64, i: usize) -> u64 {
    (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (i as u64) << 32
}

/// Calls the director with messages of 0 to 120 words and checks the answers. x0: what to add to the length asked for.
pub extern "C" fn call_lengths(first: u64, last: u64) -> ! {
    for n in first..=last {
        let mut x: Regs = [74 + 10, raw::tag(n, 0, n), 0, 0, 0, 0, 0, nr::CALL as u64, 0];
        for i in 0..120 {
            set_mr(i, pattern(n, i));
            if i < 4 {
                x[2 + i] = pattern(n, i);
            }
        }
        svc(&mut x);
        for i in 0..raw::length(x[1]) {
            let word = if i < 4 { x[2 + i] } else { get_mr(i) };
            if word != !pattern(n, i) {
                exit([n, i as u64, word, 0, 0, 0, 0]);
            }
        }
    }
    exit([u64::MAX, 0, 0, 0, 0, 0, 0])
}

/// Calls the director with one long message, not touching registers beyond it; returns message words 4 to 8 as they are in
/// the buffer afterwards, and the answer's tag.
pub extern "C" fn call_and_show(info: u64, cap0: u64, cap1: u64, dest: u64) -> ! {
    (0..120).for_each(|i| set_mr(i, 0x100 + i as u64));
    raw::set_cap(0, cap0);
    raw::set_cap(1, cap1);
    let mut x: Regs = [dest, info, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, nr::CALL as u64, 0xa8];
    svc(&mut x);
    exit([x[0], x[1], x[2], x[3], get_mr(4), get_mr(5), get_mr(0)])
}

/// Receives on the own endpoint and answers, `count` times; the last answer is not followed by a receive.
pub extern "C" fn serve(count: u64, number: u64) -> ! {
    let mut x: Regs = [1, 0, 0, 0, 0, 0, 4, nr::RECV as u64, 0];
    svc(&mut x);
    for i in 1..=count {
        trace(x[0] & 0xff);
        trace(x[2]);
        let answer = raw::tag(raw::label(x[1]) + 1, 0, 1);
        let word = x[2] + 1;
        if i == count {
            x = [4, answer, word, 0, 0, 0, 0, nr::SEND as u64, 0];
        } else if number == nr::REPLY_RECV as u64 {
            x = [1, answer, word, 0, 0, 0, 4, number, 0];
        } else {
            x = [1, answer, word, 0, 0, 0, 4, number, 4];
        }
        svc(&mut x);
    }
    exit([0; 7])
}

/// Traces `first`, sends to capability `dest`, traces `first + 1`.
pub extern "C" fn trace_send_trace(first: u64, dest: u64, number: u64) -> ! {
    trace(first);
    syscall(number as isize, dest, 0, 0);
    trace(first + 1);
    exit([0; 7])
}

/// Waits on the own capability with system call `number`, traces `entry`.
pub extern "C" fn wait_trace(entry: u64, number: u64) -> ! {
    syscall(number as isize, 1, 0, 4);
    trace(entry);
    exit([0; 7])
}

/// Traces and ends.
pub extern "C" fn trace_exit(entry: u64) -> ! {
    trace(entry);
    exit([entry, 0, 0, 0, 0, 0, 0])
}

/// Traces, yields, traces.
pub extern "C" fn trace_yield_trace(entry: u64) -> ! {
    trace(entry);
    syscall(nr::YIELD, 0, 0, 0);
    trace(entry + 1);
    exit([0; 7])
}

/// Sets flag `own` and spins until flag `other` is set.
pub extern "C" fn meet(own: u64, other: u64) -> ! {
    set_flag(own as usize, 1);
    while flag(other as usize) == 0 {}
    exit([own, 0, 0, 0, 0, 0, 0])
}

/// The architected counter.
pub fn counter() -> u64 {
    let count;
    // SAFETY: reads a counter.
    unsafe { core::arch::asm!("isb", "mrs {0}, cntpct_el0", out(reg) count, options(nomem, nostack)) };
    count
}

/// Counts of the counter in a microsecond, rounded down.
pub fn ticks(micros: u64) -> u64 {
    let frequency: u64;
    // SAFETY: reads a constant.
    unsafe { core::arch::asm!("mrs {0}, cntfrq_el0", out(reg) frequency, options(nomem, nostack)) };
    frequency * micros / 1_000_000
}

/// Runs until `gaps` pauses of at least `micros` were seen, at most two seconds.
pub extern "C" fn count_gaps(gaps: u64, micros: u64) -> ! {
    let (start, least) = (counter(), ticks(micros));
    let (mut seen, mut before) = (0, start);
    while seen < gaps {
        let now = counter();
        if now - before >= least {
            seen += 1;
        }
        before = now;
        if now - start > ticks(2_000_000) {
            break;
        }
    }
    exit([seen, 0, 0, 0, 0, 0, 0])
}

/// Runs for a time.
pub extern "C" fn work(micros: u64) -> ! {
    let start = counter();
    while counter() - start < ticks(micros) {}
    exit([0; 7])
}
