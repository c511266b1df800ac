//! Keep-alive messages from the cells, and messages to them.
//!
//! Both directions are numbered, so that neither a coalesced interrupt nor a broken stream loses step unnoticed.
//!
//! **To a cell.** Messages are numbered from 1 for each cell, for as long as the system is up. The last [`KEPT`] of a cell
//! that its client has not acknowledged (`got`) are kept. A stream says `hello` with the number of the last one that it has
//! and gets those after it; without a number it goes on behind the last acknowledged one. So a client that reconnects within
//! [`KEPT`] messages loses none, and one that comes later is told how many are gone. A push that found no room is not
//! repeated by itself: the answer to the next `alive` names the number of the message to come, which tells the client that it
//! has missed some, and a `hello` brings them.
//!
//! **From a cell.** `alive` is numbered from 1 in each stream. A number that was skipped is told to the log and to the client.
//!
//! **Watchdog.** From its first `alive` on a cell's signs of life are these messages alone, until it says `bye` or is started
//! afresh: a kernel that ticks while nothing else runs in the guest is not alive.

use heapless::{Deque, String};
use partita_protocol::MAX_CELLS;

/// Bytes of a message's text.
pub const TEXT_MAX: usize = 192;
/// Messages kept for each cell.
pub const KEPT: usize = 8;

/// A message to a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its number.
    pub seq: u64,
    /// Who sent it: `shell`, or the name of a manager.
    pub from: &'static str,
    /// What it says.
    pub text: String<TEXT_MAX>,
}

/// The answer to a `hello`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Number of the first message that will be pushed.
    pub next: u64,
    /// Messages between the client's last one and that, which are gone.
    pub lost: u64,
}

struct Box {
    /// Stream that gets the messages.
    session: Option<u32>,
    kept: Deque<Message, KEPT>,
    /// Number of the next message.
    next: u64,
    /// Number of the next message to push.
    push: u64,
    /// Acknowledged by the client.
    got: u64,
    /// Stream of the last `alive`, and its number.
    alive: Option<(u32, u64)>,
    /// Signs of life so far; `None`: the cell does not give any.
    signs: Option<u64>,
    /// Start of the cell.
    epoch: u32,
}

impl Box {
    const fn new() -> Self {
        Box {
            session: None,
            kept: Deque::new(),
            next: 1,
            push: 1,
            got: 0,
            alive: None,
            signs: None,
            epoch: 0,
        }
    }

    /// Number of the oldest message kept.
    fn oldest(&self) -> u64 {
        self.kept.front().map_or(self.next, |message| message.seq)
    }
}

/// All cells' messages.
pub struct Mail {
    boxes: [Box; MAX_CELLS],
}

impl Default for Mail {
    fn default() -> Self {
        Self::new()
    }
}

impl Mail {
    /// None.
    pub const fn new() -> Self {
        Mail { boxes: [const { Box::new() }; MAX_CELLS] }
    }

    fn of(&mut self, cell: usize) -> Option<&mut Box> {
        self.boxes.get_mut(cell)
    }

    /// A message for a cell. `text` beyond [`TEXT_MAX`] bytes is cut.
    pub fn post(&mut self, cell: usize, from: &'static str, text: &str) {
        let Some(to) = self.of(cell) else { return };
        if to.kept.is_full() {
            to.kept.pop_front();
        }
        let mut kept = String::new();
        let _ = kept.push_str(text.get(..text.floor_char_boundary(TEXT_MAX)).unwrap_or(""));
        // There is room.
        let _ = to.kept.push_back(Message { seq: to.next, from, text: kept });
        to.next += 1;
    }

    /// Number of the next message to a cell.
    pub fn next(&mut self, cell: usize) -> u64 {
        self.of(cell).map_or(1, |to| to.next)
    }

