use super::super::view::PdView;
use super::*;
use crate::lifecycle::Refused;
use crate::restarts::{State, Why};

/// A system of as many cells and disks as given.
pub struct Fake {
    cells: usize,
    disks: usize,
    pub orders: std::vec::Vec<(usize, Order)>,
    pub off: bool,
    pub kills: std::vec::Vec<(usize, u32, u32)>,
    pub restarted: std::vec::Vec<usize>,
    refused: Option<Refused>,
}

const NAMES: [&str; MAX_CELLS] =
    ["debian1", "debian2", "three", "four", "five", "six", "seven", "eight", "a-rather-long-name-for-a-cell"];

impl Fake {
    pub fn two() -> Self {
        Fake {
            cells: 2,
            disks: 1,
            orders: vec![],
            off: false,
            refused: None,
            kills: vec![],
            restarted: vec![],
        }
    }

    pub fn full() -> Self {
        Fake { cells: MAX_CELLS, disks: MAX_DISKS, ..Self::two() }
    }
}

impl System for Fake {
    fn cell(&self, n: usize) -> Option<CellView<'_>> {
        let (state, reason) = [("running", None), ("off", Some(StopReason::PowerOff))][n % 2];
        let name = *NAMES.get(n).filter(|_| n < self.cells)?;
        Some(CellView {
            name,
            state,
            vcpus_on: 1 - (n as u32 % 2),
            vcpus: 1,
            memory: 512 << 20,
            epoch: n as u32 * 12,
            exits: 4551,
            reason,
        })
    }

    fn counters(&self, n: usize) -> [u64; Counter::ALL.len()] {
        let mut all = [0; Counter::ALL.len()];
        all[Counter::Wfi as usize] = 10 + 90 * n as u64;
        all[Counter::VirtioNotify as usize] = 7;
        all[Counter::Injections as usize] = n as u64 * 12345;
        all
    }

    fn disk(&self, n: usize, number: usize) -> Option<DiskView<'_>> {
        let cell = self.cell(n)?.name;
        (number < self.disks).then_some(DiskView {
            cell,
            number,
            controller: "disk0",
            partition: if n == 0 { Partition::Label("debian1") } else { Partition::Gpt(3) },
            read_only: n == 1,
            first: 2048,
            sectors: if n == 1 { 0 } else { 2097152 },
            reads: 100,
            writes: 20,
            others: 3,
            read_bytes: 12_900_000,
            written_bytes: 4096,
            errors: 1,
            in_flight: 2,
            latency: core::array::from_fn(|n| 10 * n as u64),
        })
    }

    fn frequency(&self) -> u64 {
        62_500_000
    }

    fn order(&mut self, n: usize, order: Order) -> Result<(), Refused> {
        self.orders.push((n, order));
        self.refused.map_or(Ok(()), Err)
    }

    fn pd(&self, n: usize) -> Option<PdView> {
        let (name, why) = [(0, ("timer", None)), (4, ("blk_disk0", Some(Why::Hang)))]
            .into_iter()
            .find(|(id, _)| *id == n)?
            .1;
        let name = name.try_into().unwrap();
        Some(PdView {
            name,
            state: if n == 0 { State::Up } else { State::Held },
            restarts: 5,
            beats: 77,
            why,
        })
    }

    fn restart_pd(&mut self, n: usize) -> Result<(), &'static str> {
        self.restarted.push(n);
        if n == 0 { Err("cannot") } else { Ok(()) }
    }

    fn kill(&mut self, n: usize, count: u32, every: u32) -> Result<(), &'static str> {
        self.kills.push((n, count, every));
        Ok(())
    }

    fn shut_down(&mut self) {
        self.off = true;
    }
}

fn run(system: &mut Fake, line: &str) -> std::string::String {
    let mut words = line.split(' ');
    let name = words.next().unwrap();
    let mut out = std::string::String::new();
    execute(name, &words.collect::<std::vec::Vec<_>>(), system, &mut out).unwrap();
    out
}

#[test]
fn tables() {
    let mut system = Fake::two();
    assert_eq!(
        run(&mut system, "cells"),
        "\
#  name     state    vCPUs  memory  epoch  exits  ended by
1  debian1  running    1/1    512M      0   4551  -
2  debian2  off        0/1    512M     12   4551  power-off
"
    );
    assert_eq!(
        run(&mut system, "disks"),
        "\
cell     disk  controller  window (first+sectors)  mode  reads  writes  others  read  written  errors  in flight
debian1  0     disk0       debian1 (2048+2097152)  rw      100      20       3   12M       4K       1          2
debian2  0     disk0       gpt 3 (not served)      ro      100      20       3   12M       4K       1          2

latency: requests by the time that they were with the device
cell     disk  <32us  <65us  <131us  <262us  <524us  <1ms  <2ms  more
debian1  0         0     10      20      30      40    50    60    70
debian2  0         0     10      20      30      40    50    60    70
"
    );
    assert_eq!(
        run(&mut system, "stats"),
        "            debian1  debian2
exits            17      107
  wfi            10      100
  notify          7        7
injected          0    12345
"
    );
    assert_eq!(
        run(&mut system, "stats debian1"),
        "            debian1
exits            17
  wfi            10
  notify          7
"
    );
    system.disks = 0;
    assert_eq!(run(&mut system, "disks"), "no cell has a disk\n");
    assert_eq!(run(&mut system, "links"), "no links: this version has no inter-VM communication\n");
}

