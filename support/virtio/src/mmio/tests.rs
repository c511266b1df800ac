use super::*;
use proptest::prelude::*;

#[derive(Debug)]
struct Page(Vec<u32>);

impl Page {
    fn new() -> Self {
        Page(vec![0xdead_beef; 1024])
    }
}

impl RegisterPage for Page {
    fn store(&mut self, offset: usize, value: u32) {
        assert!(offset.is_multiple_of(4));
        self.0[offset / 4] = value;
    }
}

const OFFERED: u64 = features::EVENT_IDX | features::INDIRECT_DESC | 1 << 5;

fn device() -> Transport<Page> {
    Transport::new(Page::new(), 2, OFFERED, &[1, 2, 3, 4, 5, 6], &[256, 64])
}

impl Transport<Page> {
    fn load(&self, offset: usize) -> u32 {
        self.page.0[offset / 4]
    }
    fn set(&mut self, offset: usize, value: u32) -> Action {
        self.write(offset, 4, value.into())
    }
    fn negotiate(&mut self, features: u64) -> bool {
        assert_eq!(self.set(reg::STATUS, 1), Action::None);
        assert_eq!(self.set(reg::STATUS, 3), Action::None);
        for sel in 0..2 {
            assert_eq!(self.set(reg::DRIVER_FEATURES_SEL, sel), Action::None);
            assert_eq!(self.set(reg::DRIVER_FEATURES, half(features, sel)), Action::None);
        }
        assert_eq!(self.set(reg::STATUS, 11), Action::None);
        self.load(reg::STATUS) & 8 != 0
    }
    fn set_up(&mut self, queue: u32, size: u32) -> Action {
        for (offset, value) in [
            (reg::QUEUE_SEL, queue),
            (reg::QUEUE_NUM, size),
            (reg::QUEUE_DESC_LOW, 0x4000_0000),
            (reg::QUEUE_DESC_HIGH, 1),
            (reg::QUEUE_DRIVER_LOW, 0x4000_1000),
            (reg::QUEUE_DEVICE_LOW, 0x4000_2000),
            (reg::QUEUE_DEVICE_HIGH, 2),
        ] {
            assert_eq!(self.set(offset, value), Action::None);
        }
        self.set(reg::QUEUE_READY, 1)
    }
    fn live() -> Self {
        let mut device = device();
        assert!(device.negotiate(features::VERSION_1 | features::EVENT_IDX));
        assert_eq!(device.set_up(0, 128), Action::None);
        let features = features::VERSION_1 | features::EVENT_IDX;
        assert_eq!(device.set(reg::STATUS, 15), Action::DriverOk { features });
        device
    }
}

#[test]
fn identity_4_2_2() {
    let device = device();
    assert_eq!(device.load(reg::MAGIC), 0x7472_6976);
    assert_eq!(device.load(reg::VERSION), 2);
    assert_eq!(device.load(reg::DEVICE_ID), 2);
    assert_eq!(device.load(reg::CONFIG), 0x0403_0201);
    assert_eq!(device.load(reg::CONFIG + 4), 0x0605);
    assert_eq!(device.load(reg::SHM_LEN_LOW), u32::MAX);
    assert_eq!(device.load(reg::STATUS), 0);
    assert_eq!(device.load(0xff8), 0);
}

#[test]
fn selectors_refresh_what_they_select() {
    let mut device = device();
    assert_eq!(device.load(reg::DEVICE_FEATURES), OFFERED as u32);
    assert_eq!(device.set(reg::DEVICE_FEATURES_SEL, 1), Action::None);
    assert_eq!(device.load(reg::DEVICE_FEATURES), 1);
    assert_eq!(device.set(reg::DEVICE_FEATURES_SEL, 2), Action::None);
    assert_eq!(device.load(reg::DEVICE_FEATURES), 0);
    for (queue, max) in [(0, 256), (1, 64), (2, 0), (3, 0), (u32::MAX, 0)] {
        assert_eq!(device.set(reg::QUEUE_SEL, queue), Action::None);
        assert_eq!(device.load(reg::QUEUE_NUM_MAX), max);
        assert_eq!(device.load(reg::QUEUE_READY), 0);
    }
}

#[test]
fn features_3_1_1() {
    assert!(device().negotiate(features::VERSION_1));
    assert!(device().negotiate(features::VERSION_1 | OFFERED));
    assert!(!device().negotiate(features::VERSION_1 | 1 << 40), "not offered");
    assert!(!device().negotiate(OFFERED), "legacy driver");
    let mut device = device();
    assert!(device.negotiate(features::VERSION_1));
    assert_eq!(device.set(reg::DRIVER_FEATURES, 0), Action::Ignored(Ignored::State));
    assert_eq!(device.driver_features(), features::VERSION_1);
}

