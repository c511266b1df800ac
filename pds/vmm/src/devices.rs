//! The cell's devices as the VMM holds them: virtio devices with a backend elsewhere, the terminal, links; their interrupt
//! lines, and what happens when a backend speaks up.

use core::sync::atomic::Ordering;

use partita_protocol::layout::{channel, guest};

use crate::links::Ring;
use crate::machine::{Machine, Page};
use crate::remote::{Backend, Remote, Trouble};
use crate::terminal::Terminal;
use crate::vmm::{Phase, Vcpu, Vmm};

/// A virtio device of the cell.
#[allow(clippy::large_enum_variant)] // there is nothing to box it with, and most are `Ready`
pub enum Slot<'a, P> {
    /// The backend has not answered for it yet.
    Waiting(P, Backend<'a>),
    /// It works.
    Ready(Remote<'a, P>),
    /// The backend has no such device, or it needs none: the console is [`Parts::terminal`](crate::vmm::Parts::terminal)'s.
    Absent,
}

/// INTID of a virtio device.
pub(crate) const fn interrupt_of(device: usize) -> u16 {
    guest::VIRTIO_IRQ as u16 + device as u16
}

impl<'a, M: Machine, P: Page> Vmm<'a, M, P> {
    /// A backend has something to say about one of its devices.
    pub(crate) fn backend_notified(&mut self, device: usize) {
        match self.devices.get_mut(device) {
            Some(Slot::Ready(remote)) if remote.transport.is_resetting() => self.stop_device(device),
            Some(Slot::Ready(remote)) => {
                match remote.poll(&mut self.machine) {
                    Ok(false) => return,
                    Ok(true) => {}
                    Err(trouble) => self.device_trouble(device, trouble),
                }
                self.update_line(device);
            }
            Some(Slot::Waiting(..)) => self.look_for_devices(),
            _ => {}
        }
    }

    /// Asks the backends for the devices that are not there yet, and starts the guest if it only waited for them.
    pub(crate) fn look_for_devices(&mut self) {
        let mut waiting = false;
        for device in 0..self.devices.len() {
            let Some(Slot::Waiting(page, backend)) = self.devices.get(device) else { continue };
            let slot = match Remote::new(&mut self.machine, *page, *backend) {
                Ok(remote) => Slot::Ready(remote),
                Err(Trouble::Refused(partita_protocol::backend::Status::Pending)) => {
                    waiting = true;
                    continue;
                }
                Err(trouble) => {
                    self.device_trouble(device, trouble);
                    Slot::Absent
                }
            };
            if let Some(place) = self.devices.get_mut(device) {
                *place = slot;
            }
        }
        if !waiting && self.phase == Phase::Stopped(true) {
            self.start();
        }
    }

    pub(crate) fn device_trouble(&mut self, device: usize, trouble: Trouble) {
        self.complain(format_args!("device {device}: {trouble}"));
    }

    /// Sets a device's interrupt line as its registers say, and delivers.
    pub(crate) fn update_line(&mut self, device: usize) {
        if let Some(Slot::Ready(remote)) = self.devices.get(device) {
            self.gic.set_line(0, interrupt_of(device), remote.transport.interrupt_pending());
            self.deliver();
        }
    }

    /// Asks a device's backend to stop. If requests are in flight, its notification brings us here again.
    pub(crate) fn stop_device(&mut self, device: usize) {
        let Some(Slot::Ready(remote)) = self.devices.get_mut(device) else { return };
        match remote.stop(&mut self.machine) {
            Ok(false) => return,
            Ok(true) => {}
            Err(trouble) => self.device_trouble(device, trouble),
        }
        self.gic.set_line(0, interrupt_of(device), false);
        for vcpu in 0..self.vcpus.len() {
            if let Some(Vcpu::Held(pc, held)) = self.vcpus.get(vcpu).copied()
                && held == device
            {
                self.resume_with(vcpu, &[pc.wrapping_add(4)]);
            }
        }
        self.go_on_stopping();
    }

    /// Uses the terminal, moves its bytes, and updates the interrupt lines of both its devices.
    pub(crate) fn use_terminal<R>(&mut self, action: impl FnOnce(&mut Terminal<'a, P>) -> R) -> R {
        self.talked = true;
        let result = action(&mut self.terminal);
        if let Err(fault) = self.terminal.pump()
            && let Some((_, port)) = &mut self.terminal.port
        {
            port.broken();
            self.complain(format_args!(
                "guest broke the rules of its virtio-console ({fault:?}): needs reset"
            ));
        }
        self.update_uart_line();
        if let Some((device, port)) = &self.terminal.port {
            self.gic.set_line(0, interrupt_of(*device), port.transport.interrupt_pending());
        }
        self.deliver();
        result
    }

    /// Updates the PL011's interrupt line, and delivers if it rose.
    pub(crate) fn update_uart_line(&mut self) {
        let high = self.terminal.uart.line();
        if high != self.uart_line {
            self.uart_line = high;
            self.gic.set_line(0, guest::UART_IRQ as u16, high);
            if high {
                self.deliver();
            }
        }
    }

    /// Passes the guest's doorbells on to `ivc`, now or when the timer says so.
    pub(crate) fn doorbell(&mut self, ring: Option<Ring>) {
        match ring {
            Some(Ring::Now) => self.defer_notify(channel::VMM_IVC),
            Some(Ring::At(deadline)) => self.arm(deadline, self.timer.state.fired.load(Ordering::Acquire)),
            Some(Ring::Refused) | None => {}
        }
    }

    /// `ivc` has notified: peers may have rung.
    pub(crate) fn doorbells_rung(&mut self) {
        let Some(links) = &mut self.links else { return };
        for intid in links.rung() {
            self.gic.pulse(intid);
        }
        self.deliver();
    }
}
