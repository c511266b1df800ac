//! No input makes the packer panic: neither text, nor broken descriptions, nor broken ELF files.

mod common;

use common::{TestFiles, parse};
use partita_microkit::elf::Elf;
use partita_microkit::sdf;
use partita_microkit::sdk::Board;
use proptest::prelude::*;

const SAMPLE: &str = r#"<system>
<memory_region name="ram" size="0x400000" page_size="0x1000"/>
<memory_region name="uart" size="0x1000" phys_addr="0x9000000"/>
<memory_region name="file" prefill_path="five"/>
<protection_domain name="p" priority="100" passive="true" smc="true" fpu="false" budget="500" period="2000" stack_size="0x4000" cpu="0">
  <program_image path="pd.elf" path_for_symbols="pd.elf"/>
  <map mr="ram" vaddr="0x40000000" perms="rwx" cached="true" setvar_vaddr="var_a" setvar_size="var_b"/>
  <setvar symbol="var_c" region_paddr="ram"/>
  <irq irq="33" id="4" trigger="edge" setvar_id="x"/>
  <protection_domain name="c" priority="120" id="3" setvar_id="y"><program_image path="pd.elf"/></protection_domain>
  <virtual_machine name="v" priority="50" budget="300" period="300"><vcpu id="7" cpu="0"/><map mr="ram" vaddr="0x0"/></virtual_machine>
  <cspace><cap_tcb slot="1" pd="c"/><cap_sc slot="2" pd="p"/><cap_vspace slot="63" pd="c"/></cspace>
</protection_domain>
<protection_domain name="q" priority="7"><program_image path="pd.elf"/><map mr="uart" vaddr="0x2000000" cached="false"/></protection_domain>
<channel><end pd="p" id="0" notify="true"/><end pd="q" id="1" pp="true" setvar_id="var_a"/></channel>
</system>"#;

const VALUES: [&str; 24] = [
    "",
    "0",
    "1",
    "61",
    "63",
    "64",
    "255",
    "256",
    "-1",
    "0x",
    "0x1000",
    "0x200000",
    "0xfffffffffffff000",
    "0xffffffffffffffff",
    "18446744073709551616",
    "true",
    "p",
    "c",
    "ram",
    "five",
    "empty",
    "\u{10ffff}",
    "rw",
    "&amp;",
];

/// Replaces the values of some attributes.
fn mutated(changes: &[(usize, usize)]) -> String {
    let mut parts: Vec<String> = SAMPLE.split('"').map(str::to_owned).collect();
    let count = parts.len() / 2;
    for (place, value) in changes {
        parts[place % count * 2 + 1] = VALUES[value % VALUES.len()].to_owned();
    }
    parts.join("\"")
}

fn pack(text: &str) {
    if let Ok((_, packed)) = common::packed(text) {
        let board = Board::qemu_virt();
        let listing = partita_microkit::listing::Listing::new(&packed.spec, &packed.pieces, &board);
        partita_microkit::report::write(&packed, &listing, &board);
        partita_microkit::capdl::write(&packed.spec, &listing, &[]);
    }
}

#[test]
fn the_sample_is_accepted() {
    // All but its setvars `x` and `y`, which the test ELF lacks.
    assert!(parse(SAMPLE).is_ok());
    assert!(common::packed(&SAMPLE.replace("setvar_id=\"x\"", "").replace("setvar_id=\"y\"", "")).is_ok());
}

/// The fuzz targets start from these files. `UPDATE_SEEDS=1` writes them.
#[test]
fn fuzz_seeds_are_current() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let seeds = [("elf/pd", common::pd()), ("elf/kernel", common::kernel()), ("sdf/sample", SAMPLE.into())];
    for (name, bytes) in seeds {
        let path = dir.join(name);
        if std::env::var_os("UPDATE_SEEDS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &bytes).unwrap();
        }
        assert!(
            std::fs::read(&path).is_ok_and(|old| old == bytes),
            "{} is old: UPDATE_SEEDS=1",
            path.display()
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_text(text in "\\PC{0,200}") {
        let _ = sdf::parse("t", &text, &Board::qemu_virt(), &TestFiles);
    }

    #[test]
    fn any_values(changes in prop::collection::vec((0..200_usize, 0..24_usize), 1..4)) {
        pack(&mutated(&changes));
    }

    #[test]
    fn cut_and_joined(from in 0..SAMPLE.len(), to in 0..SAMPLE.len(), with in "[<>/\"a-z= ]{0,8}") {
        let (from, to) = (from.min(to), from.max(to));
        if SAMPLE.is_char_boundary(from) && SAMPLE.is_char_boundary(to) {
            pack(&format!("{}{with}{}", &SAMPLE[..from], &SAMPLE[to..]));
        }
    }

    #[test]
    fn lines_in_any_order(order in prop::collection::vec(0..14_usize, 1..16)) {
        let lines: Vec<_> = SAMPLE.lines().skip(1).collect();
        let body: Vec<_> = order.iter().filter_map(|line| lines.get(*line)).copied().collect();
        pack(&format!("<system>{}</system>", body.join("\n")));
    }

    #[test]
    fn broken_elf_files(
        changes in prop::collection::vec((0..1500_usize, any::<u8>()), 0..12),
        cut in prop::option::of(0..1500_usize),
    ) {
        let mut bytes = common::pd();
        for (at, value) in changes {
            let length = bytes.len();
            bytes[at % length] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut);
        }
        elf(&bytes);
    }

    #[test]
    fn broken_elf_headers(field in 0..18_usize, value in any::<u64>(), segment in 0..2_usize) {
        // The header's words and those of a program header, with any value.
        let mut bytes = common::pd();
        let at = if field < 8 { field * 8 } else { 64 + segment * 56 + (field - 8) % 7 * 8 };
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        elf(&bytes);
    }

    #[test]
    fn any_bytes_as_elf(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        elf(&bytes);
        let mut headed = common::pd()[..64].to_vec();
        headed.extend_from_slice(&bytes);
        elf(&headed);
    }
}

fn elf(bytes: &[u8]) {
    if let Ok(mut elf) = Elf::parse(bytes, None) {
        for name in ["microkit_name", "microkit_passive", "var_a", "var_c", "twice", "small"] {
            let _ = elf.write(name, &[1; 8]);
        }
        // Great ones are fine, but take long.
        if elf.segments.iter().map(|segment| segment.data.len()).sum::<usize>() > 8 << 20 {
            return;
        }
        let system = parse(&common::with("", "")).unwrap();
        let kernel = Elf::parse(&common::kernel(), None).unwrap();
        let monitor = Elf::parse(&common::pd(), None).unwrap();
        let board = Board::qemu_virt();
        let _ = partita_microkit::pack::pack(&system, vec![elf.clone(), monitor.clone()], &kernel, &board);
        let _ = partita_microkit::pack::pack(&system, vec![monitor.clone(), monitor], &elf, &board);
    }
}
