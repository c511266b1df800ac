//! Finds and reads the files of a Microkit SDK that describe its kernel.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs};

use serde_json::Value as Json;

/// Releases whose system-call interface this crate was checked against.
const SUPPORTED: &str = "2.3";

/// Labels that the crates above use: an SDK without one of them is of another kind.
const REQUIRED: [&str; 24] = [
    "TCBReadRegisters",
    "TCBWriteRegisters",
    "TCBCopyRegisters",
    "TCBSetPriority",
    "TCBSetMCPriority",
    "TCBSetSchedParams",
    "TCBSetTimeoutEndpoint",
    "TCBSuspend",
    "TCBResume",
    "TCBBindNotification",
    "TCBUnbindNotification",
    "TCBSetTLSBase",
    "TCBSetFlags",
    "IRQAckIRQ",
    "SchedContextBind",
    "SchedContextUnbind",
    "SchedContextConsumed",
    "SchedContextYieldTo",
    "ARMVSpaceClean_Data",
    "ARMSMCCall",
    "ARMVCPUInjectIRQ",
    "ARMVCPUReadReg",
    "ARMVCPUWriteReg",
    "ARMVCPUAckVPPI",
];

/// Order of the labels in a debug kernel, from 1, for host tests and documentation.
const DEBUG_ORDER: [&str; 65] = [
    "UntypedRetype",
    "TCBReadRegisters",
    "TCBWriteRegisters",
    "TCBCopyRegisters",
    "TCBConfigure",
    "TCBSetPriority",
    "TCBSetMCPriority",
    "TCBSetSchedParams",
    "TCBSetTimeoutEndpoint",
    "TCBSetIPCBuffer",
    "TCBSetSpace",
    "TCBSuspend",
    "TCBResume",
    "TCBBindNotification",
    "TCBUnbindNotification",
    "TCBSetBreakpoint",
    "TCBGetBreakpoint",
    "TCBUnsetBreakpoint",
    "TCBConfigureSingleStepping",
    "TCBSetTLSBase",
    "TCBSetFlags",
    "CNodeRevoke",
    "CNodeDelete",
    "CNodeCancelBadgedSends",
    "CNodeCopy",
    "CNodeMint",
    "CNodeMove",
    "CNodeMutate",
    "CNodeRotate",
    "IRQIssueIRQHandler",
    "IRQAckIRQ",
    "IRQSetIRQHandler",
    "IRQClearIRQHandler",
    "DomainSetSet",
    "DomainScheduleConfigure",
    "DomainScheduleSetStart",
    "SchedControlConfigureFlags",
    "SchedContextBind",
    "SchedContextUnbind",
    "SchedContextUnbindObject",
    "SchedContextConsumed",
    "SchedContextYieldTo",
    "ARMVSpaceClean_Data",
    "ARMVSpaceInvalidate_Data",
    "ARMVSpaceCleanInvalidate_Data",
    "ARMVSpaceUnify_Instruction",
    "ARMSMCCall",
    "ARMPageTableMap",
    "ARMPageTableUnmap",
    "ARMPageMap",
    "ARMPageUnmap",
    "ARMPageClean_Data",
    "ARMPageInvalidate_Data",
    "ARMPageCleanInvalidate_Data",
    "ARMPageUnify_Instruction",
    "ARMPageGetAddress",
    "ARMASIDControlMakePool",
    "ARMASIDPoolAssign",
    "ARMVCPUSetTCB",
    "ARMVCPUInjectIRQ",
    "ARMVCPUReadReg",
    "ARMVCPUWriteReg",
    "ARMVCPUAckVPPI",
    "ARMIRQIssueIRQHandlerTrigger",
    "ARMIRQIssueSGISignal",
];

/// A kernel configuration value.
pub enum Value {
    Bool(bool),
    Text(String),
}

/// What a PD must know of its kernel at build time.
pub struct Sdk {
    pub labels: BTreeMap<String, u32>,
    pub config: BTreeMap<String, Value>,
    pub user_top: u64,
    pub files: Vec<PathBuf>,
}

impl Sdk {
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.config.get(name), Some(Value::Bool(true)))
    }

    fn text(&self, name: &str) -> &str {
        match self.config.get(name) {
            Some(Value::Text(text)) => text,
            _ => "",
        }
    }
}

/// The include directory that the environment names, or `None` if it names none.
pub fn locate() -> Result<Option<PathBuf>, String> {
    let (name, candidates): (_, Vec<PathBuf>) = if let Some(list) = set("SEL4_INCLUDE_DIRS") {
        ("SEL4_INCLUDE_DIRS", env::split_paths(&list).collect())
    } else if let Some(prefix) = set("SEL4_PREFIX") {
        let prefix = PathBuf::from(prefix);
        ("SEL4_PREFIX", vec![prefix.join("include"), prefix.join("libsel4/include")])
    } else {
        return Ok(None);
    };
    let found = candidates.iter().find(|dir| dir.join("kernel/gen_config.json").is_file());
    match found {
        Some(dir) => Ok(Some(dir.clone())),
        None => Err(format!(
            "{name}: no kernel/gen_config.json in {}; it should be <microkit SDK>/board/<board>/<config>/include",
            candidates.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(" or ")
        )),
    }
}

