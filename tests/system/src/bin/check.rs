//! `make test`: every test suite of the project, counted together.
//!
//! Usage: `check [STEP...]`; without a name all steps run. The last line is `N passed, N failed` (and `, N skipped`).

use std::{
    collections::VecDeque,
    env, fs, io,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::{Mutex, PoisonError},
    thread,
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
/// Files of system tests that run with a release build as well.
const RELEASE_TOO: &[&str] = &["bare_metal", "sizes", "system"];
/// Freestanding programs that the linter must see for the target, too.
const FREESTANDING: &[&str] = &[
    "partita-pd-blk",
    "partita-pd-console",
    "partita-pd-ivc",
    "partita-pd-pulse",
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
        names.sort_unstable();
        names.dedup();
        return Err(io::Error::other(format!(
            "there is no step {unknown}; the steps are {}",
            names.join(", ")
        )));
    }
    let begin = Instant::now();
    let mut total = Counts::default();
    let mut plans: VecDeque<Plan> = steps
        .into_iter()
        .filter(|plan| wanted.is_empty() || wanted.iter().any(|name| name == plan.group))
        .collect();
    while let Some(plan) = plans.pop_front() {
        if plan.alone {
            total = total + plan.run(&logs);
            continue;
        }
        let mut beside = VecDeque::from([plan]);
        while let Some(plan) = plans.pop_front_if(|plan| !plan.alone) {
            beside.push_back(plan);
        }
        total = total + side_by_side(beside, &logs);
    }
    println!("all of it took {:.0} s", begin.elapsed().as_secs_f32());
    Ok(total)
}

/// Runs plans in their order, as many at a time as there are processors, but four at most.
fn side_by_side(plans: VecDeque<Plan>, logs: &Path) -> Counts {
    let workers = thread::available_parallelism().map_or(1, usize::from).min(4);
    let plans = Mutex::new(plans);
    let next = || plans.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let work = || -> Counts {
        let mut counts = Counts::default();
        while let Some(plan) = next() {
            counts = counts + plan.run(logs);
        }
        counts
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap_or(Counts::one(false))).sum()
    })
}

struct Plan {
    group: &'static str,
    /// Takes the whole machine, or makes what those after it use.
    alone: bool,
    what: What,
}

impl Plan {
    fn run(self, logs: &Path) -> Counts {
        match self.what {
            What::Run(step) => {
                let name = step.name.clone();
                // Whatever happens to one step, the others are run and counted.
                step.run(logs).unwrap_or_else(|error| {
                    println!("{name}: FAILED, {error}");
                    Counts::one(false)
                })
            }
            What::Skip(why) => {
                println!("{}: SKIPPED, {why}", self.group);
                Counts::SKIPPED
            }
        }
    }
}

enum What {
    Run(Box<Step>),
    Skip(&'static str),
}

/// The plan of everything: first what takes all processors, then what takes one each.
fn steps(root: &Path) -> Vec<Plan> {
    let sdk = root.join("build/sdk");
    let mut plans = Plans { root, list: Vec::new() };
    plans.lint(&sdk);
    plans.host();
    plans.embedded_sdk("conformance", &sdk);
    let build = plans.cargo(&["test", "-q", "-p", "partita-system-tests", "--no-run"]);
    plans.add("system", "system tests compile", 30, Counting::Whole, build);
    plans.models();
    plans.conformance(&sdk);
    plans.system();
    plans.list
}

struct Plans<'a> {
    root: &'a Path,
    list: Vec<Plan>,
}

