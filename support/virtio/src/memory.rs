//! Memory that somebody else writes while we look at it.
//!
//! A guest may change its RAM between any two of our loads, on another core even in the middle of one. A reference into
//! such memory would promise the compiler the opposite, so there is none: [`GuestRam`] hands out copies, made with
//! volatile or atomic accesses after a bounds check, and never a `&T` or `&[T]`. "Read once, then check" follows from
//! that: what has been copied stays what it was.
//!
//! The same type serves for DMA memory that a device writes.

mod cells;

pub use cells::{Cell, Cells, Group};

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Why an access to guest memory was refused. Always the fault of who supplied the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryError {
    /// Some byte of the range is outside RAM, or its end overflows.
    OutOfRam,
    /// An atomic access that is not naturally aligned.
    Misaligned,
}

/// A guest's RAM: one contiguous range of intermediate physical addresses (IPA), mapped here in one piece, and contiguous
/// in physical memory.
///
/// A handle: copies of it mean the same memory.
#[derive(Clone, Copy, Debug)]
pub struct GuestRam {
    ipa: u64,
    len: u64,
    local: NonNull<u8>,
    paddr: u64,
}

// SAFETY: the handle refers to memory that is shared by nature; every access through it is volatile or atomic and none
// yields a reference, so it does not matter from which thread it is made.
unsafe impl Send for GuestRam {}

impl GuestRam {
    /// Describes RAM of `len` bytes at IPA `ipa`, mapped at `local`, with physical address `paddr`. `None` if it is empty,
    /// one of the three ranges overflows, or `ipa` is not aligned to 8 bytes.
    ///
    /// # Safety
    ///
    /// `local` must be valid for reads and writes of `len` bytes for as long as any copy of the result is used, and no Rust
    /// reference to any of it may exist during that time.
    pub const unsafe fn new(ipa: u64, local: NonNull<u8>, len: u64, paddr: u64) -> Option<Self> {
        if len == 0
            || len > isize::MAX as u64
            || ipa.checked_add(len).is_none()
            || paddr.checked_add(len).is_none()
            || !ipa.is_multiple_of(8)
        {
            return None;
        }
        Some(Self { ipa, len, local, paddr })
    }

    /// First intermediate physical address.
    pub const fn ipa(&self) -> u64 {
        self.ipa
    }

    /// Bytes.
    pub const fn size(&self) -> u64 {
        self.len
    }

    /// Physical address of the first byte.
    pub const fn paddr(&self) -> u64 {
        self.paddr
    }

    /// Offset of `gpa` if all `len` bytes from there are RAM. An empty range is in RAM if it starts in it or at its end.
    #[inline]
    pub const fn offset(&self, gpa: u64, len: u64) -> Option<u64> {
        // `checked_sub` is not usable on stable const with `?`; the comparisons below cannot overflow.
        if gpa < self.ipa {
            return None;
        }
        let offset = gpa - self.ipa;
        if offset > self.len || len > self.len - offset { None } else { Some(offset) }
    }

    /// Physical address of `gpa` if all `len` bytes from there are RAM.
    #[inline]
    pub const fn translate(&self, gpa: u64, len: u64) -> Option<u64> {
        match self.offset(gpa, len) {
            // Cannot overflow: `new` checked paddr + len, and offset <= len.
            Some(offset) => Some(self.paddr + offset),
            None => None,
        }
    }

    /// A handle for a part of this memory alone, which must begin at a multiple of 8 bytes.
    pub fn part(&self, gpa: u64, len: u64) -> Option<Self> {
        let offset = self.offset(gpa, len)?;
        // SAFETY: offset <= self.len, so the sum is inside the memory that `new`'s caller promised.
        let local = unsafe { self.local.add(offset as usize) };
        // SAFETY: `len` bytes from there are part of what `new`'s caller promised.
        unsafe { Self::new(gpa, local, len, self.paddr + offset) }
    }

