//! `make test`: every test suite of the project, counted together.
//!
//! Usage: `check [STEP...]`; without a name all steps run. The last line is `N passed, N failed` (and `, N skipped`).

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use partita_system_tests::check::{
    counts::Counts,
    step::{Counting, Step},
};

/// Crates whose unsafe code Miri can run; small numbers of random cases, because Miri is a thousand times slower.
const MIRI: &[&str] = &["partita-ring", "partita-virtio", "partita-link-pipe"];
/// Crates with `cfg(loom)` models.
const LOOM: &[&str] = &["partita-ring", "partita-link-pipe"];
/// System tests that run with a release build as well.
const RELEASE_TOO: &[&str] = &["bare_metal", "restart", "sizes", "system", "vsock"];
/// Freestanding programs that the linter must see for the target, too.
const FREESTANDING: &[&str] = &[
    "partita-pd-blk",
    "partita-pd-console",
    "partita-pd-ivc",
    "partita-pd-supervisor",
    "partita-pd-timer",
    "partita-pd-vmm",
    "partita-kernel",
    "partita-monitor",
    "partita-conformance",
    "partita-test-guests",
];
const TARGET: &str = "aarch64-unknown-none-softfloat";

fn main() -> ExitCode {
    let wanted: Vec<String> = env::args().skip(1).collect();
    match run(&wanted) {
        Ok(counts) => {
            println!("{counts}");
            if counts.failed == 0 && counts.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("check: {error}");
            println!("{}", Counts::one(false));
            ExitCode::FAILURE
        }
    }
}

fn run(wanted: &[String]) -> io::Result<Counts> {
    let root = root();
    let logs = root.join("build/test");
    fs::create_dir_all(&logs)?;
    let steps = steps(&root);
    if let Some(unknown) = wanted.iter().find(|name| steps.iter().all(|plan| plan.group != name.as_str())) {
        let mut names: Vec<&str> = steps.iter().map(|plan| plan.group).collect();
        names.dedup();
        return Err(io::Error::other(format!(
            "there is no step {unknown}; the steps are {}",
            names.join(", ")
        )));
    }
    let begin = Instant::now();
    let mut total = Counts::default();
    for plan in steps {
        if !wanted.is_empty() && wanted.iter().all(|name| name != plan.group) {
            continue;
        }
        total = total
            + match plan.what {
                What::Run(step) => step.run(&logs)?,
                What::Skip(why) => {
                    println!("{}: SKIPPED, {why}", plan.group);
                    Counts::SKIPPED
                }
            };
    }
    println!("all of it took {:.0} s", begin.elapsed().as_secs_f32());
    Ok(total)
}

struct Plan {
    group: &'static str,
    what: What,
}

