//! Command line of the packer: the flags of the official tool.

use std::path::PathBuf;

use crate::sdk::Sdk;

/// First line of the help.
pub const USAGE: &str = "usage: microkit [-h] [OPTIONS] --board BOARD --config CONFIG \
                         [--search-path SEARCH_PATH ...] system";

/// Kind of image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageType {
    /// The bytes from the load address on.
    Binary,
    /// An ELF file with them as one segment.
    Elf,
}

/// Arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Args {
    /// System description.
    pub system: PathBuf,
    /// Board.
    pub board: String,
    /// Configuration.
    pub config: String,
    /// Image to write.
    pub output: PathBuf,
    /// Report to write.
    pub report: PathBuf,
    /// capDL file to write.
    pub capdl_json: Option<PathBuf>,
    /// Kernel to use instead of the SDK's.
    pub override_kernel: Option<PathBuf>,
    /// Kind of image.
    pub image_type: ImageType,
    /// Directories to look for files in, before the working directory.
    pub search_paths: Vec<PathBuf>,
    /// Asked for, but only the official tool writes it.
    pub viper_output: Option<PathBuf>,
}

/// Why there are no arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Help was asked for.
    Help,
    /// They are wrong; the second is whether to show the usage.
    Wrong(String, bool),
}

/// The help text.
pub fn help(sdk: &Sdk) -> String {
    let boards: Vec<_> = sdk.boards.iter().map(|(name, _)| name.as_str()).collect();
    format!(
        "{USAGE}\n\npositional arguments:\n  system\n\noptions:\n  -h, --help, show this help message and exit\n  \
         -o, --output OUTPUT\n  -r, --report REPORT\n  --image-type {{binary,elf,uimage}}\n  \
         --override-kernel KERNEL (for debugging purposes)\n  --board {}\n  --config CONFIG\n  \
         --capdl-json CAPDL_SPEC (JSON format)\n  --viper-output DIRECTORY_PATH\n  \
         --search-path [SEARCH_PATH ...]",
        boards.join("\n          ")
    )
}

