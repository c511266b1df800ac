use super::*;
use partita_ring::{AtomicU64, Header, Mine, Tx, Yours, log::Logger};
use proptest::prelude::*;
use std::cell::RefCell;
use std::string::String;

/// Both page sets of a link, kept for the whole test program.
struct Pages {
    headers: [Header; 2],
    data: [Vec<AtomicU64>; 2],
}

fn pages(bytes: usize) -> &'static Pages {
    let data = || (0..bytes / 8).map(|_| AtomicU64::new(0)).collect();
    Box::leak(Box::new(Pages { headers: [Header::new(), Header::new()], data: [data(), data()] }))
}

impl Pages {
    fn end(&'static self, me: usize) -> Duplex<'static> {
        let you = 1 - me;
        let mine = Mine::new(&self.headers[me], &self.data[me]);
        Duplex::new(mine, Yours::new(&self.headers[you], &self.data[you]))
    }
}

/// A UART that takes at most `speed` bytes between two interrupts.
#[derive(Default)]
struct Fake {
    speed: usize,
    room: usize,
    out: Vec<u8>,
    interrupt: bool,
}

impl Uart for Fake {
    fn write(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.room);
        self.room -= taken;
        self.out.extend(&bytes[..taken]);
        taken
    }
    fn read(&mut self) -> Option<u8> {
        None
    }
    fn overruns(&mut self) -> u32 {
        0
    }
    fn tx_interrupt(&mut self, on: bool) {
        self.interrupt = on;
    }
    fn is_idle(&self) -> bool {
        true
    }
}

struct Bench {
    mux: Mux<'static>,
    uart: Fake,
    /// The VMMs' ends.
    guests: Vec<Duplex<'static>>,
    logs: Vec<Logger<'static>>,
}

const SCROLLBACK: usize = 128;

impl Bench {
    fn new(guests: usize, speed: usize) -> Self {
        let mut mux = Mux::new();
        let (mut ends, mut logs) = (Vec::new(), Vec::new());
        for n in 0..guests {
            let (console, log) = (pages(64), pages(4096));
            let name = Name::try_from(format!("g{}", n + 1).as_str()).unwrap();
            mux.add_guest(n, name.clone(), console.end(1), Box::leak(Box::new([0; SCROLLBACK])));
            mux.add_vmm_log(n, name, log.end(1));
            ends.push(console.end(0));
            let Pages { headers: [a, b], data: [c, d] } = log;
            logs.push(Logger::new(Mine::new(a, c), Yours::new(b, d), || ()));
        }
        Bench { mux, uart: Fake { speed, ..Fake::default() }, guests: ends, logs }
    }

    /// With room for typed bytes beyond the rings'.
    fn with_ahead<const N: usize>(mut self) -> Self {
        let bytes: &'static mut Deque<u8, N> = Box::leak(Box::new(Deque::new()));
        self.mux.add_ahead(bytes);
        self
    }

    fn typed(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.mux.typed(*byte));
    }

    /// Pumps as the interrupts would make the PD do, until it sleeps.
    fn run(&mut self) {
        for _ in 0..10_000 {
            self.uart.room = self.uart.speed;
            if self.mux.pump(&mut self.uart) == Pumped::Idle {
                assert!(!self.uart.interrupt);
                return;
            }
            assert!(self.uart.interrupt);
        }
        panic!("never idle");
    }

    fn out(&mut self) -> String {
        self.run();
        String::from_utf8(std::mem::take(&mut self.uart.out)).unwrap()
    }

    fn say(&mut self, guest: usize, text: &str) {
        assert!(self.guests[guest].tx.write_all(text.as_bytes()), "the ring is full");
    }
}

fn read(end: &mut Duplex<'_>) -> Vec<u8> {
    let mut bytes = vec![0; 1000];
    let len = end.rx.read(&mut bytes);
    bytes.truncate(len);
    bytes
}

