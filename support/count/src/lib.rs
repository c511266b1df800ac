//! A TCG plugin for QEMU that counts executed instructions by who ran them: guest kernel, guest user, each PD, seL4.
//!
//! Why a plugin and not the guest's clock alone: with `-icount shift=0` virtual nanoseconds are instructions only while the
//! processor is busy; while it waits for the disk, virtual time follows the host. Counting what is executed is exact,
//! repeatable, tells who it was, and works the same on bare QEMU.
//!
//! Who ran an instruction follows from its address (see [`Class::of`]), which PD from the code itself (see [`programs`]). A
//! guest marks the ends of a measured window by executing `hint #127`, an unallocated hint: a no-op at every exception
//! level that no compiler emits. At each mark the counters are noted; at the end they are written to the file that the
//! argument `out=` names, a line a mark, after a line that names the columns. Programs are given as `pd=NAME:FILE`.
//!
//! With `strangers=guest` code at addresses of PDs that is in none of the programs counts as the guest's: its programs may be
//! linked there.
//!
//! With `stores=1` the bytes that seL4 and each PD store are counted as well: who copies what.
//!
//! With `profile=FILE` the blocks that ran since the last mark are written there as well, with how often they ran.

mod ffi;
mod programs;

use std::{
    collections::BTreeMap,
    ffi::{CStr, c_char, c_int, c_uint, c_void},
    fmt::Write as _,
    fs::File,
    io::{BufWriter, Write as _},
    ptr,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use ffi::{Api, Insn, PluginId, Tb, U64};
use programs::{PAGE, Program, Programs};

/// `hint #127`
const MARK: [u8; 4] = 0xd503_2fff_u32.to_le_bytes();

/// Who executes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
enum Class {
    /// seL4, real or embedded, and what starts it.
    Kernel = 0,
    /// The guest at EL1.
    GuestKernel = 1,
    /// The guest at EL0.
    GuestUser = 2,
    /// A protection domain. Its number among the programs is added; this one is for those that are none of them.
    Pd = 3,
}

/// Most counters: the classes, and the programs.
const SLOTS: usize = 64;

impl Class {
    /// By address: seL4 for hypervisors lives at 0x80_0000_0000 and up, the embedded kernel at its physical address, PDs
    /// below RAM's physical addresses, Linux at the top, and its position-independent programs far above all of these.
    const fn of(address: u64) -> Self {
        match address {
            0..0x4000_0000 => Self::Pd,
            0x4000_0000..0x1_0000_0000 | 0x80_0000_0000..0x100_0000_0000 => Self::Kernel,
            0xffff_8000_0000_0000.. => Self::GuestKernel,
            _ => Self::GuestUser,
        }
    }

    const fn is_guest(slot: usize) -> bool {
        slot == Self::GuestKernel as usize || slot == Self::GuestUser as usize
    }

    const fn is_pd(slot: usize) -> bool {
        slot >= Self::Pd as usize
    }
}

/// Slot of the block that ran last; one vCPU.
static LAST: AtomicUsize = AtomicUsize::new(Class::Kernel as usize);
/// Slot of the last block that was not the kernel's.
static LAST_USER: AtomicUsize = AtomicUsize::new(Class::GuestUser as usize);
/// Times the guest was left.
static EXITS: AtomicU64 = AtomicU64::new(0);
/// Times a PD was entered, from the kernel's return to a system call of its own as well.
static PD_ENTRIES: AtomicU64 = AtomicU64::new(0);
/// Times each PD was switched to from somebody else.
static RUNS: [AtomicU64; SLOTS] = [const { AtomicU64::new(0) }; SLOTS];

/// Bytes stored, by slot.
static STORED: [AtomicU64; SLOTS] = [const { AtomicU64::new(0) }; SLOTS];
/// `qemu_plugin_mem_size_shift`, once it is known.
static SIZE_SHIFT: OnceLock<unsafe extern "C" fn(u32) -> c_uint> = OnceLock::new();

/// One vCPU, so a load and a store do.
fn add(counter: &AtomicU64) {
    add_to(counter, 1);
}

fn add_to(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Relaxed) + more, Relaxed);
}

/// A block that was translated, for the profile.
struct Block {
    slot: usize,
    address: u64,
    instructions: usize,
    runs: &'static AtomicU64,
}

struct State {
    id: PluginId,
    api: Api,
    programs: Programs,
    counters: Vec<U64>,
    marks: Vec<Vec<u64>>,
    out: String,
    profile: Option<BufWriter<File>>,
    blocks: Vec<Block>,
    /// Stores are counted.
    stores: bool,
    /// What is in no program is the guest's.
    strangers: bool,
}

