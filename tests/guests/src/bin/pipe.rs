//! One end of a pipe: receives a stream, answers with its checksum, and sends as much back.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {}

#[cfg(target_os = "none")]
mod guest {
    use partita_pipe::Error;
    use partita_pipe::pattern::{Checksum, Pattern};
    use partita_protocol::layout::guest::LINK_IRQ;
    use partita_test_guests::check::{check, equal, summary};
    use partita_test_guests::link::{self, Link};
    use partita_test_guests::{machine, println, refused};

    #[unsafe(no_mangle)]
    extern "C" fn guest_main(_: u64) {
        println!("pipe: a bare-metal guest");
        machine::enable_interrupts(&[27, LINK_IRQ]);
        equal("hypercall with an address outside of RAM", link::ask(0x1000), -14i64 as u64);
        match Link::find() {
            None => check("there is a link", false),
            Some(link) => run(&link),
        }
        summary("pipe", false);
    }

    fn run(link: &Link) {
        equal("id", link.place.id.into(), 0);
        equal("doorbell's interrupt", link.place.irq.into(), LINK_IRQ.into());
        let partner = 1 - link.me;
        // The start of peer 1's section, as the test's description has the link: read-only for us. One store has a syndrome,
        // the other has none.
        const ABORT: u64 = 0x25 << 26 | 1 << 25 | 1 << 10 | 1 << 6 | 0x10;
        let one = refused!("movz x0, #0x1004, lsl #16", "movk x0, #0x2000", "str wzr, [x0]");
        equal("a store to the peer's section", one, ABORT);
        let pair = refused!("movz x0, #0x1004, lsl #16", "movk x0, #0x2000", "stp xzr, xzr, [x0, #16]");
        equal("a pair to the peer's section", pair, ABORT);
        // Rings that mean nobody.
        [link.me, link.peers, u32::MAX].into_iter().for_each(|peer| link.ring(peer));
        let mut pipe = match link.pipe(partner) {
            Ok(pipe) => pipe,
            Err(error) => return println!("FAIL open: {error:?}"),
        };
        println!("pipe: waits for peer {partner}");
        let mut serve = || -> Result<(u64, u64), Error> {
            let (mut sum, mut all, mut buffer) = (Checksum::new(), 0, [0; 4096]);
            pipe.connect()?;
            loop {
                match pipe.read(&mut buffer)? {
                    0 => break,
                    count => {
                        sum.add(buffer.get(..count).unwrap_or_default());
                        all += count as u64;
                    }
                }
            }
            pipe.write_all(&sum.finish().to_le_bytes())?;
            Ok((all, sum.finish()))
        };
        match serve() {
            Ok((all, sum)) => {
                println!("pipe: received {all} bytes, checksum {sum:#018x}");
                let (mut expected, mut pattern, mut left, mut buffer) =
                    (Checksum::new(), Pattern::new(), all, [0; 4096]);
                while left != 0 {
                    let count = left.min(4096) as usize;
                    let piece = buffer.get_mut(..count).unwrap_or_default();
                    pattern.fill(piece);
                    expected.add(piece);
                    left -= count as u64;
                }
                equal("checksum of what should have come", sum, expected.finish());
                check("the stream was not empty", all != 0);
                pipe.close();
            }
            Err(error) => {
                println!("     {error:?}");
                check("the stream holds", false);
            }
        }
    }
}
