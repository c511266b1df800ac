//! Where a guest's general-purpose registers are in seL4's UserContext (abi.md section 4; seL4's `seL4_UserContext`):
//! pc, sp, spsr, x0–x8, x16, x17, x18, x29, x30, x9–x15, x19–x28. Reading or writing is by prefix, so a low position is
//! cheap.

/// Words of a context that a VMM needs (all but the two thread pointers).
pub const WORDS: usize = 34;
/// Position of the program counter.
pub const PC: usize = 0;
/// Position of SP_EL0.
pub const SP: usize = 1;
/// Position of PSTATE.
pub const SPSR: usize = 2;
/// Position of x0; x1–x8 follow.
pub const X0: usize = 3;

/// Position of `x<register>`; none for 31 (XZR) and beyond.
pub const fn position(register: u8) -> Option<usize> {
    let register = register as usize;
    Some(match register {
        0..=8 => X0 + register,
        16..=18 => 12 + (register - 16),
        29..=30 => 15 + (register - 29),
        9..=15 => 17 + (register - 9),
        19..=28 => 24 + (register - 19),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_register_has_its_own_place() {
        let mut seen = [false; WORDS];
        for register in 0..31 {
            let at = position(register).unwrap();
            assert!(at >= X0 && !seen[at]);
            seen[at] = true;
        }
        assert!(seen[X0..].iter().all(|s| *s));
        assert_eq!(position(31), None);
        assert_eq!(position(255), None);
    }
}
