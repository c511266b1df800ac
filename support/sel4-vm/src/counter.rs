//! The architected physical counter, which PDs may read.

/// Counts since power-on, at [`cntfrq`] a second. Not reordered with what stands before it.
pub fn cntpct() -> u64 {
    #[cfg(target_arch = "aarch64")]
    {
        let count;
        // SAFETY: reads a counter; seL4 lets EL0 do so on every board.
        unsafe { core::arch::asm!("isb", "mrs {0}, cntpct_el0", out(reg) count, options(nomem, nostack)) };
        count
    }
    #[cfg(not(target_arch = "aarch64"))]
    host::count()
}

/// Counts a second.
pub fn cntfrq() -> u64 {
    #[cfg(target_arch = "aarch64")]
    {
        let frequency;
        // SAFETY: reads a constant that EL0 may read.
        unsafe { core::arch::asm!("mrs {0}, cntfrq_el0", out(reg) frequency, options(nomem, nostack, pure)) };
        frequency
    }
    #[cfg(not(target_arch = "aarch64"))]
    host::FREQUENCY
}

/// QEMU's frequency, from the host's clock.
#[cfg(not(target_arch = "aarch64"))]
mod host {
    use std::sync::OnceLock;
    use std::time::Instant;

    pub const FREQUENCY: u64 = 62_500_000;

    pub fn count() -> u64 {
        static START: OnceLock<Instant> = OnceLock::new();
        (START.get_or_init(Instant::now).elapsed().as_nanos() / 16) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_goes_forward() {
        let first = cntpct();
        while cntpct() == first {}
        assert!(cntpct() > first && cntfrq() > 0);
    }
}
