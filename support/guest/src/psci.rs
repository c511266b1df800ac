//! PSCI 1.1 (Arm DEN0022) and the SMC Calling Convention's own functions (DEN0028), as the firmware of a guest.
//!
//! A guest calls by SMC: seL4 decodes HVC as one of its own system calls (abi.md section 5), so device trees say
//! `method = "smc"`. Both the 32- and the 64-bit function identifiers are served.

use partita_protocol::MAX_VCPUS;

const SMCCC_VERSION: u32 = 0x8000_0000;
const SMCCC_ARCH_FEATURES: u32 = 0x8000_0001;
const PSCI_VERSION: u32 = 0x8400_0000;
const CPU_SUSPEND: u32 = 0x8400_0001;
const CPU_OFF: u32 = 0x8400_0002;
const CPU_ON: u32 = 0x8400_0003;
const AFFINITY_INFO: u32 = 0x8400_0004;
const MIGRATE_INFO_TYPE: u32 = 0x8400_0006;
const SYSTEM_OFF: u32 = 0x8400_0008;
const SYSTEM_RESET: u32 = 0x8400_0009;
const PSCI_FEATURES: u32 = 0x8400_000a;
/// Set in the identifier of the 64-bit variant of a function.
const SMC64: u32 = 0x4000_0000;

const SUCCESS: i64 = 0;
const NOT_SUPPORTED: i64 = -1;
const INVALID_PARAMETERS: i64 = -2;
const ALREADY_ON: i64 = -4;
const INVALID_ADDRESS: i64 = -9;
/// MIGRATE_INFO_TYPE: no Trusted OS to migrate.
const NO_TRUSTED_OS: i64 = 2;

/// What the VMM does about a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Put this in x0 and go on.
    Return(u64),
    /// Start a vCPU at `entry` with `context` in x0; the caller gets SUCCESS.
    Start {
        /// Which vCPU.
        vcpu: usize,
        /// Guest physical address.
        entry: u64,
        /// Its x0.
        context: u64,
    },
    /// The caller is off. It does not go on.
    Off,
    /// Sleep as WFI does; then SUCCESS.
    Suspend,
    /// Power the guest off.
    SystemOff,
    /// Reset the guest.
    SystemReset,
}

/// Which vCPUs there are and which of them are on.
#[derive(Clone, Copy, Debug)]
pub struct Cpus {
    present: usize,
    on: [bool; MAX_VCPUS],
}

impl Cpus {
    /// `present` vCPUs, the first one on.
    pub const fn new(present: usize) -> Self {
        let mut on = [false; MAX_VCPUS];
        on[0] = true;
        Self { present: if present > MAX_VCPUS { MAX_VCPUS } else { present }, on }
    }

    /// The vCPU with this affinity: vCPU n is Aff0 = n.
    fn find(&self, affinity: u64) -> Option<usize> {
        let vcpu = usize::try_from(affinity).ok()?;
        (vcpu < self.present).then_some(vcpu)
    }

    fn is_on(&self, vcpu: usize) -> bool {
        self.on.get(vcpu).copied().unwrap_or(false)
    }

    fn set(&mut self, vcpu: usize, on: bool) {
        if let Some(state) = self.on.get_mut(vcpu) {
            *state = on;
        }
    }

    /// Serves the call in x0–x3 of `caller`. `is_code` says whether an entry point is in guest RAM.
    pub fn call(&mut self, caller: usize, x: [u64; 4], is_code: impl FnOnce(u64) -> bool) -> Action {
        let function = x[0] as u32;
        // The 32-bit variants take 32-bit parameters; functions without a 64-bit variant do not exist as one.
        let wide = function & SMC64 != 0;
        let argument = |n: usize| if wide { x[n] } else { x[n] & 0xffff_ffff };
        let name = if wide && !has_wide_variant(function & !SMC64) { 0 } else { function & !SMC64 };
        let status = match name {
            SMCCC_VERSION | PSCI_VERSION => 0x0001_0001,
            PSCI_FEATURES => features(x[1] as u32),
            MIGRATE_INFO_TYPE => NO_TRUSTED_OS,
            CPU_SUSPEND => return Action::Suspend,
            CPU_OFF => {
                self.set(caller, false);
                // Nobody is left who could ever switch a vCPU on again.
                return if self.on.contains(&true) { Action::Off } else { Action::SystemOff };
            }
            CPU_ON => match self.find(argument(1)) {
                None => INVALID_PARAMETERS,
                Some(vcpu) if self.is_on(vcpu) => ALREADY_ON,
                Some(_) if argument(2) % 4 != 0 || !is_code(argument(2)) => INVALID_ADDRESS,
                Some(vcpu) => {
                    self.set(vcpu, true);
                    return Action::Start { vcpu, entry: argument(2), context: argument(3) };
                }
            },
            AFFINITY_INFO => match self.find(argument(1)) {
                Some(vcpu) if argument(2) == 0 => !self.is_on(vcpu) as i64,
                _ => INVALID_PARAMETERS,
            },
            SYSTEM_OFF => return Action::SystemOff,
            SYSTEM_RESET => return Action::SystemReset,
            _ => NOT_SUPPORTED,
        };
        Action::Return(status as u64)
    }
}

