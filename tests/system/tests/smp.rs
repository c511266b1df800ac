//! Four vCPUs on one core: all work, take interrupts of their own, and share the core; they can be unplugged, and the guest
//! comes back with all of them after a reset out of a panic. Its disk has a queue for each of them, and none of the queues
//! loses anything when blk dies.

use std::time::Duration;

use partita::{build, fail, failure::Result, session::Session};
use partita_system_tests::fixture::{self, SOON, System, with_machine};

const VCPUS: usize = 4;
/// Each vCPU's loop may get this much, in per cent, of what another's gets: slices of 1 ms over 3 s differ by a few per cent.
const FAIR: u64 = 125;
/// The machine's time is counted in instructions, 8 ns each. With the host's, a slice is over when the host has taken the
/// processor away for as long, and on a loaded one some vCPU got four times what another got.
const COUNTED: &[&str] = &["-icount", "shift=3"];
/// Times that blk dies, some of them with requests in flight.
const KILLS: u32 = 30;
/// Times that this is tried until one was under a request.
const SERIES: usize = 5;
/// For what takes long on a busy machine.
const LONG: Duration = Duration::from_secs(300);
/// One job on each vCPU, and so in each queue: blocks are written, some flushed, and read back with their checksums.
const WORKLOAD: &str = "(n=0; until [ -e /run/q.stop ]; do fio --name=q --directory=/root --size=4M --numjobs=4 --thread \
    --cpus_allowed=0-3 --cpus_allowed_policy=split --bsrange=4k-32k --rw=randwrite --ioengine=libaio --iodepth=8 --direct=1 \
    --fsync=16 --verify=crc32c --verify_fatal=1 --verify_backlog=16 --randseed=$n > /run/q.out 2>&1 || cat /run/q.out \
    >> /run/q.bad; n=$((n+1)); echo $n > /run/q.rounds; done; touch /run/q.end) > /dev/null 2>&1 & true";

