//! What each exit of the guest means.

use partita_guest::exception::{self, Entry};
use partita_guest::fault::{self, Access, SystemRegister, Trap};
use partita_guest::psci::{self, Action as Psci};
use partita_guest::registers;
use partita_guest::vtimer;
use partita_protocol::links::{HYPERCALL_INFO, IPI_INVOKE, SMC_INFO};
use partita_protocol::stats::Counter;
use partita_protocol::supervisor::StopReason;
use partita_virtio::mmio::Action;
use partita_virtio::mmio::registers::reg;

use crate::bus::{self, Target};
use crate::devices::{Slot, interrupt_of};
use crate::machine::{Field, Machine, Page};
use crate::vmm::{Vcpu, Vmm};

/// Labels of fault messages (seL4 manual, "Faults"; abi.md section 5).
pub(crate) mod label {
    pub const UNKNOWN_SYSCALL: u64 = 2;
    pub const VM_FAULT: u64 = 6;
    pub const VGIC_MAINTENANCE: u64 = 7;
    pub const VCPU_FAULT: u64 = 8;
    pub const VPPI_EVENT: u64 = 9;
}

/// -ENODEV: the cell has no links.
const NO_LINKS: u64 = -19i64 as u64;
/// -EFAULT: the structure is not in RAM.
const BAD_ADDRESS: u64 = -14i64 as u64;

/// A64 instructions that can trap are 4 bytes long.
const INSTRUCTION: u64 = 4;