/// Reads everything below and beside an include directory, and refuses a kernel this crate is not for.
pub fn read(include: &Path) -> Result<Sdk, String> {
    let board = include.parent().ok_or_else(|| format!("{}: has no parent directory", include.display()))?;
    check_version(board)?;
    let files = [
        include.join("kernel/gen_config.json"),
        board.join("invocations_all.json"),
        board.join("address_space_constants.json"),
    ];
    let [config, labels, space] = &files;
    let sdk = Sdk {
        config: read_config(config)?,
        labels: read_labels(labels)?,
        user_top: object(space)?
            .get("vspace_user_top")
            .and_then(Json::as_u64)
            .ok_or_else(|| format!("{}: no number `vspace_user_top`", space.display()))?,
        files: files.to_vec(),
    };
    for key in ["ARCH_AARCH64", "KERNEL_MCS", "ARM_HYPERVISOR_SUPPORT"] {
        if !sdk.flag(key) {
            return Err(format!("{}: {key} is not true; this kernel cannot run Partita", config.display()));
        }
    }
    if sdk.flag("KERNEL_INVOCATION_REPORT_ERROR_IPC") || sdk.flag("SET_TLS_BASE_SELF") {
        return Err(format!("{}: a Microkit kernel was expected", config.display()));
    }
    if sdk.text("WORD_SIZE") != "64" {
        return Err(format!("{}: WORD_SIZE is not 64", config.display()));
    }
    for name in REQUIRED {
        if !sdk.labels.contains_key(name) {
            return Err(format!("{}: no label `{name}`", labels.display()));
        }
    }
    Ok(sdk)
}

/// The numbers of a debug kernel for Cortex-A53, for builds that never meet a kernel.
pub fn host_default() -> Sdk {
    let labels = DEBUG_ORDER.iter().zip(1..).map(|(name, number)| (name.to_string(), number)).collect();
    let yes = ["ARCH_AARCH64", "KERNEL_MCS", "ARM_HYPERVISOR_SUPPORT", "DEBUG_BUILD", "HARDWARE_DEBUG_API"];
    let no = ["ARM_GIC_V3_SUPPORT", "ENABLE_BENCHMARKS", "ENABLE_SMP_SUPPORT"];
    let mut config = BTreeMap::new();
    config.extend(yes.map(|name| (name.to_string(), Value::Bool(true))));
    config.extend(no.map(|name| (name.to_string(), Value::Bool(false))));
    config.insert("PRINTING".into(), Value::Bool(true));
    config.insert("MAX_NUM_NODES".into(), Value::Text("1".into()));
    config.insert("WORD_SIZE".into(), Value::Text("64".into()));
    Sdk { labels, config, user_top: 0xff_ffff_ffff, files: Vec::new() }
}

/// The SDK's VERSION file, three levels above the board's configuration; absent beside a kernel built by hand.
fn check_version(board: &Path) -> Result<(), String> {
    let Some(file) = board.ancestors().nth(3).map(|root| root.join("VERSION")) else { return Ok(()) };
    let Ok(text) = fs::read_to_string(&file) else { return Ok(()) };
    let version = text.trim();
    if version == SUPPORTED || version.starts_with(&format!("{SUPPORTED}.")) {
        return Ok(());
    }
    Err(format!("{}: Microkit SDK {version} is not supported; use {SUPPORTED}.x", file.display()))
}

fn read_config(path: &Path) -> Result<BTreeMap<String, Value>, String> {
    let mut config = BTreeMap::new();
    for (name, value) in object(path)? {
        let value = match value {
            Json::Bool(value) => Value::Bool(value),
            Json::String(value) => Value::Text(value),
            other => {
                return Err(format!("{}: `{name}` is {other}, not text or a truth value", path.display()));
            }
        };
        check_name(path, &name)?;
        config.insert(name, value);
    }
    Ok(config)
}

fn read_labels(path: &Path) -> Result<BTreeMap<String, u32>, String> {
    let mut labels = BTreeMap::new();
    for (name, value) in object(path)? {
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        let number = number.ok_or_else(|| format!("{}: `{name}` is not a label number", path.display()))?;
        check_name(path, &name)?;
        labels.insert(name, number);
    }
    Ok(labels)
}

fn check_name(path: &Path, name: &str) -> Result<(), String> {
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !name.is_empty() && name.chars().all(letter) && !name.starts_with(|c: char| c.is_ascii_digit()) {
        return Ok(());
    }
    Err(format!("{}: `{name}` is not an identifier", path.display()))
}

fn object(path: &Path) -> Result<serde_json::Map<String, Json>, String> {
    let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    match serde_json::from_str(&text) {
        Ok(Json::Object(map)) => Ok(map),
        Ok(_) => Err(format!("{}: a JSON object was expected", path.display())),
        Err(e) => Err(format!("{}: {e}", path.display())),
    }
}

fn set(name: &str) -> Option<std::ffi::OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}