// SAFETY: the pointers in it belong to QEMU's scoreboards, which QEMU lets every thread use.
unsafe impl Send for State {}

static STATE: Mutex<Option<State>> = Mutex::new(None);

impl State {
    fn note(&mut self) {
        // SAFETY: the counters were made by `scoreboard_new` and live as long as QEMU.
        let mut line: Vec<u64> = self.counters.iter().map(|n| unsafe { (self.api.u64_sum)(*n) }).collect();
        line.extend([&EXITS, &PD_ENTRIES].map(|counter| counter.load(Relaxed)));
        let runs = RUNS.get(Class::Pd as usize..self.counters.len()).unwrap_or_default();
        line.extend(runs.iter().map(|counter| counter.load(Relaxed)));
        if self.stores {
            let stored = STORED.get(..self.counters.len()).unwrap_or_default();
            line.extend(stored.iter().map(|counter| counter.load(Relaxed)));
        }
        self.marks.push(line);
        if let Err(error) = self.note_profile() {
            eprintln!("count: cannot write the profile: {error}");
            self.profile = None;
        }
    }

    fn note_profile(&mut self) -> std::io::Result<()> {
        let Some(file) = &mut self.profile else { return Ok(()) };
        let names = names(&self.programs);
        let mut sums = BTreeMap::new();
        for block in &self.blocks {
            *sums.entry((block.slot, block.address, block.instructions)).or_insert(0) +=
                block.runs.swap(0, Relaxed);
        }
        writeln!(file, "mark {}", self.marks.len())?;
        for ((slot, address, instructions), runs) in sums.into_iter().filter(|(_, runs)| *runs != 0) {
            let name = names.get(slot).map_or("?", String::as_str);
            writeln!(file, "{name} {address:#x} {instructions} {runs}")?;
        }
        file.flush()
    }

    fn report(&self) -> String {
        let names = names(&self.programs);
        let runs = names.iter().skip(Class::Pd as usize).map(|name| format!("runs:{name}"));
        let stored = names.iter().filter(|_| self.stores).map(|name| format!("stored:{name}"));
        let columns: Vec<String> = names
            .iter()
            .cloned()
            .chain(["exits".into(), "pd_entries".into()])
            .chain(runs)
            .chain(stored)
            .collect();
        let mut text = format!("# {}\n", columns.join(" "));
        for mark in &self.marks {
            let words: Vec<String> = mark.iter().map(ToString::to_string).collect();
            // Writing to a string does not fail.
            let _ = writeln!(text, "{}", words.join(" "));
        }
        text
    }

    /// The slot of the code at `address`; `first` is the first instruction of a block there.
    ///
    /// # Safety
    /// `first` is what QEMU gives for a block that is being translated.
    unsafe fn slot(&mut self, address: u64, first: *mut Insn) -> usize {
        let class = Class::of(address);
        if class != Class::Pd || self.programs.list.is_empty() {
            return class as usize;
        }
        // SAFETY: by contract.
        let host = unsafe { (self.api.insn_haddr)(first) };
        if host.is_null() {
            return class as usize;
        }
        let offset = address as usize % PAGE;
        // SAFETY: QEMU has the machine's memory in pages of its own, of at least `PAGE` bytes, and aligned as the machine's.
        // This is a copy, as the machine may write it; it does not, while it runs from there.
        let page = unsafe { host.byte_sub(offset).cast::<[u8; PAGE]>().read_volatile() };
        let found = self.programs.of(address - offset as u64, host.addr() - offset, &page);
        let unknown = if self.strangers { Class::GuestUser } else { class };
        found.map_or(unknown as usize, |program| class as usize + 1 + program)
    }
}

/// Names of the slots.
fn names(programs: &Programs) -> Vec<String> {
    let own = ["kernel", "guest_kernel", "guest_user", "pd"].map(ToOwned::to_owned);
    own.into_iter().chain(programs.list.iter().map(|program| format!("pd:{}", program.name))).collect()
}

/// A block is about to run: has the world changed?
extern "C" fn block_runs(_vcpu: c_uint, slot: *mut c_void) {
    let slot = slot.addr();
    let last = LAST.load(Relaxed);
    if slot == last {
        return;
    }
    LAST.store(slot, Relaxed);
    if Class::is_guest(last) && !Class::is_guest(slot) {
        add(&EXITS);
    }
    if Class::is_pd(slot) {
        add(&PD_ENTRIES);
        if LAST_USER.load(Relaxed) != slot
            && let Some(runs) = RUNS.get(slot)
        {
            add(runs);
        }
    }
    if slot != Class::Kernel as usize {
        LAST_USER.store(slot, Relaxed);
    }
}

