//! The command `partita`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use partita::{
    bench, build,
    context::{Context, Options},
    failure::Result,
    flash, qemu, report, smoke, system, tools,
};

/// Virtual machines on seL4 Microkit.
#[derive(Parser)]
#[command(version, about, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check the description and say what is wrong with it
    Check,
    /// Print system.xml, or write it to a file
    Generate {
        /// File to write
        #[arg(short, long, value_name = "FILE")]
        output: Option<std::path::PathBuf>,
    },
    /// Write the guests' device trees, system.xml and what else the packer reads into the build directory
    Dtb,
    /// Install the programs that building, running and testing need
    Prepare,
    /// Build loader.img
    Build,
    /// Build and run under QEMU on this terminal
    Run,
    /// Build, run a scripted session and check the guest's disk
    Smoke,
    /// What each protection domain may touch
    Report,
    /// Build the image for a board and say how to flash it
    Image,
    /// Measure
    Bench,
    /// Print the JSON Schema of partita.json
    Schema {
        /// Print the tables of docs/configuration.md instead
        #[arg(long)]
        markdown: bool,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("partita: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result {
    let context = Context::new(cli.options)?;
    match cli.command {
        Command::Check => {
            let text = context.read_description()?;
            system::generate(&context.parse(&text)?, context.board)?;
            println!("{}: ok", context.description().display());
            Ok(())
        }
        Command::Generate { output } => {
            let text = context.read_description()?;
            let xml = system::generate(&context.parse(&text)?, context.board)?;
            match output {
                Some(path) => build::write(&path, xml.as_bytes()),
                None => {
                    print!("{xml}");
                    Ok(())
                }
            }
        }
        Command::Dtb => {
            let text = context.read_description()?;
            let config = context.parse(&text)?;
            build::create(&context.out())?;
            let path = build::generate(&context, &text, &config, &context.out())?;
            println!("{}", path.parent().unwrap_or(&path).display());
            Ok(())
        }
        Command::Build => {
            let built = build::build(&context)?;
            println!("{}", built.loader.display());
            Ok(())
        }
        Command::Prepare => {
            tools::require(&context, &[&[tools::QEMU], tools::GUEST, tools::DISK].concat())?;
            tools::rust_target()
        }
        Command::Run => qemu::run(&context),
        Command::Smoke => smoke::run(&context),
        Command::Report => report::run(&context),
        Command::Image => flash::image(&context),
        Command::Bench => bench::run(&context),
        Command::Schema { markdown: true } => {
            print!("{}", partita_config::host::markdown());
            Ok(())
        }
        Command::Schema { markdown: false } => {
            print!("{}", partita_config::host::json_schema());
            Ok(())
        }
    }
}
