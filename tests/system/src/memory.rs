//! The machine's memory from outside, by QEMU's gdb server: to do to a system what nobody in it can do.
//!
//! Production code has no hook for what these tests need (a service that spins, a bit that flips), and none is wanted. The
//! image's report says which physical page is which part of which PD; the gdb server reads and writes those while the
//! machine stands still. The protocol is gdb's remote serial protocol, packets `m`, `M`, `c`, with QEMU's
//! `Qqemu.PhyMemMode`.

use std::{
    fmt::Write as _,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use partita::{
    fail,
    failure::{Failure, Result},
};

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// Bytes that QEMU reads in one go; it has room for a packet of 4096 characters.
const PACKET: usize = 1024;
/// `svc #0`.
const SVC: u32 = 0xd400_0001;
/// `mov x7, #-7`, `#-3` and `#-2`: the numbers of `seL4_Recv`, `NBSendRecv` and `ReplyRecv`, a few instructions before it.
const RECV: [u32; 3] = [0x9280_00c7, 0x9280_0047, 0x9280_0027];
const NEAR: usize = 8;
/// `b .`
const SPIN: u32 = 0x1400_0000;

/// QEMU's arguments for a server at `socket`.
pub fn arguments(socket: &Path) -> [String; 2] {
    ["-gdb".to_owned(), format!("unix:{},server=on,wait=off", socket.display())]
}

/// A place for the socket: its name must be short.
pub fn socket(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("partita-{}-{name}.gdb", std::process::id()))
}

/// A connection. The machine runs except while something is done to it.
pub struct Memory {
    stream: UnixStream,
}

impl Memory {
    /// Connects. The socket's file is removed: one connection is all.
    ///
    /// # Errors
    /// There is no QEMU at `socket`, or it is too old.
    pub fn connect(socket: &Path) -> Result<Self> {
        let stream =
            UnixStream::connect(socket).map_err(|error| Failure::file("connect to", socket, &error))?;
        let _ = std::fs::remove_file(socket);
        let limit = stream.set_read_timeout(Some(Duration::from_secs(60)));
        limit.map_err(|error| Failure::file("use", socket, &error))?;
        let mut memory = Self { stream };
        // A connection stops the machine.
        memory.ask("?")?;
        if memory.ask("Qqemu.PhyMemMode:1")? != "OK" {
            fail!("QEMU's gdb server knows no physical addresses");
        }
        memory.send("c")?;
        Ok(memory)
    }

    /// Does something while the machine stands still.
    ///
    /// # Errors
    /// Its, and those of the connection.
    pub fn still<T>(&mut self, what: impl FnOnce(&mut Still<'_>) -> Result<T>) -> Result<T> {
        let stopped = self.stream.write_all(&[3]).map_err(|error| lost(&error)).and_then(|()| self.answer());
        stopped?;
        let result = what(&mut Still(self));
        self.send("c")?;
        result
    }

    fn send(&mut self, packet: &str) -> Result {
        let sum = packet.bytes().fold(0u8, |sum, byte| sum.wrapping_add(byte));
        let sent = self.stream.write_all(format!("${packet}#{sum:02x}").as_bytes());
        sent.map_err(|error| lost(&error))
    }

    fn ask(&mut self, packet: &str) -> Result<String> {
        self.send(packet)?;
        self.answer()
    }

    /// The next packet, without what frames it.
    fn answer(&mut self) -> Result<String> {
        let mut byte = [0];
        let mut packet = Vec::new();
        let mut inside = false;
        loop {
            self.stream.read_exact(&mut byte).map_err(|error| lost(&error))?;
            match (inside, byte[0]) {
                (false, b'$') => inside = true,
                (true, b'#') => break,
                (true, other) => packet.push(other),
                (false, _) => {} // acknowledgements
            }
        }
        let mut sum = [0; 2];
        let end = self.stream.read_exact(&mut sum).and_then(|()| self.stream.write_all(b"+"));
        end.map_err(|error| lost(&error))?;
        Ok(String::from_utf8_lossy(&packet).into_owned())
    }
}

fn lost(error: &std::io::Error) -> Failure {
    Failure::new(format!("QEMU's gdb server does not answer: {error}"))
}

/// The machine while it stands still.
pub struct Still<'a>(&'a mut Memory);