    /// A handle for the `count` words of type `T` at `gpa`, for whoever uses them often.
    pub fn cells<T: Cell>(&self, gpa: u64, count: usize) -> Result<Cells<T>, MemoryError> {
        let bytes = count.checked_mul(size_of::<T>()).ok_or(MemoryError::OutOfRam)?;
        let start = self.pointer(gpa, bytes)?.cast::<T>();
        if !start.is_aligned() {
            return Err(MemoryError::Misaligned);
        }
        // SAFETY: `pointer` checked that `bytes` bytes are in RAM; `new`'s caller promised them for as long as any copy of
        // this handle is used, and this one is a copy of a part.
        Ok(unsafe { Cells::new(start, count) })
    }

    #[inline]
    fn pointer(&self, gpa: u64, len: usize) -> Result<NonNull<u8>, MemoryError> {
        let offset = self.offset(gpa, len as u64).ok_or(MemoryError::OutOfRam)?;
        // SAFETY: offset <= self.len, and `new`'s caller promised `len` bytes behind `local`.
        Ok(unsafe { self.local.add(offset as usize) })
    }

    /// Copies a value out.
    #[inline]
    pub fn read_obj<T: FromBytes + IntoBytes>(&self, gpa: u64) -> Result<T, MemoryError> {
        let mut value = T::new_zeroed();
        self.read(gpa, value.as_mut_bytes())?;
        Ok(value)
    }

    /// Copies a value in.
    #[inline]
    pub fn write_obj<T: IntoBytes + Immutable>(&self, gpa: u64, value: &T) -> Result<(), MemoryError> {
        self.write(gpa, value.as_bytes())
    }

    /// Copies words out, in machine order. Cheaper than [`GuestRam::read_obj`], for addresses that are aligned to words.
    #[inline]
    pub fn read_words<const N: usize>(&self, gpa: u64) -> Result<[u64; N], MemoryError> {
        let from = self.pointer(gpa, 8 * N)?.cast::<u64>();
        if !from.is_aligned() {
            return Err(MemoryError::Misaligned);
        }
        // SAFETY: `pointer` checked that `8 * N` bytes at `from` are in RAM, and it is aligned.
        Ok(core::array::from_fn(|n| unsafe { from.add(n).read_volatile() }))
    }

    /// Copies words in. As [`GuestRam::read_words`].
    #[inline]
    pub fn write_words<const N: usize>(&self, gpa: u64, words: [u64; N]) -> Result<(), MemoryError> {
        let into = self.pointer(gpa, 8 * N)?.cast::<u64>();
        if !into.is_aligned() {
            return Err(MemoryError::Misaligned);
        }
        for (n, word) in words.into_iter().enumerate() {
            // SAFETY: `pointer` checked that `8 * N` bytes at `into` are in RAM, and it is aligned.
            unsafe { into.add(n).write_volatile(word) };
        }
        Ok(())
    }

    /// Copies bytes out. Nothing is copied unless all of the range is RAM.
    #[inline]
    pub fn read(&self, gpa: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        let from = self.pointer(gpa, into.len())?;
        // SAFETY: `pointer` checked that `into.len()` bytes at `from` are in RAM.
        unsafe { volatile_read(from.as_ptr(), into) };
        Ok(())
    }

    /// Copies bytes in. Nothing is copied unless all of the range is RAM.
    #[inline]
    pub fn write(&self, gpa: u64, from: &[u8]) -> Result<(), MemoryError> {
        #[cfg(any(test, feature = "fake"))]
        crate::fake::crash::store();
        let into = self.pointer(gpa, from.len())?;
        // SAFETY: `pointer` checked that `from.len()` bytes at `into` are in RAM; `from` is valid for reads of them.
        unsafe {
            if from.len() < LONG {
                volatile_write(into.as_ptr(), from);
            } else {
                copy(from.as_ptr(), into.as_ptr(), from.len());
            }
        }
        Ok(())
    }

    /// Sets `len` bytes to `byte`.
    pub fn fill(&self, gpa: u64, len: u64, byte: u8) -> Result<(), MemoryError> {
        #[cfg(any(test, feature = "fake"))]
        crate::fake::crash::store();
        let len = usize::try_from(len).map_err(|_| MemoryError::OutOfRam)?;
        let into = self.pointer(gpa, len)?.as_ptr();
        if byte == 0 && into.addr().is_multiple_of(LINE) && len.is_multiple_of(LINE) {
            // SAFETY: `pointer` checked that `len` bytes at `into` are in RAM; both are whole lines.
            unsafe { zero(into, len / LINE) };
            return Ok(());
        }
        let word = u64::from_ne_bytes([byte; 8]);
        let head = into.align_offset(8).min(len);
        let words = (len - head) / 8;
        // SAFETY: `pointer` checked that `len` bytes at `into` are in RAM; head + 8 * words <= len, and `into + head` is
        // aligned to 8 by the definition of `head` whenever words > 0.
        unsafe {
            for i in 0..head {
                into.add(i).write_volatile(byte);
            }
            let aligned = into.add(head).cast::<u64>();
            for i in 0..words {
                aligned.add(i).write_volatile(word);
            }
            for i in head + 8 * words..len {
                into.add(i).write_volatile(byte);
            }
        }
        Ok(())
    }

