//! virtio-vsock between the two Debian guests of the default system, with stock `socat`.
//!
//! `VSOCK_MIB` sets the size of the files (16 if it is not set).

use std::time::Duration;

use partita::{fail, failure::Result};
use partita_system_tests::fixture::{self, BOOT, PATIENT, SOON, System, with_system};

/// For what an emulated guest on a busy machine takes long for: 200 processes begin.
const LONG: Duration = Duration::from_secs(900);

/// Both guests on one terminal.
struct Pair<'a> {
    system: &'a mut System,
    front: usize,
}

impl Pair<'_> {
    fn bring(&mut self, cell: usize) -> Result {
        if self.front != cell {
            self.system.front(cell)?;
            self.front = cell;
        }
        Ok(())
    }

    fn wait_for_shell(&mut self, cell: usize) -> Result {
        self.bring(cell)?;
        self.system.session.answers(BOOT)?;
        // As a variable of its shell.
        self.run(cell, &format!("patient={PATIENT}")).map(drop)
    }

    /// A command that must succeed.
    fn run(&mut self, cell: usize, command: &str) -> Result<String> {
        self.bring(cell)?;
        self.system.session.shell_ok(command, LONG)
    }

    /// A command that must fail with this in its output.
    fn fails(&mut self, cell: usize, command: &str, with: &str) -> Result {
        self.bring(cell)?;
        let outcome = self.system.session.shell(command, LONG)?;
        if outcome.status == 0 || !outcome.output.contains(with) {
            fail!(
                "`{command}` should fail with \"{with}\"; it ended with {}: {}",
                outcome.status,
                outcome.output
            );
        }
        Ok(())
    }

    /// Starts a socat that listens, and waits until it says so. What it says later is in /run/listen, too. Behind a program
    /// that it starts belongs `end-close`: else socat kills one that has not ended a second after the stream, as happens on a
    /// busy machine, and its own process group with it.
    fn listen(&mut self, cell: usize, arguments: &str) -> Result {
        let listening = "grep -qs ' listening on ' /run/listen";
        let start = format!(
            "rm -f /run/listen; socat -d -d {arguments} 2> /run/listen & \
             until {listening} || ! kill -0 $! 2> /dev/null; do sleep 0.1; done; \
             {listening} || {{ cat /run/listen; false; }}"
        );
        self.run(cell, &start).map(drop)
    }

    /// Waits until somebody has connected to the socat of [`Pair::listen`].
    fn connected(&mut self, cell: usize) -> Result {
        self.until(cell, "grep -q 'starting data transfer loop' /run/listen")
    }

    /// Waits until the command succeeds.
    fn until(&mut self, cell: usize, command: &str) -> Result {
        let tries = 250 + 8 * mib();
        self.bring(cell)?;
        let wait = format!(
            "n=0; until {command}; do n=$((n+1)); [ $n -lt {tries} ] || break; sleep 1; done; {command}"
        );
        self.system.session.shell_ok(&wait, LONG + Duration::from_secs(tries)).map(drop)
    }
}

/// Size of the large transfers.
fn mib() -> u64 {
    std::env::var("VSOCK_MIB").ok().and_then(|text| text.parse().ok()).unwrap_or(16)
}

fn first_word(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or_default()
}

#[test]
fn stock_guests_talk_over_vsock() {
    let description = fixture::context(None).unwrap().description();
    with_system("vsock", Some(&description), |system| {
        system.session.expect("[blk_", BOOT)?;
        let mut pair = Pair { system, front: usize::MAX };
        pair.wait_for_shell(1)?;
        pair.wait_for_shell(2)?;
        files_both_ways_at_once(&mut pair)?;
        packets_with_borders(&mut pair)?;
        many_streams(&mut pair)?;
        refused(&mut pair)?;
        a_reader_that_stops(&mut pair)?;
        services(&mut pair)?;
        a_peer_that_restarts(&mut pair)?;
        the_broker_restarts(&mut pair)
    });
}