impl Still<'_> {
    /// Reads physical memory.
    ///
    /// # Errors
    /// There is none.
    pub fn read(&mut self, paddr: u64, bytes: usize) -> Result<Vec<u8>> {
        let mut read = Vec::new();
        while read.len() < bytes {
            let some = (bytes - read.len()).min(PACKET);
            read.extend(self.packet(paddr + read.len() as u64, some)?);
        }
        Ok(read)
    }

    fn packet(&mut self, paddr: u64, bytes: usize) -> Result<Vec<u8>> {
        let answer = self.0.ask(&format!("m{paddr:x},{bytes:x}"))?;
        let read: Option<Vec<u8>> = answer
            .as_bytes()
            .chunks(2)
            .map(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok())
            .collect();
        match read {
            Some(read) if read.len() == bytes => Ok(read),
            _ => fail!("QEMU does not read {bytes} bytes at {paddr:#x}: {answer}"),
        }
    }

    /// Writes physical memory.
    ///
    /// # Errors
    /// There is none.
    pub fn write(&mut self, paddr: u64, bytes: &[u8]) -> Result {
        let mut packet = format!("M{paddr:x},{:x}:", bytes.len());
        for byte in bytes {
            let _ = write!(packet, "{byte:02x}");
        }
        match self.0.ask(&packet)?.as_str() {
            "OK" => Ok(()),
            other => fail!("QEMU does not write at {paddr:#x}: {other}"),
        }
    }

    /// Flips a bit.
    ///
    /// # Errors
    /// There is no memory.
    pub fn flip(&mut self, paddr: u64, bit: u8) -> Result {
        let byte = self.read(paddr, 1)?[0];
        self.write(paddr, &[byte ^ 1 << (bit % 8)])
    }
}

/// Physical pages of an object of the image, in order: `mr_inflight.disk0`, `elf_timer`. `report` is the text of report.txt.
pub fn frames(report: &str, object: &str) -> Vec<u64> {
    let mut frames: Vec<(u32, u64)> = report
        .lines()
        .filter_map(|line| {
            let rest = line.split_once(&format!("'frame_{object}_"))?.1;
            let (index, rest) = rest.split_once('\'')?;
            let paddr = rest.split_once("@ 0x")?.1.trim();
            Some((index.parse().ok()?, u64::from_str_radix(paddr, 16).ok()?))
        })
        .collect();
    frames.sort_unstable();
    frames.into_iter().map(|(_, paddr)| paddr).collect()
}

/// A PD that spins as soon as it has received anything: `b .` is behind the system call.
#[derive(Debug)]
pub struct Spin {
    /// Physical addresses, and what was there.
    changed: Vec<(u64, Vec<u8>)>,
}

impl Spin {
    /// Lets the PD `pd` spin.
    ///
    /// # Errors
    /// The report knows no such PD, or its program has no receive.
    pub fn begin(memory: &mut Memory, report: &str, pd: &str) -> Result<Self> {
        let frames = frames(report, &format!("elf_{pd}"));
        memory.still(|machine| {
            let mut changed = Vec::new();
            for frame in frames {
                let page = machine.read(frame, PAGE as usize)?;
                for at in receives(&page) {
                    let at = frame + at as u64;
                    changed.push((at, machine.read(at, 4)?));
                }
            }
            if changed.is_empty() {
                fail!("no receive is found in the program of {pd}");
            }
            changed.iter().try_for_each(|(at, _)| machine.write(*at, &SPIN.to_le_bytes()))?;
            Ok(Self { changed })
        })
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn end(self, memory: &mut Memory) -> Result {
        memory.still(|machine| self.changed.iter().try_for_each(|(at, before)| machine.write(*at, before)))
    }
}

/// Offsets of the instructions behind the system calls that receive in a page of a program.
fn receives(page: &[u8]) -> Vec<usize> {
    let words: Vec<u32> =
        page.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect();
    let behind = |n: usize| words[n.saturating_sub(NEAR)..n].iter().any(|word| RECV.contains(word));
    (0..words.len().saturating_sub(1)).filter(|n| words[*n] == SVC && behind(*n)).map(|n| 4 * n + 4).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receives_are_found_in_a_program() {
        let program: Vec<u8> =
            [0x9280_0087, SVC, RECV[0], 0x5280_0086, SVC, 0xa900_8d02, SVC, RECV[1], SVC, 0xd65f_03c0]
                .into_iter()
                .flat_map(u32::to_le_bytes)
                .collect();
        // The call after it is near as well, and does no harm: it is after a receive in any case.
        assert_eq!(receives(&program), [20, 28, 36]);
        assert!(receives(&program[..8]).is_empty());
    }

    #[test]
    fn pages_are_found_in_the_report() {
        let report = "# Kernel Objects Details: ID, Type, Name, Physical Address\n\
            \t649 - Page(4 KiB): 'frame_elf_blk_disk0_000000001' @ 0x000070174000\n\
            \t648 - Page(4 KiB): 'frame_elf_blk_disk0_000000000' @ 0x000070173000\n\
            \t528 - Page(4 KiB): 'frame_mr_inflight.disk0_000000000' @ 0x000060eed000\n";
        assert_eq!(frames(report, "elf_blk_disk0"), [0x7017_3000, 0x7017_4000]);
        assert_eq!(frames(report, "mr_inflight.disk0"), [0x60ee_d000]);
        assert!(frames(report, "elf_blk").is_empty());
    }
}
