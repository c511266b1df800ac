//! A split virtqueue whose three parts and tables are any bytes, in any place of RAM.
//!
//! The walk must end and hand out only what the specification allows, and what translates is in RAM; a fault is a fine answer.
#![no_main]

use std::num::NonZeroU64;

use libfuzzer_sys::{
    arbitrary::{self, Arbitrary},
    fuzz_target,
};
use partita_virtio::{
    fake::FakeRam,
    features,
    queue::{Queue, QueueLayout},
};

const IPA: u64 = 0x4000_0000;
const LEN: u64 = 0x4000;
const PADDR: u64 = 0x8000_0000;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    size_log2: u8,
    places: Option<[u16; 3]>,
    event_idx: bool,
    indirect: bool,
    resume: Option<u16>,
    ram: &'a [u8],
}

thread_local! {
    static RAM: FakeRam = FakeRam::new(IPA, LEN, PADDR);
}

fuzz_target!(|input: Input<'_>| {
    let ram = RAM.with(FakeRam::ram);
    ram.fill(IPA, LEN, 0).expect("fits");
    let len = input.ram.len().min(LEN as usize);
    ram.write(IPA, &input.ram[..len]).expect("fits");

    let size = 1u16 << (input.size_log2 % 9);
    let layout = match input.places {
        // Anywhere, out of RAM too, and unaligned.
        Some([desc, avail, used]) => QueueLayout {
            size,
            desc: IPA + u64::from(desc),
            avail: IPA + u64::from(avail),
            used: IPA + u64::from(used),
        },
        // The available ring first, then the table: short inputs reach both.
        None => {
            let desc = IPA + (6 + 2 * u64::from(size)).next_multiple_of(16);
            QueueLayout { size, desc, avail: IPA, used: IPA + 0x3000 }
        }
    };
    let mut bits = features::VERSION_1;
    if input.event_idx {
        bits |= features::EVENT_IDX;
    }
    if input.indirect {
        bits |= features::INDIRECT_DESC;
    }
    let Ok(mut queue) = Queue::new(ram, layout, 256, bits) else { return };
    if let Some(in_flight) = input.resume
        && queue.resume(in_flight).is_err()
    {
        return;
    }
    // avail.idx cannot be ahead by more than the size, so no more than that can be popped while it does not change;
    // a used ring that overlaps the available ring does change it, so the budget is the device's, as in life.
    for _ in 0..2 * usize::from(size) {
        let Ok(Some(mut chain)) = queue.pop() else { break };
        let head = chain.head();
        assert!(head < size);
        let mut written = 0u32;
        let mut writable_seen = false;
        let mut count = 0u32;
        while let Ok(Some(descriptor)) = chain.next_descriptor() {
            count += 1;
            assert!(count <= 1024 + u32::from(size), "endless chain");
            let len = NonZeroU64::new(u64::from(descriptor.len)).expect("empty descriptor handed out").get();
            // The address is for its user to check, by translating it.
            if let Some(paddr) = ram.translate(descriptor.addr, len) {
                assert!(paddr >= PADDR && paddr + len <= PADDR + LEN);
            }
            assert!(descriptor.writable || !writable_seen, "readable after writable");
            writable_seen |= descriptor.writable;
            written = written.saturating_add(if descriptor.writable { descriptor.len } else { 0 });
        }
        if queue.push(head, written).is_err() || queue.publish().is_err() {
            break;
        }
    }
    let _ = queue.enable_kicks();
});