/// Random bytes, hashed as they leave and as they arrive, so that their number is not limited by the guests' disks.
fn files_both_ways_at_once(pair: &mut Pair<'_>) -> Result {
    let mib = mib();
    for cell in [1, 2] {
        pair.run(cell, "head -c 4M /dev/urandom > /root/out; mkfifo /run/tee")?;
        pair.listen(cell, "-u VSOCK-LISTEN:5000,backlog=64 'SYSTEM:sha256sum > /run/received,end-close'")?;
    }
    for (cell, peer) in [(1, 4), (2, 3)] {
        let send = format!("tee /run/tee | socat -u -b 65536 - VSOCK-CONNECT:{peer}:5000,$patient");
        pair.run(
            cell,
            &format!(
                "sha256sum < /run/tee > /run/hash & (head -c {mib}M /dev/urandom | {send}; \
                 echo ${{PIPESTATUS[*]}} > /run/sent) > /run/errors 2>&1 & true"
            ),
        )?;
    }
    for cell in [1, 2] {
        pair.until(cell, "[ -s /run/sent ]")?;
        pair.run(cell, "cat /run/errors; [ \"$(cat /run/sent)\" = '0 0 0' ]")?;
    }
    for (from, to) in [(1, 2), (2, 1)] {
        // Its end may still be on its way.
        pair.until(to, "[ -s /run/received ]")?;
        let sent = pair.run(from, "cat /run/hash")?;
        let received = pair.run(to, "cat /run/received")?;
        if first_word(&sent) != first_word(&received) {
            fail!("{mib} MiB from debian{from} to debian{to}: sent {sent}, received {received}");
        }
        println!("{mib} MiB from debian{from} to debian{to}: {}", first_word(&sent));
    }
    Ok(())
}

/// SEQPACKET: each message arrives as one, the small ones and one that takes several receive buffers (4 KiB in Linux).
/// socat tells the length of what it takes at once.
fn packets_with_borders(pair: &mut Pair<'_>) -> Result {
    const LENGTHS: [u32; 5] = [1, 5000, 3, 30_000, 100];
    pair.listen(2, "-x -u -b 65536 VSOCK-LISTEN:5000,type=5 CREATE:/run/packets")?;
    pair.run(
        1,
        "mkfifo /run/pipe; socat -u -b 65536 OPEN:/run/pipe,rdonly VSOCK-CONNECT:4:5000,$patient,type=5 & exec 8> /run/pipe",
    )?;
    // Each when the one before has arrived: what waits together in the pipe is sent as one.
    for (n, length) in LENGTHS.into_iter().enumerate() {
        pair.run(1, &format!("dd if=/root/out bs={length} count=1 status=none >&8"))?;
        pair.until(2, &format!("[ $(grep -c length= /run/listen) -gt {n} ]"))?;
    }
    pair.run(1, "exec 8>&-; wait $!")?;
    pair.until(2, "! busybox pidof socat > /dev/null")?;
    let said = pair.run(2, "grep -o 'length=[0-9]*' /run/listen")?;
    let lengths: Vec<u32> =
        said.lines().filter_map(|line| line.strip_prefix("length=")?.parse().ok()).collect();
    if lengths != LENGTHS {
        fail!("messages of {LENGTHS:?} bytes arrived as {lengths:?}: {said}");
    }
    let sends = LENGTHS.map(|length| format!("head -c {length} /root/out;"));
    let sent = pair.run(1, &format!("({}) | sha256sum", sends.concat()))?;
    let received = pair.run(2, "sha256sum < /run/packets")?;
    if first_word(&sent) != first_word(&received) {
        fail!("messages: sent {sent}, received {received}");
    }
    println!("SEQPACKET: {LENGTHS:?} bytes arrived as {lengths:?}, same hash");
    Ok(())
}

