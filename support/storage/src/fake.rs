//! A disk in memory whose requests finish when, and in which order, the test says. It moves data between the disk and
//! "physical" memory, which is the union of the [`FakeRam`]s it was given, and refuses to touch anything else.

use std::vec;
use std::vec::Vec;

use partita_virtio::fake::FakeRam;

use crate::device::{
    BlockDevice, Breach, Command, Completion, Health, Outcome, Properties, RangeLimits, Refused, Request,
    RestartError, SECTOR, Segment,
};

/// What the disk was asked to do.
#[derive(Clone, Debug)]
pub struct Seen {
    /// As submitted.
    pub id: u16,
    /// As submitted.
    pub command: Command,
    /// As submitted.
    pub sector: u64,
    /// As submitted.
    pub sectors: u32,
    /// As submitted.
    pub segments: Vec<Segment>,
}

/// The disk.
#[derive(Debug)]
pub struct FakeDisk {
    properties: Properties,
    memory: Vec<FakeRam>,
    /// Content.
    pub bytes: Vec<u8>,
    /// What would be left after a power cut: content as of the last flush.
    pub durable: Vec<u8>,
    /// Submitted, not yet kicked.
    pub queued: Vec<Seen>,
    /// With the device.
    pub running: Vec<Seen>,
    finished: Vec<Completion>,
    /// All requests ever taken, in order.
    pub log: Vec<Seen>,
    /// Requests for these sectors fail.
    pub bad: core::ops::Range<u64>,
    /// The driver's interrupt was wanted and has come.
    pub interrupt: bool,
    armed: bool,
    /// Requests that finish at the worst moment: after the last look for completions, before the interrupt is armed.
    pub late: usize,
    /// Requests that finish while the device is watched, one with each look.
    pub soon: usize,
    /// Nudges so far.
    pub nudges: usize,
    /// How it is. It may be made to stop.
    pub health: Health,
    /// What the next restarts say.
    pub restarts: Vec<Result<(), RestartError>>,
    /// Restarts that were asked for.
    pub restarted: usize,
}

impl FakeDisk {
    /// A disk of zeroes that reaches `memory`.
    pub fn new(sectors: u64, depth: u16, memory: &[FakeRam]) -> Self {
        let bytes = vec![0; (sectors * SECTOR) as usize];
        let ranges = RangeLimits { max_sectors: 1 << 20, alignment: 8, may_unmap: true };
        Self {
            properties: Properties {
                sectors,
                block_size: 512,
                read_only: false,
                flush: true,
                depth,
                seg_max: 250,
                size_max: u32::MAX,
                topology: None,
                discard: Some(ranges),
                write_zeroes: Some(ranges),
            },
            memory: memory.to_vec(),
            durable: bytes.clone(),
            bytes,
            queued: Vec::new(),
            running: Vec::new(),
            finished: Vec::new(),
            log: Vec::new(),
            bad: 0..0,
            interrupt: false,
            armed: true,
            late: 0,
            soon: 0,
            nudges: 0,
            health: Health::Working,
            restarts: Vec::new(),
            restarted: 0,
        }
    }

    /// To describe another device.
    pub fn properties_mut(&mut self) -> &mut Properties {
        &mut self.properties
    }

    fn interrupts(&mut self) {
        self.interrupt |= core::mem::take(&mut self.armed);
    }

    /// Finishes the running request number `index`.
    pub fn finish(&mut self, index: usize) {
        let seen = self.running.remove(index);
        let touched = seen.sector..seen.sector + u64::from(seen.sectors);
        let failed = touched.start < self.bad.end && self.bad.start < touched.end;
        if !failed {
            self.execute(&seen);
        }
        let outcome = if failed { Outcome::IoError } else { Outcome::Done };
        self.finished.push(Completion { id: seen.id, outcome });
        self.interrupts();
    }

    fn lose(&mut self, requests: Vec<Seen>) {
        self.finished.extend(requests.iter().map(|seen| Completion { id: seen.id, outcome: Outcome::Lost }));
    }

