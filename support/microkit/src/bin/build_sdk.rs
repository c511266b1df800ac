//! Builds the embedded SDK. A copy of this program is the SDK's `bin/microkit`: under that name it is the packer.

use std::process::ExitCode;

fn main() -> ExitCode {
    let name = std::env::current_exe().ok().and_then(|path| path.file_stem().map(ToOwned::to_owned));
    if name.is_some_and(|name| name == "microkit") {
        return partita_microkit::packer::main();
    }
    partita_microkit::build_sdk::main()
}