#[test]
fn orders() {
    let mut system = Fake::two();
    assert_eq!(run(&mut system, "restart debian2"), "debian2: restarts\n");
    assert_eq!(run(&mut system, "stop 1"), "debian1: stops\n");
    assert_eq!(system.orders, [(1, Order::Restart), (0, Order::Stop)]);
    system.refused =
        crate::lifecycle::Lifecycle::new(&partita_config::Config::default(), 1).order(0, Order::Pause).err();
    assert_eq!(run(&mut system, "pause debian1"), "debian1 does not exist\n");
    assert_eq!(run(&mut system, "shutdown"), "all guests are stopped, then the machine goes off\n");
    assert!(system.off);
}

#[test]
fn mistakes_are_explained() {
    let script = [
        ("strat debian1", "there is no command strat; did you mean start? (help lists all commands)"),
        ("res", "there is no command res; did you mean resume? (help lists all commands)"),
        ("xyzzy", "there is no command xyzzy (help lists all commands)"),
        ("start", "start takes the name of one cell: start NAME"),
        ("start debian1 debian2", "start takes the name of one cell: start NAME"),
        ("start debain1", "there is no cell debain1; did you mean debian1?"),
        ("start deb", "there is no cell deb; did you mean debian1?"),
        ("start x", "there is no cell x; there are: debian1, debian2"),
        ("start 0", "there is no cell 0; there are: debian1, debian2"),
        ("start 3", "there is no cell 3; there are: debian1, debian2"),
        ("cells debian1", "cells stands alone; nothing can follow it"),
        ("stats a b", "stats takes the name of one cell, or nothing for all: stats [NAME]"),
    ];
    let mut system = Fake::two();
    for (line, expected) in script {
        assert_eq!(run(&mut system, line).trim_end(), expected, "{line}");
    }
    assert!(system.orders.is_empty());
}

#[test]
fn help_names_every_command() {
    let help = run(&mut Fake::two(), "help");
    for command in &COMMANDS {
        assert!(help.contains(&format!("  {} ", command.name)), "{help}");
    }
    assert!(
        help.contains("  restart  NAME    start a guest or a PD afresh, whatever it does now\n"),
        "{help}"
    );
    assert!(help.lines().all(|line| line.len() < 80));
}

#[test]
fn distances() {
    for (a, b, expected) in
        [("", "", 0), ("abc", "", 3), ("", "abc", 3), ("kitten", "sitting", 3), ("ab", "ba", 2)]
    {
        assert_eq!(distance(a, b), expected, "{a} {b}");
    }
    let long = "x".repeat(200);
    assert_eq!(distance(&long, &long), 0);
    assert_eq!(COMMANDS.iter().filter(|c| c.name.len() > 8).count(), 0);
    assert!(Counter::ALL.iter().all(|counter| counter.name().len() <= TITLE - 2));
}

#[test]
fn protection_domains_are_listed_restarted_and_killed() {
    let mut system = Fake::two();
    let lines = run(&mut system, "services");
    let lines: std::vec::Vec<_> = lines.lines().collect();
    assert!(lines[0].starts_with("PD") && lines[0].ends_with("last stopped because"), "{lines:?}");
    assert!(lines[1].contains("timer") && lines[1].contains("up"), "{lines:?}");
    assert!(
        lines[2].contains("blk_disk0") && lines[2].contains("held") && lines[2].contains("it hung"),
        "{lines:?}"
    );
    assert_eq!(run(&mut system, "restart blk_disk0"), "blk_disk0: restarts\n");
    assert_eq!(run(&mut system, "restart timer"), "timer cannot\n");
    assert_eq!(system.restarted, [4, 0]);
    assert_eq!(run(&mut system, "restart debian1"), "debian1: restarts\n");
    assert_eq!(system.orders, [(0, Order::Restart)]);
    assert_eq!(run(&mut system, "restart"), "restart takes the name of a cell or a PD: restart NAME\n");
    assert!(run(&mut system, "restart blk").contains("there is no cell blk"));
    assert_eq!(run(&mut system, "kill blk_disk0"), "blk_disk0: killed 1 times, every 1000 ms\n");
    run(&mut system, "kill blk_disk0 500");
    run(&mut system, "kill timer 3 20");
    assert_eq!(system.kills, [(4, 1, 1000), (4, 500, 1000), (0, 3, 20)]);
    for line in [
        "kill",
        "kill blk_disk0 x",
        "kill blk_disk0 0",
        "kill blk_disk0 1 0",
        "kill blk_disk0 1 2 3",
        "kill blk_disk0 -1",
    ] {
        assert!(run(&mut system, line).starts_with("kill takes"), "{line}");
    }
    assert!(run(&mut system, "kill vmm_x").starts_with("there is no PD vmm_x"));
    assert_eq!(system.kills.len(), 3);
}