#[test]
fn driver_ok_without_features_ok_3_1_1() {
    let mut device = device();
    assert_eq!(device.set(reg::STATUS, 7), Action::Broken(Violation::NoFeaturesOk));
    assert_eq!(device.load(reg::STATUS), 3 | 64);
    assert!(!device.is_live());
    assert!(!device.interrupt_pending(), "no notification before DRIVER_OK (2.1.2)");
}

#[test]
fn queue_set_up_and_notify() {
    let mut device = Transport::live();
    let layout = QueueLayout { size: 128, desc: 0x1_4000_0000, avail: 0x4000_1000, used: 0x2_4000_2000 };
    assert_eq!(device.ready_queues().collect::<Vec<_>>(), [(0, layout)]);
    assert_eq!(device.load(reg::QUEUE_READY), 1);
    assert_eq!(device.set(reg::QUEUE_NOTIFY, 0), Action::Notify(0));
    assert_eq!(device.set(reg::QUEUE_NOTIFY, 1), Action::Ignored(Ignored::Queue));
    assert_eq!(device.set(reg::QUEUE_NOTIFY, 0x1_0000), Action::Ignored(Ignored::Queue));
    // A live queue cannot be changed or stopped alone.
    assert_eq!(device.set(reg::QUEUE_NUM, 4), Action::Ignored(Ignored::State));
    assert_eq!(device.set(reg::QUEUE_READY, 0), Action::Ignored(Ignored::State));
    assert_eq!(device.load(reg::QUEUE_READY), 1);
    assert_eq!(device.set(reg::QUEUE_SEL, 1), Action::None);
    assert_eq!(device.load(reg::QUEUE_READY), 0);
    assert_eq!(device.set(reg::QUEUE_READY, 1), Action::Ignored(Ignored::State));
}

#[test]
fn queue_layout_2_7() {
    for size in [0, 3, 512, 0x1_0000, 0x1_0040] {
        let mut device = device();
        assert!(device.negotiate(features::VERSION_1));
        assert_eq!(device.set_up(0, size), Action::Broken(Violation::QueueLayout), "{size}");
        assert_eq!(device.load(reg::QUEUE_READY), 0);
        assert_eq!(device.load(reg::STATUS), 11 | 64);
    }
    let mut device = device();
    assert!(device.negotiate(features::VERSION_1));
    assert_eq!(device.set(reg::QUEUE_NUM, 4), Action::None);
    assert_eq!(device.set(reg::QUEUE_DESC_LOW, 8), Action::None);
    assert_eq!(device.set(reg::QUEUE_READY, 1), Action::Broken(Violation::QueueLayout));
}

#[test]
fn queue_of_a_device_that_is_not_live_can_be_unset() {
    let mut device = device();
    assert!(device.negotiate(features::VERSION_1));
    assert_eq!(device.set_up(1, 64), Action::None);
    assert_eq!(device.set(reg::QUEUE_NUM, 4), Action::Ignored(Ignored::State), "while ready");
    assert_eq!(device.set(reg::QUEUE_READY, 0), Action::None);
    assert_eq!(device.load(reg::QUEUE_READY), 0);
    assert_eq!(device.ready_queues().count(), 0);
}

#[test]
fn interrupts() {
    let mut device = Transport::live();
    assert!(device.raise_used());
    assert_eq!(device.load(reg::INTERRUPT_STATUS), 1);
    let generation = device.load(reg::CONFIG_GENERATION);
    assert!(device.raise_config(&[9, 9, 9, 9, 9, 9, 9, 9, 9]));
    assert_ne!(device.load(reg::CONFIG_GENERATION), generation);
    assert_eq!(device.load(reg::CONFIG + 4), 0x0909, "no longer than it was");
    assert_eq!(device.load(reg::CONFIG + 8), 0);
    assert_eq!(device.load(reg::INTERRUPT_STATUS), 3);
    assert_eq!(device.set(reg::INTERRUPT_ACK, 1), Action::InterruptAck { pending: true });
    assert_eq!(device.load(reg::INTERRUPT_STATUS), 2);
    assert_eq!(device.set(reg::INTERRUPT_ACK, u32::MAX), Action::InterruptAck { pending: false });
    assert_eq!(device.load(reg::INTERRUPT_STATUS), 0);
}

#[test]
fn no_interrupt_before_driver_ok_2_1_2() {
    let mut device = device();
    assert!(!device.raise_used());
    assert!(!device.needs_reset());
    assert_eq!(device.load(reg::INTERRUPT_STATUS), 0);
    assert_eq!(device.load(reg::STATUS), 64);
}

