//! What a guest has said lately: shown, and not shown yet.
//!
//! One ring per console holds both. Output that is not shown is what the guest said in the background; output that was
//! shown is kept as long as there is room, so that one who comes back to a console sees where he was. Positions count all
//! bytes ever said, so nothing here wraps.

/// The ring. The oldest bytes give way to the newest.
pub struct Scrollback<'a> {
    bytes: &'a mut [u8],
    /// Position of the oldest byte kept.
    start: u64,
    /// Position of the next byte to show. Less than `start` if some that were never shown had to go.
    shown: u64,
    /// Position of the next byte said.
    end: u64,
}

impl<'a> Scrollback<'a> {
    /// Empty, over this memory.
    pub fn new(bytes: &'a mut [u8]) -> Self {
        Scrollback { bytes, start: 0, shown: 0, end: 0 }
    }

    /// Whether all of it was shown.
    pub fn is_shown(&self) -> bool {
        self.shown == self.end
    }

    /// Bytes that can be added without losing one that was not shown.
    pub fn room(&self) -> usize {
        (self.bytes.len() as u64).saturating_sub(self.end - self.shown) as usize
    }

    /// Place of a position in `bytes`.
    fn place(&self, position: u64) -> usize {
        position.checked_rem(self.bytes.len() as u64).unwrap_or(0) as usize
    }

    /// Appends; the oldest bytes go if need be.
    pub fn push(&mut self, bytes: &[u8]) {
        let capacity = self.bytes.len();
        self.end += bytes.len() as u64;
        // Of more than a round, only the last round counts.
        let bytes = bytes.get(bytes.len().saturating_sub(capacity)..).unwrap_or(&[]);
        let at = self.place(self.end - bytes.len() as u64);
        let (head, tail) = bytes.split_at_checked(capacity - at).unwrap_or((bytes, &[]));
        for (part, at) in [(head, at), (tail, 0)] {
            if let Some(to) = self.bytes.get_mut(at..at + part.len()) {
                to.copy_from_slice(part);
            }
        }
        self.start = self.start.max(self.end.saturating_sub(capacity as u64));
    }

    /// The kept bytes from `position` on, as many as are contiguous.
    fn from(&self, position: u64) -> &[u8] {
        let at = self.place(position);
        let len = (self.end - position).min((self.bytes.len() - at) as u64) as usize;
        self.bytes.get(at..at + len).unwrap_or(&[])
    }

    /// What is to be shown next, as many bytes as are contiguous.
    pub fn pending(&self) -> &[u8] {
        self.from(self.shown.max(self.start))
    }

    /// The first `count` of [`Scrollback::pending`] are shown.
    pub fn show(&mut self, count: usize) {
        self.shown = self.shown.max(self.start).saturating_add(count as u64).min(self.end);
    }

    /// Gets ready for a reader who comes back: if less than `context` bytes wait, whole lines that were shown before are to
    /// be shown again. Returns the count of bytes that nobody will ever see.
    pub fn rewind(&mut self, context: usize) -> u64 {
        let lost = self.start.saturating_sub(self.shown);
        self.shown = self.shown.max(self.start);
        let mut from = self.end.saturating_sub(context as u64).max(self.start);
        // The first line may be half a line, unless it is the first there ever was.
        let mut in_line = from > 0;
        while in_line && from < self.shown {
            let part = self.from(from);
            let line = part.iter().position(|byte| *byte == b'\n');
            in_line = line.is_none();
            from += line.map_or(part.len(), |at| at + 1) as u64;
        }
        self.shown = self.shown.min(from);
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rest(scrollback: &mut Scrollback<'_>) -> Vec<u8> {
        let mut all = Vec::new();
        while !scrollback.is_shown() {
            let part = scrollback.pending().to_vec();
            assert!(!part.is_empty());
            scrollback.show(part.len());
            all.extend(part);
        }
        all
    }

    #[test]
    fn one_who_comes_back_sees_whole_lines_of_before() {
        let mut memory = [0; 32];
        let mut back = Scrollback::new(&mut memory);
        back.push(b"one\ntwo\nthr");
        assert_eq!(rest(&mut back), b"one\ntwo\nthr");
        assert_eq!((back.rewind(9), rest(&mut back)), (0, b"two\nthr".to_vec()));
        assert_eq!((back.rewind(100), rest(&mut back)), (0, b"one\ntwo\nthr".to_vec()));
        // No line begins within the context: nothing of it.
        assert_eq!((back.rewind(3), rest(&mut back)), (0, vec![]));
        // What was never shown is shown, however much it is.
        back.push(b"ee\nfour");
        assert_eq!((back.rewind(0), rest(&mut back)), (0, b"ee\nfour".to_vec()));
        back.push(&[b'x'; 40]);
        assert_eq!((back.rewind(4), rest(&mut back)), (8, vec![b'x'; 32]));
    }

    proptest! {
        #[test]
        fn keeps_the_newest(
            capacity in 0usize..20,
            steps in prop::collection::vec((0u8..3, prop::collection::vec(any::<u8>(), 0..30)), 0..40),
        ) {
            let mut memory = vec![0; capacity];
            let mut real = Scrollback::new(&mut memory);
            let (mut said, mut shown) = (Vec::new(), 0);
            for (step, bytes) in steps {
                match step {
                    0 => {
                        let room = real.room();
                        prop_assert_eq!(room, capacity.saturating_sub(said.len() - shown));
                        real.push(&bytes);
                        said.extend(&bytes);
                    }
                    1 => {
                        let oldest = said.len().saturating_sub(capacity);
                        shown = shown.max(oldest);
                        let part = real.pending().to_vec();
                        prop_assert_eq!(part.is_empty(), shown == said.len());
                        let count = part.len().min(bytes.len());
                        prop_assert_eq!(&part[..count], &said[shown..shown + count]);
                        real.show(count);
                        shown += count;
                    }
                    _ => {
                        let oldest = said.len().saturating_sub(capacity);
                        prop_assert_eq!(real.rewind(bytes.len()), oldest.saturating_sub(shown) as u64);
                        shown = shown.max(oldest);
                        let from = said.len().saturating_sub(bytes.len()).max(oldest);
                        let lines = match said[from..].iter().position(|byte| *byte == b'\n') {
                            _ if from == 0 => 0,
                            Some(at) => from + at + 1,
                            None => said.len(),
                        };
                        shown = shown.min(lines);
                    }
                }
                prop_assert_eq!(real.is_shown(), shown == said.len());
            }
        }
    }
}
