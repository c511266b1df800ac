//! How long to look for a completion before its interrupt is waited for.
//!
//! A device that is done by the time that its interrupt could be taken costs less when it is watched: the interrupt, its
//! acknowledgement, and the switch away and back are together worth [`PRICE`] looks. One that takes longer was watched for
//! nothing. Which of both a device is shows by what watching it has won and lost lately, so that is what is kept. A device that
//! is not worth it is looked at once, and watched again now and then, as it may have become faster.

/// What an interrupt costs, in looks of 33 instructions: what seL4 takes for it (docs/performance.md) and a run of the backend.
/// So nobody waits longer than an interrupt would take, and who looks that long in vain loses as much again, not more.
pub const PRICE: u16 = 48;
/// Most that is remembered, won and lost: what a device does by and large, but not for long.
const MOST: i32 = 4 * PRICE as i32;
const LEAST: i32 = -(PRICE as i32);
/// Of so many submissions to a device that is not worth it one is watched.
const PROBE: u8 = 32;

/// Between two looks: what shares the processor may use it (QEMU sees to its other threads), and the device is not kept from
/// its own ring by being looked at. Several, so that the wait is mostly this.
#[inline(always)]
pub fn relax() {
    #[cfg(target_os = "none")]
    // SAFETY: YIELD is a hint and changes nothing.
    unsafe {
        core::arch::asm!(".rept 16", "yield", ".endr", options(nomem, nostack, preserves_flags));
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Patience {
    /// Looks saved by watching, less those lost.
    won: i32,
    /// Submissions since the device was last watched.
    skipped: u8,
}

impl Patience {
    /// How often to look now.
    #[inline]
    pub fn looks(&mut self) -> u16 {
        if self.won >= 0 {
            return PRICE;
        }
        self.skipped += 1;
        if self.skipped < PROBE {
            return 1;
        }
        self.skipped = 0;
        PRICE
    }

    /// Of `looks` looks, the one before which there were `found` in vain showed everything; or none did.
    #[inline]
    pub fn learn(&mut self, looks: u16, found: Option<u16>) {
        let won = match found {
            // Seen in any case.
            Some(0) => return,
            Some(vain) => i32::from(PRICE) - i32::from(vain),
            // One look is not watching.
            None if looks == 1 => return,
            None => -i32::from(looks),
        };
        self.won = (self.won + won).clamp(LEAST, MOST);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Submits to a device that takes as many looks as `takes` says, or more than there ever are. Returns how often it was looked
    /// at in vain, and how often an interrupt had to come.
    fn submit(patience: &mut Patience, takes: u16) -> (u32, u32) {
        let looks = patience.looks();
        let found = (takes < looks).then_some(takes);
        patience.learn(looks, found);
        (found.unwrap_or(looks).into(), u32::from(found.is_none()))
    }

    #[test]
    fn a_fast_device_is_watched_and_a_slow_one_is_not() {
        let mut patience = Patience::default();
        for _ in 0..100 {
            assert_eq!(submit(&mut patience, 30), (30, 0));
        }
        // It becomes slow: that is noticed after a few requests.
        let vain: u32 = (0..320).map(|_| submit(&mut patience, PRICE).0).sum();
        assert!(vain < 320 + (6 + 10) * u32::from(PRICE), "{vain}");
        // And fast again: one of the next two probes shows it, however slow it was.
        let interrupts: u32 = (0..1000).map(|_| submit(&mut patience, 10).1).sum();
        assert!(interrupts <= 2 * u32::from(PROBE), "{interrupts}");
    }

    proptest! {
        /// In the long run watching never costs much more than interrupts alone would, whatever the device does.
        #[test]
        fn what_is_lost_is_bounded(takes in prop::collection::vec(0u16..2 * PRICE, 1..2000)) {
            let mut patience = Patience::default();
            let (mut spent, mut alone) = (0, 0);
            for takes in takes.iter().copied() {
                let (vain, interrupts) = submit(&mut patience, takes);
                spent += vain + interrupts * u32::from(PRICE);
                // Looked at once, as it always is.
                alone += if takes == 0 { 0 } else { 1 + u32::from(PRICE) };
            }
            let requests = takes.len() as u32;
            let bound = alone + requests * u32::from(PRICE) / u32::from(PROBE) + (MOST + i32::from(PRICE)) as u32;
            prop_assert!(spent <= bound, "{spent} of {bound}");
        }
    }
}