impl<M: Machine, P: Page> Vmm<'_, M, P> {
    /// Handles a fault. Afterwards the vCPU is resumed, or its state says why not.
    pub(crate) fn exit(&mut self, vcpu: usize, label: u64, words: [u64; 4]) {
        match label {
            label::VM_FAULT => {
                let [pc, ipa, _, esr] = words;
                if fault::is_forbidden(esr as u32)
                    && self.links.as_ref().is_some_and(|links| links.holds(ipa))
                {
                    return self.refuse_store(vcpu, esr as u32, ipa);
                }
                match fault::data_abort(esr as u32, ipa) {
                    Ok(access) => self.memory_access(vcpu, pc, esr, access),
                    Err(reason) => {
                        self.stats.count(Counter::Other);
                        self.crash(format_args!(
                            "{} at ipa {ipa:#x}, pc {pc:#x}, esr {esr:#x}",
                            reason.describe()
                        ));
                    }
                }
            }
            label::VGIC_MAINTENANCE => {
                self.stats.count(Counter::EndOfInterrupt);
                self.beat();
                // -1: maintenance for another reason than an end of interrupt.
                if let Ok(index) = usize::try_from(words[0] as i64) {
                    if let Some(intid) = self.gic.ended(vcpu, index) {
                        if u32::from(intid) == vtimer::INTID {
                            self.timer_done(vcpu);
                        } else if let Some(channel) = self.lines.ended(&mut self.gic, intid) {
                            self.machine.ack_irq(channel);
                        }
                    }
                    self.deliver();
                }
            }
            label::VPPI_EVENT => {
                self.stats.count(Counter::Timer);
                self.talked |= self.terminal.take_unsent();
                if let Some(owed) = self.timer_owed.get_mut(vcpu) {
                    *owed = true;
                }
                self.gic.set_line(vcpu, vtimer::INTID as u16, true);
                self.deliver();
            }
            label::VCPU_FAULT => self.trap(vcpu, words[0] as u32),
            label::UNKNOWN_SYSCALL => {
                // An HVC that seL4 did not take for one of its own calls.
                self.stats.count(Counter::Hypercall);
                let [function, address, ..] = words;
                let value = match function {
                    HYPERCALL_INFO => self.describe_links(address),
                    _ => psci::RETURN_NOT_SUPPORTED,
                };
                self.return_value(vcpu, value);
            }
            other => {
                self.stats.count(Counter::Other);
                self.crash(format_args!("fault {other}: {words:#x?}"));
            }
        }
    }

    /// The guest has ended the timer interrupt, or it turned out to be stale.
    fn timer_done(&mut self, vcpu: usize) {
        self.gic.set_line(vcpu, vtimer::INTID as u16, false);
        if let Some(owed) = self.timer_owed.get_mut(vcpu)
            && core::mem::take(owed)
        {
            self.machine.ack_timer(vcpu);
        }
    }

    fn trap(&mut self, vcpu: usize, esr: u32) {
        match fault::trap(esr) {
            Trap::Wfi => {
                self.stats.count(Counter::Wfi);
                self.talked |= self.terminal.take_unsent();
                self.sleep(vcpu, esr);
            }
            Trap::Wfe => {
                self.stats.count(Counter::Wfe);
                self.wait_for_event(vcpu, esr);
            }
            Trap::Smc => {
                self.stats.count(Counter::Smc);
                self.secure_call(vcpu);
            }
            Trap::System(register) => {
                self.stats.count(Counter::SystemRegister);
                self.undefined(vcpu, esr, register);
            }
            Trap::Other(class) => {
                self.stats.count(Counter::Other);
                let mut pc = [0];
                self.machine.registers(vcpu, &mut pc);
                self.crash(format_args!("trap of class {class:#x} at pc {:#x}, esr {esr:#x}", pc[0]));
            }
        }
    }

    /// Goes on behind the instruction. For traps, whose message has no program counter.
    fn skip(&mut self, vcpu: usize, esr: u32) {
        let mut pc = [0];
        self.read_registers(vcpu, &mut pc);
        self.resume_with(vcpu, &[pc[0].wrapping_add(fault::instruction_length(esr))]);
    }

    /// WFI. A vCPU that may sleep stays at the instruction: when it is woken for something, executing it again falls
    /// through without a trap (WFI traps only if it would wait). If there is a reason not to sleep, it is skipped.
    fn sleep(&mut self, vcpu: usize, esr: u32) {
        if self.may_sleep(vcpu) {
            self.stats.count(Counter::Sleeps);
            self.set_vcpu(vcpu, Vcpu::Asleep);
        } else {
            self.skip(vcpu, esr);
        }
    }

    /// WFE. What waits like this is a spin lock, for a vCPU that does not run while this one does: so the siblings go
    /// first. What ends the wait is a store of theirs, which the VMM does not see; it tries again with the next event, and
    /// in a millisecond at the latest.
    fn wait_for_event(&mut self, vcpu: usize, esr: u32) {
        if !self.has_running_sibling(vcpu) {
            self.release();
            return self.skip(vcpu, esr);
        }
        let mut pc = [0];
        self.read_registers(vcpu, &mut pc);
        let after = pc[0].wrapping_add(fault::instruction_length(esr));
        self.machine.set_registers(vcpu, &[after], false);
        self.set_vcpu(vcpu, Vcpu::Yielded);
        self.arm_soon();
    }

    fn secure_call(&mut self, vcpu: usize) {
        self.beat();
        let mut words = [0; registers::X0 + 4];
        self.read_registers(vcpu, &mut words);
        let [_, _, _, x @ ..] = words;
        if let [SMC_INFO, address, ..] = x {
            let value = self.describe_links(address);
            return self.return_value_with(vcpu, &mut words, value);
        }
        let ram = self.ram;
        match self.cpus.call(vcpu, x, |entry| ram.offset(entry, INSTRUCTION).is_some()) {
            Psci::Return(value) => self.return_value_with(vcpu, &mut words, value),
            Psci::Start { vcpu: target, entry, context } => {
                self.switch_on(target, entry, context);
                self.return_value_with(vcpu, &mut words, psci::RETURN_SUCCESS);
                self.publish();
            }
            Psci::Off => {
                self.machine.suspend(vcpu);
                self.set_vcpu(vcpu, Vcpu::Off);
                // What it leaves behind may be for another vCPU by now.
                self.gic.switched_off(vcpu);
                self.deliver();
                self.publish();
            }
            Psci::Suspend => {
                // As a WFI that is skipped beforehand: it may end at any time.
                if let Some(x0) = words.get_mut(registers::X0) {
                    *x0 = psci::RETURN_SUCCESS;
                }
                if let Some(pc) = words.get_mut(registers::PC) {
                    *pc = pc.wrapping_add(INSTRUCTION);
                }
                let prefix = words.get(..=registers::X0).unwrap_or(&words);
                if self.may_sleep(vcpu) {
                    self.stats.count(Counter::Sleeps);
                    self.machine.set_registers(vcpu, prefix, false);
                    self.set_vcpu(vcpu, Vcpu::Asleep);
                } else {
                    self.resume_with(vcpu, prefix);
                }
            }
            Psci::SystemOff => self.stop(Some(StopReason::PowerOff)),
            Psci::SystemReset => self.stop(Some(StopReason::Reset)),
        }
    }

    /// Tells the guest where its links are. Answers as Linux' errors do, since hvisor's driver passes the value on.
    fn describe_links(&mut self, address: u64) -> u64 {
        let Some(links) = &self.links else { return NO_LINKS };
        let bytes = links.describe();
        if self.ram.write(address, &bytes).is_err() {
            return BAD_ADDRESS;
        }
        self.machine.clean(address.saturating_sub(self.ram.ipa()), bytes.len() as u64);
        psci::RETURN_SUCCESS
    }

    /// Goes on behind the call with `value` in x0.
    fn return_value(&mut self, vcpu: usize, value: u64) {
        let mut words = [0; registers::X0 + 1];
        self.read_registers(vcpu, &mut words);
        self.return_value_with(vcpu, &mut words, value);
    }

    fn return_value_with(&mut self, vcpu: usize, words: &mut [u64], value: u64) {
        if let Some(prefix) = words.first_chunk_mut::<{ registers::X0 + 1 }>() {
            prefix[registers::PC] = prefix[registers::PC].wrapping_add(INSTRUCTION);
            prefix[registers::X0] = value;
            self.resume_with(vcpu, prefix);
        }
    }

    /// A system register that this machine does not have: the guest gets what a core without it would give.
    fn undefined(&mut self, vcpu: usize, esr: u32, register: SystemRegister) {
        let pc = self.raise(vcpu, |pc, pstate, vbar| exception::undefined(pc, pstate, vbar, esr));
        let (op0, op1, n, m, op2) = register.name;
        let verb = if register.read { "read" } else { "write" };
        self.complain(format_args!(
            "guest {verb}s s{op0}_{op1}_c{n}_c{m}_{op2} at pc {pc:#x}: undefined instruction"
        ));
    }

    /// The output section of another peer, which only that may write: the guest gets what a bus would answer. Of all that
    /// a guest is mapped, nothing else in a link is read-only.
    fn refuse_store(&mut self, vcpu: usize, esr: u32, ipa: u64) {
        self.stats.count(Counter::Other);
        self.beat();
        let pc = self.raise(vcpu, |pc, pstate, vbar| exception::external_abort(pc, pstate, vbar, esr));
        self.complain(format_args!(
            "guest stores to another peer's section of a link at ipa {ipa:#x}, pc {pc:#x}: external abort"
        ));
    }

    /// Sends a vCPU into its exception vector: `entry` is made of its program counter, PSTATE and VBAR_EL1. Returns the
    /// first.
    fn raise(&mut self, vcpu: usize, entry: impl FnOnce(u64, u64, u64) -> Entry) -> u64 {
        let mut words = [0; registers::SPSR + 1];
        self.read_registers(vcpu, &mut words);
        let [pc, sp, pstate] = words;
        let vbar = self.machine.field(vcpu, Field::Vbar);
        let entry = entry(pc, pstate, vbar);
        for (field, value) in [(Field::Elr, entry.elr), (Field::Spsr, entry.spsr), (Field::Esr, entry.esr)] {
            self.machine.set_field(vcpu, field, value);
        }
        self.resume_with(vcpu, &[entry.pc, sp, entry.pstate]);
        pc
    }

    fn memory_access(&mut self, vcpu: usize, pc: u64, esr: u64, access: Access) {
        self.beat();
        match bus::target(access.ipa) {
            Target::Virtio(device, offset) if access.write => {
                self.virtio_write(vcpu, pc, access, device, offset as usize);
            }
            Target::Distributor(offset) => {
                self.stats.count(Counter::Distributor);
                if access.write {
                    let value = self.operand(vcpu, &access);
                    // A refused access is lost, as on a bus that ignores it.
                    let _ = self.gic.write(vcpu, offset, access.width, value);
                    self.check_timer(vcpu);
                    let gone = self.lines.recheck(&mut self.gic);
                    self.acknowledge(gone);
                    self.deliver();
                    self.resume_with(vcpu, &[pc.wrapping_add(INSTRUCTION)]);
                } else {
                    let value = self.gic.read(vcpu, offset, access.width).unwrap_or(0);
                    self.loaded(vcpu, pc, &access, value);
                }
            }
            Target::Uart(offset) => {
                self.stats.count(Counter::Uart);
                if access.write {
                    let value = self.operand(vcpu, &access);
                    self.talked |= self.terminal.write_uart(offset, value as u32);
                    self.update_uart_line();
                    self.resume_with(vcpu, &[pc.wrapping_add(INSTRUCTION)]);
                } else {
                    let (value, flush) = self.terminal.read_uart(offset);
                    self.talked |= flush;
                    self.update_uart_line();
                    self.loaded(vcpu, pc, &access, value.into());
                }
            }
            Target::Link(link, offset)
                if access.write && self.links.as_ref().is_some_and(|links| link < links.count()) =>
            {
                self.stats.count(Counter::Doorbell);
                // Stores to the rest of the table are lost, as on a bus that ignores them.
                if offset == IPI_INVOKE as u64 {
                    let peer = self.operand(vcpu, &access);
                    let now = self.machine.counter();
                    let ring = self.links.as_mut().map(|links| links.ring(link, peer, now));
                    self.doorbell(ring);
                }
                self.resume_with(vcpu, &[pc.wrapping_add(INSTRUCTION)]);
            }
            Target::Virtio(..) | Target::Link(..) | Target::Hole => {
                self.stats.count(Counter::Other);
                let verb = if access.write { "store to" } else { "load from" };
                self.crash(format_args!("{verb} nothing at ipa {:#x}, pc {pc:#x}, esr {esr:#x}", access.ipa));
            }
        }
    }

    /// A timer interrupt that the guest did not let through may be stale when it does: the guest may have set a later
    /// deadline meanwhile.
    fn check_timer(&mut self, vcpu: usize) {
        let intid = vtimer::INTID as u16;
        if self.timer_owed.get(vcpu) == Some(&true)
            && self.gic.is_enabled(vcpu, intid)
            && !self.gic.is_busy(vcpu, intid)
        {
            let ctl = self.machine.field(vcpu, Field::CntvCtl);
            let cval = self.machine.field(vcpu, Field::CntvCval);
            let due = vtimer::deadline(ctl, cval, 0).is_some_and(|at| at <= self.machine.counter());
            if !due {
                self.timer_done(vcpu);
            }
        }
    }

    fn virtio_write(&mut self, vcpu: usize, pc: u64, access: Access, device: usize, offset: usize) {
        self.stats.count(match offset {
            reg::QUEUE_NOTIFY => Counter::VirtioNotify,
            reg::INTERRUPT_ACK => Counter::VirtioAck,
            _ => Counter::VirtioOther,
        });
        let after = pc.wrapping_add(INSTRUCTION);
        if self.terminal.port.as_ref().is_some_and(|(number, _)| *number == device) {
            let value = self.operand(vcpu, &access);
            self.console_write(offset, access, value);
            return self.step_to(vcpu, after);
        }
        // Reading the stored register costs as much as a signal, so it is not read where one value is possible: a device
        // with one queue, an acknowledgement of the one interrupt bit that is set.
        let known = match self.devices.get(device) {
            Some(Slot::Ready(remote)) => remote.only_value(offset),
            _ => return self.step_to(vcpu, after), // no such device: reads as zero, writes are lost
        };
        let value = match known {
            Some(value) => value,
            None => self.operand(vcpu, &access),
        };
        let Some(Slot::Ready(remote)) = self.devices.get_mut(device) else { return };
        match remote.transport.write(offset, access.width.bytes() as u8, value) {
            Action::Notify(_) => {
                let channel = remote.channel();
                self.defer_notify(channel);
            }
            Action::InterruptAck { pending } => self.gic.set_line(0, interrupt_of(device), pending),
            Action::DriverOk { features } => {
                if let Err(trouble) = remote.start(&mut self.machine, features) {
                    remote.transport.needs_reset();
                    self.device_trouble(device, trouble);
                }
                self.update_line(device);
            }
            Action::Reset => {
                self.set_vcpu(vcpu, Vcpu::Held(pc, device));
                return self.stop_device(device);
            }
            Action::Broken(violation) => {
                self.complain(format_args!(
                    "guest broke the rules of device {device} ({violation:?}): needs reset"
                ));
                self.update_line(device);
            }
            Action::ConfigWrite { .. } | Action::Ignored(_) => {}
            Action::None => self.update_line(device),
        }
        self.step_to(vcpu, after);
    }

    fn console_write(&mut self, offset: usize, access: Access, value: u64) {
        let ram = self.ram;
        let broken = self.use_terminal(|terminal| {
            let Some((_, port)) = terminal.port.as_mut() else { return false };
            let ok = match port.transport.write(offset, access.width.bytes() as u8, value) {
                Action::DriverOk { features } => port.start(ram, features).is_ok(),
                Action::Broken(_) => false,
                Action::Reset => {
                    port.reset();
                    true
                }
                // Bytes are moved after every use of the terminal.
                Action::Notify(_) | Action::InterruptAck { .. } | Action::None => true,
                Action::ConfigWrite { .. } | Action::Ignored(_) => true,
            };
            if !ok {
                port.broken();
            }
            !ok
        });
        if broken {
            self.complain(format_args!("guest broke the rules of its virtio-console: needs reset"));
        }
    }

    /// What a store stores.
    fn operand(&mut self, vcpu: usize, access: &Access) -> u64 {
        let Some(position) = registers::position(access.register) else { return 0 };
        let mut words = [0; registers::WORDS];
        let prefix = words.get_mut(..=position).unwrap_or_default();
        self.read_registers(vcpu, prefix);
        access.stored(prefix.last().copied().unwrap_or(0))
    }

    /// Goes on behind a load that answered `value`.
    fn loaded(&mut self, vcpu: usize, pc: u64, access: &Access, value: u64) {
        let after = pc.wrapping_add(INSTRUCTION);
        let Some(position) = registers::position(access.register) else {
            return self.resume_with(vcpu, &[after]);
        };
        let mut words = [0; registers::WORDS];
        let prefix = words.get_mut(..=position).unwrap_or_default();
        self.read_registers(vcpu, prefix);
        if let Some(target) = prefix.last_mut() {
            *target = access.loaded(value);
        }
        if let Some(pc) = prefix.first_mut() {
            *pc = after;
        }
        self.resume_with(vcpu, prefix);
    }

    fn read_registers(&mut self, vcpu: usize, into: &mut [u64]) {
        self.stats.count(Counter::RegisterReads);
        self.machine.registers(vcpu, into);
    }
}
