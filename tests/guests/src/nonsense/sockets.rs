//! Socket packets that no honest driver sends, chains that hold none, and floods of packets that are in order one by one.
//!
//! What the neighbour sees of it is the neighbour's to judge: it has a stream of its own all the time, and takes connections
//! of this guest at [`PORT`], where it counts what the rules do not allow to arrive.

use super::device::VSOCK;
use super::rings::RAM_END;
use super::{Cases, Expect, Random, Subject};
use crate::blk::{Descriptor, INDIRECT, NEXT, WRITE, set};
use crate::machine::pause;
use crate::vsock::{self, ECHO, EVENT, HEADER, HOST, Header, RX, SIZE, TX, Vsock, areas, op, queue};

/// CID of the neighbour, as the description has it.
const NEIGHBOUR: u64 = 4;
/// The port at which the neighbour listens for this guest.
const PORT: u32 = 5000;
/// A port of ours.
const MINE: u32 = 1000;
/// The neighbour.
const PEER: (u64, u32) = (NEIGHBOUR, PORT);
/// The echo service.
const SERVICE: (u64, u32) = (HOST, ECHO);

/// Packets one by one.
pub const PACKETS: Subject = Subject {
    name: "socket packets",
    expect: Expect::Lives,
    cases: Cases::Named(&[
        ("requests from a forged cid", forged_sources),
        ("packets of the neighbour's stream", forged_stream),
        ("requests to nobody", || {
            [0, 1, 3, 5, 9, u64::MAX, 1 << 32 | NEIGHBOUR].into_iter().all(|cid| refused((cid, PORT)))
        }),
        ("requests to ports of the neighbour that are not allowed", || {
            [0, 1, 22, 4999, 5001, u32::MAX].into_iter().all(|port| refused((NEIGHBOUR, port)))
        }),
        ("requests to ports of the host that are not allowed", || {
            [0, 1, 8, 19, 80, 514, 1024, u32::MAX].into_iter().all(|port| refused((HOST, port)))
        }),
        ("unknown types", || {
            [0, 2, 3, 0x100, 0xffff].into_iter().all(|kind| {
                answered(SERVICE, Some(op::RST), |header| (header.op, header.kind) = (op::REQUEST, kind))
            })
        }),
        ("unknown operations without a connection", || {
            [0, 8, 9, 0x105, 0xffff]
                .into_iter()
                .all(|unknown| answered(SERVICE, Some(op::RST), |header| header.op = unknown))
        }),
        ("everything without a connection", || {
            let packets = [op::RESPONSE, op::SHUTDOWN, op::RW, op::CREDIT_UPDATE, op::CREDIT_REQUEST];
            [SERVICE, PEER].into_iter().all(|to| {
                packets.into_iter().all(|one| answered(to, Some(op::RST), |header| header.op = one))
            }) && answered(PEER, None, |header| header.op = op::RST)
        }),
        ("a request with payload", || {
            answered(SERVICE, Some(op::RST), |header| (header.op, header.len) = (op::REQUEST, 16))
        }),
        ("unknown operations on a connection", || broken(|header| header.op = 0x105)),
        ("another type on a connection", || broken(|header| header.kind = 2)),
        ("a second request on a connection", || broken(|header| header.op = op::REQUEST)),
        ("a response on a connection", || broken(|header| header.op = op::RESPONSE)),
        ("more bytes than there are", || broken(|header| header.len = 17)),
        ("a 4 GiB packet", || broken(|header| header.len = u32::MAX)),
        ("bytes in a credit update", || broken(|header| header.op = op::CREDIT_UPDATE)),
        ("bytes taken that never came", || broken(|header| header.fwd_cnt = 1)),
        ("two billion bytes taken that never came", || broken(|header| header.fwd_cnt = i32::MAX as u32)),
        ("more than the host has room for", || overrun(SERVICE)),
        ("more than the neighbour has room for", || overrun(PEER)),
        ("no room at all", || room(0)),
        ("room without end", || room(u32::MAX)),
        ("all flags", || {
            let Some(mut vsock) = open(SERVICE) else { return false };
            let mut header = vsock.header(SERVICE, MINE, op::SHUTDOWN);
            header.flags = u32::MAX;
            vsock.send(header, 0) && works(&mut vsock)
        }),
    ]),
};

