//! The Microkit SDK: the official one that the user names, or the embedded one, which is built here.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{context::Context, fail, failure::Result, process, tools};

/// The version that PDs, packer and kernel agree on.
const VERSION: &str = "2.3";

/// An SDK that was found usable.
#[derive(Clone, Debug)]
pub struct Sdk {
    /// Its directory.
    pub dir: PathBuf,
    /// Its version.
    pub version: String,
    /// Built here.
    pub embedded: bool,
}

impl Sdk {
    /// `bin/microkit`.
    pub fn tool(&self) -> PathBuf {
        self.dir.join("bin/microkit")
    }

    /// What a PD is built with: the headers of this board and configuration.
    pub fn include(&self, context: &Context) -> PathBuf {
        self.dir.join("board").join(context.board.name).join(context.config.to_string()).join("include")
    }
}

/// Finds the SDK, or builds it.
///
/// # Errors
/// It is not there, not of the right version or not for this board.
pub fn find(context: &Context) -> Result<Sdk> {
    let sdk = match &context.options.microkit_sdk {
        Some(dir) => official(dir)?,
        None => embedded(context)?,
    };
    let include = sdk.include(context);
    if !include.is_dir() {
        fail!(
            "the Microkit SDK {} has no board {} in configuration {}",
            sdk.dir.display(),
            context.board.name,
            context.config
        );
    }
    Ok(sdk)
}

/// Checks a directory that the user named.
fn official(dir: &Path) -> Result<Sdk> {
    if !dir.is_dir() {
        fail!(
            "MICROKIT_SDK={} is not a directory; it must be an unpacked Microkit SDK {VERSION}",
            dir.display()
        );
    }
    let Ok(version) = fs::read_to_string(dir.join("VERSION")) else {
        fail!("MICROKIT_SDK={} is not a Microkit SDK: it has no file VERSION", dir.display());
    };
    let version = version.trim().to_owned();
    let release = version.strip_prefix('v').unwrap_or(&version);
    if release != VERSION
        && !release.starts_with(&format!("{VERSION}."))
        && !release.starts_with(&format!("{VERSION}-"))
    {
        fail!("MICROKIT_SDK={} is Microkit SDK {version}; Partita needs {VERSION}", dir.display());
    }
    if !dir.join("bin/microkit").is_file() {
        fail!("MICROKIT_SDK={} is incomplete: it has no bin/microkit", dir.display());
    }
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
    Ok(Sdk { dir, version, embedded: false })
}

/// Builds the embedded SDK; cargo and the builder itself see to it that nothing is done twice.
fn embedded(context: &Context) -> Result<Sdk> {
    tools::rust_target(tools::TARGET)?;
    let dir = context.build_dir().join("sdk");
    let mut command = Command::new(tools::cargo());
    command
        .current_dir(&context.root)
        .args(["run", "--profile", "host", "-p", "partita-microkit", "--bin", "build-sdk", "--", "--out"])
        .arg(&dir)
        .args(["--config", &context.config.to_string(), "--target-dir"])
        .arg(context.build_dir().join("target"));
    process::run("Building the embedded SDK", &mut command)?;
    let version = fs::read_to_string(dir.join("VERSION")).unwrap_or_default().trim().to_owned();
    Ok(Sdk { dir, version, embedded: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("partita-sdk-{}-{name}", std::process::id()));
        fs::create_dir_all(dir.join("bin")).unwrap();
        dir
    }

    #[test]
    fn each_wrong_sdk_has_its_sentence() {
        let missing = official(Path::new("/nonexistent/sdk")).unwrap_err().to_string();
        assert!(missing.contains("is not a directory"), "{missing}");

        let dir = directory("empty");
        let no_version = official(&dir).unwrap_err().to_string();
        assert!(no_version.contains("no file VERSION"), "{no_version}");

        for version in ["2.2.0", "2.30.0", "1.4.1", ""] {
            fs::write(dir.join("VERSION"), version).unwrap();
            let wrong = official(&dir).unwrap_err().to_string();
            assert!(wrong.contains("Partita needs 2.3"), "{wrong}");
        }

        fs::write(dir.join("VERSION"), "2.3.0\n").unwrap();
        let no_tool = official(&dir).unwrap_err().to_string();
        assert!(no_tool.contains("no bin/microkit"), "{no_tool}");

        fs::write(dir.join("bin/microkit"), "").unwrap();
        assert_eq!(official(&dir).unwrap().version, "2.3.0");
        fs::remove_dir_all(dir).unwrap();
    }
}
