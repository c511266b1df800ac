//! Interrupt lines of devices that the guest has whole: from the board's GIC to the guest's and back.
//!
//! seL4 masks an interrupt when it reports it and unmasks it when it is acknowledged. A line is acknowledged when the guest
//! has ended it, not before: a level that is still high would come back at once, for ever, and a device that the guest makes
//! fire without end would take the processor from its neighbours. What happens meanwhile waits in the board's GIC: an edge
//! is latched there, a level is still there.
//!
//! Two things can make that end never come, and both are seen when the guest writes to its distributor ([`Lines::recheck`]):
//! it clears the pending edge, or it lets an interrupt through whose level may have gone meanwhile. The line is then
//! acknowledged without an end, and the board says again what is true. A line belongs to one guest, but several of its
//! devices may pull it: the guest's handlers find out which.

use heapless::Vec;

use crate::gic::Vgic;

/// Lines of a guest.
pub const MAX_LINES: usize = 16;

/// What became of a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was for this handler, and is dealt with.
    Handled,
    /// It was for this handler, which could do nothing: it is kept.
    Failed,
    /// The next handler is asked.
    NotMine,
}

#[derive(Clone, Copy, Debug)]
struct Line {
    channel: u8,
    intid: u16,
    edge: bool,
    /// Masked in the board's GIC until it is acknowledged.
    owed: bool,
}

/// The lines of a guest.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    lines: Vec<Line, MAX_LINES>,
}

impl Lines {
    /// None.
    pub const fn new() -> Self {
        Self { lines: Vec::new() }
    }

    /// Adds the line that is reported on `channel` and has the number `intid`, a shared interrupt, in the guest. False if
    /// there is no room.
    #[must_use]
    pub fn add(&mut self, channel: u8, intid: u16, edge: bool) -> bool {
        self.lines.push(Line { channel, intid, edge, owed: false }).is_ok()
    }

    /// The line of `channel` was reported. `running`: there is a guest to take it; if not it stays masked until
    /// [`Lines::restart`].
    pub fn arrived(&mut self, gic: &mut Vgic, channel: usize, running: bool) -> Outcome {
        let Some(line) = self.lines.iter_mut().find(|line| usize::from(line.channel) == channel) else {
            return Outcome::NotMine;
        };
        line.owed = true;
        if !running {
            return Outcome::Failed;
        }
        if line.edge {
            gic.pulse(line.intid);
        } else {
            gic.set_line(0, line.intid, true);
        }
        Outcome::Handled
    }

    /// The guest has ended `intid`: the channel to acknowledge, if it was one of these lines.
    #[must_use]
    pub fn ended(&mut self, gic: &mut Vgic, intid: u16) -> Option<usize> {
        let line = self.lines.iter_mut().find(|line| line.intid == intid && line.owed)?;
        Some(line.settle(gic))
    }

    /// The guest has written to its distributor: the channels to acknowledge, one bit each.
    #[must_use]
    pub fn recheck(&mut self, gic: &mut Vgic) -> u64 {
        let mut channels = 0;
        for line in self.lines.iter_mut().filter(|line| line.owed) {
            if gic.is_busy(0, line.intid) {
                continue;
            }
            let gone = if line.edge { !gic.is_pending(line.intid) } else { gic.is_enabled(0, line.intid) };
            if gone {
                channels |= 1 << line.settle(gic);
            }
        }
        channels
    }

    /// A guest starts, with its interrupt controller reset: all channels, to be acknowledged. What a device wanted of the
    /// guest before comes again if it is a level; an edge of the past is forgotten.
    #[must_use]
    pub fn restart(&mut self, gic: &mut Vgic) -> u64 {
        self.lines.iter_mut().fold(0, |channels, line| channels | 1 << line.settle(gic))
    }
}