/// Chains and queues.
pub const CHAINS: Subject = Subject {
    name: "socket chains",
    expect: Expect::Lives,
    cases: Cases::Named(&[
        ("an empty packet", || chain(&[(0, 0, 0)])),
        ("a header that lacks a byte", || chain(&[(0, HEADER as u32 - 1, 0)])),
        ("a header that the device may write", || chain(&[(0, HEADER as u32, WRITE)])),
        ("payload that the device may write", || chain(&[(0, HEADER as u32, NEXT), (64, 16, WRITE)])),
        ("a header behind the end of RAM", || chain(&[(RAM_END - OURS, HEADER as u32, 0)])),
        ("a header across the end of RAM", || chain(&[(RAM_END - OURS - 8, HEADER as u32, 0)])),
        ("payload behind the end of RAM", || chain(&[(0, HEADER as u32, NEXT), (RAM_END - OURS, 16, 0)])),
        ("payload of 4 GiB", || chain(&[(0, HEADER as u32, NEXT), (0, u32::MAX, 0)])),
        ("a chain that is a circle", || {
            with_live(|vsock| {
                for slot in 0..SIZE {
                    let descriptor = Descriptor { addr: OURS, len: 8, flags: NEXT, next: 0 };
                    let next = ((slot + 1) % SIZE) as u16;
                    // SAFETY: in bounds.
                    unsafe {
                        set(&raw mut (*queue(TX)).descriptors[slot], Descriptor { next, ..descriptor })
                    };
                }
                vsock.offer_head(TX, 0);
                vsock.kick(TX);
                vsock.needs_reset()
            })
        }),
        ("a table of descriptors that was not negotiated", || chain(&[(0, 64, INDIRECT)])),
        ("a header in pieces that lack a byte or two", || chain(&[(0, 6, NEXT); SIZE - 1])),
        ("a receive buffer that only holds a header's half", || received_into(0, 20, WRITE)),
        ("a receive buffer of nothing", || received_into(0, 0, WRITE)),
        ("a receive buffer that cannot be written", || received_into(0, 512, 0)),
        ("a receive buffer behind the end of RAM", || received_into(RAM_END, 512, WRITE)),
        ("a receive buffer across the end of RAM", || received_into(RAM_END - 32, 512, WRITE)),
        ("a receive buffer at 0", || received_into(0, 512, WRITE)),
        ("the receive queue behind the end of RAM", || queue_at(RX, RAM_END)),
        ("the transmit queue behind the end of RAM", || queue_at(TX, RAM_END)),
        ("the event queue behind the end of RAM", || queue_at(EVENT, RAM_END)),
        ("the receive queue at 0", || queue_at(RX, 0)),
        ("an event buffer behind the end of RAM", || {
            // Nobody writes to it as long as the broker lives.
            let Some(mut vsock) = Vsock::start(VSOCK) else { return false };
            vsock.offer(EVENT, 0, Descriptor { addr: RAM_END, len: 4, flags: WRITE, next: 0 });
            vsock.kick(EVENT);
            works(&mut vsock)
        }),
        ("a receive index that runs ahead", || {
            with_live(|vsock| {
                // SAFETY: in our memory.
                unsafe { set(&raw mut (*queue(RX)).avail[1], 2 * SIZE as u16 + 3) };
                vsock.kick(RX);
                let request = vsock.header(SERVICE, MINE, op::REQUEST);
                vsock.post(request, 0);
                vsock.needs_reset()
            })
        }),
    ]),
};

/// Many packets.
pub const FLOODS: Subject = Subject {
    name: "socket floods",
    expect: Expect::Lives,
    cases: Cases::Named(&[
        ("1000 requests to the host", || flood(SERVICE, 1000, 8)),
        ("700 requests to the neighbour", || flood(PEER, 700, 256)),
        ("1000 requests to a port that is not allowed", || flood((NEIGHBOUR, 1), 1000, 0)),
        ("refusals that nobody takes", || unheard((NEIGHBOUR, 1))),
        ("answers that nobody takes", || unheard(SERVICE)),
        ("200 connections that are opened and reset at once", || {
            with_live(|vsock| {
                (0..200).all(|n| {
                    let to = if n % 2 == 0 { SERVICE } else { PEER };
                    let reset = vsock.header(to, MINE + n, op::RST);
                    vsock.connect(to, MINE + n) && vsock.send(reset, 0)
                })
            })
        }),
        ("100 resets of the device with open connections", || {
            (0..100).all(|n| with_live(|vsock| vsock.connect(if n % 2 == 0 { SERVICE } else { PEER }, MINE)))
        }),
        ("2000 packets of chance", random_packets),
        ("2000 kicks of each queue", || {
            with_live(|vsock| {
                for number in [RX, TX, EVENT] {
                    (0..2000).for_each(|_| vsock.kick(number));
                }
                works(vsock)
            })
        }),
    ]),
};

/// Somewhere in our RAM.
const OURS: u64 = 0x4000_0000;

/// The device works: a new stream to the echo service and back.
fn works(vsock: &mut Vsock) -> bool {
    // What was on its way.
    while vsock.hear(20).is_some() {}
    const PORT: u32 = 77;
    let reset = vsock.header(SERVICE, PORT, op::RST);
    vsock.connect(SERVICE, PORT) && vsock.echo(PORT, 300, 0) && vsock.send(reset, 0)
}

