//! A device of the board in the hands of a guest: QEMU virt's second PL011, driven by Linux's own driver with interrupts.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use partita::{
    build, fail,
    failure::{Failure, Result},
    session::Session,
};
use partita_system_tests::fixture::{self, SOON, with_machine};

const DEVICE: &str = r#""passthrough": [{
        "name": "serial",
        "address": "0x9040000",
        "guest_address": "0xc000000",
        "irqs": [{ "irq": 40 }],
        "device_tree": { "compatible": ["arm,pl011", "arm,primecell"], "clocks": ["uartclk", "apb_pclk"] }
      }],
      "memory""#;
const LINES: usize = 200;

/// What is plugged into the second serial line.
fn plug(path: &Path) -> Result<UnixStream> {
    let connect = || {
        let plug = UnixStream::connect(path)?;
        plug.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(plug)
    };
    connect().map_err(|error: std::io::Error| Failure::file("connect to", path, &error))
}

fn interrupts(session: &mut Session) -> Result<u64> {
    let row = session.shell_ok("grep uart-pl011 /proc/interrupts", SOON)?;
    // INTID 80 in the guest, which is the first that is free.
    let words: Vec<&str> = row.split_whitespace().collect();
    match (words.get(1).and_then(|count| count.parse().ok()), words.get(3)) {
        (Some(count), Some(&"80")) => Ok(count),
        _ => fail!("not a row of interrupt 80: {row}"),
    }
}

/// Bytes both ways, by interrupts.
fn works(session: &mut Session, plug: &mut UnixStream) -> Result {
    session
        .shell_ok("stty -F /dev/ttyAMA1 raw -echo; exec 7<>/dev/ttyAMA1; echo from the guest >&7", SOON)?;
    let mut came = [0; 15];
    plug.read_exact(&mut came).map_err(|error| Failure::new(format!("nothing came out: {error}")))?;
    if &came != b"from the guest\n" {
        fail!("came out of the second serial line: {:?}", String::from_utf8_lossy(&came));
    }
    let before = interrupts(session)?;
    let lines: String = (0..LINES).map(|n| format!("line {n} from outside\n")).collect();
    let text = format!("begin\n{lines}end\n");
    session.shell_ok("(cat <&7 > /root/in & echo $! > /root/reader)", SOON)?;
    plug.write_all(text.as_bytes())
        .map_err(|error| Failure::new(format!("cannot write into it: {error}")))?;
    let until_end = "timeout 100 sh -c 'until grep -q ^end /root/in; do sleep 0.2; done'";
    session.shell_ok(&format!("{until_end}; kill $(cat /root/reader)"), SOON)?;
    let got = session.shell_ok("sed -n '/^begin$/,$p' /root/in | md5sum", SOON)?;
    let same = format!(
        "(echo begin; for n in $(seq 0 {}); do echo line $n from outside; done; echo end) | md5sum",
        LINES - 1
    );
    let expected = session.shell_ok(&same, SOON)?;
    if got != expected {
        fail!("{LINES} lines were sent to the guest, their sum is {got} instead of {expected}");
    }
    let taken = interrupts(session)? - before;
    session.shell_ok("exec 7>&-", SOON)?;
    if taken < 10 {
        fail!("{LINES} lines came with {taken} interrupts: that is polling");
    }
    println!("{LINES} lines with {taken} interrupts");
    Ok(())
}

#[test]
fn a_guest_drives_the_second_uart_with_the_stock_driver() {
    let mut context = fixture::one_guest().unwrap();
    let text = context.read_description().unwrap().replacen(r#""memory""#, DEVICE, 1);
    context.options.description = context.build_dir().join("test/passthrough.json");
    build::write(&context.options.description, text.as_bytes()).unwrap();
    let socket = std::env::temp_dir().join(format!("partita-uart-{}", std::process::id()));
    let serial = format!("unix:{},server,nowait", socket.display());
    let arguments = ["-serial", "mon:stdio", "-serial", &serial];
    with_machine("passthrough", Some(&context.options.description), &arguments, |system| {
        system.shell()?;
        let mut plug = plug(&socket)?;
        works(&mut system.session, &mut plug)?;
        // A guest that is restarted finds the device as its predecessor left it, with input waiting: the line is high.
        system.session.shell_ok("exec 7<>/dev/ttyAMA1; stty -F /dev/ttyAMA1 raw -echo", SOON)?;
        system.session.send("reboot -f\n")?;
        system.session.expect("[vmm_debian1] guest reset", SOON)?;
        plug.write_all(b"into the gap\n").map_err(|error| Failure::new(format!("cannot write: {error}")))?;
        system.shell()?;
        works(&mut system.session, &mut plug)?;
        system.power_off()
    });
    // QEMU's, gone or not.
    let _ = std::fs::remove_file(&socket);
}
