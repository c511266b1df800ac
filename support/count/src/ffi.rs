//! QEMU's plugin interface, as its header `qemu-plugin.h` declares it (API version 3).
//!
//! The functions are looked up in the running program, so that this crate also links without QEMU (its tests).

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

/// `qemu_plugin_id_t`
pub type PluginId = u64;
/// `struct qemu_plugin_tb`
pub enum Tb {}
/// `struct qemu_plugin_insn`
pub enum Insn {}
/// `struct qemu_plugin_scoreboard`
pub enum Scoreboard {}

/// `qemu_plugin_u64`: a place in every element of a scoreboard.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct U64 {
    /// One element a vCPU.
    pub score: *mut Scoreboard,
    /// Of the counter in the element.
    pub offset: usize,
}

/// `QEMU_PLUGIN_CB_NO_REGS`
pub const NO_REGS: c_int = 0;
/// `QEMU_PLUGIN_INLINE_ADD_U64`
pub const ADD_U64: c_int = 0;

/// `QEMU_PLUGIN_MEM_W`
pub const STORES: c_int = 2;

/// `qemu_plugin_vcpu_mem_cb_t`: vCPU, `qemu_plugin_meminfo_t`, virtual address, what was passed.
pub type AccessCallback = extern "C" fn(c_uint, u32, u64, *mut c_void);

/// `qemu_plugin_vcpu_udata_cb_t`
pub type Callback = extern "C" fn(c_uint, *mut c_void);

/// Declares the table of functions and how each is found.
macro_rules! api {
    ($($field:ident = $name:literal: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// The functions that are used; their names without `qemu_plugin_`.
        pub struct Api {
            $(#[doc = $name] pub $field: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl Api {
            /// `None` if the program lacks one: it is no QEMU, or too old.
            pub fn find() -> Option<Self> {
                Some(Self {
                    $($field: {
                        const NAME: &str = concat!("qemu_plugin_", $name, "\0");
                        let function = symbol(NAME)?;
                        // SAFETY: QEMU's function of this name has this type.
                        unsafe {
                            std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($argument),*) $(-> $result)?>(function)
                        }
                    },)*
                })
            }
        }
    };
}

api! {
    register_tb_trans = "register_vcpu_tb_trans_cb": fn(PluginId, extern "C" fn(PluginId, *mut Tb));
    reset = "reset": fn(PluginId, extern "C" fn(PluginId));
    register_atexit = "register_atexit_cb": fn(PluginId, extern "C" fn(PluginId, *mut c_void), *mut c_void);
    register_tb_exec = "register_vcpu_tb_exec_cb": fn(*mut Tb, Callback, c_int, *mut c_void);
    register_insn_exec = "register_vcpu_insn_exec_cb": fn(*mut Insn, Callback, c_int, *mut c_void);
    register_mem = "register_vcpu_mem_cb": fn(*mut Insn, AccessCallback, c_int, c_int, *mut c_void);
    mem_size_shift = "mem_size_shift": fn(u32) -> c_uint;
    register_insn_add = "register_vcpu_insn_exec_inline_per_vcpu": fn(*mut Insn, c_int, U64, u64);
    tb_vaddr = "tb_vaddr": fn(*const Tb) -> u64;
    tb_n_insns = "tb_n_insns": fn(*const Tb) -> usize;
    tb_get_insn = "tb_get_insn": fn(*const Tb, usize) -> *mut Insn;
    insn_haddr = "insn_haddr": fn(*const Insn) -> *mut c_void;
    insn_data = "insn_data": fn(*const Insn, *mut c_void, usize) -> usize;
    scoreboard_new = "scoreboard_new": fn(usize) -> *mut Scoreboard;
    u64_sum = "u64_sum": fn(U64) -> u64;
}

/// A function of the running program.
fn symbol(name: &str) -> Option<*mut c_void> {
    unsafe extern "C" {
        fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    }
    let name = CStr::from_bytes_with_nul(name.as_bytes()).ok()?;
    // SAFETY: a null handle is RTLD_DEFAULT, the name ends with a zero byte.
    let found = unsafe { dlsym(std::ptr::null_mut(), name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_of_the_program_are_found_and_others_are_not() {
        assert!(symbol("malloc\0").is_some());
        assert!(symbol("qemu_plugin_there_is_none\0").is_none());
        assert!(symbol("no terminator").is_none());
        assert!(Api::find().is_none(), "this is no QEMU");
    }
}