    /// Copies `len` bytes from here into another guest's RAM: once, without a place in between. Nothing is copied unless
    /// both ranges are RAM. What the guests do with either range meanwhile decides what arrives, and nothing else.
    #[inline]
    pub fn copy_to(&self, from: u64, to: &GuestRam, into: u64, len: u32) -> Result<(), MemoryError> {
        let from = self.pointer(from, len as usize)?;
        let into = to.pointer(into, len as usize)?;
        // SAFETY: `pointer` checked that `len` bytes at both are in RAM, which `new`'s caller promised to be valid for
        // reads and writes and free of references.
        unsafe { copy(from.as_ptr(), into.as_ptr(), len as usize) };
        Ok(())
    }

    /// As [`GuestRam::write`], made for long pieces that need not be congruent. This memory must be Normal memory.
    #[inline]
    pub fn write_block(&self, gpa: u64, from: &[u8]) -> Result<(), MemoryError> {
        #[cfg(any(test, feature = "fake"))]
        crate::fake::crash::store();
        let into = self.pointer(gpa, from.len())?;
        // SAFETY: `pointer` checked that `from.len()` bytes at `into` are in RAM, which `new`'s caller promised to be valid
        // for writes and free of references; so `from` is elsewhere.
        unsafe { copy(from.as_ptr(), into.as_ptr(), from.len()) };
        Ok(())
    }

    #[inline]
    fn aligned<T>(&self, gpa: u64) -> Result<NonNull<T>, MemoryError> {
        let pointer = self.pointer(gpa, size_of::<T>())?.cast::<T>();
        if pointer.is_aligned() { Ok(pointer) } else { Err(MemoryError::Misaligned) }
    }

    /// Atomic load of a little-endian half-word.
    #[inline]
    pub fn load_u16(&self, gpa: u64, order: Ordering) -> Result<u16, MemoryError> {
        let pointer = self.aligned::<u16>(gpa)?;
        // SAFETY: in RAM and aligned as just checked; everybody else's accesses are atomic or the hardware's.
        let value = unsafe { AtomicU16::from_ptr(pointer.as_ptr()) }.load(order);
        Ok(u16::from_le(value))
    }

    /// Atomic store of a little-endian half-word.
    #[inline]
    pub fn store_u16(&self, gpa: u64, value: u16, order: Ordering) -> Result<(), MemoryError> {
        #[cfg(any(test, feature = "fake"))]
        crate::fake::crash::store();
        let pointer = self.aligned::<u16>(gpa)?;
        // SAFETY: as in `load_u16`.
        unsafe { AtomicU16::from_ptr(pointer.as_ptr()) }.store(value.to_le(), order);
        Ok(())
    }

    /// Atomic load of a little-endian word.
    #[inline]
    pub fn load_u32(&self, gpa: u64, order: Ordering) -> Result<u32, MemoryError> {
        let pointer = self.aligned::<u32>(gpa)?;
        // SAFETY: as in `load_u16`.
        let value = unsafe { AtomicU32::from_ptr(pointer.as_ptr()) }.load(order);
        Ok(u32::from_le(value))
    }

    /// Atomic store of a little-endian word.
    #[inline]
    pub fn store_u32(&self, gpa: u64, value: u32, order: Ordering) -> Result<(), MemoryError> {
        #[cfg(any(test, feature = "fake"))]
        crate::fake::crash::store();
        let pointer = self.aligned::<u32>(gpa)?;
        // SAFETY: as in `load_u16`.
        unsafe { AtomicU32::from_ptr(pointer.as_ptr()) }.store(value.to_le(), order);
        Ok(())
    }
}

