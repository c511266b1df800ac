//! Limits of a disk (`iops`, `bytes_per_second`): who has one keeps to it, and who has none does not notice.
//!
//! With `-icount` the guests' clock counts instructions and idle time, so a busy host makes the test longer, but hardly the
//! rates other. What is read is in the host's page cache: without limits it is there at once. What is left is the host's
//! time for a request, which passes for an idle guest as well: a busy host can only make what was measured slower, so the
//! upper limit holds each time, and the lower one, and what the neighbour feels, the best of a few times.

use partita::{fail, failure::Result};
use partita_system_tests::fixture::{self, BOOT, SOON, System, no_trouble};

/// Requests per second of the first guest's second disk.
const IOPS: u64 = 50;
/// Bytes per second of its third.
const BYTES: u64 = 256 << 10;
/// The disks allow a twentieth of a second's worth at once, and one request, which is not cut.
const BURST: u64 = 20;

/// Reads that the neighbour does in one go.
const READS: u64 = 400;

/// The first guest has two small disks with limits, in the unused sectors before the first partition.
fn description() -> Result<std::path::PathBuf> {
    let limited = format!(
        r#""partition": "debian1" }},
        {{ "controller": "disk0", "partition": {{ "range": {{ "first": 64, "count": 900 }} }}, "iops": {IOPS} }},
        {{ "controller": "disk0", "partition": {{ "range": {{ "first": 1024, "count": 896 }} }}, "bytes_per_second": "{}K" }}]"#,
        BYTES >> 10
    );
    let first = fixture::debian(1, "")?.replace(r#""partition": "debian1" }]"#, &limited);
    fixture::describe("rates", &[first, fixture::debian(2, "")?])
}

/// Microseconds that a command takes in guest `n`, by its own clock.
fn timed(system: &mut System, n: usize, command: &str) -> Result<u64> {
    let timed = format!("a=${{EPOCHREALTIME/./}}; {command} && b=${{EPOCHREALTIME/./}} && echo us=$((b-a))");
    let output = system.guest(n, &timed, BOOT)?;
    match output.lines().find_map(|line| line.strip_prefix("us=")?.parse().ok()) {
        Some(microseconds) => Ok(microseconds),
        None => fail!("`{command}` tells no time: {output}"),
    }
}

fn reads(disk: &str, bytes: u64, count: u64) -> String {
    format!("dd if=/dev/{disk} of=/dev/null bs={bytes} count={count} iflag=direct status=none")
}

/// How often something is measured.
const TIMES: usize = 4;

/// What was done in a second must be the limit, within a few percent below; never more than it and the burst.
fn keeps(system: &mut System, disk: &str, bytes: u64, count: u64, unit: u64, limit: u64) -> Result {
    let (done, largest) = (count * unit, unit);
    for _ in 0..TIMES {
        let microseconds = timed(system, 1, &reads(disk, bytes, count))?;
        let rate = done * 1_000_000 / microseconds.max(1);
        println!("{disk}: {rate} of {limit} per second");
        let most = limit * microseconds / 1_000_000 + limit / BURST + largest;
        if done > most {
            fail!("{disk}: {done} in {microseconds} us, where {most} are allowed");
        }
        if rate >= limit * 85 / 100 {
            return Ok(());
        }
    }
    fail!("{disk}: never in {TIMES} times came near the {limit} per second that are allowed")
}

#[test]
fn a_limited_disk_keeps_to_its_rate_and_the_neighbour_keeps_its_own() {
    let description = description().unwrap_or_else(|failure| panic!("{failure}"));
    fixture::with_machine("rates", Some(&description), &["-icount", "shift=3"], |system| {
        system.session.expect("[blk_", BOOT)?;
        system.alive(1)?;
        system.alive(2)?;
        for n in 1..=2 {
            // Programs into the cache.
            timed(system, n, &reads("vda", 4096, 10))?;
        }
        keeps(system, "vdb", 4096, 100, 1, IOPS)?;
        keeps(system, "vdc", 64 << 10, 7, 64 << 10, BYTES)?;

        // Both disks are kept busy, each by four at once, while the neighbour reads.
        let mut alone = timed(system, 2, &reads("vda", 4096, READS))?;
        let busy = "(until [ -e /run/stop ]; do dd if=/dev/D of=/dev/null bs=64k iflag=direct status=none; done; \
            echo >> /run/ended) > /dev/null 2>&1 & ";
        let all: String = ["vdb", "vdc"].iter().map(|disk| busy.replace('D', disk).repeat(4)).collect();
        system.guest(1, &format!("{all} true"), SOON)?;
        let mut beside = u64::MAX;
        for time in 0..TIMES {
            if time > 0 {
                // Perhaps it was quick because the host was quiet then.
                system.guest(
                    1,
                    "touch /run/stop; until [ $(wc -l < /run/ended) -ge 8 ]; do sleep 0.1; done",
                    BOOT,
                )?;
                alone = alone.max(timed(system, 2, &reads("vda", 4096, READS))?);
                system.guest(1, &format!("rm -f /run/stop /run/ended; {all} true"), SOON)?;
            }
            beside = beside.min(timed(system, 2, &reads("vda", 4096, READS))?);
            println!(
                "the neighbour: {READS} reads in {alone} us alone, in {beside} us beside the limited one"
            );
            if beside <= alone * 3 / 2 {
                break;
            }
        }
        if beside > alone * 3 / 2 {
            fail!("the neighbour needs {beside} us for what it did in {alone} us alone");
        }
        no_trouble(system)?;
        system.session.quit()
    });
}
