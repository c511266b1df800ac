//! `<memory_region>`.

use std::sync::Arc;

use super::Files;
use super::error::Result;
use super::model::{Paddr, Region};
use super::node::Node;
use crate::sdk::{Board, PAGE_SIZES};

const BOOT_INFO: [&str; 6] =
    ["x86_vbe", "x86_mbmmap", "x86_acpi_rsdp", "x86_framebuffer", "x86_tsc_freq", "fdt"];

/// Reads a `<memory_region>`.
pub fn read(
    node: &Node<'_, '_>,
    board: &Board,
    files: &dyn Files,
    warnings: &mut Vec<String>,
) -> Result<Region> {
    node.only(&["name", "size", "page_size", "phys_addr", "prefill_path", "prefill_bootinfo"])?;
    let name = node.required("name")?.to_owned();
    let page_size = node.number("page_size")?;
    let page_size_given = page_size.is_some();
    let page_size = page_size.unwrap_or(PAGE_SIZES[0]);
    if !PAGE_SIZES.contains(&page_size) {
        return Err(node.error_in(
            "page_size",
            format!("there are no pages of {page_size:#x} bytes"),
            "write 0x1000 or 0x200000",
        ));
    }
    let prefill = read_prefill(node, files)?;
    let boot_info = node.text("prefill_bootinfo");
    if let Some(kind) = boot_info {
        if !BOOT_INFO.contains(&kind) {
            return Err(node.error_in(
                "prefill_bootinfo",
                format!("there is no boot information '{kind}'"),
                format!("write one of: {}", BOOT_INFO.join(", ")),
            ));
        }
        if prefill.is_some() {
            return Err(node.error_in(
                "prefill_bootinfo",
                "prefill_path and prefill_bootinfo together",
                "a region has one source of contents",
            ));
        }
        warnings.push(format!(
            "{} loader.img passes no boot information: '{kind}' reads as zeros",
            node.place_of("prefill_bootinfo")
        ));
    }
    let file_size = prefill.as_ref().map(|bytes| bytes.len() as u64);
    let size = read_size(node, page_size, file_size, boot_info.is_some())?;
    let paddr = match node.number("phys_addr")? {
        None => Paddr::Any,
        Some(paddr) if paddr % page_size != 0 => {
            return Err(node.error_in(
                "phys_addr",
                format!("{paddr:#x} is not aligned to the page size"),
                format!("write a multiple of {page_size:#x}"),
            ));
        }
        Some(paddr) => {
            in_memory(node, board, paddr, size)?;
            Paddr::Fixed(paddr)
        }
    };
    let paddr_place = node.place_of("phys_addr");
    Ok(Region { place: node.place(), paddr_place, name, size, page_size, page_size_given, paddr, prefill })
}

fn read_prefill(node: &Node<'_, '_>, files: &dyn Files) -> Result<Option<Arc<[u8]>>> {
    let Some(path) = node.text("prefill_path") else { return Ok(None) };
    let bad = |wrong: String, right: &str| Err(node.error_in("prefill_path", wrong, right));
    match files.read(path) {
        Err(error) => bad(format!("file '{path}' cannot be read: {error}"), "name a readable file"),
        Ok(None) => bad(
            format!("there is no file '{path}'"),
            "name one relative to a --search-path or the working directory",
        ),
        Ok(Some(bytes)) if bytes.is_empty() => {
            bad(format!("file '{path}' is empty"), "remove prefill_path: memory is zeroed anyway")
        }
        Ok(Some(bytes)) => Ok(Some(bytes.into())),
    }
}

fn read_size(node: &Node<'_, '_>, page: u64, file: Option<u64>, boot_info: bool) -> Result<u64> {
    let Some(size) = node.number("size")? else {
        return match file {
            Some(bytes) => Ok(bytes.next_multiple_of(page)),
            None if boot_info => Ok(page),
            None => Err(node.error(
                "attribute 'size' is missing",
                "write size=\"...\", or prefill_path to take the file's size",
            )),
        };
    };
    let bad = |wrong: String, right: String| Err(node.error_in("size", wrong, right));
    if size % page != 0 {
        return bad(
            format!("{size:#x} is not a multiple of the page size"),
            format!("write a multiple of {page:#x}"),
        );
    }
    match file {
        Some(bytes) if bytes > size => bad(
            format!("the prefill file has {bytes:#x} bytes, the region {size:#x}"),
            format!("write at least {:#x}, or leave size out", bytes.next_multiple_of(page)),
        ),
        // The official tool crashes on this one.
        Some(bytes) if size - bytes >= page => bad(
            format!("the prefill file ends ({bytes:#x} bytes) a page or more before the region ({size:#x})"),
            format!("write {:#x}, or leave size out", bytes.next_multiple_of(page)),
        ),
        _ => Ok(size),
    }
}

/// Each page must lie in one device or memory range.
fn in_memory(node: &Node<'_, '_>, board: &Board, paddr: u64, size: u64) -> Result<()> {
    let bad = |wrong: String| {
        let ranges: Vec<_> =
            board.memory.iter().map(|range| format!("{:#x}..{:#x}", range.start, range.end)).collect();
        let right = format!(
            "choose an address in RAM ({}) or of a device that the kernel does not use",
            ranges.join(", ")
        );
        Err(node.error_in("phys_addr", wrong, right))
    };
    let Some(end) = paddr.checked_add(size) else {
        return bad(format!("{paddr:#x} and a size of {size:#x} exceed the address space"));
    };
    let mut at = paddr;
    while at < end {
        let inside = |range: &&std::ops::Range<u64>| range.start <= at && at < range.end;
        match board.devices.iter().chain(&board.memory).find(inside) {
            Some(range) => at = range.end,
            None => return bad(format!("there is no usable memory at {at:#x}")),
        }
    }
    Ok(())
}
