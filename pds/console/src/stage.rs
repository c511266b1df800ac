//! Output that is decided but not yet in the UART, and where it leaves the cursor.

use crate::uart::Uart;
use heapless::Deque;

/// Bytes that may wait. A few items of the greatest size ([`crate::mux`] asks for room before it makes one).
const CAPACITY: usize = 2048;

/// A queue of bytes that knows whether its end is at the start of a line.
pub struct Stage {
    bytes: Deque<u8, CAPACITY>,
    at_line_start: bool,
}

impl Default for Stage {
    fn default() -> Self {
        Self::new()
    }
}

impl Stage {
    /// Empty. What was printed before (by firmware, by the kernel) may have left the cursor anywhere, most likely at the
    /// start of a line.
    pub const fn new() -> Self {
        Stage { bytes: Deque::new(), at_line_start: true }
    }

    /// Free bytes.
    pub fn room(&self) -> usize {
        CAPACITY - self.bytes.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether what comes next is at the start of a line.
    pub fn at_line_start(&self) -> bool {
        self.at_line_start
    }

    /// Appends bytes as they are. The caller has looked at [`Stage::room`]; what does not fit is not taken.
    pub fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.bytes.push_back(*byte).is_err() {
                return;
            }
            // After "\n\r" the cursor is where it is after "\r\n".
            self.at_line_start = *byte == b'\n' || (*byte == b'\r' && self.at_line_start);
        }
    }

    /// Hands bytes to the UART; returns how many it took.
    pub fn drain(&mut self, uart: &mut impl Uart) -> usize {
        let mut total = 0;
        // Two slices at most, as the queue wraps.
        for _ in 0..2 {
            let front = self.bytes.as_slices().0;
            let taken = uart.write(front);
            let all = taken == front.len();
            for _ in 0..taken {
                self.bytes.pop_front();
            }
            total += taken;
            if !all {
                break;
            }
        }
        total
    }
}