    /// The client of a cell has all messages up to `seq`.
    pub fn got(&mut self, cell: usize, seq: u64) {
        let Some(to) = self.of(cell) else { return };
        // Not those that are still to come.
        to.got = to.got.max(seq.min(to.next - 1));
        while to.kept.front().is_some_and(|message| message.seq <= to.got) {
            to.kept.pop_front();
        }
    }

    /// A stream wants the messages after number `after`, or after the last acknowledged one.
    pub fn hello(&mut self, cell: usize, session: u32, after: Option<u64>) -> Welcome {
        let Some(to) = self.of(cell) else { return Welcome { next: 1, lost: 0 } };
        let after = after.unwrap_or(to.got).min(to.next - 1);
        // A client that says it has them need not get them again.
        let wanted = after + 1;
        let next = wanted.max(to.oldest());
        to.session = Some(session);
        to.push = next;
        Welcome { next, lost: next - wanted }
    }

    /// A sign of life in a stream. The result is how many before it have not arrived.
    pub fn alive(&mut self, cell: usize, session: u32, seq: u64) -> u64 {
        let Some(to) = self.of(cell) else { return 0 };
        to.signs = Some(to.signs.unwrap_or(0).wrapping_add(1));
        let expected = match to.alive {
            Some((known, last)) if known == session => last.saturating_add(1),
            // A new stream counts anew.
            _ => 1,
        };
        to.alive = Some((session, seq));
        seq.saturating_sub(expected)
    }

    /// A cell gives no signs of life any more.
    pub fn bye(&mut self, cell: usize) {
        if let Some(to) = self.of(cell) {
            to.signs = None;
            to.alive = None;
        }
    }

    /// A cell's start number `epoch`: if it is a new one, the streams are gone and the messages wait for the next.
    pub fn started(&mut self, cell: usize, epoch: u32) {
        if self.of(cell).is_some_and(|to| core::mem::replace(&mut to.epoch, epoch) != epoch) {
            self.bye(cell);
            if let Some(to) = self.of(cell) {
                to.session = None;
            }
        }
    }

    /// Signs of life of a cell, if it gives any.
    pub fn signs(&self, cell: usize) -> Option<u64> {
        self.boxes.get(cell)?.signs
    }

    /// The next message to push to a cell, and into which stream.
    pub fn next_push(&self, cell: usize) -> Option<(u32, &Message)> {
        let to = self.boxes.get(cell)?;
        let message = to.kept.iter().find(|message| message.seq >= to.push)?;
        Some((to.session?, message))
    }