enum What {
    Run(Box<Step>),
    Skip(&'static str),
}

fn steps(root: &Path) -> Vec<Plan> {
    let mut plans = Vec::new();
    let mut add = |group, name: &str, minutes: u64, counting, command: Command| {
        let limit = Duration::from_secs(minutes * 60);
        plans.push(Plan {
            group,
            what: What::Run(Box::new(Step { name: name.into(), command, limit, counting })),
        });
    };
    let cargo = |arguments: &[&str]| {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(root).args(arguments);
        // What cargo set for this program must not reach another cargo.
        command.env_remove("CARGO_MANIFEST_DIR").env_remove("CARGO_PKG_NAME");
        command
    };

    add("lint", "format", 2, Counting::Whole, cargo(&["fmt", "--all", "--check"]));
    let fuzz_format = cargo(&["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"]);
    add("lint", "format of fuzz", 2, Counting::Whole, fuzz_format);
    let clippy = cargo(&["clippy", "-q", "--workspace", "--all-targets", "--", "-Dwarnings"]);
    add("lint", "clippy", 15, Counting::Whole, clippy);
    // The freestanding programs take seL4's numbers from an SDK.
    let sdk = root.join("build/sdk");
    let mut build =
        cargo(&["run", "-q", "--profile", "host", "-p", "partita-microkit", "--bin", "build-sdk"]);
    build.args(["--", "--out"]).arg(&sdk).arg("--target-dir").arg(root.join("build/target"));
    add("lint", "embedded SDK", 10, Counting::Whole, build);
    let mut clippy = cargo(&["clippy", "-q", "--release", "--target", TARGET]);
    clippy.env("SEL4_INCLUDE_DIRS", sdk.join("board/qemu_virt_aarch64/debug/include"));
    for package in FREESTANDING {
        clippy.args(["-p", package]);
    }
    clippy.args(["--", "-Dwarnings"]);
    add("lint", "clippy for the target", 15, Counting::Whole, clippy);

    let host = cargo(&["test", "--workspace", "--exclude", "partita-system-tests", "--no-fail-fast"]);
    add("host", "host tests", 20, Counting::Printed, host);
    let own = cargo(&["test", "-p", "partita-system-tests", "--lib"]);
    add("host", "tests of the runner", 5, Counting::Printed, own);

    let mut loom = cargo(&["test", "--release", "--lib", "--target-dir", "target/loom"]);
    loom.env("RUSTFLAGS", "--cfg loom").env("LOOM_MAX_PREEMPTIONS", "3");
    for package in LOOM {
        loom.args(["-p", package]);
    }
    // Under cfg(loom) only the models make sense; they are in modules of that name.
    loom.args(["--", "loom"]);
    add("loom", "loom", 10, Counting::Printed, loom);

    if miri_is_there() {
        // Through rustup's proxy: `cargo` of this process is a toolchain's own.
        let mut miri = Command::new("cargo");
        miri.current_dir(root).args(["+nightly", "miri", "test", "--lib", "--target-dir", "target/miri"]);
        miri.env_remove("CARGO")
            .env_remove("RUSTC")
            .env_remove("RUSTUP_TOOLCHAIN")
            .env("PROPTEST_CASES", "4");
        // Guest memory of a test stays allocated: handles to it are copies without an owner.
        miri.env("MIRIFLAGS", "-Zmiri-disable-isolation -Zmiri-ignore-leaks");
        for package in MIRI {
            miri.args(["-p", package]);
        }
        add("miri", "Miri", 10, Counting::Printed, miri);
    } else {
        let why = "no nightly toolchain with the component miri is installed";
        plans.push(Plan { group: "miri", what: What::Skip(why) });
    }

    let mut add = |group, name: &str, minutes: u64, counting, command: Command| {
        let limit = Duration::from_secs(minutes * 60);
        plans.push(Plan {
            group,
            what: What::Run(Box::new(Step { name: name.into(), command, limit, counting })),
        });
    };
    let fuzz = cargo(&["run", "-q", "-p", "partita-system-tests", "--bin", "fuzz", "--", "--seconds", "5"]);
    add("fuzz", "fuzz", 10, Counting::Printed, fuzz);

    let mut build =
        cargo(&["run", "-q", "--profile", "host", "-p", "partita-microkit", "--bin", "build-sdk"]);
    build.args(["--", "--out"]).arg(&sdk).arg("--target-dir").arg(root.join("build/target"));
    add("conformance", "embedded SDK", 10, Counting::Whole, build);
    let official = env::var_os("MICROKIT_SDK").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    for (kind, sdk) in [("embedded", Some(sdk)), ("official", official)] {
        let Some(sdk) = sdk else { continue };
        for config in ["debug", "release"] {
            let mut conformance = cargo(&["run", "-q", "-p", "partita-conformance-runner", "--", "--sdk"]);
            conformance.arg(&sdk).args(["--config", config]);
            add("conformance", &format!("conformance {kind} {config}"), 10, Counting::Printed, conformance);
        }
    }

    let kind =
        if env::var_os("MICROKIT_SDK").is_some_and(|dir| !dir.is_empty()) { "official" } else { "embedded" };
    for config in ["debug", "release"] {
        // One machine at a time: the tests have time limits, and there may be two cores only.
        let mut system = cargo(&["test", "-p", "partita-system-tests", "--no-fail-fast"]);
        // Everything in one configuration, what depends on it in both: together they fit into half an hour.
        let names = if config == "debug" { &["*"] } else { RELEASE_TOO };
        system.args(names.iter().flat_map(|name| ["--test", name]));
        system.args(["--", "--test-threads=1"]);
        system.env("CONFIG", config);
        add("system", &format!("system {kind} {config}"), 25, Counting::Printed, system);
    }
    plans
}

fn miri_is_there() -> bool {
    Command::new("cargo")
        .args(["+nightly", "miri", "--version"])
        .env_remove("CARGO")
        .env_remove("RUSTUP_TOOLCHAIN")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}
