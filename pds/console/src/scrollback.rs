//! What a guest in the background has said, as much as there is room for.

/// A buffer of bytes whose oldest give way to the newest.
pub struct Scrollback<'a> {
    bytes: &'a mut [u8],
    start: usize,
    len: usize,
    lost: u64,
}

impl<'a> Scrollback<'a> {
    /// Empty, over this memory.
    pub fn new(bytes: &'a mut [u8]) -> Self {
        Scrollback { bytes, start: 0, len: 0, lost: 0 }
    }

    /// Bytes kept.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends; the oldest bytes go if need be.
    pub fn push(&mut self, bytes: &[u8]) {
        let capacity = self.bytes.len();
        // Of more than a round, only the last round counts.
        let skipped = bytes.len().saturating_sub(capacity);
        let bytes = bytes.get(skipped..).unwrap_or(&[]);
        let evicted = (self.len + bytes.len()).saturating_sub(capacity);
        self.lost += (skipped + evicted) as u64;
        self.drop_front(evicted);
        let end = self.start + self.len;
        let at = if end >= capacity { end - capacity } else { end };
        let (head, tail) = bytes.split_at_checked(capacity - at).unwrap_or((bytes, &[]));
        for (part, at) in [(head, at), (tail, 0)] {
            if let Some(to) = self.bytes.get_mut(at..at + part.len()) {
                to.copy_from_slice(part);
            }
        }
        self.len += bytes.len();
    }

    /// The oldest bytes, as many as are contiguous.
    pub fn front(&self) -> &[u8] {
        let end = self.bytes.len().min(self.start + self.len);
        self.bytes.get(self.start..end).unwrap_or(&[])
    }

    /// Forgets the oldest `count` bytes.
    pub fn drop_front(&mut self, count: usize) {
        let count = count.min(self.len);
        self.len -= count;
        self.start += count;
        if self.start >= self.bytes.len() {
            self.start -= self.bytes.len();
        }
    }

    /// Bytes that had to go since the last call.
    pub fn take_lost(&mut self) -> u64 {
        core::mem::take(&mut self.lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    proptest! {
        #[test]
        fn keeps_the_newest(
            capacity in 0usize..20,
            steps in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..30)), 0..40),
        ) {
            let mut memory = vec![0; capacity];
            let mut real = Scrollback::new(&mut memory);
            let (mut model, mut lost) = (VecDeque::new(), 0u64);
            for (push, bytes) in steps {
                if push {
                    real.push(&bytes);
                    model.extend(&bytes);
                    while model.len() > capacity {
                        model.pop_front();
                        lost += 1;
                    }
                } else {
                    let front = real.front().to_vec();
                    prop_assert_eq!(front.is_empty(), model.is_empty());
                    let taken = front.len().min(bytes.len());
                    prop_assert_eq!(&front[..taken], &model.drain(..taken).collect::<Vec<u8>>()[..]);
                    real.drop_front(taken);
                }
                prop_assert_eq!(real.len(), model.len());
            }
            prop_assert_eq!(real.take_lost(), lost);
        }
    }
}
