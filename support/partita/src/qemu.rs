//! QEMU as the board `qemu_virt_aarch64`.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    build::{self, Built},
    context::Context,
    fail,
    failure::{Failure, Result},
    process, tools,
};

/// Where the machine's memory begins.
const MEMORY: u64 = 0x4000_0000;
/// Where it ends unless the system uses more: where seL4's ends.
pub const MEMORY_END: u64 = 0xc000_0000;
/// QEMU gets whole such parts.
const GRANULE: u64 = 64 << 20;

/// A machine to be started: image, disk, more arguments.
#[derive(Clone, Debug)]
pub struct Machine {
    /// loader.img
    pub loader: PathBuf,
    /// Where it is loaded.
    pub load: u64,
    /// guests.img and where it is loaded, if the system has one.
    pub boot_files: Option<(PathBuf, u64)>,
    /// First address behind its memory.
    pub memory_end: u64,
    /// Raw disk behind virtio-mmio transport 0.
    pub disk: Option<PathBuf>,
    /// Nobody wants the disk when the host has crashed: a test's copy. A flush is then done when the host knows the data,
    /// so that a slow host disk, and who else uses it, does not make the guest's disk slow.
    pub throwaway: bool,
    /// More arguments.
    pub arguments: Vec<String>,
}

impl Machine {
    /// The machine for what was built.
    ///
    /// # Errors
    /// `QEMU_ARGS` has an unfinished quotation.
    pub fn new(context: &Context, built: &Built, disk: Option<PathBuf>) -> Result<Self> {
        let arguments = split_words(context.options.qemu_args.as_deref().unwrap_or_default())?;
        Ok(Self {
            loader: built.loader.clone(),
            load: context.board.load,
            boot_files: built.boot_files.clone(),
            memory_end: built.spare_end.next_multiple_of(GRANULE).max(MEMORY_END),
            disk,
            throwaway: false,
            arguments,
        })
    }

    /// QEMU's command line.
    pub fn command(&self) -> Command {
        let mut command = Command::new(tools::QEMU.program);
        command
            .args(["-machine", "virt,virtualization=on", "-cpu", "cortex-a53", "-m"])
            .arg(format!("{}M", (self.memory_end - MEMORY) >> 20))
            .args(["-nographic", "-nic", "none", "-global", "virtio-mmio.force-legacy=false"])
            .arg("-device")
            .arg(format!("loader,file={},addr={:#x},cpu-num=0", escape(&self.loader), self.load));
        if let Some((file, address)) = &self.boot_files {
            let file = escape(file);
            command.arg("-device").arg(format!("loader,file={file},addr={address:#x},force-raw=on"));
        }
        if let Some(disk) = &self.disk {
            let cache = if self.throwaway { ",cache=unsafe" } else { "" };
            command
                .arg("-drive")
                .arg(format!("file={},if=none,format=raw,id=d0{cache}", escape(disk)))
                .args(["-device", "virtio-blk-device,drive=d0,bus=virtio-mmio-bus.0"]);
        }
        command.args(&self.arguments);
        command
    }
}

