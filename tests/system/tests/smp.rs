//! Four vCPUs on one core: all work, take interrupts of their own, and share the core; they can be unplugged, and the guest
//! comes back with all of them after a reset out of a panic.

use std::time::Duration;

use partita::{build, fail, failure::Result, session::Session};
use partita_system_tests::fixture::{self, SOON, with_system};

const VCPUS: usize = 4;
/// Each vCPU's loop may get this many times what another's gets: slices of 1 ms over 3 s differ by a few per cent, the rest is
/// for what else the guest and the host do meanwhile.
const FAIR: u64 = 2;

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
    let each = "for n in 0 1 2 3; do taskset -c $n bash -c 'trap \"echo \\$i; exit\" TERM; i=0; while :; do i=$((i + 1)); \
                done' & done; sleep 3; kill $(jobs -p); wait";
    let output = session.shell_ok(&format!("({each}) 2>/dev/null"), Duration::from_secs(120))?;
    let progress: Vec<u64> = output.lines().filter_map(|line| line.trim().parse().ok()).collect();
    let (least, most) = (progress.iter().min().copied(), progress.iter().max().copied());
    match (progress.len(), least, most) {
        (VCPUS, Some(least), Some(most)) if least > 0 && most <= FAIR * least => {}
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
    with_system("smp", Some(&context.options.description), |system| {
        system.shell()?;
        all_work(&mut system.session)?;
        unplugged_and_back(&mut system.session)?;
        // With all vCPUs busy, out of a handler, and the others stopped where they are.
        system.session.send(
            "for n in 1 2 3; do taskset -c $n sha256sum /dev/zero & done; echo 1 > /proc/sys/kernel/panic; \
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
