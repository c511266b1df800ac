//! The image and its boot description: everything lies where the tables say, and nothing lies on anything else.

mod common;

use std::ops::Range;

use common::packed;
use partita_kernel::image::{Fill, Header, MAGIC, Mapping, Slot, Table, Tcb, VERSION, cap, mapping, tcb};
use partita_microkit::memory::{self, Free};
use partita_microkit::pack::Packed;
use partita_microkit::sdf::model::Paddr;
use partita_microkit::spec::{Contents, Memory};
use proptest::prelude::*;
use zerocopy::FromBytes;

fn header(packed: &Packed) -> (Header, usize) {
    let pointer = u64::from_le_bytes(packed.image[0x800..0x808].try_into().unwrap());
    let at = (pointer - packed.base) as usize;
    (Header::read_from_bytes(&packed.image[at..at + size_of::<Header>()]).unwrap(), at)
}

fn table<T: FromBytes>(packed: &Packed, at: usize, table: Table) -> Vec<T> {
    let size = size_of::<T>();
    let start = at + table.offset as usize;
    (0..table.count as usize)
        .map(|i| T::read_from_bytes(&packed.image[start + i * size..start + (i + 1) * size]).unwrap())
        .collect()
}

/// Checks what must hold for every image.
fn check(packed: &Packed) {
    let (header, at) = header(packed);
    assert_eq!((header.magic, header.version), (MAGIC, VERSION));
    assert_eq!(header.size as usize, size_of::<Header>());
    assert_eq!((header.image_paddr, header.image_size), (packed.base, packed.image.len() as u64));
    assert_eq!(at % 4096, 0);
    // The bss of the test kernel ends at 0x3800: nothing lies in it.
    assert_eq!(at, 0x4000);
    assert!(packed.image[0x1800..0x3800].iter().all(|byte| *byte == 0));

    // Memories: aligned, whole, apart from each other, the pool and (unless in place) the image.
    let image = packed.base..packed.base + packed.image.len() as u64;
    let mut taken: Vec<(Range<u64>, &str)> = vec![(packed.pool.clone(), "pool")];
    for (memory, pieces) in packed.spec.memories.iter().zip(&packed.pieces) {
        assert_eq!(pieces.iter().map(|piece| piece.size).sum::<u64>(), memory.size, "{}", memory.name);
        let mut offset = 0;
        for piece in pieces {
            assert_eq!(piece.offset, offset);
            offset += piece.size;
            assert_eq!(piece.paddr % memory.page_size, 0, "{}", memory.name);
            let range = piece.paddr..piece.paddr + piece.size;
            let inside = image.start <= range.start && range.end <= image.end;
            assert_eq!(inside, memory::in_place(memory), "{}", memory.name);
            assert!(inside || range.end <= image.start || image.end <= range.start, "{}", memory.name);
            taken.push((range, &memory.name));
        }
        if memory.paddr != Paddr::Any && memory.size > 0 {
            assert_eq!(pieces.len(), 1, "{} is contiguous", memory.name);
        }
    }
    taken.sort_by_key(|(range, _)| range.start);
    for pair in taken.windows(2) {
        assert!(pair[0].0.end <= pair[1].0.start, "{:?} overlaps {:?}", pair[0], pair[1]);
    }
    assert!(packed.pool.end - packed.pool.start >= packed.pool_needed);
    assert_eq!(packed.pool.start % 4096, 0);

    let mappings: Vec<Mapping> = table(packed, at, header.mappings);
    for map in &mappings {
        let align = if map.flags & mapping::LARGE != 0 { 0x20_0000 } else { 0x1000 };
        assert_eq!((map.vaddr | map.paddr | map.size) % align, 0);
        assert!(map.vspace < header.vspaces && map.size > 0);
    }
    let fills: Vec<Fill> = table(packed, at, header.fills);
    for fill in &fills {
        assert!(fill.copy_size <= fill.size);
        assert!(fill.copy_size == 0 || image.contains(&fill.source));
        assert!(fill.paddr + fill.size <= image.start || image.end <= fill.paddr);
    }
    let tcbs: Vec<Tcb> = table(packed, at, header.tcbs);
    for thread in &tcbs {
        assert!(thread.vspace < header.vspaces && thread.cspace < header.cnodes.count);
        assert!(thread.sched_context < header.sched_contexts.count);
        assert_eq!(thread.ipc_buffer_paddr % 4096, 0);
    }
    assert_eq!(tcbs[0].flags & tcb::RESUME, tcb::RESUME);
    let counts = |kind: u32| match kind {
        cap::ENDPOINT => header.endpoints,
        cap::NOTIFICATION => header.notifications,
        cap::REPLY => header.replies,
        cap::TCB => header.tcbs.count,
        cap::CNODE => header.cnodes.count,
        cap::VSPACE => header.vspaces,
        cap::SCHED_CONTEXT => header.sched_contexts.count,
        cap::IRQ => header.irqs.count,
        cap::VCPU => header.vcpus.count,
        cap::SMC => 1,
        other => panic!("capability kind {other}"),
    };
    for slot in table::<Slot>(packed, at, header.slots) {
        assert!(slot.object < counts(slot.kind));
        assert!(slot.cnode < header.cnodes.count);
    }
}

