//! What no VMM can go on after: the guest must be stopped, with a line that says where, and nothing else happens.

use core::arch::asm;

use partita_protocol::MAX_DEVICES;
use partita_protocol::layout::guest;

use super::{Cases, Expect, Subject};
use crate::blk::BASE;
use crate::machine::{read, smc, write};
use crate::refused;

/// RAM of this guest ends here (16 MiB).
const RAM_END: u64 = 0x4100_0000;

/// What some processors do and others refuse.
pub const MAYBE: Subject = Subject {
    name: "cache maintenance and exclusives",
    expect: Expect::Either,
    cases: Cases::Named(&[
        ("DC ZVA of a register page", || refused!("mov x0, #0x0a000000", "dc zva, x0") != 1),
        ("DC IVAC of a register page", || refused!("mov x0, #0x0a000000", "dc ivac, x0") != 1),
        ("DC CIVAC of nothing", || refused!("mov x0, #0x10000000", "dc civac, x0") != 1),
        ("DC CVAC of the distributor", || refused!("mov x0, #0x08000000", "dc cvac, x0") != 1),
        ("IC IVAU of nothing", || refused!("mov x0, #0x10000000", "ic ivau, x0") != 1),
        ("PRFM of nothing", || refused!("mov x0, #0x10000000", "prfm pldl1keep, [x0]") != 1),
        ("AT S1E1W of nothing", || refused!("mov x0, #0x10000000", "at s1e1w, x0") != 1),
        ("LDXR of a register page", || refused!("mov x0, #0x0a000000", "ldxr w1, [x0]", "clrex") != 1),
        ("STXR to a register page", || {
            now("stxr");
            true
        }),
        ("LDP of a register page", || refused!("mov x0, #0x0a000000", "ldp w1, w2, [x0]") != 1),
        ("LDP across two devices' pages", || {
            refused!("mov x0, #0x0a000000", "add x0, x0, #0xff8", "ldp x1, x2, [x0]") != 1
        }),
        ("a word that is not aligned", || {
            refused!("mov x0, #0x0a000000", "add x0, x0, #0x71", "str wzr, [x0]") != 1
        }),
        ("a double word that is not aligned", || {
            refused!("mov x0, #0x0a000000", "add x0, x0, #0x74", "str xzr, [x0]") != 1
        }),
        ("a store to the page of a device that there is not", || {
            write(BASE + 0x3000, 1);
            true
        }),
        ("PSCI SYSTEM_RESET", || smc([0x8400_0009, 0, 0, 0]) != 0),
    ]),
};

/// The rest.
pub const SUBJECT: Subject = Subject {
    name: "fatal",
    expect: Expect::Ends,
    cases: Cases::Named(&[
        ("store to nothing", || store(0x1000_0000)),
        ("store to 0", || store(0)),
        ("load from nothing", || load(0x1000_0000)),
        ("store behind the devices' pages", || store(BASE + 0x1000 * MAX_DEVICES as u64)),
        ("load from the page of a device that there is not", || load(BASE + 0x3000)),
        ("load before the devices' pages", || load(BASE - 4)),
        ("store to the CPU interface's physical neighbour", || store(guest::GICC + guest::GICC_SIZE)),
        ("load behind the PL011", || load(guest::UART + 0x1000)),
        ("store below RAM", || store(guest::RAM - 4)),
        ("load above RAM", || load(RAM_END)),
        ("a load that is half above RAM", || load(RAM_END - 2)),
        ("STP to a register page", || now("pair")),
        ("a store with write-back to a register page", || now("write-back")),
        ("a load with write-back from the distributor", || now("write-back load")),
        ("LDP of the distributor", || now("ldp")),
        ("a vector store to a register page", || now("vector")),
        ("a vector load from the distributor", || now("vector load")),
        ("a stack in the middle of nothing", || now("stack")),
        ("a jump into nothing", || now("jump")),
        ("a jump into a device", || now("jump device")),
        ("a jump above RAM", || now("jump above")),
        ("a jump into the interrupt controller", || now("jump gic")),
        ("page tables in the middle of nothing", || now("tables")),
        ("page tables in a device", || now("tables device")),
        ("a page table that points to nothing", || now("table entry")),
        ("exception vectors in the middle of nothing", || now("vectors")),
        ("a load at the end of all addresses", || now("end")),
    ]),
};

fn store(address: u64) -> bool {
    write(address, 1);
    false
}

fn load(address: u64) -> bool {
    let _ = read(address);
    false
}

/// By name, for what takes more than an address.
fn now(what: &str) -> bool {
    // SAFETY: none: each of these ends the guest, or lets it go on having done nothing to what this program needs.
    unsafe {
        match what {
            "pair" => {
                asm!("stp wzr, wzr, [{}, #0x70]", in(reg) BASE);
            }
            "write-back" => asm!("str wzr, [{}], #4", inout(reg) BASE + 0x70 => _),
            "write-back load" => asm!("ldr wzr, [{}], #4", inout(reg) guest::GICD => _),
            "ldp" => asm!("ldp {1:w}, {2:w}, [{0}]", in(reg) guest::GICD, out(reg) _, out(reg) _),
            "stxr" => asm!("ldxr {1:w}, [{0}]", "stxr {1:w}, wzr, [{0}]", in(reg) BASE + 0x70, out(reg) _),
            // FP on; str q0, [x0].
            "vector" => {
                asm!("msr cpacr_el1, {0}", "isb", ".inst 0x3d800000", in(reg) 3u64 << 20, in("x0") BASE)
            }
            // ldr q0, [x0].
            "vector load" => {
                asm!("msr cpacr_el1, {0}", "isb", ".inst 0x3dc00000", in(reg) 3u64 << 20, in("x0") guest::GICD);
            }
            "stack" => {
                asm!("mov x9, sp", "mov sp, {0}", "stp x0, x1, [sp, #-16]!", "mov sp, x9", in(reg) 0x1000_0000u64, out("x9") _);
            }
            "jump" => jump(0x1000_0000),
            "jump device" => jump(BASE),
            "jump above" => jump(RAM_END),
            "jump gic" => jump(guest::GICD),
            "tables" => tables(0x1000_0000),
            "tables device" => tables(guest::GICD),
            "table entry" => {
                // The second GiB's entry names a table that is nowhere; translations of this program are in it.
                asm!(
                    "mrs x1, ttbr0_el1",
                    "str {0}, [x1, #8]",
                    "dsb sy",
                    "tlbi vmalle1",
                    "dsb sy",
                    "isb",
                    in(reg) 0x1000_0003u64, out("x1") _
                );
            }
            "vectors" => {
                off();
                asm!("msr vbar_el1, {}", "isb", "svc #0", in(reg) 0x1000_0000u64);
            }
            _ => {
                off();
                asm!("ldr {0}, [{0}]", inout(reg) 0xff_ffff_fff8u64 => _);
            }
        }
    }
    false
}

/// MMU off: every address is executable as far as the guest's own tables are concerned.
unsafe fn off() {
    // SAFETY: memory is mapped to itself.
    unsafe {
        asm!("mrs {0}, sctlr_el1", "bic {0}, {0}, #1", "msr sctlr_el1, {0}", "isb", out(reg) _);
    }
}

unsafe fn jump(address: u64) {
    // SAFETY: none; see `now`.
    unsafe {
        off();
        asm!("br {}", in(reg) address, options(noreturn));
    }
}

unsafe fn tables(address: u64) {
    // SAFETY: none; see `now`.
    unsafe {
        asm!("msr ttbr0_el1, {}", "isb", "tlbi vmalle1", "dsb sy", "isb", in(reg) address);
    }
}