#[test]
fn log_lines_are_kept_as_printed() {
    let mut bench = Bench::new(2, 1000);
    let Pages { headers: [header, _], data: [data, _] } = pages(64);
    bench.mux.keep_logs(Writer::new(Mine::new(header, data)));
    bench.logs[0].line(format_args!("one\x1b[2J"));
    bench.logs[1].line(format_args!("two"));
    bench.say(0, "guest output is not in it\n");
    let printed = bench.out();
    let mut bytes = [0; 64];
    let (at, len) = partita_ring::history::Reader::new(Yours::new(header, data)).read(0, &mut bytes);
    let kept = std::str::from_utf8(&bytes[..len]).unwrap();
    assert_eq!((at, kept), (0, "[g1] one?[2J\n[g2] two\n"));
    assert!(kept.lines().all(|line| printed.contains(line)), "{printed}");
}

#[test]
fn one_guest_and_its_user_talk() {
    let mut bench = Bench::new(1, 7);
    bench.say(0, "login: ");
    assert_eq!(bench.out(), "login: ");
    bench.typed(b"root\r\x1d\x1d\x03");
    assert_eq!(read(&mut bench.guests[0]), b"root\r\x1d\x03");
    assert_eq!(bench.out(), "");
}

#[test]
fn log_lines_start_lines() {
    let mut bench = Bench::new(1, 1000);
    bench.logs[0].line(format_args!("first"));
    bench.say(0, "half a ");
    assert_eq!(bench.out(), "[g1] first\r\nhalf a ");
    // More of the line is there when the log line comes: it is finished first.
    bench.say(0, "line\r\nnext");
    bench.logs[0].line(format_args!("second\x1b[2J"));
    assert_eq!(bench.out(), "line\r\n[g1] second?[2J\r\nnext");
    // Nothing more is there: the line is broken.
    bench.logs[0].line(format_args!("third"));
    assert_eq!(bench.out(), "\r\n[g1] third\r\n");
}

#[test]
fn a_guest_without_newlines_cannot_hold_log_lines_back() {
    let mut bench = Bench::new(1, 16);
    bench.say(0, "x");
    bench.run();
    bench.logs[0].line(format_args!("here"));
    for _ in 0..100 {
        bench.guests[0].tx.write(&[b'x'; 64]);
        bench.uart.room = 64;
        bench.mux.pump(&mut bench.uart);
    }
    let out = bench.out();
    let at = out.find("\r\n[g1] here\r\n").unwrap();
    assert!(at <= 1 + GRACE + PIECE, "{at}");
}

#[test]
fn a_guest_in_the_background_never_waits_and_its_newest_output_is_kept() {
    let mut bench = Bench::new(2, 16);
    let mut all = String::new();
    for i in 0..20 {
        let text = format!("line number {i}\r\n");
        bench.say(1, &text);
        all += &text;
        assert_eq!(bench.out(), "");
    }
    bench.typed(b"\x1d2");
    let lost = all.len() - SCROLLBACK;
    assert_eq!(
        bench.out(),
        format!("[console] guest 2: g2 ({lost} bytes too old to be kept)\r\n{}", &all[lost..])
    );
    bench.typed(b"x");
    assert_eq!((read(&mut bench.guests[0]), read(&mut bench.guests[1])), (vec![], vec![b'x']));
    // Now the first is in the background.
    bench.say(0, "one");
    bench.say(1, "two");
    assert_eq!(bench.out(), "two");
    bench.typed(b"\x1d1");
    assert_eq!(bench.out(), "\r\n[console] guest 1: g1\r\none");
    // One who comes back sees where he was.
    bench.typed(b"\x1d2");
    let out = bench.out();
    assert!(out.starts_with("\r\n[console] guest 2: g2\r\nline number 1"), "{out}");
    assert!(out.ends_with("\r\nline number 19\r\ntwo"), "{out}");
    // And not twice.
    bench.typed(b"\x1d2");
    assert_eq!(bench.out(), "\r\n[console] guest 2: g2\r\n");
}