/// # Safety
///
/// `from` must be valid for reads of `into.len()` bytes.
#[inline]
unsafe fn volatile_read(from: *const u8, into: &mut [u8]) {
    let len = into.len();
    let into = into.as_mut_ptr();
    // Words where both sides can be aligned: the targets are strict about alignment.
    let congruent = (from.addr() ^ into.addr()).is_multiple_of(8);
    let head = if congruent { from.align_offset(8).min(len) } else { len };
    let words = (len - head) / 8;
    // SAFETY: all indices are below `len`; the word pointers are aligned because `from` and `into` agree modulo 8 and
    // `head` aligns `from`. `into` is exclusively borrowed by our caller.
    unsafe {
        for i in 0..head {
            into.add(i).write(from.add(i).read_volatile());
        }
        for i in 0..words {
            let word = from.add(head).cast::<u64>().add(i).read_volatile();
            into.add(head).cast::<u64>().add(i).write(word);
        }
        for i in head + 8 * words..len {
            into.add(i).write(from.add(i).read_volatile());
        }
    }
}

/// # Safety
///
/// `into` must be valid for writes of `from.len()` bytes.
#[inline]
unsafe fn volatile_write(into: *mut u8, from: &[u8]) {
    let len = from.len();
    let from = from.as_ptr();
    let congruent = (from.addr() ^ into.addr()).is_multiple_of(8);
    let head = if congruent { from.align_offset(8).min(len) } else { len };
    let words = (len - head) / 8;
    // SAFETY: as in `volatile_read` with the roles exchanged.
    unsafe {
        for i in 0..head {
            into.add(i).write_volatile(from.add(i).read());
        }
        for i in 0..words {
            let word = from.add(head).cast::<u64>().add(i).read();
            into.add(head).cast::<u64>().add(i).write_volatile(word);
        }
        for i in head + 8 * words..len {
            into.add(i).write_volatile(from.add(i).read());
        }
    }
}

/// What is worth the call of [`copy`].
const LONG: usize = 256;

/// Bytes that [`zero`] clears at once.
const LINE: usize = 64;

/// Clears whole lines: all of a guest's RAM, before each start but the first.
///
/// # Safety
///
/// `into` must be aligned to [`LINE`] and valid for writes of that many lines; there may be no reference to any of it.
#[cfg(not(all(target_arch = "aarch64", target_os = "none")))]
unsafe fn zero(into: *mut u8, lines: usize) {
    let words = into.cast::<u64>();
    for i in 0..lines * (LINE / 8) {
        // SAFETY: in the lines that the caller promised, and aligned as they are.
        unsafe { words.add(i).write_volatile(0) };
    }
}

/// The same by DC ZVA, one instruction for a line, where the processor has lines of this size and the kernel lets EL0 use
/// it (Arm ARM, DCZID_EL0, says both); else by pairs.
///
/// # Safety
///
/// As above, and it must be Normal memory.
#[cfg(all(target_arch = "aarch64", target_os = "none"))]
unsafe fn zero(into: *mut u8, lines: usize) {
    /// DCZID_EL0: not prohibited, blocks of 2^4 words.
    const ALLOWED_64: u64 = 4;
    let kind: u64;
    // SAFETY: EL0 may always read it.
    unsafe {
        core::arch::asm!("mrs {0}, dczid_el0", out(reg) kind, options(nomem, nostack, preserves_flags))
    };
    let (fours, rest) = (lines / 4, lines % 4);
    // SAFETY: the loops clear `4 * fours + rest` lines from `into` on, which the caller promised.
    unsafe {
        if kind & 0x1f == ALLOWED_64 {
            core::arch::asm!(
                "cbz {fours}, 3f",
                "2:",
                "add {b}, {a}, #64",
                "dc zva, {a}",
                "add {c}, {a}, #128",
                "dc zva, {b}",
                "add {d}, {a}, #192",
                "dc zva, {c}",
                "add {a}, {a}, #256",
                "dc zva, {d}",
                "subs {fours}, {fours}, #1",
                "b.ne 2b",
                "3:",
                "cbz {rest}, 5f",
                "4:",
                "dc zva, {a}",
                "add {a}, {a}, #64",
                "subs {rest}, {rest}, #1",
                "b.ne 4b",
                "5:",
                a = inout(reg) into => _, b = out(reg) _, c = out(reg) _, d = out(reg) _,
                fours = inout(reg) fours => _, rest = inout(reg) rest => _,
                options(nostack),
            );
        } else {
            core::arch::asm!(
                "cbz {lines}, 3f",
                "2:",
                "stp xzr, xzr, [{a}]",
                "stp xzr, xzr, [{a}, #16]",
                "stp xzr, xzr, [{a}, #32]",
                "stp xzr, xzr, [{a}, #48]",
                "add {a}, {a}, #64",
                "subs {lines}, {lines}, #1",
                "b.ne 2b",
                "3:",
                a = inout(reg) into => _,
                lines = inout(reg) lines => _,
                options(nostack),
            );
        }
    }
}

