//! In which order clients are told of what was done for them.
//!
//! seL4 puts a thread that it wakes before all ready ones of its priority. So of several VMMs that are told in one go the last
//! runs first, and the guest of the first, made ready last, runs before the others. Where the processor is what guests wait for,
//! a fixed order makes one of them the first every time: it has issued its next request before the others have seen their
//! answers. So the order begins one further each time that there is a choice.

/// Whose turn it was to be told first.
#[derive(Debug, Default)]
pub struct Order {
    first: u32,
}

impl Order {
    /// Of the bits' numbers in `clients`, all once.
    #[inline]
    pub fn of(&mut self, clients: u16) -> impl Iterator<Item = usize> + use<> {
        if !clients.is_power_of_two() {
            let later = clients & !(u16::MAX >> (15 - self.first % 16));
            let from = if later == 0 { clients } else { later };
            self.first = from.trailing_zeros() % 16;
        }
        let (first, mut left) = (self.first, clients.rotate_right(self.first));
        core::iter::from_fn(move || {
            let place = (left != 0).then(|| left.trailing_zeros())?;
            left &= left - 1;
            Some(((place + first) % 16) as usize)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn everybody_is_first_equally_often() {
        for clients in [0b11, 0b1000_0000_0000_0001, 0b1011, u16::MAX] {
            let mut order = Order::default();
            let mut firsts = [0; 16];
            for _ in 0..3 * clients.count_ones() {
                // One alone in between changes nothing.
                assert_eq!(order.of(1 << 5).collect::<Vec<_>>(), [5]);
                firsts[order.of(clients).next().unwrap()] += 1;
            }
            for (client, count) in firsts.into_iter().enumerate() {
                assert_eq!(count, if clients & 1 << client == 0 { 0 } else { 3 }, "{client} of {clients:b}");
            }
        }
    }

    #[test]
    fn everybody_is_told_once() {
        let mut order = Order::default();
        for clients in 0..=u16::MAX {
            let told: Vec<usize> = order.of(clients).collect();
            assert_eq!(told.len(), clients.count_ones() as usize);
            assert_eq!(told.iter().fold(0, |set: u16, client| set | 1 << client), clients);
        }
    }
}