#[test]
fn prefilled_regions_stay_in_the_image_or_are_copied_to_their_address() {
    let regions = "<memory_region name=\"here\" prefill_path=\"five\"/>\n\
                   <memory_region name=\"there\" prefill_path=\"five\" phys_addr=\"0x61000000\"/>\n\
                   <memory_region name=\"device\" prefill_path=\"five\" phys_addr=\"0x41000000\"/>\n\
                   <memory_region name=\"large\" prefill_path=\"large\" size=\"0x400000\" page_size=\"0x200000\"/>";
    let maps = "<map mr=\"here\" vaddr=\"0x1000000\"/><map mr=\"there\" vaddr=\"0x1002000\"/>\
                <map mr=\"device\" vaddr=\"0x1004000\"/><map mr=\"large\" vaddr=\"0x2000000\"/>";
    let (_, packed) = packed(&common::with(maps, regions)).unwrap();
    check(&packed);
    let file: Vec<u8> = (0..5000).map(|i| i as u8).collect();
    let at = |name: &str| {
        let id = packed.spec.memories.iter().position(|memory| memory.name == format!("mr_{name}")).unwrap();
        packed.pieces[id][0].paddr
    };
    let bytes = |paddr: u64, size: usize| {
        let start = (paddr - packed.base) as usize;
        &packed.image[start..start + size]
    };
    assert_eq!(bytes(at("here"), 5000), file);
    assert!(bytes(at("here") + 5000, 0x2000 - 5000).iter().all(|byte| *byte == 0));
    assert!(bytes(at("large"), 3 << 20).iter().all(|byte| *byte == 0x5a));
    assert_eq!(at("large") % 0x20_0000, 0);

    let (header, start) = header(&packed);
    let fills: Vec<Fill> = table(&packed, start, header.fills);
    let there = fills.iter().find(|fill| fill.paddr == 0x6100_0000).unwrap();
    assert_eq!((there.size, there.copy_size), (0x2000, 5000));
    assert_eq!(bytes(there.source, 5000), file);
    // What surrounds the contents in device memory is left alone.
    let device = fills.iter().find(|fill| fill.paddr == 0x4100_0000).unwrap();
    assert_eq!((device.size, device.copy_size), (5000, 5000));
}

#[test]
fn device_registers_are_never_written() {
    let region = "<memory_region name=\"uart\" size=\"0x1000\" phys_addr=\"0x9000000\"/>";
    let (_, packed) =
        packed(&common::with("<map mr=\"uart\" vaddr=\"0x2000000\" cached=\"false\"/>", region)).unwrap();
    let (header, at) = header(&packed);
    assert!(table::<Fill>(&packed, at, header.fills).iter().all(|fill| fill.paddr >= 0x6000_0000));
    let maps: Vec<Mapping> = table(&packed, at, header.mappings);
    let uart = maps.iter().find(|map| map.paddr == 0x900_0000).unwrap();
    assert_eq!(uart.flags, mapping::READ | mapping::WRITE);
}

#[test]
fn what_does_not_fit_is_refused_with_a_reason() {
    let pack = |attributes: &str| {
        let region = format!("<memory_region name=\"m\" {attributes}/>");
        packed(&common::with("<map mr=\"m\" vaddr=\"0x80000000\"/>", &region)).map(|_| ())
    };
    let error = pack("size=\"0x1000\" phys_addr=\"0x70000000\"").unwrap_err();
    assert!(error.contains("'mr_m' at 0x70000000..0x70001000 overlaps the image"), "{error}");
    let error = pack("size=\"0x60000000\"").unwrap_err();
    assert!(error.contains("there is no memory for 'mr_m' (0x60000000 bytes)"), "{error}");
    let text = common::with(
        "<map mr=\"m\" vaddr=\"0x80000000\"/><setvar symbol=\"var_a\" region_paddr=\"m\"/>",
        "<memory_region name=\"m\" size=\"0x58000000\"/>",
    );
    let error = packed(&text).unwrap_err();
    assert!(error.contains("there is no contiguous memory for 'mr_m'"), "{error}");
    // Without the wish for one address it is put together from both sides of the image.
    assert_eq!(pack("size=\"0x58000000\""), Ok(()));
}

