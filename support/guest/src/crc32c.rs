//! CRC-32C (Castagnoli), of which AArch64 has an instruction: three instructions for eight bytes, where a table takes as
//! many for one.

/// The checksum of what it was given so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crc32c(u32);

impl Crc32c {
    /// Of nothing.
    pub const fn new() -> Self {
        Self(!0)
    }

    /// Adds bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0 = update(self.0, bytes);
    }

    /// The checksum.
    pub const fn value(self) -> u32 {
        !self.0
    }
}

impl Default for Crc32c {
    fn default() -> Self {
        Self::new()
    }
}

/// Of all of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = Crc32c::new();
    crc.add(bytes);
    crc.value()
}

/// The processors of all boards (Cortex-A53 and later) have the CRC32 instructions, which Armv8.0 leaves optional; the
/// compiler is not told so for the whole target, as it has nothing else to use them for.
#[cfg(all(target_arch = "aarch64", target_os = "none"))]
fn update(mut crc: u32, bytes: &[u8]) -> u32 {
    let (head, words, tail) = {
        let head = bytes.as_ptr().align_offset(8).min(bytes.len());
        let (head, rest) = bytes.split_at(head);
        let (words, tail) = rest.as_chunks::<8>();
        (head, words, tail)
    };
    let bytewise = |crc: &mut u32, bytes: &[u8]| {
        for byte in bytes {
            // SAFETY: computes; the processor has the instruction (above).
            unsafe {
                core::arch::asm!(".arch_extension crc", "crc32cb {c:w}, {c:w}, {b:w}", c = inout(reg) *crc,
                    b = in(reg) u32::from(*byte), options(pure, nomem, nostack, preserves_flags));
            }
        }
    };
    bytewise(&mut crc, head);
    let (blocks, rest) = words.as_chunks::<8>();
    if let Some(first) = blocks.first() {
        // SAFETY: reads `64 * blocks.len()` bytes from `first`, which are `blocks`, aligned to 8 by `head`.
        unsafe {
            core::arch::asm!(
                ".arch_extension crc",
                "2:",
                "ldp {a}, {b}, [{at}]",
                "ldp {d}, {e}, [{at}, #16]",
                "crc32cx {c:w}, {c:w}, {a}",
                "crc32cx {c:w}, {c:w}, {b}",
                "ldp {a}, {b}, [{at}, #32]",
                "crc32cx {c:w}, {c:w}, {d}",
                "crc32cx {c:w}, {c:w}, {e}",
                "ldp {d}, {e}, [{at}, #48]",
                "crc32cx {c:w}, {c:w}, {a}",
                "crc32cx {c:w}, {c:w}, {b}",
                "add {at}, {at}, #64",
                "crc32cx {c:w}, {c:w}, {d}",
                "crc32cx {c:w}, {c:w}, {e}",
                "subs {n}, {n}, #1",
                "b.ne 2b",
                at = inout(reg) first.as_ptr() => _,
                n = inout(reg) blocks.len() => _,
                c = inout(reg) crc,
                a = out(reg) _, b = out(reg) _, d = out(reg) _, e = out(reg) _,
                options(readonly, nostack),
            );
        }
    }
    for word in rest {
        bytewise(&mut crc, word);
    }
    bytewise(&mut crc, tail);
    crc
}

/// Elsewhere (the host's tool and tests) by tables.
#[cfg(not(all(target_arch = "aarch64", target_os = "none")))]
fn update(crc: u32, bytes: &[u8]) -> u32 {
    static TABLE: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);
    // The register is kept as the instruction has it; the library's is its reflection, and inverted at the end.
    let mut digest = TABLE.digest_with_initial(crc.reverse_bits());
    digest.update(bytes);
    !digest.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 3720, B.4.
    #[test]
    fn values_of_the_rfc() {
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(&core::array::from_fn::<u8, 32, _>(|n| n as u8)), 0x46dd_794e);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(b""), 0);
    }

    proptest! {
        #[test]
        fn pieces_make_the_whole(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0usize..300) {
            let (a, b) = bytes.split_at(at.min(bytes.len()));
            let mut crc = Crc32c::new();
            crc.add(a);
            crc.add(b);
            prop_assert_eq!(crc.value(), crc32c(&bytes));
        }
    }
}