/// Commas separate QEMU's options; a doubled one is a comma.
pub(crate) fn escape(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// The disk to run with: the user's, or the Debian guest's, made if need be.
///
/// # Errors
/// It is missing or cannot be made.
pub fn disk(context: &Context) -> Result<Option<PathBuf>> {
    if let Some(disk) = &context.options.disk {
        check_raw(disk)?;
        return Ok(Some(disk.clone()));
    }
    let text = context.read_description()?;
    if context.parse(&text)?.controllers.is_empty() {
        return Ok(None);
    }
    build::guest_recipe(context, "disk")?;
    let disk = context.guest_dir().join("disk.img");
    if !disk.is_file() {
        fail!("the guest recipe made no {}", disk.display());
    }
    Ok(Some(disk))
}

/// A disk that the user names must be a raw image: others would be taken for raw and be damaged.
fn check_raw(disk: &Path) -> Result {
    if !disk.exists() {
        fail!("DISK={} does not exist", disk.display());
    }
    if fs::metadata(disk).is_ok_and(|metadata| metadata.is_dir()) {
        fail!("DISK={} is a directory; it must be a raw disk image", disk.display());
    }
    let mut magic = [0; 4];
    let mut file = File::open(disk).map_err(|error| Failure::file("open", disk, &error))?;
    let known = match file.read_exact(&mut magic) {
        Ok(()) => match &magic {
            b"QFI\xfb" => Some("a qcow2 image"),
            b"KDMV" => Some("a VMDK image"),
            b"cone" => Some("a VHD image"),
            b"vhdx" => Some("a VHDX image"),
            b"\xfd7zX" => Some("compressed with xz"),
            [0x1f, 0x8b, ..] => Some("compressed with gzip"),
            _ => None,
        },
        Err(_) => Some("shorter than a sector"),
    };
    match known {
        Some(what) => fail!("DISK={} is {what}; it must be a raw disk image", disk.display()),
        None => Ok(()),
    }
}

/// `partita run`: the terminal is the system's serial line.
///
/// # Errors
/// The build's; QEMU's.
pub fn run(context: &Context) -> Result {
    tools::require(context, &[tools::QEMU])?;
    let built = build::build(context)?;
    let machine = Machine::new(context, &built, disk(context)?)?;
    println!("Starting. To leave: Ctrl-A, then x.");
    println!(
        "Ctrl-], then 1 to 9: that guest's console; then 0: the management shell; twice: Ctrl-] itself."
    );
    let status = machine
        .command()
        .stdin(Stdio::inherit())
        .status()
        .map_err(|error| process::cannot_start(tools::QEMU.program, &error))?;
    if !status.success() {
        fail!("QEMU ended with an error; its message is above");
    }
    Ok(())
}

/// Splits as a shell does for the simple cases: blanks separate, quotes join.
fn split_words(text: &str) -> Result<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in text.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        fail!("QEMU_ARGS has a quotation mark without its partner: {text}");
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qemu_args_are_split_as_a_shell_does() {
        let words = split_words("  -icount shift=3,sleep=off -plugin 'a b.so' -x \"\" ").unwrap();
        assert_eq!(words, ["-icount", "shift=3,sleep=off", "-plugin", "a b.so", "-x", ""]);
        assert!(split_words("-plugin 'a").unwrap_err().to_string().contains("quotation"));
    }

    #[test]
    fn commas_in_file_names_are_doubled() {
        let machine = Machine {
            loader: "/a,b/loader.img".into(),
            load: 0x7000_0000,
            boot_files: Some(("/a,b/guests.img".into(), 0xc000_0000)),
            memory_end: 0xc400_0000,
            disk: Some("/d,1.img".into()),
            throwaway: false,
            arguments: vec!["-s".into()],
        };
        let command = machine.command();
        let arguments: Vec<_> = command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
        assert!(arguments.contains(&"loader,file=/a,,b/loader.img,addr=0x70000000,cpu-num=0".to_owned()));
        assert!(arguments.contains(&"loader,file=/a,,b/guests.img,addr=0xc0000000,force-raw=on".to_owned()));
        assert!(arguments.windows(2).any(|pair| pair == ["-m", "2112M"]), "{arguments:?}");
        assert!(arguments.contains(&"file=/d,,1.img,if=none,format=raw,id=d0".to_owned()));
        assert_eq!(arguments.last().map(String::as_str), Some("-s"));
        // Only a copy that nobody will miss may lose what the guest has flushed.
        assert!(!arguments.iter().any(|argument| argument.contains("cache=")));
        let command = Machine { throwaway: true, ..machine }.command();
        assert!(command.get_args().any(|argument| argument.to_string_lossy().ends_with(",cache=unsafe")));
    }

    #[test]
    fn a_disk_that_is_not_raw_is_refused() {
        let path = std::env::temp_dir().join(format!("partita-disk-{}", std::process::id()));
        for (contents, word) in
            [(&b"QFI\xfb...."[..], "qcow2"), (b"\x1f\x8b\x08\x00", "gzip"), (b"a", "shorter")]
        {
            fs::write(&path, contents).unwrap();
            let sentence = check_raw(&path).unwrap_err().to_string();
            assert!(sentence.contains(word), "{sentence}");
        }
        fs::write(&path, [0; 512]).unwrap();
        assert_eq!(check_raw(&path), Ok(()));
        fs::remove_file(&path).unwrap();
        assert!(check_raw(&path).unwrap_err().to_string().contains("does not exist"));
    }
}
