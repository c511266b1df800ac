//! The machine, the kernel's one instance, and the handlers the vectors call.

use core::cell::UnsafeCell;
use core::fmt::Write;
use core::mem::MaybeUninit;
use core::panic::PanicInfo;

use partita_kernel::abi::{BUILD, Config};
use partita_kernel::boot::{self, BootError, Description};
use partita_kernel::context::Context;
use partita_kernel::debug::Console;
use partita_kernel::fault::Fault;
use partita_kernel::hal::{CacheOp, Cpu, Machine, Memory, Virtual};
use partita_kernel::id::{Id, TcbId, VSpaceId};
use partita_kernel::image::{Header, mapping};
use partita_kernel::kernel::Kernel;
use partita_kernel::stage2;
use partita_kernel::vcpu::{Vcpu, irq};

use super::arena::Pool;
use super::regs::{dsb, isb, read, write};
use super::{RAM, cache, fpu, gic, mmu, uart, virt};

/// This board's hardware, and what belongs to it per object.
pub struct Board {
    vspaces: &'static mut [u64],
    fpu: &'static mut [fpu::State],
    list_registers: usize,
    guest: bool,
}

impl Machine for Board {
    #[inline(always)]
    fn now(&self) -> u64 {
        read!("cntpct_el0")
    }
    #[inline(always)]
    fn set_deadline(&mut self, time: u64) {
        write!("cnthp_cval_el2", time);
    }
    #[inline(always)]
    fn enable_irq(&mut self, irq: u32, on: bool) {
        gic::enable(irq, on);
    }
    fn put_char(&mut self, byte: u8) {
        uart::put(byte);
    }
    fn halt(&mut self) {
        halt();
    }
    fn smc(&mut self, r: [u64; 8]) -> [u64; 8] {
        let [mut x0, mut x1, mut x2, mut x3, mut x4, mut x5, mut x6, mut x7] = r;
        // SAFETY: the caller holds the SMC capability: its PD is trusted with the firmware's functions.
        unsafe {
            core::arch::asm!(
                "smc #0",
                inout("x0") x0, inout("x1") x1, inout("x2") x2, inout("x3") x3,
                inout("x4") x4, inout("x5") x5, inout("x6") x6, inout("x7") x7,
                out("x8") _, out("x9") _, out("x10") _, out("x11") _, out("x12") _, out("x13") _,
                out("x14") _, out("x15") _, out("x16") _, out("x17") _,
                options(nostack)
            );
        }
        [x0, x1, x2, x3, x4, x5, x6, x7]
    }
}

impl Memory for Board {
    #[inline(always)]
    fn read(&self, paddr: u64) -> u64 {
        // SAFETY: a word of an IPC buffer, checked at boot to be in RAM that no Rust object is in.
        unsafe { core::ptr::with_exposed_provenance::<u64>(paddr as usize).read_volatile() }
    }
    #[inline(always)]
    fn write(&mut self, paddr: u64, value: u64) {
        // SAFETY: as above.
        unsafe { core::ptr::with_exposed_provenance_mut::<u64>(paddr as usize).write_volatile(value) }
    }
    fn translate(&self, vspace: VSpaceId, vaddr: u64) -> Option<(u64, u64)> {
        let root = *self.vspaces.get(vspace.index())? & 0xff_ffff_fffe;
        // SAFETY: descriptors of tables that boot built.
        let descriptor =
            |paddr: u64| unsafe { core::ptr::with_exposed_provenance::<u64>(paddr as usize).read() };
        // Device pages need no maintenance, and are not mapped cacheable here.
        stage2::walk(descriptor, root, vaddr).filter(|(paddr, _)| RAM.contains(paddr))
    }
    fn maintain(&mut self, op: CacheOp, paddr: u64, bytes: u64) {
        cache::maintain(op, paddr, bytes);
    }
}

