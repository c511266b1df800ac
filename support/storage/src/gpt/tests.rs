use super::*;
use proptest::prelude::*;

/// A disk image of 512-byte blocks.
#[derive(Clone)]
pub(crate) struct Image(pub Vec<u8>);

impl Image {
    pub(crate) fn blank(sectors: usize) -> Self {
        Image(vec![0; sectors * 512])
    }

    /// 2048 sectors, 128 entries; `parts` are name, first, last.
    fn gpt(parts: &[(&str, u64, u64)]) -> Self {
        let mut image = Self::blank(2048);
        let mut entries = vec![0u8; 128 * 128];
        for (i, (name, first, last)) in parts.iter().enumerate() {
            let entry = &mut entries[128 * i..][..128];
            entry[..16].fill(0x11);
            entry[32..40].copy_from_slice(&first.to_le_bytes());
            entry[40..48].copy_from_slice(&last.to_le_bytes());
            for (j, unit) in name.encode_utf16().enumerate() {
                entry[56 + 2 * j..][..2].copy_from_slice(&unit.to_le_bytes());
            }
        }
        for (lba, at) in [(1u64, 2u64), (2047, 2015)] {
            image.0[at as usize * 512..][..entries.len()].copy_from_slice(&entries);
            image.header(lba, at, &entries);
        }
        image
    }

    fn header(&mut self, lba: u64, entries_lba: u64, entries: &[u8]) {
        let mut header = Header::new_zeroed();
        header.signature = *b"EFI PART";
        header.revision = U32::new(0x10000);
        header.header_size = U32::new(92);
        header.my_lba = U64::new(lba);
        header.alternate_lba = U64::new(2048 - lba);
        header.first_usable = U64::new(34);
        header.last_usable = U64::new(2014);
        header.entries_lba = U64::new(entries_lba);
        header.entries = U32::new(128);
        header.entry_size = U32::new(128);
        header.entries_crc = U32::new(crc(entries));
        header.header_crc = U32::new(crc(header.as_bytes()));
        self.0[lba as usize * 512..][..92].copy_from_slice(header.as_bytes());
    }
}

impl ReadSectors for Image {
    fn read(&mut self, sector: u64, into: &mut [u8]) -> Result<(), TableError> {
        into.copy_from_slice(&self.0[sector as usize * 512..][..into.len()]);
        Ok(())
    }
    fn sectors(&self) -> u64 {
        self.0.len() as u64 / 512
    }
    fn block_size(&self) -> u32 {
        512
    }
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.add(bytes);
    crc.value()
}

#[test]
fn crc_check_value() {
    assert_eq!(crc(b"123456789"), 0xcbf4_3926);
}

fn at(image: &mut Image, wanted: Wanted<'_>) -> Result<(u64, u64), TableError> {
    find(image, wanted).map(|window| (window.first(), window.count()))
}

const PARTS: [(&str, u64, u64); 4] =
    [("debian1", 40, 99), ("neighbour", 100, 199), ("twin", 200, 200), ("twin", 300, 300)];

#[test]
fn by_label_and_number() {
    let mut image = Image::gpt(&PARTS);
    assert_eq!(at(&mut image, Wanted::Label("debian1")), Ok((40, 60)));
    assert_eq!(at(&mut image, Wanted::Label("neighbour")), Ok((100, 100)));
    assert_eq!(at(&mut image, Wanted::Number(3)), Ok((200, 1)));
    assert_eq!(at(&mut image, Wanted::Label("twin")), Err(TableError::Ambiguous));
    assert_eq!(at(&mut image, Wanted::Label("debian")), Err(TableError::NotFound));
    assert_eq!(at(&mut image, Wanted::Label("")), Err(TableError::NotFound));
    assert_eq!(at(&mut image, Wanted::Number(5)), Err(TableError::NotFound));
    assert_eq!(at(&mut image, Wanted::Number(0)), Err(TableError::NotFound));
    let long = "x".repeat(36);
    assert_eq!(at(&mut Image::gpt(&[(&long, 40, 40)]), Wanted::Label(&long)), Ok((40, 1)));
}

#[test]
fn backup_if_the_primary_is_broken() {
    for broken in [512, 512 + 24, 512 + 80, 2 * 512 + 56] {
        let mut image = Image::gpt(&PARTS);
        image.0[broken] ^= 1;
        assert_eq!(at(&mut image, Wanted::Label("debian1")), Ok((40, 60)), "byte {broken}");
        image.0[2047 * 512 + 8] ^= 1;
        assert_eq!(at(&mut image, Wanted::Label("debian1")), Err(TableError::NoTable), "byte {broken}");
    }
}

#[test]
fn partitions_outside() {
    for (first, last) in [(33, 50), (50, 2015), (60, 59), (u64::MAX, u64::MAX), (40, u64::MAX)] {
        let mut image = Image::gpt(&[("x", first, last)]);
        assert_eq!(at(&mut image, Wanted::Number(1)), Err(TableError::Range), "{first}..{last}");
    }
}

#[test]
fn tiny_devices() {
    for sectors in 0..4 {
        assert_eq!(at(&mut Image::blank(sectors), Wanted::Number(1)), Err(TableError::NoTable));
    }
}

proptest! {
    /// Nonsense behind a valid checksum is still checked.
    #[test]
    fn any_header(
        size in prop_oneof![Just(92u32), any::<u32>()],
        entries_lba in prop_oneof![0u64..70, any::<u64>()],
        entries in prop_oneof![0u32..2000, any::<u32>()],
        entry_size in prop_oneof![Just(128u32), Just(4096), any::<u32>()],
        usable: (u64, u64),
        number in 1u32..6,
        noise in prop::collection::vec(any::<u8>(), 1024),
    ) {
        let mut image = Image::blank(64);
        image.0[1024..2048].copy_from_slice(&noise);
        let mut header = Header::new_zeroed();
        header.signature = *b"EFI PART";
        header.revision = U32::new(0x10000);
        header.header_size = U32::new(size);
        header.my_lba = U64::new(1);
        header.first_usable = U64::new(usable.0);
        header.last_usable = U64::new(usable.1);
        header.entries_lba = U64::new(entries_lba);
        header.entries = U32::new(entries);
        header.entry_size = U32::new(entry_size);
        let total = u64::from(entries) * u64::from(entry_size);
        if let Some(bytes) = entries_lba.checked_mul(512).and_then(|at| {
            let at = usize::try_from(at).ok()?;
            image.0.get(at..)?.get(..usize::try_from(total).ok()?)
        }) {
            header.entries_crc = U32::new(crc(bytes));
        }
        image.0[512..512 + 92].copy_from_slice(header.as_bytes());
        if let Some(summed) = image.0[512..1024].get(..size as usize) {
            let sum = crc(summed);
            image.0[512 + 16..512 + 20].copy_from_slice(&sum.to_le_bytes());
        }
        if let Ok(window) = find(&mut image, Wanted::Number(number)) {
            prop_assert!(window.count() > 0 && window.first() + window.count() <= 64);
        }
    }
}