#[test]
fn typed_bytes_that_nobody_reads_are_counted() {
    let mut bench = Bench::new(1, 100);
    bench.typed(&[b'x'; 70]);
    assert_eq!(bench.out(), "[console] g1 does not read what is typed: it is dropped\r\n");
    assert_eq!(read(&mut bench.guests[0]), [b'x'; 64]);
    bench.typed(b"y");
    assert_eq!(bench.out(), "[console] g1: 6 typed bytes were dropped\r\n");
    assert_eq!(read(&mut bench.guests[0]), b"y");
}

#[test]
fn the_keys_answer() {
    let mut bench = Bench::new(2, 100);
    bench.typed(b"\x1d3\x1d0\x1dq");
    assert_eq!(
        bench.out(),
        "[console] there is no guest 3\r\n[console] this system has no management shell\r\n[console] Ctrl-] ? for help\r\n"
    );
    bench.typed(b"\x1d?");
    let help = bench.out();
    assert_eq!(help.lines().count(), 5, "{help}");
    assert!(help.contains("1  g1 (in front)") && help.ends_with("2  g2\r\n"), "{help}");
    bench.typed(b"\x1d?".repeat(100).as_slice());
    assert!(bench.out().lines().count() <= 8 * 5);
    // No guests at all.
    let mut bench = Bench::new(0, 100);
    bench.typed(b"abc\x1d1\x1d?");
    assert!(bench.out().contains("there is no guest 1"));
}

#[test]
fn the_shell_is_one_more_console() {
    let mut bench = Bench::new(1, 100);
    let pages = pages(64);
    let name = Name::try_from("shell").unwrap();
    bench.mux.add_shell(name, pages.end(1), Box::leak(Box::new([0; SCROLLBACK])));
    let mut shell = pages.end(0);
    assert!(shell.tx.write_all(b"> "));
    bench.say(0, "guest");
    assert_eq!(bench.out(), "guest");
    bench.typed(b"\x1d0cells\r");
    assert_eq!(bench.out(), "\r\n[console] management shell\r\n> ");
    assert_eq!(read(&mut shell), b"cells\r");
    assert!(!shell.rx.arm());
    bench.typed(b"\r");
    let mut notified = Vec::new();
    bench.mux.notify_cells(|n| notified.push(n));
    assert_eq!(notified, [SHELL]);
    // Its output goes on while a guest is in front, and is there later.
    bench.typed(b"\x1d1");
    assert_eq!(bench.out(), "\r\n[console] guest 1: g1\r\nguest");
    assert!(shell.tx.write_all(b"ok\r\n> "));
    assert_eq!(bench.out(), "");
    bench.typed(b"\x1d0");
    assert_eq!(bench.out(), "\r\n[console] management shell\r\n> ok\r\n> ");
    // Without guests it is in front.
    let mut mux = Mux::new();
    mux.add_shell(Name::new(), pages.end(1), Box::leak(Box::new([0; SCROLLBACK])));
    mux.typed(b'x');
    assert_eq!(read(&mut shell), b"\rx");
}

#[test]
fn notifications_are_as_many_as_waits() {
    let mut bench = Bench::new(1, 100);
    bench.run();
    let count = RefCell::new(0);
    let notify = |bench: &mut Bench| {
        bench.mux.notify_cells(|n| {
            assert_eq!(n, 0);
            *count.borrow_mut() += 1
        });
        count.take()
    };
    notify(&mut bench);
    // The guest waits for input.
    assert!(!bench.guests[0].rx.arm());
    bench.typed(b"a");
    assert_eq!(notify(&mut bench), 1);
    bench.typed(b"bc");
    assert_eq!(notify(&mut bench), 0);
    // The guest waits for room.
    assert_eq!(bench.guests[0].tx.write(&[0; 100]), 64);
    assert!(bench.guests[0].tx.should_notify());
    assert!(!bench.guests[0].tx.arm(32));
    bench.run();
    assert_eq!(notify(&mut bench), 1);
    assert_eq!(notify(&mut bench), 0);
}