#[test]
fn the_kernel_file_is_checked() {
    use partita_microkit::elf::Elf;
    use partita_microkit::pack::pack;
    use partita_microkit::sdk::Board;
    let system = common::parse(&common::with("", "")).unwrap();
    let try_kernel = |bytes: Vec<u8>| {
        let elfs = vec![Elf::parse(&common::pd(), None).unwrap(); 2];
        pack(&system, elfs, &Elf::parse(&bytes, None).unwrap(), &Board::qemu_virt()).map(|_| ()).unwrap_err()
    };
    let segment = || [common::Segment(0x7000_0000, vec![0; 16], 0x1000, 7)];
    let symbol = |size| [("partita_boot_description", 0x7000_0100, size)];
    assert!(try_kernel(common::pd()).contains("not the embedded SDK's"));
    assert!(try_kernel(common::elf(183, 0x7000_0004, &segment(), &symbol(8))).contains("not its first byte"));
    assert!(
        try_kernel(common::elf(183, 0x7000_0000, &segment(), &symbol(4)))
            .contains("not a variable of 8 bytes")
    );
    let far = [common::Segment(0x2000_0000, vec![0; 16], 0x1000, 7)];
    let far = common::elf(183, 0x2000_0000, &far, &[("partita_boot_description", 0x2000_0100, 8)]);
    assert!(try_kernel(far).contains("exceeds the board's memory"));
}

#[test]
fn the_elf_image_is_one_segment_entered_at_its_start() {
    let (_, packed) = packed(&common::with("", "")).unwrap();
    let wrapped = partita_microkit::elf_image::wrap(packed.base, &packed.image);
    use object::read::elf::{FileHeader, ProgramHeader};
    let header = object::elf::FileHeader64::<object::Endianness>::parse(&*wrapped).unwrap();
    let endian = header.endian().unwrap();
    let segments = header.program_headers(endian, &*wrapped).unwrap();
    assert_eq!(header.e_entry(endian), 0x7000_0000);
    assert_eq!(segments.len(), 1);
    assert_eq!(segments[0].p_paddr(endian), 0x7000_0000);
    assert_eq!(segments[0].data(endian, &*wrapped).unwrap(), packed.image);
}

/// A region: pages, large pages, kind of address, contents.
#[derive(Clone, Debug)]
struct Region(u64, bool, u8, bool);

fn region() -> impl Strategy<Value = Region> {
    (1..40_u64, any::<bool>(), 0..3_u8, any::<bool>())
        .prop_map(|(pages, large, kind, prefill)| Region(pages, large, kind, prefill))
}

