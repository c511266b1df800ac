//! One terminal, several guests: bringing a console to the front, talking to the guest or to the management shell there.
//!
//! Who comes back to a console is shown its last lines again. So whatever is waited for has a number that was not used
//! before.

use std::{
    thread,
    time::{Duration, Instant},
};

use partita::{fail, failure::Result};

use crate::fixture::{BOOT, POWERED_OFF, SOON, System};

/// The management shell's prompt.
pub const SHELL: &str = "partita> ";
/// How often something is looked at.
const POLL: Duration = Duration::from_millis(300);

/// A row of `cells`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Its state.
    pub state: String,
    /// Starts since the first.
    pub epoch: u64,
    /// VM exits.
    pub exits: u64,
    /// Why it ended by itself, or `-`.
    pub ended: String,
}

impl System {
    /// A number that nobody has used.
    fn number(&mut self) -> u32 {
        self.numbers += 1;
        self.numbers
    }

    /// Brings the console of guest `n`, from 1, to the front.
    ///
    /// # Errors
    /// It does not come.
    pub fn front(&mut self, n: usize) -> Result {
        self.session.key(&format!("\x1d{n}"), &format!("[console] guest {n}: "), SOON)
    }

    /// Runs a command in the shell of guest `n`, from 1, which must succeed.
    ///
    /// # Errors
    /// It fails, or the guest does not answer.
    pub fn guest(&mut self, n: usize, command: &str, within: Duration) -> Result<String> {
        self.front(n)?;
        self.session.shell_ok(command, within)
    }

    /// Waits until the shell of guest `n` answers: after a start it has to boot.
    ///
    /// # Errors
    /// It does not.
    pub fn alive(&mut self, n: usize) -> Result {
        self.front(n)?;
        self.session.answers(BOOT).map(drop)
    }

    /// Waits until bytes go through the shared-memory link of guest `n`: its doorbell rings again and again.
    ///
    /// # Errors
    /// It does not.
    pub fn rings(&mut self, n: usize) -> Result {
        let count = "c() { awk '/hivc/ {print $2}' /proc/interrupts; }; a=$(c); \
            until [ $(c) -gt $((a + 3)) ]; do sleep 0.1; done";
        self.guest(n, count, BOOT).map(drop)
    }

    /// Runs a command of the management shell; what it says, with the echo of what was typed. The answers to two commands
    /// that do not exist are around it: the echo may be broken by a log line, and a prompt may be an old one.
    ///
    /// # Errors
    /// No answer.
    pub fn manage(&mut self, command: &str) -> Result<String> {
        let (before, after) = (self.number(), self.number());
        self.session.key("\x1d0", "[console] management shell", SOON)?;
        self.session.send(&format!("nonsense{before}\r"))?;
        self.session.expect(&format!("there is no command nonsense{before}"), SOON)?;
        self.session.expect("\n", SOON)?;
        self.session.send(&format!("{command}\rnonsense{after}\r"))?;
        let said = self.session.expect(&format!("there is no command nonsense{after}"), SOON)?;
        self.session.expect("\n", SOON)?;
        Ok(said)
    }

    /// Has the management shell switch the machine off, and waits for its end; whether the log says that all was well. The
    /// shell may be gone before it answers.
    ///
    /// # Errors
    /// It does not end.
    pub fn shutdown(&mut self) -> Result<bool> {
        self.manage("cells")?;
        self.session.send("shutdown\r")?;
        let (ill, _) = self.session.expect_any(&[POWERED_OFF, "[supervisor] power off: FAILED"], SOON)?;
        self.session.wait(SOON)?;
        Ok(ill == 0)
    }

    /// Gives an order and checks the answer.
    ///
    /// # Errors
    /// Another answer.
    pub fn order(&mut self, order: &str, cell: &str, answer: &str) -> Result {
        let said = self.manage(&format!("{order} {cell}"))?;
        let wanted = format!("{cell}: {answer}");
        if !said.lines().any(|line| line == wanted) {
            fail!("`{order} {cell}` was answered with: {said}");
        }
        Ok(())
    }

    /// What the management shell says of a cell.
    ///
    /// # Errors
    /// There is none.
    pub fn cell(&mut self, name: &str) -> Result<Cell> {
        let table = self.manage("cells")?;
        let row = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let row = row.filter(|words| words.get(1) == Some(&name)).find_map(|words| match words.as_slice() {
            [_, _, state, _, _, epoch, exits, ended] => Some(Cell {
                state: (*state).to_owned(),
                epoch: epoch.parse().ok()?,
                exits: exits.parse().ok()?,
                ended: (*ended).to_owned(),
            }),
            _ => None,
        });
        match row {
            Some(cell) => Ok(cell),
            None => fail!("`cells` says nothing of {name}: {table}"),
        }
    }

    /// Waits until a cell is as `good` says.
    ///
    /// # Errors
    /// It does not become so.
    pub fn until(&mut self, name: &str, what: &str, good: impl Fn(&Cell) -> bool) -> Result<Cell> {
        self.until_within(name, what, SOON, good)
    }

    /// [`System::until`] with a limit of its own.
    ///
    /// # Errors
    /// As that.
    pub fn until_within(
        &mut self,
        name: &str,
        what: &str,
        within: Duration,
        good: impl Fn(&Cell) -> bool,
    ) -> Result<Cell> {
        let end = Instant::now() + within;
        loop {
            let cell = self.cell(name)?;
            if good(&cell) {
                return Ok(cell);
            }
            if Instant::now() > end {
                fail!("{name} does not become {what}: {cell:?}");
            }
            thread::sleep(POLL);
        }
    }

    /// Waits until a cell has been started `epoch` times after the first and runs.
    ///
    /// # Errors
    /// It does not.
    pub fn started(&mut self, name: &str, epoch: u64) -> Result<Cell> {
        self.until(name, &format!("start {epoch}"), |cell| cell.state == "running" && cell.epoch == epoch)
    }
}
