//! `partita image`: the image for a board and how it gets there.

use crate::{build, context::Context, failure::Result};

/// Builds the image and says what to do with it.
///
/// # Errors
/// The build's. Boards without support are refused before.
pub fn image(context: &Context) -> Result {
    let built = build::build(context)?;
    println!("{}", built.loader.display());
    println!(
        "{} needs no flashing: QEMU loads this file to {:#x}; `make run` does it.",
        context.board.name, context.board.load
    );
    Ok(())
}
