//! The command `partita`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use partita::{
    bench,
    boot_files::BootFiles,
    build, check,
    context::{Context, Options},
    failure::Result,
    flash, import, qemu, report, smoke, system, tools,
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
    /// Check a description and say what is wrong with it
    Check {
        /// Instead of the one of --description
        file: Option<std::path::PathBuf>,
    },
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
    /// Build, run a scripted session with all guests and check their disk
    Smoke,
    /// What each protection domain may touch: a table, and a picture in the build directory
    Report,
    /// Build the image for a board and say how to flash it
    Image,
    /// Measure
    Bench {
        #[command(flatten)]
        choice: bench::Choice,
    },
    /// Count what the kernel charges for its operations: the embedded one, and beside it that of --microkit-sdk
    BenchKernel,
    /// Make a description from the files of another system
    Import {
        #[command(subcommand)]
        from: Source,
    },
    /// Print the JSON Schema of partita.json
    Schema {
        /// Print the tables of docs/configuration.md instead
        #[arg(long)]
        markdown: bool,
    },
}

#[derive(Subcommand)]
enum Source {
    /// hvisor: a zone file and the virtio file of its tool
    Hvisor {
        /// The zone, e.g. zone1-linux.json
        zone: std::path::PathBuf,
        /// Its devices, e.g. zone1-linux-virtio.json
        virtio: Option<std::path::PathBuf>,
        /// File to write instead of printing
        #[arg(short, long, value_name = "FILE")]
        output: Option<std::path::PathBuf>,
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
    let mut options = cli.options;
    if let Command::Check { file: Some(file) } = &cli.command {
        options.description.clone_from(file);
    }
    let context = Context::new(options)?;
    match cli.command {
        Command::Check { .. } => check::run(&context),
        Command::Generate { output } => {
            let text = context.read_description()?;
            let config = context.parse(&text)?;
            let files = BootFiles::lay_out(&context, &config)?;
            let xml = system::generate(&config, context.board, &files)?;
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
            let (path, _) = build::generate(&context, &text, &config, &context.out())?;
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
            tools::rust_target(tools::TARGET)?;
            tools::rust_target(tools::GUEST_TARGET)
        }
        Command::Run => qemu::run(&context),
        Command::Smoke => smoke::run(&context),
        Command::Report => report::run(&context),
        Command::Image => flash::image(&context),
        Command::Bench { choice } => bench::run(&context, &choice),
        Command::BenchKernel => bench::kernel::run(&context),
        Command::Import { from: Source::Hvisor { zone, virtio, output } } => {
            import::hvisor(&zone, virtio.as_ref(), output.as_deref())
        }
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
