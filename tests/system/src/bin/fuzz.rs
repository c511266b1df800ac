//! `make fuzz`: builds the targets of `fuzz/` and runs each for a while, on the stable toolchain and without cargo-fuzz.
//!
//! Usage: `fuzz [--seconds N] [--coverage] [TARGET...]`. What cargo-fuzz would do, less the address sanitizer (nightly only, and the
//! parsers are safe code): libFuzzer is linked in by libfuzzer-sys, and LLVM's coverage pass is switched on by flags that
//! stable rustc has. The seeds in `fuzz/corpus/TARGET` are committed; what the fuzzer finds goes to `build/fuzz/TARGET`,
//! inputs that crash to `fuzz/artifacts/TARGET`. With `--coverage` each target is built once more, and tells which lines of
//! which files its corpus reaches ([`partita_system_tests::coverage`]); all of it is left in `build/fuzz/coverage.txt`.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use partita_system_tests::{
    check::counts::Counts,
    coverage::{self, Tools},
};

const COVERAGE: &[&str] = &[
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];

fn main() -> ExitCode {
    let mut seconds = 60_u32;
    let mut wanted = Vec::new();
    let mut coverage = false;
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--seconds" {
            let Some(value) = arguments.next().and_then(|value| value.parse().ok()) else {
                eprintln!("fuzz: --seconds takes a number");
                return ExitCode::FAILURE;
            };
            seconds = value;
        } else if argument == "--coverage" {
            coverage = true;
        } else {
            wanted.push(argument);
        }
    }
    match run(seconds, &wanted, coverage) {
        Ok(counts) => {
            println!("{counts}");
            if counts.failed == 0 && counts.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("fuzz: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(seconds: u32, wanted: &[String], coverage: bool) -> io::Result<Counts> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.ancestors().nth(2).unwrap_or(here);
    let targets = targets(&root.join("fuzz/fuzz_targets"))?;
    if let Some(unknown) = wanted.iter().find(|name| !targets.contains(name)) {
        return Err(io::Error::other(format!(
            "there is no target {unknown}; the targets are {}",
            targets.join(", ")
        )));
    }
    let triple = host_triple()?;
    build(root, &triple, "target", COVERAGE)?;
    let tools = match coverage.then(|| Tools::find(&triple)) {
        None => None,
        Some(Some(tools)) => {
            build(root, &triple, "target/coverage", coverage::FLAGS)?;
            Some(tools)
        }
        Some(None) => {
            println!("no lines are counted: rustup's component llvm-tools is not there");
            None
        }
    };
    let mut told = String::new();
    let mut total = Counts::default();
    for target in targets.iter().filter(|name| wanted.is_empty() || wanted.contains(name)) {
        let program = root.join("fuzz/target").join(&triple).join("release").join(target);
        total = total + Counts::one(fuzz(root, &program, target, seconds)?);
        let Some(tools) = &tools else { continue };
        let program = root.join("fuzz/target/coverage").join(&triple).join("release").join(target);
        match tools.measure(root, &program, &corpora(root, target)) {
            Ok(coverage) => {
                println!("{coverage}");
                told += &format!("{target}:\n{coverage}\n");
            }
            // An input that crashes has been told of already.
            Err(error) => println!("    no lines are counted: {error}"),
        }
    }
    if !told.is_empty() {
        fs::write(root.join("build/fuzz/coverage.txt"), told)?;
    }
    Ok(total)
}

fn build(root: &Path, triple: &str, dir: &str, flags: &[&str]) -> io::Result<()> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // --target keeps the flags away from build scripts and procedural macros.
    let built = Command::new(cargo)
        .current_dir(root.join("fuzz"))
        .args(["build", "-q", "--release", "--bins", "--target", triple, "--target-dir", dir])
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .status()?;
    match built.success() {
        true => Ok(()),
        false => Err(io::Error::other("the fuzz targets do not build (libFuzzer needs g++)")),
    }
}

/// Where inputs of a target are: found ones, and the seeds if it has some.
fn corpora(root: &Path, target: &str) -> Vec<PathBuf> {
    let seeds = root.join("fuzz/corpus").join(target);
    [Some(root.join("build/fuzz").join(target)), seeds.is_dir().then_some(seeds)]
        .into_iter()
        .flatten()
        .collect()
}

/// True if the target ran for its time and found nothing.
fn fuzz(root: &Path, program: &Path, target: &str, seconds: u32) -> io::Result<bool> {
    if !program.is_file() {
        println!("{target}: FAILED, fuzz/Cargo.toml has no [[bin]] of this name");
        return Ok(false);
    }
    let found = root.join("build/fuzz").join(target);
    let artifacts = root.join("fuzz/artifacts").join(target);
    fs::create_dir_all(&found)?;
    fs::create_dir_all(&artifacts)?;
    let mut command = Command::new(program);
    command
        .current_dir(root)
        .arg(format!("-max_total_time={seconds}"))
        .args(["-timeout=30", "-rss_limit_mb=2048", "-print_final_stats=1"])
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .args(corpora(root, target))
        .stdin(Stdio::null());
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let stat = |name: &str| {
        said.lines().find_map(|line| {
            line.strip_prefix("stat::")?.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok()
        })
    };
    let runs: u64 = stat("number_of_executed_units").unwrap_or(0);
    let new: u64 = stat("new_units_added").unwrap_or(0);
    // A target that returns at once on everything would pass any number of runs.
    let coverage = said.lines().rev().find_map(|line| {
        let mut words = line.split_whitespace().skip_while(|word| *word != "cov:");
        words.next()?;
        words.next()?.parse::<u64>().ok()
    });
    if output.status.success() && runs > 0 && coverage.is_some_and(|edges| edges > 1) {
        // "INFO: Loaded 1 modules   (1234 inline 8-bit counters): ..."
        let edges = said.lines().find(|line| line.contains("inline 8-bit counters")).and_then(|line| {
            let (_, rest) = line.split_once('(')?;
            rest.split_whitespace().next()?.parse::<u64>().ok()
        });
        let (seen, all) = (coverage.unwrap_or(0), edges.unwrap_or(0));
        println!("{target}: {runs} runs, {seen} of {all} edges, {new} new inputs");
        return Ok(true);
    }
    let lines: Vec<&str> = said.lines().collect();
    for line in &lines[lines.len().saturating_sub(40)..] {
        println!("    {line}");
    }
    println!(
        "{target}: FAILED after {runs} runs ({}); inputs that crash are in {}",
        output.status,
        artifacts.display()
    );
    Ok(false)
}

fn targets(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path: PathBuf = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

fn host_triple() -> io::Result<String> {
    let output = Command::new("rustc").arg("-vV").output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.lines().find_map(|line| line.strip_prefix("host: ")) {
        Some(triple) => Ok(triple.to_owned()),
        None => Err(io::Error::other("rustc -vV names no host")),
    }
}