/// As [`block_runs`], for the profile.
extern "C" fn block_hit(_vcpu: c_uint, runs: *mut c_void) {
    // SAFETY: `block_translated` passes a counter that is never freed.
    add(unsafe { &*runs.cast::<AtomicU64>() });
}

/// A store of seL4 or a PD; `slot` is whose.
extern "C" fn stores(_vcpu: c_uint, info: u32, _address: u64, slot: *mut c_void) {
    if let (Some(stored), Some(shift)) = (STORED.get(slot.addr()), SIZE_SHIFT.get()) {
        // SAFETY: QEMU's function, with what QEMU gave.
        add_to(stored, 1 << unsafe { shift(info) });
    }
}

extern "C" fn mark_runs(_vcpu: c_uint, _: *mut c_void) {
    if let Some(state) = STATE.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
        state.note();
        if state.marks.len() == 1 {
            // SAFETY: `id` is ours; QEMU does the work when no vCPU runs.
            unsafe { (state.api.reset)(state.id, watch) };
        }
    }
}

/// Registers what watches the machine. QEMU translates a block once for all addresses that its page is mapped at, so what a
/// kernel ran at its physical address during boot would count for that address ever after: at the first mark everything
/// is forgotten and translated again.
extern "C" fn watch(id: PluginId) {
    if let Some(state) = STATE.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
        // SAFETY: the callbacks are functions of this library, which QEMU never unloads.
        unsafe {
            (state.api.register_tb_trans)(id, block_translated);
            (state.api.register_atexit)(id, ends, ptr::null_mut());
        }
    }
}

extern "C" fn block_translated(_id: PluginId, tb: *mut Tb) {
    let mut guard = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(state) = guard.as_mut() else { return };
    // SAFETY: QEMU calls this with a block that is valid during the call, and its functions are used with what they gave.
    unsafe {
        let address = (state.api.tb_vaddr)(tb);
        let count = (state.api.tb_n_insns)(tb);
        let slot = state.slot(address, (state.api.tb_get_insn)(tb, 0));
        let api = &state.api;
        let Some(counter) = state.counters.get(slot) else { return };
        (api.register_tb_exec)(tb, block_runs, ffi::NO_REGS, ptr::without_provenance_mut(slot));
        if state.profile.is_some() {
            let runs: &'static AtomicU64 = Box::leak(Box::new(AtomicU64::new(0)));
            (api.register_tb_exec)(tb, block_hit, ffi::NO_REGS, ptr::from_ref(runs).cast_mut().cast());
            state.blocks.push(Block { slot, address, instructions: count, runs });
        }
        for n in 0..count {
            let insn: *mut Insn = (api.tb_get_insn)(tb, n);
            // Each by itself: a block that an exception leaves early counts as far as it ran.
            (api.register_insn_add)(insn, ffi::ADD_U64, *counter, 1);
            if state.stores && !Class::is_guest(slot) {
                let slot = ptr::without_provenance_mut(slot);
                (api.register_mem)(insn, stores, ffi::NO_REGS, ffi::STORES, slot);
            }
            let mut bytes = [0_u8; 4];
            if (api.insn_data)(insn, bytes.as_mut_ptr().cast(), bytes.len()) == bytes.len() && bytes == MARK {
                (api.register_insn_exec)(insn, mark_runs, ffi::NO_REGS, ptr::null_mut());
            }
        }
    }
}

extern "C" fn ends(_id: PluginId, _: *mut c_void) {
    if let Some(state) = STATE.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
        // The last line is the end.
        state.note();
        if let Err(error) = std::fs::write(&state.out, state.report()) {
            eprintln!("count: cannot write {}: {error}", state.out);
        }
    }
}

/// What the arguments ask for.
#[derive(Debug, Default)]
struct Arguments {
    out: String,
    profile: Option<String>,
    stores: bool,
    strangers: bool,
    programs: Programs,
}

impl Arguments {
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut parsed = Self::default();
        for argument in arguments {
            match argument.split_once('=') {
                Some(("out", file)) => file.clone_into(&mut parsed.out),
                Some(("profile", file)) => parsed.profile = Some(file.to_owned()),
                Some(("stores", "1")) => parsed.stores = true,
                Some(("strangers", "guest")) => parsed.strangers = true,
                Some(("pd", program)) => parsed.programs.list.push(Program::open(program)?),
                _ => return Err(format!("unknown argument {argument}")),
            }
        }
        if parsed.out.is_empty() {
            return Err("needs the argument out=FILE".into());
        }
        if Class::Pd as usize + 1 + parsed.programs.list.len() > SLOTS {
            return Err("too many programs".into());
        }
        Ok(parsed)
    }
}

