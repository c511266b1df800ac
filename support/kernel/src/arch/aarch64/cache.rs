//! Cache maintenance by address. The kernel's addresses are physical ones.

use core::arch::asm;

use partita_kernel::hal::CacheOp;

use super::regs::{dsb, isb};

/// Bytes of a cache line of the Cortex-A53.
const LINE: u64 = 64;

/// Maintains every line that has a byte in the range.
pub fn maintain(op: CacheOp, paddr: u64, bytes: u64) {
    let end = paddr.saturating_add(bytes);
    let mut line = paddr & !(LINE - 1);
    while line < end {
        // SAFETY: maintenance by address of memory that the caller has mapped. Lines at the edges, which may hold
        // somebody else's data, are written back before they are discarded.
        unsafe {
            match op {
                CacheOp::Clean => asm!("dc cvac, {}", in(reg) line, options(nostack, preserves_flags)),
                CacheOp::Invalidate if line >= paddr && line + LINE <= end => {
                    asm!("dc ivac, {}", in(reg) line, options(nostack, preserves_flags));
                }
                CacheOp::Invalidate | CacheOp::CleanInvalidate => {
                    asm!("dc civac, {}", in(reg) line, options(nostack, preserves_flags));
                }
                CacheOp::Unify => asm!("dc cvau, {}", in(reg) line, options(nostack, preserves_flags)),
            }
        }
        line += LINE;
    }
    dsb();
    if op == CacheOp::Unify {
        // The instruction cache may hold other aliases of these lines (it is virtually indexed): all of it goes.
        // SAFETY: discards cached instructions only.
        unsafe { asm!("ic iallu", options(nostack, preserves_flags)) };
        dsb();
        isb();
    }
}
