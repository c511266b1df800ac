//! The embedded SDK's packer, with the command line of Microkit's tool.

fn main() -> std::process::ExitCode {
    partita_microkit::packer::main()
}