/// 200 streams that are all open at a time: each is hashed by a process of its own.
fn many_streams(pair: &mut Pair<'_>) -> Result {
    pair.listen(2, "-u VSOCK-LISTEN:5001,fork,backlog=256 'SYSTEM:sha256sum >> /run/sums,end-close'")?;
    pair.run(1, "mkfifo /run/gate; mkdir /run/many; touch /run/many.ended")?;
    pair.run(
        1,
        "for i in $(seq 200); do head -c 20000 /dev/urandom > /run/many/$i; \
         ((cat /run/many/$i; cat < /run/gate) | socat -u - VSOCK-CONNECT:4:5001,$patient 2>> /run/many.errors; \
         echo >> /run/many.ended) & done; true",
    )?;
    pair.until(2, "[ $(busybox pidof sha256sum | wc -w) = 200 ]")?;
    // Opened again for those that were not there yet.
    pair.run(1, "until [ $(wc -l < /run/many.ended) = 200 ]; do : <> /run/gate; sleep 0.2; done")?;
    pair.run(1, "cat /run/many.errors; [ ! -s /run/many.errors ]")?;
    pair.until(2, "[ $(wc -l < /run/sums) = 200 ]")?;
    let of = |text: String| first_word(&text).to_owned();
    let sent = of(pair.run(
        1,
        "cat /run/many/* > /dev/null; for i in /run/many/*; do sha256sum < $i; done | sort | sha256sum",
    )?);
    let received = of(pair.run(2, "sort /run/sums | sha256sum")?);
    if sent != received {
        fail!("the 200 streams did not arrive as they were sent");
    }
    println!("200 parallel streams: all hashes equal");
    Ok(())
}

fn refused(pair: &mut Pair<'_>) -> Result {
    let reset = "Connection reset by peer";
    for to in ["4:6000", "9:5000", "2:80", "2:1024"] {
        pair.fails(1, &format!("socat -u - VSOCK-CONNECT:{to} 2>&1 < /dev/null"), reset)?;
    }
    // Not a manager.
    pair.fails(2, "socat -u - VSOCK-CONNECT:2:1 2>&1 < /dev/null", reset)
}

/// The receiver's process stands still; another stream of the same sender does not notice.
fn a_reader_that_stops(pair: &mut Pair<'_>) -> Result {
    pair.listen(2, "-u VSOCK-LISTEN:5000 CREATE:/root/in")?;
    pair.run(2, "echo $! > /run/reader; rm -f /run/sums; kill -STOP $(cat /run/reader)")?;
    pair.run(
        1,
        "(socat -u OPEN:/root/out,readbytes=4194304 VSOCK-CONNECT:4:5000,$patient; echo $? > /run/late) & true",
    )?;
    let seconds = std::env::var("VSOCK_STOP").unwrap_or("10".into());
    pair.run(
        1,
        &format!(
            "sleep {seconds}; echo aside | socat -u - VSOCK-CONNECT:4:5001,$patient; [ ! -s /run/late ]"
        ),
    )?;
    pair.until(2, "[ -s /run/sums ]")?;
    pair.run(2, "kill -CONT $(cat /run/reader)")?;
    pair.until(1, "[ -s /run/late ]")?;
    pair.until(2, "! kill -0 $(cat /run/reader) 2> /dev/null")?;
    let sent = pair.run(1, "head -c 4194304 /root/out | sha256sum")?;
    let received = pair.run(2, "sha256sum < /root/in")?;
    if first_word(&sent) != first_word(&received) {
        fail!("what a reader got that stopped for a while: {received}; sent was {sent}");
    }
    println!("a reader stopped for {seconds} s: same hash, another stream went on");
    Ok(())
}

