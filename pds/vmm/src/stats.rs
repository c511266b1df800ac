//! A guest's counters as lines for the log, one `name=value` each.

use core::fmt;

use partita_protocol::stats::{Counter, VmmStats};

/// The exits: `exits total=1234 wfi=10 notify=7`, without those that never happened.
pub struct Exits<'a>(pub &'a VmmStats);

/// Everything else: `events injected=12 slept=3`.
pub struct Events<'a>(pub &'a VmmStats);

impl fmt::Display for Exits<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exits total={}", self.0.exits())?;
        list(f, self.0, Counter::ALL.get(..Counter::EXITS))
    }
}

impl fmt::Display for Events<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("events")?;
        list(f, self.0, Counter::ALL.get(Counter::EXITS..))
    }
}

fn list(f: &mut fmt::Formatter<'_>, stats: &VmmStats, counters: Option<&[Counter]>) -> fmt::Result {
    for counter in counters.unwrap_or_default() {
        match stats.get(*counter) {
            0 => {}
            value => write!(f, " {}={value}", counter.name())?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_well() {
        let stats = VmmStats::new();
        stats.count(Counter::Wfi);
        stats.count(Counter::Wfi);
        stats.count(Counter::Timer);
        stats.count(Counter::Sleeps);
        assert_eq!(Exits(&stats).to_string(), "exits total=3 wfi=2 vtimer=1");
        assert_eq!(Events(&stats).to_string(), "events slept=1");
    }

    #[test]
    fn lines_fit_the_log_with_a_billion_of_each() {
        let digits = "1000000000".len();
        let names =
            |counters: &[Counter]| counters.iter().map(|c| c.name().len() + 2 + digits).sum::<usize>();
        let (exits, events) = Counter::ALL.split_at(Counter::EXITS);
        assert!("exits total=".len() + digits + 1 + names(exits) < partita_ring::log::LINE);
        assert!(names(events) < partita_ring::log::LINE);
    }
}
