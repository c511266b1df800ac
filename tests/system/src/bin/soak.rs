//! `make soak`: kills services under I/O load and counts what that does. See `partita_system_tests::soak`.

use std::process::ExitCode;

use clap::Parser;
use partita::context::{Context, Options};
use partita_system_tests::soak;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    options: Options,
    /// How long to kill
    #[arg(long, default_value_t = 600)]
    seconds: u64,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match Context::new(cli.options).and_then(|context| soak::run(context, cli.seconds)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("soak: {failure}");
            ExitCode::FAILURE
        }
    }
}
