//! The neighbour: writes its own disk and reads it back, all the time, and measures how long it waits; between two requests it
//! looks after its sockets. It ends when somebody types a `q`.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {}

#[cfg(target_os = "none")]
mod guest {
    use partita_protocol::layout::guest;
    use partita_test_guests::blk::{self, Disk, IN, OUT};
    use partita_test_guests::machine::{self, frequency, now, read};
    use partita_test_guests::neighbour::Neighbour;
    use partita_test_guests::println;

    /// Sectors of 4096 bytes that are used.
    const PLACES: u64 = 256;
    /// From one request to the end of the next, microseconds. What a loaded host adds is in it, and its disk.
    const BOUND: u64 = 10_000_000;

    /// What is written at a place in a round: no two blocks are equal.
    fn pattern(place: u64, round: u64) -> [u8; 4096] {
        let mut block = [0; 4096];
        let mut word = (place << 32 | round) + 0x9e37_79b9_7f4a_7c15;
        for bytes in block.as_chunks_mut::<8>().0 {
            word = word.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(place);
            *bytes = word.to_le_bytes();
        }
        block
    }

    fn typed() -> Option<u8> {
        let empty = read(guest::UART + 0x18) & 1 << 4 != 0;
        (!empty).then(|| read(guest::UART) as u8)
    }

    #[unsafe(no_mangle)]
    extern "C" fn guest_main(_: u64) {
        machine::enable_interrupts(&[27, blk::INTID]);
        // The UART is on, both ways, so that there is something to type to.
        machine::write(guest::UART + 0x30, 0x301);
        let Some(mut disk) = Disk::start() else {
            println!("victim: FAIL: its disk does not start");
            return;
        };
        let Some(mut sockets) = Neighbour::start(blk::BASE + 0x1000) else {
            println!("victim: FAIL: its socket device does not start");
            return;
        };
        println!("victim: works");
        let (mut requests, mut wrong, mut late, mut worst, mut round) = (0u64, 0u64, 0u64, 0u64, 0u64);
        let begun = now();
        let mut last = begun;
        while typed() != Some(b'q') {
            round += 1;
            let place = round.wrapping_mul(0x9e37_79b9) % PLACES;
            let block = pattern(place, round);
            for kind in [OUT, IN] {
                sockets.turn();
                blk::store(0, if kind == OUT { block } else { [0; 4096] });
                let status = disk.request(kind, 64 + 8 * place, 4096);
                let passed = (now() - last) * 1_000_000 / frequency();
                last = now();
                requests += 1;
                worst = worst.max(passed);
                if passed > BOUND {
                    late += 1;
                    println!("victim: LATE: {passed} us");
                }
                if status != 0 || (kind == IN && blk::load(0) != block) {
                    wrong += 1;
                    println!("victim: WRONG: place {place}, round {round}, kind {kind}, status {status:#x}");
                    if status == 0xfe {
                        match Disk::start() {
                            Some(fresh) => disk = fresh,
                            None => return,
                        }
                    }
                }
            }
        }
        let seconds = (now() - begun) / frequency();
        let (wrong, late) = (wrong + sockets.wrong, late + sockets.late);
        let (echoes, connections) = (sockets.echoes, sockets.connections);
        println!(
            "victim: {requests} requests in {seconds} s, worst {worst} us, {wrong} wrong, {late} late, \
             {echoes} echoes, {connections} connections of the other"
        );
    }
}
