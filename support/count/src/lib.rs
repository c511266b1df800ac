//! A TCG plugin for QEMU that counts executed instructions by who ran them: guest kernel, guest user, PDs, seL4.
//!
//! Why a plugin and not the guest's clock alone: with `-icount shift=0` virtual nanoseconds are instructions only while the
//! processor is busy; while it waits for the disk, virtual time follows the host. Counting what is executed is exact,
//! repeatable, tells who it was, and works the same on bare QEMU.
//!
//! Who ran an instruction follows from its address (see [`Class::of`]). A guest marks the ends of a measured window by
//! executing `hint #127`, an unallocated hint: a no-op at every exception level that no compiler emits. At each mark the
//! counters are noted; at the end they are written to the file that the argument `out=` names, a line a mark.

mod ffi;

use std::{
    ffi::{CStr, c_char, c_int, c_uint, c_void},
    fmt::Write as _,
    ptr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use ffi::{Api, Insn, PluginId, Tb, U64};

/// `hint #127`
const MARK: [u8; 4] = 0xd503_2fff_u32.to_le_bytes();

/// Who executes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
enum Class {
    /// seL4, real or embedded, and what starts it.
    Kernel = 0,
    /// A protection domain.
    Pd = 1,
    /// The guest at EL1.
    GuestKernel = 2,
    /// The guest at EL0.
    GuestUser = 3,
}

const CLASSES: usize = 4;

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

    const fn is_guest(self) -> bool {
        matches!(self, Self::GuestKernel | Self::GuestUser)
    }

    const fn from_index(index: usize) -> Self {
        match index {
            0 => Self::Kernel,
            1 => Self::Pd,
            2 => Self::GuestKernel,
            _ => Self::GuestUser,
        }
    }
}

/// Class of the block that ran last; one vCPU.
static LAST: AtomicUsize = AtomicUsize::new(Class::Kernel as usize);
/// Times the guest was left.
static EXITS: AtomicU64 = AtomicU64::new(0);
/// Times a PD was entered.
static PD_ENTRIES: AtomicU64 = AtomicU64::new(0);

struct State {
    id: PluginId,
    api: Api,
    counters: [U64; CLASSES],
    marks: Vec<[u64; CLASSES + 2]>,
    out: String,
}

// SAFETY: the pointers in it belong to QEMU's scoreboards, which QEMU lets every thread use.
unsafe impl Send for State {}

static STATE: Mutex<Option<State>> = Mutex::new(None);

impl State {
    fn note(&mut self) {
        let mut line = [0; CLASSES + 2];
        for (value, counter) in line.iter_mut().zip(&self.counters) {
            // SAFETY: the counter was made by `scoreboard_new` and lives as long as QEMU.
            *value = unsafe { (self.api.u64_sum)(*counter) };
        }
        line[CLASSES] = EXITS.load(Relaxed);
        line[CLASSES + 1] = PD_ENTRIES.load(Relaxed);
        self.marks.push(line);
    }

    fn report(&self) -> String {
        let mut text = String::from("# kernel pd guest_kernel guest_user exits pd_entries\n");
        for mark in &self.marks {
            let words: Vec<String> = mark.iter().map(ToString::to_string).collect();
            // Writing to a string does not fail.
            let _ = writeln!(text, "{}", words.join(" "));
        }
        text
    }
}

/// A block is about to run: has the world changed?
extern "C" fn block_runs(_vcpu: c_uint, class: *mut c_void) {
    let class = class.addr();
    let last = LAST.load(Relaxed);
    if class != last {
        LAST.store(class, Relaxed);
        let (from, to) = (Class::from_index(last), Class::from_index(class));
        // One vCPU, so a load and a store do.
        if from.is_guest() && !to.is_guest() {
            EXITS.store(EXITS.load(Relaxed) + 1, Relaxed);
        }
        if to == Class::Pd {
            PD_ENTRIES.store(PD_ENTRIES.load(Relaxed) + 1, Relaxed);
        }
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
    let guard = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(state) = guard.as_ref() else { return };
    let api = &state.api;
    // SAFETY: QEMU calls this with a block that is valid during the call, and its functions are used with what they gave.
    unsafe {
        let class = Class::of((api.tb_vaddr)(tb));
        (api.register_tb_exec)(tb, block_runs, ffi::NO_REGS, ptr::without_provenance_mut(class as usize));
        for n in 0..(api.tb_n_insns)(tb) {
            let insn: *mut Insn = (api.tb_get_insn)(tb, n);
            // Each by itself: a block that an exception leaves early counts as far as it ran.
            (api.register_insn_add)(insn, ffi::ADD_U64, state.counters[class as usize], 1);
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
    let mut out = None;
    for n in 0..usize::try_from(argc).unwrap_or(0) {
        // SAFETY: by contract there are `argc` strings.
        let argument = unsafe { CStr::from_ptr(*argv.add(n)) }.to_string_lossy().into_owned();
        out = argument.strip_prefix("out=").map(ToOwned::to_owned).or(out);
    }
    let (Some(out), Some(api)) = (out, Api::find()) else {
        eprintln!("count: needs the argument out=FILE and QEMU 9.1 or newer");
        return 1;
    };
    let mut counters = [U64::NONE; CLASSES];
    for counter in &mut counters {
        // SAFETY: called during installation, as QEMU demands; the element is a u64.
        counter.score = unsafe { (api.scoreboard_new)(size_of::<u64>()) };
    }
    *STATE.lock().unwrap_or_else(PoisonError::into_inner) =
        Some(State { id, api, counters, marks: Vec::new(), out });
    watch(id);
    0
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
            assert_eq!(Class::from_index(class as usize), class);
        }
    }

    #[test]
    fn leaving_the_guest_and_entering_a_pd_are_counted() {
        let run = |class: Class| block_runs(0, ptr::without_provenance_mut(class as usize));
        let (exits, entries) = (EXITS.load(Relaxed), PD_ENTRIES.load(Relaxed));
        for class in
            [Class::GuestUser, Class::GuestKernel, Class::Kernel, Class::Pd, Class::Kernel, Class::Pd]
        {
            run(class);
        }
        run(Class::Kernel);
        run(Class::GuestKernel);
        run(Class::Kernel);
        assert_eq!((EXITS.load(Relaxed) - exits, PD_ENTRIES.load(Relaxed) - entries), (2, 2));
    }
}