impl Cpu for Board {
    #[inline(always)]
    fn save(&mut self, context: &mut Context) {
        context.tpidr = read!("tpidr_el0");
        context.tpidrro = read!("tpidrro_el0");
    }
    #[inline(always)]
    fn load(&mut self, context: &Context, vspace: VSpaceId) {
        write!("tpidr_el0", context.tpidr);
        write!("tpidrro_el0", context.tpidrro);
        if let Some(vttbr) = self.vspaces.get(vspace.index()) {
            write!("vttbr_el2", *vttbr);
        }
    }
    fn switch_fpu(&mut self, from: Option<TcbId>, to: TcbId) {
        match from {
            Some(from) => {
                if let Ok([old, new]) = self.fpu.get_disjoint_mut([from.index(), to.index()]) {
                    fpu::switch(Some(old), new);
                }
            }
            None => {
                if let Some(new) = self.fpu.get(to.index()) {
                    fpu::switch(None, new);
                }
            }
        }
    }
    #[inline(always)]
    fn enable_fpu(&mut self, on: bool) {
        fpu::enable(on);
    }
}

impl Virtual for Board {
    #[inline(always)]
    fn list_registers(&self) -> usize {
        self.list_registers
    }
    fn read_field(&self, field: usize) -> u64 {
        virt::read_field(field)
    }
    fn write_field(&mut self, field: usize, value: u64) {
        virt::write_field(field, value);
    }
    #[inline(always)]
    fn read_lr(&self, index: usize) -> u32 {
        virt::read_lr(index)
    }
    #[inline(always)]
    fn write_lr(&mut self, index: usize, value: u32) {
        virt::write_lr(index, value);
    }
    #[inline(always)]
    fn maintenance(&self) -> (u32, u32) {
        virt::maintenance()
    }
    fn save_all(&mut self, vcpu: &mut Vcpu) {
        virt::save_all(vcpu, self.list_registers);
    }
    fn load_all(&mut self, vcpu: &Vcpu) {
        virt::load_all(vcpu, self.list_registers);
    }
    #[inline(always)]
    fn activate(&mut self, vcpu: &Vcpu) {
        virt::activate(vcpu);
        self.guest = true;
    }
    #[inline(always)]
    fn deactivate(&mut self, vcpu: &mut Vcpu) {
        virt::deactivate(vcpu);
        self.guest = false;
    }
    fn flush_translations(&mut self) {
        virt::flush_translations();
    }
}

struct Instance(UnsafeCell<MaybeUninit<Kernel<'static, Board>>>);

// SAFETY: one CPU, interrupts masked in the kernel: `kernel` is called once per kernel entry.
unsafe impl Sync for Instance {}

static INSTANCE: Instance = Instance(UnsafeCell::new(MaybeUninit::uninit()));

/// Physical address of the boot description; the packer writes it.
#[unsafe(no_mangle)]
#[used]
#[unsafe(link_section = ".data")]
static partita_boot_description: Word = Word(UnsafeCell::new(0));

#[repr(transparent)]
struct Word(UnsafeCell<u64>);

// SAFETY: written by the packer, only read here.
unsafe impl Sync for Word {}

/// The kernel.
///
/// # Safety
/// After `kernel_start`, once per kernel entry: the reference must be the only one.
#[inline(always)]
unsafe fn kernel() -> &'static mut Kernel<'static, Board> {
    // SAFETY: initialised by `kernel_start`; the caller promises the rest.
    unsafe { (*INSTANCE.0.get()).assume_init_mut() }
}

/// Prints whatever the configuration.
struct LastWords;

impl Machine for LastWords {
    fn now(&self) -> u64 {
        0
    }
    fn set_deadline(&mut self, _: u64) {}
    fn enable_irq(&mut self, _: u32, _: bool) {}
    fn put_char(&mut self, byte: u8) {
        uart::put(byte);
    }
    fn halt(&mut self) {}
    fn smc(&mut self, registers: [u64; 8]) -> [u64; 8] {
        registers
    }
}

unsafe extern "C" {
    static vectors: u8;
}

/// From the assembly: makes everything and returns the first thread's context.
#[unsafe(no_mangle)]
extern "C" fn kernel_start() -> *mut Context {
    mmu::init();
    write!("vbar_el2", &raw const vectors as u64);
    gic::init();
    let list_registers = virt::init();
    fpu::enable(true);
    // VTCR_EL2: 40-bit addresses, 4 KiB granule, start at level 1 (two tables), write-back walks.
    write!("vtcr_el2", 1 << 31 | 2 << 16 | 3 << 12 | 1 << 10 | 1 << 8 | 1 << 6 | 24);
    match build(list_registers) {
        Ok(kernel) => {
            // SAFETY: the first and only writer; `kernel` has not been called yet.
            unsafe { (*INSTANCE.0.get()).write(kernel) };
        }
        Err(error) => {
            let _ = writeln!(Console(&mut LastWords), "kernel: boot description is not usable: {error:?}");
            halt();
        }
    }
    // SAFETY: initialised above; the only reference.
    let kernel = unsafe { kernel() };
    if BUILD == Config::Debug {
        let _ = writeln!(
            Console(&mut LastWords),
            "Partita kernel started: {} threads, {} virtual CPUs",
            kernel.tcbs.len(),
            kernel.vcpus.len()
        );
    }
    if let Ok(d) = description() {
        boot::start(kernel, &d);
    }
    leave(kernel)
}

fn description() -> Result<Description<'static>, BootError> {
    // SAFETY: a static word; volatile because the packer writes it behind the compiler's back.
    let address = unsafe { partita_boot_description.0.get().read_volatile() };
    if !RAM.contains(&address) || address % 4096 != 0 {
        return Err(BootError::Format);
    }
    // SAFETY: inside RAM, aligned; nobody writes the description.
    let header = unsafe { &*core::ptr::with_exposed_provenance::<Header>(address as usize) };
    let end = header.image_paddr.checked_add(header.image_size).filter(|end| *end <= RAM.end);
    let size = end.and_then(|end| end.checked_sub(address)).ok_or(BootError::Format)?;
    // SAFETY: the rest of the image, which is in memory and which nobody writes: fills are checked to lie outside it.
    let bytes = unsafe {
        core::slice::from_raw_parts(core::ptr::with_exposed_provenance(address as usize), size as usize)
    };
    boot::parse(bytes)
}