/// As [`works`], from a reset.
pub fn works_again() -> bool {
    with_live(works)
}

fn with_live(action: impl FnOnce(&mut Vsock) -> bool) -> bool {
    Vsock::start(VSOCK).is_some_and(|mut vsock| action(&mut vsock))
}

fn open(to: (u64, u32)) -> Option<Vsock> {
    Vsock::start(VSOCK).and_then(|mut vsock| vsock.connect(to, MINE).then_some(vsock))
}

/// Whether a packet to `to` without payload is answered with this operation, or with none, and all is well afterwards.
fn answered(to: (u64, u32), wanted: Option<u16>, change: impl FnOnce(&mut Header)) -> bool {
    answer_to(to, change) == Some(wanted)
}

fn answer_to(to: (u64, u32), change: impl FnOnce(&mut Header)) -> Option<Option<u16>> {
    let mut vsock = Vsock::start(VSOCK)?;
    let mut header = vsock.header(to, MINE, op::RW);
    change(&mut header);
    if !vsock.send(header, 0) {
        return None;
    }
    let answer = vsock.hear(100).map(|header| header.op);
    works(&mut vsock).then_some(answer)
}

fn refused(to: (u64, u32)) -> bool {
    answered(to, Some(op::RST), |header| header.op = op::REQUEST)
}

/// A packet of 16 bytes on an open connection, with something wrong: the connection is reset, at both kinds of ends.
fn broken(change: impl Fn(&mut Header)) -> bool {
    [SERVICE, PEER].into_iter().all(|to| {
        let Some(mut vsock) = open(to) else { return false };
        let mut header = vsock.header(to, MINE, op::RW);
        header.len = 16;
        change(&mut header);
        vsock.send(header, 16) && until_reset(&mut vsock) && works(&mut vsock)
    })
}

/// The next packets are credit updates, and then a RST.
fn until_reset(vsock: &mut Vsock) -> bool {
    for _ in 0..64 {
        match vsock.hear(2000).map(|header| header.op) {
            Some(op::RST) => return true,
            Some(op::CREDIT_UPDATE | op::RW | op::SHUTDOWN) => {}
            _ => return false,
        }
    }
    false
}

/// Whoever is named as the source gets no answer either: the neighbour would count it.
fn forged_sources() -> bool {
    with_live(|vsock| {
        for cid in [0, 1, HOST, NEIGHBOUR, 1 << 32 | vsock.cid, u64::MAX] {
            for to in [SERVICE, PEER] {
                let header = Header { src_cid: cid, ..vsock.header(to, MINE, op::REQUEST) };
                if !vsock.send(header, 0) || vsock.hear(20).is_some() {
                    return false;
                }
            }
        }
        works(vsock)
    })
}

/// The neighbour has a stream from its port 1 to the echo service: data, an end and a reset in its name, and in the
/// service's.
fn forged_stream() -> bool {
    with_live(|vsock| {
        for one in [op::RW, op::CREDIT_UPDATE, op::SHUTDOWN, op::RST, op::REQUEST] {
            for (from, to) in [((NEIGHBOUR, 1), SERVICE), (SERVICE, (NEIGHBOUR, 1))] {
                let header = Header {
                    src_cid: from.0,
                    len: 16,
                    flags: 3,
                    fwd_cnt: 1 << 20,
                    ..vsock.header(to, from.1, one)
                };
                if !vsock.send(header, 16) || vsock.hear(20).is_some() {
                    return false;
                }
            }
        }
        works(vsock)
    })
}

/// Sends on without looking at the credit that comes.
fn overrun(to: (u64, u32)) -> bool {
    let Some(mut vsock) = open(to) else { return false };
    let mut header = vsock.header(to, MINE, op::RW);
    header.len = vsock::PAYLOAD as u32;
    vsock.send(header, vsock::PAYLOAD as u32) && until_reset(&mut vsock) && works(&mut vsock)
}

/// A connection to the echo service with this much room told.
fn room(bytes: u32) -> bool {
    with_live(|vsock| {
        let request = Header { buf_alloc: bytes, ..vsock.header(SERVICE, MINE, op::REQUEST) };
        let accepted =
            vsock.send(request, 0) && vsock.hear(2000).is_some_and(|header| { header.op } == op::RESPONSE);
        let data = Header { buf_alloc: bytes, len: 100, ..vsock.header(SERVICE, MINE, op::RW) };
        let sent = accepted && vsock.send(data, 100);
        // Without room nothing may come back.
        let came = core::iter::from_fn(|| vsock.hear(50)).any(|header| { header.op } == op::RW);
        sent && came == (bytes != 0) && works(vsock)
    })
}

