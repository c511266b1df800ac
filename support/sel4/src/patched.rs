//! Statics that a packer writes in the ELF file, after the compiler has seen another value.

use core::cell::UnsafeCell;

/// A value that is written between linking and loading.
#[doc(hidden)]
#[repr(transparent)]
pub struct PatchedCell<T>(UnsafeCell<T>);

// SAFETY: after loading nobody writes it, so shared references are all there ever is.
unsafe impl<T: Sync> Sync for PatchedCell<T> {}

impl<T> PatchedCell<T> {
    /// With the value for a program that nobody patched.
    pub const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// The value as it is in memory.
    #[inline(always)]
    pub fn get(&'static self) -> &'static T {
        let mut pointer: *const T = self.0.get();
        #[cfg(target_arch = "aarch64")]
        // SAFETY: no instruction; it makes the compiler forget what it knows about the pointer.
        unsafe {
            core::arch::asm!("/* {0} */", inout(reg) pointer, options(nostack, preserves_flags));
        }
        pointer = core::hint::black_box(pointer);
        // SAFETY: it is the address of `self`, which is never written while the program runs.
        unsafe { &*pointer }
    }
}