/// Rows of /proc/interrupts that begin with `label` or end with `name`: the sums per CPU.
fn interrupts(session: &mut Session, name: &str) -> Result<[u64; VCPUS]> {
    let text = session.shell_ok("cat /proc/interrupts", SOON)?;
    let mut sums = [0; VCPUS];
    for line in text.lines().filter(|line| line.contains(name)) {
        let counts = line.split_whitespace().skip(1).map_while(|word| word.parse::<u64>().ok());
        sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
    Ok(sums)
}

/// All vCPUs are there, progress alike, and have timers and IPIs.
fn all_work(session: &mut Session) -> Result {
    let online = session.shell_ok("nproc; cat /sys/devices/system/cpu/online", SOON)?;
    if online != "4\n0-3\n" {
        fail!("not all vCPUs are online: {online}");
    }
    let timers = interrupts(session, "arch_timer")?;
    let calls = interrupts(session, "IPI")?;
    // Counted from when all four run: the first is alone while the others begin.
    let each = "rm -f /run/loop.*; for n in 0 1 2 3; do taskset -c $n bash -c 'trap \"a=\\$i\" USR1; \
                trap \"echo \\$((i - a)); exit\" TERM; i=0; : > /run/loop.$0; while :; do i=$((i + 1)); done' $n & done; \
                until [ -e /run/loop.0 -a -e /run/loop.1 -a -e /run/loop.2 -a -e /run/loop.3 ]; do sleep 0.1; done; \
                kill -USR1 $(jobs -p); sleep 3; kill $(jobs -p); wait";
    let output = session.shell_ok(&format!("({each}) 2>/dev/null"), LONG)?;
    let progress: Vec<u64> = output.lines().filter_map(|line| line.trim().parse().ok()).collect();
    let (least, most) = (progress.iter().min().copied(), progress.iter().max().copied());
    match (progress.len(), least, most) {
        (VCPUS, Some(least), Some(most)) if least > 0 && 100 * most <= FAIR * least => {}
        _ => fail!("the loops of four vCPUs got to {progress:?}"),
    }
    println!("four equal loops got to {progress:?}");
    let timers: Vec<u64> = after(timers, interrupts(session, "arch_timer")?);
    if timers.iter().any(|count| *count < 20) {
        fail!("timer interrupts of each vCPU in three busy seconds: {timers:?}");
    }
    // A process on each vCPU in turn, and one that is asked for by all.
    session.shell_ok(
        "for n in 0 1 2 3 0 1 2 3; do taskset -c $n true; done; for n in 0 1 2 3; do taskset -p -c $n $$ >/dev/null; done; \
         taskset -p -c 0-3 $$ >/dev/null",
        SOON,
    )?;
    let calls = after(calls, interrupts(session, "IPI")?);
    if calls.contains(&0) {
        fail!("interprocessor interrupts that each vCPU took: {calls:?}");
    }
    Ok(())
}

fn after(before: [u64; VCPUS], now: [u64; VCPUS]) -> Vec<u64> {
    now.iter().zip(before).map(|(now, before)| now.saturating_sub(before)).collect()
}

/// Lets blk die; how many of its deaths met requests in flight.
fn die(system: &mut System) -> Result<u32> {
    system.session.send("\x1d0")?;
    system.session.expect("[console] management shell", SOON)?;
    system.session.send(&format!("kill blk_disk0 {KILLS} 50\r"))?;
    system.session.expect(&format!("kill blk_disk0: done; kills={KILLS} "), LONG)?;
    let counts = system.session.expect("\n", SOON)?;
    println!("blk died under four queues: {}", counts.trim());
    match counts.rsplit_once("in_flight=").and_then(|(_, count)| count.trim().parse().ok()) {
        Some(in_flight) => Ok(in_flight),
        None => fail!("the supervisor says: {counts}"),
    }
}

/// VIRTIO_BLK_F_MQ: a queue for each vCPU; blk dies under requests in all of them.
fn each_has_a_queue(system: &mut System) -> Result {
    let queues = system.session.shell_ok("(cd /sys/block/vda/mq && echo * && cat */cpu_list)", SOON)?;
    if queues != "0 1 2 3\n0\n1\n2\n3\n" {
        fail!("hardware queues of /dev/vda and their vCPUs: {queues}");
    }
    system.session.shell_ok(WORKLOAD, SOON)?;
    // Layout of the files and fio's start are over when this many writes have come.
    let busy = "written() { awk '{ print $5 }' /sys/block/vda/stat; }; from=$(written); \
                until [ $(written) -gt $((from + 200)) ]; do sleep 0.1; done";
    system.session.shell_ok(busy, LONG)?;
    // How many of the deaths meet a request is the machine's affair; that some do is what this is for.
    let mut in_flight = 0;
    for _ in 0..SERIES {
        if in_flight == 0 {
            in_flight = die(system)?;
        }
    }
    if in_flight == 0 {
        fail!("none of blk's deaths met a request in flight, {SERIES} times {KILLS}");
    }
    system.front(1)?;
    system.session.shell_ok("touch /run/q.stop; until [ -e /run/q.end ]; do sleep 0.2; done", LONG)?;
    let rounds = system.session.shell_ok("cat /run/q.bad 2> /dev/null; cat /run/q.rounds", SOON)?;
    if rounds.trim().parse::<u32>().map_or(true, |rounds| rounds < 1) {
        fail!("fio, by round: {rounds}");
    }
    system
        .session
        .shell_ok("! dmesg | grep -E 'I/O error|EXT4-fs error|is not a head|out of range'", SOON)?;
    Ok(())
}

/// CPU_OFF, AFFINITY_INFO and CPU_ON, by Linux's hotplug.
fn unplugged_and_back(session: &mut Session) -> Result {
    session
        .shell_ok("for n in 3 1 2; do echo 0 > /sys/devices/system/cpu/cpu$n/online || exit 1; done", SOON)?;
    let online = session.shell_ok("cat /sys/devices/system/cpu/online", SOON)?;
    if online != "0\n" {
        fail!("three vCPUs were unplugged, online are {online}");
    }
    session
        .shell_ok("for n in 2 3 1; do echo 1 > /sys/devices/system/cpu/cpu$n/online || exit 1; done", SOON)?;
    let log = session.shell_ok("dmesg | grep -c 'psci: CPU. killed'", SOON)?;
    if log != "3\n" {
        fail!("AFFINITY_INFO did not say OFF three times: {log}");
    }
    Ok(())
}

#[test]
fn four_vcpus_share_a_core_and_come_back() {
    let mut context = fixture::one_guest().unwrap();
    let text = context.read_description().unwrap();
    let text = text.replace(r#""memory": "512M","#, r#""memory": "512M", "vcpus": 4,"#);
    // Else each system call takes one lock until the random generator is ready: docs/guest-abi.md, "Several vCPUs".
    let text = text.replace("root=/dev/vda rw", "root=/dev/vda rw randomize_kstack_offset=off");
    context.options.description = context.build_dir().join("test/four-vcpus.json");
    build::write(&context.options.description, text.as_bytes()).unwrap();
    with_machine("smp", Some(&context.options.description), COUNTED, |system| {
        system.shell()?;
        all_work(&mut system.session)?;
        each_has_a_queue(system)?;
        unplugged_and_back(&mut system.session)?;
        // With all vCPUs busy, out of a handler, and the others stopped where they are. At once: the kernel's busy wait of
        // a second is many short turns of WFE, each of which takes long in a machine that counts instructions.
        system.session.send(
            "for n in 1 2 3; do taskset -c $n sha256sum /dev/zero & done; echo -1 > /proc/sys/kernel/panic; \
             echo c > /proc/sysrq-trigger\n",
        )?;
        system.session.expect("[vmm_debian1] guest reset", SOON)?;
        system.shell()?;
        let online = system
            .session
            .shell_ok("for n in 0 1 2 3; do taskset -c $n true || echo $n; done; nproc", SOON)?;
        if online != "4\n" {
            fail!("after the reset not all vCPUs run: {online}");
        }
        system.power_off()
    });
}
