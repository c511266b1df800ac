//! Which protection domain a page of code belongs to.
//!
//! Every PD is linked to the same addresses, so an address does not tell. What is there does: the page in memory is
//! compared with the page of each program's file at that address. Pages of code are never patched, so the right one has
//! them all but equal, and the wrong one does not come near.

use std::{collections::HashMap, fs, path::Path};

use object::{Object, ObjectSegment};

/// Bytes that are compared: the smallest page that may be mapped on its own.
pub const PAGE: usize = 4096;

/// Equal bytes of a page, of 100, that make it a program's. The loader may fill variables in.
const ALIKE: usize = 90;

/// A program and its name.
#[derive(Debug)]
pub struct Program {
    /// What it is called in the output.
    pub name: String,
    /// Address and contents of its loaded parts.
    parts: Vec<(u64, Vec<u8>)>,
}

impl Program {
    /// From an argument `NAME:FILE`.
    pub fn open(argument: &str) -> Result<Self, String> {
        let (name, path) = argument.split_once(':').ok_or("a program is named NAME:FILE")?;
        let data = fs::read(Path::new(path)).map_err(|error| format!("cannot read {path}: {error}"))?;
        let file = object::File::parse(&*data).map_err(|error| format!("{path}: {error}"))?;
        let parts = file
            .segments()
            .map(|segment| Ok((segment.address(), segment.data()?.to_vec())))
            .collect::<object::Result<_>>()
            .map_err(|error| format!("{path}: {error}"))?;
        Ok(Self { name: name.to_owned(), parts })
    }

    /// Equal bytes of the page at `address` and of what the program has there, and how many it has.
    fn alike(&self, address: u64, page: &[u8]) -> (usize, usize) {
        let (mut equal, mut all) = (0, 0);
        for (start, data) in &self.parts {
            for (byte, at) in page.iter().zip(address..) {
                let own = at.checked_sub(*start).and_then(|at| data.get(usize::try_from(at).ok()?));
                all += usize::from(own.is_some());
                equal += usize::from(own == Some(byte));
            }
        }
        (equal, all)
    }
}

/// The programs, and the pages that are known.
#[derive(Debug, Default)]
pub struct Programs {
    /// In the order of the arguments.
    pub list: Vec<Program>,
    known: HashMap<usize, Option<usize>>,
}

impl Programs {
    /// The program that `page`, which is mapped at `address`, belongs to. `host` is where the page is.
    pub fn of(&mut self, address: u64, host: usize, page: &[u8]) -> Option<usize> {
        let list = &self.list;
        *self.known.entry(host).or_insert_with(|| {
            // A page that a program ends in has little of it; that little counts.
            let scored = list.iter().enumerate().map(|(n, program)| (program.alike(address, page), n));
            let fits = scored.filter(|((equal, all), _)| *all != 0 && equal * 100 >= all * ALIKE);
            fits.max().map(|(_, n)| n)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(name: &str, start: u64, data: &[u8]) -> Program {
        Program { name: name.into(), parts: vec![(start, data.to_vec())] }
    }

    #[test]
    fn a_page_is_whose_it_looks_like() {
        let (one, mut two): (Vec<u8>, Vec<u8>) = ((0..200).collect(), (0..200).rev().collect());
        let long = vec![0; PAGE];
        let list = vec![
            program("one", 0x20_0000, &one),
            program("two", 0x20_0000, &two),
            program("long", 0x20_0000, &[&[9; 500], &long[500..]].concat()),
        ];
        let mut programs = Programs { list, ..Programs::default() };
        let page = |data: &[u8]| [data, &[0; PAGE]].concat()[..PAGE].to_vec();
        assert_eq!(programs.of(0x20_0000, 1, &page(&one)), Some(0));
        two[3] = 77; // patched
        assert_eq!(programs.of(0x20_0000, 2, &page(&two)), Some(1));
        assert_eq!(programs.of(0x20_0000, 3, &page(&[7; 200])), None);
        assert_eq!(programs.of(0x90_0000, 4, &page(&one)), None, "neither has anything there");
        assert_eq!(programs.of(0x20_0000, 1, &page(&two)), Some(0), "known by its place");
    }

    #[test]
    fn arguments_that_name_no_program_are_refused() {
        assert!(Program::open("vmm").is_err());
        assert!(Program::open("vmm:/nonexistent").is_err());
        let own = std::env::current_exe().unwrap();
        let own = Program::open(&format!("self:{}", own.display())).unwrap();
        assert!(own.name == "self" && !own.parts.is_empty());
    }
}
