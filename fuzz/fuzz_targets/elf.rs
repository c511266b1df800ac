//! ELF files: any bytes, as a PD, as its file of symbols and as the kernel.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use partita_microkit::elf::Elf;
use partita_microkit::pack;
use partita_microkit::sdf::{self, Files, System};
use partita_microkit::sdk::Board;

const PD: &[u8] = include_bytes!("../corpus/elf/pd");
const KERNEL: &[u8] = include_bytes!("../corpus/elf/kernel");
const SYSTEM: &str = "<system><memory_region name=\"m\" size=\"0x1000\"/><protection_domain name=\"p\">\
    <program_image path=\"pd.elf\"/><map mr=\"m\" vaddr=\"0x400000\" setvar_vaddr=\"var_a\" setvar_size=\"var_c\"/>\
    </protection_domain></system>";

struct None;

impl Files for None {
    fn read(&self, _: &str) -> std::io::Result<Option<Vec<u8>>> {
        Ok(Option::None)
    }
}

struct Good {
    pd: Elf,
    kernel: Elf,
    system: System,
}

static GOOD: LazyLock<Good> = LazyLock::new(|| {
    let elf = |bytes| Elf::parse(bytes, Option::None).expect("the seeds are ELF files");
    let system =
        sdf::parse("fuzz.system", SYSTEM, &Board::qemu_virt(), &None).expect("the description is right");
    Good { pd: elf(PD), kernel: elf(KERNEL), system }
});

fuzz_target!(|data: &[u8]| {
    let good = &*GOOD;
    let board = Board::qemu_virt();
    for elf in [Elf::parse(data, Option::None), Elf::parse(PD, Some(data))] {
        let Ok(elf) = elf else { continue };
        if elf.segments.iter().map(|segment| segment.data.len()).sum::<usize>() > 1 << 20 {
            continue;
        }
        let _ = pack::pack(&good.system, vec![elf.clone(), good.pd.clone()], &good.kernel, &board);
        let _ = pack::pack(&good.system, vec![good.pd.clone(), elf.clone()], &good.kernel, &board);
        let _ = pack::pack(&good.system, vec![good.pd.clone(), good.pd.clone()], &elf, &board);
    }
});