#[test]
fn what_is_typed_waits_for_a_slow_reader() {
    // Rings of 64 bytes.
    let mut bench = Bench::new(2, 1000).with_ahead::<100>();
    let text: Vec<u8> = (b'!'..=b'~').collect();
    bench.typed(&text);
    assert_eq!(read(&mut bench.guests[0]), &text[..64]);
    // The reader has asked for nothing, but its VMM was asked to tell of room.
    assert!(bench.guests[0].rx.should_notify());
    assert_eq!(bench.out(), "");
    assert_eq!(read(&mut bench.guests[0]), &text[64..]);
    // Ctrl-] is seen although the one in front reads nothing; what waits does not get in the way of another.
    bench.typed(&text);
    bench.typed(b"\x1d2second");
    assert_eq!(bench.out(), "[console] guest 2: g2\r\n");
    assert_eq!(read(&mut bench.guests[1]), b"second");
    assert_eq!(
        [read(&mut bench.guests[0]).len(), {
            bench.run();
            read(&mut bench.guests[0]).len()
        }],
        [64, 30]
    );
    // Full: what is more is dropped and told, also when it is given up for another.
    bench.typed(&[b'x'; 64 + 100 + 5]);
    assert_eq!(bench.out(), "[console] g2 does not read what is typed: it is dropped\r\n");
    bench.typed(b"\x1d1");
    bench.typed(&[b'y'; 65]);
    assert_eq!(bench.out(), "[console] guest 1: g1\r\n[console] g2: 105 typed bytes were dropped\r\n");
    assert_eq!(read(&mut bench.guests[0]), [b'y'; 64]);
    bench.run();
    assert_eq!(read(&mut bench.guests[0]), b"y");
}

#[test]
fn drained_means_that_everything_went_out() {
    let mut bench = Bench::new(2, 10);
    assert!(bench.mux.drained());
    bench.say(0, "last words");
    assert!(!bench.mux.drained());
    bench.uart.room = 4;
    assert_eq!(bench.mux.pump(&mut bench.uart), Pumped::Waiting);
    assert!(!bench.mux.drained());
    bench.run();
    assert!(bench.mux.drained());
    bench.logs[1].line(format_args!("bye"));
    assert!(!bench.mux.drained());
    bench.run();
    assert!(bench.mux.drained());
}

#[test]
fn a_peer_that_writes_nonsense_costs_no_more_than_its_own_output() {
    let (console, log) = (pages(64), pages(4096));
    let mut mux = Mux::new();
    let mut kept = [0; 64];
    mux.add_guest(0, Name::new(), console.end(1), &mut kept);
    mux.add_service_log(Service::Timer, Name::new(), log.end(1));
    // Full pages without a newline, then indices that cannot be.
    let mut evil: Tx<'_> = log.end(0).tx;
    assert!(evil.write_all(&[0xff; 4096]));
    let mut uart = Fake { speed: 100_000, room: 100_000, ..Fake::default() };
    mux.pump(&mut uart);
    let out = String::from_utf8(uart.out.clone()).unwrap();
    assert_eq!(out.matches('?').count(), 4096);
    assert_eq!(out.lines().count(), 4096 / lines::LINE);
    // A page that says it has produced more than it has room for is believed no byte of it.
    let big: Vec<_> = (0..100).map(|_| AtomicU64::new(0)).collect();
    let yours = Yours::new(&console.headers[1], &console.data[1]);
    let mut liar = Duplex::new(Mine::new(&console.headers[0], &big), yours).tx;
    assert_eq!(liar.write(&[b'x'; 500]), 500);
    uart.out.clear();
    assert_eq!(mux.pump(&mut uart), Pumped::Idle);
    assert_eq!(uart.out, b"");
    // From there on it is understood again.
    assert!(console.end(0).tx.write_all(b"sorry"));
    mux.pump(&mut uart);
    assert_eq!(uart.out, b"sorry");
}