fn system(regions: &[Region], pds: usize) -> String {
    let mut outer = String::new();
    let mut inner = String::new();
    let (mut vaddr, mut fixed) = (0x1000_0000_u64, 0x6200_0000_u64);
    let mut chosen = ["var_a", "var_b", "var_c"].iter();
    for (number, Region(pages, large, kind, prefill)) in regions.iter().enumerate() {
        let page: u64 = if *large { 0x20_0000 } else { 0x1000 };
        outer.push_str(&format!("<memory_region name=\"r{number}\" page_size=\"{page:#x}\" "));
        let mut size = pages * page;
        if *prefill {
            size = 5000_u64.next_multiple_of(page);
            outer.push_str("prefill_path=\"five\" ");
        } else {
            outer.push_str(&format!("size=\"{size:#x}\" "));
        }
        if *kind == 1 {
            outer.push_str(&format!("phys_addr=\"{fixed:#x}\" "));
            fixed = (fixed + size).next_multiple_of(0x20_0000);
        }
        outer.push_str("/>\n");
        if let (2, Some(symbol)) = (*kind, chosen.next()) {
            inner.push_str(&format!("<setvar symbol=\"{symbol}\" region_paddr=\"r{number}\"/>"));
        }
        inner.push_str(&format!("<map mr=\"r{number}\" vaddr=\"{vaddr:#x}\"/>"));
        vaddr = (vaddr + size).next_multiple_of(0x20_0000);
    }
    for number in 0..pds {
        outer.push_str(&format!(
            "<protection_domain name=\"q{number}\" passive=\"{}\"><program_image path=\"pd.elf\"/></protection_domain>\n\
             <channel><end pd=\"p\" id=\"{number}\"/><end pd=\"q{number}\" id=\"0\" pp=\"true\"/></channel>\n",
            number % 2 == 0
        ));
    }
    common::with(&inner, &outer)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn nothing_overlaps_everything_is_aligned(regions in prop::collection::vec(region(), 0..6), pds in 0..8_usize) {
        let (_, packed) = packed(&system(&regions, pds)).unwrap();
        check(&packed);
    }

    #[test]
    fn the_same_input_gives_the_same_bytes(regions in prop::collection::vec(region(), 0..4), pds in 0..4_usize) {
        let text = system(&regions, pds);
        let (_, first) = packed(&text).unwrap();
        let (_, second) = packed(&text).unwrap();
        prop_assert!(first.image == second.image);
        prop_assert_eq!(format!("{:?}", first.pieces), format!("{:?}", second.pieces));
    }

    #[test]
    fn free_memory_is_what_was_given_less_what_was_taken(
        taken in prop::collection::vec((0..200_u64, 1..50_u64), 0..20),
        wanted in prop::collection::vec((1..40_u64, 0..4_u32), 0..20),
    ) {
        let ranges = [0..100_u64, 120..200];
        let mut free = Free::new(&ranges);
        let mut used = [false; 300];
        for (start, size) in taken {
            free.remove(&(start..start + size));
            used[start as usize..(start + size) as usize].fill(true);
        }
        for (size, align) in wanted {
            if let Some(start) = free.allocate(size, 1 << align) {
                prop_assert_eq!(start % (1 << align), 0);
                let range = start..start + size;
                prop_assert!(ranges.iter().any(|whole| whole.start <= range.start && range.end <= whole.end));
                let cells = &mut used[start as usize..(start + size) as usize];
                prop_assert!(cells.iter().all(|cell| !cell));
                cells.fill(true);
            }
        }
        for cell in 0..300_u64 {
            let is_free = free.ranges().iter().any(|range| range.contains(&cell));
            let expected = ranges.iter().any(|range| range.contains(&cell)) && !used[cell as usize];
            prop_assert_eq!(is_free, expected, "{}", cell);
        }
    }

    #[test]
    fn scattered_memory_is_whole_and_apart(
        holes in prop::collection::vec((0x6_0000_u64..0x6_1000, 1..64_u64), 0..12),
        sizes in prop::collection::vec((1..200_u64, any::<bool>()), 1..6),
    ) {
        let page = 0x1000;
        let memory = |name: String, size: u64, paddr| Memory {
            name, first: None, size, page_size: page, paddr, contents: Contents::Zero,
        };
        let ram = [Range { start: 0x6000_0000, end: 0x6100_0000 }];
        let image = 0x6080_0000..0x6081_0000;
        let mut memories = Vec::new();
        let mut last = 0;
        let mut holes = holes;
        holes.sort();
        for (start, pages) in holes {
            let (start, end) = (start * page, (start + pages) * page);
            if start < last || (start < image.end && image.start < end) {
                continue;
            }
            last = end;
            memories.push(memory(format!("h{start}"), end - start, Paddr::Fixed(start)));
        }
        for (number, (pages, chosen)) in sizes.iter().enumerate() {
            let paddr = if *chosen { Paddr::Chosen } else { Paddr::Any };
            memories.push(memory(format!("m{number}"), pages * page, paddr));
        }
        let Ok((pieces, free)) = memory::place(&memories, &[], &image, &ram) else { return Ok(()) };
        let mut all: Vec<Range<u64>> = free.ranges().to_vec();
        all.push(image);
        for (memory, pieces) in memories.iter().zip(&pieces) {
            prop_assert_eq!(pieces.iter().map(|piece| piece.size).sum::<u64>(), memory.size);
            prop_assert!(memory.paddr == Paddr::Any || pieces.len() == 1);
            all.extend(pieces.iter().map(|piece| piece.paddr..piece.paddr + piece.size));
        }
        all.sort_by_key(|range| range.start);
        for pair in all.windows(2) {
            prop_assert!(pair[0].end <= pair[1].start, "{:?}", pair);
        }
    }
}
