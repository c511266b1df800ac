//! The embedded SDK's packer: reads a Microkit system description and the PD ELF files, writes loader.img and report.txt.
//!
//! It takes the place of the official tool when the SDK is the embedded one, with its command line, its System
//! Description Format and its decisions (docs/sdk.md). [`sdf`] reads the description, [`caps`] turns it into kernel
//! objects ([`spec`]), [`memory`] places them, [`pack`] writes the image, [`report`] and [`capdl`] describe it.

pub mod build_sdk;
pub mod capdl;
pub mod caps;
pub mod cli;
pub mod describe;
pub mod elf;
pub mod elf_image;
pub mod listing;
pub mod memory;
pub mod pack;
pub mod packer;
pub mod paging;
pub mod patch;
pub mod report;
pub mod sdf;
pub mod sdk;
pub mod spec;