fn install(id: PluginId, arguments: impl Iterator<Item = String>) -> Result<(), String> {
    let Arguments { out, profile, stores, strangers, programs } = Arguments::parse(arguments)?;
    let api = Api::find().ok_or("needs QEMU 9.1 or newer")?;
    let open = |path: String| {
        File::create(&path).map(BufWriter::new).map_err(|error| format!("cannot write {path}: {error}"))
    };
    let profile = profile.map(open).transpose()?;
    let slots = Class::Pd as usize + 1 + programs.list.len();
    // SAFETY: called during installation, as QEMU demands; the element is a u64.
    let counter = |_| U64 { score: unsafe { (api.scoreboard_new)(size_of::<u64>()) }, offset: 0 };
    let counters = (0..slots).map(counter).collect();
    let _ = SIZE_SHIFT.set(api.mem_size_shift);
    let (marks, blocks) = (Vec::new(), Vec::new());
    let state = State { id, api, programs, counters, marks, out, profile, blocks, stores, strangers };
    *STATE.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
    watch(id);
    Ok(())
}

/// The plugin interface that this is written for: from QEMU 9.1.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "QEMU looks for this name")]
pub static qemu_plugin_version: c_int = 3;

/// QEMU calls this once, before the machine starts. 0 is success.
///
/// # Safety
///
/// Only QEMU may call it: `argv` must be `argc` strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(
    id: PluginId,
    _info: *const c_void,
    argc: c_int,
    argv: *mut *mut c_char,
) -> c_int {
    let arguments = (0..usize::try_from(argc).unwrap_or(0))
        // SAFETY: by contract there are `argc` strings.
        .map(|n| unsafe { CStr::from_ptr(*argv.add(n)) }.to_string_lossy().into_owned());
    match install(id, arguments) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("count: {error}");
            1
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_tell_who_runs() {
        for (address, class) in [
            (0x20_0000, Class::Pd),
            (0x7000_0000, Class::Kernel),
            (0x80_4000_1234, Class::Kernel),
            (0xffff_8000_0801_0000, Class::GuestKernel),
            (0xffff_ffff_ffff_fffc, Class::GuestKernel),
            (0xaaaa_d5f4_0000, Class::GuestUser),
            (0xffff_9000_0000, Class::GuestUser),
        ] {
            assert_eq!(Class::of(address), class, "{address:#x}");
        }
    }

    #[test]
    fn leaving_the_guest_and_entering_a_pd_are_counted() {
        const VMM: usize = Class::Pd as usize + 1;
        const BLK: usize = VMM + 1;
        let run = |slot: usize| block_runs(0, ptr::without_provenance_mut(slot));
        let [kernel, guest] = [Class::Kernel as usize, Class::GuestKernel as usize];
        let now = || {
            let runs = |slot: usize| RUNS[slot].load(Relaxed);
            (EXITS.load(Relaxed), PD_ENTRIES.load(Relaxed), runs(VMM), runs(BLK))
        };
        let before = now();
        // The VMM makes a system call, then blk runs, then the guest again.
        for slot in
            [Class::GuestUser as usize, guest, kernel, VMM, kernel, VMM, kernel, BLK, kernel, guest, kernel]
        {
            run(slot);
        }
        let after = now();
        assert_eq!((after.0 - before.0, after.1 - before.1), (2, 3));
        assert_eq!((after.2 - before.2, after.3 - before.3), (1, 1));
    }

    #[test]
    fn arguments_are_checked() {
        let parse = |list: &[&str]| Arguments::parse(list.iter().map(ToString::to_string));
        assert_eq!(parse(&["out=/x", "profile=/y"]).unwrap().profile.as_deref(), Some("/y"));
        assert!(parse(&["out=/x", "stores=1"]).unwrap().stores && !parse(&["out=/x"]).unwrap().stores);
        assert!(parse(&["out=/x", "strangers=guest"]).unwrap().strangers);
        assert!(parse(&["out=/x", "stores=2"]).is_err() && parse(&["out=/x", "strangers=pd"]).is_err());
        assert!(parse(&[]).is_err() && parse(&["out=/x", "what"]).is_err());
        assert!(parse(&["out=/x", "pd=vmm:/nonexistent"]).is_err());
    }
}