    /// It breaks a rule.
    pub fn stop(&mut self, breach: Breach) {
        self.health = Health::Stopped(breach);
        self.interrupts();
    }

    /// Finishes all running requests in order.
    pub fn finish_all(&mut self) {
        while !self.running.is_empty() {
            self.finish(0);
        }
    }

    fn execute(&mut self, seen: &Seen) {
        let mut at = (seen.sector * SECTOR) as usize;
        let end = at + seen.sectors as usize * SECTOR as usize;
        match seen.command {
            Command::Flush => self.durable.copy_from_slice(&self.bytes),
            Command::Discard => {}
            Command::WriteZeroes { .. } => self.bytes[at..end].fill(0),
            Command::Read | Command::Write => {
                for segment in &seen.segments {
                    let len = segment.len as usize;
                    let ram = self.memory.iter().map(FakeRam::ram).find(|ram| {
                        segment.paddr >= ram.paddr()
                            && segment.paddr + u64::from(segment.len) <= ram.paddr() + ram.size()
                    });
                    let ram = ram.expect("the device reached for memory that is nobody's");
                    let gpa = segment.paddr - ram.paddr() + ram.ipa();
                    let bytes = &mut self.bytes[at..at + len];
                    match seen.command {
                        Command::Read => ram.write(gpa, bytes).expect("in RAM"),
                        _ => ram.read(gpa, bytes).expect("in RAM"),
                    }
                    at += len;
                }
                assert_eq!(at, end, "segments add up");
            }
        }
    }
}

impl BlockDevice for FakeDisk {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn submit(&mut self, request: &Request<'_>) -> Result<(), Refused> {
        let in_flight = |list: &[Seen]| list.iter().any(|seen| seen.id == request.id);
        if self.health == Health::Failed {
            return Err(Refused::Failed);
        }
        assert!(request.id < self.properties.depth && !in_flight(&self.queued) && !in_flight(&self.running));
        if request.command != Command::Flush {
            assert!(request.sectors > 0);
            assert!(request.sector + u64::from(request.sectors) <= self.properties.sectors, "out of range");
        }
        let seen = Seen {
            id: request.id,
            command: request.command,
            sector: request.sector,
            sectors: request.sectors,
            segments: request.segments.to_vec(),
        };
        self.log.push(seen.clone());
        self.queued.push(seen);
        Ok(())
    }

    fn kick(&mut self) {
        if self.health == Health::Working {
            self.running.append(&mut self.queued);
        }
    }

    fn acknowledge(&mut self) {
        self.interrupt = false;
    }

    fn finished(&mut self) -> u16 {
        if self.soon > 0 && !self.running.is_empty() {
            self.soon -= 1;
            self.finish(0);
        }
        self.finished.len() as u16
    }

    fn complete(&mut self) -> Option<Completion> {
        if self.finished.is_empty() { None } else { Some(self.finished.remove(0)) }
    }

    fn arm(&mut self) -> bool {
        if self.late > 0 && !self.running.is_empty() {
            self.late -= 1;
            self.armed = false;
            self.finish(0);
        }
        self.armed = true;
        !self.finished.is_empty()
    }

    fn nudge(&mut self) {
        self.nudges += 1;
        self.armed = true;
        self.interrupts();
    }

    fn health(&self) -> Health {
        self.health
    }

    fn restart(&mut self, drop: u64) -> Result<(), RestartError> {
        self.restarted += 1;
        if let Some(result) = self.restarts.pop() {
            result?;
        }
        self.running.append(&mut self.queued);
        let (lost, kept) =
            core::mem::take(&mut self.running).into_iter().partition(|s| drop & 1 << s.id != 0);
        self.lose(lost);
        self.running = kept;
        self.armed = true;
        self.health = Health::Working;
        Ok(())
    }

    fn give_up(&mut self) {
        self.running.append(&mut self.queued);
        let lost = core::mem::take(&mut self.running);
        self.lose(lost);
        self.health = Health::Failed;
    }
}
