//! A virtio-blk request: any header, any descriptors, any limits of the device below.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::{arbitrary, fuzz_target};
use partita_virtio::blk::{BlkStatus, Limits, Operation, Segments, parse};
use partita_virtio::fake::{Buffer, DriverQueue, FakeRam};
use partita_virtio::features;
use partita_virtio::queue::Queue;

const BASE: u64 = 0x4000_0000;
const SIZE: u64 = 0x4_0000;
const PADDR: u64 = 0x9_0000_0000;

struct Shared(FakeRam);
// SAFETY: libfuzzer calls the target on one thread.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}
static RAM: OnceLock<Shared> = OnceLock::new();

#[derive(arbitrary::Arbitrary, Debug)]
struct Input {
    content: Vec<u8>,
    /// Offset from just before RAM, length, writable.
    buffers: Vec<(u32, u16, bool)>,
    wild: Option<(u64, u32)>,
    sorted: bool,
    indirect: bool,
    seg_max: u8,
    size_max: u32,
}

fuzz_target!(|input: Input| {
    let ram = RAM.get_or_init(|| Shared(FakeRam::new(BASE, SIZE, PADDR))).0;
    let mut driver = DriverQueue::new(ram.ram(), BASE, 64, true);
    let content = &input.content[..input.content.len().min(0x1000)];
    ram.ram().write(BASE + 0x8000, content).unwrap();
    let mut buffers: Vec<_> = input
        .buffers
        .iter()
        .take(40)
        .map(|(at, len, writable)| {
            // Most are near the content; a few are outside RAM.
            let at = if at & 7 == 0 {
                BASE - 0x100 + u64::from(*at) % (SIZE + 0x200)
            } else {
                BASE + 0x8000 + u64::from(*at) % 0x1000
            };
            Buffer { addr: at, len: (*len).into(), writable: *writable }
        })
        .collect();
    if let Some((addr, len)) = input.wild {
        buffers.push(Buffer { addr, len, writable: true });
    }
    if input.sorted {
        buffers.sort_by_key(|buffer| buffer.writable);
    }
    let added =
        if input.indirect { driver.add_indirect(BASE + 0x4000, &buffers) } else { driver.add(&buffers) };
    if added.is_none() {
        return;
    }
    let mut queue = Queue::new(ram.ram(), driver.layout, 256, features::INDIRECT_DESC).unwrap();
    let Ok(Some(chain)) = queue.pop() else { return };
    let mut segments = Segments::<32>::new();
    let limits = Limits { seg_max: input.seg_max.into(), size_max: input.size_max };
    let Ok(parsed) = parse(chain, &limits, &mut segments) else { return };
    assert!(ram.ram().offset(parsed.status, 1).is_some());
    let _ = parsed.used_len(BlkStatus::Ok);
    if let Ok(Operation::Read { .. } | Operation::Write { .. } | Operation::GetId) = parsed.operation {
        let list = segments.as_slice();
        assert!(!list.is_empty() && list.len() <= 32 && list.len() <= usize::from(input.seg_max));
        assert_eq!(list.iter().map(|s| u64::from(s.len)).sum::<u64>(), segments.bytes());
        for s in list {
            assert!(s.len > 0 && s.len <= input.size_max);
            assert!(s.paddr >= PADDR && s.paddr + u64::from(s.len) <= PADDR + SIZE);
        }
    }
});
