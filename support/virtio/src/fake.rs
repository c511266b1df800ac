//! Guest memory and a driver's side of a split virtqueue, for tests. Written from section 2.7 as a driver reads it, and
//! sharing no code with [`crate::queue`].

use std::boxed::Box;
use std::vec::Vec;
use std::{ptr::NonNull, vec};

use core::sync::atomic::Ordering;

use crate::memory::GuestRam;

/// RAM on the host's heap. It is leaked, so that handles stay valid; see [`FakeRam::release`].
#[derive(Clone, Copy, Debug)]
pub struct FakeRam(GuestRam, NonNull<u64>);

impl FakeRam {
    /// `len` bytes (a multiple of 8), all 0, at IPA `ipa`, pretending to be at physical address `paddr`.
    pub fn new(ipa: u64, len: u64, paddr: u64) -> Self {
        assert!(len.is_multiple_of(8));
        let words: Box<[u64]> = vec![0u64; (len / 8) as usize].into_boxed_slice();
        let local = NonNull::from(Box::leak(words)).cast::<u64>();
        // SAFETY: leaked, `len` bytes long, and only reachable through handles.
        let ram = unsafe { GuestRam::new(ipa, local.cast(), len, paddr) };
        Self(ram.expect("a sensible range"), local)
    }

    /// Gives the memory back to the heap.
    ///
    /// # Safety
    ///
    /// It came from [`FakeRam::new`], and neither it nor any handle to it is used afterwards.
    pub unsafe fn release(self) {
        let words = core::ptr::slice_from_raw_parts_mut(self.1.as_ptr(), (self.0.size() / 8) as usize);
        // SAFETY: this is the box that `new` leaked, by the caller's promise, and there is no other reference.
        drop(unsafe { Box::from_raw(words) });
    }

    /// The device's handle.
    pub fn ram(&self) -> GuestRam {
        self.0
    }

    /// Copy of `len` bytes.
    pub fn bytes(&self, gpa: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.read(gpa, &mut bytes).expect("in RAM");
        bytes
    }
}

/// One buffer that the driver gives to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Guest-physical address.
    pub addr: u64,
    /// Bytes.
    pub len: u32,
    /// The device may write it.
    pub writable: bool,
}

impl Buffer {
    /// Device-readable.
    pub const fn out(addr: u64, len: u32) -> Self {
        Self { addr, len, writable: false }
    }
    /// Device-writable.
    pub const fn into(addr: u64, len: u32) -> Self {
        Self { addr, len, writable: true }
    }
}

/// A driver's split virtqueue.
#[derive(Debug)]
pub struct DriverQueue {
    ram: GuestRam,
    /// Where it is; give it to the device.
    pub layout: crate::queue::QueueLayout,
    event_idx: bool,
    free: Vec<u16>,
    /// Descriptors of each chain, by head.
    chains: Vec<Vec<u16>>,
    avail: u16,
    kicked_at: u16,
    used: u16,
}

impl DriverQueue {
    /// Bytes that a queue of `size` takes at `at` (aligned to 16).
    pub const fn bytes(size: u16) -> u64 {
        (16 * size as u64 + (6 + 2 * size as u64).next_multiple_of(4) + 6 + 8 * size as u64)
            .next_multiple_of(16)
    }

    /// Lays out an empty queue at `at`.
    pub fn new(ram: GuestRam, at: u64, size: u16, event_idx: bool) -> Self {
        let desc = at;
        let avail = desc + 16 * u64::from(size);
        let used = (avail + 6 + 2 * u64::from(size)).next_multiple_of(4);
        ram.fill(at, Self::bytes(size), 0).expect("in RAM");
        Self {
            ram,
            layout: crate::queue::QueueLayout { size, desc, avail, used },
            event_idx,
            free: (0..size).rev().collect(),
            chains: vec![Vec::new(); usize::from(size)],
            avail: 0,
            kicked_at: 0,
            used: 0,
        }
    }

    /// Sets both indices of an empty queue, as if `index` chains had passed already.
    pub fn start_at(&mut self, index: u16) {
        (self.avail, self.kicked_at, self.used) = (index, index, index);
        self.ram.store_u16(self.layout.avail + 2, index, Ordering::Release).expect("in RAM");
        self.ram.store_u16(self.layout.used + 2, index, Ordering::Release).expect("in RAM");
    }

