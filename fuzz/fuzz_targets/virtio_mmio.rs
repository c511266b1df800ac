//! Any stores to a register page, with the device's own events in between.
#![no_main]

use libfuzzer_sys::{arbitrary, fuzz_target};
use partita_virtio::features;
use partita_virtio::mmio::registers::{Status, reg};
use partita_virtio::mmio::{Action, RegisterPage, Transport};

struct Page([u32; 1024]);

impl RegisterPage for &mut Page {
    fn store(&mut self, offset: usize, value: u32) {
        assert_eq!(offset % 4, 0);
        self.0[offset / 4] = value;
    }
}

#[derive(arbitrary::Arbitrary, Debug)]
enum Event {
    Store {
        offset: u16,
        width: u8,
        value: u64,
    },
    /// Stores that lead somewhere, more often than chance would.
    Status(u8),
    Register(u8, u32),
    Used,
    Config([u8; 12]),
    NeedsReset,
    ResetDone,
}

const OFFERED: u64 = features::EVENT_IDX | features::INDIRECT_DESC | 0x3fff;

fuzz_target!(|events: Vec<Event>| {
    let mut page = Page([!0; 1024]);
    let shared = core::cell::UnsafeCell::new(&mut page);
    // SAFETY: one thread; the page is read between the calls that store to it.
    let mut device = Transport::new(unsafe { &mut **shared.get() }, 2, OFFERED, &[7; 10], &[256, 128]);
    // SAFETY: as above.
    let load = |offset: usize| unsafe { core::ptr::read_volatile(&raw const (**shared.get()).0[offset / 4]) };
    for event in events {
        let before = device.status();
        let resetting = device.is_resetting();
        let action = match event {
            Event::Store { offset, width, value } => device.write(offset.into(), width, value),
            Event::Status(value) => device.write(reg::STATUS, 4, value.into()),
            Event::Register(register, value) => device.write(usize::from(register) * 4, 4, value.into()),
            Event::Used => {
                assert!(!device.raise_used() || before.contains(Status::DRIVER_OK) && !resetting);
                Action::None
            }
            Event::Config(config) => {
                device.raise_config(&config);
                Action::None
            }
            Event::NeedsReset => {
                device.needs_reset();
                Action::None
            }
            Event::ResetDone => {
                if resetting {
                    device.complete_reset();
                }
                Action::None
            }
        };
        match action {
            Action::DriverOk { features } => {
                assert!(!before.contains(Status::DRIVER_OK) && device.status().contains(Status::FEATURES_OK));
                assert_eq!(features & !(OFFERED | features::VERSION_1), 0);
            }
            Action::Notify(queue) => {
                assert!(device.is_live() && device.ready_queues().any(|(ready, _)| ready == queue));
            }
            Action::Reset => assert!(before.contains(Status::DRIVER_OK) && device.is_resetting()),
            _ => {}
        }
        assert_eq!(load(reg::STATUS), device.status().bits());
        assert_eq!(load(reg::MAGIC), reg::MAGIC_VALUE);
        assert_eq!(load(reg::INTERRUPT_STATUS), device.interrupt_status().bits());
        for (queue, layout) in device.ready_queues() {
            assert!(layout.check([256, 128][usize::from(queue)]).is_ok());
        }
    }
});
