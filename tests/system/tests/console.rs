//! Consoles (docs/shell.md): nothing that a guest says or is told gets lost, keys choose who is spoken to, and the
//! management shell's line is comfortable.

use std::time::Duration;

use partita::{fail, failure::Result};
use partita_system_tests::{
    fixture::{SOON, System, default_system, no_trouble, with_system},
    terminal::SHELL,
};

/// For much text through a slow line.
const LONG: Duration = Duration::from_secs(300);

#[test]
fn the_console_loses_no_output() {
    with_system("console", None, |system| {
        system.shell()?;
        let session = &mut system.session;
        // Out: as fast as the guest can print. 39000 bytes are many times every buffer between it and us.
        let lines = session.shell_ok("seq 1 8000", Duration::from_secs(300))?;
        let expected: String = (1..=8000).map(|n| format!("{n}\n")).collect();
        if lines != expected {
            let at = lines.lines().zip(expected.lines()).position(|(a, b)| a != b);
            fail!(
                "8000 lines were printed; of {} bytes, line {at:?} is the first that is wrong",
                lines.len()
            );
        }
        system.power_off()?;
        no_trouble(system)
    });
}

/// What is typed arrives: every control character, escape sequences, and 64 KiB at once.
#[test]
fn a_guest_gets_what_is_typed() {
    with_system("typed", None, |system| {
        system.shell()?;
        control_characters(system)?;
        ctrl_c_interrupts(system)?;
        pasted(system)?;
        system.power_off()?;
        no_trouble(system)
    });
}

/// Every byte but `Ctrl-]`, and that one typed twice, arrives as it is.
fn control_characters(system: &mut System) -> Result {
    let session = &mut system.session;
    // Typed twice, too: QEMU's own escape, Ctrl-A, and the SysRq key of Linux's hvc console, Ctrl-O.
    let typed: String = (0..0x80u8)
        .map(|byte| if matches!(byte, 1 | 0xf | 0x1d) { [byte; 2].to_vec() } else { vec![byte] })
        .flat_map(|bytes| bytes.into_iter().map(char::from))
        .chain("\x1b[A\x1b[1;5C\x1bOP\x1b[200~ä\x1b[201~".chars())
        .collect();
    let wanted: Vec<u8> = (0..0x80).chain("\x1b[A\x1b[1;5C\x1bOP\x1b[200~ä\x1b[201~".bytes()).collect();
    // Only when the terminal is raw does the guest say that it is ready, so nobody interprets what comes.
    let count = wanted.len();
    session.send(&format!(
        "stty raw -echo; echo rea''dy; dd bs=1 count={count} status=none | od -An -v -tx1 -w16; stty sane; echo do''ne\n"
    ))?;
    session.expect("ready", SOON)?;
    session.send(&typed)?;
    let dump = session.expect("done", SOON)?;
    let got: Vec<u8> = dump.split_whitespace().filter_map(|hex| u8::from_str_radix(hex, 16).ok()).collect();
    if got != wanted {
        fail!("{count} bytes were typed, {wanted:02x?}; the guest got {got:02x?}");
    }
    session.shell_ok("true", SOON).map(drop)
}

/// `^C` ends a program, `^Z` stops one, `^D` is the end of its input.
fn ctrl_c_interrupts(system: &mut System) -> Result {
    let session = &mut system.session;
    for (key, program, status) in
        [("\x03", "sleep 3600", "130"), ("\x1a", "sleep 3600", "148"), ("\x04", "cat", "0")]
    {
        session.send(&format!("(echo rea''dy; exec {program})\n"))?;
        session.expect("ready", SOON)?;
        session.send(key)?;
        session.send("echo stat''us:$?:\n")?;
        session.expect("status:", SOON)?;
        let got = session.expect(":\n", SOON)?;
        if got != status {
            fail!("after {key:?} {program} ended with {got}, not {status}");
        }
    }
    session.shell_ok("kill -9 %1; wait; true", SOON).map(drop)
}

/// 64 KiB at once, first to a guest that does not read for a while, then to one that does.
fn pasted(system: &mut System) -> Result {
    let session = &mut system.session;
    let text: String =
        (0..1000).map(|n| format!("line {n:4} of what was pasted, {:037x}\n", n * 7919)).collect();
    if text.len() < 64 << 10 || text.len() > 72 << 10 {
        fail!("the text has {} bytes", text.len());
    }
    let sum: usize = text.lines().enumerate().map(|(n, line)| (n + 1) * line.len()).sum();
    for wait in ["sleep 5;", ""] {
        // Only when the terminal is ours does the guest say so; ^D at the start of a line is the end.
        session.send(&format!(
            "stty -echo; echo rea''dy; {wait} cat > /root/pasted; stty echo; echo do''ne\n"
        ))?;
        session.expect("ready", SOON)?;
        session.send(&text)?;
        session.send("\x04")?;
        session.expect("done", LONG)?;
        let got = session.shell_ok(
            "wc -lc < /root/pasted; awk '{s += NR * length($0)} END {print s}' /root/pasted",
            SOON,
        )?;
        let got: Vec<&str> = got.split_whitespace().collect();
        let wanted = ["1000".to_owned(), text.len().to_string(), sum.to_string()];
        if got != wanted {
            fail!("{wanted:?} (lines, bytes, sum) were pasted, the guest got {got:?}");
        }
    }
    Ok(())
}

