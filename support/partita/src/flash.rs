//! `partita image`: the image for a board and how it gets there.

use crate::{build, context::Context, failure::Result};

/// Builds the image and says what to do with it.
///
/// # Errors
/// The build's. Boards without support are refused before.
pub fn image(context: &Context) -> Result {
    let built = build::build(context)?;
    println!("{}", built.loader.display());
    let (name, load) = (context.board.name, context.board.load);
    match &built.boot_files {
        None => println!("{name} needs no flashing: QEMU loads this file to {load:#x}; `make run` does it."),
        Some((file, address)) => {
            println!("{}", file.display());
            println!(
                "{name} needs no flashing: QEMU loads the first file to {load:#x}, the second with the guests' kernels \
                 and initramfs to {address:#x}; `make run` does it."
            );
        }
    }
    Ok(())
}
