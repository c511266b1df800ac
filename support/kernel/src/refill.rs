//! Sporadic budgets (seL4 manual 6.1.7): a thread may use its budget once per period, in pieces; each piece comes back a
//! period after it was used. A period equal to the budget means round robin: the budget is a time slice and comes back at
//! once.

/// Refills a scheduling context can hold, the two of the minimum included.
pub const MAX_REFILLS: usize = 8;

/// An amount of time that may be used from a moment on, in ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refill {
    /// From when.
    pub time: u64,
    /// How much.
    pub amount: u64,
}

/// A budget and what is left of it. There is at least one refill, and the first is at least the kernel's minimum.
#[derive(Clone, Debug)]
pub struct Refills {
    items: [Refill; MAX_REFILLS],
    len: u8,
    max: u8,
    budget: u64,
    /// 0 for round robin.
    period: u64,
    minimum: u64,
}

impl Refills {
    /// A full budget. All in ticks; `minimum` is twice the kernel's worst-case execution time, at most `budget`.
    pub fn new(budget: u64, period: u64, extra: usize, minimum: u64, now: u64) -> Self {
        let mut items = [Refill::default(); MAX_REFILLS];
        items[0] = Refill { time: now, amount: budget };
        Refills {
            items,
            len: 1,
            max: (2 + extra).min(MAX_REFILLS) as u8,
            budget,
            period: if period == budget { 0 } else { period },
            minimum,
        }
    }

    /// The current refill.
    pub fn head(&self) -> Refill {
        self.items[0]
    }

    /// All refills.
    pub fn all(&self) -> &[Refill] {
        self.items.get(..usize::from(self.len)).unwrap_or(&[])
    }

    /// The whole budget.
    pub fn budget(&self) -> u64 {
        self.budget
    }

    /// Whether budget and period are equal.
    pub fn is_round_robin(&self) -> bool {
        self.period == 0
    }

    /// Whether the current refill may be used.
    pub fn ready(&self, now: u64) -> bool {
        self.is_round_robin() || self.head().time <= now.saturating_add(self.minimum / 2)
    }

    /// Whether, after `used` ticks, enough is left to leave the kernel with.
    pub fn sufficient(&self, used: u64) -> bool {
        self.head().amount.saturating_sub(used) >= self.minimum
    }

    /// Accounts for a part of the budget at a switch to another scheduling context.
    pub fn use_part(&mut self, used: u64) {
        if self.is_round_robin() {
            self.items[0].amount = self.items[0].amount.saturating_sub(used);
        } else {
            self.charge(used);
        }
    }

    /// Accounts for a budget that is used up.
    pub fn use_up(&mut self, used: u64) {
        if self.is_round_robin() {
            self.items[0].amount = self.budget;
        } else {
            self.charge(used);
        }
    }

    /// To be called when the thread becomes ready after a time of not running: time not used is not saved up.
    pub fn unblock(&mut self, now: u64) {
        if self.is_round_robin() || !self.ready(now) {
            return;
        }
        self.items[0].time = now;
        while self.len > 1 && self.items[1].time <= self.items[0].time.saturating_add(self.items[0].amount) {
            let first = self.pop();
            self.items[0] = Refill { time: first.time, amount: self.items[0].amount + first.amount };
        }
    }

    fn charge(&mut self, mut used: u64) {
        while used > 0 && self.head().amount <= used {
            used -= self.head().amount;
            let mut whole = self.pop();
            whole.time = whole.time.saturating_add(self.period);
            self.push(whole);
        }
        if used > 0 {
            let head = &mut self.items[0];
            let part = Refill { time: head.time.saturating_add(self.period), amount: used };
            head.amount -= used;
            head.time = head.time.saturating_add(used);
            self.push(part);
        }
        while self.len > 1 && self.head().amount < self.minimum {
            let small = self.pop();
            let head = &mut self.items[0];
            head.amount += small.amount;
            head.time = head.time.saturating_sub(small.amount);
        }
    }

    fn pop(&mut self) -> Refill {
        let first = self.items[0];
        self.items.copy_within(1.., 0);
        self.len = self.len.saturating_sub(1);
        first
    }

    fn push(&mut self, new: Refill) {
        let last = usize::from(self.len);
        let full = self.len >= self.max;
        match last.checked_sub(1).and_then(|i| self.items.get_mut(i)) {
            Some(tail) if tail.time.saturating_add(tail.amount) >= new.time => tail.amount += new.amount,
            Some(tail) if full => {
                tail.time = new.time.saturating_sub(tail.amount);
                tail.amount += new.amount;
            }
            _ => {
                self.items[last % MAX_REFILLS] = new;
                self.len += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn budget_comes_back_a_period_later() {
        let mut r = Refills::new(100, 1000, 0, 20, 0);
        r.use_part(30);
        assert_eq!(r.all(), [Refill { time: 30, amount: 70 }, Refill { time: 1000, amount: 30 }]);
        r.use_up(70);
        assert_eq!(r.head().amount + r.all().get(1).map_or(0, |r| r.amount), 100);
        assert!(!r.ready(900));
        assert!(r.ready(1000));
    }

    #[test]
    fn round_robin_is_a_slice() {
        let mut r = Refills::new(100, 100, 0, 20, 0);
        r.use_part(85);
        assert!(r.ready(0) && !r.sufficient(0));
        r.use_up(15);
        assert!(r.ready(0) && r.sufficient(80) && !r.sufficient(81));
    }

    proptest! {
        /// Never more than the budget in any window of a period; the sum of refills is always the budget.
        #[test]
        fn bandwidth(steps in prop::collection::vec((1u64..400, 0u64..3000), 1..200), extra in 0usize..6) {
            let (budget, period, minimum) = (400u64, 2000u64, 20u64);
            let mut r = Refills::new(budget, period, extra, minimum, 0);
            let mut now = 0u64;
            let mut runs: Vec<(u64, u64)> = Vec::new();
            for (want, idle) in steps {
                now += idle;
                r.unblock(now);
                if !r.ready(now) || !r.sufficient(0) {
                    now = now.max(r.head().time);
                    r.unblock(now);
                }
                let run = want.min(r.head().amount);
                r.use_part(run);
                runs.push((now, run));
                now += run;
                prop_assert_eq!(r.all().iter().map(|r| r.amount).sum::<u64>(), budget);
                prop_assert!(r.head().amount >= minimum || r.all().len() == 1);
                prop_assert!(r.all().len() <= 2 + extra);
                prop_assert!(r.all().windows(2).all(|w| w[0].time + w[0].amount <= w[1].time));
            }
            for &(start, _) in &runs {
                let used: u64 = runs
                    .iter()
                    .map(|&(s, n)| (s + n).min(start + period).saturating_sub(s.max(start)))
                    .sum();
                // `ready` accepts a refill half a minimum early, once per refill.
                prop_assert!(used <= budget + minimum * 8, "{used} in the period from {start}");
            }
        }
    }
}
