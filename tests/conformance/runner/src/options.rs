//! The command line.

use std::env;
use std::path::{Path, PathBuf};

/// Shown for `--help`.
pub const USAGE: &str = "usage: conformance-runner --sdk DIR [--config debug|release] [--bless] [--seconds N]

  --sdk DIR      Microkit SDK, official or embedded (default: $MICROKIT_SDK)
  --config C     debug or release (default: $CONFIG or debug)
  --bless        write the transcript to expected/ instead of comparing (official kernel only)
  --seconds N    give up after N seconds (default 300)";

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    pub sdk: PathBuf,
    pub config: String,
    pub bless: bool,
    pub seconds: u64,
}

impl Options {
    /// `None`: only help was asked for.
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut sdk = env::var_os("MICROKIT_SDK").filter(|dir| !dir.is_empty()).map(PathBuf::from);
        let mut config = env::var("CONFIG").ok().filter(|config| !config.is_empty());
        let (mut bless, mut seconds) = (false, 300);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--sdk" => sdk = Some(value()?.into()),
                "--config" => config = Some(value()?),
                "--seconds" => {
                    seconds = value()?.parse().map_err(|_| "--seconds needs a number".to_string())?;
                }
                "--bless" => bless = true,
                "--help" | "-h" => return Ok(None),
                other => return Err(format!("unknown argument {other}\n{USAGE}")),
            }
        }
        let sdk = sdk.ok_or_else(|| format!("no SDK\n{USAGE}"))?;
        let sdk = sdk.canonicalize().map_err(|e| format!("{}: {e}", sdk.display()))?;
        let config = config.unwrap_or_else(|| "debug".into());
        if !["debug", "release"].contains(&config.as_str()) {
            return Err(format!("--config {config}: debug and release are known"));
        }
        Ok(Some(Self { sdk, config, bless, seconds }))
    }

    /// The SDK's files for the board and configuration.
    pub fn board(&self) -> PathBuf {
        self.sdk.join("board/qemu_virt_aarch64").join(&self.config)
    }

    /// The tests' own directory.
    pub fn home() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_path_buf()
    }

    /// The workspace.
    pub fn workspace() -> PathBuf {
        Self::home().join("../..")
    }

    /// The transcript to compare with.
    pub fn expected(&self) -> PathBuf {
        Self::home().join("expected").join(format!("{}.txt", self.config))
    }

    /// Where everything that is made goes: one directory for each SDK and configuration.
    pub fn work(&self) -> PathBuf {
        let target =
            env::var_os("CARGO_TARGET_DIR").map_or_else(|| Self::workspace().join("target"), PathBuf::from);
        let embedded = if self.sdk.join("EMBEDDED").exists() { "embedded" } else { "official" };
        target.join("conformance").join(embedded).join(&self.config)
    }

    /// The machine's serial output.
    pub fn serial_log(&self) -> PathBuf {
        self.work().join("serial.log")
    }
}

#[cfg(test)]
mod tests {
    use super::Options;

    fn parse(arguments: &[&str]) -> Result<Option<Options>, String> {
        Options::parse(arguments.iter().map(|argument| argument.to_string()))
    }

    #[test]
    fn options_are_read_and_checked() {
        let options = parse(&["--sdk", "/", "--config", "release", "--seconds", "7"]).unwrap().unwrap();
        assert_eq!((options.config.as_str(), options.seconds, options.bless), ("release", 7, false));
        assert_eq!(parse(&["--help"]), Ok(None));
        for wrong in
            [&["--sdk", "/", "--config", "smp"][..], &["--sdk"], &["--sdk", "/nowhere/at/all"], &["--x"]]
        {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
