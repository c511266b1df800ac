use super::*;
use crate::fake::FakeRam;

const BASE: u64 = 0x4000_0000;

#[test]
fn bounds() {
    let ram = FakeRam::new(BASE, 0x1000, 0x8000_0000).ram();
    assert_eq!(ram.translate(BASE, 0x1000), Some(0x8000_0000));
    assert_eq!(ram.translate(BASE + 0xfff, 1), Some(0x8000_0fff));
    assert_eq!(ram.translate(BASE + 0x1000, 0), Some(0x8000_1000));
    assert_eq!(ram.translate(BASE + 0x1000, 1), None);
    assert_eq!(ram.translate(BASE + 1, 0x1000), None);
    assert_eq!(ram.translate(BASE - 1, 1), None);
    assert_eq!(ram.translate(BASE, u64::MAX), None);
    assert_eq!(ram.translate(u64::MAX, 2), None);
    assert_eq!(ram.read_obj::<u64>(BASE + 0xff9), Err(MemoryError::OutOfRam));
    assert_eq!(ram.load_u16(BASE + 1, Ordering::Relaxed), Err(MemoryError::Misaligned));
}

#[test]
fn words_are_bytes_in_machine_order() {
    let ram = FakeRam::new(BASE, 0x40, 0).ram();
    ram.write_words(BASE + 8, [1, u64::MAX - 1]).unwrap();
    assert_eq!(ram.read_obj::<[u64; 4]>(BASE), Ok([0, 1, u64::MAX - 1, 0]));
    assert_eq!(ram.read_words(BASE + 8), Ok([1, u64::MAX - 1]));
    assert_eq!(ram.read_words::<1>(BASE + 4), Err(MemoryError::Misaligned));
    assert_eq!(ram.write_words(BASE + 4, [0]), Err(MemoryError::Misaligned));
    assert_eq!(ram.read_words::<2>(BASE + 0x38), Err(MemoryError::OutOfRam));
    assert_eq!(ram.write_words(BASE + 0x38, [0, 0]), Err(MemoryError::OutOfRam));
}

#[test]
fn refuses_nonsense_ranges() {
    let local = NonNull::<u64>::dangling().cast();
    // SAFETY: every one of them must be refused, so that no memory is ever accessed.
    unsafe {
        assert!(GuestRam::new(0, local, 0, 0).is_none());
        assert!(GuestRam::new(u64::MAX - 7, local, 16, 0).is_none());
        assert!(GuestRam::new(0, local, 16, u64::MAX - 7).is_none());
        assert!(GuestRam::new(4, local, 16, 0).is_none());
        assert!(GuestRam::new(0, local, u64::MAX, 0).is_none());
    }
}

#[test]
fn copies_at_every_alignment() {
    let ram = FakeRam::new(BASE, 0x100, 0).ram();
    let source: Vec<u8> = (0..80u8).collect();
    // Miri is slow, and every class of alignment is in a few of them.
    let step = if cfg!(miri) { 5 } else { 1 };
    for at in (0..16).step_by(step) {
        for skew in (0..9).step_by(step) {
            for len in (0..40usize).step_by(step) {
                for write in [GuestRam::write, GuestRam::write_block] {
                    ram.fill(BASE, 0x100, 0xee).unwrap();
                    write(&ram, BASE + at, &source[skew..skew + len]).unwrap();
                    let mut back = [0u8; 64];
                    ram.read(BASE + at, &mut back[skew..skew + len]).unwrap();
                    assert_eq!(back[skew..skew + len], source[skew..skew + len]);
                    let mut all = [0u8; 0x100];
                    ram.read(BASE, &mut all).unwrap();
                    let inside = at as usize..at as usize + len;
                    assert!(all.iter().enumerate().all(|(i, b)| inside.contains(&i) || *b == 0xee));
                }
            }
        }
    }
}

#[test]
fn copies_between_guests_at_every_alignment() {
    let (a, b) = (FakeRam::new(BASE, 0x200, 0).ram(), FakeRam::new(0x8000_0000, 0x200, 0).ram());
    let source: Vec<u8> = (0..=255u8).chain(0..=255).collect();
    a.write(BASE, &source).unwrap();
    let step = if cfg!(miri) { 5 } else { 1 };
    for from in (0..9).step_by(step) {
        for into in (0..9).step_by(step) {
            for len in [0u32, 1, 7, 8, 9, 63, 64, 65, 127, 128, 200].into_iter().step_by(step) {
                b.fill(0x8000_0000, 0x200, 0xee).unwrap();
                a.copy_to(BASE + from, &b, 0x8000_0000 + into, len).unwrap();
                let mut all = [0u8; 0x200];
                b.read(0x8000_0000, &mut all).unwrap();
                let (start, end) = (into as usize, into as usize + len as usize);
                assert_eq!(all[start..end], source[from as usize..from as usize + len as usize]);
                assert!(all[..start].iter().chain(&all[end..]).all(|byte| *byte == 0xee));
            }
        }
    }
    assert_eq!(a.copy_to(BASE, &b, 0x8000_0000, 0x201), Err(MemoryError::OutOfRam));
    assert_eq!(a.copy_to(BASE, &b, 0x8000_0001, 0x200), Err(MemoryError::OutOfRam));
    assert_eq!(a.write_block(BASE + 1, &source[..0x200]), Err(MemoryError::OutOfRam));
}

#[test]
fn clears_whole_lines_exactly() {
    let fake = FakeRam::new(BASE, 0x1000, 0);
    let ram = fake.ram();
    for (at, len) in [(0, 0), (64, 64), (128, 320), (0, 0x1000), (1, 63), (64, 100)] {
        ram.fill(BASE, 0x1000, 0xee).unwrap();
        ram.fill(BASE + at, len, 0).unwrap();
        let bytes = fake.bytes(BASE, 0x1000);
        let cleared = (at as usize)..(at + len) as usize;
        for (n, byte) in bytes.iter().enumerate() {
            assert_eq!(*byte, if cleared.contains(&n) { 0 } else { 0xee }, "{n} of {at}+{len}");
        }
    }
    assert_eq!(ram.fill(BASE + 64, 0x1000, 0), Err(MemoryError::OutOfRam));
}

#[test]
fn fills_exactly() {
    let ram = FakeRam::new(BASE, 0x100, 0).ram();
    for at in 0..10 {
        for len in (0..30).chain(60..80).chain(190..0x100 - 9) {
            ram.fill(BASE, 0x100, 1).unwrap();
            ram.fill(BASE + at, len, 7).unwrap();
            let mut all = [0u8; 0x100];
            ram.read(BASE, &mut all).unwrap();
            let inside = at..at + len;
            assert!(all.iter().zip(0u64..).all(|(b, i)| *b == if inside.contains(&i) { 7 } else { 1 }));
        }
    }
}

#[test]
fn atomics_are_little_endian() {
    let ram = FakeRam::new(BASE, 0x100, 0).ram();
    ram.store_u16(BASE + 2, 0x1234, Ordering::Release).unwrap();
    assert_eq!(ram.read_obj::<[u8; 4]>(BASE), Ok([0, 0, 0x34, 0x12]));
    ram.store_u32(BASE + 4, 0x89ab_cdef, Ordering::Release).unwrap();
    assert_eq!(ram.load_u32(BASE + 4, Ordering::Acquire), Ok(0x89ab_cdef));
    assert_eq!(ram.load_u16(BASE + 6, Ordering::Acquire), Ok(0x89ab));
}
