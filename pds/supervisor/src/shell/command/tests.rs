use super::super::view::PdView;
use super::*;
use crate::lifecycle::Refused;
use crate::manage::mail::Mail;
use crate::manage::{self, Service};
use crate::restarts::{State, Why};
use crate::shell::text::TITLE;
use crate::shell::view::{CellView, DiskView, LinkView, SocketsView};
use partita_config::Partition;
use partita_protocol::MAX_DISKS;
use partita_protocol::stats::Counter;
use partita_protocol::supervisor::StopReason;

/// A system of as many cells and disks as given.
pub struct Fake {
    cells: usize,
    disks: usize,
    links: usize,
    pub orders: std::vec::Vec<(usize, Order)>,
    pub off: bool,
    pub kills: std::vec::Vec<(usize, u32, u32, bool)>,
    pub restarted: std::vec::Vec<usize>,
    pub by: std::vec::Vec<By>,
    pub log: std::string::String,
    /// Bytes of the log that are not kept any more.
    pub forgotten: usize,
    pub mail: Mail,
    pub said: std::vec::Vec<std::string::String>,
    refused: Option<Refused>,
}

const NAMES: [&str; MAX_CELLS] =
    ["debian1", "debian2", "three", "four", "five", "six", "seven", "eight", "a-rather-long-name-for-a-cell"];

impl Fake {
    pub fn two() -> Self {
        Fake {
            cells: 2,
            disks: 1,
            links: 2,
            orders: vec![],
            off: false,
            kills: vec![],
            restarted: vec![],
            by: vec![],
            log: "[timer] ready\n[vmm_debian1] started\n[supervisor] debian2: restarts (shell)\n[vmm_debian10] x\n".into(),
            forgotten: 0,
            mail: Mail::new(),
            said: vec![],
            refused: None,
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

    fn sockets(&self, n: usize) -> Option<SocketsView<'_>> {
        let cid = (n != 1 || self.cells > 2).then_some(3 + n as u32);
        Some(SocketsView {
            cell: self.cell(n)?.name,
            cid,
            counters: core::array::from_fn(|k| 1000 * k as u64),
        })
    }

    fn link(&self, n: usize, peer: usize) -> Option<LinkView<'_>> {
        let peers = [2, 3].get(n)?;
        (n < self.links && peer < *peers).then_some(LinkView {
            link: ["l0", "wide"][n],
            id: [0, 7][n],
            peer,
            cell: NAMES[peer],
            shared: 8192 * n as u64,
            output: 256 << 10,
            rung: 1000 + peer as u64,
            refused: n as u64,
            delivered: 900,
            dropped: 10 * peer as u64,
        })
    }

    fn frequency(&self) -> u64 {
        62_500_000
    }

    fn log(&self, from: u64, out: &mut [u8]) -> (u64, usize) {
        // A few bytes at a time, so that lines are put together.
        let from = (from as usize).max(self.forgotten).min(self.log.len());
        let part = &self.log.as_bytes()[from..];
        let len = part.len().min(out.len()).min(7);
        out[..len].copy_from_slice(&part[..len]);
        (from as u64, len)
    }

    fn order(&mut self, n: usize, order: Order, by: By) -> Result<(), Refused> {
        self.orders.push((n, order));
        self.by.push(by);
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

    fn kill(&mut self, n: usize, count: u32, every: u32, own: bool) -> Result<(), &'static str> {
        self.kills.push((n, count, every, own));
        Ok(())
    }

    fn send(&mut self, to: Option<usize>, _by: By, text: &str) -> usize {
        let cells = (0..self.cells).filter(|n| to.is_none_or(|to| to == *n));
        cells.map(|n| self.mail.post(n, "shell", text)).count()
    }

    fn shut_down(&mut self, by: By) {
        self.by.push(by);
        self.off = true;
    }
}

/// The first cell is manager.
impl Service for Fake {
    fn is_manager(&self, cell: usize) -> bool {
        cell == 0
    }

    fn mail(&mut self) -> &mut Mail {
        &mut self.mail
    }

    fn refused(&mut self, cell: usize, command: &str) {
        self.said.push(format!("{cell} refused {command}"));
    }

    fn missed(&mut self, cell: usize, from: u64, to: u64) {
        self.said.push(format!("{cell} missed {from}..={to}"));
    }