/// Reads the arguments behind the program's name.
pub fn parse(args: &[String], sdk: &Sdk) -> Result<Args, Stop> {
    let wrong = |text: String| Stop::Wrong(text, false);
    let mut args = args.iter().peekable();
    let (mut system, mut board, mut config) = (None, None, None);
    let mut output = PathBuf::from("loader.img");
    let mut report = PathBuf::from("report.txt");
    let (mut capdl_json, mut override_kernel, mut viper_output) = (None, None, None);
    let mut image_type = ImageType::Binary;
    let mut search_paths = Vec::new();
    while let Some(arg) = args.next() {
        let mut value = |name: &str| {
            args.next().cloned().ok_or_else(|| wrong(format!("argument {name}: expected one parameter")))
        };
        match arg.as_str() {
            "-h" | "--help" => return Err(Stop::Help),
            "-o" | "--output" => output = value("--output")?.into(),
            "-r" | "--report" => report = value("--report")?.into(),
            "--board" => {
                let name = value("--board")?;
                if !sdk.boards.iter().any(|(board, _)| *board == name) {
                    return Err(wrong(format!("argument --board: unknown parameter '{name}'")));
                }
                board = Some(name);
            }
            "--config" => config = Some(value("--config")?),
            "--capdl-json" => capdl_json = Some(value("--capdl-json")?.into()),
            "--viper-output" => viper_output = Some(value("--viper-output")?.into()),
            "--override-kernel" => override_kernel = Some(value("--override-kernel")?.into()),
            "--image-type" => {
                image_type = match value("--image-type")?.as_str() {
                    "binary" => ImageType::Binary,
                    "elf" => ImageType::Elf,
                    "uimage" => {
                        return Err(wrong(
                            "building the output image as 'uimage' is unsupported for target architecture 'AArch64'"
                                .to_owned(),
                        ));
                    }
                    other => {
                        return Err(wrong(format!("argument --image-type: unknown parameter '{other}'")));
                    }
                }
            }
            "--search-path" => {
                while let Some(path) = args.next_if(|next| !next.starts_with('-')) {
                    search_paths.push(path.into());
                }
            }
            other if system.is_none() => system = Some(PathBuf::from(other)),
            other => return Err(Stop::Wrong(format!("unrecognized argument '{other}'"), true)),
        }
    }
    let (Some(board), Some(config), Some(system)) = (&board, &config, &system) else {
        let missing: Vec<_> =
            [("--board", board.is_none()), ("--config", config.is_none()), ("system", system.is_none())]
                .iter()
                .filter(|(_, missing)| *missing)
                .map(|(name, _)| *name)
                .collect();
        return Err(Stop::Wrong(
            format!("the following arguments are required: {}", missing.join(", ")),
            true,
        ));
    };
    let configs = sdk.boards.iter().find(|(name, _)| name == board).map(|(_, configs)| configs.as_slice());
    let configs = configs.unwrap_or_default();
    if !configs.contains(config) {
        return Err(wrong(format!(
            "argument --config: invalid choice '{config}' (choose from: {})",
            configs.join(", ")
        )));
    }
    Ok(Args {
        system: system.clone(),
        board: board.clone(),
        config: config.clone(),
        output,
        report,
        capdl_json,
        override_kernel,
        image_type,
        search_paths,
        viper_output,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sdk() -> Sdk {
        let boards = vec![("qemu_virt_aarch64".to_owned(), vec!["debug".to_owned(), "release".to_owned()])];
        Sdk { root: PathBuf::new(), boards }
    }

    fn parsed(line: &str) -> Result<Args, Stop> {
        let args: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        parse(&args, &sdk())
    }

    #[test]
    fn all_options() {
        let args = parsed(
            "-o i.img -r r.txt --board qemu_virt_aarch64 --config release --image-type elf --override-kernel k.elf \
             --capdl-json c.json --viper-output v s.system --search-path a b",
        )
        .unwrap();
        assert_eq!(args.output, PathBuf::from("i.img"));
        assert_eq!(args.report, PathBuf::from("r.txt"));
        assert_eq!((args.board.as_str(), args.config.as_str()), ("qemu_virt_aarch64", "release"));
        assert_eq!(args.image_type, ImageType::Elf);
        assert_eq!(args.override_kernel, Some("k.elf".into()));
        assert_eq!(args.capdl_json, Some("c.json".into()));
        assert_eq!(args.viper_output, Some("v".into()));
        assert_eq!(args.system, PathBuf::from("s.system"));
        assert_eq!(args.search_paths, [PathBuf::from("a"), PathBuf::from("b")]);
    }

    #[test]
    fn defaults_are_the_official_ones() {
        let args =
            parsed("s.system --board qemu_virt_aarch64 --config debug --search-path --output x").unwrap();
        assert_eq!((args.output, args.report), ("x".into(), "report.txt".into()));
        assert_eq!(args.image_type, ImageType::Binary);
        assert!(args.search_paths.is_empty());
    }

    #[test]
    fn wrong_command_lines() {
        assert_eq!(parsed("--board qemu_virt_aarch64 -h"), Err(Stop::Help));
        let cases = [
            ("", "the following arguments are required: --board, --config, system"),
            ("--board rpi", "argument --board: unknown parameter 'rpi'"),
            ("--board", "argument --board: expected one parameter"),
            (
                "s --board qemu_virt_aarch64 --config fast",
                "argument --config: invalid choice 'fast' (choose from: debug, release)",
            ),
            ("a b", "unrecognized argument 'b'"),
            ("--image-type iso", "argument --image-type: unknown parameter 'iso'"),
            (
                "--image-type uimage",
                "building the output image as 'uimage' is unsupported for target architecture 'AArch64'",
            ),
        ];
        for (line, expected) in cases {
            match parsed(line) {
                Err(Stop::Wrong(text, _)) => assert_eq!(text, expected),
                other => panic!("{line}: {other:?}"),
            }
        }
    }
}
