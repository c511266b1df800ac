//! What all commands share: where things are and what the user chose.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use clap::{
    Args,
    builder::{OsStringValueParser, TypedValueParser},
};
use partita_config::Config;

use crate::{
    board::Board,
    fail,
    failure::{Failure, Result},
};

/// The kernel configuration, with Microkit's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelConfig {
    /// The kernel prints, and checks itself.
    Debug,
    /// As in production.
    Release,
}

impl fmt::Display for KernelConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Debug => "debug",
            Self::Release => "release",
        })
    }
}

/// Choices that every command takes, as options or as variables.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Board, with Microkit's name
    #[arg(long, env = "BOARD", default_value = "qemu_virt_aarch64", global = true)]
    pub board: String,
    /// Kernel configuration
    #[arg(long, env = "CONFIG", default_value = "debug", global = true)]
    pub config: String,
    /// An official Microkit SDK 2.3; without it the embedded one is built
    #[arg(long, env = "MICROKIT_SDK", value_parser = path(), global = true)]
    pub microkit_sdk: Option<PathBuf>,
    /// The description of the system
    #[arg(long, value_name = "FILE", default_value = "partita.json", global = true)]
    pub description: PathBuf,
    /// Kernel of every guest, instead of what the description says
    #[arg(long, env = "GUEST_KERNEL", value_parser = path(), global = true)]
    pub guest_kernel: Option<PathBuf>,
    /// Initramfs of every guest; `none` for no initramfs
    #[arg(long, env = "GUEST_INITRD", value_parser = path(), global = true)]
    pub guest_initrd: Option<PathBuf>,
    /// Kernel command line of every guest
    #[arg(long, env = "GUEST_CMDLINE", global = true)]
    pub guest_cmdline: Option<String>,
    /// Raw image behind QEMU's disk controller
    #[arg(long, env = "DISK", value_parser = path(), global = true)]
    pub disk: Option<PathBuf>,
    /// More arguments for QEMU
    #[arg(long, env = "QEMU_ARGS", allow_hyphen_values = true, global = true)]
    pub qemu_args: Option<String>,
    /// Where to build
    #[arg(long, value_name = "DIR", default_value = "build", global = true)]
    pub build_dir: PathBuf,
}

/// Unlike clap's own, takes an empty value: a variable that is set to nothing.
fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// The choices, checked, and the places that follow from them.
#[derive(Clone, Debug)]
pub struct Context {
    /// The source tree.
    pub root: PathBuf,
    /// The board.
    pub board: &'static Board,
    /// The kernel configuration.
    pub config: KernelConfig,
    /// The choices.
    pub options: Options,
}

impl Context {
    /// Checks what can be checked without doing anything.
    ///
    /// # Errors
    /// An unknown board; run outside Partita's tree.
    pub fn new(mut options: Options) -> Result<Self> {
        let board = match options.board.as_str() {
            "" => Board::named("qemu_virt_aarch64")?,
            name => Board::named(name)?,
        };
        let config = match options.config.as_str() {
            "debug" | "" => KernelConfig::Debug,
            "release" => KernelConfig::Release,
            other => fail!("CONFIG={other} is unknown; use debug or release"),
        };
        // A variable that is set to nothing (`make run MICROKIT_SDK=`) is not set.
        let drop_empty = |path: &mut Option<PathBuf>| {
            if path.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
                *path = None;
            }
        };
        drop_empty(&mut options.microkit_sdk);
        drop_empty(&mut options.guest_kernel);
        drop_empty(&mut options.guest_initrd);
        drop_empty(&mut options.disk);
        options.guest_cmdline = options.guest_cmdline.filter(|text| !text.is_empty());
        let root = find_root()?;
        let root = root.canonicalize().unwrap_or(root);
        Ok(Self { root, board, config, options })
    }

    /// The directory of everything built.
    pub fn build_dir(&self) -> PathBuf {
        self.root.join(&self.options.build_dir)
    }

    /// The directory of this board, configuration and kind of SDK. All systems share the programs built there.
    pub fn programs(&self) -> PathBuf {
        let kind = if self.options.microkit_sdk.is_some() { "official" } else { "embedded" };
        self.build_dir().join(self.board.name).join(self.config.to_string()).join(kind)
    }

    /// The directory of this system: the one above, or for another description than partita.json one below it.
    pub fn out(&self) -> PathBuf {
        match self.options.description.file_stem() {
            Some(stem) if stem != "partita" => self.programs().join(stem),
            _ => self.programs(),
        }
    }

    /// Where the recipe of the Linux guest leaves its files.
    pub fn guest_dir(&self) -> PathBuf {
        self.build_dir().join("guest")
    }

    /// partita.json.
    pub fn description(&self) -> PathBuf {
        if self.options.description.is_absolute() || self.options.description.exists() {
            return self.options.description.clone();
        }
        self.root.join(&self.options.description)
    }

    /// Its name, for messages.
    pub fn description_name(&self) -> String {
        let path = self.description();
        path.file_name().map_or_else(|| "partita.json".into(), |name| name.to_string_lossy().into_owned())
    }

    /// The directory that file names in partita.json are relative to; its real path, so that it compares with others.
    pub fn description_dir(&self) -> PathBuf {
        let path = self.description();
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        parent.canonicalize().unwrap_or_else(|_| parent.to_path_buf())
    }

    /// The text of partita.json.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read_description(&self) -> Result<String> {
        let path = self.description();
        fs::read_to_string(&path).map_err(|error| Failure::file("read", &path, &error))
    }

    /// Parses and checks the text; puts what the user chose in place of what it says.
    ///
    /// # Errors
    /// All that is wrong with the file, one line each.
    pub fn parse<'a>(&'a self, text: &'a str) -> Result<Config<'a>> {
        let mut config = partita_config::host::parse(&self.description_name(), text).map_err(|problems| {
            Failure::new(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        })?;
        for cell in &mut config.cells {
            if let Some(kernel) = &self.options.guest_kernel {
                cell.kernel = utf8(kernel)?;
            }
            match &self.options.guest_initrd {
                Some(initrd) if initrd.as_os_str() == "none" => cell.initrd = None,
                Some(initrd) => cell.initrd = Some(utf8(initrd)?),
                None => {}
            }
            if let Some(cmdline) = &self.options.guest_cmdline {
                cell.cmdline = Some(cmdline);
            }
        }
        Ok(config)
    }

    /// A file that the description or a variable names.
    pub fn file(&self, name: &str) -> PathBuf {
        let beside = self.description_dir().join(name);
        if beside.exists() { beside } else { PathBuf::from(name) }
    }
}

fn utf8(path: &Path) -> Result<&str> {
    match path.to_str() {
        Some(path) => Ok(path),
        None => fail!("the file name {} is not UTF-8; rename the file", path.display()),
    }
}

/// Partita's source tree: the working directory or one above it, else where this tool was built.
fn find_root() -> Result<PathBuf> {
    let is_root = |dir: &&Path| dir.join("pds/vmm").is_dir() && dir.join("support/partita").is_dir();
    let here = std::env::current_dir().unwrap_or_default();
    if let Some(root) = here.ancestors().find(is_root) {
        return Ok(root.to_path_buf());
    }
    let built = Path::new(env!("CARGO_MANIFEST_DIR"));
    match built.ancestors().find(is_root) {
        Some(root) => Ok(root.to_path_buf()),
        None => fail!("this is not inside Partita's source tree; change to it first"),
    }
}