/// Copies memory that others may change meanwhile, upwards.
///
/// # Safety
///
/// `from` must be valid for reads and `into` for writes of `len` bytes; there may be no reference to `into`, and to `from`
/// none that is exclusive.
#[cfg(not(all(target_arch = "aarch64", target_os = "none")))]
unsafe fn copy(from: *const u8, into: *mut u8, len: usize) {
    let congruent = (from.addr() ^ into.addr()).is_multiple_of(8);
    let head = if congruent { from.align_offset(8).min(len) } else { len };
    let words = (len - head) / 8;
    // SAFETY: all indices are below `len`; the word pointers are aligned because `from` and `into` agree modulo 8 and
    // `head` aligns `from`.
    unsafe {
        for i in 0..head {
            into.add(i).write_volatile(from.add(i).read_volatile());
        }
        for i in 0..words {
            let word = from.add(head).cast::<u64>().add(i).read_volatile();
            into.add(head).cast::<u64>().add(i).write_volatile(word);
        }
        for i in head + 8 * words..len {
            into.add(i).write_volatile(from.add(i).read_volatile());
        }
    }
}

/// The same where it has to be fast. The compiler must not use unaligned accesses on this target (its memory may be
/// device memory); here it is known to be Normal memory, where the hardware does them (Arm ARM B2.5.2; seL4 leaves
/// SCTLR.A clear), and packets are rarely congruent: their payload lies 44 bytes behind a header.
///
/// # Safety
///
/// As above, and both must be Normal memory.
#[cfg(all(target_arch = "aarch64", target_os = "none"))]
unsafe fn copy(from: *const u8, into: *mut u8, len: usize) {
    // SAFETY: the three loops access exactly `len` bytes from both addresses on, which the caller promised. Assembly is
    // opaque to the compiler, so no assumption about the contents is made.
    unsafe {
        core::arch::asm!(
            "subs {len}, {len}, #64",
            "b.lo 3f",
            "2:",
            "ldp {a}, {b}, [{from}]",
            "ldp {c}, {d}, [{from}, #16]",
            "ldp {e}, {f}, [{from}, #32]",
            "ldp {g}, {h}, [{from}, #48]",
            "add {from}, {from}, #64",
            "stp {a}, {b}, [{into}]",
            "stp {c}, {d}, [{into}, #16]",
            "stp {e}, {f}, [{into}, #32]",
            "stp {g}, {h}, [{into}, #48]",
            "add {into}, {into}, #64",
            "subs {len}, {len}, #64",
            "b.hs 2b",
            "3:",
            "adds {len}, {len}, #56",
            "b.mi 5f",
            "4:",
            "ldr {a}, [{from}], #8",
            "str {a}, [{into}], #8",
            "subs {len}, {len}, #8",
            "b.pl 4b",
            "5:",
            "adds {len}, {len}, #8",
            "b.eq 7f",
            "6:",
            "ldrb {a:w}, [{from}], #1",
            "strb {a:w}, [{into}], #1",
            "subs {len}, {len}, #1",
            "b.ne 6b",
            "7:",
            from = inout(reg) from => _,
            into = inout(reg) into => _,
            len = inout(reg) len => _,
            a = out(reg) _, b = out(reg) _, c = out(reg) _, d = out(reg) _,
            e = out(reg) _, f = out(reg) _, g = out(reg) _, h = out(reg) _,
            options(nostack),
        );
    }
}

#[cfg(test)]
mod tests;