    /// It was pushed.
    pub fn pushed(&mut self, cell: usize) {
        let Some(seq) = self.next_push(cell).map(|(_, message)| message.seq) else { return };
        if let Some(to) = self.of(cell) {
            to.push = seq + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pushed(mail: &mut Mail, cell: usize) -> Vec<u64> {
        core::iter::from_fn(|| {
            let seq = mail.next_push(cell)?.1.seq;
            mail.pushed(cell);
            Some(seq)
        })
        .collect()
    }

    use std::vec::Vec;

    #[test]
    fn a_client_that_comes_back_goes_on_where_it_was() {
        let mut mail = Mail::new();
        for _ in 0..3 {
            mail.post(1, "shell", "x");
        }
        assert_eq!(pushed(&mut mail, 1), [0; 0], "nobody asked");
        assert_eq!(mail.hello(1, 5, None), Welcome { next: 1, lost: 0 });
        assert_eq!(pushed(&mut mail, 1), [1, 2, 3]);
        mail.got(1, 2);
        mail.post(1, "shell", "x");
        assert_eq!(mail.next_push(1).map(|(session, message)| (session, message.seq)), Some((5, 4)));
        // The stream broke, the client has forgotten everything.
        assert_eq!(mail.hello(1, 6, None), Welcome { next: 3, lost: 0 });
        assert_eq!(pushed(&mut mail, 1), [3, 4]);
        // Another one knows what it has.
        assert_eq!(mail.hello(1, 7, Some(3)), Welcome { next: 4, lost: 0 });
        // Nonsense is not believed.
        assert_eq!(mail.hello(1, 7, Some(u64::MAX)), Welcome { next: 5, lost: 0 });
        mail.got(1, u64::MAX);
        mail.post(1, "shell", "x");
        assert_eq!(pushed(&mut mail, 1), [5]);
        assert_eq!(mail.hello(9, 7, None), Welcome { next: 1, lost: 0 });
    }

    #[test]
    fn who_comes_too_late_is_told_how_many_are_gone() {
        let mut mail = Mail::new();
        for n in 0..KEPT + 3 {
            mail.post(0, "shell", &n.to_string());
        }
        assert_eq!(mail.hello(0, 1, Some(1)), Welcome { next: 4, lost: 2 });
        assert_eq!(pushed(&mut mail, 0).len(), KEPT);
    }

    #[test]
    fn signs_of_life_that_are_missing_are_counted() {
        let mut mail = Mail::new();
        assert_eq!(mail.signs(0), None);
        assert_eq!((mail.alive(0, 1, 1), mail.alive(0, 1, 2), mail.alive(0, 1, 5)), (0, 0, 2));
        assert_eq!(mail.signs(0), Some(3));
        // Again, and backwards: not missing.
        assert_eq!((mail.alive(0, 1, 5), mail.alive(0, 1, 1)), (0, 0));
        // A new stream begins with 1.
        assert_eq!((mail.alive(0, 2, 1), mail.alive(0, 3, 3)), (0, 2));
        mail.bye(0);
        assert_eq!(mail.signs(0), None);
        assert_eq!(mail.alive(0, 3, u64::MAX), u64::MAX - 1);
        assert_eq!(mail.alive(0, 3, 0), 0);
        mail.started(0, 0);
        assert_eq!(mail.signs(0), Some(2));
        mail.hello(0, 3, None);
        mail.post(0, "shell", "x");
        mail.started(0, 1);
        assert_eq!((mail.signs(0), pushed(&mut mail, 0)), (None, std::vec![]));
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let mut mail = Mail::new();
        mail.post(0, "shell", &"ä".repeat(TEXT_MAX));
        mail.hello(0, 1, None);
        assert_eq!(mail.next_push(0).unwrap().1.text.len(), TEXT_MAX);
    }

    proptest! {
        /// A client that follows the protocol over streams that break gets every message once and in order, or is told.
        #[test]
        fn nothing_is_lost_unsaid(steps in prop::collection::vec(0u8..5, 0..200)) {
            let mut mail = Mail::new();
            let (mut posted, mut have, mut told, mut session) = (0u64, 0u64, 0u64, 0u32);
            let mut connected = false;
            for step in steps {
                match step {
                    0 | 1 => {
                        mail.post(2, "shell", "x");
                        posted += 1;
                    }
                    2 => {
                        session += 1;
                        connected = true;
                        let welcome = mail.hello(2, session, Some(have));
                        prop_assert_eq!(welcome.next, have + welcome.lost + 1);
                        told += welcome.lost;
                        have += welcome.lost;
                    }
                    // The stream takes what there is.
                    3 => {
                        while let Some((to, message)) = mail.next_push(2) {
                            prop_assert_eq!(to, session);
                            let seq = message.seq;
                            mail.pushed(2);
                            if seq != have + 1 {
                                // A gap is seen, and what is kept is asked for.
                                let welcome = mail.hello(2, session, Some(have));
                                told += welcome.lost;
                                have += welcome.lost;
                                continue;
                            }
                            have = seq;
                        }
                        if connected {
                            prop_assert_eq!(have, posted);
                        }
                    }
                    _ => mail.got(2, have),
                }
                prop_assert_eq!(mail.next(2), posted + 1);
                prop_assert!(told <= posted.saturating_sub(KEPT as u64));
            }
        }
    }
}
