//! The packer as a program: files in, image and reports out.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::cli::{self, Args, ImageType, Stop};
use crate::elf::Elf;
use crate::listing::Listing;
use crate::sdf::{self, Files};
use crate::sdk::Sdk;
use crate::{capdl, elf_image, pack, report};

/// Runs the packer with this process's arguments.
pub fn main() -> ExitCode {
    let sdk = match Sdk::discover() {
        Ok(sdk) => sdk,
        Err(error) => return fail(&error),
    };
    let args: Vec<String> =
        std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    let args = match cli::parse(&args, &sdk) {
        Ok(args) => args,
        Err(Stop::Help) => {
            println!("{}", cli::help(&sdk));
            return ExitCode::SUCCESS;
        }
        Err(Stop::Wrong(error, usage)) => {
            if usage {
                println!("{}", cli::USAGE);
            }
            return fail(&error);
        }
    };
    match run(&sdk, &args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &str) -> ExitCode {
    eprintln!("microkit: error: {error}");
    ExitCode::FAILURE
}

/// Files in the search paths, the working directory last.
struct Search<'a>(&'a [PathBuf]);

impl Search<'_> {
    fn find(&self, path: &str) -> Option<PathBuf> {
        let dirs = self.0.iter().map(PathBuf::as_path).chain([Path::new(".")]);
        dirs.map(|dir| dir.join(path)).find(|path| path.exists())
    }
}

impl Files for Search<'_> {
    fn read(&self, path: &str) -> std::io::Result<Option<Vec<u8>>> {
        self.find(path).map(std::fs::read).transpose()
    }
}

fn run(sdk: &Sdk, args: &Args) -> Result<(), String> {
    let dir = sdk.config_dir(&args.board, &args.config);
    let board = sdk.board(&args.board, &args.config)?;
    let kernel_path = args.override_kernel.clone().unwrap_or_else(|| dir.join("elf/sel4.elf"));
    let kernel = read_elf(&kernel_path)?;
    let monitor = read_elf(&dir.join("elf/monitor.elf"))?;
    let text = std::fs::read_to_string(&args.system)
        .map_err(|error| format!("system description file '{}': {error}", args.system.display()))?;
    let files = Search(&args.search_paths);
    let system =
        sdf::parse(&args.system.to_string_lossy(), &text, &board, &files).map_err(|e| e.to_string())?;
    for warning in &system.warnings {
        eprintln!("microkit: warning: {warning}");
    }
    if let Some(path) = &args.viper_output {
        eprintln!(
            "microkit: warning: only the official tool writes Viper files: '{}' is not made",
            path.display()
        );
    }

    let mut elfs = Vec::new();
    for pd in &system.pds {
        let at = |error: String| format!("{} {error}", pd.image_place);
        let read = |path: &str| match files.read(path) {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(at(format!("there is no file '{path}'; name one relative to a --search-path"))),
            Err(error) => Err(at(format!("file '{path}' cannot be read: {error}"))),
        };
        let image = read(&pd.image)?;
        let symbols = pd.symbols.as_deref().map(read).transpose()?;
        let elf =
            Elf::parse(&image, symbols.as_deref()).map_err(|error| at(format!("'{}': {error}", pd.image)))?;
        elfs.push(elf);
    }
    elfs.push(monitor);
    let lengths: Vec<Vec<u64>> = elfs
        .iter()
        .map(|elf| elf.segments.iter().map(|segment| segment.data.len() as u64).collect())
        .collect();

    let packed = pack::pack(&system, elfs, &kernel, &board)?;
    let listing = Listing::new(&packed.spec, &packed.pieces, &board);
    match args.image_type {
        ImageType::Binary => write(&args.output, &packed.image)?,
        ImageType::Elf => write(&args.output, &elf_image::wrap(packed.base, &packed.image))?,
    }
    write(&args.report, report::write(&packed, &listing, &board).as_bytes())?;
    if let Some(path) = &args.capdl_json {
        let json = capdl::write(&packed.spec, &listing, &lengths);
        write(path, format!("{json:#}").as_bytes())?;
    }
    println!("MICROKIT|CAPDL SPEC: number of root objects = {}", listing.entries.len());
    println!("MICROKIT|LOADER: image file size = {:.2} KiB", packed.image.len() as f64 / 1024.0);
    Ok(())
}

fn read_elf(path: &Path) -> Result<Elf, String> {
    let bytes =
        std::fs::read(path).map_err(|error| format!("could not read '{}': {error}", path.display()))?;
    Elf::parse(&bytes, None).map_err(|error| format!("'{}': {error}", path.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    std::fs::write(path, bytes).map_err(|error| format!("could not write '{}': {error}", path.display()))
}