    fn nonsense(&mut self) {
        self.said.push("nonsense".into());
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
    assert_eq!(
        run(&mut system, "sockets"),
        "\
cell     cid  open  made  refused  reset  sent  received  violations
debian1    3  1000     0     2000   3000  3.9K      4.8K        6000
"
    );
    system.cells = 0;
    assert_eq!(run(&mut system, "sockets"), "no cell has a cid, so none has sockets\n");
    system.cells = 2;
    system.disks = 0;
    assert_eq!(run(&mut system, "disks"), "no cell has a disk\n");
    assert_eq!(
        run(&mut system, "links"),
        "\
link  id  peer  cell     shared  output  rung  refused  delivered  dropped
l0     0     0  debian1       0    256K  1000        0        900        0
l0     0     1  debian2       0    256K  1001        0        900       10
wide   7     0  debian1      8K    256K  1000        1        900        0
wide   7     1  debian2      8K    256K  1001        1        900       10
wide   7     2  three        8K    256K  1002        1        900       20
"
    );
    system.links = 0;
    assert_eq!(run(&mut system, "links"), "partita.json has no links\n");
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
fn the_log() {
    let mut system = Fake::two();
    assert_eq!(run(&mut system, "log"), system.log);
    assert_eq!(run(&mut system, "log debian1"), "[vmm_debian1] started\n");
    assert_eq!(run(&mut system, "log debian2"), "[supervisor] debian2: restarts (shell)\n");
    assert_eq!(run(&mut system, "log supervisor"), "[supervisor] debian2: restarts (shell)\n");
    assert_eq!(run(&mut system, "log blk"), "no log line that is kept names blk\n");
    // The oldest line that is kept is half a line.
    system.forgotten = 20;
    assert_eq!(run(&mut system, "log").lines().next(), Some("[supervisor] debian2: restarts (shell)"));
    // Many lines: the last. A line without an end is not one yet.
    system = Fake::two();
    system.log =
        (0..100).map(|n| format!("[timer] line {n}\n")).collect::<std::string::String>() + "[timer] ha";
    let out = run(&mut system, "log");
    assert_eq!(
        (out.lines().count(), out.lines().next(), out.lines().last()),
        (24, Some("[timer] line 76"), Some("[timer] line 99"))
    );
    system.log.clear();
    assert_eq!(run(&mut system, "log"), "no log lines are kept\n");
}

#[test]
fn messages() {
    let mut system = Fake::two();
    assert_eq!(run(&mut system, "send debian2 hello  there"), "sent to 1 cell\n");
    assert_eq!(run(&mut system, "broadcast power goes at noon"), "sent to 2 cells\n");
    system.mail.hello(1, 7, None);
    assert_eq!(system.mail.next_push(1).unwrap().1.text, "hello  there");
    assert_eq!((system.mail.next(0), system.mail.next(1)), (2, 3));
    let long = format!("broadcast {}", "x".repeat(manage::mail::TEXT_MAX + 1));
    assert_eq!(run(&mut system, &long), "a message has 192 bytes at most\n");
    assert!(run(&mut system, "version").ends_with(&format!("management protocol {}\n", manage::PROTOCOL)));
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
        ("log a b", "log takes the name of one cell, or nothing for all: log [NAME]"),
        ("send debian1", "send takes the name of one cell and what to tell it: send NAME TEXT"),
        ("send x y", "there is no cell x; there are: debian1, debian2"),
        ("broadcast", "broadcast takes what to tell: broadcast TEXT"),
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
    assert!(help.contains("  restart   NAME       start it afresh, whatever it does now\n"), "{help}");
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
    assert_eq!(COMMANDS.iter().filter(|c| c.name.len() > 9).count(), 0);
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
    assert_eq!(run(&mut system, "services all"), "services stands alone; nothing can follow it\n");
    assert!(run(&mut system, "restart blk").contains("there is no cell blk"));
    assert_eq!(run(&mut system, "kill blk_disk0"), "blk_disk0: killed 1 times, every 1000 ms\n");
    run(&mut system, "kill blk_disk0 500");
    run(&mut system, "kill timer 3 20");
    run(&mut system, "kill timer 3 20 own");
    assert_eq!(
        system.kills,
        [(4, 1, 1000, false), (4, 500, 1000, false), (0, 3, 20, false), (0, 3, 20, true)]
    );
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
    assert_eq!(system.kills.len(), 4);
}