fn build(list_registers: usize) -> Result<Kernel<'static, Board>, BootError> {
    let d = description()?;
    fill(&d)?;
    // SAFETY: the packer gives this memory to the kernel alone; checked to be RAM.
    let mut pool = unsafe {
        if !RAM.contains(&d.header.pool_paddr) || d.header.pool_size > RAM.end - d.header.pool_paddr {
            return Err(BootError::Pool);
        }
        Pool::new(d.header.pool_paddr, d.header.pool_size)
    };
    use partita_kernel::boot::Arena;
    let frequency = read!("cntfrq_el0");
    let now = read!("cntpct_el0");
    let objects = boot::objects(&d, &mut pool, now, frequency)?;
    for (i, t) in d.tcbs.iter().enumerate() {
        if t.ipc_buffer != 0 && !RAM.contains(&t.ipc_buffer_paddr) {
            return Err(BootError::Record("tcb", i as u32));
        }
    }
    let vspaces = pool.array(d.header.vspaces as usize, |_| 0u64).ok_or(BootError::Pool)?;
    for (vmid, vttbr) in (1u64..).zip(vspaces.iter_mut()) {
        use partita_kernel::stage2::TableMemory;
        let root = pool.allocate(stage2::ROOT_BYTES).ok_or(BootError::Pool)?;
        *vttbr = vmid << 48 | root;
    }
    let image = d.header.image_paddr..d.header.image_paddr + d.header.image_size;
    for (i, m) in d.mappings.iter().enumerate() {
        let vttbr = vspaces.get(m.vspace as usize).copied().unwrap_or(0);
        stage2::map(&mut pool, vttbr & 0xff_ffff_fffe, m)
            .map_err(|_| BootError::Record("mapping", i as u32))?;
        if m.flags & mapping::EXECUTE != 0 && image.contains(&m.paddr) {
            cache::maintain(CacheOp::Unify, m.paddr, m.size);
        }
    }
    let fpu = pool.array(d.tcbs.len(), |_| fpu::State::ZERO).ok_or(BootError::Pool)?;
    // SAFETY: no translation of these address spaces may be left from before.
    unsafe { core::arch::asm!("tlbi alle1", options(nostack, preserves_flags)) };
    dsb();
    isb();
    write!("cnthp_cval_el2", u64::MAX);
    write!("cnthp_ctl_el2", 1);
    gic::enable(irq::TIMER, true);
    gic::enable(irq::MAINTENANCE, true);
    for r in d.irqs {
        if r.irq >= 32 {
            gic::configure(r.irq, r.edge != 0);
        }
        gic::enable(r.irq, true);
    }
    let board = Board { vspaces, fpu, list_registers, guest: false };
    Ok(Kernel::new(board, objects, frequency))
}

