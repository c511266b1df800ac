//! System descriptions: any text. What the reader accepts is packed and reported, and never panics; its errors have a place.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use partita_microkit::elf::Elf;
use partita_microkit::listing::Listing;
use partita_microkit::sdf::{self, Files};
use partita_microkit::sdk::Board;
use partita_microkit::{capdl, pack, report};

const PD: &[u8] = include_bytes!("../corpus/elf/pd");
const KERNEL: &[u8] = include_bytes!("../corpus/elf/kernel");

static ELFS: LazyLock<[Elf; 2]> =
    LazyLock::new(|| [PD, KERNEL].map(|bytes| Elf::parse(bytes, None).expect("the seeds are ELF files")));

struct Any;

impl Files for Any {
    fn read(&self, path: &str) -> std::io::Result<Option<Vec<u8>>> {
        // A name's length decides: missing, unreadable, empty, small, or more than a page.
        match path.len() % 5 {
            0 => Ok(None),
            1 => Err(std::io::ErrorKind::PermissionDenied.into()),
            2 => Ok(Some(Vec::new())),
            3 => Ok(Some(path.as_bytes().to_vec())),
            _ => Ok(Some(vec![1; 5000])),
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let board = Board::qemu_virt();
    let system = match sdf::parse("fuzz.system", text, &board, &Any) {
        Ok(system) => system,
        Err(error) => {
            assert!(error.place.line >= 1 && error.place.column >= 1, "{error}");
            assert!(error.to_string().starts_with("fuzz.system:"), "{error}");
            return;
        }
    };
    // What takes long only because it is great is left out.
    if system.regions.iter().map(|region| region.size / region.page_size).sum::<u64>() > 4096
        || system.pds.len() > 8
    {
        return;
    }
    let [pd, kernel] = &*ELFS;
    let elfs = vec![pd.clone(); system.pds.len() + 1];
    if let Ok(packed) = pack::pack(&system, elfs, kernel, &board) {
        let listing = Listing::new(&packed.spec, &packed.pieces, &board);
        report::write(&packed, &listing, &board);
        capdl::write(&packed.spec, &listing, &[]);
    }
});
