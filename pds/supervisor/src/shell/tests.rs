use super::command::tests::Fake;
use super::*;
use partita_ring::{AtomicU64, Header, Mine, Yours};
use proptest::prelude::*;

/// A link with its other end.
fn link(bytes: usize) -> [Duplex<'static>; 2] {
    let data = || (0..bytes / 8).map(|_| AtomicU64::new(0)).collect::<std::vec::Vec<_>>();
    let headers: &'static [Header; 2] = Box::leak(Box::new([Header::new(), Header::new()]));
    let data: &'static [std::vec::Vec<AtomicU64>; 2] = Box::leak(Box::new([data(), data()]));
    [0, 1].map(|n| Duplex::new(Mine::new(&headers[n], &data[n]), Yours::new(&headers[1 - n], &data[1 - n])))
}

struct Bench {
    shell: Shell<'static>,
    link: Duplex<'static>,
    user: Duplex<'static>,
    system: Fake,
}

impl Bench {
    fn new(bytes: usize) -> Self {
        let [link, user] = link(bytes);
        let shell = Shell::new(Box::leak(Box::new(Output::new())));
        Bench { shell, link, user, system: Fake::two() }
    }

    /// Types, reads what comes back until nothing comes.
    fn says(&mut self, typed: &[u8]) -> String {
        let mut out = std::vec::Vec::new();
        let mut rest = typed;
        loop {
            let taken = self.user.tx.write(rest);
            rest = &rest[taken..];
            let more = self.shell.pump(&mut self.link, &mut self.system);
            let mut bytes = [0; 512];
            let seen = self.user.rx.read(&mut bytes);
            out.extend(&bytes[..seen]);
            if seen == 0 && rest.is_empty() && !more {
                return String::from_utf8(out).unwrap();
            }
        }
    }
}

#[test]
fn a_line_is_edited_and_run() {
    let mut bench = Bench::new(4096);
    assert_eq!(bench.says(b""), "partita> ");
    // The backspace key; completion of a command's name; a name that is wrong.
    assert_eq!(bench.says(b"cellz\x7fs\r").lines().last(), Some("partita> "));
    assert_eq!(bench.says(b"st\t"), "st\r\x1b[2Kstart  stop  stats  \r\npartita> st");
    assert_eq!(bench.says(b"at\t"), "ats ");
    assert!(bench.says(b"debiam2\r\n").contains("\r\nthere is no cell debiam2; did you mean debian2?\r\n"));
    // History.
    assert!(bench.says(b"\x1b[A\x1b[A\r").contains("#  name"));
    assert_eq!(bench.says(b"pause debian1\r"), "pause debian1\r\ndebian1: pauses\r\npartita> ");
    assert_eq!(bench.system.orders, [(0, crate::lifecycle::Order::Pause)]);
}

#[test]
fn tab_completes_commands_and_cells() {
    let mut bench = Bench::new(4096);
    bench.says(b"");
    assert_eq!(bench.says(b"res\t"), "res\r\x1b[2Kresume  restart  \r\npartita> res");
    assert_eq!(bench.says(b"u\t"), "ume ");
    assert_eq!(bench.says(b"\t"), "debian");
    assert_eq!(bench.says(b"\t"), "\r\x1b[2Kdebian1  debian2  \r\npartita> resume debian");
    assert_eq!(bench.says(b"2\t\r"), "2 \r\ndebian2: goes on\r\npartita> ");
    // A line from the history, a cursor in its middle: Tab goes on at the end.
    assert_eq!(
        bench.says(b"\x1b[A\x7f\x7f\x1b[D\x1b[D\t").rsplit("partita> ").next().unwrap(),
        "resume debian"
    );
    assert_eq!(bench.says(b"1\r"), "1\r\ndebian1: goes on\r\npartita> ");
    // In an escape sequence Tab is nothing, and what comes after the sequence is text again.
    assert_eq!(bench.says(b"\x1b[\tAx\t").rsplit("partita> ").next().unwrap(), "resume debian1x");
    let orders = [(1, crate::lifecycle::Order::Resume), (0, crate::lifecycle::Order::Resume)];
    assert_eq!(bench.system.orders, orders);
    // Nothing fits, or no more fits into the line.
    bench.says(b"\r");
    assert_eq!(bench.says(b"xyz\t"), "xyz");
    bench.says(&[b' '; LINE - 5]);
    assert_eq!(bench.says(b"\t"), "");
}

#[test]
fn a_small_ring_gets_everything_piece_by_piece() {
    let (mut small, mut big) = (Bench::new(64), Bench::new(8192));
    let script = b"help\rdisks\rstats\rcells\r";
    assert_eq!(small.says(script), big.says(script));
}

#[test]
fn no_answer_is_cut() {
    let mut bench = Bench::new(8192);
    bench.system = Fake::full();
    let out = bench.says(b"disks\r");
    assert!(out.len() < OUTPUT && out.ends_with("partita> "), "{}", out.len());
    assert_eq!(out.lines().count(), 1 + 37 + 2 + 37 + 1, "{out}");
    for command in ["cells\r", "stats\r"] {
        let out = bench.says(command.as_bytes());
        assert!(out.len() < OUTPUT && out.ends_with("partita> "));
    }
}

proptest! {
    /// Whatever is typed, the shell comes back to its prompt.
    #[test]
    fn any_typing(
        noise in prop::collection::vec(prop_oneof![
            any::<u8>().prop_map(|byte| vec![byte]),
            prop::sample::select(vec![
                &b"\x1b[A"[..], b"\x1b[B", b"\x1b[C", b"\x1b[D", b"\t", b"\x7f", b"\r", b"\"", b"\\", b" ",
                b"start ", b"stats", b"-", b"--", b"debian1", b"1",
            ]).prop_map(<[u8]>::to_vec),
        ], 0..200),
    ) {
        let mut bench = Bench::new(256);
        bench.says(&noise.concat());
        // Out of an escape sequence, and the line ended.
        bench.says(b"m\r");
        let out = bench.says(b"links\r");
        prop_assert!(out.starts_with("links\r\nlink  id  peer") && out.ends_with("20\r\npartita> "), "{}", out);
    }
}