/// Writes the memory that has to be written before anything runs.
fn fill(d: &Description<'_>) -> Result<(), BootError> {
    let image = d.header.image_paddr..d.header.image_paddr.saturating_add(d.header.image_size);
    for (i, f) in d.fills.iter().enumerate() {
        let error = BootError::Record("fill", i as u32);
        let end = f.paddr.checked_add(f.size).filter(|end| *end <= RAM.end).ok_or(error)?;
        let copy = if f.source == 0 { 0 } else { f.copy_size.min(f.size) };
        let source_end = f.source.checked_add(copy).ok_or(error)?;
        let overlaps = f.paddr < image.end && end > image.start;
        if f.paddr < RAM.start || overlaps || (copy > 0 && (f.source < image.start || source_end > image.end))
        {
            return Err(error);
        }
        let to = core::ptr::with_exposed_provenance_mut::<u8>(f.paddr as usize);
        let from = core::ptr::with_exposed_provenance::<u8>(f.source as usize);
        // SAFETY: RAM outside the image, so neither kernel nor description; source inside the image; checked above.
        unsafe {
            if copy > 0 {
                core::ptr::copy_nonoverlapping(from, to, copy as usize);
            }
            core::ptr::write_bytes(to.add(copy as usize), 0, (f.size - copy) as usize);
        }
    }
    Ok(())
}

/// Goes on with the thread that runs; sleeps while there is none.
#[inline(always)]
fn leave(kernel: &mut Kernel<'static, Board>) -> *mut Context {
    loop {
        kernel.leave();
        if let Some(context) = kernel.current_context() {
            return context;
        }
        // SAFETY: waits for an interrupt; a masked one wakes too.
        unsafe { core::arch::asm!("wfi", options(nomem, nostack, preserves_flags)) };
        interrupt(kernel);
    }
}

#[inline(always)]
fn interrupt(kernel: &mut Kernel<'static, Board>) {
    if let Some(irq) = gic::acknowledge() {
        kernel.enter_interrupt(irq);
        gic::end(irq);
    }
}

#[unsafe(no_mangle)]
extern "C" fn handle_syscall() -> *mut Context {
    // SAFETY: one call per kernel entry.
    let kernel = unsafe { kernel() };
    kernel.enter_syscall();
    leave(kernel)
}

#[unsafe(no_mangle)]
extern "C" fn handle_interrupt() -> *mut Context {
    // SAFETY: one call per kernel entry.
    let kernel = unsafe { kernel() };
    interrupt(kernel);
    leave(kernel)
}

#[unsafe(no_mangle)]
extern "C" fn handle_fault(esr: u64) -> *mut Context {
    // SAFETY: one call per kernel entry.
    let kernel = unsafe { kernel() };
    let esr = esr & 0xffff_ffff;
    let fault = match esr >> 26 {
        class @ (0x20 | 0x24) => {
            let prefetch = class == 0x20;
            let far = read!("far_el2");
            let address = if kernel.hw.guest {
                virt::guest_address(if prefetch { read!("elr_el2") } else { far })
            } else {
                far
            };
            Fault::Vm { address, prefetch, esr }
        }
        0 => Fault::UserException { number: esr, code: 0 },
        0x3c if BUILD == Config::Debug => Fault::Breakpoint,
        _ => Fault::Vcpu { esr },
    };
    kernel.enter_fault(fault);
    leave(kernel)
}

#[unsafe(no_mangle)]
extern "C" fn handle_serror() -> *mut Context {
    // SAFETY: one call per kernel entry.
    let kernel = unsafe { kernel() };
    if BUILD == Config::Debug {
        let esr = read!("esr_el2");
        let _ = writeln!(Console(&mut LastWords), "kernel: SError ignored, ESR {esr:#x}");
    }
    leave(kernel)
}

#[unsafe(no_mangle)]
extern "C" fn handle_kernel_trap() -> ! {
    let (esr, elr, far) = (read!("esr_el2"), read!("elr_el2"), read!("far_el2"));
    let _ = writeln!(
        Console(&mut LastWords),
        "kernel: exception in the kernel: ESR {esr:#x} ELR {elr:#x} FAR {far:#x}"
    );
    halt()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let _ = writeln!(Console(&mut LastWords), "kernel: {info}");
    halt()
}

fn halt() -> ! {
    loop {
        // SAFETY: interrupts are masked: this sleeps for good.
        unsafe { core::arch::asm!("wfi", options(nomem, nostack, preserves_flags)) };
    }
}