/// Sends a chain of (offset in our RAM, length, flags), one descriptor after the other: the driver's fault.
fn chain(parts: &[(u64, u32, u16)]) -> bool {
    with_live(|vsock| {
        for (slot, (offset, len, flags)) in parts.iter().enumerate() {
            let descriptor =
                Descriptor { addr: OURS + offset, len: *len, flags: *flags, next: (slot + 1) as u16 };
            // SAFETY: in bounds by the remainder.
            unsafe { set(&raw mut (*queue(TX)).descriptors[slot % SIZE], descriptor) };
        }
        vsock.offer_head(TX, 0);
        vsock.kick(TX);
        vsock.needs_reset()
    })
}

/// Offers one receive buffer and asks for something to be put into it.
fn received_into(addr: u64, len: u32, flags: u16) -> bool {
    let Some(mut vsock) = Vsock::start_bare(VSOCK, core::array::from_fn(areas)) else { return false };
    vsock.offer(RX, 0, Descriptor { addr, len, flags, next: 0 });
    if !vsock.go() {
        return false;
    }
    vsock.kick(RX);
    let request = vsock.header(SERVICE, MINE, op::REQUEST);
    vsock.post(request, 0);
    vsock.needs_reset()
}

/// A queue where none can be.
fn queue_at(number: usize, addr: u64) -> bool {
    let mut places = core::array::from_fn(areas);
    places[number] = [addr; 3];
    let Some(vsock) = Vsock::start_bare(VSOCK, places) else { return false };
    let _ = vsock.go();
    vsock.kick(number);
    vsock.needs_reset()
}

/// Requests with a port of their own each: every one is answered, at most `most` by a connection.
fn flood(to: (u64, u32), count: u32, most: u32) -> bool {
    with_live(|vsock| {
        let (mut accepted, mut refused) = (0, 0);
        for n in 0..count {
            let request = vsock.header(to, MINE + n, op::REQUEST);
            if !vsock.send(request, 0) {
                return false;
            }
            match vsock.hear(5000).map(|header| (header.op, header.dst_port)) {
                Some((op::RESPONSE, port)) if port == MINE + n => accepted += 1,
                Some((op::RST, port)) if port == MINE + n => refused += 1,
                _ => return false,
            }
        }
        accepted == most && accepted + refused == count
    }) && works_again()
}

/// Requests without a buffer for their answers: at some point the device takes no more of them, and goes on when there are
/// buffers.
fn unheard(to: (u64, u32)) -> bool {
    let Some(mut vsock) = Vsock::start_bare(VSOCK, core::array::from_fn(areas)) else { return false };
    if !vsock.go() {
        return false;
    }
    let mut posted = 0;
    for n in 0..400 {
        let request = vsock.header(to, MINE + n, op::REQUEST);
        vsock.post(request, 0);
        posted = n + 1;
        if !vsock.sent(100) {
            break;
        }
    }
    if posted == 400 {
        // It has kept 400 answers for us, or lost some.
        return false;
    }
    for slot in 0..SIZE {
        vsock.offer_buffer(slot);
    }
    vsock.kick(RX);
    let mut answers = 0;
    while let Some(header) = vsock.hear(500) {
        if !matches!(header.op, op::RST | op::RESPONSE) {
            return false;
        }
        answers += 1;
    }
    answers == posted && works_again()
}

/// Headers of which every field is one of a few that matter, or chance.
fn random_packets() -> bool {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    with_live(|vsock| {
        let own = vsock.cid;
        for _ in 0..2000 {
            let mut draw = |few: &[u64]| {
                let at = random.draw() as usize % (few.len() + 1);
                few.get(at).copied().unwrap_or_else(|| random.draw())
            };
            let header = Header {
                src_cid: draw(&[own, own, own, own, NEIGHBOUR, HOST]),
                dst_cid: draw(&[NEIGHBOUR, NEIGHBOUR, HOST, HOST, own]),
                src_port: draw(&[1, 2, 3, 4]) as u32,
                dst_port: draw(&[PORT.into(), PORT.into(), ECHO.into(), ECHO.into(), 1]) as u32,
                len: draw(&[0, 0, 0, 16, 16, 100]) as u32,
                kind: draw(&[1, 1, 1, 1, 1, 2]) as u16,
                op: draw(&[1, 1, 2, 3, 4, 5, 5, 6, 7]) as u16,
                flags: draw(&[0, 0, 0, 3]) as u32,
                buf_alloc: draw(&[0, 100, 4096, 1 << 20]) as u32,
                fwd_cnt: draw(&[0, 0, 0, 1]) as u32,
            };
            if !vsock.send(header, [0, 16, 100][random.draw() as usize % 3]) {
                return false;
            }
            while vsock.hear(0).is_some() {}
        }
        true
    }) && {
        pause(10);
        works_again()
    }
}