impl Plans<'_> {
    fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(self.root).args(arguments);
        // What cargo set for this program must not reach another cargo.
        command.env_remove("CARGO_MANIFEST_DIR").env_remove("CARGO_PKG_NAME");
        command
    }

    /// The limit is for what hangs: several times what a slow and loaded machine takes.
    fn add(&mut self, group: &'static str, name: &str, minutes: u64, counting: Counting, command: Command) {
        let limit = Duration::from_secs(minutes * 60);
        let step = Step { name: name.into(), command, limit, counting };
        self.list.push(Plan { group, alone: true, what: What::Run(Box::new(step)) });
    }

    fn beside(&mut self, group: &'static str, name: &str, minutes: u64, command: Command) {
        self.add(group, name, minutes, Counting::Printed, command);
        if let Some(plan) = self.list.last_mut() {
            plan.alone = false;
        }
    }

    fn embedded_sdk(&mut self, group: &'static str, sdk: &Path) {
        let mut build =
            self.cargo(&["run", "-q", "--profile", "host", "-p", "partita-microkit", "--bin", "build-sdk"]);
        build.args(["--", "--out"]).arg(sdk).arg("--target-dir").arg(self.root.join("build/target"));
        self.add(group, "embedded SDK", 30, Counting::Whole, build);
    }

    fn lint(&mut self, sdk: &Path) {
        self.add("lint", "format", 10, Counting::Whole, self.cargo(&["fmt", "--all", "--check"]));
        let fuzz = self.cargo(&["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"]);
        self.add("lint", "format of fuzz", 10, Counting::Whole, fuzz);
        let clippy = self.cargo(&["clippy", "-q", "--workspace", "--all-targets", "--", "-Dwarnings"]);
        self.add("lint", "clippy", 45, Counting::Whole, clippy);
        // The freestanding programs take seL4's numbers from an SDK.
        self.embedded_sdk("lint", sdk);
        let mut clippy = self.cargo(&["clippy", "-q", "--release", "--target", TARGET]);
        clippy.env("SEL4_INCLUDE_DIRS", sdk.join("board/qemu_virt_aarch64/debug/include"));
        clippy.args(FREESTANDING.iter().flat_map(|package| ["-p", package]));
        clippy.args(["--", "-Dwarnings"]);
        self.add("lint", "clippy for the target", 45, Counting::Whole, clippy);
    }

    fn host(&mut self) {
        let all = ["test", "--workspace", "--exclude", "partita-system-tests", "--no-fail-fast"];
        self.add("host", "host tests", 60, Counting::Printed, self.cargo(&all));
        let own = self.cargo(&["test", "-p", "partita-system-tests", "--lib"]);
        self.add("host", "tests of the runner", 15, Counting::Printed, own);
    }

    /// Miri, loom, fuzzing.
    fn models(&mut self) {
        if miri_is_there() {
            // Through rustup's proxy: `cargo` of this process is a toolchain's own.
            let mut miri = Command::new("cargo");
            miri.current_dir(self.root).args([
                "+nightly",
                "miri",
                "test",
                "--lib",
                "--target-dir",
                "target/miri",
            ]);
            miri.env_remove("CARGO")
                .env_remove("RUSTC")
                .env_remove("RUSTUP_TOOLCHAIN")
                .env("PROPTEST_CASES", "4");
            // Guest memory of a test stays allocated: handles to it are copies without an owner.
            miri.env("MIRIFLAGS", "-Zmiri-disable-isolation -Zmiri-ignore-leaks");
            miri.args(MIRI.iter().flat_map(|package| ["-p", package]));
            self.beside("miri", "Miri", 45, miri);
        } else {
            let why = "no nightly toolchain with the component miri is installed";
            self.list.push(Plan { group: "miri", alone: false, what: What::Skip(why) });
        }

        let mut loom = self.cargo(&["test", "--release", "--lib", "--target-dir", "target/loom"]);
        loom.env("RUSTFLAGS", "--cfg loom").env("LOOM_MAX_PREEMPTIONS", "3");
        loom.args(LOOM.iter().flat_map(|package| ["-p", package]));
        // Under cfg(loom) only the models make sense; they are in modules of that name.
        loom.args(["--", "loom"]);
        self.beside("loom", "loom", 30, loom);

        let fuzz = ["run", "-q", "-p", "partita-system-tests", "--bin", "fuzz", "--", "--seconds", "5"];
        self.beside("fuzz", "fuzz", 30, self.cargo(&fuzz));
    }

    fn conformance(&mut self, sdk: &Path) {
        for (kind, sdk) in [("embedded", Some(sdk)), ("official", official().as_deref())] {
            let Some(sdk) = sdk else { continue };
            for config in ["debug", "release"] {
                let mut conformance =
                    self.cargo(&["run", "-q", "-p", "partita-conformance-runner", "--", "--sdk"]);
                conformance.arg(sdk).args(["--config", config]);
                self.beside("conformance", &format!("conformance {kind} {config}"), 30, conformance);
            }
        }
    }

    /// A step for each file of system tests: everything in one configuration, what depends on it in both.
    fn system(&mut self) {
        let kind = if official().is_some() { "official" } else { "embedded" };
        let mut files: Vec<String> = fs::read_dir(self.root.join("tests/system/tests"))
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(".rs")?.to_owned()))
            .collect();
        files.sort();
        for config in ["debug", "release"] {
            for file in &files {
                if config == "release" && !RELEASE_TOO.contains(&file.as_str()) {
                    continue;
                }
                let mut test = self.cargo(&["test", "-p", "partita-system-tests", "--test", file]);
                // One machine at a time: a test has time limits, and another file is tested beside it.
                test.args(["--no-fail-fast", "--", "--test-threads=1"]).env("CONFIG", config);
                self.beside("system", &format!("system {kind} {config} {file}"), 35, test);
            }
        }
    }
}

fn official() -> Option<PathBuf> {
    env::var_os("MICROKIT_SDK").filter(|dir| !dir.is_empty()).map(PathBuf::from)
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
