//! The machine's memory from outside, by QEMU's gdb server: to do to a system what nobody in it can do.
//!
//! Production code has no hook for what these tests need (a service that spins, a bit that flips), and none is wanted. The
//! gdb server reads and writes physical pages while the machine stands still. Which they are is found by what they hold: the
//! report of the official tool does not say where a program lies in the end ([`Still::pages`]). The protocol is gdb's remote
//! serial protocol, packets `m`, `M`, `c` and `qRcmd`, with QEMU's `Qqemu.PhyMemMode`.

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
/// Physical memory that seL4 and we have on QEMU's board, and how much of it is looked at in one go.
const RAM: std::ops::Range<u64> = 0x6000_0000..0xc000_0000;
const DUMP: u64 = 64 << 20;

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
    /// Where QEMU writes memory for us to search.
    dump: PathBuf,
}

impl Drop for Memory {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.dump);
    }
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
        let mut memory = Self { stream, dump: socket.with_extension("dump") };
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

/// What two digits a byte say.
fn unhex(hex: &str) -> Option<Vec<u8>> {
    let byte = |two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok();
    hex.as_bytes().chunks(2).map(byte).collect()
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
        match unhex(&answer) {
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

    /// A command of QEMU's monitor that says nothing if all is well.
    fn monitor(&mut self, command: &str) -> Result {
        let hex: String = command.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.0.send(&format!("qRcmd,{hex}"))?;
        let mut said = String::new();
        loop {
            let answer = self.0.answer()?;
            match answer.strip_prefix('O') {
                Some("K") if said.is_empty() => return Ok(()),
                Some("K") => fail!("QEMU does not do `{command}`: {}", said.trim()),
                Some(text) => said.extend(unhex(text).unwrap_or_default().into_iter().map(char::from)),
                None => fail!("QEMU's gdb server has no monitor: {answer}"),
            }
        }
    }

    /// Calls `look` with each page of memory and its physical address.
    ///
    /// # Errors
    /// QEMU cannot write memory to a file.
    pub fn pages(&mut self, mut look: impl FnMut(u64, &[u8])) -> Result {
        let file = self.0.dump.clone();
        for start in RAM.step_by(DUMP as usize) {
            self.monitor(&format!("pmemsave {start:#x} {DUMP:#x} \"{}\"", file.display()))?;
            let memory = std::fs::read(&file).map_err(|error| Failure::file("read", &file, &error))?;
            if memory.len() as u64 != DUMP {
                fail!("QEMU wrote {} bytes of memory, not {DUMP}", memory.len());
            }
            for (at, page) in (start..).step_by(PAGE as usize).zip(memory.chunks_exact(PAGE as usize)) {
                look(at, page);
            }
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

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
