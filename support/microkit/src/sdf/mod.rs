//! System Description Format: XML text to a checked [`System`].
//!
//! Two steps: elements are read one by one ([`pd`], [`vm`], [`region`], [`channel`], [`domains`]), then properties of the
//! whole are checked ([`check`]). What the official tool accepts is accepted and what it refuses is refused; where it
//! accepts what cannot boot, this reader refuses (docs/sdk.md lists those cases).

pub mod channel;
pub mod check;
pub mod domains;
pub mod error;
pub mod model;
pub mod node;
pub mod pd;
pub mod region;
pub mod vm;

use crate::sdk::Board;
pub use error::{Error, Place, Result};
pub use model::System;
use node::Node;

/// Greatest channel, IRQ and vCPU id: two of the 64 badge bits mean "protected call" and "fault".
pub const MAX_ID: u64 = 61;
/// Greatest number of protection domains.
pub const MAX_PDS: usize = 63;

/// Files that a system description names.
pub trait Files {
    /// Bytes of the file, `Ok(None)` if there is none of that name.
    fn read(&self, path: &str) -> std::io::Result<Option<Vec<u8>>>;
}

/// Reads the system description `text` of the file `name`.
pub fn parse(name: &str, text: &str, board: &Board, files: &dyn Files) -> Result<System> {
    let document = roxmltree::Document::parse(text).map_err(|error| {
        let at = error.pos();
        let place = Place { file: name.to_owned(), line: at.row, column: at.col, ..Place::default() };
        place.error(format!("not well-formed XML: {error}"), "")
    })?;
    let root = Node::new(document.root_element(), name);
    if root.name() != "system" {
        return Err(root.error(
            format!("the root element is <{}>", root.name()),
            "a system description is one <system> element",
        ));
    }
    no_text(&document, name)?;

    let mut system = System { place: root.place(), ..System::default() };
    let mut domains = None;
    let mut channels = Vec::new();
    for child in root.children() {
        match child.name() {
            "protection_domain" => {
                pd::read(&child, None, board, domains.as_ref(), &mut system)?;
            }
            "memory_region" => {
                let region = region::read(&child, board, files, &mut system.warnings)?;
                system.regions.push(region);
            }
            "channel" => channels.push(child),
            "domains" if domains.is_some() => {
                return Err(child.error("a second <domains>", "write <domains> once"));
            }
            "domains" => domains = Some(domains::read(&child, board)?),
            "virtual_machine" => {
                return Err(child.error(
                    "<virtual_machine> outside of a protection domain",
                    "put it into the <protection_domain> of its monitor",
                ));
            }
            "io_address_space" => {
                return Err(child.error(
                    "there is no IOMMU on this board's kernel",
                    "remove <io_address_space>; DMA uses physical addresses (setvar region_paddr)",
                ));
            }
            _ => {
                let allowed = ["protection_domain", "memory_region", "channel", "domains"];
                return Err(child.unknown("system", &allowed));
            }
        }
    }
    for node in &channels {
        channel::read(node, &mut system)?;
    }
    check::check(&mut system, board)?;
    // Last, so that everything else about the description has been checked as on the official kernel.
    match domains {
        Some(domains) if !board.domain_scheduler => Err(domains.place.error(
            "the embedded kernel has no domain scheduler",
            "remove <domains> and 'domain' attributes, or build with MICROKIT_SDK=<official SDK 2.3.0>",
        )),
        _ => Ok(system),
    }
}

/// Text directly inside the root element is refused, as officially; deeper text is ignored there too.
fn no_text(document: &roxmltree::Document<'_>, file: &str) -> Result<()> {
    let root = document.root_element();
    let stray = root
        .children()
        .find(|node| node.is_text() && node.text().is_some_and(|text| !text.trim().is_empty()));
    match stray {
        None => Ok(()),
        Some(node) => {
            let text = node.text().unwrap_or_default();
            let start = node.range().start + (text.len() - text.trim_start().len());
            let at = document.text_pos_at(start.min(document.input_text().len()));
            let place = Place {
                file: file.to_owned(),
                line: at.row,
                column: at.col,
                element: "system".to_owned(),
                attribute: None,
            };
            Err(place.error("text between elements", "use <!-- --> for comments"))
        }
    }
}
