//! Bytes for tests, and a checksum that both ends can afford: what the guest tool and the bare-metal guest exchange.

/// A pseudo-random stream that both ends can make (xorshift64*, Vigna 2016).
#[derive(Clone, Debug)]
pub struct Pattern(u64);

impl Pattern {
    /// The stream that every test begins with.
    pub const fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    /// Fills `into`, whose length is a multiple of 8 except in the last call.
    pub fn fill(&mut self, into: &mut [u8]) {
        for chunk in into.chunks_mut(8) {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            let word = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes();
            for (to, from) in chunk.iter_mut().zip(word) {
                *to = from;
            }
        }
    }
}

impl Default for Pattern {
    fn default() -> Self {
        Self::new()
    }
}

/// FNV-1a over words of 8 bytes (the last one filled up with zeros), whatever pieces the bytes come in.
#[derive(Clone, Debug)]
pub struct Checksum {
    hash: u64,
    word: [u8; 8],
    held: usize,
    bytes: u64,
}

impl Checksum {
    /// Of nothing.
    pub const fn new() -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, word: [0; 8], held: 0, bytes: 0 }
    }

    fn mix(&mut self, word: [u8; 8]) {
        self.hash =
            (self.hash ^ u64::from_le_bytes(word)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }

    /// Adds bytes.
    pub fn add(&mut self, mut bytes: &[u8]) {
        self.bytes = self.bytes.wrapping_add(bytes.len() as u64);
        while self.held != 0 {
            let Some((byte, rest)) = bytes.split_first() else { return };
            if let Some(place) = self.word.get_mut(self.held) {
                *place = *byte;
            }
            self.held = (self.held + 1) % 8;
            bytes = rest;
            if self.held == 0 {
                self.mix(self.word);
            }
        }
        let chunks = bytes.chunks_exact(8);
        let rest = chunks.remainder();
        for chunk in chunks {
            self.mix(chunk.try_into().unwrap_or_default());
        }
        self.word = [0; 8];
        for (to, from) in self.word.iter_mut().zip(rest) {
            *to = *from;
        }
        self.held = rest.len();
    }

    /// Of all bytes so far, with their number.
    pub fn finish(&self) -> u64 {
        let mut last = self.clone();
        let (word, bytes) = (last.word, last.bytes);
        last.mix(word);
        last.mix(bytes.to_le_bytes());
        last.hash
    }
}

impl Default for Checksum {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn pieces_do_not_matter_and_every_byte_does() {
        let mut bytes = [0; 100];
        Pattern::new().fill(&mut bytes);
        let whole = |bytes: &[u8]| {
            let mut sum = Checksum::new();
            sum.add(bytes);
            sum.finish()
        };
        for piece in 1..20 {
            let mut sum = Checksum::new();
            bytes.chunks(piece).for_each(|piece| sum.add(piece));
            assert_eq!(sum.finish(), whole(&bytes));
        }
        for n in 0..100 {
            let mut other = bytes;
            other[n] ^= 1;
            assert_ne!(whole(&other), whole(&bytes));
            assert_ne!(whole(&bytes[..n]), whole(&bytes));
        }
        assert_ne!(whole(&[]), whole(&[0]));
    }
}
