//! The registers of a thread in the kernel's order.

use crate::Word;

/// pc, sp, spsr, x0–x8, x16, x17, x18, x29, x30, x9–x15, x19–x28, tpidr_el0, tpidrro_el0: 36 words.
#[derive(Debug, Clone, PartialEq, Eq)]
#[repr(transparent)]
pub struct UserContext([Word; UserContext::WORDS]);

/// Where general-purpose register `i` is.
const PLACE: [usize; 31] = [
    3, 4, 5, 6, 7, 8, 9, 10, 11, // x0–x8
    17, 18, 19, 20, 21, 22, 23, // x9–x15
    12, 13, 14, // x16–x18
    24, 25, 26, 27, 28, 29, 30, 31, 32, 33, // x19–x28
    15, 16, // x29, x30
];

impl Default for UserContext {
    fn default() -> Self {
        Self([0; Self::WORDS])
    }
}

impl UserContext {
    pub(crate) const WORDS: usize = 36;

    pub(crate) fn words(&self) -> &[Word; Self::WORDS] {
        &self.0
    }

    pub(crate) fn words_mut(&mut self) -> &mut [Word; Self::WORDS] {
        &mut self.0
    }

    /// Address of the next instruction; inside a system call that of its `svc`.
    pub fn pc(&self) -> &Word {
        &self.0[0]
    }

    /// See [`UserContext::pc`].
    pub fn pc_mut(&mut self) -> &mut Word {
        &mut self.0[0]
    }

    /// Stack pointer.
    pub fn sp(&self) -> &Word {
        &self.0[1]
    }

    /// See [`UserContext::sp`].
    pub fn sp_mut(&mut self) -> &mut Word {
        &mut self.0[1]
    }

    /// Processor state.
    pub fn spsr(&self) -> &Word {
        &self.0[2]
    }

    /// See [`UserContext::spsr`].
    pub fn spsr_mut(&mut self) -> &mut Word {
        &mut self.0[2]
    }

    /// General-purpose register `ix`.
    ///
    /// # Panics
    /// If `ix` is greater than 30.
    pub fn gpr(&self, ix: usize) -> &Word {
        &self.0[PLACE[ix]]
    }

    /// See [`UserContext::gpr`].
    ///
    /// # Panics
    /// If `ix` is greater than 30.
    pub fn gpr_mut(&mut self, ix: usize) -> &mut Word {
        &mut self.0[PLACE[ix]]
    }

    /// Parameter `ix` of a C function.
    ///
    /// # Panics
    /// If `ix` is greater than 7.
    pub fn c_param(&self, ix: usize) -> &Word {
        assert!(ix < 8);
        self.gpr(ix)
    }

    /// See [`UserContext::c_param`].
    ///
    /// # Panics
    /// If `ix` is greater than 7.
    pub fn c_param_mut(&mut self, ix: usize) -> &mut Word {
        assert!(ix < 8);
        self.gpr_mut(ix)
    }
}

#[cfg(test)]
mod tests {
    use super::UserContext;

    #[test]
    fn every_register_has_its_own_place() {
        let mut context = UserContext::default();
        for i in 0..31 {
            assert_eq!(*context.gpr(i), 0);
            *context.gpr_mut(i) = 100 + i as u64;
        }
        let order = [
            0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 17, 18, 29, 30, 9, 10, 11, 12, 13, 14, 15, 19, 20, 21, 22, 23, 24,
            25, 26, 27, 28,
        ];
        assert_eq!(context.words()[3..34], order.map(|i| 100 + i));
        assert_eq!(context.words()[..3], [0; 3]);
        assert_eq!(context.words()[34..], [0; 2]);
    }
}
