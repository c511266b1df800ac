//! QEMU's machine protocol, as far as tests need it: to make a disk fail while a guest uses it.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use partita::{
    fail,
    failure::{Failure, Result},
};

/// QEMU's arguments for a server at `socket`.
pub fn arguments(socket: &Path) -> [String; 2] {
    ["-qmp".to_owned(), format!("unix:{},server=on,wait=off", socket.display())]
}

/// A place for the socket: its name must be short.
pub fn socket(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("partita-{}-{name}.qmp", std::process::id()))
}

/// A connection to QEMU.
pub struct Qmp {
    stream: UnixStream,
    answers: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects. The socket's file is removed: one connection is all.
    ///
    /// # Errors
    /// There is no QEMU at `socket`.
    pub fn connect(socket: &Path) -> Result<Self> {
        let stream =
            UnixStream::connect(socket).map_err(|error| Failure::file("connect to", socket, &error))?;
        let _ = std::fs::remove_file(socket);
        let limit = stream.set_read_timeout(Some(Duration::from_secs(60)));
        let answers = limit.and_then(|()| stream.try_clone()).map(BufReader::new);
        let answers = answers.map_err(|error| Failure::file("use", socket, &error))?;
        let mut qmp = Self { stream, answers };
        qmp.execute(r#"{"execute": "qmp_capabilities"}"#)?;
        Ok(qmp)
    }

    /// Runs one command, which is JSON.
    ///
    /// # Errors
    /// QEMU refuses it, or says nothing.
    pub fn execute(&mut self, command: &str) -> Result {
        if let Err(error) = writeln!(self.stream, "{command}") {
            fail!("QEMU does not take `{command}`: {error}");
        }
        loop {
            let mut line = String::new();
            match self.answers.read_line(&mut line) {
                Ok(0) | Err(_) => fail!("QEMU does not answer `{command}`"),
                Ok(_) if line.starts_with(r#"{"return""#) => return Ok(()),
                Ok(_) if line.starts_with(r#"{"error""#) => fail!("QEMU refuses `{command}`: {line}"),
                // The greeting, events.
                Ok(_) => {}
            }
        }
    }

    /// Runs one command of the human monitor.
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub fn monitor(&mut self, line: &str) -> Result {
        self.execute(&format!(
            r#"{{"execute": "human-monitor-command", "arguments": {{"command-line": "{line}"}}}}"#
        ))
    }
}
