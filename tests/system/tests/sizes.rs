//! The sizes that Partita promises (README): kernel and PDs stay small, and little memory is used beside the guest.

use std::{fs, path::Path};

use object::{Object, ObjectSection, ObjectSegment, SectionKind};
use partita::build;
use partita_system_tests::fixture;

const KIB: u64 = 1024;
const PAGE: u64 = 4096;

/// Bytes of all sections of a kind.
fn bytes_of(path: &Path, kind: SectionKind) -> u64 {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = object::File::parse(&*bytes).unwrap();
    file.sections().filter(|section| section.kind() == kind).map(|section| section.size()).sum()
}

/// Bytes of machine code.
fn text(path: &Path) -> u64 {
    bytes_of(path, SectionKind::Text)
}

/// Bytes of memory that the loaded program takes, in whole pages.
fn loaded(path: &Path) -> u64 {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = object::File::parse(&*bytes).unwrap();
    file.segments().map(|segment| (segment.address() % PAGE + segment.size()).next_multiple_of(PAGE)).sum()
}

#[test]
fn text_and_memory_stay_within_their_limits() {
    // With a CID, so that the broker is there, too.
    let mut context = fixture::one_guest().unwrap();
    let cell = fixture::debian(1, r#""cid": 3,"#).unwrap();
    context.options.description = fixture::describe("sizes", &[cell]).unwrap();
    let built = build::build(&context).unwrap();

    let xml = fs::read_to_string(&built.system).unwrap();
    let document = roxmltree::Document::parse(&xml).unwrap();
    let number = |text: &str| {
        text.strip_prefix("0x").map_or_else(|| text.parse(), |hex| u64::from_str_radix(hex, 16)).unwrap()
    };
    let mut memory = 0;

    // PDs: program, stack, IPC buffer.
    let mut pds = 0;
    for pd in document.descendants().filter(|node| node.has_tag_name("protection_domain")) {
        let program = pd.children().find(|node| node.has_tag_name("program_image")).unwrap();
        let program = built.out.join(program.attribute("path").unwrap());
        let size = text(&program);
        println!("{}: {size} bytes of text", program.display());
        assert!(size < 160 * KIB, "{} has {size} bytes of text", program.display());
        assert!(size > KIB, "{} has {size} bytes of text: is this the program?", program.display());
        // It is there three times: in the image, in memory, and in the copy for restarts. Tables that are empty at first are to be
        // zeroes, which take room once.
        let data = bytes_of(&program, SectionKind::Data);
        assert!(data < 20 * KIB, "{} has {data} bytes of data", program.display());
        memory += loaded(&program) + pd.attribute("stack_size").map_or(0x2000, number) + PAGE;
        pds += 1;
    }
    assert!(pds >= 6, "only {pds} PDs");

    // Regions, less the guest's RAM, what is loaded into it, and device registers.
    for region in document.descendants().filter(|node| node.has_tag_name("memory_region")) {
        let name = region.attribute("name").unwrap();
        if name.starts_with("guest_ram.")
            || name.starts_with("guest_file.")
            || region.has_attribute("phys_addr")
        {
            continue;
        }
        memory += match (region.attribute("size"), region.attribute("prefill_path")) {
            (Some(size), _) => number(size),
            (None, Some(file)) => fs::metadata(built.out.join(file))
                .unwrap_or_else(|_| panic!("{file}"))
                .len()
                .next_multiple_of(PAGE),
            (None, None) => panic!("region {name} has neither size nor contents"),
        };
    }

    // The kernel, the monitor and what they use: only the embedded SDK's are ours to keep small.
    if built.sdk.embedded {
        let elf = built.sdk.include(&context).with_file_name("elf");
        let size = text(&elf.join("sel4.elf"));
        println!("kernel: {size} bytes of text");
        assert!(size < 96 * KIB, "the kernel has {size} bytes of text");
        memory += loaded(&elf.join("sel4.elf")) + loaded(&elf.join("monitor.elf"));
        let report = fs::read_to_string(built.out.join("report.txt")).unwrap();
        let pool = report
            .lines()
            .find_map(|line| line.split_once("of which at most ")?.1.strip_suffix(" KiB are used"));
        memory += pool.expect("the report names the kernel's pool").parse::<u64>().unwrap() * KIB;
    }
    println!("memory beside the guest: {} KiB", memory / KIB);
    assert!(memory < 4096 * KIB, "{} KiB of memory beside the guest", memory / KIB);
}