/// What [`Action::Start`] and [`Action::Suspend`] leave in the caller's x0.
pub const RETURN_SUCCESS: u64 = SUCCESS as u64;
/// For a call to something that is not there at all (an HVC).
pub const RETURN_NOT_SUPPORTED: u64 = NOT_SUPPORTED as u64;

const fn has_wide_variant(function: u32) -> bool {
    matches!(function, CPU_SUSPEND | CPU_ON | AFFINITY_INFO)
}

const fn features(function: u32) -> i64 {
    match function {
        SMCCC_VERSION | PSCI_VERSION | CPU_SUSPEND | CPU_OFF | CPU_ON | AFFINITY_INFO | MIGRATE_INFO_TYPE
        | SYSTEM_OFF | SYSTEM_RESET | PSCI_FEATURES => SUCCESS,
        SMCCC_ARCH_FEATURES => NOT_SUPPORTED,
        other if other & SMC64 != 0 && has_wide_variant(other & !SMC64) => SUCCESS,
        _ => NOT_SUPPORTED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn call(cpus: &mut Cpus, x: [u64; 4]) -> Action {
        cpus.call(0, x, |entry| entry >= 0x4000_0000)
    }

    fn ret(value: i64) -> Action {
        Action::Return(value as u64)
    }

    #[test]
    fn versions_and_features() {
        let mut cpus = Cpus::new(1);
        assert_eq!(call(&mut cpus, [0x8400_0000, 0, 0, 0]), ret(0x10001));
        assert_eq!(call(&mut cpus, [0x8000_0000, 0, 0, 0]), ret(0x10001));
        assert_eq!(call(&mut cpus, [0x8400_0006, 0, 0, 0]), ret(2));
        for present in [0x8400_0008, 0xc400_0003, 0x8400_0003, 0x8000_0000] {
            assert_eq!(call(&mut cpus, [0x8400_000a, present, 0, 0]), ret(0), "{present:x}");
        }
        for absent in [0x8400_000e, 0xc400_0008, 0x8400_0012] {
            assert_eq!(call(&mut cpus, [0x8400_000a, absent, 0, 0]), ret(-1), "{absent:x}");
        }
    }

    #[test]
    fn cpu_on_and_off() {
        let mut cpus = Cpus::new(2);
        assert_eq!(call(&mut cpus, [0xc400_0003, 2, 0x4000_0000, 7]), ret(-2));
        assert_eq!(call(&mut cpus, [0xc400_0003, 0, 0x4000_0000, 7]), ret(-4));
        assert_eq!(call(&mut cpus, [0xc400_0003, 1, 0x1000, 7]), ret(-9));
        assert_eq!(call(&mut cpus, [0xc400_0003, 1, 0x4000_0002, 7]), ret(-9));
        assert_eq!(call(&mut cpus, [0xc400_0004, 1, 0, 0]), ret(1));
        let start = Action::Start { vcpu: 1, entry: 0x4000_0000, context: 7 };
        assert_eq!(call(&mut cpus, [0xc400_0003, 1, 0x4000_0000, 7]), start);
        assert_eq!(call(&mut cpus, [0xc400_0004, 1, 0, 0]), ret(0));
        assert_eq!(cpus.call(1, [0x8400_0002, 0, 0, 0], |_| true), Action::Off);
        assert_eq!(cpus.call(0, [0x8400_0002, 0, 0, 0], |_| true), Action::SystemOff);
    }

    #[test]
    fn absent_cpus_with_one_vcpu() {
        let mut cpus = Cpus::new(1);
        assert_eq!(call(&mut cpus, [0xc400_0003, 1, 0x4000_0000, 0]), ret(-2));
        assert_eq!(call(&mut cpus, [0xc400_0004, 1, 0, 0]), ret(-2));
    }

    #[test]
    fn system_calls_and_nonsense() {
        let mut cpus = Cpus::new(1);
        assert_eq!(call(&mut cpus, [0x8400_0008, 0, 0, 0]), Action::SystemOff);
        assert_eq!(call(&mut cpus, [0x8400_0009, 0, 0, 0]), Action::SystemReset);
        assert_eq!(call(&mut cpus, [0xc400_0008, 0, 0, 0]), ret(-1));
        assert_eq!(call(&mut cpus, [0xc400_0001, 0, 0, 0]), Action::Suspend);
        assert_eq!(call(&mut cpus, [0x8600_ff01, 0, 0, 0]), ret(-1));
    }

    proptest! {
        #[test]
        fn any_call_is_answered(x: [u64; 4], caller in 0usize..8) {
            let mut cpus = Cpus::new(MAX_VCPUS);
            if let Action::Start { vcpu, entry, .. } = cpus.call(caller, x, |e| e < 1 << 40) {
                prop_assert!(vcpu < MAX_VCPUS && entry < 1 << 40 && cpus.is_on(vcpu));
            }
        }
    }
}
