//! Cache maintenance on this PD's own address space, by virtual address.
//!
//! Twice: the instructions themselves, which seL4 lets EL0 execute ([`clean_to_memory`], [`make_executable`]), on any range
//! that is mapped; and the kernel's invocations, which also work on what EL0 may not do and cost a call a page.
//!
//! For the invocations a range must lie inside one mapped page (of 4 KiB or 2 MiB, as it is mapped), else `RangeError`. An empty range is
//! `InvalidArgument`, one beyond the address space `IllegalOperation`; an unmapped one succeeds and does nothing.

use sel4::sys::invocation_label as label;
use sel4::{MessageInfo, Result, cap};

use crate::{check, slot};

fn operate(label: u32, start: usize, end: usize) -> Result<()> {
    let info = MessageInfo::new(label.into(), 0, 0, 2);
    let vspace = cap::VSpace::from_bits(slot::VSPACE);
    check(&vspace.call_with_mrs(info, [start as u64, end as u64]).info)
}

/// Writes the lines of `start..end` back to memory.
pub fn clean(start: usize, end: usize) -> Result<()> {
    operate(label::ARMVSpaceClean_Data, start, end)
}

/// Drops the lines of `start..end`. The kernel cleans partial lines first.
pub fn invalidate(start: usize, end: usize) -> Result<()> {
    operate(label::ARMVSpaceInvalidate_Data, start, end)
}

/// Writes the lines of `start..end` back to memory and drops them.
pub fn clean_invalidate(start: usize, end: usize) -> Result<()> {
    operate(label::ARMVSpaceCleanInvalidate_Data, start, end)
}

/// Makes instructions written to `start..end` visible to instruction fetches.
pub fn unify_instruction(start: usize, end: usize) -> Result<()> {
    operate(label::ARMVSpaceUnify_Instruction, start, end)
}

/// Writes the lines of `bytes` bytes from `start` back to memory (point of coherency), for readers that do not look into
/// the caches: devices, and guests with the MMU off. Memory that is not mapped is a fault.
pub fn clean_to_memory(start: usize, bytes: usize) {
    #[cfg(target_arch = "aarch64")]
    {
        let line = ctr_line(16);
        // SAFETY: writes a cache line back; no content changes.
        let clean = |at: usize| unsafe {
            core::arch::asm!("dc cvac, {0}", in(reg) at, options(nostack, preserves_flags));
        };
        // All of a guest's RAM goes this way, so that what is beside the instruction itself counts.
        let (mut at, end) = (start & !(line - 1), start.saturating_add(bytes));
        while end - at >= BATCH * line {
            for n in 0..BATCH {
                clean(at + n * line);
            }
            at += BATCH * line;
        }
        each_line(at, end - at, line, clean);
        barrier();
    }
    #[cfg(not(target_arch = "aarch64"))]
    each_line(start, bytes, 64, |_| ());
}

/// Makes instructions written to `bytes` bytes from `start` visible to instruction fetches, also of guests that run them at
/// other addresses. Memory that is not mapped is a fault.
pub fn make_executable(start: usize, bytes: usize) {
    clean_to_memory(start, bytes);
    #[cfg(target_arch = "aarch64")]
    {
        each_line(start, bytes, ctr_line(0), |line| {
            // SAFETY: drops a line of the instruction cache.
            unsafe { core::arch::asm!("ic ivau, {0}", in(reg) line, options(nostack, preserves_flags)) }
        });
        barrier();
    }
}

/// Lines that are cleaned between two looks at the end.
#[cfg(target_arch = "aarch64")]
const BATCH: usize = 8;

/// Calls `operate` with the first byte of each line of a range; stops at the end of the address space.
fn each_line(start: usize, bytes: usize, line: usize, operate: impl Fn(usize)) {
    let end = start.saturating_add(bytes);
    let mut address = start & !(line - 1);
    while address < end {
        operate(address);
        let Some(next) = address.checked_add(line) else { return };
        address = next;
    }
}

/// Bytes of the smallest line, from the field of CTR_EL0 at `shift` (data 16, instruction 0).
#[cfg(target_arch = "aarch64")]
fn ctr_line(shift: u32) -> usize {
    let ctr: u64;
    // SAFETY: reads a constant that seL4 lets EL0 read.
    unsafe { core::arch::asm!("mrs {0}, ctr_el0", out(reg) ctr, options(nomem, nostack, pure)) };
    4 << (ctr >> shift & 0xf)
}

#[cfg(target_arch = "aarch64")]
fn barrier() {
    // SAFETY: barriers change nothing but order.
    unsafe { core::arch::asm!("dsb sy", "isb", options(nostack, preserves_flags)) }
}

#[cfg(test)]
mod tests {
    use sel4::fake::{Syscall, with_kernel};
    use sel4::{Error, MessageInfo};

    use super::*;

    #[test]
    fn every_line_of_a_range_and_no_other_is_touched() {
        let touched = |start, bytes| {
            let lines = std::cell::RefCell::new(Vec::new());
            each_line(start, bytes, 64, |line| lines.borrow_mut().push(line));
            lines.into_inner()
        };
        assert_eq!(touched(0x103f, 2), [0x1000, 0x1040]);
        assert_eq!(touched(0x1000, 64), [0x1000]);
        assert!(touched(0x1000, 0).is_empty());
        assert_eq!(touched(usize::MAX - 63, 100), [usize::MAX - 63]);
    }

    #[test]
    fn the_range_travels_in_registers_to_the_own_address_space() {
        let kernel = |call: &mut Syscall<'_>| {
            assert_eq!(call.x[0], 3);
            assert_eq!(
                call.x[1],
                MessageInfo::new(label::ARMVSpaceCleanInvalidate_Data.into(), 0, 0, 2).bits()
            );
            assert_eq!(call.x[2..4], [0x1000, 0x1040]);
            call.x[1] = MessageInfo::new(4, 0, 0, 2).bits();
        };
        assert_eq!(with_kernel(kernel, || clean_invalidate(0x1000, 0x1040)), Err(Error::RangeError));
    }
}