proptest! {
    /// Every typed byte arrives in order or is counted in a notice; none is dropped while there is room for it.
    #[test]
    fn typed_bytes_are_accounted_for(steps in prop::collection::vec((0u8..4, 1usize..80), 1..80)) {
        let mut bench = Bench::new(2, 10_000).with_ahead::<128>();
        let (mut front, mut next) = (0, 0u32);
        let (mut typed, mut got) = ([vec![], vec![]], [vec![], vec![]]);
        let mut told = 0;
        let mut notices = String::new();
        for (what, count) in steps {
            match what {
                0 => {
                    front = count % 2;
                    bench.typed(&[0x1d, b'1' + front as u8]);
                }
                1 | 2 => for _ in 0..count {
                    // Never a Ctrl-].
                    let byte = b' ' + (next % 90) as u8;
                    next += 1;
                    typed[front].push(byte);
                    bench.typed(&[byte]);
                },
                _ => {
                    let which = count % 2;
                    got[which].extend(read(&mut bench.guests[which]));
                }
            }
            // Notices are limited in number, so they are read at once.
            notices += &bench.out();
        }
        for guest in [0, 1] {
            bench.typed(&[0x1d, b'1' + guest as u8]);
            // Everything that waits, then one more byte, which makes the count of what was dropped known.
            for _ in 0..8 {
                bench.run();
                got[guest].extend(read(&mut bench.guests[guest]));
            }
            bench.typed(b"~");
            typed[guest].push(b'~');
            notices += &bench.out();
            got[guest].extend(read(&mut bench.guests[guest]));
        }
        for line in notices.lines().filter(|line| line.contains("were dropped")) {
            told += line.split_whitespace().nth(2).unwrap().parse::<usize>().unwrap();
        }
        let lost: usize = (0..2).map(|n| typed[n].len() - got[n].len()).sum();
        prop_assert_eq!(lost, told, "{}", notices);
        for n in [0, 1] {
            let mut rest = typed[n].iter();
            prop_assert!(got[n].iter().all(|byte| rest.any(|typed| typed == byte)), "order");
        }
    }

    /// Whatever is said and typed in whatever order: the guest in front loses nothing, log lines come whole and in order.
    #[test]
    fn nothing_is_lost_or_torn(
        speed in 1usize..100,
        steps in prop::collection::vec((0u8..4, "[a-z\n]{1,30}"), 1..60),
    ) {
        let mut bench = Bench::new(1, speed);
        let (mut said, mut logged) = (String::new(), Vec::new());
        for (what, text) in steps {
            match what {
                0 | 1 => {
                    let taken = bench.guests[0].tx.write(text.as_bytes());
                    said += &text[..taken];
                }
                2 => {
                    let line = text.replace('\n', " ");
                    bench.logs[0].line(format_args!("{line}"));
                    logged.push(format!("[g1] {line}"));
                }
                _ => {
                    bench.uart.room = speed;
                    bench.mux.pump(&mut bench.uart);
                }
            }
        }
        let out = bench.out();
        let mut logs = Vec::new();
        let mut rest = String::new();
        for line in out.split_inclusive('\n') {
            match line.strip_suffix("\r\n") {
                Some(line) if line.starts_with('[') => logs.push(line.to_string()),
                // A line of the guest (it uses no \r) that was broken for a log line.
                Some(broken) => rest += broken,
                None => rest += line,
            }
        }
        prop_assert_eq!(logs, logged);
        prop_assert_eq!(rest, said);
        prop_assert!(bench.mux.drained());
    }
}