impl Line {
    fn settle(&mut self, gic: &mut Vgic) -> usize {
        self.owed = false;
        if !self.edge {
            gic.set_line(0, self.intid, false);
        }
        self.channel.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Width;
    use proptest::prelude::*;

    const ENABLE: u64 = 0x100 + 4 * 2;
    const DISABLE: u64 = 0x180 + 4 * 2;
    const CLEAR: u64 = 0x280 + 4 * 2;

    /// A device, the board's GIC, and a guest that has the line as 80.
    struct World {
        gic: Vgic,
        lines: Lines,
        edge: bool,
        /// The device's output, and an edge that the board's GIC has latched.
        high: bool,
        latched: bool,
        masked: bool,
        /// The list register that holds it.
        taken: Option<usize>,
    }

    impl World {
        fn new(edge: bool) -> Self {
            let mut lines = Lines::new();
            assert!(lines.add(16, 80, edge));
            let mut gic = Vgic::new(1);
            gic.write(0, 0, Width::Word, 1).unwrap();
            gic.write(0, 0xc00 + 4 * 5, Width::Word, if edge { 2 } else { 0 }).unwrap();
            Self { gic, lines, edge, high: false, latched: false, masked: false, taken: None }
        }

        fn acknowledge(&mut self, channels: u64) {
            assert_eq!(channels & !(1 << 16), 0);
            self.masked &= channels == 0;
        }

        /// The board reports what it may, and the VMM injects what it can.
        fn settle(&mut self) {
            for _ in 0..4 {
                if !self.masked && (self.latched || !self.edge && self.high) {
                    self.masked = true;
                    self.latched = false;
                    assert_eq!(self.lines.arrived(&mut self.gic, 16, true), Outcome::Handled);
                }
                if let Some(injection) = self.gic.next_injection(0) {
                    assert_eq!((injection.intid, self.taken), (80, None));
                    self.taken = Some(injection.index.into());
                }
            }
        }

        fn device(&mut self, high: bool) {
            self.latched |= self.edge && high && !self.high;
            self.high = high;
            self.settle();
        }

        fn write(&mut self, offset: u64) {
            self.gic.write(0, offset, Width::Word, 1 << 16).unwrap();
            let channels = self.lines.recheck(&mut self.gic);
            self.acknowledge(channels);
            self.settle();
        }

        /// The guest's handler: does what the device wants, ends the interrupt. False if there is none.
        fn handle(&mut self) -> bool {
            let Some(index) = self.taken.take() else { return false };
            if !self.edge {
                self.high = false;
            }
            let intid = self.gic.ended(0, index).unwrap();
            let channel = self.lines.ended(&mut self.gic, intid);
            self.acknowledge(channel.map_or(0, |channel| 1 << channel));
            self.settle();
            true
        }
    }

    #[test]
    fn a_level_is_unmasked_when_the_guest_has_ended_it() {
        let mut world = World::new(false);
        world.write(ENABLE);
        world.device(true);
        assert!(world.masked);
        assert!(world.handle());
        assert!(!world.masked && !world.handle());
        world.device(true);
        assert!(world.handle());
    }

    #[test]
    fn an_edge_while_another_is_handled_comes_afterwards() {
        let mut world = World::new(true);
        world.write(ENABLE);
        world.device(true);
        world.device(false);
        world.device(true);
        assert!(world.handle() && world.handle());
        assert!(!world.handle());
    }

    #[test]
    fn a_level_that_went_while_it_was_disabled_is_not_seen() {
        let mut world = World::new(false);
        world.device(true);
        assert!(world.masked, "kept, and not reported again and again");
        world.device(false);
        world.write(ENABLE);
        assert!(!world.handle());
        world.device(true);
        assert!(world.handle());
    }

    #[test]
    fn an_edge_that_the_guest_clears_does_not_block_the_next() {
        let mut world = World::new(true);
        world.device(true);
        world.write(CLEAR);
        world.write(ENABLE);
        assert!(!world.handle());
        world.device(false);
        world.device(true);
        assert!(world.handle());
    }

    #[test]
    fn without_a_guest_it_waits_for_the_next_one() {
        let mut world = World::new(false);
        assert_eq!(world.lines.arrived(&mut world.gic, 16, false), Outcome::Failed);
        assert_eq!(world.lines.arrived(&mut world.gic, 17, true), Outcome::NotMine);
        assert_eq!(world.lines.restart(&mut world.gic), 1 << 16);
        world.write(ENABLE);
        assert!(!world.handle());
    }

    #[test]
    fn an_edge_is_kept_by_a_guest_that_calls_it_a_level() {
        let mut world = World::new(true);
        world.gic.write(0, 0xc00 + 4 * 5, Width::Word, 0).unwrap();
        world.write(ENABLE);
        world.device(true);
        assert!(world.handle());
        assert!(!world.masked && !world.handle());
    }

    proptest! {
        /// Whatever came before: once enabled and handled, the line is unmasked, quiet, and takes the next interrupt.
        #[test]
        fn no_line_is_ever_lost(edge: bool, steps in prop::collection::vec(0..6u8, 0..60)) {
            let mut world = World::new(edge);
            for step in steps {
                match step {
                    0 => world.device(true),
                    1 => world.device(false),
                    2 => world.write(ENABLE),
                    3 => world.write(DISABLE),
                    4 => world.write(CLEAR),
                    _ => { world.handle(); }
                }
                // A device that wants something reaches a guest that listens.
                if world.gic.is_enabled(0, 80) && (world.latched || !edge && world.high) {
                    prop_assert!(world.taken.is_some());
                }
            }
            world.write(ENABLE);
            while world.handle() {}
            prop_assert!(!world.masked);
            world.device(false);
            world.device(true);
            prop_assert!(world.handle());
        }
    }
}
