//! The SDK around the packer: boards, configurations and the facts about their kernel.
//!
//! The packer is `bin/microkit` of an SDK, or is pointed at one by `MICROKIT_SDK`. What it must know of a board is in the
//! SDK's own files, in the official format, so that nothing is written down twice.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Page sizes of AArch64 user mappings.
pub const PAGE_SIZES: [u64; 2] = [0x1000, 0x20_0000];

/// Facts about one board in one configuration.
#[derive(Clone, Debug)]
pub struct Board {
    /// Greatest user address, inclusive.
    pub user_top: u64,
    /// Cores the kernel runs on.
    pub cores: u64,
    /// Number of scheduling domains.
    pub domains: u64,
    /// Length of the domain schedule.
    pub domain_schedules: u64,
    /// Whether the kernel has a domain scheduler at all (the embedded one has none).
    pub domain_scheduler: bool,
    /// Whether user code may be allowed secure monitor calls.
    pub smc: bool,
    /// PDs hold their own TCB.
    pub benchmark: bool,
    /// Device memory, kernel devices left out.
    pub devices: Vec<Range<u64>>,
    /// RAM.
    pub memory: Vec<Range<u64>>,
    /// Physical ranges of the kernel, with a word about each.
    pub reserved: Vec<(Range<u64>, &'static str)>,
    /// Greatest period in microseconds that the kernel accepts.
    pub max_period: u64,
    /// Greatest interrupt number.
    pub max_irq: u64,
    /// Interrupts of the kernel, with a word about each.
    pub reserved_irqs: Vec<(u64, &'static str)>,
    /// log2 of the bytes of kernel objects, for the report.
    pub sizes: ObjectSizes,
}

/// log2 of the bytes of kernel objects.
#[derive(Clone, Copy, Debug)]
pub struct ObjectSizes {
    /// TCB.
    pub tcb: u8,
    /// Endpoint.
    pub endpoint: u8,
    /// Notification.
    pub notification: u8,
    /// Reply object.
    pub reply: u8,
    /// Root page table.
    pub vspace: u8,
    /// Page table.
    pub page_table: u8,
    /// Virtual CPU.
    pub vcpu: u8,
}

impl Board {
    /// Address of every PD's IPC buffer.
    pub fn ipc_buffer(&self) -> u64 {
        self.user_top & !(PAGE_SIZES[0] - 1)
    }
    /// Top of every PD's stack: below the IPC buffer and a guard page.
    pub fn stack_top(&self) -> u64 {
        self.ipc_buffer() - PAGE_SIZES[0]
    }

    /// qemu_virt_aarch64, for tests and fuzzing.
    pub fn qemu_virt() -> Self {
        Self {
            user_top: 0xff_ffff_ffff,
            cores: 1,
            domains: 16,
            domain_schedules: 100,
            domain_scheduler: false,
            smc: true,
            benchmark: false,
            devices: vec![
                0..0x800_0000,
                0x800_1000..0x801_0000,
                0x801_1000..0x803_0000,
                0x803_1000..0x6000_0000,
                0xc000_0000..0x100_0000_0000,
            ],
            memory: vec![Range { start: 0x6000_0000, end: 0xc000_0000 }],
            reserved: Vec::new(),
            max_period: max_period(62_500_000),
            max_irq: 159,
            reserved_irqs: RESERVED_IRQS.to_vec(),
            sizes: ObjectSizes {
                tcb: 12,
                endpoint: 4,
                notification: 6,
                reply: 5,
                vspace: 13,
                page_table: 12,
                vcpu: 12,
            },
        }
    }
}

/// seL4 refuses more than an eighth of what 64 bits of timer ticks can hold.
fn max_period(frequency: u64) -> u64 {
    u64::MAX / (frequency / 1000).max(1) / 8
}

const RESERVED_IRQS: [(u64, &str); 3] =
    [(25, "GIC maintenance"), (26, "hypervisor timer"), (27, "virtual timer")];

/// An SDK directory.
#[derive(Clone, Debug)]
pub struct Sdk {
    /// Its root.
    pub root: PathBuf,
    /// Boards with their configurations, sorted.
    pub boards: Vec<(String, Vec<String>)>,
}

impl Sdk {
    /// Finds the SDK: `MICROKIT_SDK`, else the directory above that of the executable.
    pub fn discover() -> Result<Self, String> {
        let root = match std::env::var_os("MICROKIT_SDK") {
            Some(path) => {
                let path = PathBuf::from(path);
                if !path.is_dir() {
                    return Err(format!("the MICROKIT_SDK directory '{}' does not exist", path.display()));
                }
                path
            }
            None => {
                let exe = std::env::current_exe()
                    .map_err(|error| format!("could not determine the executable's path: {error}"))?;
                match exe.parent().and_then(Path::parent) {
                    Some(root) => root.to_owned(),
                    None => {
                        return Err(format!("there is no SDK around '{}': set MICROKIT_SDK", exe.display()));
                    }
                }
            }
        };
        Self::open(root)
    }

    /// Opens the SDK at `root`.
    pub fn open(root: PathBuf) -> Result<Self, String> {
        let dir = root.join("board");
        if !dir.is_dir() {
            return Err(format!(
                "the SDK directory does not have a 'board' sub-directory at '{}'",
                dir.display()
            ));
        }
        let mut boards = Vec::new();
        for board in directories(&dir)? {
            let configs = directories(&dir.join(&board))?;
            boards.push((board, configs));
        }
        Ok(Self { root, boards })
    }

    /// Directory of a configuration.
    pub fn config_dir(&self, board: &str, config: &str) -> PathBuf {
        self.root.join("board").join(board).join(config)
    }

    /// Reads the facts of a board.
    pub fn board(&self, board: &str, config: &str) -> Result<Board, String> {
        read_board(&self.config_dir(board, config), config)
    }
}

fn directories(dir: &Path) -> Result<Vec<String>, String> {
    let failed = |error| format!("the directory '{}' could not be read: {error}", dir.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.path().is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// A JSON file with errors that name it.
struct Json {
    path: PathBuf,
    value: Value,
}

impl Json {
    fn read(path: PathBuf) -> Result<Self, String> {
        let text = fs::read_to_string(&path)
            .map_err(|error| format!("could not read '{}': {error}", path.display()))?;
        let value = serde_json::from_str(&text)
            .map_err(|error| format!("could not parse '{}': {error}", path.display()))?;
        Ok(Self { path, value })
    }

    fn missing(&self, key: &str, what: &str) -> String {
        format!("'{}' has no {what} '{key}'", self.path.display())
    }

    /// A number, written as one or as a string.
    fn number(&self, key: &str) -> Result<u64, String> {
        let value = self.value.get(key);
        value
            .and_then(Value::as_u64)
            .or_else(|| value.and_then(Value::as_str).and_then(|text| text.parse().ok()))
            .ok_or_else(|| self.missing(key, "number"))
    }

    fn bits(&self, key: &str) -> Result<u8, String> {
        self.number(key)?.try_into().ok().filter(|bits| *bits < 48).ok_or_else(|| self.missing(key, "size"))
    }

    fn boolean(&self, key: &str) -> Result<bool, String> {
        self.value.get(key).and_then(Value::as_bool).ok_or_else(|| self.missing(key, "boolean"))
    }

    fn ranges(&self, key: &str) -> Result<Vec<Range<u64>>, String> {
        let range = |value: &Value| Some(value.get("start")?.as_u64()?..value.get("end")?.as_u64()?);
        let list = self.value.get(key).and_then(Value::as_array);
        list.and_then(|list| list.iter().map(range).collect()).ok_or_else(|| self.missing(key, "ranges"))
    }
}

fn read_board(dir: &Path, config_name: &str) -> Result<Board, String> {
    let config = Json::read(dir.join("include/kernel/gen_config.json"))?;
    if config.value.get("SEL4_ARCH").and_then(Value::as_str) != Some("aarch64") {
        return Err(format!("'{}' is not for AArch64, the only architecture of this packer", dir.display()));
    }
    let address_space = Json::read(dir.join("address_space_constants.json"))?;
    let platform = Json::read(dir.join("platform_gen.json"))?;
    let sizes = Json::read(dir.join("object_sizes.json"))?;
    let user_top = address_space.number("vspace_user_top")?;
    if !(0x1_0000_0000..1 << 48).contains(&user_top) {
        return Err(address_space.missing("vspace_user_top", "sensible"));
    }
    Ok(Board {
        user_top,
        cores: if config.boolean("ENABLE_SMP_SUPPORT")? { config.number("MAX_NUM_NODES")? } else { 1 },
        domains: config.number("NUM_DOMAINS")?,
        domain_schedules: config.number("NUM_DOMAIN_SCHEDULES")?,
        domain_scheduler: false,
        smc: config.boolean("ALLOW_SMC_CALLS")?,
        benchmark: config_name == "benchmark",
        devices: platform.ranges("devices")?,
        memory: platform.ranges("memory")?,
        reserved: Vec::new(),
        max_period: max_period(config.number("TIMER_FREQUENCY")?),
        max_irq: 159,
        reserved_irqs: RESERVED_IRQS.to_vec(),
        sizes: ObjectSizes {
            tcb: sizes.bits("tcb")?,
            endpoint: sizes.bits("endpoint")?,
            notification: sizes.bits("notification")?,
            reply: sizes.bits("reply")?,
            vspace: sizes.bits("vspace")?,
            page_table: sizes.bits("page_table")?,
            vcpu: sizes.bits("vcpu")?,
        },
    })
}
