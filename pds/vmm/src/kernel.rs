//! [`Machine`] by seL4's invocations, and the event loop.

use partita_guest::gic::Injection;
use partita_guest::vtimer;
use partita_pd_vmm::machine::{Field, Machine, Page};
use partita_pd_vmm::vmm::{Next, Vmm};
use partita_protocol::layout::vaddr;
use partita_virtio::mmio::RegisterPage;
use sel4_microkit::{Channel, ChannelSet, Child, Handler, Infallible, MessageInfo, Never, get_mr, set_mr};
use sel4_vm::event::{self, Event};
use sel4_vm::{Vcpu, VcpuField, Vm};

/// Group of all the guest's interrupts: its GICC_CTLR has one enable bit in the view without security extensions.
const GROUP: u8 = 0;

/// MPIDR_EL1 bit 31, which reads as one. U (bit 30) is 0: one processor of several.
const MPIDR_RES1: u64 = 1 << 31;

/// This PD's virtual machine and channels.
pub struct Kernel;

impl Machine for Kernel {
    fn registers(&mut self, vcpu: usize, into: &mut [u64]) {
        // Only a wrong capability or length can fail, and both are fixed by the system description.
        let _ = Vm::new(vcpu).read_into(into);
    }

    fn set_registers(&mut self, vcpu: usize, prefix: &[u64], resume: bool) {
        match prefix {
            [pc] if resume => Vm::new(vcpu).resume_at(*pc),
            [pc] => Vm::new(vcpu).set_pc(*pc),
            prefix => Vm::new(vcpu).write_by_send(prefix, resume),
        }
    }

    fn resume(&mut self, vcpu: usize) {
        Vm::new(vcpu).resume_by_send();
    }

    fn suspend(&mut self, vcpu: usize) {
        Vm::new(vcpu).suspend_by_send();
    }

    fn reset(&mut self, vcpu: usize) {
        let _ = Vcpu::new(vcpu).reset();
        Vcpu::new(vcpu).write_reg_by_send(VcpuField::Vmpidr, MPIDR_RES1 | vcpu as u64);
    }

    fn field(&mut self, vcpu: usize, field: Field) -> u64 {
        Vcpu::new(vcpu).read_reg(number(field)).unwrap_or(0)
    }

    fn set_field(&mut self, vcpu: usize, field: Field, value: u64) {
        Vcpu::new(vcpu).write_reg_by_send(number(field), value);
    }

    fn inject(&mut self, vcpu: usize, injection: Injection) {
        Vcpu::new(vcpu).inject_irq_by_send(injection.intid, injection.priority, GROUP, injection.index);
    }

    fn ack_timer(&mut self, vcpu: usize) {
        Vcpu::new(vcpu).ack_vppi_by_send(vtimer::INTID.into());
    }

    fn ack_irq(&mut self, channel: usize) {
        event::irq_ack_by_send(channel);
    }

    fn counter(&self) -> u64 {
        sel4_vm::cntpct()
    }

    fn frequency(&self) -> u64 {
        sel4_vm::cntfrq()
    }

    fn signal(&mut self, channel: usize) {
        Channel::new(channel).notify();
    }

    fn call(&mut self, channel: usize, label: u64, request: &[u64], reply: &mut [u64]) -> usize {
        for (i, word) in request.iter().enumerate() {
            set_mr(i, *word);
        }
        let answer = Channel::new(channel).pp_call(MessageInfo::new(label, request.len()));
        let count = answer.count().min(reply.len());
        for (i, word) in reply.iter_mut().enumerate().take(count) {
            *word = get_mr(i);
        }
        count
    }

    fn clean(&mut self, offset: u64, bytes: u64) {
        sel4_vm::clean_to_memory(vaddr::GUEST_RAM + offset as usize, bytes as usize);
    }

    fn publish(&mut self, offset: u64, bytes: u64) {
        // Cleans, too.
        sel4_vm::make_executable(vaddr::GUEST_RAM + offset as usize, bytes as usize);
    }
}

const fn number(field: Field) -> VcpuField {
    match field {
        Field::Esr => VcpuField::Esr,
        Field::Vbar => VcpuField::Vbar,
        Field::Elr => VcpuField::ElrEl1,
        Field::Spsr => VcpuField::SpsrEl1,
        Field::CntvCtl => VcpuField::CntvCtl,
        Field::CntvCval => VcpuField::CntvCval,
    }
}

/// A virtio register page or a link's control table: uncached, written by us, read by the guest.
#[derive(Clone, Copy)]
pub struct Registers(*mut u32);

impl Registers {
    /// The page of the device with this number.
    ///
    /// # Safety
    /// `device` is below the number of pages that the system description maps at `VIRTIO_REGISTERS`.
    pub const unsafe fn new(device: usize) -> Self {
        Self(core::ptr::with_exposed_provenance_mut(vaddr::VIRTIO_REGISTERS + device * 0x1000))
    }

    /// The control table of the cell's link with this number.
    ///
    /// # Safety
    /// `link` is below the number of pages that the system description maps at `LINK_CONTROL`.
    pub const unsafe fn link(link: usize) -> Self {
        Self(core::ptr::with_exposed_provenance_mut(vaddr::LINK_CONTROL + link * 0x1000))
    }
}

impl RegisterPage for Registers {
    fn store(&mut self, offset: usize, value: u32) {
        // SAFETY: the page is mapped (duty of `new`'s caller) and `offset / 4` is below 1024 by the trait's contract, which
        // the remainder repeats.
        unsafe { self.0.add(offset / 4 % 1024).write_volatile(value.to_le()) };
    }
}

impl Page for Registers {
    fn load(&self, offset: usize) -> u32 {
        // SAFETY: as in `store`.
        u32::from_le(unsafe { self.0.add(offset / 4 % 1024).read_volatile() })
    }
}

/// The first message registers, in one look at the IPC buffer.
fn first_words() -> [u64; 4] {
    sel4::with_ipc_buffer(|buffer| buffer.msg_regs().first_chunk().copied().unwrap_or_default())
}

/// The PD's handler, with a loop of its own for the sake of [`Next`].
pub struct Pd(pub Vmm<'static, Kernel, Registers>);

impl Handler for Pd {
    type Error = Infallible;

    fn notified(&mut self, _: ChannelSet) -> Result<(), Infallible> {
        Ok(())
    }

    fn fault(&mut self, _: Child, _: MessageInfo) -> Result<Option<MessageInfo>, Infallible> {
        Ok(None)
    }

    fn run(&mut self) -> Result<Never, Infallible> {
        let mut next = self.0.begin();
        loop {
            let event = match next {
                Next::Receive => event::recv(),
                Next::Reply => event::resume_recv(),
                Next::Notify(channel) => event::notify_recv(channel),
                Next::Wait => Event::Notified(event::wait()),
            };
            next = match event {
                Event::Notified(channels) => self.0.notified(channels),
                Event::Fault(vcpu, message) => self.0.fault(vcpu, message.label(), first_words()),
                // Nobody has a channel to call us; the reply object would be needed to answer.
                Event::Protected(..) => Next::Receive,
            };
        }
    }
}
