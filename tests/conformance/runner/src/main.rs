//! Builds the conformance programs for an SDK, runs them in QEMU and compares the transcript with the expected one.
//!
//! `cargo run -p partita-conformance-runner -- --sdk DIR --config debug|release`
//!
//! The expected transcripts were recorded from the official kernel with `--bless`. QEMU runs with `-icount`, so time passes
//! by instructions and a busy host changes nothing.

mod options;
mod run;
mod transcript;

use std::fs;
use std::process::ExitCode;

use options::Options;
use transcript::Transcript;

fn main() -> ExitCode {
    match conformance() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("conformance: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything passed.
fn conformance() -> Result<bool, String> {
    let Some(options) = Options::parse(std::env::args().skip(1))? else {
        println!("{}", options::USAGE);
        return Ok(true);
    };
    let program = run::build(&options)?;
    let image = run::pack(&options, &program)?;
    let output = run::boot(&options, &image)?;
    let got = Transcript::new(&output);
    let path = options.expected();
    if options.bless {
        if !got.complete {
            return Err(format!("the run is not complete; {} is unchanged", path.display()));
        }
        fs::write(&path, got.to_string()).map_err(|e| format!("{}: {e}", path.display()))?;
        println!("wrote {} ({} cases)", path.display(), got.lines.len());
        return Ok(true);
    }
    let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let comparison = Transcript::parse(&text).compare(&got);
    for difference in &comparison.differences {
        println!("{difference}");
    }
    if !got.complete {
        println!("the run ended early; serial output is in {}", options.serial_log().display());
    }
    println!("{} passed, {} failed", comparison.passed, comparison.failed);
    Ok(comparison.failed == 0 && got.complete)
}
