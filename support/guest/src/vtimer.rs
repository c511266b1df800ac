//! The guest's virtual timer (CNTV) as far as the VMM has to know it.
//!
//! While the vCPU runs, the hardware timer is the guest's own: the kernel reports an expiry once (VPPIEvent) and masks PPI
//! 27 until it is acknowledged. The line stays high in the virtual distributor until the guest ends the interrupt; only
//! then may the event be acknowledged: earlier would raise it again at once, for ever. While the vCPU does not run, its
//! timer is frozen in the VCPU object, so a sleeping guest is woken by the timer PD at [`deadline`]. On that wake the VMM
//! only lets the vCPU run: the kernel restores CNTV, finds it expired and reports it as always.

/// INTID of the virtual timer.
pub const INTID: u32 = 27;

/// CNTV_CTL_EL0.ENABLE.
const ENABLE: u64 = 1;
/// CNTV_CTL_EL0.IMASK.
const IMASK: u64 = 2;

/// When (in CNTPCT counts) a sleeping guest's timer fires; none if it is off or masked.
pub const fn deadline(ctl: u64, cval: u64, cntvoff: u64) -> Option<u64> {
    if ctl & (ENABLE | IMASK) == ENABLE { Some(cval.saturating_add(cntvoff)) } else { None }
}

/// The client's side of one timer PD link: when it is worth a notification.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alarm {
    /// Deadline last handed over, not known to have fired.
    armed: Option<u64>,
}

impl Alarm {
    /// Nothing armed.
    pub const fn new() -> Self {
        Self { armed: None }
    }

    /// The guest wants to sleep until `deadline`; `fired` is the last deadline that the timer PD reports as fired.
    /// Answers whether the request page is to be written and the timer PD notified. An earlier one that is still armed
    /// will do: the early wake-up asks again.
    #[must_use]
    pub fn arm(&mut self, deadline: u64, fired: u64) -> bool {
        if let Some(armed) = self.armed
            && armed > fired
            && armed <= deadline
        {
            return false;
        }
        self.armed = Some(deadline);
        true
    }

    /// True while exactly this deadline is armed.
    pub fn is_armed_at(&self, deadline: u64, fired: u64) -> bool {
        self.armed == Some(deadline) && deadline > fired
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_a_live_timer_has_a_deadline() {
        assert_eq!(deadline(0, 5, 0), None);
        assert_eq!(deadline(3, 5, 0), None);
        assert_eq!(deadline(1, 5, 2), Some(7));
        assert_eq!(deadline(5, 5, 0), Some(5)); // ISTATUS is set: already due
        assert_eq!(deadline(1, u64::MAX, 1), Some(u64::MAX));
    }

    #[test]
    fn an_earlier_armed_deadline_is_enough() {
        let mut alarm = Alarm::new();
        assert!(alarm.arm(100, 0));
        assert!(!alarm.arm(100, 0));
        assert!(alarm.is_armed_at(100, 0));
        assert!(!alarm.arm(200, 0));
        assert!(alarm.arm(50, 0));
        // It has fired: the later one needs a notification again.
        assert!(!alarm.is_armed_at(50, 50));
        assert!(alarm.arm(200, 50));
    }

    proptest! {
        /// Against a model of the timer PD: whatever the guest asks for, something is armed no later than that.
        #[test]
        fn never_sleeps_past_a_deadline(steps in prop::collection::vec((any::<bool>(), 1u64..1000), 1..200)) {
            let (mut now, mut fired, mut programmed) = (0u64, 0u64, None::<u64>);
            let mut alarm = Alarm::new();
            for (pass, delta) in steps {
                if pass {
                    now += delta;
                    if let Some(at) = programmed && at <= now {
                        fired = at;
                        programmed = None;
                    }
                } else {
                    let wanted = now + delta;
                    if alarm.arm(wanted, fired) {
                        programmed = Some(wanted);
                    }
                    prop_assert!(programmed.is_some_and(|at| at <= wanted));
                }
            }
        }
    }
}