fn services(pair: &mut Pair<'_>) -> Result {
    let sent = pair.run(1, "head -c 100000 /root/out > /run/e; sha256sum < /run/e")?;
    let echo = pair.run(1, "socat -t 100 - VSOCK-CONNECT:2:7,$patient < /run/e | sha256sum")?;
    if first_word(&sent) != first_word(&echo) {
        fail!("echo: sent {sent}, came back {echo}");
    }
    pair.run(2, "head -c 1000000 /root/out | socat -u - VSOCK-CONNECT:2:9,$patient")?;
    let lines =
        pair.run(1, "socat -u VSOCK-CONNECT:2:19,$patient - 2> /dev/null | head -c 148 | tail -c 74")?;
    if !lines.contains("!\"#$%&'()*+,-./0123456789") {
        fail!("chargen: {lines}");
    }
    pair.bring(2)?;
    pair.system.session.send("echo said-by-a-guest | socat -u - VSOCK-CONNECT:2:514,$patient\n")?;
    pair.system.session.expect("[debian2] said-by-a-guest", SOON).map(drop)
}

/// A stream whose other end goes away ends with an error, at once.
fn a_peer_that_restarts(pair: &mut Pair<'_>) -> Result {
    pair.listen(2, "-u VSOCK-LISTEN:5000 CREATE:/root/in")?;
    pair.run(
        1,
        "(socat -u OPEN:/dev/zero VSOCK-CONNECT:4:5000,$patient; echo $? > /run/cut) 2> /run/why & true",
    )?;
    pair.connected(2)?;
    pair.run(1, "[ ! -s /run/cut ]")?;
    pair.system.order("restart", "debian2", "restarts")?;
    pair.front = 0;
    pair.until(1, "[ -s /run/cut ]")?;
    let why = pair.run(1, "cat /run/why /run/cut")?;
    if !(why.contains("reset") || why.contains("Broken pipe")) || why.trim_end().ends_with('0') {
        fail!("the sender should have got an error: {why}");
    }
    pair.wait_for_shell(2)?;
    println!("peer restarted: the sender got {}", why.lines().next().unwrap_or_default());
    again(pair, "after the restart of a peer")
}

/// A new connection works.
fn again(pair: &mut Pair<'_>, when: &str) -> Result {
    pair.run(2, "rm -f /root/in")?;
    pair.listen(2, "-u VSOCK-LISTEN:5000 CREATE:/root/in")?;
    pair.run(1, "head -c 1000000 /root/out | socat -u - VSOCK-CONNECT:4:5000,$patient")?;
    pair.until(2, "[ $(stat -c %s /root/in) = 1000000 ]")?;
    let sent = pair.run(1, "head -c 1000000 /root/out | sha256sum")?;
    let received = pair.run(2, "sha256sum < /root/in")?;
    if first_word(&sent) != first_word(&received) {
        fail!("{when}: sent {sent}, received {received}");
    }
    println!("{when}: a new connection works");
    Ok(())
}

/// Open connections end with an error, a listening socket stays, the guests run on.
fn the_broker_restarts(pair: &mut Pair<'_>) -> Result {
    pair.listen(2, "-u VSOCK-LISTEN:5001,fork CREATE:/dev/null")?;
    pair.run(
        1,
        "rm -f /run/cut; (socat -u OPEN:/dev/zero VSOCK-CONNECT:4:5001,$patient; echo $? > /run/cut) 2> /run/why & true",
    )?;
    pair.connected(2)?;
    pair.run(1, "[ ! -s /run/cut ]")?;
    pair.system.manage("kill ivc")?;
    pair.front = 0;
    pair.until(1, "[ -s /run/cut ]")?;
    let why = pair.run(1, "cat /run/why /run/cut")?;
    if why.trim_end().ends_with("\n0") {
        fail!("the sender should have got an error: {why}");
    }
    // The listening socket from before.
    pair.run(1, "head -c 100000 /root/out | socat -u - VSOCK-CONNECT:4:5001,$patient")?;
    println!("broker restarted: {}", why.lines().next().unwrap_or_default());
    again(pair, "after the restart of the broker")
}