    /// Free descriptors.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    fn write_descriptor(&self, table: u64, index: u16, buffer: &Buffer, flags: u16, next: u16) {
        let at = table + 16 * u64::from(index);
        let flags = flags | if buffer.writable { 2 } else { 0 };
        self.ram.write_obj(at, &buffer.addr.to_le()).expect("in RAM");
        self.ram.write_obj(at + 8, &buffer.len.to_le()).expect("in RAM");
        self.ram.write_obj(at + 12, &flags.to_le()).expect("in RAM");
        self.ram.write_obj(at + 14, &next.to_le()).expect("in RAM");
    }

    /// Makes a chain available. Its head, or `None` without room.
    pub fn add(&mut self, buffers: &[Buffer]) -> Option<u16> {
        if buffers.is_empty() || self.free.len() < buffers.len() {
            return None;
        }
        let chain: Vec<u16> = buffers.iter().filter_map(|_| self.free.pop()).collect();
        for (i, buffer) in buffers.iter().enumerate() {
            let next = chain.get(i + 1).copied();
            self.write_descriptor(
                self.layout.desc,
                chain[i],
                buffer,
                next.is_some().into(),
                next.unwrap_or(0),
            );
        }
        Some(self.offer(chain))
    }

    /// Makes a chain available through an indirect table that it writes to `table`.
    pub fn add_indirect(&mut self, table: u64, buffers: &[Buffer]) -> Option<u16> {
        let head = self.free.pop()?;
        for (i, buffer) in buffers.iter().enumerate() {
            let more = i + 1 < buffers.len();
            self.write_descriptor(table, i as u16, buffer, more.into(), i as u16 + 1);
        }
        let whole = Buffer { addr: table, len: 16 * buffers.len() as u32, writable: false };
        self.write_descriptor(self.layout.desc, head, &whole, 4, 0);
        Some(self.offer(vec![head]))
    }

    fn offer(&mut self, chain: Vec<u16>) -> u16 {
        let head = chain[0];
        self.chains[usize::from(head)] = chain;
        let at = self.layout.avail + 4 + 2 * u64::from(self.avail % self.layout.size);
        self.ram.store_u16(at, head, Ordering::Relaxed).expect("in RAM");
        self.avail = self.avail.wrapping_add(1);
        self.ram.store_u16(self.layout.avail + 2, self.avail, Ordering::Release).expect("in RAM");
        head
    }

    /// Does the device want to be told about what was added since the last call?
    pub fn needs_kick(&mut self) -> bool {
        core::sync::atomic::fence(Ordering::SeqCst);
        let (old, new) = (self.kicked_at, self.avail);
        self.kicked_at = new;
        if self.event_idx {
            let at = self.layout.used + 4 + 8 * u64::from(self.layout.size);
            let event = self.ram.load_u16(at, Ordering::Relaxed).expect("in RAM");
            // 2.7.10, read literally: one of the entries added was the one that the device named.
            (0..new.wrapping_sub(old)).any(|i| old.wrapping_add(i) == event)
        } else {
            self.ram.load_u16(self.layout.used, Ordering::Relaxed).expect("in RAM") & 1 == 0
        }
    }

    /// Takes a used element: head and bytes written.
    pub fn take_used(&mut self) -> Option<(u16, u32)> {
        let index = self.ram.load_u16(self.layout.used + 2, Ordering::Acquire).expect("in RAM");
        if index == self.used {
            return None;
        }
        let at = self.layout.used + 4 + 8 * u64::from(self.used % self.layout.size);
        let head = self.ram.load_u32(at, Ordering::Relaxed).expect("in RAM");
        let written = self.ram.load_u32(at + 4, Ordering::Relaxed).expect("in RAM");
        self.used = self.used.wrapping_add(1);
        let head = u16::try_from(head).expect("a head");
        let chain = core::mem::take(&mut self.chains[usize::from(head)]);
        assert!(!chain.is_empty(), "used a chain that was not available: {head}");
        self.free.extend(chain);
        Some((head, written))
    }

    /// Wishes for interrupts: on for the next used element, or off.
    pub fn want_interrupt(&mut self, on: bool) {
        if self.event_idx {
            let at = self.layout.avail + 4 + 2 * u64::from(self.layout.size);
            let event = if on { self.used } else { self.used.wrapping_sub(1) };
            self.ram.store_u16(at, event, Ordering::Relaxed).expect("in RAM");
        } else {
            self.ram.store_u16(self.layout.avail, (!on).into(), Ordering::Relaxed).expect("in RAM");
        }
        core::sync::atomic::fence(Ordering::SeqCst);
    }

    /// Overwrites avail.idx, as a broken driver might.
    pub fn corrupt_avail_index(&mut self, index: u16) {
        self.ram.store_u16(self.layout.avail + 2, index, Ordering::Release).expect("in RAM");
    }
}

/// Death between two stores.
///
/// A test that wants to know what survives runs its subject in [`crash::run`] with a number of stores after which it dies.
/// Everything that writes shared memory says so by [`crash::store`]; on target there is no such call.
pub mod crash {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    thread_local! {
        static LEFT: Cell<Option<u64>> = const { Cell::new(None) };
        static STORES: Cell<u64> = const { Cell::new(0) };
    }

    struct Death;

    /// The subject is about to store where others can see it.
    pub fn store() {
        match LEFT.get() {
            None => {}
            Some(0) => {
                LEFT.set(None);
                // No panic, so no message; and a drop on the way may store without dying again.
                resume_unwind(std::boxed::Box::new(Death));
            }
            Some(left) => {
                LEFT.set(Some(left - 1));
                STORES.set(STORES.get() + 1);
            }
        }
    }

    /// Runs `subject` until it is over, or about to do its store number `left` (from 0), of which the rest is left there.
    /// `None`: it died.
    pub fn run<R>(left: &mut Option<u64>, subject: impl FnOnce() -> R) -> Option<R> {
        LEFT.set(*left);
        let result = catch_unwind(AssertUnwindSafe(subject));
        let died = left.is_some() && LEFT.get().is_none();
        *left = LEFT.take();
        match result {
            Ok(result) => Some(result),
            Err(payload) if died && payload.is::<Death>() => None,
            Err(payload) => resume_unwind(payload),
        }
    }

    /// Stores that were counted so far on this thread.
    pub fn stores() -> u64 {
        STORES.get()
    }
}