#[test]
fn reset_2_1() {
    let mut device = Transport::live();
    assert!(device.raise_used());
    assert_eq!(device.set(reg::STATUS, 0), Action::Reset);
    assert_eq!(device.load(reg::STATUS), 15, "until the backend has drained");
    assert_eq!(device.set(reg::QUEUE_NOTIFY, 0), Action::Ignored(Ignored::Resetting));
    assert_eq!(device.set(reg::STATUS, 1), Action::Ignored(Ignored::Resetting));
    assert!(!device.raise_used());
    assert!(!device.needs_reset());
    device.complete_reset();
    assert_eq!(device.load(reg::STATUS), 0);
    assert_eq!(device.load(reg::INTERRUPT_STATUS), 0);
    assert_eq!(device.load(reg::QUEUE_NUM_MAX), 256);
    assert_eq!(device.load(reg::QUEUE_READY), 0);
    assert_eq!(device.ready_queues().count(), 0);
    assert_eq!(device.driver_features(), 0);
    // What Linux does after reset.
    assert_eq!(device.set(reg::QUEUE_SEL, 0), Action::None);
    assert_eq!(device.set(reg::QUEUE_READY, 0), Action::None);
    assert_eq!(device.set(reg::STATUS, 0), Action::None, "nothing to drain");
    assert!(device.negotiate(features::VERSION_1));
}

#[test]
fn needs_reset_stays_until_reset() {
    let mut device = Transport::live();
    assert!(device.needs_reset());
    assert_eq!(device.load(reg::STATUS), 15 | 64);
    assert_eq!(device.load(reg::INTERRUPT_STATUS), 2);
    assert_eq!(device.set(reg::STATUS, 15), Action::None);
    assert_eq!(device.load(reg::STATUS), 15 | 64);
    assert_eq!(device.set(reg::STATUS, 0), Action::Reset);
    device.complete_reset();
    assert_eq!(device.load(reg::STATUS), 0);
}

#[test]
fn access_widths_4_2_2_2() {
    let mut device = device();
    for (offset, width) in
        [(reg::STATUS, 1), (reg::STATUS, 2), (reg::STATUS, 8), (reg::STATUS + 1, 4), (2, 2)]
    {
        assert_eq!(device.write(offset, width, 1), Action::Ignored(Ignored::Access));
    }
    assert_eq!(device.write(reg::CONFIG + 1, 2, 0), Action::Ignored(Ignored::Access));
    assert_eq!(device.write(reg::CONFIG + 8, 4, 0), Action::Ignored(Ignored::NotWritable));
    assert_eq!(device.write(reg::CONFIG + 4, 4, 0), Action::Ignored(Ignored::NotWritable));
    assert_eq!(
        device.write(reg::CONFIG + 4, 2, 0xffff_1234),
        Action::ConfigWrite { offset: 4, width: 2, value: 0x1234 }
    );
    assert_eq!(device.write(usize::MAX, 1, 0), Action::Ignored(Ignored::NotWritable));
    for offset in [reg::MAGIC, reg::DEVICE_FEATURES, reg::QUEUE_NUM_MAX, reg::CONFIG_GENERATION, 0xf0] {
        let before = device.load(offset);
        assert_eq!(device.set(offset, 0x5555), Action::Ignored(Ignored::NotWritable));
        assert_eq!(device.load(offset), before);
    }
}

proptest! {
    /// Whatever a guest stores, the page stays what the state says, and the device goes live only by the book.
    #[test]
    fn any_stores(stores in prop::collection::vec((0usize..0x120, 0u8..9, prop_oneof![0u64..16, any::<u64>()]), 0..200)) {
        let mut device = device();
        for (offset, width, value) in stores {
            let before = device.status();
            match device.write(offset & !3, if width < 7 { 4 } else { width }, value) {
                Action::DriverOk { features } => {
                    prop_assert!(device.status().contains(Status::FEATURES_OK | Status::DRIVER_OK));
                    prop_assert!(!before.contains(Status::DRIVER_OK));
                    prop_assert_eq!(features & !(OFFERED | features::VERSION_1), 0);
                    prop_assert!(features & features::VERSION_1 != 0);
                }
                Action::Notify(queue) => {
                    prop_assert!(device.is_live());
                    prop_assert!(device.ready_queues().any(|(ready, _)| ready == queue));
                }
                Action::Reset => {
                    prop_assert!(before.contains(Status::DRIVER_OK));
                    device.complete_reset();
                    prop_assert_eq!(device.status(), Status::empty());
                }
                _ => {}
            }
            prop_assert_eq!(device.load(reg::STATUS), device.status().bits());
            prop_assert_eq!(device.load(reg::MAGIC), reg::MAGIC_VALUE);
            prop_assert_eq!(device.load(reg::CONFIG), 0x0403_0201);
            prop_assert_eq!(device.load(reg::INTERRUPT_STATUS) != 0, device.interrupt_pending());
            for (queue, layout) in device.ready_queues() {
                prop_assert!(layout.check([256, 64][usize::from(queue)]).is_ok());
            }
        }
    }
}
