//! Configurations, and the values of the SDK's description files.

/// A kernel configuration: it decides the invocation labels and what is compiled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Config {
    /// Printing, debug system calls, debug exceptions.
    Debug,
    /// None of them.
    Release,
}

/// A configuration value as `gen_config.json` writes it: a boolean, or a string (numbers are strings there).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Constant {
    /// `true` or `false`; in the header `1` or not defined.
    Bool(bool),
    /// A string, or a number written as a string; in the header without quotes.
    Text(&'static str),
}

/// `seL4_UserVSpaceTop` for 40-bit addresses, inclusive.
pub const fn user_top() -> u64 {
    0xff_ffff_ffff
}

/// `address_space_constants.json`.
pub const fn constants() -> [(&'static str, u64); 3] {
    [("page_table_index_bits", 9), ("vspace_user_top", user_top()), ("vspace_index_bits", 10)]
}

/// `object_sizes.json`, as powers of two. They are the ABI's figures (the debug TCB is the larger one), not what this
/// kernel's own objects take.
pub const fn object_sizes(config: Config) -> [(&'static str, u64); 16] {
    let tcb = match config {
        Config::Debug => 12,
        Config::Release => 11,
    };
    [
        ("tcb", tcb),
        ("endpoint", 4),
        ("notification", 6),
        ("small_page", 12),
        ("large_page", 21),
        ("asid_pool", 12),
        ("asid_table", 9),
        ("slot", 5),
        ("min_untyped_bits", 4),
        ("max_untyped_bits", 47),
        ("vspace", 13),
        ("reply", 5),
        ("vcpu", 12),
        ("page_table", 12),
        ("huge_page", 30),
        ("io_page_table", 12),
    ]
}

/// The part of `gen_config` that user programs depend on, sorted by name.
pub fn gen_config(config: Config) -> impl Iterator<Item = (&'static str, Constant)> {
    let debug = config == Config::Debug;
    ON.iter()
        .map(|&name| (name, Constant::Bool(true)))
        .chain(OFF.iter().map(|&name| (name, Constant::Bool(false))))
        .chain(TEXT.iter().map(|&(name, value)| (name, Constant::Text(value))))
        .chain(DEBUG_ONLY.iter().map(move |&name| (name, Constant::Bool(debug))))
        .chain(core::iter::once(("VERIFICATION_BUILD", Constant::Bool(!debug))))
        .chain(core::iter::once(("USER_STACK_TRACE_LENGTH", Constant::Text(if debug { "16" } else { "0" }))))
}

const DEBUG_ONLY: &[&str] =
    &["COLOUR_PRINTING", "DEBUG_BUILD", "HARDWARE_DEBUG_API", "IRQ_REPORTING", "PRINTING"];

const ON: &[&str] = &[
    "AARCH64_USER_CACHE_ENABLE",
    "ALLOW_SMC_CALLS",
    "ARCH_AARCH64",
    "ARCH_ARM",
    "ARCH_ARM_V8A",
    "ARM_CORTEX_A53",
    "ARM_HYPERVISOR_SUPPORT",
    "ARM_ICACHE_VIPT",
    "ARM_PA_SIZE_BITS_40",
    "ARM_TLS_REG_TPIDRU",
    "EXPORT_PCNT_USER",
    "EXPORT_PTMR_USER",
    "HAVE_FPU",
    "KERNEL_MCS",
    "NO_BENCHMARKS",
    "PLAT_QEMU_ARM_VIRT",
];

const OFF: &[&str] = &[
    "AARCH64_VSPACE_S2_START_L1",
    "ARCH_AARCH32",
    "ARCH_ARM_HYP",
    "ARCH_IA32",
    "ARCH_RISCV",
    "ARCH_RISCV32",
    "ARCH_RISCV64",
    "ARCH_X86",
    "ARCH_X86_64",
    "ARM_GIC_V3_SUPPORT",
    "ARM_PA_SIZE_BITS_44",
    "ARM_SMMU",
    "BENCHMARK_GENERIC",
    "BENCHMARK_TRACEPOINTS",
    "BENCHMARK_TRACK_KERNEL_ENTRIES",
    "BENCHMARK_TRACK_UTILISATION",
    "DANGEROUS_CODE_INJECTION",
    "DISABLE_WFI_WFE_TRAPS",
    "ENABLE_BENCHMARKS",
    "ENABLE_SMP_SUPPORT",
    "EXPORT_PMU_USER",
    "EXPORT_VCNT_USER",
    "EXPORT_VTMR_USER",
    "KERNEL_INVOCATION_REPORT_ERROR_IPC",
    "KERNEL_LOG_BUFFER",
    "SET_TLS_BASE_SELF",
    "TK1_SMMU",
    "VTIMER_UPDATE_VOFFSET",
];

const TEXT: &[(&str, &str)] = &[
    ("ARCH", "arm"),
    ("ARM_PLAT", "qemu-arm-virt"),
    ("KERNEL_BENCHMARK", "none"),
    ("L1_CACHE_LINE_SIZE_BITS", "6"),
    ("MAX_NUM_BOOTINFO_UNTYPED_CAPS", "230"),
    ("MAX_NUM_NODES", "1"),
    ("MAX_NUM_TRACE_POINTS", "0"),
    ("NUM_DOMAINS", "16"),
    ("NUM_DOMAIN_SCHEDULES", "100"),
    ("NUM_PRIORITIES", "256"),
    ("PADDR_USER_DEVICE_TOP", "1099511627776"),
    ("PLAT", "qemu-arm-virt"),
    ("RETYPE_FAN_OUT_LIMIT", "256"),
    ("ROOT_CNODE_SIZE_BITS", "17"),
    ("SEL4_ARCH", "aarch64"),
    ("TIMER_FREQUENCY", "62500000"),
    ("WORD_SIZE", "64"),
];
