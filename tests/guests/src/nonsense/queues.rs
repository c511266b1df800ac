//! A disk with two queues (VIRTIO_BLK_F_MQ), one of which is not what the other is.

use super::device::{DEVICES, Device, Ring, SIZE, State, areas, ring};
use super::{Cases, Expect, Subject};
use crate::blk::{self, Descriptor, NEEDS_RESET, NEXT, WRITE, get, reg, set};
use crate::machine::{frequency, now, pause};

/// VIRTIO_BLK_F_MQ.
const MQ: u32 = 1 << 12;
/// What VIRTIO_F_RING_RESET would give a meaning (4.2.2).
const QUEUE_RESET: u64 = 0xc0;

/// The catalogue's entry.
pub const SUBJECT: Subject = Subject {
    name: "queues",
    expect: Expect::Lives,
    cases: Cases::Named(&[
        ("both are used", || {
            begin(MQ) && ready(0) && ready(1) && live() && ask(0) && ask(1) && answered(1) && answered(0)
        }),
        ("the second without the feature", || {
            begin(0) && ready(0) && ready(1) && !live() && disk().needs_reset()
        }),
        ("the second alone", || begin(MQ) && ready(1) && live() && ask(1) && answered(1)),
        ("one that is not ready is kicked", || {
            let kicked = begin(MQ) && ready(0) && live() && ask(1);
            pause(2);
            kicked && used(1) == 0 && ask(0) && answered(0) && used(1) == 0 && status() == 15
        }),
        ("one that is not ready is kicked, and no other is there", || {
            let kicked = begin(MQ) && live() && ask(0) && ask(1);
            pause(2);
            kicked && used(0) == 0 && used(1) == 0 && status() == 15
        }),
        ("the same rings in both", || {
            let live = begin(MQ) && ready(0) && disk().set_queue(1, SIZE as u32, areas(0)) && live();
            live && ask(0) && kick(1) && quiet()
        }),
        ("the used ring of one is the table of the other", || {
            let [table, avail, _] = areas(1);
            let live = begin(MQ)
                && ready(0)
                && disk().set_queue(1, SIZE as u32, [table, avail, areas(0)[0]])
                && live();
            live && ask(0) && ask(1) && quiet()
        }),
        ("a rule broken in one while the other works", || {
            let live = begin(MQ) && ready(0) && ready(1) && live() && ask(0);
            // SAFETY: our memory.
            unsafe { set(&raw mut (*ring(1)).avail[1], SIZE as u16 + 1) };
            live && kick(1) && disk().needs_reset()
        }),
        ("one is stopped alone", || {
            let live = begin(MQ) && ready(0) && ready(1) && live();
            disk().write(reg::QUEUE_SEL, 1);
            disk().write(reg::QUEUE_READY, 0);
            live && disk().read(reg::QUEUE_READY) == 1 && ask(1) && answered(1)
        }),
        ("one is reset alone", || {
            let live = begin(MQ) && ready(0) && ready(1) && live();
            disk().write(reg::QUEUE_SEL, 1);
            disk().write(QUEUE_RESET, 1);
            live && disk().read(QUEUE_RESET) == 0 && ask(1) && answered(1) && ask(0) && answered(0)
        }),
        ("one is moved while it works", || {
            let live = begin(MQ) && ready(0) && ready(1) && live();
            live && disk().set_queue(1, 4, areas(2)) && ask(1) && answered(1)
        }),
        ("a reset with requests in both", || {
            let asked = begin(MQ) && ready(0) && ready(1) && live() && ask(0) && ask(1);
            if !asked || !disk().reset() {
                return false;
            }
            let before = [used(0), used(1)];
            pause(5);
            before == [used(0), used(1)]
        }),
        ("half of the rings of one behind the end of RAM", || {
            let [table, avail, _] = areas(1);
            let set = begin(MQ) && ready(0) && disk().set_queue(1, SIZE as u32, [table, avail, 0x40ff_fff8]);
            set && !live() && disk().needs_reset()
        }),
    ]),
};

fn disk() -> &'static Device {
    &DEVICES[0]
}

fn status() -> u32 {
    disk().read(reg::STATUS)
}

/// From anywhere to FEATURES_OK, with empty rings. The device has two queues and says so.
fn begin(features: u32) -> bool {
    disk().enter(State::Reset) && disk().read(reg::DEVICE_FEATURES) & MQ != 0 && blk::negotiate(features)
}

fn ready(queue: u32) -> bool {
    disk().set_queue(queue, SIZE as u32, areas(queue as usize))
}

/// DRIVER_OK. False if the device says at once that it needs a reset.
fn live() -> bool {
    disk().write(reg::STATUS, 15);
    status() == 15
}

fn kick(queue: u32) -> bool {
    disk().write(reg::QUEUE_NOTIFY, queue);
    disk().is_itself()
}

/// Puts a read of the first sector into a queue, and kicks.
fn ask(queue: u32) -> bool {
    let n = queue as usize;
    let ring: *mut Ring = ring(n);
    // SAFETY: our memory; the indices are in bounds.
    unsafe {
        let bytes = &raw mut (*ring).data;
        // VIRTIO_BLK_T_IN, sector 0.
        for at in 0..16 {
            set(bytes.cast::<u8>().add(at), 0);
        }
        set(bytes.cast::<u8>().add(16), 0xff);
        let chain = [
            (bytes.addr(), 16, NEXT),
            (blk::data(n).addr(), 512, NEXT | WRITE),
            (bytes.addr() + 16, 1, WRITE),
        ];
        for (i, (addr, len, flags)) in chain.into_iter().enumerate() {
            let descriptor = Descriptor { addr: addr as u64, len, flags, next: i as u16 + 1 };
            set(&raw mut (*ring).descriptors[i], descriptor);
        }
        core::arch::asm!("dsb sy");
        set(&raw mut (*ring).avail[1], 1);
    }
    kick(queue)
}

/// The used index of a queue.
fn used(queue: usize) -> u16 {
    // SAFETY: our memory.
    (unsafe { get(&raw const (*ring(queue)).used[0]) } >> 16) as u16
}

/// Waits for the answer of [`ask`] in the same queue.
fn answered(queue: u32) -> bool {
    let until = now() + 5 * frequency();
    while used(queue as usize) == 0 {
        if now() > until || status() & NEEDS_RESET != 0 {
            return false;
        }
    }
    // SAFETY: our memory.
    used(queue as usize) == 1 && unsafe { get(&raw const (*ring(queue as usize)).data[16]) } == 0
}

/// Time for whatever comes of it. That the device needs a reset is allowed.
fn quiet() -> bool {
    pause(5);
    disk().is_itself()
}