/// Two guests and the shell on one line.
#[test]
fn keys_switch_between_guests_and_the_shell() {
    default_system("keys", |system| {
        for guest in [1, 2] {
            system.alive(guest)?;
        }
        // Each is who it should be.
        for guest in [1, 2, 1] {
            let name = system.guest(guest, "cat /etc/hostname", SOON)?;
            if name != format!("debian{guest}\n") {
                fail!("guest {guest} is {name}");
            }
        }
        shell_line(system)?;
        pasted_to_the_shell(system)?;
        scrollback(system)?;
        // Who reads nothing keeps no key from the others: 100 KiB for a guest that is paused, then Ctrl-].
        system.order("pause", "debian2", "pauses")?;
        system.until("debian2", "paused", |cell| cell.state == "paused")?;
        system.front(2)?;
        system.session.send(&"x".repeat(100 << 10))?;
        system.session.send("\x1d?")?;
        system.session.expect("2  debian2 (in front)", SOON)?;
        system.cell("debian2")?;
        let told = system.printed()?.matches("debian2 does not read what is typed: it is dropped").count();
        if told != 1 {
            fail!("that typed bytes are dropped was told {told} times");
        }
        match system.shutdown()? {
            true => Ok(()),
            false => fail!("the system says that it did not end well"),
        }
    });
}

/// What a guest in the background says is shown when it comes to the front, up to 16 KiB, with a count of what is older.
/// The guest does not wait for anybody, and what it said outlives it.
fn scrollback(system: &mut System) -> Result {
    system.front(1)?;
    system.session.send("stty -echo; echo rea''dy; read -r; seq 1 20000; poweroff\n")?;
    system.session.expect("ready", SOON)?;
    // The line goes to guest 1, but nothing that it says can come before the keys behind it.
    system.session.send("\n\x1d2")?;
    system.session.expect("[console] guest 2: ", SOON)?;
    system.session.expect("[supervisor] guest of vmm_debian1 switched off", LONG)?;
    let session = &mut system.session;
    session.send("\x1d1")?;
    session.expect("[console] guest 1: debian1 (", LONG)?;
    let lost = session.expect(" bytes too old to be kept)", SOON)?;
    let Ok(lost) = lost.parse::<usize>() else { fail!("not a number of bytes: {lost}") };
    let shown = session.expect("\n20000\n", LONG)?;
    // 108894 bytes and the carriage returns, then a line or two of the kernel; 16 KiB are kept, 7 bytes a line.
    let (said, lines) = (108_894 + 20_000, shown.lines().count());
    if !(said - 17_000..said).contains(&lost) || !(2200..2500).contains(&lines) {
        fail!("of {said} bytes {lost} were not kept, and {lines} lines shown");
    }
    // In one piece: after the first line, which may be cut, each is the one before and one.
    let numbers: Vec<u32> = shown.lines().skip(2).filter_map(|line| line.parse().ok()).collect();
    if numbers.windows(2).any(|pair| pair[1] != pair[0] + 1) {
        fail!("the scrollback has a gap: {shown}");
    }
    Ok(())
}

/// History, editing and completion, as a person at a terminal sees them.
fn shell_line(system: &mut System) -> Result {
    system.manage("help")?;
    let session = &mut system.session;
    for (typed, seen) in [
        // A command's name, a cell's name, then the choice.
        ("pau\t", "pause "),
        ("deb\t", "debian"),
        ("\t", "debian1  debian2"),
        ("2\t\r", "debian2: pauses"),
        // The line before, edited: a cursor key, the backspace key.
        ("\x1b[A\x1b[D\x7f1\r", "debian1: pauses"),
        ("\x1b[A\x1b[A\r", "debian2 is paused already"),
        ("resume debian1\r", "debian1: goes on"),
        ("resume debiam2\r", "did you mean debian2?"),
        ("resume 2\r", "debian2: goes on"),
    ] {
        session.send(typed)?;
        session.expect(seen, SOON)?;
    }
    session.expect(SHELL, SOON)?;
    for guest in [1, 2] {
        system.guest(guest, "true", SOON)?;
    }
    Ok(())
}

/// 64 KiB of lines pasted into the shell: each is answered.
fn pasted_to_the_shell(system: &mut System) -> Result {
    system.manage("links")?;
    let lines = 600;
    let paste: String = (0..lines).map(|n| format!("wrong{n:04}{}\r", "x".repeat(100))).collect();
    if paste.len() < 64 << 10 {
        fail!("the text has {} bytes", paste.len());
    }
    system.session.send(&paste)?;
    for n in 0..lines {
        system.session.expect(&format!("there is no command wrong{n:04}xxx"), LONG)?;
    }
    system.session.expect(SHELL, SOON).map(drop)
}
